"""Time as an argument: the engine asks a clock, so that tests can move it."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine needs of time. All schedules go by `now`; durations on the network do not."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment, by a clock that nobody sets."""
        ...

    async def wait(self, event: asyncio.Event, until: float | None) -> bool:
        """Wait until `event` is set (True) or the clock reaches `until` (False); None waits for the event alone."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """The time since the machine was started, but for the time it slept."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, until: float | None) -> bool:
        """Wait for `event`, at the longest until the machine's clock reads `until`."""
        try:
            async with asyncio.timeout(None if until is None else max(0.0, until - self.now())):
                await event.wait()
        except TimeoutError:
            return False
        return True
