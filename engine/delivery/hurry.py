"""Hurrying: a step at the network is ended before its time, where others wait for the connection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WHY = "it kept us waiting while others waited for the connection"


class Hurried(TimeoutError):
    """A step was ended before its time; the text says why."""


class Hurry:
    """Ends the step under way when it is told to. One step at a time."""

    def __init__(self) -> None:
        self._step: asyncio.Timeout | None = None
        self._is_told = False

    def now(self) -> bool:
        """End the step under way; False where there is none, or it ends already."""
        if self._step is None or self._is_told:
            return False
        self._is_told = True
        self._step.reschedule(asyncio.get_running_loop().time())
        return True

    @asynccontextmanager
    async def bound(self, seconds: float | None = None) -> AsyncIterator[None]:
        """A step, which is cancelled after `seconds`, or when told to. Raises TimeoutError, or Hurried in its place."""
        self._is_told = False
        try:
            async with asyncio.timeout(seconds) as self._step:
                yield
        except TimeoutError as error:
            if self._is_told:
                raise Hurried(WHY) from error
            raise
        finally:
            self._step = None
