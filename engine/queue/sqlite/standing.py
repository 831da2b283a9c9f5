"""What stands until its time is over: suspensions, blocks and marks, and the exchanges of a destination."""

import json
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from engine.base.plural import plural
from engine.model.destination import HeldBack, Mark, Suspension
from engine.model.event import ENGINE, Event
from engine.queue.sqlite.arrivals import know_destination
from engine.queue.sqlite.bearing import bearings
from engine.queue.sqlite.destinations import COSTLY, RESTS
from engine.queue.sqlite.rows import outcome_json, outcome_of, storable
from engine.queue.sqlite.writer import Transaction

IDLE_SECONDS = 86400.0  # a destination with nothing in it, and a mark that has ended, are forgotten after
FORGET_AT_ONCE = 1000  # destinations, and marks, forgotten in one transaction
KEEP_OPERATIONS = 30 * 86400.0  # seconds
PROVED_SECONDS = 8 * 86400.0  # for so long what took mail has proved itself; a week's letter finds it so
PROVED_KEPT = 50_000  # destinations with nothing in them that are remembered for it, those that took mail last
HELD_BACK_NAMED = 100  # destinations
ALTERNATES_NAMED = 20  # hosts
TRIED_FIRST = 10  # destinations
ANSWERS_KEPT = 8  # of costly ones: windows that consoles look at

T = TypeVar("T")


def suspend(tx: Transaction, suspension: Suspension) -> None:
    """Keep a suspension, in place of any there was."""
    name, by, reason = storable(suspension.destination).lower(), storable(suspension.by), storable(suspension.reason)
    tx.execute(
        'INSERT OR REPLACE INTO suspension (destination, since, until, "by", reason) VALUES (?, ?, ?, ?, ?)',
        (name, suspension.since, suspension.until, by, reason),
    )
    tx.record(Event(at=tx.now, kind="suspended", by=by, destination=name, text=reason))


def resume(tx: Transaction, destination: str, by: str) -> bool:
    """End a suspension; False when none was in force."""
    name = storable(destination).lower()
    cursor = tx.execute("DELETE FROM suspension WHERE destination = ? AND until > ?", (name, tx.now))
    if cursor.rowcount:
        tx.record(Event(at=tx.now, kind="resumed", by=by, destination=name))
    return bool(cursor.rowcount)


def end_suspensions(tx: Transaction) -> None:
    """Remove the suspensions whose time is over, and say so."""
    ended = tx.execute("SELECT destination FROM suspension WHERE until <= ? ORDER BY until", (tx.now,)).fetchall()
    for (name,) in ended:
        tx.execute("DELETE FROM suspension WHERE destination = ?", (name,))
        tx.record(Event(at=tx.now, kind="resumed", by=ENGINE, destination=name, text="its time was over"))


def note_destination(tx: Transaction, destination: str, exchanges: Sequence[str] | None, site: str | None) -> None:
    """Remember the hosts of a destination, best first, and its site. Nothing is written when they are known.

    With a new site comes what that has proved.
    """
    name = storable(destination).lower()
    if site is not None:
        _note_site(tx, name, storable(site))
    if exchanges is None:
        return
    hosts = [storable(host).lower() for host in dict.fromkeys(exchanges)]
    known = tx.execute("SELECT host FROM exchange WHERE destination = ? ORDER BY preference", (name,)).fetchall()
    if hosts == [host for (host,) in known]:
        return
    know_destination(tx, name)
    tx.execute("DELETE FROM exchange WHERE destination = ?", (name,))
    tx.connection.executemany(
        "INSERT INTO exchange (destination, preference, host) VALUES (?, ?, ?)",
        [(name, preference, host) for preference, host in enumerate(hosts)],
    )


def _note_site(tx: Transaction, name: str, site: str) -> None:
    if tx.execute("SELECT site FROM destination WHERE name = ?", (name,)).fetchone() == (site,):
        return
    know_destination(tx, name)
    tx.execute(
        "UPDATE destination SET site = ?, took_at = max(took_at, coalesce((SELECT max(d.took_at) FROM destination d "
        "INDEXED BY destination_took WHERE d.site = ? AND d.took_at > 0), 0)) WHERE name = ?",
        (site, site, name),
    )


