"""Destinations: how they fare, and how much of their mail is due.

Counts come from the destinations' own rows, which triggers keep; entries are counted only for how many are due.
"""

import json
import sqlite3
import time
from typing import Any

from msgspec.structs import asdict, replace

from engine.model.claim import NONE_TAKEN, Room, Shares
from engine.model.destination import Destination, Suspension, Totals
from engine.queue.bounds import BIG, COSTLY, NEIGHBOURS, RESTS
from engine.queue.columns import storable
from engine.queue.rows import BEARING_WIDTH, destination_of
from engine.queue.sqlite import bearings
from engine.queue.windows import destination_sort

_DUE = "SELECT count(*) FROM entry WHERE destination = d.name AND state = 'waiting' AND due <= ?"
_OLDEST = "(SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry WHERE destination = d.name))"
TAKEN = (
    "{message} IN (SELECT value FROM json_each(:messages)) OR {sender} IN (SELECT value FROM json_each(:senders)) "
    "OR registrable(d.name) IN (SELECT value FROM json_each(:domains))"
)
_READY = (
    "d.blocked_until <= :now AND (d.took_at > 0 OR :doubtful) "
    "AND d.site NOT IN (SELECT value FROM json_each(:closed)) "
    "AND (:only IS NULL OR d.site IN (SELECT value FROM json_each(:only))) "
    "AND d.name NOT IN (SELECT destination FROM suspension WHERE until > :now) "
    f"AND d.name NOT IN ({bearings.LEFT_OUT.replace('?', ':now')})"
)
_REPLY = (
    "(SELECT e.last FROM entry e INDEXED BY entry_due WHERE e.destination = d.name AND e.state = 'waiting' "
    "ORDER BY e.due, e.message, e.number LIMIT 1)"
)
# Each destination with something due is looked at once, and what of it is due is counted in an index.
_IN_ALL = (
    "SELECT coalesce(sum(count), 0), coalesce(sum(iif(ready, count, 0)), 0) FROM "
    f"(SELECT ({_DUE.replace('?', ':now')}) AS count, (%s) AS ready FROM destination d WHERE d.edge <= :now)"
)
_COLUMNS = f"{bearings.COLUMNS}, d.waiting, d.held, d.relaying, {_OLDEST}, d.last, d.last_at, {_REPLY}"


