"""Looking at files that may lie on a file system that hangs, without being held up by it."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Lookout(Generic[T]):
    """Asks `look`, which may never return, in a thread of its own, and no second time while the first still runs.

    So a file system that hangs costs one thread, however often it is looked at, and none of those that all share.
    `seen` is what the last look found that came to its end, and `first` before one has.
    """

    def __init__(self, look: Callable[[], T], first: T, name: str) -> None:
        self.seen = first
        self._look = look
        self._name = name
        self._under_way: asyncio.Future[T] | None = None
        self._since = 0.0

    @property
    def seconds(self) -> float:
        """For how long the look under way has not come to its end; 0 where there is none."""
        if self._under_way is None or self._under_way.done():
            return 0.0
        return time.monotonic() - self._since

    async def again(self, patience: float) -> None:
        """Look, or wait for the look under way, for at most `patience` seconds. Raises what the look raises."""
        if self._under_way is None:
            loop = asyncio.get_running_loop()
            self._under_way = loop.create_future()
            self._since = time.monotonic()
            # It keeps no process from ending: it has nothing in hand.
            threading.Thread(target=self._run, args=(loop, self._under_way), name=self._name, daemon=True).start()
        done, _ = await asyncio.wait({self._under_way}, timeout=patience)
        if done:
            ended, self._under_way = self._under_way, None
            self.seen = ended.result()

    def _run(self, loop: asyncio.AbstractEventLoop, found: "asyncio.Future[T]") -> None:
        try:
            settle = partial(found.set_result, self._look())
        except Exception as error:  # noqa: BLE001 - it is for who waits
            settle = partial(found.set_exception, error)
        with suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(settle)
