"""A text to read: paragraphs of styled pieces, wrapped to the width, painted line by line."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console.actions import MOVES
from console.format import safe
from console.widgets.line import Ageing, Piece, strip_of


@dataclass(frozen=True)
class Para:
    """A paragraph. What does not fit on its line goes on `hang` cells from the left."""

    pieces: tuple[Piece, ...] = ()
    hang: int = 0


def para(*pieces: Piece, hang: int = 0) -> Para:
    """A paragraph of these pieces."""
    return Para(pieces, hang)


def heading(text: str, remark: str = "") -> list[Para]:
    """An empty line and a heading."""
    return [Para(), para((f" {text}", "head"), ("  " + remark if remark else "", "dim"))]


class Document(ScrollView, Ageing, can_focus=True):
    """Paragraphs under each other. `tail`: the end stays in view while one has not scrolled away from it."""

    DEFAULT_CSS = """
    Document { height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """
    BINDINGS = [Binding(",".join(move.keys), f"{move.name}", move.help, show=False) for move in MOVES]  # noqa: RUF012

    def __init__(self, *, tail: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tail = tail
        self._paras: tuple[Para, ...] = ()
        self._lines: list[list[Piece]] = []
        self._width = 0
        self._follows = tail  # what one sees is the end: told when one scrolls, not when text or room change

    def show(self, paras: Sequence[Para]) -> None:
        """Take a new text; only lines that changed are painted again."""
        if tuple(paras) == self._paras and self._width == self.size.width:
            return
        self._paras, self._width = tuple(paras), self.size.width
        before, self._lines = self._lines, [line for each in self._paras for line in wrap(each, self._width - 1)]
        if len(before) != len(self._lines):
            self.virtual_size = Size(self.size.width, len(self._lines))
        self._follow()
        top = self.scroll_offset.y
        for y in range(self.size.height):
            if before[top + y : top + y + 1] != self._lines[top + y : top + y + 1]:
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def text(self) -> str:
        """What is shown, as plain text, also what one would have to scroll to."""
        return "\n".join("".join(text for text, _ in line) for line in self._lines)

    def on_resize(self) -> None:
        paras, self._paras = self._paras, ()
        self.show(paras)
        self._follow()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follows = self.tail and new_value >= self.max_scroll_y

    def _follow(self) -> None:
        if self._follows:
            self.action_last()
            self._follows = True  # also where the room there is for it is not known yet

    def action_cursor_up(self) -> None:
        self._go(self.scroll_offset.y - 1)

    def action_cursor_down(self) -> None:
        self._go(self.scroll_offset.y + 1)

    def action_page_up(self) -> None:
        self._go(self.scroll_offset.y - self.size.height + 1)

    def action_page_down(self) -> None:
        self._go(self.scroll_offset.y + self.size.height - 1)

    def action_first(self) -> None:
        self._go(0)

    def action_last(self) -> None:
        self._go(len(self._lines))

    def _go(self, top: int) -> None:
        self.scroll_to(y=max(0, top), animate=False, immediate=True, force=True)

    def render_line(self, y: int) -> Strip:
        index = self.scroll_offset.y + y
        return strip_of(self._lines[index] if index < len(self._lines) else (), self.size.width, self.over)


def wrap(paragraph: Para, width: int) -> list[list[Piece]]:
    """Break a paragraph into lines of at most `width` cells, at spaces where there are any."""
    width = max(width, paragraph.hang + 8)
    lines: list[list[Piece]] = [[]]
    used = 0
    for text, style in paragraph.pieces:
        for word in _words(safe(text)):
            length = cell_len(word)
            if used + len(word.rstrip()) > width and used > paragraph.hang:
                lines.append([(" " * paragraph.hang, "")])
                used = paragraph.hang
                word = word.lstrip()
                length = cell_len(word)
            while used + cell_len(word.rstrip()) > width:  # longer than a line: no space to break at
                head, *tail = chop_cells(word, width - used)
                lines[-1].append((head, style))
                lines.append([(" " * paragraph.hang, "")])
                word, used = "".join(tail), paragraph.hang
                length = cell_len(word)
            if word:
                lines[-1].append((word, style))
                used += length
    return lines


def _words(text: str) -> list[str]:
    """Split after spaces, which stay with the word before them."""
    words: list[str] = []
    start = 0
    for index in range(1, len(text)):
        if text[index - 1] == " " and text[index] != " ":
            words.append(text[start:index])
            start = index
    return [*words, text[start:]] if text else []
