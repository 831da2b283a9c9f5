"""What the engine keeps running for as long as it lives: each long-lived task has a name, and none dies unnoticed.

One that dies is told of in health at once, logged with its traceback, and begun anew after a pause that grows with
each death in a row. What cannot be begun anew fails the engine as a whole. And a stop always ends: each step of it has
a bound, and whatever hangs beneath them all goes with the process.
"""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from engine.base.text import clean

FIRST_PAUSE = 1.0  # seconds before what has died is begun anew; each death in a row doubles it
LONGEST_PAUSE = 60.0
STEADY = 60.0  # seconds after which what was begun anew counts as well again, and health tells of it no more
STOPPING = 60.0  # seconds after which a process that is to stop ends as if it were killed; no mail is lost by that

_LET_GO = 1.0  # seconds for what was cancelled to take notice
_TO_END = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

log = logging.getLogger(__name__)

Run = Callable[[], Coroutine[Any, Any, None]]


class _Kept:
    """One task that is kept running."""

    def __init__(self, name: str, run: Run) -> None:
        self.name = name
        self.run = run
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.began = 0.0
        self.deaths = 0  # in a row
        self.why = ""
        self.may_end = False


class Supervision:
    """Keeps tasks running. Made and used on the engine's loop.

    `on_death` is called with what health says of a death. `failure` says why the engine cannot go on, and `failed` is
    set then. The pauses are in seconds.
    """

    def __init__(
        self,
        on_death: Callable[[str], None] = lambda _: None,
        *,
        first_pause: float = FIRST_PAUSE,
        longest_pause: float = LONGEST_PAUSE,
        steady: float = STEADY,
    ) -> None:
        self._on_death = on_death
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._steady = steady
        self._kept: dict[str, _Kept] = {}
        self.failed = asyncio.Event()
        self.failure = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What is kept running."""
        return tuple(self._kept)

    @property
    def trouble(self) -> str:
        """What has died and does not run, or does so for no minute yet; ""."""
        if self.failure:
            return self.failure
        return next((told for told in map(self._told, self._kept.values()) if told), "")

    def keep(self, name: str, run: Run) -> None:
        """Run something until it is released or ended; it is no part of its work to come to an end before."""
        kept = self._kept[name] = _Kept(name, run)
        self._begin(kept)

    def release(self, name: str) -> None:
        """From now on it may come to its end."""
        kept = self._kept.get(name)
        if kept is not None:
            kept.may_end = True
            if kept.timer is not None:
                kept.timer.cancel()
                kept.timer = None

    async def end(self, name: str, drain: float = 0.0) -> None:
        """See a task to its end: it is released, has `drain` seconds to come to it, and is cancelled then."""
        self.release(name)
        kept = self._kept.pop(name, None)
        if kept is None or kept.task is None:
            return
        if drain and not kept.task.done():
            await asyncio.wait({kept.task}, timeout=drain)
        kept.task.cancel()
        _, late = await asyncio.wait({kept.task}, timeout=_LET_GO)
        if late:
            log.error("%s does not end: it is left behind", name)

    def fail(self, why: str) -> None:
        """The engine cannot go on: whoever runs it is to stop it."""
        if not self.failure:
            self.failure = clean(why, 400)
            log.critical("the engine ends: %s", self.failure)
            self.failed.set()

    def _begin(self, kept: _Kept) -> None:
        kept.timer = None
        kept.began = asyncio.get_running_loop().time()
        kept.task = asyncio.create_task(kept.run(), name=kept.name)
        kept.task.add_done_callback(lambda task: self._ended(kept, task))

    def _ended(self, kept: _Kept, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if kept.may_end:
            if error is not None:
                log.error("%s failed at its end", kept.name, exc_info=error)
            return
        loop = asyncio.get_running_loop()
        if loop.time() - kept.began >= self._steady:
            kept.deaths = 0
        kept.deaths += 1
        kept.why = "it came to an end" if error is None else clean(f"{type(error).__name__}: {error}", 200)
        pause = min(self._first_pause * 2 ** min(kept.deaths - 1, 32), self._longest_pause)
        log.error("%s died; it is begun anew in %g s", kept.name, pause, exc_info=error)
        kept.task = None
        kept.timer = loop.call_later(pause, self._begin, kept)
        self._on_death(self._told(kept))

    def _told(self, kept: _Kept) -> str:
        if not kept.deaths:
            return ""
        if kept.task is None:
            return f"{kept.name} died ({kept.why}): it is about to be begun anew"
        if asyncio.get_running_loop().time() - kept.began >= self._steady:
            return ""
        return f"{kept.name} died ({kept.why}), and was begun anew just now"


async def within(seconds: float, what: str, stop: Callable[[], Awaitable[object]]) -> None:
    """Do one step of a stop. Never raises, and ends in time, whatever the step does; what went wrong is logged."""

    async def step() -> None:
        await stop()

    task = asyncio.create_task(step(), name=f"stopping {what}")
    await asyncio.wait({task}, timeout=seconds)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_LET_GO)
        log.error("%s did not stop within %g s: it is left behind", what, seconds)
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed to stop", what, exc_info=error)


class LastResort:
    """Ends the process if it has not ended by itself, once it was told to stop: threads that hang would hold it."""

    def __init__(self, seconds: float = STOPPING, end: Callable[[int], object] = os._exit) -> None:
        self._end = end
        self._timer = threading.Timer(seconds, self._ends)
        self._timer.daemon = True
        self._seconds = seconds

    def arm(self) -> None:
        """From now on there are so many seconds."""
        with suppress(RuntimeError):  # it is armed already
            self._timer.start()

    def disarm_unless_held(self) -> None:
        """All has ended that was to: nothing is left to be waited for, but for threads that would hold the process."""
        held = [
            thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
        ]
        if not held:
            self._timer.cancel()

    def _ends(self) -> None:
        telling = threading.Thread(target=self._tell, daemon=True)  # what hangs may be in the log, and hold its lock
        telling.start()
        telling.join(_LET_GO)
        self._end(1)

    def _tell(self) -> None:
        log.critical("not stopped after %g s: the process ends without what hangs; no mail is lost", self._seconds)
        logging.shutdown()


@contextmanager
def told_to_end(heed: Callable[[], object]) -> Iterator[None]:
    """Within this `heed` is called whenever the process is told to end: by SIGTERM, SIGINT or SIGHUP.

    It is called in a thread that does nothing but wait for that, and so whatever the main thread does, which may stand
    in a call that does not return and is where a handler would run. Threads begun before this must block these signals
    by themselves, else one of them may get them.
    """
    over = threading.Event()

    def listen() -> None:
        while True:
            signal.sigwait(_TO_END)
            if over.is_set():
                return
            heed()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_END)
    ear = threading.Thread(target=listen, name="signals", daemon=True)
    ear.start()
    try:
        yield
    finally:
        over.set()
        assert ear.ident is not None
        signal.pthread_kill(ear.ident, signal.SIGTERM)  # which is blocked, and for this thread alone: it wakes it
        ear.join(_LET_GO)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