class DueCounts:
    """Counts what is due, of one destination or in all, and remembers the counts that were costly."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, int]] = {}
        self._kept_in_all: tuple[float, int, int] = (0.0, 0, 0)

    def of(self, connection: sqlite3.Connection, destination: str, now: float) -> int:
        """Entries due of one destination."""
        until, count = self._kept.get(destination, (0.0, 0))
        started = time.monotonic()
        if started < until:
            return count
        query = f"SELECT coalesce(sum(({_DUE})), 0) FROM destination d WHERE d.name = ?"
        (count,) = connection.execute(query, (now, destination)).fetchone()
        ended = time.monotonic()
        if count >= BIG:
            self._kept[destination] = (ended + RESTS * (ended - started), count)
        else:
            self._kept.pop(destination, None)
        return int(count)

    def in_all(self, connection: sqlite3.Connection, room: Room, now: float) -> tuple[int, int]:
        """Entries due, and those of them that may be sent now where there is `room`."""
        until, due, ready = self._kept_in_all
        started = time.monotonic()
        if started >= until:
            values = {
                "now": now,
                "doubtful": room.with_doubtful,
                "closed": json.dumps(sorted(room.closed)),
                "only": None if room.only is None else json.dumps(sorted(room.only)),
                **values_of(room.taken),
            }
            taken = TAKEN.format(message=bearings.FIRST, sender=bearings.FIRST_SENDER)
            condition = _READY if room.taken == NONE_TAKEN else f"{_READY} AND (d.took_at > 0 OR NOT ({taken}))"
            due, ready = connection.execute(_IN_ALL % condition, values).fetchone()
            ended = time.monotonic()
            costly = due >= BIG or ended - started > COSTLY
            self._kept_in_all = (ended + RESTS * (ended - started) if costly else 0.0, due, ready)
        return due, ready


def values_of(taken: Shares) -> dict[str, str]:
    return {
        "messages": json.dumps(sorted(taken.messages)),
        "senders": json.dumps(sorted(taken.senders)),
        "domains": json.dumps(sorted(taken.domains)),
    }


def totals(connection: sqlite3.Connection, counts: DueCounts, room: Room, *, now: float) -> Totals:
    """Counts over the whole queue."""
    waiting, held, relaying, destinations, known = connection.execute(
        "SELECT coalesce(sum(waiting), 0), coalesce(sum(held), 0), coalesce(sum(relaying), 0), "
        "coalesce(sum(waiting + held + relaying > 0), 0), count(*) FROM destination"
    ).fetchone()
    oldest = connection.execute(
        "SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry)"
    ).fetchone()
    due, ready = counts.in_all(connection, room, now)
    due = min(waiting, due)
    return Totals(
        waiting=waiting,
        due=due,
        ready=0 if bearings.of_relay(connection, now) else min(due, ready),
        held=held,
        relaying=relaying,
        destinations=destinations,
        known=known,
        oldest=oldest[0] if oldest else None,
    )


def destinations(
    connection: sqlite3.Connection, match: str, sort: str, offset: int, limit: int, counts: DueCounts, *, now: float
) -> tuple[int, tuple[Destination, ...]]:
    """How many destinations have `match` in their name, and a window of them. Raises QueueError for a wrong sort."""
    field, direction = destination_sort(sort)
    values: list[object] = [now, now]
    condition = "1"
    if match:
        condition = "instr(d.name, ?)"
        values.append(storable(match).lower())
    (total,) = connection.execute(f"SELECT count(*) FROM destination d WHERE {condition}", values[2:]).fetchone()
    order = f"d.{field} {direction}"
    if field == "due":
        order = f"iif(d.edge <= ?, ({_DUE}), 0) {direction}"
        values += [now, now]
    elif field == "oldest":
        order = f"{_OLDEST} IS NULL, {_OLDEST} {direction}"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {bearings.JOINED} WHERE {condition} ORDER BY {order}, d.name LIMIT ? OFFSET ?",
        (*values, max(0, limit), max(0, offset)),
    ).fetchall()
    relay = bearings.of_relay(connection, now)
    return total, tuple(_destination(connection, row, relay, counts, now) for row in rows)


def destination(connection: sqlite3.Connection, name: str, counts: DueCounts, *, now: float) -> Destination:
    """One destination; all zero when nothing is known of it."""
    name = storable(name).lower()
    relay = bearings.of_relay(connection, now)
    query = f"SELECT {_COLUMNS} FROM {bearings.JOINED} WHERE d.name = ?"
    row = connection.execute(query, (now, now, name)).fetchone()
    if row is not None:
        found = _destination(connection, row, relay, counts, now)
        others = connection.execute(
            "SELECT name FROM destination WHERE site = ? AND ready IS NOT NULL AND name <> ? "
            "ORDER BY waiting DESC, name LIMIT ?",
            (found.site, name, NEIGHBOURS),
        )
        return replace(found, neighbours=tuple(other for (other,) in others))
    return Destination(**asdict(bearings.of_unknown(connection, name, now)))


def _destination(
    connection: sqlite3.Connection, row: tuple[Any, ...], relay: Suspension | None, counts: DueCounts, now: float
) -> Destination:
    found = destination_of(bearings.fields_of(row, relay, now), row[BEARING_WIDTH:])
    is_some_due = found.next_due is not None and found.next_due <= now
    return replace(found, due=min(counts.of(connection, found.name, now), found.waiting) if is_some_due else 0)
