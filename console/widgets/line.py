"""Lines of styled pieces: how every widget here turns text into cells, cleaned and never as markup."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.format import safe

Piece = tuple[str, str]
"""A text and the name of its style."""

# One colour, one meaning: red is broken, yellow waits or wants attention, green is good, cyan is where one is.
# Only the sixteen colours of the terminal's own palette, on its own background.
STYLES: dict[str, Style] = {
    "": Style(),
    "bold": Style(bold=True),
    "dim": Style(dim=True),
    "head": Style(bold=True),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "here": Style(color="cyan", bold=True),
    "key": Style(color="cyan"),
    "alarm": Style(color="red", bold=True, reverse=True),
    "caution": Style(color="yellow", bold=True, reverse=True),
    "cursor": Style(color="cyan", reverse=True),
    "marked": Style(color="cyan", bold=True),
    "letter": Style(dim=True, underline=True),
    "sorted": Style(bold=True),
}


def crop(text: str, width: int, right: bool = False) -> str:
    """Fit text to `width` cells: padded, or cut with an ellipsis."""
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else "…"[:width]
    return " " * (width - length) + text if right else text + " " * (width - length)


def width_of(pieces: Iterable[Piece]) -> int:
    """How many cells the pieces take."""
    return sum(cell_len(safe(text)) for text, _ in pieces)


def strip_of(pieces: Iterable[Piece], width: int, over: str = "") -> Strip:
    """One line of `width` cells. `over` names a style that replaces those of the pieces (the cursor's)."""
    base = STYLES[over] if over else None
    segments: list[Segment] = []
    left = width
    for text, style in pieces:
        shown = safe(text)
        length = cell_len(shown)
        if length > left:
            # A space that no longer fits is no loss to tell of.
            fits = cell_len(shown.rstrip()) <= left
            shown, length = (set_cell_size(shown, left) if fits else crop(shown, left)), left
        if shown:
            segments.append(Segment(shown, base or STYLES[style]))
        left -= length
        if left <= 0:
            break
    if left > 0:
        segments.append(Segment(" " * left, base or STYLES[""]))
    return Strip(segments, width)


class Ageing(Widget):
    """A widget whose content is dimmed, without a colour, once nobody can say whether it is still so."""

    stale = False

    def age(self, stale: bool) -> None:
        """Say whether what it shows is of the past."""
        if stale != self.stale:
            self.stale = stale
            self.refresh()

    @property
    def over(self) -> str:
        """The style that lies over all lines now, or ""."""
        return "dim" if self.stale else ""


class Line(Widget):
    """A widget of one line, painted again only when what it says changes."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._pieces: tuple[Piece, ...] = ()
        self._over = ""

    def say(self, pieces: Sequence[Piece], over: str = "") -> None:
        """Show these pieces. `over` names a style for the whole line."""
        if (tuple(pieces), over) != (self._pieces, self._over):
            self._pieces, self._over = tuple(pieces), over
            self.refresh(Region(0, 0, self.size.width, 1))

    @property
    def said(self) -> str:
        """What is shown, as plain text."""
        return "".join(safe(text) for text, _ in self._pieces)

    def render_line(self, y: int) -> Strip:
        return strip_of(self._pieces if y == 0 else (), self.size.width, self._over)
