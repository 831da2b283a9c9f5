"""What is due: which destinations and sites may be served, in whose turn, and when there is next something to do.

A damaged page must keep nobody's mail waiting but what is on it: each question here can be asked `singly`, too, which
reads row by row and passes over those that cannot be read.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from engine.base.registrable import registrable
from engine.model.claim import NONE_TAKEN, DueSite, Shares
from engine.model.destination import RELAY
from engine.queue.bounds import DOUBTFUL_AT_ONCE, DOUBTFUL_SEEN, FEW, RESTS
from engine.queue.sqlite import bearings
from engine.queue.sqlite.connection import of_each
from engine.queue.sqlite.destinations import TAKEN, values_of

COSTLY = 0.002  # seconds of the processor for that; what took as long is not looked for again for RESTS times that
SINGLY_SEEN = 20_000  # destinations read one by one beside a damaged page: a third of a second's worth

_FIRST_KEY = (-(2**62), "")  # before all turns


class _Row(NamedTuple):
    """A destination that is due."""

    turn: int
    name: str
    site: str
    took_at: float
    blocked_until: float


def due_destinations(connection: sqlite3.Connection, limit: int, without: Collection[str], *, now: float) -> list[str]:
    """Destinations that may be served now, in order of their turn."""
    if limit <= 0 or (closed := _suspended(connection, now)) is None:
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
    connection: sqlite3.Connection,
    limit: int,
    without: Collection[str],
    with_doubtful: bool = True,
    *,
    now: float,
    singly: bool = False,
) -> list[DueSite]:
    """Sites that may be served now, in order of the turns of their destinations; see Claims.due_sites."""
    if limit <= 0 or (closed := _suspended(connection, now)) is None:
        return []
    walk = _in_turn_singly if singly else _in_turn
    found: dict[str, tuple[int, str, DueSite]] = {}
    for is_in_doubt in (False, True)[: 1 + with_doubtful]:
        count = 0
        for turn, name, site in walk(connection, is_in_doubt, without, now):
            if name not in closed and (site not in found or found[site][:2] > (turn, name)):
                count += site not in found
                found[site] = (turn, name, DueSite(site=site, destination=name, is_in_doubt=is_in_doubt))
                if count == limit:
                    break
    return [site for _, _, site in sorted(found.values(), key=lambda row: row[:2])][:limit]


class DoubtfulSites:
    """Finds sites in doubt, and keeps what took long to find: it is given again for RESTS times as long.

    Looking for them so takes a twentieth of a core at the most, however many there are: a flood of destinations would
    else be looked through at each check. Meanwhile who was found and left out once (he is served, or was found not to
    be due any more) is left out, and who comes anew waits; `resting` says when it is worth another check.
    """

    def __init__(self) -> None:
        self._kept: list[DueSite] = []
        self._until = 0.0  # on time.monotonic's clock

    @property
    def resting(self) -> float:
        """For how many more seconds what was found is given again; 0: for no more."""
        return max(0.0, self._until - time.monotonic())

    def of(
        self, connection: sqlite3.Connection, without: Collection[str], taken: Shares = NONE_TAKEN, *, now: float
    ) -> list[DueSite]:
        """Sites in doubt that may be served now, with whose mail it is; see Claims.doubtful_sites.

        Of more than DOUBTFUL_SEEN the others are walked through only where of the first none may go.
        """
        started = time.monotonic()
        if started < self._until:
            self._kept = [site for site in self._kept if site.site not in without]
            return [site for site in self._kept if not _is_taken(site, taken)]
        begun = time.thread_time()
        found = doubtful_sites(connection, without, taken, now=now)
        found = found or _beyond_the_first(connection, without, taken, now=now)
        took = time.thread_time() - begun
        if took > COSTLY:
            self._kept, self._until = found, started + RESTS * took
        return found


def _is_taken(site: DueSite, taken: Shares) -> bool:
    if site.message in taken.messages or site.sender in taken.senders:
        return True
    return bool(taken.domains) and registrable(site.destination) in taken.domains


def doubtful_sites(
    connection: sqlite3.Connection, without: Collection[str], taken: Shares = NONE_TAKEN, *, now: float
) -> list[DueSite]:
    """Sites in doubt that may be served now, among the first DOUBTFUL_SEEN destinations of each kind."""
    if (closed := _suspended(connection, now)) is None:
        return []
    found: dict[str, DueSite] = {}
    for has_failed in (False, True):
        for site in _of_kind(connection, has_failed, _FIRST_KEY, without, taken, now):
            if site.destination not in closed:
                found.setdefault(site.site, site)
    return list(found.values())


def doubtful_sites_singly(
    connection: sqlite3.Connection, without: Collection[str], taken: Shares = NONE_TAKEN, *, now: float
) -> list[DueSite]:
    """As `doubtful_sites`, row by row. Mail whose sender cannot be read is nobody's here: it is passed over later."""
    if (closed := _suspended(connection, now)) is None:
        return []
    found: dict[str, DueSite] = {}
    mail = tuple(f"SELECT {first} FROM (SELECT :name AS name) d" for first in (bearings.FIRST, bearings.FIRST_SENDER))
    shared = f"SELECT {TAKEN.format(message=':message', sender=':sender')} FROM (SELECT :name AS name) d"
    for row in sorted(_rows_singly(connection, now), key=lambda row: (row.blocked_until > 0, row)):
        if row.took_at or row.name in closed or row.site in without or row.site in found:
            continue
        first = [value for (value,) in of_each(mail, partial(_row, connection, {"name": row.name}))]
        message, sender = (*first, None, None)[:2]
        values = {"message": message, "sender": sender, "name": row.name, **values_of(taken)}
        if taken == NONE_TAKEN or not connection.execute(shared, values).fetchone()[0]:
            found[row.site] = _site(row.name, row.site, message, sender, has_failed=row.blocked_until > 0)
    return list(found.values())[:DOUBTFUL_AT_ONCE]


