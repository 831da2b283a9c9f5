"""What stands on the terminal, and the least that must be sent to make it the next picture.

Textual sends each line on which something changed, from the left edge of its widget on. Over a line to a far machine, a
countdown then costs its whole row every second; here it costs the cell that changed.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import cast

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.app import App, ReturnType
from textual.events import Resize
from textual.screen import Screen
from textual.strip import Strip

Cell = tuple[str, str]
"""What stands in one cell, and the codes (SGR) it is drawn with; "" in the second cell of a wide character."""

_MOVE = 6  # cells: so many may be drawn again between two changes, where moving over them would cost as much
_BLANK: Cell = (" ", "")
_NORMAL = frozenset({"39", "49"})  # the terminal's own colours: what a reset gives


class Frame:
    """The cells of the terminal as they were sent last. A cell that is not known is sent."""

    def __init__(self) -> None:
        self._lines: dict[int, dict[int, Cell]] = {}

    def forget(self) -> None:
        """Whatever was there may be gone: the terminal has another size, or another program had it."""
        self._lines.clear()

    def changes(self, update: LayoutUpdate | ChopsUpdate, console: RichConsole) -> str:
        """Take an update of the compositor; give what makes the terminal so, "" where it is so already."""
        colours = console._color_system or ColorSystem.TRUECOLOR  # noqa: SLF001 (as Textual's own strips do)
        sent: list[str] = []
        for y, x, cells, width in _drawn(update, colours):
            line = self._lines.setdefault(y, {})
            sent += _written(y, x, cells, line, width)
            line.update(zip(range(x, x + len(cells)), cells, strict=True))
        return "".join(sent)


class Written(CompositorUpdate):
    """What is sent, ready made."""

    def __init__(self, sequences: str) -> None:
        self._sequences = sequences

    def render_segments(self, console: RichConsole) -> str:  # noqa: ARG002 (as it is called)
        return self._sequences


class SparingApp(App[ReturnType]):
    """An app that sends only the cells that changed, and no frame where none did."""

    _frame: Frame | None = None

    def on_resize(self, _event: Resize) -> None:
        """The driver says the size also when it takes the terminal back from another program: all is drawn anew."""
        self.redraw()

    def redraw(self) -> None:
        """Draw all anew: who knows what another program, or a broken line, has written on the terminal."""
        self._frame = None
        self.refresh()

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        writes = self._running and not self._closed and not self.is_headless and not self._batch_count
        if writes and isinstance(renderable, LayoutUpdate | ChopsUpdate):
            self._frame = self._frame or Frame()
            sequences = self._frame.changes(renderable, self.console)
            super()._display(screen, cast("RenderableType", Written(sequences)) if sequences else None)
            return
        if writes and renderable is not None:
            self._frame = None  # we do not know what that draws
        super()._display(screen, renderable)


def _drawn(update: LayoutUpdate | ChopsUpdate, colours: ColorSystem) -> Iterator[tuple[int, int, list[Cell], int]]:
    """The stretches of an update: row, column, cells, and how wide the screen is."""
    if isinstance(update, LayoutUpdate):
        for y, strips in enumerate(update.strips, update.region.y):
            yield y, update.region.x, [cell for strip in strips for cell in _cells(strip, colours)], update.region.right
        return
    for y, first, last in update.spans:
        ends = update.chop_ends[y]
        for end, (x, strip) in zip(ends, update.chops[y].items(), strict=False):
            if strip is None or x >= last or end <= first:
                continue
            cells = _cells(strip, colours)
            begin, stop = max(0, first - x), min(end, last) - x
            if begin < stop:
                yield y, x + begin, cells[begin:stop], ends[-1]


def _cells(strip: Strip, colours: ColorSystem) -> list[Cell]:
    cells: list[Cell] = []
    for segment in strip:
        cells += _of_segment(segment, colours)
    return cells


def _of_segment(segment: Segment, colours: ColorSystem) -> Iterable[Cell]:
    codes = _codes(segment.style, colours) if segment.style else ""
    text = segment.text
    if text.isascii():
        return [(char, codes) for char in text]
    cells: list[Cell] = []
    for char in text:
        wide = cell_len(char)
        if wide:
            cells.append((char, codes))
            cells += [("", codes)] * (wide - 1)
        elif cells:  # it stands on the character before it
            at = next(index for index in range(len(cells) - 1, -1, -1) if cells[index][0])
            cells[at] = (cells[at][0] + char, codes)
    if len(cells) != cell_len(text):  # what is joined otherwise than we know is one thing, wherever it begins
        return [(text, codes), *[("", codes)] * (cell_len(text) - 1)]
    return cells


@lru_cache(maxsize=256)
def _codes(style: Style, colours: ColorSystem) -> str:
    codes = iter(style._make_ansi_codes(colours).split(";"))  # noqa: SLF001 (what `Style.render` writes)
    kept: list[str] = []
    for code in codes:
        if code in ("38", "48"):  # a colour by number or by its parts, which may be any number
            kind = next(codes)
            kept += [code, kind, *(next(codes) for _ in range(1 if kind == "5" else 3))]
        elif code not in _NORMAL:
            kept.append(code)
    return ";".join(kept)


def _written(y: int, x: int, cells: list[Cell], line: dict[int, Cell], width: int) -> Iterator[str]:
    """What draws those of the cells from column `x` on that are others than those on the line."""
    changed = [index for index, cell in enumerate(cells) if line.get(x + index) != cell]
    if not changed:
        return
    # How wide a terminal draws what is not one cell wide is its own affair: what stands behind it is drawn with it.
    both = ((cell[0], line.get(x + index, _BLANK)[0]) for index, cell in enumerate(cells))
    unsure = next((index for index, (new, old) in enumerate(both) if len(new) != 1 or len(old) != 1), len(cells))
    if changed[-1] >= unsure:
        changed = [index for index in changed if index < unsure - 1] + list(range(max(0, unsure - 1), len(cells)))
    blank_from = len(cells)
    if x + len(cells) == width:  # a blank end is erased, not written
        while blank_from and cells[blank_from - 1] == _BLANK:
            blank_from -= 1
        if sum(index >= blank_from for index in changed) <= 3:
            blank_from = len(cells)
    at: int | None = None
    pen = _Pen()
    for index in changed:
        if index >= blank_from:
            break
        if at is None or index - at > _MOVE or any(cell[1] != pen.codes for cell in cells[at:index]):
            yield from pen.moved(y, x + index)
        else:
            for cell in cells[at:index]:
                yield from pen.drawn(cell)
        yield from pen.drawn(cells[index])
        at = index + 1
    if blank_from < len(cells):
        if at != blank_from:
            yield from pen.moved(y, x + blank_from)
        yield from pen.up()
        yield "\x1b[K"
        return
    yield from pen.up()


class _Pen:
    """What the terminal draws with now."""

    def __init__(self) -> None:
        self.codes = ""

    def drawn(self, cell: Cell) -> Iterator[str]:
        if cell[1] != self.codes:
            yield f"\x1b[0;{cell[1]}m" if self.codes and cell[1] else f"\x1b[{cell[1]}m"
            self.codes = cell[1]
        yield cell[0]

    def moved(self, y: int, x: int) -> Iterator[str]:
        yield f"\x1b[{y + 1};{x + 1}H"

    def up(self) -> Iterator[str]:
        if self.codes:
            yield "\x1b[m"
            self.codes = ""
