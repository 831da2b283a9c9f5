"""How mail comes in through a folder: whoever moves a file into it whose name ends in `.eml` has sent it.

Nothing is deleted before it is committed, and what cannot be taken is kept in `failed`, with the reason beside it.
"""

import asyncio
import logging
import os
from contextlib import nullcontext
from enum import Enum, auto
from pathlib import Path

from watchfiles import Change, awatch

from engine.clock import Clock
from engine.config import Settings
from engine.intake.content import LARGE
from engine.intake.dropfile import SETTLE, Look, look_at, read, set_aside, take_away
from engine.intake.dropped import Dropped
from engine.intake.errors import IntakeError, NotYet, Unfit
from engine.intake.floor import DiskFloor
from engine.intake.refusals import Refusals
from engine.intake.taker import Taker
from engine.queue.queue import NewMessage, QueueError
from engine.supervision import Supervision
from engine.text import clean

_LOG = logging.getLogger(__name__)

RESCAN = 30.0  # seconds between looks that nothing called for: a watch may miss something
AT_A_TIME = 8  # files in memory at once, whose commits and deletions share their syncs
LARGE_AT_A_TIME = 2  # large files among them: each is in memory several times while it is judged
PER_LOOK = 1000  # names in memory at once

_SUFFIX = ".eml"
_INTAKE, _WATCH = "the drop folder's intake", "the drop folder's watch"  # as they are called where one dies


class _Result(Enum):
    """What came of looking at one file."""

    TAKEN = auto()
    SET_ASIDE = auto()
    GONE = auto()
    UNSETTLED = auto()  # look again in a moment
    LEFT = auto()  # look again in a while
    NO_ROOM = auto()  # the queue takes nothing: look no further