def _row(connection: sqlite3.Connection, values: dict[str, str], query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query, values).fetchone()
    return row


def next_due(connection: sqlite3.Connection, after: float, *, now: float, singly: bool = False) -> float | None:
    """When there is next something to do, later than `after`; see Claims.next_due."""
    suspended = dict(connection.execute("SELECT destination, until FROM suspension WHERE until > ?", (now,)).fetchall())
    times: list[float | None] = [until for until in suspended.values() if until > after]

    def first_ready(_: str) -> float | None:
        rows = connection.execute("SELECT name, ready FROM destination WHERE ready > ? ORDER BY ready", (after,))
        return next((ready for name, ready in rows if name not in suspended), None)

    def first(query: str) -> float | None:
        (time,) = connection.execute(query, (after,)).fetchone()
        return float(time) if time is not None else None

    queries = (
        "SELECT min(expires) FROM entry WHERE state = 'waiting' AND expires > ?",
        "SELECT min(notice_at) FROM entry WHERE state = 'waiting' AND notice_at > ?",
        "SELECT min(tell_at) FROM message WHERE tell_at > ?",
        "SELECT min(due) FROM operation WHERE due > ?",
        "SELECT min(until) FROM hold_rule WHERE until > ?",
        "SELECT min(until) FROM override WHERE until > ?",
    )
    times += of_each(("ready",) if RELAY not in suspended else (), first_ready, singly=singly)
    times += of_each(queries, first, singly=singly)
    return min((time for time in times if time is not None), default=None)


def _suspended(connection: sqlite3.Connection, now: float) -> set[str] | None:
    """The destinations that are suspended; None where the whole relay is."""
    closed = {name for (name,) in connection.execute("SELECT destination FROM suspension WHERE until > ?", (now,))}
    return None if RELAY in closed else closed


# -- in order of turns ----------------------------------------------------------------------------------------------


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


def _in_turn_singly(
    connection: sqlite3.Connection, is_in_doubt: bool, without: Collection[str], now: float
) -> Iterator[tuple[int, str, str]]:
    for row in sorted(_rows_singly(connection, now)):
        if (row.took_at == 0) == is_in_doubt and row.site not in without:
            yield row.turn, row.name, row.site


