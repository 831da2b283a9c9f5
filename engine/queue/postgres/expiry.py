"""The walk over what has expired, in PostgreSQL: some at each check, by the index of what waits (see there)."""

from engine.model.destination import RELAY
from engine.queue import expiry
from engine.queue.expiry import Place, Taken
from engine.queue.postgres import bearings
from engine.queue.postgres.transaction import Transaction

# The next expired entries, found in the index first, each with what bears on whether it is given up.
EXPIRED = (
    "SELECT e.message, e.destination, e.number, e.expires, e.due, e.attempts, d.blocked_until, d.unreached_at, "
    f"EXISTS (SELECT 1 FROM suspension WHERE destination IN ('{RELAY}', e.destination) AND until > $1) "
    f"OR e.destination IN ({bearings.LEFT_OUT.format(now='$1')}) "
    "FROM (SELECT message, destination, number, expires, due, attempts FROM entry "
    "WHERE state = 'waiting' AND expires <= $1 AND (expires, message, number) > ($2, $3, $4) "
    "ORDER BY expires, message, number LIMIT $5) e JOIN destination d ON d.name = e.destination "
    "ORDER BY e.expires, e.message, e.number"
)


class Expired:
    """Walks over what has expired, some at each call; each is told where the next is to go on before that begins."""

    def __init__(self) -> None:
        self._place = Place()

    async def given_up(self, tx: Transaction, taken: Taken, limit: int) -> Place:
        """Of the next LOOKED_AT expired entries add those that are given up to what is `taken`, up to `limit` in all.

        Gives the place to go on from: the walk stays where it is until it is told, since what is done with the entries
        may be undone, and run again.
        """
        if self._place.rests(tx.now):
            return self._place
        rows = await tx.fetch(EXPIRED, tx.now, *self._place.after, expiry.LOOKED_AT)
        return expiry.go_through(self._place, rows, taken, limit, now=tx.now)

    def go_on_from(self, place: Place) -> None:
        """What was found up to here is claimed."""
        self._place = place