_BLOCK = (
    "UPDATE destination SET blocked_until = :until, blocked_why = :why, took_at = iif(:failed, 0, took_at), "
    "unreached_at = iif(:failed, :now, unreached_at)"
)


def block(tx: Transaction, destination: str, until: float, why: str, *, failed: bool) -> None:
    """Open no connection before `until`; what `failed` has to prove itself again."""
    name = storable(destination).lower()
    know_destination(tx, name)
    values = {"until": until, "why": storable(why), "failed": failed, "now": tx.now, "name": name}
    tx.execute(f"{_BLOCK} WHERE name = :name", values)


def block_site(tx: Transaction, site: str, until: float, why: str, *, failed: bool) -> None:
    """Open no connection before `until` to the destinations of a site for which something waits."""
    values = {"until": until, "why": storable(why), "failed": failed, "now": tx.now, "site": storable(site)}
    tx.execute(f"{_BLOCK} WHERE site = :site AND ready IS NOT NULL", values)


def proves(connection: sqlite3.Connection, site: str) -> bool:
    """Whether any destination of a site has taken mail lately."""
    (found,) = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM destination INDEXED BY destination_took WHERE site = ? AND took_at > 0)",
        (storable(site),),
    ).fetchone()
    return bool(found)


def unblock_site(tx: Transaction, site: str) -> None:
    """Connections to all destinations of a site may be opened again."""
    tx.execute(
        "UPDATE destination SET blocked_until = 0, blocked_why = '', unreached_at = 0 "
        "WHERE site = ? AND ready IS NOT NULL AND blocked_until > 0",
        (storable(site),),
    )


def unblock(tx: Transaction, destinations: Sequence[str]) -> None:
    """Connections may be opened again."""
    tx.connection.executemany(
        "UPDATE destination SET blocked_until = 0, blocked_why = '', unreached_at = 0 "
        "WHERE name = ? AND blocked_until > 0",
        [(storable(name).lower(),) for name in destinations],
    )


def save_mark(tx: Transaction, mark: Mark) -> None:
    """Keep a mark, in place of any the host had.

    Where it ends earlier, what was blocked for longer because of it is unblocked: an operator who corrects 30 d to
    10 m is not to find mail waiting for 30 d.
    """
    host, by, reason = storable(mark.host).lower(), storable(mark.by), storable(mark.reason)
    before = tx.execute("SELECT until FROM mark WHERE host = ?", (host,)).fetchone()
    if before is not None and mark.until < before[0]:
        _unblock_because_of(tx, host, mark.until)
    tx.execute(
        'INSERT OR REPLACE INTO mark (host, since, until, "by", reason, last, times) VALUES (?, ?, ?, ?, ?, ?, ?)',
        (host, mark.since, mark.until, by, reason, outcome_json(mark.last), mark.times),
    )
    tx.record(Event(at=tx.now, kind="marked bad", by=by, host=host, outcome=mark.last, text=reason))


def has_mark(connection: sqlite3.Connection, host: str) -> bool:
    """Whether a host has a mark, even one that has ended."""
    return connection.execute("SELECT 1 FROM mark WHERE host = ?", (storable(host).lower(),)).fetchone() is not None


def remove_mark(tx: Transaction, host: str, by: str, made_due: int = 0) -> bool:
    """Forget a mark and unblock the destinations that have the host among their exchanges; False without a mark.

    The event of an operator's says how many recipients were `made_due` for it.
    """
    host = storable(host).lower()
    if not tx.execute("DELETE FROM mark WHERE host = ?", (host,)).rowcount:
        return False
    _unblock_because_of(tx, host, 0.0)
    goes = f"{plural(made_due, 'recipient')} that waited for it made due"
    told = "" if by == ENGINE else goes if made_due else "no mail waited for it"
    tx.record(Event(at=tx.now, kind="marked good", by=by, host=host, text=told))
    return True


