"""Pressure: what changes where others wait for what those have that have not proved themselves.

RFC 5321 4.5.3.2 grants a peer minutes for each step. That is for who keeps nobody else from being served.
"""

from collections.abc import Collection

from engine.allowance import Allowance
from engine.capacity import PLACE_KEPT, Capacity
from engine.clock import Clock
from engine.queue.queue import Queue
from engine.relayer.relayer import ManagedRelayer


class Pressure:
    """Looks, after each check, whether anybody waits for others to end; ends those that only keep us waiting."""

    def __init__(self, queue: Queue, allowance: Allowance, capacity: Capacity, clock: Clock) -> None:
        self._queue = queue
        self._allowance = allowance
        self._capacity = capacity
        self._clock = clock
        self._is_on = False

    async def look(self, live: Collection[ManagedRelayer]) -> None:
        """Find out, and have those end that have kept us waiting for long enough. Raises QueueError."""
        is_short = not self._capacity.places(live) or self._capacity.on_doubt(live) is not None
        self._is_on = is_short and bool(await self._queue.due_sites(1, self._allowance.closed(live)))
        if self._is_on:
            now = self._clock.now()
            for relayer in live:
                if relayer.is_doubtful and relayer.patience_ends <= now:
                    relayer.hurry.now()

    def times(self, live: Collection[ManagedRelayer]) -> list[float]:
        """When it is worth looking again: somebody has kept us waiting for long enough, or a place is kept no more."""
        if not self._is_on:
            return []
        now = self._clock.now()
        kept = [relayer.started + PLACE_KEPT for relayer in live if not relayer.is_admitted]
        ends = [time for relayer in live for time in (relayer.patience_ends, relayer.stalls_at)]
        return [time for time in (*kept, *ends) if time > now]

    def notes(self, live: Collection[ManagedRelayer]) -> tuple[str, ...]:
        """Which bounds are reached, in sentences."""
        return tuple(f"{one}, and others wait" for one in self._capacity.in_use(live)) if self._is_on else ()
