"""The queue: every recipient of every message, however many there are; and one destination with its own."""

from dataclasses import replace
from typing import NamedTuple

from textual.app import ComposeResult
from textual.widget import Widget

from console import words
from console.actions import FILTER_HELP, Target, domain_filter, group_filter
from console.format import Moment
from console.screens.front import Front
from console.widgets.document import Para, para
from console.widgets.line import Piece
from console.widgets.note import Note
from console.widgets.panes import destination_target
from console.widgets.rows import CONDITIONS, QUEUE, UNKNOWN
from console.widgets.table import Table
from engine.control.client import Client
from engine.model.destination import Destination
from engine.model.message import Entry

KNOWN = 20  # other domains of a site that the engine tells of, and there may be more
NAMED = 2  # other domains of a site, in the line that tells of it
PAGE = 200  # rows asked for at a time, around what one sees


class _Window(NamedTuple):
    total: int
    start: int
    rows: tuple[Entry, ...]


class QueueScreen(Front):
    """A window of the queue, filtered and sorted by the engine."""

    tab = "2"
    base_filter = ""  # what cannot be taken away from the filter

    def __init__(self) -> None:
        super().__init__()
        self._filter = ""
        self._window: _Window | None = None
        self._all = False
        self._rows: Table[Entry] = Table(QUEUE, lambda row: row.id, empty="the queue is empty", id="queue")
        self._rows.sort = "id"

    def body(self) -> ComposeResult:
        yield self._rows

    @property
    def context(self) -> str:
        return "queue"

    def main(self) -> Widget | None:
        return self._rows

    def table(self) -> Table[Entry]:
        return self._rows

    @property
    def filter(self) -> str:
        return self._filter

    @property
    def filter_help(self) -> str | None:
        return FILTER_HELP

    @property
    def whole_filter(self) -> str:
        """The filter the engine is asked with."""
        return self._whole(self._filter)

    def _whole(self, filter: str) -> str:
        return " ".join(part for part in (self.base_filter, filter) if part)

    async def set_filter(self, text: str) -> None:
        whole = self._whole(text)
        window = await self.console.client.queue(whole, self._rows.sort, 0, PAGE)
        self._filter = text
        self._rows.to_top()
        self._unmark()
        self._take(_Window(window.total, window.offset, window.rows), self.console.moment)

    async def reload(self, client: Client) -> None:
        start = max(0, self._rows.top + self._rows.page // 2 - PAGE // 2)
        asked = (self.whole_filter, self._rows.sort)
        window = await client.queue(*asked, start, PAGE)
        if asked == (self.whole_filter, self._rows.sort):  # else the rows are those of another filter or order
            self._window = _Window(window.total, window.offset, window.rows)

    def show(self, moment: Moment) -> None:
        if self._window is not None:
            self._take(self._window, moment)

    def _take(self, window: _Window, moment: Moment) -> None:
        self._window = window
        self._rows.empty = "nothing matches the filter" if self._filter else self.none
        self._rows.show(window.rows, moment, total=window.total, start=window.start)
        if self._all:
            self._rows.marks |= {row.id for row in window.rows}
            self._rows.repaint()
        self.freshen()

    @property
    def none(self) -> str:
        """What is said when there is nothing."""
        return "the queue is empty"

    def sorts(self) -> dict[str, str]:
        return self._rows.sorts()

    def sort_by(self, field: str) -> None:
        self._rows.sort = f"-{field}" if self._rows.sort == field else field
        self._rows.to_top()

    # -- marks ----------------------------------------------------------------------------------------------------

    def toggle_mark(self) -> None:
        """Mark the row pointed at. Where all were marked, the marks are taken away first."""
        if self._all:
            self._unmark()
        self._rows.toggle_mark()
        self.freshen()

    def mark_all(self) -> None:
        """Mark all that match the filter, also those one does not see; again takes it back."""
        self._all = not self._all
        self._rows.marks = {row.id for row in self._rows.rows} if self._all else set()
        self._rows.repaint()
        self.freshen()

    def _unmark(self) -> None:
        self._all = False
        self._rows.marks.clear()
        self._rows.repaint()

    def clear(self) -> bool:
        if self._rows.marks or self._all:
            self._unmark()
        elif self._filter:
            self._filter = ""
            self._rows.to_top()
        else:
            return False
        self.freshen()
        return True

    def place(self) -> str:
        if self._all:
            return f"{f'/{self._filter}  ' if self._filter else ''}✱ all {self._rows.total:,} marked "
        return super().place()

    def target(self) -> Target | None:
        if self._all:
            return Target("all that match", filter=self.whole_filter)
        if self._rows.marks:
            marks = sorted(self._rows.marks, key=_by_number)
            what = "the marked one" if len(marks) == 1 else f"{len(marks):,} marked"
            return Target(what, filter=f"id={','.join(marks)}", single=len(marks) == 1)
        row = self._rows.pointed
        if row is None:
            return None
        return Target(row.id, filter=f"id={row.id}", single=True, destination=row.destination)

    def open_pointed(self) -> None:
        row = self._rows.pointed
        if row is not None:
            self.console.open_message(row.message)


class ReasonScreen(QueueScreen):
    """The mail that waits for one reason; what is filtered is filtered within it."""

    tab = ""

    def __init__(self, why: str) -> None:
        super().__init__()
        self._why = why
        self.base_filter = group_filter(why)

    @property
    def none(self) -> str:
        return "no mail waits for this any more"

    def crumbs(self) -> list[str]:
        return ["Reasons", self._why]


class DestinationScreen(QueueScreen):
    """One destination: what keeps it, what it said last, its exchanges, and its messages."""

    tab = ""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.destination = name
        self.base_filter = domain_filter(name)
        self._view: Destination | None = None

    def body(self) -> ComposeResult:
        yield Note(id="about")
        yield self._rows

    @property
    def context(self) -> str:
        return "destination"

    @property
    def none(self) -> str:
        return "no mail waits for this destination"

    def crumbs(self) -> list[str]:
        return ["Overview", self.destination]

    async def reload(self, client: Client) -> None:
        self._view = await client.destination(self.destination)
        await super().reload(client)

    def show(self, moment: Moment) -> None:
        super().show(moment)
        self.tick(moment)

    def tick(self, moment: Moment) -> None:
        super().tick(moment)
        overview = self.console.overview
        if self._view is not None and overview is not None:
            self.query_one(Note).show(about(self._view, moment))

    def target(self) -> Target | None:
        """The message pointed at or the marked ones, and the destination for what acts on that.

        Where the message pointed at has left nothing takes its place, least of all the mail of the whole destination.
        """
        overview = self.console.overview
        whole = (
            Target(self.destination, destination=self.destination)
            if overview is None or self._view is None
            else replace(destination_target(self._view, overview), filter="")
        )
        mail = super().target()
        return whole if mail is None else replace(whole, what=mail.what, filter=mail.filter, single=mail.single)


def about(view: Destination, moment: Moment) -> list[Para]:
    """What is to be known of a destination."""
    bad = {mark.host: mark for mark in view.marked}
    counts = f"{view.waiting:,} waiting · {view.due:,} due · {view.held:,} held · {view.relaying:,} being relayed"
    oldest = f" · oldest {moment.since(view.oldest)}" if view.oldest else ""
    paras = [para(("  mail       ", "dim"), (counts + oldest, ""), hang=13)]
    paras.append(para(("  status     ", "dim"), *_status(view, moment), hang=13))
    if view.override:
        instead = (f"✎ to {view.override.to}", "warn"), (" instead of its own exchanges", "")
        paras.append(para(("  override   ", "dim"), *instead, hang=13))
    if view.last is not None:
        style = {"delivered": "good", "permanent": "bad"}.get(view.last.kind, "warn")
        said = [(view.last.line, style)]
        if view.last.host:
            said.append((f"  {view.last.host}", ""))
        if view.last_at is not None:
            said.append((f" at {moment.clock(view.last_at)}, {moment.since(view.last_at)} ago", "dim"))
        paras.append(Para((("  last reply ", "dim"), *said), 13))
    pieces = [("  exchanges  ", "dim")]
    for index, host in enumerate(view.exchanges):
        mark = bad.get(host)
        pieces.append((", " if index else "", ""))
        pieces.append((f"▼ {host} (bad, back in {moment.left(mark.until)})" if mark else host, "bad" if mark else ""))
    if view.exchanges:
        paras.append(Para(tuple(pieces), 13))
    if view.neighbours:
        paras.append(para(("  site       ", "dim"), (f"shared with {_some(view.neighbours)}", ""), hang=13))
    return [*paras, Para()]


def _status(view: Destination, moment: Moment) -> list[Piece]:
    """What its mail is, until when, and why."""
    glyph, style = CONDITIONS.get(view.condition, UNKNOWN)
    said, why = words.status(view, moment)
    if view.last is not None and why == f": {view.last.line}":  # the last reply stands below it
        why = ""
    return [(f"{glyph} {said}", style), (why, "")] if said else [("no mail waits", "dim")]


def _some(names: tuple[str, ...]) -> str:
    more = "many" if len(names) >= KNOWN else str(len(names) - NAMED)
    return ", ".join(names[:NAMED]) + (f" and {more} more" if len(names) > NAMED else "")


def _by_number(entry: str) -> tuple[int, ...]:
    return tuple(int(part) for part in entry.split(".") if part.isdigit())
