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


class FollowingClock:
    """The clock of another machine, as it was told last; between that it goes on by one here that nobody sets.

    Until it is told for the first time it is the machine's own.
    """

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def follow(self, now: float, within: float) -> None:
        """There it was `now` just now, give or take `within` seconds: what is nearer than that is no difference."""
        ahead = now - time.monotonic()
        if abs(ahead - self._ahead) > within:
            self._ahead = ahead

    def now(self) -> float:
        """What the other clock reads."""
        return time.monotonic() + self._ahead

    def monotonic(self) -> float:
        """The time since this machine was started, but for the time it slept."""
        return time.monotonic()

    async def wait(self, event: asyncio.Event, until: float | None) -> bool:
        """Wait for `event`, at the longest until the other clock reads `until`."""
        return await _wait(event, None if until is None else until - self.now())


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
        return await _wait(event, None if until is None else until - self.now())


async def _wait(event: asyncio.Event, seconds: float | None) -> bool:
    try:
        async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True
