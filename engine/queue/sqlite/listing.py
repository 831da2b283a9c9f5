"""What is seen of messages and events: windows, selections, one message, its content."""

import hashlib
import sqlite3

from engine.base.words import words_of
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Attempt, Entry, Message, Selection, Window
from engine.queue.contract import SORTS, NoSuchMessage, QueueError
from engine.queue.sqlite.rows import ENTRY_COLUMNS, EVENT_COLUMNS, entries_of, event_of, outcome_of, storable
from engine.queue.sqlite.where import Where, contains, looked_up

_SORT_COLUMNS = {
    "id": "e.message",
    "due": "e.due",
    "arrived": "m.arrived",
    "attempts": "e.attempts",
    "size": "m.size",
    "destination": "e.destination",
    "recipient": "e.recipient",
    "sender": "m.sender",
    "state": "e.state",
}
_JOIN = " JOIN message m ON m.number = e.message"
EXAMPLES = 3

# All that is said of an event, each part apart from the next. What an outcome says of itself ("transient", the names
# of its fields) is left out: nobody reads it there.
_SAID = ("code", "enhanced", "text", "host", "secured")
_OF_OUTCOME = " || ' ' || ".join(f"coalesce(outcome ->> '{part}', '')" for part in _SAID)
_EVENT_TEXT = (
    """kind || ' ' || recipient || ' ' || sender || ' ' || destination || ' ' || host || ' ' || "by" || ' ' || text """
    f"|| iif(json_valid(outcome), ' ' || {_OF_OUTCOME}, '')"
)


def window(connection: sqlite3.Connection, filter: Filter, sort: str, offset: int, limit: int, *, now: float) -> Window:
    """Rows `offset` to `offset + limit` of what the filter selects. Raises QueueError for an unknown sort."""
    field, falling = sort.removeprefix("-"), sort.startswith("-")
    if field not in _SORT_COLUMNS:
        raise QueueError(f"the queue cannot be sorted by {field!r}, only by {', '.join(SORTS)}")
    offset, limit = max(0, offset), max(0, limit)
    selected = looked_up(connection, filter, now)
    total = _count(connection, filter, selected)
    # The far half is reached from the other end: skipping rows costs as much as reading them.
    turned = offset + limit > total - offset
    first = max(0, total - offset - limit) if turned else offset
    wanted = min(limit, max(0, total - offset))
    direction = "DESC" if falling != turned else "ASC"
    column = _SORT_COLUMNS[field]
    join = _JOIN if selected.joins or column.startswith("m.") else ""
    rows = connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM "
        f"(SELECT e.message AS one, e.number AS two FROM entry e{join} WHERE {selected.sql} "
        f"ORDER BY {_order(column, direction)} LIMIT ? OFFSET ?) "
        f"CROSS JOIN entry e ON e.message = one AND e.number = two{_JOIN} ORDER BY {_order(column, direction)}",
        (*selected.values, wanted, first),
    ).fetchall()
    if turned:
        rows.reverse()
    return Window(total=total, offset=offset, rows=entries_of(connection, rows, now))


def select(connection: sqlite3.Connection, filter: Filter, newest: int | None, *, now: float) -> Selection:
    """Count what an action would touch, with the first few of it."""
    bound = newest_message(connection) if newest is None else newest
    return chosen(connection, looked_up(connection, filter, now, bound), bound, now=now)


def chosen(connection: sqlite3.Connection, selected: Where, newest: int | None = None, *, now: float) -> Selection:
    """Count the entries that a condition names, with the first few of them."""
    bound = newest_message(connection) if newest is None else newest
    join = _JOIN if selected.joins else ""
    messages, recipients = connection.execute(
        f"SELECT count(*), coalesce(sum(entries), 0) FROM "
        f"(SELECT count(*) AS entries FROM entry e{join} WHERE {selected.sql} GROUP BY e.message)",
        selected.values,
    ).fetchone()
    examples = connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entry e{_JOIN} WHERE {selected.sql} ORDER BY e.message, e.number LIMIT ?",
        (*selected.values, EXAMPLES),
    )
    found = entries_of(connection, examples, now)
    return Selection(messages=messages, recipients=recipients, newest=bound, examples=found)


