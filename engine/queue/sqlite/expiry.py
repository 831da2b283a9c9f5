"""The end of patience: what has had its time and leaves untried, and what has one more try to come.

Mail that could go at once is tried before it is returned, and nothing is returned that was never tried: it may have
been held, or have waited while the engine was down. `is_given_up` decides; the walk below and what is shown ask it.
"""

import sqlite3
from typing import Any, NamedTuple

from engine.model.destination import RELAY
from engine.model.expiry import is_given_up
from engine.queue.sqlite import bearings
from engine.queue.sqlite.connection import is_damage
from engine.queue.sqlite.writer import Transaction

# Expired entries that are looked at in one check: some milliseconds' worth. Those that have one more try to come stay
# among them; the next check goes on behind the last one looked at.
LOOKED_AT = 500
PASS_EVERY = 10.0  # seconds from the beginning of a pass over more than those to that of the next

EXPIRED = (
    "SELECT e.message, e.destination, e.number, e.expires, e.due, e.attempts, d.blocked_until, d.unreached_at, "
    "e.destination IN (SELECT destination FROM suspension WHERE until > :now) "
    f"OR e.destination IN ({bearings.LEFT_OUT.replace('?', ':now')}) "
    "FROM entry e INDEXED BY entry_expires CROSS JOIN destination d "
    "WHERE d.name = e.destination AND e.state = 'waiting' AND e.expires <= :now "
    "AND (e.expires, e.message, e.number) > (:expires, :message, :number) "
    "ORDER BY e.expires, e.message, e.number LIMIT :limit"
)
# The same of one entry, found without the index over all of them.
_OF_ONE = EXPIRED.replace("INDEXED BY entry_expires ", "").replace(
    "WHERE d.name = e.destination", "WHERE e.message = :of AND e.number = :one AND d.name = e.destination"
)
# The keys of all entries are in this index, which can be read though they cannot.
_KEYS = (
    "SELECT destination, message, number FROM entry INDEXED BY entry_destination "
    "WHERE (destination, message, number) > (?, ?, ?) ORDER BY destination, message, number LIMIT ?"
)
_START = (0.0, 0, 0)
_FIRST = ("", 0, 0)

Taken = dict[tuple[int, str], dict[int, str]]  # by message and destination: the entries, and by whose order each leaves


class Place(NamedTuple):
    """Where a walk stands: behind which entry, and when its pass began (0.0: the next may begin at once).

    `beside`: behind which entry one stands that goes around what is damaged, by destination, message and number.
    """

    after: tuple[float, int, int] = _START
    begun: float = 0.0
    beside: tuple[str, int, int] = _FIRST


class Expired:
    """Walks over what has expired, some at each call; each is told where the next is to go on before that begins."""

    def __init__(self) -> None:
        self._place = Place()

    def given_up(self, tx: Transaction, taken: Taken, limit: int) -> Place:
        """Of the next LOOKED_AT expired entries add those that are given up to what is `taken`, up to `limit` in all.

        Behind the last entry it begins anew; what is given up, and was not taken for the limit, is looked at next.
        Gives the place to go on from: the walk stays where it is until it is told, since what is done with the entries
        may be undone, and run again.
        """
        if tx.damage.knows("expired"):
            return self._beside_damage(tx, taken, limit)
        after, begun, beside = self._place
        is_first = after == _START
        if is_first:
            if beside == _FIRST and begun <= tx.now < begun + PASS_EVERY:
                return self._place
            begun = tx.now
        expires, message, number = after
        values = {"now": tx.now, "expires": expires, "message": message, "number": number, "limit": LOOKED_AT}
        with tx.touching("expired"):
            rows = tx.execute(EXPIRED, values).fetchall()
        is_suspended = _is_relay_suspended(tx.connection, tx.now)
        for row in rows:
            message, _, number, expires = row[:4]
            is_readable = not tx.damage.knows("expired", message)
            if is_readable and not _take(row, taken, limit, now=tx.now, is_suspended=is_suspended):
                return Place(after, begun) if after != _START else self._place
            after = (expires, message, number)
        if len(rows) < LOOKED_AT:
            return Place(begun=0.0 if is_first else begun)
        return Place(after, begun)

    def _beside_damage(self, tx: Transaction, taken: Taken, limit: int) -> Place:
        """The same where a page is damaged: of the next LOOKED_AT entries, in the order of their destinations.

        All are looked at, those too that have not expired: so a pass begins PASS_EVERY seconds after the last one.
        """
        after, begun, beside = self._place
        if beside == _FIRST:
            if after == _START and begun <= tx.now < begun + PASS_EVERY:
                return self._place
            begun = tx.now
        keys = tx.execute(_KEYS, (*beside, LOOKED_AT)).fetchall()
        rows = _each(tx, keys)
        is_suspended = _is_relay_suspended(tx.connection, tx.now)
        for key in keys:
            for row in rows.get(key[1:], ()):
                if not _take(row, taken, limit, now=tx.now, is_suspended=is_suspended):
                    return Place(begun=begun, beside=beside) if beside != _FIRST else self._place
            beside = key
        return Place(begun=begun, beside=beside if len(keys) == LOOKED_AT else _FIRST)

    def go_on_from(self, place: Place) -> None:
        """What was found up to here is claimed."""
        self._place = place


def _take(row: tuple[Any, ...], taken: Taken, limit: int, *, now: float, is_suspended: bool) -> bool:
    """Add a row of EXPIRED to what is taken if it is given up; False: it would be one more than `limit`."""
    message, destination, number, expires, due, attempts, blocked_until, unreached_at, kept = row
    if is_given_up(
        now=now,
        expires=expires,
        due=due,
        attempts=attempts,
        blocked_until=blocked_until,
        unreached_at=unreached_at,
        kept=bool(kept) or is_suspended,
    ):
        key = (message, destination)
        if key not in taken and len(taken) >= limit:
            return False
        taken.setdefault(key, {})[number] = ""
    return True


def _each(tx: Transaction, keys: list[tuple[str, int, int]]) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """What EXPIRED says of each of these entries that can be read, by message and number."""
    found: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    met: sqlite3.Error | None = None
    values = {"now": tx.now, "expires": 0.0, "message": 0, "number": 0, "limit": 1}
    for _, message, number in keys:
        if tx.damage.knows("expired", message):
            continue
        try:
            found[message, number] = tx.execute(_OF_ONE, {**values, "of": message, "one": number}).fetchall()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            tx.damage.note("expired", message)
            met = error
    if met is not None:  # nothing can be committed any more: once anew, with all of them known
        raise met
    return found


def _is_relay_suspended(connection: sqlite3.Connection, now: float) -> bool:
    query = "SELECT 1 FROM suspension WHERE destination = ? AND until > ?"
    return connection.execute(query, (RELAY, now)).fetchone() is not None
