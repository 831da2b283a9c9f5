"""Destinations: which may be served, when the next thing falls due, and how they fare.

Counts come from the destinations' own rows, which triggers keep; entries are counted only for how many are due.
"""

import json
import sqlite3
import time
from collections.abc import Collection
from typing import Any

from msgspec.structs import replace

from engine.queue.queue import DESTINATION_SORTS, RELAY, Destination, DueSite, QueueError, Suspension, Totals
from engine.queue.rows import outcome_of

# A count of so many rows is used again for a while: RESTS times as long as it took, so that however big the queue and
# however many look, counting takes no more than a twentieth of a core.
BIG = 50_000
RESTS = 20

_NEIGHBOURS = 20  # other destinations of a site that are named
_DUE = "SELECT count(*) FROM entry WHERE destination = d.name AND state = 'waiting' AND due <= ?"
_OLDEST = "(SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry WHERE destination = d.name))"
_COLUMNS = (
    f"d.name, d.waiting, d.held, d.relaying, {_OLDEST}, d.edge, d.blocked_until, d.blocked_why, d.last, d.last_at, "
    'd.site, s.since, s.until, s."by", s.reason'
)
_FROM = "FROM destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > ?"


class DueCounts:
    """Counts what is due, of one destination or in all, and remembers the counts that were costly."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, int]] = {}

    def of(self, connection: sqlite3.Connection, destination: str, now: float) -> int:
        """Entries due, of a destination or of the whole queue (RELAY)."""
        until, count = self._kept.get(destination, (0.0, 0))
        started = time.monotonic()
        if started < until:
            return count
        which, values = ("d.edge <= ?", [now, now]) if destination == RELAY else ("d.name = ?", [now, destination])
        query = f"SELECT coalesce(sum(({_DUE})), 0) FROM destination d WHERE {which}"
        (count,) = connection.execute(query, values).fetchone()
        ended = time.monotonic()
        if count >= BIG:
            self._kept[destination] = (ended + RESTS * (ended - started), count)
        else:
            self._kept.pop(destination, None)
        return int(count)


def due_destinations(connection: sqlite3.Connection, limit: int, without: Collection[str], *, now: float) -> list[str]:
    """Destinations that may be served now, in order of their turn."""
    closed = {name for (name,) in connection.execute("SELECT destination FROM suspension WHERE until > ?", (now,))}
    if RELAY in closed or limit <= 0:
        return []
    closed.update(without)
    found: list[str] = []
    # In the order of turns it ends at the limit; by time, all that are due would have to be sorted.
    rows = connection.execute(
        "SELECT name FROM destination INDEXED BY destination_turn "
        "WHERE ready IS NOT NULL AND ready <= ? ORDER BY turn, name",
        (now,),
    )
    for (name,) in rows:
        if name not in closed:
            found.append(name)
            if len(found) == limit:
                break
    return found


def due_sites(
    connection: sqlite3.Connection, limit: int, without: Collection[str], with_doubtful: bool = True, *, now: float
) -> list[DueSite]:
    """Sites that may be served now, in order of the turns of their destinations; see Queue.due_sites."""
    closed = {name for (name,) in connection.execute("SELECT destination FROM suspension WHERE until > ?", (now,))}
    if RELAY in closed or limit <= 0:
        return []
    found: dict[str, DueSite] = {}
    rows = connection.execute(
        "SELECT name, site, blocked_until > 0 FROM destination INDEXED BY destination_turn "
        "WHERE ready IS NOT NULL AND ready <= ? AND site NOT IN (SELECT value FROM json_each(?)) "
        "AND (? OR blocked_until = 0) ORDER BY turn, name",
        (now, json.dumps(sorted(without)), with_doubtful),
    )
    for name, site, was_blocked in rows:
        if name not in closed and site not in found:
            found[site] = DueSite(site=site, destination=name, is_in_doubt=bool(was_blocked))
            if len(found) == limit:
                break
    return list(found.values())


def next_due(connection: sqlite3.Connection, after: float, *, now: float) -> float | None:
    """When there is next something to do, later than `after`; see Queue.next_due."""
    suspended = dict(connection.execute("SELECT destination, until FROM suspension WHERE until > ?", (now,)).fetchall())
    times: list[float | None] = [until for until in suspended.values() if until > after]
    if RELAY not in suspended:
        rows = connection.execute("SELECT name, ready FROM destination WHERE ready > ? ORDER BY ready", (after,))
        times.append(next((ready for name, ready in rows if name not in suspended), None))
    for query in (
        "SELECT min(expires) FROM entry WHERE state = 'waiting' AND expires > ?",
        "SELECT min(notice_at) FROM entry WHERE state = 'waiting' AND notice_at > ?",
        "SELECT min(due) FROM operation WHERE due > ?",
        "SELECT min(until) FROM hold_rule WHERE until > ?",
        "SELECT min(until) FROM override WHERE until > ?",
    ):
        times += connection.execute(query, (after,)).fetchone()
    return min((one for one in times if one is not None), default=None)


def totals(connection: sqlite3.Connection, counts: DueCounts, *, now: float) -> Totals:
    """Counts over the whole queue."""
    waiting, held, relaying, destinations = connection.execute(
        "SELECT coalesce(sum(waiting), 0), coalesce(sum(held), 0), coalesce(sum(relaying), 0), "
        "coalesce(sum(waiting + held + relaying > 0), 0) FROM destination"
    ).fetchone()
    oldest = connection.execute(
        "SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry)"
    ).fetchone()
    return Totals(
        waiting=waiting,
        due=min(waiting, counts.of(connection, RELAY, now)),
        held=held,
        relaying=relaying,
        destinations=destinations,
        oldest=oldest[0] if oldest else None,
    )


def destinations(
    connection: sqlite3.Connection, match: str, sort: str, offset: int, limit: int, counts: DueCounts, *, now: float
) -> tuple[int, tuple[Destination, ...]]:
    """How many destinations have `match` in their name, and a window of them. Raises QueueError for a wrong sort."""
    field, falling = sort.removeprefix("-"), sort.startswith("-")
    if field not in DESTINATION_SORTS:
        raise QueueError(f"destinations cannot be sorted by {field!r}, only by {', '.join(DESTINATION_SORTS)}")
    direction = "DESC" if falling else "ASC"
    values: list[object] = [now]
    condition = "1"
    if match:
        condition = "instr(d.name, ?)"
        values.append(match.encode("utf-8", "replace").decode().lower())
    (total,) = connection.execute(f"SELECT count(*) FROM destination d WHERE {condition}", values[1:]).fetchone()
    order = f"d.{field} {direction}"
    if field == "due":
        order = f"iif(d.edge <= ?, ({_DUE}), 0) {direction}"
        values += [now, now]
    elif field == "oldest":
        order = f"{_OLDEST} IS NULL, {_OLDEST} {direction}"
    rows = connection.execute(
        f"SELECT {_COLUMNS} {_FROM} WHERE {condition} ORDER BY {order}, d.name LIMIT ? OFFSET ?",
        (*values, max(0, limit), max(0, offset)),
    ).fetchall()
    return total, tuple(_destination(connection, row, counts, now) for row in rows)


def destination(connection: sqlite3.Connection, name: str, counts: DueCounts, *, now: float) -> Destination:
    """One destination; all zero when nothing is known of it."""
    name = name.encode("utf-8", "replace").decode().lower()
    row = connection.execute(f"SELECT {_COLUMNS} {_FROM} WHERE d.name = ?", (now, name)).fetchone()
    if row is not None:
        found = _destination(connection, row, counts, now)
        others = connection.execute(
            "SELECT name FROM destination WHERE site = ? AND ready IS NOT NULL AND name <> ? "
            "ORDER BY waiting DESC, name LIMIT ?",
            (found.site, name, _NEIGHBOURS),
        )
        return replace(found, neighbours=tuple(other for (other,) in others))
    return Destination(
        name=name, suspended=next((s for s in suspensions(connection, now) if s.destination == name), None)
    )


def suspensions(connection: sqlite3.Connection, now: float) -> tuple[Suspension, ...]:
    """Suspensions in force, the relay's own first."""
    rows = connection.execute(
        'SELECT destination, since, until, "by", reason FROM suspension WHERE until > ? '
        "ORDER BY destination <> ?, destination",
        (now, RELAY),
    )
    return tuple(
        Suspension(destination=name, since=since, until=until, by=by, reason=reason)
        for name, since, until, by, reason in rows
    )


def _destination(connection: sqlite3.Connection, row: tuple[Any, ...], counts: DueCounts, now: float) -> Destination:
    name, waiting, held, relaying, oldest, edge, blocked_until, blocked_why, last, last_at, site, *suspended = row
    hosts = connection.execute("SELECT host FROM exchange WHERE destination = ? ORDER BY preference", (name,))
    since, until, by, reason = suspended
    due = counts.of(connection, name, now) if edge is not None and edge <= now else 0
    blocked = blocked_until > now
    return Destination(
        name=name,
        waiting=waiting,
        due=min(due, waiting),
        held=held,
        relaying=relaying,
        oldest=oldest,
        next_due=edge,
        blocked_until=blocked_until if blocked else None,
        blocked_why=blocked_why if blocked else "",
        last=outcome_of(last),
        last_at=last_at,
        suspended=None
        if since is None
        else Suspension(destination=name, since=since, until=until, by=by, reason=reason),
        exchanges=tuple(host for (host,) in hosts),
        site=site,
        is_in_doubt=blocked_until > 0,
    )