def candidates(
    connection: sqlite3.Connection, selected: Where, after: tuple[int, int], limit: int
) -> list[tuple[int, int]]:
    """The next `limit` entries of a selection behind the entry `after`, by id."""
    join = _JOIN if selected.joins else ""
    return connection.execute(
        f"SELECT e.message, e.number FROM entry e{join} WHERE {selected.sql} AND (e.message, e.number) > (?, ?) "
        "ORDER BY e.message, e.number LIMIT ?",
        (*selected.values, *after, limit),
    ).fetchall()


def newest_message(connection: sqlite3.Connection) -> int:
    """The number of the message that came last, whether it has left or not."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
    return row[0] if row else 0


def message(connection: sqlite3.Connection, number: int, *, now: float) -> Message:
    """One message with its entries and attempts. Raises NoSuchMessage, also for one whose sender is yet to be told."""
    row = connection.execute(
        "SELECT sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8 "
        "FROM message WHERE number = ?",
        (number,),
    ).fetchone()
    entries = _entries(connection, number, now)
    if row is None or not entries:
        raise NoSuchMessage(f"there is no message {number} in the queue")
    sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8 = row
    return Message(
        number=number,
        sender=sender,
        size=size,
        arrived=arrived,
        expires=expires,
        origin=origin,
        subject=subject,
        message_id=message_id,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        entries=entries,
        attempts=_attempts(connection, number),
    )


def content(connection: sqlite3.Connection, number: int) -> bytes:
    """The content as it was queued. Raises NoSuchMessage, and QueueError when it is not what was written."""
    row = connection.execute(
        "SELECT m.size, b.sha256, b.content FROM message m LEFT JOIN body b ON b.message = m.number WHERE m.number = ?",
        (number,),
    ).fetchone()
    if row is None:
        raise NoSuchMessage(f"there is no message {number} in the queue")
    size, digest, body = row
    if body is None:
        raise QueueError(f"the body of message {number} is missing")
    if len(body) != size or hashlib.sha256(body).digest() != digest:
        raise QueueError(f"the body of message {number} is damaged")
    return bytes(body)


def events(
    connection: sqlite3.Connection,
    *,
    before: int | None,
    after: int | None,
    message: int | None,
    match: str,
    limit: int,
) -> tuple[Event, ...]:
    """Events kept, in order of `seq`; see Queue.events."""
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
    rows = connection.execute(f"SELECT {EVENT_COLUMNS} {listed} LIMIT ?", (*bound, max(0, limit))).fetchall()
    if after is None:
        rows.reverse()
    return tuple(map(event_of, rows))


def _order(column: str, direction: str) -> str:
    by_id = f"e.message {direction}, e.number {direction}"
    return by_id if column == "e.message" else f"{column} {direction}, {by_id}"


def _count(connection: sqlite3.Connection, filter: Filter, selected: Where) -> int:
    if not filter.terms:
        query, values = "SELECT coalesce(sum(waiting + held + relaying), 0) FROM destination", ()
        return int(connection.execute(query, values).fetchone()[0])
    join = _JOIN if selected.joins else ""
    query = f"SELECT count(*) FROM entry e{join} WHERE {selected.sql}"
    return int(connection.execute(query, selected.values).fetchone()[0])


def _entries(connection: sqlite3.Connection, number: int, now: float) -> tuple[Entry, ...]:
    rows = connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entry e{_JOIN} WHERE e.message = ? ORDER BY e.number", (number,)
    )
    return entries_of(connection, rows, now)


def _attempts(connection: sqlite3.Connection, number: int) -> tuple[Attempt, ...]:
    rows = connection.execute(
        "SELECT entry, relayer, started, ended, outcome, interrupted FROM attempt WHERE message = ? ORDER BY id",
        (number,),
    )
    return tuple(
        Attempt(
            entry=entry,
            relayer=relayer,
            started=started,
            ended=ended,
            outcome=outcome_of(outcome),
            interrupted=bool(interrupted),
        )
        for entry, relayer, started, ended, outcome, interrupted in rows
    )