def _rows_singly(connection: sqlite3.Connection, now: float) -> Iterator[_Row]:
    """The rows of those that are due of SINGLY_SEEN destinations with mail, as far as they can be read."""
    query = "SELECT turn, name, site, took_at, blocked_until FROM destination WHERE name = ? AND ready <= ?"
    names = islice(bearings.names(connection), SINGLY_SEEN)
    rows = of_each(names, lambda name: connection.execute(query, (name, now)).fetchone())
    return (_Row(*row) for row in rows if row is not None)


# -- in doubt -------------------------------------------------------------------------------------------------------


def _of_kind(
    connection: sqlite3.Connection,
    has_failed: bool,
    after: tuple[int, str],
    without: Collection[str],
    taken: Shares,
    now: float,
) -> list[DueSite]:
    """The first DOUBTFUL_AT_ONCE that may go among the DOUBTFUL_SEEN destinations behind this turn and name."""
    nobody = "" if taken == NONE_TAKEN else f"WHERE NOT ({TAKEN.format(message='d.message', sender='d.sender')}) "
    columns = f"turn, name, site, {bearings.FIRST} AS message, {bearings.FIRST_SENDER} AS sender"
    first = _walk(connection, columns, has_failed, now)
    rows = connection.execute(
        f"SELECT name, site, message, sender FROM ({first}) d {nobody}ORDER BY turn, name LIMIT :most",
        {**_values(after, without, now), "most": DOUBTFUL_AT_ONCE, **values_of(taken)},
    )
    return [_site(*row, has_failed=has_failed) for row in rows]


def _beyond_the_first(
    connection: sqlite3.Connection, without: Collection[str], taken: Shares, *, now: float
) -> list[DueSite]:
    """Sites in doubt that may be served now, beyond those among which there are none: as many as are met first."""
    if (closed := _suspended(connection, now)) is None:
        return []
    found: list[DueSite] = []
    for has_failed in (False, True):
        after = _end(connection, has_failed, _FIRST_KEY, without, now)
        while not found and after is not None:
            some = _of_kind(connection, has_failed, after, without, taken, now)
            found = [site for site in some if site.destination not in closed]
            after = _end(connection, has_failed, after, without, now)
    return list({site.site: site for site in reversed(found)}.values())[::-1]


def _end(
    connection: sqlite3.Connection, has_failed: bool, after: tuple[int, str], without: Collection[str], now: float
) -> tuple[int, str] | None:
    """The turn and name of the last of the DOUBTFUL_SEEN destinations behind this one; None: there are not so many."""
    query = f"SELECT turn, name FROM ({_walk(connection, 'turn, name', has_failed, now)}) LIMIT 1 OFFSET :seen - 1"
    row = connection.execute(query, _values(after, without, now)).fetchone()
    return (row[0], row[1]) if row is not None else None


def _walk(connection: sqlite3.Connection, columns: str, has_failed: bool, now: float) -> str:
    index = "destination_ready" if _is_few(connection, now) else "destination_doubtful"
    return (
        f"SELECT {columns} FROM destination d INDEXED BY {index} "
        "WHERE ready IS NOT NULL AND ready <= :now AND took_at = 0 AND (turn, name) > (:turn, :name) "
        f"AND blocked_until {'>' if has_failed else '='} 0 "
        "AND site NOT IN (SELECT value FROM json_each(:without)) ORDER BY turn, name LIMIT :seen"
    )


def _values(after: tuple[int, str], without: Collection[str], now: float) -> dict[str, object]:
    turn, name = after
    return {"now": now, "turn": turn, "name": name, "without": json.dumps(sorted(without)), "seen": DOUBTFUL_SEEN}


def _site(name: str, site: str, message: int | None, sender: str | None, *, has_failed: bool) -> DueSite:
    return DueSite(
        site=site,
        destination=name,
        is_in_doubt=True,
        has_failed=has_failed,
        message=message or 0,
        sender=sender or "",
    )
