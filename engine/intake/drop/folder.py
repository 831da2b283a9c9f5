"""How mail comes in through a folder: whoever moves a file into it whose name ends in `.eml` has sent it.

Nothing is deleted before it is committed, and what cannot be taken is kept in `failed`, with the reason beside it.

The way of a message, 1 of 7: it comes in here, too. On to engine.queue.contract.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext, suppress
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from engine.base.clock import Clock
from engine.base.files import sync
from engine.base.supervision import Supervision
from engine.base.text import clean
from engine.dkim.result import CannotSign
from engine.intake.content import LARGE
from engine.intake.drop.dropfile import SETTLE, Look, look_at, read, set_aside, take_away
from engine.intake.drop.dropped import Dropped
from engine.intake.drop.watch import CannotWatch, NoWatch, watch
from engine.intake.errors import IntakeError, NotYet, Unfit
from engine.intake.floor import DiskFloor
from engine.intake.preparation import Preparation
from engine.intake.refusals import Refusals
from engine.intake.suppressed import Refusing
from engine.model.message import NewMessage
from engine.model.refusal import Refusal
from engine.queue.contract import Arrivals
from engine.queue.errors import QueueBroken, QueueBusy, QueueError, QueueFull
from engine.settings.settings import Settings

log = logging.getLogger(__name__)

RESCAN = 30.0  # seconds between looks that nothing called for: a watch may miss something
UNWATCHED = 1.0  # seconds between looks while there is no watch, and before one is tried again
AT_A_TIME = 8  # files in memory at once, whose commits and deletions share their syncs
LARGE_AT_A_TIME = 2  # large files among them: each is in memory several times while it is judged
GAP = 0.05  # seconds, or as long as the look took, between one that came to nothing and the next
PER_LOOK = 1000  # names in memory at once
SETTLING = 10_000  # files that may still be written to and are remembered; the others settle by their age alone
LEFT = 10_000  # files that cannot be taken for now and are remembered, not to be tried again at every look
TOLD = 20  # of them are named in the log at each look

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


class _Left(NamedTuple):
    """A file that could not be taken: when to try again, and what trouble that was."""

    again: float
    fault: str


class DropIntake:
    """Watches a folder. Files that cannot be taken yet stay where they are until the next look.

    `queued` is called for each that is in the queue, `on_refusal` for each that is set aside; `preparation` is what
    is done to one that is taken, and `refusing` says which of its recipients are not tried.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        folder: Path,
        settings: Settings,
        clock: Clock,
        floor: DiskFloor | None = None,
        supervision: Supervision | None = None,
        *,
        queued: Callable[[], None] = lambda: None,
        on_refusal: Callable[[Refusal], None] = lambda _: None,
        preparation: Preparation | None = None,
        refusing: Refusing | None = None,
    ) -> None:
        self._arrivals = arrivals
        self._queued = queued
        self._preparation = preparation or Preparation.by(settings)
        self._refusing = refusing or Refusing(None, settings, clock)
        self._folder = folder
        self._failed = folder / "failed"
        self._rules = settings.intake.smtp
        self._clock = clock
        self._floor = floor
        self._refusals = Refusals(arrivals, clock, on_refusal)
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._settling: dict[str, tuple[Look, float]] = {}
        self._left: dict[tuple[str, int], _Left] = {}  # by name and inode
        self._left_now = self._left_last = 0  # how many were left in this look, and in the last one
        self._taken: list[str] = []
        self._supervision = supervision
        self._large = asyncio.Semaphore(LARGE_AT_A_TIME)
        self._trouble = ""
        self._fault = ""
        self._unwatched = ""
        self._is_fruitless = False  # whether the last look took nothing
        self._is_watchless = False  # on this system, for good

    @property
    def trouble(self) -> str:
        """Why files do not come in though they should, or not at once, as of the last look; or ""."""
        return self._trouble or ("" if self._is_watchless else self._unwatched)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds are reached."""
        found = [self._unwatched] if self._is_watchless else []
        if self._left_last >= LEFT:
            found.append(f"{self._left_last:,} files lie in the drop folder that cannot be taken, nor set aside")
        return tuple(found)

    async def start(self) -> None:
        """Make the folder, take what lies in it, and watch it. Raises IntakeError."""
        try:
            self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make()
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
        self._wake.set()
        if self._supervision is not None:
            await self._supervision.end(_WATCH)
            await self._supervision.end(_INTAKE, drain)
        await self._refusals.finish(drain)

    # -- when to look ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            self._wake.clear()
            self._fault = ""
            pause = RESCAN
            began = loop.time()
            try:
                pause = await self._look()
            except OSError as error:
                log.error("the drop folder cannot be read: %s", error)
                self._fault = f"the drop folder cannot be read: {clean(error.strerror or str(error), 200)}"
            except Exception as error:
                log.exception("a look at the drop folder failed")
                self._fault = _told(error)
            self._trouble = self._fault
            ended = self._clock.now()
            if self._is_fruitless:
                await self._rest(loop.time() - began)
            if not self._stop.is_set():
                await self._clock.wait(self._wake, ended + (min(pause, UNWATCHED) if self._unwatched else pause))

    async def _rest(self, looked: float) -> None:
        """After a look that came to nothing: whoever only touches files may not have us look without end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(GAP, looked)):
                await self._stop.wait()

    async def _watch(self) -> None:
        """Watch the folder, and begin anew whenever that ends: after a second, then after longer, up to RESCAN."""
        pause = UNWATCHED
        while True:
            try:
                await watch(self._folder, _is_mail, self._watched)
            except CannotWatch as error:
                why = clean(str(error), 200)
                self._is_watchless = isinstance(error, NoWatch)
            except Exception as error:
                log.exception("the watch of the drop folder failed")
                why = _told(error)
            else:
                why = "the watch has ended"
            # What was watched before is tried again soon; what could not be watched at all, ever more seldom.
            pause = UNWATCHED if not self._unwatched else min(2 * pause, RESCAN)
            if not self._unwatched:
                log.warning("the drop folder is not watched: %s", why)
            self._unwatched = f"the drop folder is not watched ({why}); it is read every {UNWATCHED:.0f} s instead"
            self._wake.set()
            if self._is_watchless:
                await self._stop.wait()
                return
            await self._clock.wait(self._stop, self._clock.now() + pause)

    def _watched(self) -> None:
        """The watch is on, or something has come."""
        if self._unwatched:
            log.info("the drop folder is watched again")
        self._unwatched = ""
        self._wake.set()

    async def _look(self) -> float:
        """Take all that can be taken; give in how many seconds to look again.

        The folder is read once from one end to the other, so that a look ends whatever lies there, and what is left
        lying hides nothing behind it. What comes meanwhile wakes the next look.
        """
        await asyncio.to_thread(self._make)
        pause = RESCAN
        left: dict[tuple[str, int], _Left] = {}
        unsettled: set[str] = set()
        self._left_now = 0
        self._is_fruitless = True
        entries = self._entries()
        try:
            while names := await asyncio.to_thread(_window, entries):
                tried = {name: inode for name, inode in names if self._is_to_be_tried(name, inode, left)}
                ordered = sorted(tried)
                for start in range(0, len(ordered), AT_A_TIME):
                    if self._stop.is_set() or (self._floor is not None and self._floor.why_not()):
                        return pause
                    batch = ordered[start : start + AT_A_TIME]
                    results = dict(zip(batch, await asyncio.gather(*map(self._take, batch)), strict=True))
                    await self._forget()
                    if _Result.NO_ROOM in results.values():
                        return pause
                    if {_Result.TAKEN, _Result.SET_ASIDE} & set(results.values()):
                        self._is_fruitless = False
                    for name in batch:
                        if results[name] is _Result.UNSETTLED:
                            pause = SETTLE
                            unsettled.add(name if name in self._settling else "")
                    remembered = _Left(self._clock.now() + RESCAN, self._fault)
                    for name in batch:
                        if results[name] is _Result.LEFT and len(left) < LEFT:
                            left[name, tried[name]] = remembered
        finally:
            with suppress(ValueError):  # a thread is in the middle of it, which nobody waits for any more
                entries.close()
        self._left, self._left_last = left, self._left_now
        self._settling = {name: seen for name, seen in self._settling.items() if name in unsettled}
        if self._left_now > TOLD:
            log.warning("%d files in the drop folder cannot be taken for now", self._left_now)
        return pause

    def _make(self) -> None:
        """Make the folders that are not there: one may have been cleared away. Raises OSError."""
        for folder in (self._folder, self._failed):
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                if not folder.is_dir():
                    raise
            else:
                log.info("%s was not there and is made", folder)

    def _is_to_be_tried(self, name: str, inode: int, left: "dict[tuple[str, int], _Left]") -> bool:
        """Whether a file is to be looked at; one that was left a moment ago is kept among those `left`."""
        was = self._left.get((name, inode))
        now = self._clock.now()
        if was is None or not now < was.again <= now + RESCAN:
            return True
        left[name, inode] = was
        self._fault = self._fault or was.fault
        self._left_now += 1
        return False

    def _entries(self) -> Generator[tuple[str, int], None, None]:
        """Names to look at, and their inodes. A dot in front is how programs mark what they have not finished."""
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if _is_mail(entry.name):
                    yield entry.name, entry.inode()

    def _leave(self, name: str, level: int, text: str) -> _Result:
        """A file stays where it is for now; of very many only some are told."""
        self._left_now += 1
        if self._left_now <= TOLD:
            log.log(level, "%s in the drop folder %s", clean(name), text)
        return _Result.LEFT

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
        except CannotSign as error:
            why = clean(str(error), 200)
            self._fault = f"a file in the drop folder waits to be signed: {why}"
            self._refusals.note(Refusal(peer=f"drop {clean(name, 255)}", why="waits to be signed", detail=why))
            return self._leave(name, logging.WARNING, f"waits to be signed: {why}")
        except OSError as error:
            return self._leave(name, logging.WARNING, f"cannot be read for now: {error.strerror}")
        except Exception as error:
            log.exception("%s stays in the drop folder for now", clean(name))
            self._fault = _told(error)
        self._left_now += 1
        return _Result.LEFT

    def _settled(self, name: str) -> Look:
        """Look at a file that nobody is at work on. Raises Unfit, NotYet, OSError."""
        look, now = look_at(self._folder / name), self._clock.now()
        if now - look.modified / 1e9 < SETTLE:
            # Young, or of a future time: then it must have been the same for long enough.
            seen, since = self._settling.get(name, (None, now))
            if seen != look and (seen is not None or len(self._settling) < SETTLING):
                self._settling[name] = (look, now)
            if seen != look or now - since < SETTLE:
                raise NotYet
        return look

    async def _send(self, name: str, look: Look) -> _Result:
        """Queue a file and delete it. Raises Unfit, NotYet, CannotSign, OSError where the file cannot be read."""
        message = await self._refusing.sift(await asyncio.to_thread(self._message, name, look))
        try:
            await self._arrivals.enqueue(message)
        except (QueueFull, QueueBusy, QueueBroken) as error:
            log.warning("%s stays in the drop folder for now: %s", clean(name), clean(str(error)))
            return _Result.NO_ROOM
        except QueueError as error:  # a damaged page, say: another file may need none of what this one needs
            why = clean(str(error), 200)
            self._fault = f"a file in the drop folder cannot be queued for now: {why}"
            return self._leave(name, logging.WARNING, f"cannot be queued for now: {why}")
        self._queued()
        try:
            await asyncio.to_thread(take_away, self._folder / name, look)
        except OSError as error:
            return self._leave(name, logging.ERROR, f"was queued but cannot be deleted: {error.strerror}")
        assert message.key is not None
        self._taken.append(message.key)
        return _Result.TAKEN

    def _message(self, name: str, look: Look) -> NewMessage:
        """Read a file and make a message of it. Raises Unfit, NotYet, CannotSign, OSError."""
        dropped = Dropped(
            content=read(self._folder / name, look, self._rules.max_message_size),
            origin=f"drop {clean(name, 255)}",
            key=f"drop:{clean(name, 255)}:{look.inode}:{look.modified}:{look.size}",
        )
        try:
            return dropped.message(self._preparation, self._rules, self._clock.now())
        except (Unfit, CannotSign):
            raise
        except Exception as error:
            # The fault may be ours, but it is this file that meets it, and would again at every look.
            log.exception("%s in the drop folder cannot be judged", clean(name))
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
            await asyncio.to_thread(sync, self._folder)
            for key in taken:
                await self._arrivals.forget_key(key)
        except (OSError, QueueError) as error:
            log.warning("%d files that were queued are remembered longer than need be: %s", len(taken), error)

    async def _set_aside(self, name: str, why: str) -> _Result:
        try:
            target = await asyncio.to_thread(set_aside, self._folder / name, self._failed, why, self._clock.now())
        except FileNotFoundError:
            return _Result.GONE
        except OSError as error:
            self._fault = f"files that cannot be taken cannot be set aside either: {clean(error.strerror or '', 200)}"
            return self._leave(name, logging.ERROR, f"cannot be taken ({clean(why)}) nor set aside: {error.strerror}")
        log.warning("%s was set aside as %s: %s", clean(name), clean(target.name), clean(why))
        self._refusals.note(Refusal(peer=f"drop {clean(name, 255)}", why="set aside", detail=why))
        return _Result.SET_ASIDE


def _is_mail(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".")


def _window(entries: Iterator[tuple[str, int]]) -> list[tuple[str, int]]:
    """The next names. Raises OSError."""
    return list(islice(entries, PER_LOOK))


def _told(error: Exception) -> str:
    return f"fault in the drop folder's intake: {clean(f'{type(error).__name__}: {error}', 200)}"
