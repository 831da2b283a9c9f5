"""The walk over what has expired, in SQLite: by an index, and beside a damaged page entry by entry."""

import sqlite3
from typing import Any, NamedTuple

from engine.model.destination import RELAY
from engine.queue import expiry
from engine.queue.expiry import START, Taken
from engine.queue.sqlite import bearings
from engine.queue.sqlite.connection import is_damage
from engine.queue.sqlite.writer import Transaction

EXPIRED = (
    "SELECT e.message, e.destination, e.number, e.expires, e.due, e.attempts, d.blocked_until, d.unreached_at, "
    "e.destination IN (SELECT destination FROM suspension WHERE until > :now) "
    f"OR EXISTS (SELECT 1 FROM suspension WHERE destination = '{RELAY}' AND until > :now) "
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
_FIRST = ("", 0, 0)


class Place(NamedTuple):
    """Where the walk stands, and behind which entry one does that goes around what is damaged.

    The latter by destination, message and number; its pass began when `walk` says.
    """

    walk: expiry.Place = expiry.Place()
    beside: tuple[str, int, int] = _FIRST


class Expired:
    """Walks over what has expired, some at each call; each is told where the next is to go on before that begins."""

    def __init__(self) -> None:
        self._place = Place()

    def given_up(self, tx: Transaction, taken: Taken, limit: int) -> Place:
        """Of the next LOOKED_AT expired entries add those that are given up to what is `taken`, up to `limit` in all.

        Gives the place to go on from: the walk stays where it is until it is told, since what is done with the entries
        may be undone, and run again.
        """
        if tx.damage.knows("expired"):
            return self._beside_damage(tx, taken, limit)
        walk, beside = self._place
        if beside == _FIRST and walk.rests(tx.now):
            return self._place
        expires, message, number = walk.after
        values = {"now": tx.now, "expires": expires, "message": message, "number": number, "limit": expiry.LOOKED_AT}
        with tx.touching("expired"):
            rows = tx.execute(EXPIRED, values).fetchall()
        unreadable = {row[0] for row in rows if tx.damage.knows("expired", row[0])}
        goes_on = expiry.go_through(walk, rows, taken, limit, now=tx.now, passed_over=unreadable)
        return self._place if goes_on is walk else Place(goes_on)

    def _beside_damage(self, tx: Transaction, taken: Taken, limit: int) -> Place:
        """The same where a page is damaged: of the next LOOKED_AT entries, in the order of their destinations.

        All are looked at, those too that have not expired: so a pass begins PASS_EVERY seconds after the last one.
        """
        walk, beside = self._place
        begun = walk.begun
        if beside == _FIRST:
            if walk.rests(tx.now):
                return self._place
            begun = tx.now
        keys = tx.execute(_KEYS, (*beside, expiry.LOOKED_AT)).fetchall()
        rows = _each(tx, keys)
        for key in keys:
            for row in rows.get(key[1:], ()):
                if not expiry.take(row, taken, limit, now=tx.now):
                    return Place(expiry.Place(begun=begun), beside) if beside != _FIRST else self._place
            beside = key
        return Place(expiry.Place(begun=begun), beside if len(keys) == expiry.LOOKED_AT else _FIRST)

    def go_on_from(self, place: Place) -> None:
        """What was found up to here is claimed."""
        self._place = place


def _each(tx: Transaction, keys: list[tuple[str, int, int]]) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """What EXPIRED says of each of these entries that can be read, by message and number."""
    found: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    met: sqlite3.Error | None = None
    values = {"now": tx.now, "expires": START[0], "message": START[1], "number": START[2], "limit": 1}
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
