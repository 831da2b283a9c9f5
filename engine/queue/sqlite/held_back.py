"""What bad MX hosts hold back: how much mail waits for each, in which destinations, and which host is tried instead."""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from engine.base.kept import Kept
from engine.model.destination import HeldBack
from engine.queue.bounds import ALTERNATES_NAMED, ANSWERS_KEPT, COSTLY, NAMED, RESTS, TRIED_FIRST
from engine.queue.columns import storable
from engine.queue.sqlite.bearings import bearings

T = TypeVar("T")


class HeldBackAnswers:
    """Answers what bad hosts hold back, and remembers the last answers if they were costly.

    Consoles ask once a second, each for the window it shows: however many hosts are bad for however many destinations,
    answering one takes no more than a twentieth of a core.
    """

    def __init__(self) -> None:
        self._kept = Kept[tuple[str, ...] | None, tuple[float, Any]](ANSWERS_KEPT)

    def of(self, connection: sqlite3.Connection, hosts: tuple[str, ...], *, now: float) -> tuple[HeldBack, ...]:
        """What waits because of each of these hosts; see Listing.held_back."""
        return self._answer(hosts, lambda: held_back(connection, hosts, now=now))

    def counts(self, connection: sqlite3.Connection, *, now: float) -> dict[str, int]:
        """How many wait because of each host with a mark; see Listing.held_back_counts."""
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
    """What waits because of each of these hosts, which are bad as are all that have a mark; see Listing.held_back."""
    names = [storable(host).lower() for host in hosts]
    bad = (json.dumps(names), now)
    found = [_held_back(connection, host, name, bad) for host, name in zip(hosts, names, strict=True)]
    first = [_tried_first(connection, name, bad, now) for name in names]
    known = bearings(connection, {name for several in first for name in several}, now)
    return tuple(
        replace(host, first=tuple(known[name] for name in several)) for host, several in zip(found, first, strict=True)
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
    return [name for (name,) in rows]


def _held_back(connection: sqlite3.Connection, host: str, name: str, bad: _Bad) -> HeldBack:
    """Give what one host holds back; `bad` says which others are bad."""
    stuck = f"NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name AND {_GOOD})"
    affected = "FROM exchange b JOIN destination d ON d.name = b.destination WHERE b.host = ?"
    waiting, edge = connection.execute(
        f"SELECT coalesce(sum(d.waiting), 0), min(d.edge) {affected} AND {stuck}", (name, *bad)
    ).fetchone()
    destinations = connection.execute(
        f"SELECT d.name {affected} ORDER BY d.waiting DESC, d.name LIMIT ?", (name, NAMED)
    ).fetchall()
    alternates = connection.execute(
        f"SELECT DISTINCT x.host FROM exchange x WHERE {_GOOD} AND x.destination IN (SELECT d.name {affected}) "
        "ORDER BY x.host LIMIT ?",
        (*bad, name, ALTERNATES_NAMED),
    ).fetchall()
    return HeldBack(
        host=host,
        waiting=waiting,
        destinations=tuple(name for (name,) in destinations),
        alternates=tuple(host for (host,) in alternates),
        next_due=edge,
    )