def forget_marks(tx: Transaction, hosts: Sequence[str]) -> None:
    """Let go of marks, and say nothing: what is blocked because of them waits for its time."""
    tx.connection.executemany("DELETE FROM mark WHERE host = ?", [(storable(host).lower(),) for host in hosts])


def forget_idle(tx: Transaction) -> bool:
    """Forget what is of no more use; False when there may be more of it than is forgotten at once.

    That is destinations in which nothing is and of which nothing was heard for a day, unless they took mail lately;
    marks that ended a day ago (a host that answers before is news), and old operations. What took mail too long ago
    has to prove itself again.
    """
    long_ago = tx.now - IDLE_SECONDS
    proved = _proved_since(tx)
    tx.execute(
        "UPDATE destination SET took_at = 0 WHERE name IN "
        "(SELECT name FROM destination WHERE took_at > 0 AND took_at < ? LIMIT ?)",
        (tx.now - PROVED_SECONDS, FORGET_AT_ONCE),
    )
    destinations = tx.execute(
        "DELETE FROM destination WHERE name IN (SELECT name FROM destination WHERE waiting + held + relaying = 0 "
        "AND touched < ? AND coalesce(last_at, 0) < ? AND took_at < ? AND blocked_until <= ? "
        "AND name NOT IN (SELECT destination FROM suspension) LIMIT ?)",
        (long_ago, long_ago, proved, tx.now, FORGET_AT_ONCE),
    )
    marks = tx.execute(
        "DELETE FROM mark WHERE host IN (SELECT host FROM mark WHERE until < ? LIMIT ?)", (long_ago, FORGET_AT_ONCE)
    )
    tx.execute(
        "DELETE FROM operation WHERE finished AND at < ? AND id NOT IN "
        "(SELECT operation FROM entry WHERE operation IS NOT NULL)",
        (tx.now - KEEP_OPERATIONS,),
    )
    return destinations.rowcount < FORGET_AT_ONCE and marks.rowcount < FORGET_AT_ONCE


def _proved_since(tx: Transaction) -> float:
    """Since when a destination must have taken mail to be remembered for that alone."""
    row = tx.execute(
        "SELECT took_at FROM destination INDEXED BY destination_took WHERE took_at > 0 "
        "ORDER BY took_at DESC LIMIT 1 OFFSET ?",
        (PROVED_KEPT,),
    ).fetchone()
    return max(tx.now - PROVED_SECONDS, row[0] + 1 if row else 0.0)


def marks(connection: sqlite3.Connection) -> tuple[Mark, ...]:
    """All marks kept, those too that ended not long ago."""
    rows = connection.execute('SELECT host, since, until, "by", reason, last, times FROM mark ORDER BY host')
    return tuple(
        Mark(host=host, since=since, until=until, by=by, reason=reason, last=outcome_of(last), times=times)
        for host, since, until, by, reason, last, times in rows
    )


