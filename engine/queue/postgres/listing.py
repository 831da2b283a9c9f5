"""What operators look at: windows of the queue, a message, destinations, why mail waits, events; and counts."""

from collections.abc import Sequence

from engine.model.claim import ROOM, Room
from engine.model.destination import Destination, HeldBack, Totals
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Entry, Message, Selection, Window
from engine.model.order import Ending
from engine.model.reason import Reason
from engine.queue import contract
from engine.queue.errors import NoSuchMessage
from engine.queue.postgres import destinations, endings, happenings
from engine.queue.postgres.answers import CostlyAnswers
from engine.queue.postgres.bearings import entries_of
from engine.queue.postgres.database import Database, Role, read
from engine.queue.postgres.held_back import held_back, held_back_counts
from engine.queue.postgres.reasons import reasons
from engine.queue.postgres.selection import JOIN, chosen, newest_message
from engine.queue.postgres.transaction import Row, Snapshot
from engine.queue.postgres.where import Where, looked_up, numbered
from engine.queue.rows import ENTRY_COLUMNS, MESSAGE_COLUMNS, message_of
from engine.queue.windows import part_of, sort_of


class Listing(Role, contract.Listing):
    """Rows are found by index and given by the window; counts that take long are given again for a while."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._due_counts = destinations.DueCounts()
        self._reasons = CostlyAnswers()
        self._held_back = CostlyAnswers()

    async def totals(self, room: Room = ROOM) -> Totals:
        return await destinations.totals(self.database, self._due_counts, room)

    @read
    async def window(self, s: Snapshot, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        by = sort_of(sort)
        offset, limit = max(0, offset), max(0, limit)
        selected = await looked_up(s, filter, s.now)
        total = await _count(s, filter, selected)
        part = part_of(total, offset, limit)
        order = by.order(turned=part.turned)
        join = JOIN if selected.joins or by.joins else ""
        query = (
            f"SELECT {ENTRY_COLUMNS} FROM (SELECT e.message, e.number FROM entry e{join} WHERE {selected.sql} "
            f"ORDER BY {order} LIMIT ? OFFSET ?) page "
            f"JOIN entry e ON e.message = page.message AND e.number = page.number{JOIN} "
            f"ORDER BY {order}"
        )
        rows = await s.fetch(numbered(query), *selected.values, part.wanted, part.passed_over)
        if part.turned:
            rows.reverse()
        return Window(total=total, offset=offset, rows=await entries_of(s, rows))

    @read
    async def message(self, s: Snapshot, number: int) -> Message:
        row = await s.row(f"SELECT {MESSAGE_COLUMNS} FROM message WHERE number = $1", number)
        entries = await _entries(s, number)
        if row is None or not entries:
            raise NoSuchMessage(f"there is no message {number} in the queue")
        return message_of(number, row, entries, await _attempts(s, number))

    @read
    async def destinations(
        self, s: Snapshot, match: str, sort: str, offset: int, limit: int
    ) -> tuple[int, tuple[Destination, ...]]:
        return await destinations.destinations(s, match, sort, offset, limit, self._due_counts)

    @read
    async def destination(self, s: Snapshot, name: str) -> Destination:
        return await destinations.destination(s, name, self._due_counts)

    @read
    async def select(
        self, s: Snapshot, filter: Filter, newest: int | None = None, until: float | None = None
    ) -> Selection:
        bound = await newest_message(s) if newest is None else newest
        return await chosen(s, await looked_up(s, filter, s.now, bound), bound, until=until)

    @read
    async def lets_go(self, s: Snapshot, ending: Ending, name: str) -> Selection:
        return await endings.lets_go(s, ending, name)

    async def reasons(self, limit: int) -> tuple[Reason, ...]:
        return await self._reasons.of(limit, lambda: self.database.ask(lambda s: reasons(s, limit)))

    async def held_back(self, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
        return await self._held_back.of(tuple(hosts), lambda: self.database.ask(lambda s: held_back(s, hosts)))

    async def held_back_counts(self) -> dict[str, int]:
        return await self._held_back.of(None, lambda: self.database.ask(held_back_counts))

    @read
    async def events(
        self,
        s: Snapshot,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        return await happenings.events(s, before=before, after=after, message=message, match=match, limit=limit)


async def _count(s: Snapshot, filter: Filter, selected: Where) -> int:
    if not filter.terms:
        return int(await s.value("SELECT coalesce(sum(waiting + held + relaying), 0)::bigint FROM destination"))
    join = JOIN if selected.joins else ""
    return int(await s.value(numbered(f"SELECT count(*) FROM entry e{join} WHERE {selected.sql}"), *selected.values))


async def _entries(s: Snapshot, number: int) -> tuple[Entry, ...]:
    query = f"SELECT {ENTRY_COLUMNS} FROM entry e{JOIN} WHERE e.message = $1 ORDER BY e.number"
    return await entries_of(s, await s.fetch(query, number))


async def _attempts(s: Snapshot, number: int) -> list[Row]:
    return await s.fetch(
        "SELECT entry, relayer, started, ended, outcome, interrupted, node FROM attempt WHERE message = $1 ORDER BY id",
        number,
    )
