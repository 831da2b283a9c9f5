"""A clock that tests move by hand."""

import asyncio


class FakeClock:
    """Stands still until `advance` moves it; whoever waits for a time it passes is woken.

    `set_by` sets the wall clock alone, as somebody might, ahead or back; the monotonic one goes on from where it was.
    `waiting` is how many wait for a time.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._moved = asyncio.Condition()
        self.waiting = 0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def advance(self, seconds: float) -> None:
        self._monotonic += seconds
        await self.set_by(seconds)

    async def set_by(self, seconds: float) -> None:
        async with self._moved:
            self._now += seconds
            self._moved.notify_all()

    async def wait(self, event: asyncio.Event, until: float | None) -> bool:
        if until is None:
            await event.wait()
            return True
        reached = asyncio.ensure_future(self._reach(until))
        is_set = asyncio.ensure_future(event.wait())
        self.waiting += 1
        try:
            await asyncio.wait({reached, is_set}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.waiting -= 1
            for task in (reached, is_set):
                task.cancel()
            await asyncio.gather(reached, is_set, return_exceptions=True)
        return event.is_set()

    async def _reach(self, until: float) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._now >= until)