class HeldBackAnswers:
    """Answers what bad hosts hold back, and remembers the last answers if they were costly.

    Consoles ask once a second, each for the window it shows: however many hosts are bad for however many destinations,
    answering one takes no more than a twentieth of a core.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...] | None, tuple[float, Any]] = OrderedDict()

    def of(self, connection: sqlite3.Connection, hosts: tuple[str, ...], *, now: float) -> tuple[HeldBack, ...]:
        """What waits because of each of these hosts; see Queue.held_back."""
        return self._answer(hosts, lambda: held_back(connection, hosts, now=now))

    def counts(self, connection: sqlite3.Connection, *, now: float) -> dict[str, int]:
        """How many wait because of each host with a mark; see Queue.held_back_counts."""
        return self._answer(None, lambda: held_back_counts(connection, now=now))

    def _answer(self, asked: tuple[str, ...] | None, find: Callable[[], T]) -> T:
        until, answer = self._kept.get(asked, (0.0, None))
        started = time.monotonic()
        if started < until:
            kept: T = answer
            return kept
        found = find()
        ended = time.monotonic()
        self._kept.pop(asked, None)
        if ended - started > COSTLY:
            self._kept[asked] = (ended + RESTS * (ended - started), found)
        while len(self._kept) > ANSWERS_KEPT:
            self._kept.popitem(last=False)
        return found


def held_back_counts(connection: sqlite3.Connection, *, now: float) -> dict[str, int]:
    """How many wait because of each host with a mark: one walk over the destinations in which something waits."""
    rows = connection.execute(
        "SELECT b.host, sum(d.waiting) FROM destination d JOIN exchange b ON b.destination = d.name "
        "WHERE d.waiting > 0 AND NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name "
        "AND NOT EXISTS (SELECT 1 FROM mark m WHERE m.host = x.host AND m.until > ?)) GROUP BY b.host",
        (now,),
    )
    return dict(rows.fetchall())


def held_back(connection: sqlite3.Connection, hosts: Sequence[str], *, now: float) -> tuple[HeldBack, ...]:
    """What waits because of each of these hosts, which are bad as are all that have a mark; see Queue.held_back."""
    names = [storable(host).lower() for host in hosts]
    bad = (json.dumps(names), now)
    found = [_held_back(connection, host, name, bad) for host, name in zip(hosts, names, strict=True)]
    first = [_tried_first(connection, name, bad, now) for name in names]
    known = bearings(connection, {name for several in first for name in several}, now)
    return tuple(
        replace(one, first=tuple(known[name] for name in several)) for one, several in zip(found, first, strict=True)
    )


def _unblock_because_of(tx: Transaction, host: str, until: float) -> None:
    """Unblock the destinations that are blocked beyond `until` and have the host among their exchanges."""
    tx.execute(
        "UPDATE destination SET blocked_until = 0, blocked_why = '' "
        "WHERE name IN (SELECT destination FROM exchange WHERE host = ?) AND blocked_until > ?",
        (host, until),
    )


# A host that is good: it is none of those asked for (their JSON list), and has no mark in force (now).
_GOOD = (
    "x.host NOT IN (SELECT value FROM json_each(?)) "
    "AND NOT EXISTS (SELECT 1 FROM mark m WHERE m.host = x.host AND m.until > ?)"
)
_Bad = tuple[str, float]  # what stands for the two question marks


def _tried_first(connection: sqlite3.Connection, name: str, bad: _Bad, now: float) -> list[str]:
    """Of the destinations that wait for a host alone those that are tried first, by schedule, block and suspension."""
    rows = connection.execute(
        "SELECT d.name FROM exchange b JOIN destination d ON d.name = b.destination "
        "LEFT JOIN suspension s ON s.destination = d.name AND s.until > ? WHERE b.host = ? AND d.waiting > 0 "
        f"AND NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name AND {_GOOD}) "
        "ORDER BY max(d.ready, coalesce(s.until, 0)), d.name LIMIT ?",
        (now, name, *bad, TRIED_FIRST),
    )
    return [one for (one,) in rows]


def _held_back(connection: sqlite3.Connection, host: str, name: str, bad: _Bad) -> HeldBack:
    """Give what one host holds back; `bad` says which others are bad."""
    stuck = f"NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name AND {_GOOD})"
    affected = "FROM exchange b JOIN destination d ON d.name = b.destination WHERE b.host = ?"
    waiting, edge = connection.execute(
        f"SELECT coalesce(sum(d.waiting), 0), min(d.edge) {affected} AND {stuck}", (name, *bad)
    ).fetchone()
    destinations = connection.execute(
        f"SELECT d.name {affected} ORDER BY d.waiting DESC, d.name LIMIT ?", (name, HELD_BACK_NAMED)
    ).fetchall()
    alternates = connection.execute(
        f"SELECT DISTINCT x.host FROM exchange x WHERE {_GOOD} AND x.destination IN (SELECT d.name {affected}) "
        "ORDER BY x.host LIMIT ?",
        (*bad, name, ALTERNATES_NAMED),
    ).fetchall()
    return HeldBack(
        host=host,
        waiting=waiting,
        destinations=tuple(one for (one,) in destinations),
        alternates=tuple(one for (one,) in alternates),
        next_due=edge,
    )
