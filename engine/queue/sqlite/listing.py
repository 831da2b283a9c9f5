"""What operators look at: windows of the queue, a message, destinations, why mail waits, events; and counts."""

from collections.abc import Iterable, Sequence

from engine.base.words import words_of
from engine.model.claim import ROOM, Room
from engine.model.destination import Destination, HeldBack, Totals
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Entry, Message, Selection, Window
from engine.model.order import Ending
from engine.model.reason import Reason
from engine.queue import contract
from engine.queue.columns import storable
from engine.queue.errors import NoSuchMessage
from engine.queue.rows import ENTRY_COLUMNS, MESSAGE_COLUMNS, Row, event_of, message_of
from engine.queue.sqlite import destinations, endings
from engine.queue.sqlite.database import Database, Role, Snapshot, seen
from engine.queue.sqlite.held_back import HeldBackAnswers
from engine.queue.sqlite.reasons import ReasonAnswers
from engine.queue.sqlite.rows import EVENT_COLUMNS, entries_of
from engine.queue.sqlite.selection import JOIN, chosen, newest_message
from engine.queue.sqlite.where import Where, contains, looked_up
from engine.queue.windows import part_of, sort_of

# All that is said of an event, each part apart from the next. What an outcome says of itself ("transient", the names
# of its fields) is left out: nobody reads it there.
_SAID = ("code", "enhanced", "text", "host", "secured")
_OF_OUTCOME = " || ' ' || ".join(f"coalesce(outcome ->> '{part}', '')" for part in _SAID)
_EVENT_TEXT = (
    """kind || ' ' || recipient || ' ' || sender || ' ' || destination || ' ' || host || ' ' || "by" || ' ' || text """
    f"|| iif(json_valid(outcome), ' ' || {_OF_OUTCOME}, '')"
)


class Listing(Role, contract.Listing):
    """Rows are found by index and given by the window; counts that take long are given again for a while."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._due_counts = destinations.DueCounts()
        self._reasons = ReasonAnswers()
        self._held_back = HeldBackAnswers()

    @seen
    def totals(self, snapshot: Snapshot, room: Room = ROOM) -> Totals:
        return destinations.totals(snapshot.connection, self._due_counts, room, now=snapshot.now)

    @seen
    def window(self, snapshot: Snapshot, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        by = sort_of(sort)
        offset, limit = max(0, offset), max(0, limit)
        selected = looked_up(snapshot.connection, filter, snapshot.now)
        total = _count(snapshot, filter, selected)
        part = part_of(total, offset, limit)
        order = by.order(turned=part.turned)
        join = JOIN if selected.joins or by.joins else ""
        rows = snapshot.connection.execute(
            f"SELECT {ENTRY_COLUMNS} FROM "
            f"(SELECT e.message AS one, e.number AS two FROM entry e{join} WHERE {selected.sql} "
            f"ORDER BY {order} LIMIT ? OFFSET ?) "
            f"CROSS JOIN entry e ON e.message = one AND e.number = two{JOIN} ORDER BY {order}",
            (*selected.values, part.wanted, part.passed_over),
        ).fetchall()
        if part.turned:
            rows.reverse()
        return Window(total=total, offset=offset, rows=entries_of(snapshot.connection, rows, snapshot.now))

    @seen
    def message(self, snapshot: Snapshot, number: int) -> Message:
        row = snapshot.connection.execute(
            f"SELECT {MESSAGE_COLUMNS} FROM message WHERE number = ?", (number,)
        ).fetchone()
        entries = _entries(snapshot, number)
        if row is None or not entries:
            raise NoSuchMessage(f"there is no message {number} in the queue")
        return message_of(number, row, entries, _attempts(snapshot, number))

    @seen
    def destinations(
        self, snapshot: Snapshot, match: str, sort: str, offset: int, limit: int
    ) -> tuple[int, tuple[Destination, ...]]:
        return destinations.destinations(
            snapshot.connection, match, sort, offset, limit, self._due_counts, now=snapshot.now
        )

    @seen
    def destination(self, snapshot: Snapshot, name: str) -> Destination:
        return destinations.destination(snapshot.connection, name, self._due_counts, now=snapshot.now)

    @seen
    def select(
        self, snapshot: Snapshot, filter: Filter, newest: int | None = None, until: float | None = None
    ) -> Selection:
        connection, now = snapshot
        bound = newest_message(connection) if newest is None else newest
        return chosen(connection, looked_up(connection, filter, now, bound), bound, now=now, until=until)

    @seen
    def lets_go(self, snapshot: Snapshot, ending: Ending, name: str) -> Selection:
        return endings.lets_go(snapshot.connection, ending, name, now=snapshot.now)

    @seen
    def reasons(self, snapshot: Snapshot, limit: int) -> tuple[Reason, ...]:
        return self._reasons.of(snapshot.connection, limit, now=snapshot.now)

    @seen
    def held_back(self, snapshot: Snapshot, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
        return self._held_back.of(snapshot.connection, tuple(hosts), now=snapshot.now)

    @seen
    def held_back_counts(self, snapshot: Snapshot) -> dict[str, int]:
        return self._held_back.counts(snapshot.connection, now=snapshot.now)

    @seen
    def events(
        self,
        snapshot: Snapshot,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        conditions, values = ["1"], []
        for condition, value in (("seq < ?", before), ("seq > ?", after), ("message > 0 AND message = ?", message)):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        direction = "DESC" if after is None else "ASC"
        listed = f"FROM event WHERE {' AND '.join(conditions)} ORDER BY seq {direction}"
        words = list(dict.fromkeys(words_of(storable(match))))
        found = [(word, *contains("said", word.text)) for word in words]
        bound: list[object] = [*values, *(value for _, _, value in found)]
        if found:
            # The limit keeps it a query of its own, so that what an event says is put together once for all words.
            listed = f"FROM (SELECT *, {_EVENT_TEXT} AS said {listed} LIMIT -1) WHERE " + " AND ".join(
                f"NOT ({sql})" if word.left_out else sql for word, sql, _ in found
            )
        rows = snapshot.connection.execute(
            f"SELECT {EVENT_COLUMNS} {listed} LIMIT ?", (*bound, max(0, limit))
        ).fetchall()
        if after is None:
            rows.reverse()
        return tuple(map(event_of, rows))


def _count(snapshot: Snapshot, filter: Filter, selected: Where) -> int:
    if not filter.terms:
        query, values = "SELECT coalesce(sum(waiting + held + relaying), 0) FROM destination", ()
        return int(snapshot.connection.execute(query, values).fetchone()[0])
    join = JOIN if selected.joins else ""
    query = f"SELECT count(*) FROM entry e{join} WHERE {selected.sql}"
    return int(snapshot.connection.execute(query, selected.values).fetchone()[0])


def _entries(snapshot: Snapshot, number: int) -> tuple[Entry, ...]:
    rows = snapshot.connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entry e{JOIN} WHERE e.message = ? ORDER BY e.number", (number,)
    )
    return entries_of(snapshot.connection, rows, snapshot.now)


def _attempts(snapshot: Snapshot, number: int) -> Iterable[Row]:
    return snapshot.connection.execute(
        "SELECT entry, relayer, started, ended, outcome, interrupted FROM attempt WHERE message = ? ORDER BY id",
        (number,),
    )
