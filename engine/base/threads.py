"""Running a part of the engine in a thread of its own, with an event loop of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Generic, TypeVar

import uvloop

log = logging.getLogger(__name__)

T = TypeVar("T")


class LoopThread(Generic[T]):
    """Holds an async context open in a thread: entered by `start`, left by `stop`.

    `start` gives what the context gives, or raises what entering it raised. `stop` may be called from any thread, more
    than once; it returns False when the context was not left within its time-out.
    """

    def __init__(self, context: Callable[[], AbstractAsyncContextManager[T]], *, name: str) -> None:
        self._context = context
        self._name = name
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._entered = threading.Event()
        self._failure: BaseException | None = None
        self._value: T | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self) -> T:
        """Start the thread and wait until the context is entered."""
        self._thread.start()
        self._entered.wait()
        if self._failure is not None:
            raise self._failure
        if self._value is None:
            raise RuntimeError(f"{self._name} gave nothing")
        return self._value

    def stop(self, timeout: float) -> bool:
        """Leave the context; wait up to `timeout` seconds until that is done."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop has closed meanwhile
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            uvloop.run(self._hold())
        except BaseException as error:
            if self._entered.is_set():
                log.exception("the thread of the %s failed", self._name)
            self._failure = error
        finally:
            self._entered.set()

    async def _hold(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._context() as value:
            self._value = value
            self._entered.set()
            await self._stop.wait()
