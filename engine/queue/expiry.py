"""The end of patience: what has had its time and leaves untried, and what has one more try to come.

Mail that could go at once is tried before it is returned, and nothing is returned that was never tried: it may have
been held, or have waited while the engine was down. `is_given_up` decides; the walk below and what is shown ask it.
"""

import sqlite3
from typing import Any, NamedTuple

from engine.queue import bearing
from engine.queue.queue import RELAY
from engine.queue.writer import Transaction

# Expired entries that are looked at in one check: some milliseconds' worth. Those that have one more try to come stay
# among them; the next check goes on behind the last one looked at.
LOOKED_AT = 500
PASS_EVERY = 10.0  # seconds from the beginning of a pass over more than those to that of the next

EXPIRED = (
    "SELECT e.message, e.destination, e.number, e.expires, e.due, e.attempts, d.blocked_until, d.unreached_at, "
    "e.destination IN (SELECT destination FROM suspension WHERE until > :now) "
    f"OR e.destination IN ({bearing.LEFT_OUT.replace('?', ':now')}) "
    "FROM entry e INDEXED BY entry_expires CROSS JOIN destination d "
    "WHERE d.name = e.destination AND e.state = 'waiting' AND e.expires <= :now "
    "AND (e.expires, e.message, e.number) > (:expires, :message, :number) "
    "ORDER BY e.expires, e.message, e.number LIMIT :limit"
)
# The same of one message, found without the index over all of them.
_OF_MESSAGE = EXPIRED.replace("INDEXED BY entry_expires ", "").replace(
    "WHERE d.name = e.destination", "WHERE e.message = :of AND d.name = e.destination"
)
_START = (0.0, 0, 0)

Taken = dict[tuple[int, str], dict[int, str]]  # by message and destination: the entries, and by whose order each leaves


def is_given_up(
    *, now: float, expires: float, due: float, attempts: int, blocked_until: float, unreached_at: float, kept: bool
) -> bool:
    """Whether mail that waits is returned at `now` without a further try (RFC 5321 4.5.4.1).

    `kept`: its destination, or the relay, is suspended, or operators have marked all of its hosts bad. `unreached_at`
    is when no connection could be had to its destination last: with a dead host, ten messages are tried in its stead.
    """
    if expires > now:
        return False
    if attempts:
        return due > now or blocked_until > now or kept
    return blocked_until > now and unreached_at >= expires


class Place(NamedTuple):
    """Where a walk stands: behind which entry, and when its pass began (0.0: the next may begin at once)."""

    after: tuple[float, int, int] = _START
    begun: float = 0.0


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
        after, begun = self._place
        is_first = after == _START
        if is_first:
            if begun <= tx.now < begun + PASS_EVERY:
                return self._place
            begun = tx.now
        expires, message, number = after
        values = {"now": tx.now, "expires": expires, "message": message, "number": number, "limit": LOOKED_AT}
        rows = _rows(tx, values)
        is_suspended = _is_relay_suspended(tx.connection, tx.now)
        for message, destination, number, expires, due, attempts, blocked_until, unreached_at, kept in rows:
            if is_given_up(
                now=tx.now,
                expires=expires,
                due=due,
                attempts=attempts,
                blocked_until=blocked_until,
                unreached_at=unreached_at,
                kept=bool(kept) or is_suspended,
            ):
                key = (message, destination)
                if key not in taken and len(taken) >= limit:
                    return Place(after, begun) if after != _START else self._place
                taken.setdefault(key, {})[number] = ""
            after = (expires, message, number)
        if len(rows) < LOOKED_AT:
            return Place(begun=0.0 if is_first else begun)
        return Place(after, begun)

    def go_on_from(self, place: Place) -> None:
        """What was found up to here is claimed."""
        self._place = place


def _rows(tx: Transaction, values: dict[str, float]) -> list[tuple[Any, ...]]:
    """The next LOOKED_AT of EXPIRED; where a page is damaged, those of messages that can be read."""
    if not tx.damage.knows("expired"):
        with tx.touching("expired"):
            return tx.execute(EXPIRED, values).fetchall()
    found: list[tuple[Any, ...]] = []
    messages = tx.execute("SELECT number FROM message WHERE expires <= ? ORDER BY expires", (tx.now,)).fetchall()
    for (message,) in messages:
        if not tx.damage.knows("expired", message):
            with tx.touching("expired", message):
                found += tx.execute(_OF_MESSAGE, {**values, "of": message}).fetchall()
    return sorted(found, key=lambda row: (row[3], row[0], row[2]))[:LOOKED_AT]


def _is_relay_suspended(connection: sqlite3.Connection, now: float) -> bool:
    query = "SELECT 1 FROM suspension WHERE destination = ? AND until > ?"
    return connection.execute(query, (RELAY, now)).fetchone() is not None
