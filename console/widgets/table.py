"""A virtual table: it draws only the lines one sees, over a window of rows that may be half a million."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rich.cells import cell_len
from textual.binding import Binding
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from console import faults
from console.actions import MOVES
from console.format import Moment, safe
from console.widgets.columns import GAP, Column, Fitted, Need, fit
from console.widgets.line import Ageing, Piece, crop, strip_of

R = TypeVar("R")


class Table(ScrollView, Ageing, Generic[R], can_focus=True):
    """Rows under a header line. Cursor and marks stay on the key of their row when rows move.

    The rows are a window beginning at `start` of `total`; when one sees beyond it, the table posts `Wanted`. When
    the row pointed at goes away, nothing is pointed at (`lost`) until the cursor is moved: a verb must never meet
    another row than the one that was chosen. `follow`: while the cursor is on the first row it stays first, for
    lists that grow at the top. `stays_on_top`: so it is until the cursor is first moved, for lists that have the worst
    at their top.
    """

    DEFAULT_CSS = """
    Table { height: 1fr; width: 1fr; overflow-x: hidden; overflow-y: scroll; scrollbar-size-vertical: 1; }
    """
    BINDINGS = [Binding(",".join(move.keys), f"{move.name}", move.help, show=False) for move in MOVES]  # noqa: RUF012

    class Wanted(Message):
        """Rows are seen that are not in the window."""

        def __init__(self, table: "Table[Any]") -> None:
            super().__init__()
            self.table = table

        @property
        def control(self) -> "Table[Any]":
            return self.table

    class Moved(Message):
        """The cursor was moved, or what it stood on went away."""

    class Chosen(Message):
        """The row under the cursor was clicked on once more."""

    def __init__(
        self,
        columns: Sequence[Column[R]],
        key: Callable[[R], str],
        *,
        empty: str,
        follow: bool = False,
        stays_on_top: bool = False,
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.key = key
        self.empty = empty
        self.follow = follow
        self._stays_on_top = stays_on_top
        self.total = 0
        self.start = 0
        self.rows: tuple[R, ...] = ()
        self.cursor = 0
        self.cursor_key: str | None = None
        self.lost = False
        self.marks: set[str] = set()
        self.sort = ""
        self.trouble = ""
        self.is_loaded = False  # before that nobody knows whether there is nothing
        self.always_here = False  # the cursor shows although another widget has the focus
        self.moment = Moment(0.0)
        self._fitted: list[Fitted[R]] = []
        self._needs: list[Need] = []
        self._seen: dict[int, Strip] = {}

    # -- what is shown --------------------------------------------------------------------------------------------

    def show(self, rows: Sequence[R], moment: Moment, *, total: int | None = None, start: int = 0) -> None:
        """Take a new window of rows; only lines that changed are painted again."""
        self.rows, self.start, self.moment = tuple(rows), start, moment
        self.total = len(rows) if total is None else max(total, start + len(rows))
        self.trouble, self.is_loaded = "", True
        was_lost = self.lost
        self._keep_cursor()
        size = Size(self.size.width, self.total + 1)
        if size != self.virtual_size:
            self.virtual_size = size
        self._into_view()
        self._measure()
        self.repaint()
        if self.lost != was_lost:
            self.post_message(self.Moved())
        if not self._covered():
            self.post_message(self.Wanted(self))

    def use(self, columns: Sequence[Column[R]]) -> None:
        """Have these columns from the next rows on."""
        if self.columns != tuple(columns):
            self.columns = tuple(columns)
            self._needs, self._fitted = [], []

    def sorts(self) -> dict[str, str]:
        """The letters that sort, and by what."""
        return {column.letter: column.sort for column in self.columns if column.letter}

    def hold(self, rows: Sequence[R]) -> None:
        """Take the rows it begins with, before it is on the screen."""
        self.rows, self.total, self.is_loaded = tuple(rows), len(rows), True

    def fail(self, why: str) -> None:
        """Say why there is nothing new to show. What is there stays."""
        self.trouble = why
        self.repaint()

    def tick(self, moment: Moment) -> None:
        """Time has passed: countdowns change, and only their lines."""
        self.moment = moment
        self.repaint()

    def repaint(self) -> None:
        """Paint the lines that differ from what is on the screen."""
        for y in range(self.size.height):
            strip = self._line(y)
            if self._seen.get(y) != strip:
                self._seen[y] = strip
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def page(self) -> int:
        """How many rows one sees at a time."""
        return max(1, self.size.height - 1)

    @property
    def top(self) -> int:
        """The first row one sees."""
        return self.scroll_offset.y

    @property
    def pointed(self) -> R | None:
        """The row under the cursor, or None when it is not here or went away."""
        return None if self.lost else self._row(self.cursor)

    @property
    def is_settled(self) -> bool:
        """Whether it is known what the cursor stands on, if on anything."""
        return self.lost or not self.total or self._row(self.cursor) is not None

    def row_of(self, key: str) -> R | None:
        """The row of this key, when it is in the window."""
        return next((row for row in self.rows if self.key(row) == key), None)

    def toggle_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away, and go one down."""
        row = self.pointed
        if row is not None:
            self.marks ^= {self.key(row)}
            self.action_cursor_down()
            self.repaint()

    def to_top(self) -> None:
        """Point at the first row, as for a new listing."""
        self.cursor, self.cursor_key, self.lost = 0, None, False
        self._needs.clear()  # other rows will need other widths
        self.scroll_to(y=0, animate=False, immediate=True)

    # -- moving ---------------------------------------------------------------------------------------------------

    def move(self, to: int) -> None:
        """Point at a row."""
        self._stays_on_top = False
        to = max(0, min(to, self.total - 1))
        row = self._row(to)
        self.cursor, self.lost = to, False
        # Where a list grows at its top, the first row is "the newest", whichever that is.
        self.cursor_key = None if row is None or (self.follow and to == 0) else self.key(row)
        self._into_view()
        self.repaint()
        self.post_message(self.Moved())
        if not self._covered():
            self.post_message(self.Wanted(self))

    def action_cursor_up(self) -> None:
        self.move(self.cursor - 1)

    def action_cursor_down(self) -> None:
        self.move(self.cursor + 1)

    def action_page_up(self) -> None:
        self.move(self.cursor - self.page)

    def action_page_down(self) -> None:
        self.move(self.cursor + self.page)

    def action_first(self) -> None:
        self.move(0)

    def action_last(self) -> None:
        self.move(self.total - 1)

    def on_click(self, event: Click) -> None:
        row = self.top + event.y - 1
        if event.y >= 1 and row < self.total:
            again = row == self.cursor and not self.lost and event.chain > 1
            self.move(row)
            if again:
                self.post_message(self.Chosen())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        self.move(self.cursor + 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        self.move(self.cursor - 3)

    def on_resize(self) -> None:
        self._needs.clear()
        self._measure()
        self._seen.clear()
        self.virtual_size = Size(self.size.width, self.total + 1)
        self._into_view()
        if not self._covered():
            self.post_message(self.Wanted(self))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._seen.clear()
        if not self._covered():
            self.post_message(self.Wanted(self))

    # -- keeping one's place --------------------------------------------------------------------------------------

    def _keep_cursor(self) -> None:
        at = {self.key(row): self.start + index for index, row in enumerate(self.rows)}
        inside = self.start <= self.cursor < self.start + len(self.rows) or self.cursor >= self.total
        if self.cursor_key is not None and self.cursor_key in at:
            moved = at[self.cursor_key] - self.cursor
            self.cursor += moved
            if moved:  # the row stays where it is on the screen; the others move around it
                self.scroll_now(None, max(0, self.top + moved))
        elif self.cursor_key is not None and inside:
            self.cursor_key, self.lost = None, True
        self.cursor = max(0, min(self.cursor, self.total - 1))
        is_on_top = self.cursor == 0 and (self.follow or self._stays_on_top)
        if self.cursor_key is None and not self.lost and not is_on_top:
            row = self._row(self.cursor)
            self.cursor_key = None if row is None else self.key(row)

    def _into_view(self) -> None:
        if self.size.height <= 1:
            return
        top = min(max(self.top, self.cursor - self.page + 1), self.cursor, max(0, self.total - self.page))
        if top != self.top:
            self.scroll_now(None, top)

    def scroll_now(self, x: float | None, y: float | None) -> None:
        """Scroll at once, with nothing moving on the way."""
        self.scroll_to(x, y, animate=False, immediate=True, force=True)

    def _covered(self) -> bool:
        last = min(self.total, self.top + self.page)
        return self.top >= last or (self.start <= self.top and last <= self.start + len(self.rows))

    def _row(self, index: int) -> R | None:
        place = index - self.start
        return self.rows[place] if 0 <= place < len(self.rows) else None

    # -- drawing --------------------------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        strip = self._line(y)
        self._seen[y] = strip
        return strip

    def _line(self, y: int) -> Strip:
        width = self.size.width
        if self.trouble and (y == 1 if not self.total else y == self.size.height - 1):
            return strip_of([("  ✗ ", "bad"), (self.trouble, "bad")], width)
        if not self.total:
            says_so = y == 1 and self.is_loaded and not self.trouble
            return strip_of([("  ", ""), (self.empty, "dim")] if says_so else (), width)
        if y == 0:
            return strip_of(self._header(), width)
        index = self.top + y - 1
        if index >= self.total:
            return strip_of((), width)
        row = self._row(index)
        here = index == self.cursor and (self.has_focus or self.always_here)
        if row is None:
            return strip_of([("▸ " if here else "  ", "here"), ("…", "dim")], width)
        mark = self.key(row) in self.marks
        prefix: list[Piece] = [
            (("▹" if self.lost else "▸") if here else " ", "here"),
            ("✱" if mark else " ", "marked"),
        ]
        over = "cursor" if here and not self.lost else "marked" if mark else self.over
        return strip_of(prefix + self._cells(row, self.moment if here else self.moment.coarse), width, over)

    def _cells(self, row: R, moment: Moment) -> list[Piece]:
        pieces: list[Piece] = []
        for fitted in self._fitted:
            text, style = self._cell(fitted.column, row, moment)
            pieces.append((crop(safe(text), fitted.width, fitted.column.right), style))
            pieces.append((" " * GAP, ""))
        return pieces[:-1]

    def _measure(self) -> None:
        """Fit the columns to what their rows need; they never become narrower, so that rows do not dance."""
        needs = [self._need(column) for column in self.columns]
        if self._needs:
            needs = [now | before for now, before in zip(needs, self._needs, strict=True)]
        if needs != self._needs or not self._fitted:
            self._needs = needs
            self._fitted = fit(self.columns, self.size.width - 3, needs)

    def _need(self, column: Column[R]) -> Need:
        return Need.of([safe(self._cell(column, row, self.moment)[0]) for row in self.rows])

    def _cell(self, column: Column[R], row: R, moment: Moment) -> Piece:
        try:
            return column.cell(row, moment)
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            faults.note(error)
            return "?", "dim"  # one odd value must not take the screen away

    def _header(self) -> list[Piece]:
        pieces: list[Piece] = [("  ", "")]
        for fitted in self._fitted:
            column = fitted.column
            pieces += _title(column.title, column.letter, fitted.width, column.right, self._arrow(column))
            pieces.append((" " * GAP, ""))
        return pieces[:-1]

    def _arrow(self, column: Column[R]) -> str:
        if not column.sort or self.sort.removeprefix("-") != column.sort:
            return ""
        return "▾" if self.sort.startswith("-") else "▴"


def _title(title: str, letter: str, width: int, right: bool, arrow: str) -> list[Piece]:
    """A column's title with the letter that sorts by it underlined, and an arrow where it does."""
    said = crop(title, min(width, cell_len(title)))
    room = width - cell_len(said) - cell_len(arrow)
    if room < 0:
        said, room = said[:room], 0
    style = "sorted" if arrow else "dim"
    at = said.lower().find(letter.lower()) if letter else -1
    pieces: list[Piece] = [(said, style)]
    if at >= 0:
        pieces = [(said[:at], style), (said[at], "letter"), (said[at + 1 :], style)]
    pieces.append((arrow, "sorted"))
    pad: Piece = (" " * room, "")
    return [pad, *pieces] if right else [*pieces, pad]
