"""Pressure: what changes where others wait for what those have that have not proved themselves.

RFC 5321 4.5.3.2 grants a peer minutes for each step. That is for who keeps nobody else from being served.
"""

from collections.abc import Collection

from engine.base.clock import Clock
from engine.delivery.capacity import PLACE_KEPT, Capacity
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.sites import Sites
from engine.model.claim import Shares
from engine.queue.contract import Queue


class Pressure:
    """Looks, after each check, whether anybody waits for others to end; ends those that only keep us waiting."""

    def __init__(self, queue: Queue, sites: Sites, capacity: Capacity, clock: Clock) -> None:
        self._queue = queue
        self._sites = sites
        self._capacity = capacity
        self._clock = clock
        self._is_short = False  # something is due that finds no room
        self._is_on = False  # and it is not for want of its own share that it waits
        self._looked_at = clock.now()

    async def look(self, live: Collection[ManagedRelayer]) -> None:
        """Find out, and have those end that have kept us waiting for long enough. Raises QueueError."""
        live = tuple(live)  # as they are now: whoever ends while the queue is asked leaves room, and nobody short of it
        is_short = not self._capacity.places(live) or self._capacity.on_doubt(live) is not None
        closed, shares = self._sites.closed(live), self._capacity.shares(live)
        self._is_short = is_short and bool(await self._queue.claims.due_sites(1, closed))
        self._is_on = self._is_short and await self._do_wait(live, closed, shares)
        self._looked_at = self._clock.now()
        found: dict[Shares, bool] = {}
        for relayer in live if self._is_short else ():
            if not relayer.is_doubtful or relayer.pace.patience_ends > self._looked_at:
                continue
            # Who has his share waits for those alone that have it: not for the slow hosts of others.
            shares = self._capacity.shares([other for other in live if other is not relayer])
            if shares not in found:
                found[shares] = self._is_on or await self._do_wait(live, closed, shares)
            if found[shares]:
                relayer.hurry.now()

    async def _do_wait(self, live: Collection[ManagedRelayer], closed: Collection[str], shares: Shares) -> bool:
        """Whether anybody waits for one of the `live` to end, given who has all he may have then."""
        if not self._capacity.places(live) and await self._queue.claims.due_sites(1, closed, with_doubtful=False):
            return True
        return bool(await self._queue.claims.doubtful_sites(closed, shares))

    def times(self, live: Collection[ManagedRelayer]) -> list[float]:
        """When it is worth looking again: somebody has kept us waiting for long enough, or a place is kept no more.

        A time that has passed since the last look is among them, once: nobody has looked then.
        """
        since, self._looked_at = self._looked_at, self._clock.now()
        if not self._is_short:
            return []
        kept = [relayer.started + PLACE_KEPT for relayer in live if not relayer.is_admitted]
        ends = [time for relayer in live for time in (relayer.pace.patience_ends, relayer.pace.stalls_at)]
        return [time for time in (*kept, *ends) if time > since]

    def notes(self, live: Collection[ManagedRelayer]) -> tuple[str, ...]:
        """Which bounds are reached, in sentences."""
        return tuple(f"{bound}, and others wait" for bound in self._capacity.in_use(live)) if self._is_on else ()
