"""Destinations: which may be served, when the next thing falls due, and how they fare.

Counts come from the destinations' own rows, which triggers keep; entries are counted only for how many are due.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterator
from typing import Any

from msgspec.structs import asdict, replace

from engine.queue import bearing
from engine.queue.queue import (
    DESTINATION_SORTS,
    NONE_TAKEN,
    RELAY,
    Destination,
    DueSite,
    QueueError,
    Room,
    Shares,
    Suspension,
    Totals,
)
from engine.queue.rows import outcome_of

# A count of so many rows is used again for a while: RESTS times as long as it took, so that however big the queue and
# however many look, counting takes no more than a twentieth of a core.
BIG = 50_000
RESTS = 20
COSTLY = 0.05  # seconds; an answer that took as long is given again for RESTS times that

_NEIGHBOURS = 20  # other destinations of a site that are named
# Destinations due; of fewer each is looked at and they are sorted, of more they are walked in order of their turns.
FEW = 1000
# Of those in doubt, so many destinations are looked at (those of two messages that have as many as one may have), and
# turns shared out among so many of them: of those that were never tried, and of those that have failed.
DOUBTFUL_SEEN = 20_000
DOUBTFUL_SEEN_FIRST = 1000  # and of these, where somebody among them may go, which is the rule
DOUBTFUL_AT_ONCE = 500
_DUE = "SELECT count(*) FROM entry WHERE destination = d.name AND state = 'waiting' AND due <= ?"
_OLDEST = "(SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry WHERE destination = d.name))"
_TAKEN = (
    "{message} IN (SELECT value FROM json_each(:messages)) OR {sender} IN (SELECT value FROM json_each(:senders)) "
    "OR registrable(d.name) IN (SELECT value FROM json_each(:domains))"
)
_READY = (
    "d.blocked_until <= :now AND (d.took_at > 0 OR :doubtful) "
    "AND d.site NOT IN (SELECT value FROM json_each(:closed)) "
    "AND (:only IS NULL OR d.site IN (SELECT value FROM json_each(:only))) "
    "AND d.name NOT IN (SELECT destination FROM suspension WHERE until > :now) "
    f"AND d.name NOT IN ({bearing.LEFT_OUT.replace('?', ':now')})"
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
_COLUMNS = f"{bearing.COLUMNS}, d.waiting, d.held, d.relaying, {_OLDEST}, d.last, d.last_at, {_REPLY}"


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
                **_values_of(room.taken),
            }
            taken = _TAKEN.format(message=bearing.FIRST, sender=bearing.FIRST_SENDER)
            condition = _READY if room.taken == NONE_TAKEN else f"{_READY} AND (d.took_at > 0 OR NOT ({taken}))"
            due, ready = connection.execute(_IN_ALL % condition, values).fetchone()
            ended = time.monotonic()
            costly = due >= BIG or ended - started > COSTLY
            self._kept_in_all = (ended + RESTS * (ended - started) if costly else 0.0, due, ready)
        return due, ready


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
    if limit <= 0 or (closed := _suspended(connection, now)) is None:
        return []
    found: dict[str, tuple[int, str, DueSite]] = {}
    for is_in_doubt in (False, True)[: 1 + with_doubtful]:
        count = 0
        for turn, name, site in _in_turn(connection, is_in_doubt, without, now):
            if name not in closed and (site not in found or found[site][:2] > (turn, name)):
                count += site not in found
                found[site] = (turn, name, DueSite(site=site, destination=name, is_in_doubt=is_in_doubt))
                if count == limit:
                    break
    return [one for _, _, one in sorted(found.values(), key=lambda row: row[:2])][:limit]


class DoubtfulSites:
    """Finds sites in doubt, and remembers for a while that there were none, where it took long to find that out.

    Under a flood of destinations whose sender or message has all he may have, each check would else look through them.
    """

    def __init__(self) -> None:
        self._none: dict[tuple[Shares, frozenset[str]], float] = {}

    @property
    def resting(self) -> float:
        """For how many more seconds an answer of none is given again; 0: for no more."""
        return max(0.0, max(self._none.values(), default=0.0) - time.monotonic())

    def of(
        self, connection: sqlite3.Connection, without: Collection[str], taken: Shares = NONE_TAKEN, *, now: float
    ) -> list[DueSite]:
        """Sites in doubt that may be served now, with whose mail it is; see Queue.doubtful_sites."""
        asked = (taken, frozenset(without))
        started = time.monotonic()
        self._none = {key: until for key, until in self._none.items() if until > started}
        if asked in self._none:
            return []
        begun = time.thread_time()
        # As a rule there are some among the first: no more need be looked at.
        found = doubtful_sites(connection, without, taken, DOUBTFUL_SEEN_FIRST, now=now)
        found = found or doubtful_sites(connection, without, taken, DOUBTFUL_SEEN, now=now)
        took = time.thread_time() - begun
        if not found and took > COSTLY:
            self._none = {**self._none, asked: started + RESTS * took}  # another thread may be reading it
        return found


def doubtful_sites(
    connection: sqlite3.Connection,
    without: Collection[str],
    taken: Shares = NONE_TAKEN,
    seen: int = DOUBTFUL_SEEN,
    *,
    now: float,
) -> list[DueSite]:
    """Sites in doubt that may be served now, among the first that are `seen` of each kind."""
    if (closed := _suspended(connection, now)) is None:
        return []
    index = "destination_ready" if _is_few(connection, now) else "destination_doubtful"
    nobody = "" if taken == NONE_TAKEN else f"WHERE NOT ({_TAKEN.format(message='d.message', sender='d.sender')}) "
    values = {"now": now, "without": json.dumps(sorted(without)), "seen": seen, "most": DOUBTFUL_AT_ONCE}
    found: dict[str, DueSite] = {}
    for has_failed in (False, True):
        first = (
            f"SELECT turn, name, site, {bearing.FIRST} AS message, {bearing.FIRST_SENDER} AS sender "
            f"FROM destination d INDEXED BY {index} WHERE ready IS NOT NULL AND ready <= :now AND took_at = 0 "
            f"AND blocked_until {'>' if has_failed else '='} 0 "
            "AND site NOT IN (SELECT value FROM json_each(:without)) ORDER BY turn, name LIMIT :seen"
        )
        rows = connection.execute(
            f"SELECT name, site, message, sender FROM ({first}) d {nobody}ORDER BY turn, name LIMIT :most",
            {**values, **_values_of(taken)},
        )
        for name, site, message, sender in rows:
            if name not in closed and site not in found:
                found[site] = DueSite(
                    site=site,
                    destination=name,
                    is_in_doubt=True,
                    has_failed=has_failed,
                    message=message or 0,
                    sender=sender or "",
                )
    return list(found.values())


def _values_of(taken: Shares) -> dict[str, str]:
    return {
        "messages": json.dumps(sorted(taken.messages)),
        "senders": json.dumps(sorted(taken.senders)),
        "domains": json.dumps(sorted(taken.domains)),
    }


def _suspended(connection: sqlite3.Connection, now: float) -> set[str] | None:
    """The destinations that are suspended; None where the whole relay is."""
    closed = {name for (name,) in connection.execute("SELECT destination FROM suspension WHERE until > ?", (now,))}
    return None if RELAY in closed else closed


def _is_few(connection: sqlite3.Connection, now: float) -> bool:
    """Whether few destinations are due: however many wait for later, they need not be walked through then."""
    query = (
        f"SELECT count(*) FROM (SELECT 1 FROM destination INDEXED BY destination_ready WHERE ready <= ? LIMIT {FEW})"
    )
    (count,) = connection.execute(query, (now,)).fetchone()
    return bool(count < FEW)


def _in_turn(
    connection: sqlite3.Connection, is_in_doubt: bool, without: Collection[str], now: float
) -> Iterator[tuple[int, str, str]]:
    """Turn, name and site of the destinations that are due, of those that are in doubt or of the others."""
    where = f"took_at {'=' if is_in_doubt else '>'} 0 AND site NOT IN (SELECT value FROM json_each(?))"
    index = "destination_doubtful" if is_in_doubt else "destination_proved"
    table = f"destination INDEXED BY {index} WHERE ready IS NOT NULL AND ready <= ? AND {where} ORDER BY turn, name"
    if _is_few(connection, now):
        table = f"destination INDEXED BY destination_ready WHERE ready <= ? AND {where} ORDER BY turn, name LIMIT {FEW}"
    yield from connection.execute(f"SELECT turn, name, site FROM {table}", (now, json.dumps(sorted(without))))


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
        "SELECT min(tell_at) FROM message WHERE tell_at > ?",
        "SELECT min(due) FROM operation WHERE due > ?",
        "SELECT min(until) FROM hold_rule WHERE until > ?",
        "SELECT min(until) FROM override WHERE until > ?",
    ):
        times += connection.execute(query, (after,)).fetchone()
    return min((one for one in times if one is not None), default=None)


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
        ready=0 if bearing.of_relay(connection, now) else min(due, ready),
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
    field, falling = sort.removeprefix("-"), sort.startswith("-")
    if field not in DESTINATION_SORTS:
        raise QueueError(f"destinations cannot be sorted by {field!r}, only by {', '.join(DESTINATION_SORTS)}")
    direction = "DESC" if falling else "ASC"
    values: list[object] = [now, now]
    condition = "1"
    if match:
        condition = "instr(d.name, ?)"
        values.append(match.encode("utf-8", "replace").decode().lower())
    (total,) = connection.execute(f"SELECT count(*) FROM destination d WHERE {condition}", values[2:]).fetchone()
    order = f"d.{field} {direction}"
    if field == "due":
        order = f"iif(d.edge <= ?, ({_DUE}), 0) {direction}"
        values += [now, now]
    elif field == "oldest":
        order = f"{_OLDEST} IS NULL, {_OLDEST} {direction}"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM {bearing.JOINED} WHERE {condition} ORDER BY {order}, d.name LIMIT ? OFFSET ?",
        (*values, max(0, limit), max(0, offset)),
    ).fetchall()
    relay = bearing.of_relay(connection, now)
    return total, tuple(_destination(connection, row, relay, counts, now) for row in rows)


def destination(connection: sqlite3.Connection, name: str, counts: DueCounts, *, now: float) -> Destination:
    """One destination; all zero when nothing is known of it."""
    name = name.encode("utf-8", "replace").decode().lower()
    relay = bearing.of_relay(connection, now)
    query = f"SELECT {_COLUMNS} FROM {bearing.JOINED} WHERE d.name = ?"
    row = connection.execute(query, (now, now, name)).fetchone()
    if row is not None:
        found = _destination(connection, row, relay, counts, now)
        others = connection.execute(
            "SELECT name FROM destination WHERE site = ? AND ready IS NOT NULL AND name <> ? "
            "ORDER BY waiting DESC, name LIMIT ?",
            (found.site, name, _NEIGHBOURS),
        )
        return replace(found, neighbours=tuple(other for (other,) in others))
    return Destination(**asdict(bearing.of_unknown(connection, name, now)))


def _destination(
    connection: sqlite3.Connection, row: tuple[Any, ...], relay: Suspension | None, counts: DueCounts, now: float
) -> Destination:
    waiting, held, relaying, oldest, last, last_at, reply = row[bearing.WIDTH :]
    fields = bearing.fields_of(row, relay, now)
    edge = fields["next_due"]
    due = counts.of(connection, fields["name"], now) if edge is not None and edge <= now else 0
    return Destination(
        **fields,
        waiting=waiting,
        due=min(due, waiting),
        held=held,
        relaying=relaying,
        oldest=oldest,
        last=outcome_of(last),
        last_at=last_at,
        reply=outcome_of(reply),
    )
