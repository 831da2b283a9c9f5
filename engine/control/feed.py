"""The feed of events: hands those that are on disk to all that follow them, and counts them into rates."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from msgspec.structs import replace

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.model.event import Event, Kind


class _Rate:
    """Events a second over the last `window` seconds, in one-second buckets."""

    def __init__(self, window: int = 10) -> None:
        self._window = window
        self._buckets: deque[tuple[int, int]] = deque()

    def add(self, at: float) -> None:
        second = int(at)
        if self._buckets and self._buckets[-1][0] >= second:
            last, count = self._buckets.pop()
            self._buckets.append((last, count + 1))
        else:
            self._buckets.append((second, 1))
            self._trim(second)

    def per_second(self, now: float) -> float:
        self._trim(int(now))
        return sum(count for _, count in self._buckets) / self._window

    def _trim(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - self._window:
            self._buckets.popleft()


class EventLog:
    """Hands committed events to followers and keeps the rates in and out.

    A follower that does not read loses the oldest events it has not seen, never the engine's time: its queue is
    bounded (`backlog`, in events). Rates are kept for the destinations that were busy last, `rates_kept` of them.
    """

    def __init__(self, clock: Clock, *, backlog: int = 1000, rates_kept: int = 10_000) -> None:
        self._clock = clock
        self._backlog = backlog
        self._followers: set[asyncio.Queue[Event]] = set()
        self._in = _Rate()
        self._out = _Rate()
        self._out_to = Kept[str, _Rate](rates_kept)
        self._counts: Counter[Kind] = Counter()

    def publish(self, events: Iterable[Event]) -> None:
        """Hand on events that have been committed, in their order. Called on the engine's loop."""
        for event in events:
            self._count(event)
            told = replace(event, detail=None) if self._followers and event.detail is not None else event
            for follower in self._followers:
                if follower.full():
                    follower.get_nowait()
                follower.put_nowait(told)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[asyncio.Queue[Event]]:
        """Give a queue into which every event from now on is put."""
        follower: asyncio.Queue[Event] = asyncio.Queue(self._backlog)
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    def rate_in(self) -> float:
        """Recipients accepted a second, over the last ten seconds."""
        return self._in.per_second(self._clock.now())

    def rate_out(self, destination: str | None = None) -> float:
        """Recipients delivered a second over the last ten seconds: in all, or to one destination."""
        rate = self._out if destination is None else self._out_to.get(destination)
        return rate.per_second(self._clock.now()) if rate else 0.0

    def counts(self) -> dict[Kind, int]:
        """How many events of each kind were published since the engine started."""
        return dict(self._counts)

    def _count(self, event: Event) -> None:
        self._counts[event.kind] += 1
        if event.kind == "accepted":
            self._in.add(event.at)
        elif event.kind == "delivered":
            self._out.add(event.at)
            rate = self._out_to[event.destination] = self._out_to.get(event.destination) or _Rate()
            rate.add(event.at)