class DropIntake:
    """Watches a folder. Files that cannot be taken yet stay where they are until the next look."""

    def __init__(
        self,
        queue: Taker,
        folder: Path,
        settings: Settings,
        clock: Clock,
        floor: DiskFloor | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        self._queue = queue
        self._folder = folder
        self._failed = folder / "failed"
        self._hostname = settings.hostname
        self._rules = settings.intake.smtp
        self._clock = clock
        self._floor = floor
        self._refusals = Refusals(queue, clock)
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._watched = asyncio.Event()
        self._settling: dict[str, tuple[Look, float]] = {}
        self._taken: list[str] = []
        self._supervision = supervision
        self._large = asyncio.Semaphore(LARGE_AT_A_TIME)
        self._trouble = ""
        self._fault = ""

    @property
    def trouble(self) -> str:
        """Why files do not come in though they should, as of the last look, or ""."""
        return self._trouble

    async def start(self) -> None:
        """Make the folder, take what lies in it, and watch it. Raises IntakeError."""
        try:
            for folder in (self._folder, self._failed):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise IntakeError(f"cannot use the drop folder {self._folder}: {error.strerror}") from error
        self._supervision = self._supervision or Supervision()
        for name, run in ((_INTAKE, self._run), (_WATCH, self._watch)):
            self._supervision.keep(name, run)

    async def stop(self, drain: float = 10.0) -> None:
        """Look no more; files under way are finished, for at most `drain` seconds.

        A commit that takes longer may still come to pass: the file stays, and its key keeps it from being sent twice.
        """
        if self._supervision is not None:
            for name in (_INTAKE, _WATCH):
                self._supervision.release(name)
        self._stop.set()
        self._watched.set()
        self._wake.set()
        if self._supervision is not None:
            await asyncio.gather(*(self._supervision.end(name, drain) for name in (_INTAKE, _WATCH)))
        await self._refusals.finish(drain)

    # -- when to look ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            self._fault = ""
            pause = RESCAN
            try:
                pause = await self._look()
            except OSError as error:
                _LOG.error("the drop folder cannot be read: %s", error)
                self._fault = f"the drop folder cannot be read: {clean(error.strerror or str(error), 200)}"
            except Exception as error:  # noqa: BLE001 - whatever failed, the next look may not
                _LOG.exception("a look at the drop folder failed")
                self._fault = _told(error)
            self._trouble = self._fault
            if not self._stop.is_set():
                await self._clock.wait(self._wake, self._clock.now() + pause)

    async def _watch(self) -> None:
        def is_mail(change: Change, path: str) -> bool:
            return change != Change.deleted and path.endswith(_SUFFIX)

        try:
            self._watched = asyncio.Event()  # its own: a watch that is cancelled sets it
            if self._stop.is_set():
                return
            changes = awatch(
                self._folder, watch_filter=is_mail, stop_event=self._watched, recursive=False, debounce=50, step=20
            )
            async for _ in changes:
                self._wake.set()
        except Exception:  # noqa: BLE001 - however a watch breaks, the folder is still read
            _LOG.exception("the drop folder cannot be watched, it is read every %.0f s instead", RESCAN)

    async def _look(self) -> float:
        """Take all that can be taken; give in how many seconds to look again."""
        pause = RESCAN
        left: set[str] = set()
        more = True
        while more and not self._stop.is_set():
            names = await asyncio.to_thread(self._names, left)
            more = len(names) == PER_LOOK and len(left) < PER_LOOK
            for start in range(0, len(names), AT_A_TIME):
                if self._stop.is_set() or (self._floor is not None and self._floor.why_not()):
                    return pause
                batch = names[start : start + AT_A_TIME]
                results = dict(zip(batch, await asyncio.gather(*map(self._take, batch)), strict=True))
                await self._forget()
                if _Result.NO_ROOM in results.values():
                    return pause
                if _Result.UNSETTLED in results.values():
                    pause = SETTLE
                left.update(name for name in batch if results[name] in {_Result.UNSETTLED, _Result.LEFT})
        self._settling = {name: seen for name, seen in self._settling.items() if name in left}
        return pause

    def _names(self, left: set[str]) -> list[str]:
        """Up to PER_LOOK names to look at. A dot in front is how programs mark what they have not finished."""
        names: list[str] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith(".") and entry.name not in left:
                    names.append(entry.name)
                    if len(names) == PER_LOOK:
                        break
        return sorted(names)

    # -- one file -------------------------------------------------------------------------------------------------

    async def _take(self, name: str) -> _Result:
        """Take one file, and let nothing that goes wrong with it keep the others from being taken."""
        try:
            look = await asyncio.to_thread(self._settled, name)
            async with self._large if look.size > LARGE else nullcontext():
                return await self._send(name, look)
        except FileNotFoundError:
            return _Result.GONE
        except NotYet:
            return _Result.UNSETTLED
        except Unfit as error:
            return await self._set_aside(name, str(error))
        except OSError as error:
            _LOG.warning("%s in the drop folder cannot be read for now: %s", clean(name), error.strerror)
        except Exception as error:  # noqa: BLE001 - whatever failed, the other files are taken
            _LOG.exception("%s stays in the drop folder for now", clean(name))
            self._fault = _told(error)
        return _Result.LEFT

    def _settled(self, name: str) -> Look:
        """Look at a file that nobody is at work on. Raises Unfit, NotYet, OSError."""
        look, now = look_at(self._folder / name), self._clock.now()
        if now - look.modified / 1e9 < SETTLE:
            # Young, or of a future time: then it must have been the same for long enough.
            seen, since = self._settling.get(name, (None, now))
            if seen != look:
                self._settling[name] = (look, now)
            if seen != look or now - since < SETTLE:
                raise NotYet
        return look

    async def _send(self, name: str, look: Look) -> _Result:
        """Queue a file and delete it. Raises Unfit, NotYet, OSError where the file cannot be read."""
        message = await asyncio.to_thread(self._message, name, look)
        try:
            await self._queue.enqueue(message)
        except QueueError as error:
            _LOG.warning("%s stays in the drop folder for now: %s", clean(name), clean(str(error)))
            return _Result.NO_ROOM
        try:
            await asyncio.to_thread(take_away, self._folder / name, look)
        except OSError as error:
            _LOG.error("%s was queued but cannot be deleted from the drop folder: %s", clean(name), error.strerror)
            return _Result.LEFT
        assert message.key is not None
        self._taken.append(message.key)
        return _Result.TAKEN

    def _message(self, name: str, look: Look) -> NewMessage:
        """Read a file and make a message of it. Raises Unfit, NotYet, OSError."""
        dropped = Dropped(
            content=read(self._folder / name, look, self._rules.max_message_size),
            origin=f"drop {clean(name, 255)}",
            key=f"drop:{clean(name, 255)}:{look.inode}:{look.modified}:{look.size}",
        )
        try:
            return dropped.message(hostname=self._hostname, rules=self._rules, at=self._clock.now())
        except Unfit:
            raise
        except Exception as error:
            # The fault may be ours, but it is this file that meets it, and would again at every look.
            _LOG.exception("%s in the drop folder cannot be judged", clean(name))
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise Unfit(f"cannot be read: {clean(what, 200)}") from error

    async def _forget(self) -> None:
        """Let go of the keys of files that are deleted.

        The deletions are synced first, one sync for all of them: a key that is forgotten while its file comes back
        after a power failure would send the file twice. No other deletion needs a sync, for the key outlives it.
        """
        taken, self._taken = self._taken, []
        if not taken:
            return
        try:
            await asyncio.to_thread(_sync, self._folder)
            for key in taken:
                await self._queue.forget_key(key)
        except (OSError, QueueError) as error:
            _LOG.warning("%d files that were queued are remembered longer than need be: %s", len(taken), error)

    async def _set_aside(self, name: str, why: str) -> _Result:
        try:
            target = await asyncio.to_thread(set_aside, self._folder / name, self._failed, why, self._clock.now())
        except FileNotFoundError:
            return _Result.GONE
        except OSError as error:
            _LOG.error("%s cannot be taken (%s) nor set aside: %s", clean(name), clean(why), error.strerror)
            return _Result.LEFT
        _LOG.warning("%s was set aside as %s: %s", clean(name), clean(target.name), clean(why))
        self._refusals.note(f"drop {clean(name, 255)}", "set aside", detail=why)
        return _Result.SET_ASIDE


def _told(error: Exception) -> str:
    return f"fault in the drop folder's intake: {clean(f'{type(error).__name__}: {error}', 200)}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
