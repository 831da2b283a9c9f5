"""How an engine is run: as a daemon, or in a thread beside the console."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager

import uvloop

from engine.base.supervision import LastResort, told_to_end
from engine.base.threads import LoopThread
from engine.engine import DRAIN_SECONDS, Engine
from engine.settings.settings import Settings
from engine.tls.policy_files import HTTPS

log = logging.getLogger(__name__)


class EngineFailed(Exception):
    """Something that the engine cannot do without has ended, and cannot be begun anew; the text says what."""


def run_daemon(settings: Settings, ready: Callable[[Engine], None] = lambda _: None) -> None:
    """Run an engine until SIGTERM, SIGINT or SIGHUP, then drain it. `ready` is called once the doors are open.

    Once it is told to stop, while it starts as well, the process ends in time, whatever hangs (see LastResort): a start
    under way is not cut short by us, for it may be at work on the store. Raises EngineFailed.
    """
    last_resort = LastResort()
    leave: Future[None] = Future()

    def heed() -> None:
        last_resort.arm()
        if not leave.done():
            leave.set_result(None)

    async def serve() -> None:
        async with _running(settings, is_screen=False) as engine:
            if not leave.done():  # else it was told while it started, and has only to stop
                ready(engine)
            waits = (asyncio.wrap_future(leave), asyncio.ensure_future(engine.supervision.failed.wait()))
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            last_resort.arm()
            log.info("draining")
        if engine.supervision.failure:
            raise EngineFailed(engine.supervision.failure)

    try:
        with told_to_end(heed):
            uvloop.run(serve())
    finally:
        last_resort.disarm_unless_held()


class EngineThread:
    """An engine in a thread of its own: a terminal that stalls must never block mail.

    `start` returns once the doors are open, or raises what Engine.start raised; `stop` drains, is bounded in time, may
    be called from any thread, more than once, and returns False when the engine did not stop in time.
    """

    def __init__(self, settings: Settings, *, https_port: int = HTTPS) -> None:
        self._thread = LoopThread(lambda: _running(settings, https_port), name="engine")

    def start(self) -> None:
        """Start the engine and wait until mail can come in."""
        self._thread.start()

    def stop(self) -> bool:
        """Drain and stop."""
        return self._thread.stop(2 * DRAIN_SECONDS + 5)


@asynccontextmanager
async def _running(settings: Settings, https_port: int = HTTPS, *, is_screen: bool = True) -> AsyncIterator[Engine]:
    engine = Engine(settings, https_port=https_port, is_screen=is_screen)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
