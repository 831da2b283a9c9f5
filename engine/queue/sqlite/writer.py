"""The one writer of the store: a thread that takes all operations waiting at a moment into one transaction.

One sync then makes many messages durable (group commit). Each operation has a savepoint of its own, so that one that
fails undoes nothing of the others.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.base.clock import Clock
from engine.base.text import clean
from engine.model.event import Event
from engine.queue.bounds import MAX_GROUP, MAX_GROUP_WEIGHT
from engine.queue.errors import QueueBroken, QueueBusy, QueueDamaged, QueueError, QueueFull
from engine.queue.sqlite.connection import Unsure, connect_writer, is_busy, is_damage, sure
from engine.queue.sqlite.damage import Damage
from engine.queue.sqlite.rows import insert_event
from engine.queue.sqlite.upkeep import Upkeep

T = TypeVar("T")

IDLE = 1.0  # seconds without an operation, after which what the log holds is copied into the file
LOOK_AGAIN = 5.0  # seconds until a log that somebody keeps from being copied, or from shrinking, is looked at again
MOST_FAULTS = 10  # of ours in a row, after which the thread ends: it would only turn in place
END_SECONDS = 8.0  # for what is under way when the store is closed; then it is cut short
GIVE_UP_SECONDS = 2.0  # for that; then the thread is left to itself: a disk that hangs must not keep the engine here

log = logging.getLogger(__name__)


class Transaction:
    """What an operation is given: the connection, the time, and `record` for the events that tell of it.

    An operation may be run a second time after its first run was undone: it changes nothing but the store.
    """

    def __init__(self, connection: sqlite3.Connection, now: float, damage: Damage | None = None) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now = now
        self.events: list[Event] = []
        self.damage = damage if damage is not None else Damage()

    def record(self, *events: Event) -> None:
        """Write events in this transaction; they are handed on once it is committed."""
        self.events += [insert_event(self.connection, event) for event in events]

    @contextmanager
    def touching(self, *what: str | int) -> Iterator[None]:
        """Around what concerns only this: where it meets a damaged page, that is noted, and the operation run anew.

        SQLite commits no transaction that has met damage. Run anew, it asks `damage.knows`, and does without.
        """
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                self.damage.note(*what)
            raise


class _Job:
    """One operation, and the future its caller waits for."""

    def __init__(self, operation: Callable[[Transaction], Any], weight: int, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.weight = weight
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None
        self.is_answered = False  # what it came to has been handed on, and stands


class Writer:
    """Runs operations in a thread of its own and keeps the file in order. Made and used on the engine's loop.

    `deliver` is called on that loop with the events of each group, in commit order and before its callers go on.
    `groups` counts the transactions committed. `broken` says why nothing is written any more, and `damage` keeps what
    cannot be read; any thread may look at them.

    A fault of ours is undone, and the thread goes on: the file is as it was. Where a commit, or the copying of the log,
    fails, that cannot be known, and nothing more is written through this connection; nor is there once the thread has
    ended, whatever ended it.
    """

    def __init__(self, path: Path, clock: Clock, deliver: Callable[[Sequence[Event]], None], events_kept: int) -> None:
        self._path = path
        self._clock = clock
        self._deliver = deliver
        self._events_kept = events_kept
        self._upkeep: Upkeep
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._group: list[_Job] = []  # under way
        self._carried: _Job | None = None  # taken, and left for the next group
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._opened: Future[None] = Future()
        self._ended = asyncio.Event()
        self._closing = False
        self._connection: sqlite3.Connection
        self._faults: dict[str, str] = {}  # by what was being done
        self._faults_in_a_row = 0
        self.damage = Damage()
        self.broken = ""
        self.groups = 0

    @property
    def spare(self) -> int:
        """Bytes of the file that nothing is in."""
        return self._upkeep.spare

    @property
    def fault(self) -> str:
        """What went wrong with the upkeep of the file the last time, or ""."""
        return next(iter(self._faults.values()), "")

    @property
    def stuck_log(self) -> tuple[int, float] | None:
        """How many bytes of the log cannot be copied, and since when, where those are many: somebody reads it."""
        upkeep = self._upkeep
        return (upkeep.uncopied, upkeep.uncopied_since) if upkeep.is_log_stuck else None

    async def open(self) -> None:
        """Open the file. Raises QueueError."""
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(self._opened))
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise

    async def close(self) -> None:
        """Finish the operations asked for, and end the thread. The connection stays open; see `disconnect`.

        What is not finished within END_SECONDS is cut short, and its callers have an error.
        """
        self._closing = True
        self._jobs.put(None)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            log.warning("the store takes more than %.0f s to close: what it does is cut short", END_SECONDS)
            self._break("it was cut short, since the engine stops")
            self._connection.interrupt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await self._ended.wait()
        if self._ended.is_set():
            self._thread.join()
        else:
            log.error("the store does not close: it is left as after a kill, and is put in order at the next start")
            self._fail_all(QueueBroken(self.broken))
            self._jobs.put(None)  # for when it comes back

    def disconnect(self) -> None:
        """Close the connection of a writer that has ended; that of one that hangs is left to it."""
        if self._ended.is_set():
            self._connection.close()

    async def mended(self) -> bool:
        """Have the writer see to damage that a reader has met; True where something was mended. Raises QueueError."""
        before = self.damage.mended
        if self.damage.is_to_be_mended:
            await self.do(lambda _: None)
        return self.damage.mended > before or not self.damage.is_met

    async def do(self, operation: Callable[[Transaction], T], weight: int = 0) -> T:
        """Run `operation` and give its result once it is on disk. Cancelling the caller does not cancel it.

        `weight` is the bytes of content it writes. Raises what the operation raises, QueueFull, QueueBusy,
        QueueBroken, or QueueError when the store could not do it.
        """
        if self.broken:
            raise QueueBroken(self.broken)
        if self._closing:
            raise QueueError("the queue is closed")
        job = _Job(operation, weight, self._loop.create_future())
        self._jobs.put(job)
        result: T = await asyncio.shield(job.future)
        return result

    # -- in the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._connection = connect_writer(self._path)
            self._upkeep = Upkeep(self._connection, self._path, self._events_kept, self._clock.now)
        except BaseException as error:  # noqa: BLE001  whatever it is, the caller of open() is to have it
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        try:
            while not self._turn():
                pass
            self._keep("copying its log", self._upkeep.checkpoint)
        except BaseException as error:
            self._break(f"its writer has ended: {type(error).__name__}: {error}")
            log.exception("the writer of the queue has ended")
        self._call(self._end)

    def _turn(self) -> bool:
        """Take a group and commit it; True when the end was asked for. A fault of ours costs that group alone."""
        last = False
        try:
            if self._carried is None:
                self._keep("giving back room", lambda: self._upkeep.give_back(self._may_give_back))
            last = self._take()
            self._mend()
            if self._group:
                self._commit(self._group)
                self._group = []
                self._keep("keeping the file", self._upkeep.tend)
            self._faults_in_a_row = 0
        except Exception as error:
            self._faults_in_a_row += 1
            if self._faults_in_a_row > MOST_FAULTS:
                raise
            log.exception("a fault in the writer of the queue")
            self._undo()
            group, self._group = self._group, []
            self._refuse(group, QueueError(f"the queue could not be written: {_of_fault('a fault of ours', error)}"))
        return last

    def _take(self) -> bool:
        """Wait for an operation and take all that wait with it, within the bounds of a group; True: it is the last."""
        self._group = []
        weight = 0
        job = self._carried or self._next()
        self._carried = None
        while job is not None:
            if self._group and weight + job.weight > MAX_GROUP_WEIGHT:
                self._carried = job
                return False
            self._group.append(job)
            weight += job.weight
            if len(self._group) == MAX_GROUP:
                return False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return False
        return True

    def _next(self) -> _Job | None:
        """Wait for an operation; meanwhile leave nothing in the log.

        The disk may fill by others' doing: with an empty log, what is queued can be worked on in the room there is.
        """
        wait = IDLE
        while not self.broken and (not self._upkeep.is_log_copied or self._upkeep.is_log_kept):
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=wait)
            if not self._keep("copying its log", self._upkeep.checkpoint):
                break
            wait = LOOK_AGAIN
        return self._jobs.get()

    def _commit(self, group: list[_Job]) -> None:
        """Run a group in one transaction and answer its callers."""
        if self.broken:
            self._refuse(group, QueueBroken(self.broken))
            return
        try:
            events = self._transact(group)
        except Exception as error:  # noqa: BLE001  the thread outlives any error: its callers get it
            self._undo()
            verdict = _judge(error)
            if verdict in ("busy", "broken") or (verdict == "other" and len(group) == 1):
                self._refuse(group, self._refusal(error, verdict))
                return
            if verdict == "full":
                self._keep("copying its log", self._upkeep.checkpoint)  # then it begins anew, in the room it has
            for job in group:  # what is small, frees room, or is on other pages may be done though others may not
                self._commit_alone(job)
        else:
            self._answer_with(group, events)

    def _commit_alone(self, job: _Job) -> None:
        """Run an operation whose group was undone, and anew for as long as it can do without more that is damaged."""
        while not self.broken:
            known = self.damage.known
            try:
                self._answer_with([job], self._transact([job]))
            except Exception as error:  # noqa: BLE001  as above
                self._undo()
                refusal = self._refusal(error, _judge(error))
                if isinstance(refusal, QueueDamaged) and (self._mend() or self.damage.known > known):
                    continue
                self._refuse([job], refusal)
            self._tell_of_damage()
            return
        self._refuse([job], QueueBroken(self.broken))

    def _tell_of_damage(self) -> None:
        """Record what was found to be unreadable."""
        if events := self.damage.to_tell(self._clock.now()):
            job = _Job(lambda tx: tx.record(*events), 0, self._loop.create_future())
            job.future.add_done_callback(_have_looked)
            self._commit([job])

    def _transact(self, group: list[_Job]) -> list[Event]:
        events: list[Event] = []
        before = self._connection.total_changes
        self._connection.execute("BEGIN IMMEDIATE")
        for job in group:
            events += self._try(job)
        weight = sum(job.weight for job in group)
        self._upkeep.leave_room(weight, self._connection.total_changes - before)
        if self.broken:  # it was cut short meanwhile, and its callers have been told so
            raise QueueBroken(self.broken)
        with sure():
            self._connection.execute("COMMIT")
        self.groups += 1
        self._keep("keeping count", lambda: self._upkeep.committed(len(events), weight))  # which can no more undo it
        return events

    def _try(self, job: _Job) -> list[Event]:
        """Run one operation in its savepoint. Raises only what undoes the whole group."""
        job.result = job.error = None
        transaction = Transaction(self._connection, self._clock.now(), self.damage)
        self._connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(transaction)
        except Exception as error:  # it is the caller's, and of no concern to the others
            verdict = _judge(error)
            if verdict != "other" or not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK TO operation")
            job.error = self._refusal(error, verdict)
            transaction.events.clear()
        self._connection.execute("RELEASE operation")
        return transaction.events

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # some failures have undone it already
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _refusal(self, error: Exception, verdict: str) -> Exception:
        """Say what an error means to who asked; note it when nothing can be written any more."""
        cause = error.__cause__ if isinstance(error, Unsure) and isinstance(error.__cause__, Exception) else error
        if not isinstance(cause, sqlite3.Error) and verdict != "broken":
            return cause
        said = clean(str(cause) or type(cause).__name__)
        refusal = QueueError(f"the queue could not be written: {said}")
        if verdict == "full":
            refusal = QueueFull(f"no room for the queue: {said}")
        elif verdict == "busy":
            refusal = QueueBusy(f"another program holds the queue: {said}")
        elif verdict == "damaged":
            self.damage.met(cause)
            refusal = QueueDamaged(f"a page of the queue that this needs cannot be read: {said}")
        elif verdict == "broken":
            self._break(said)
            refusal = QueueBroken(self.broken)
        refusal.__cause__ = cause
        return refusal

    def _break(self, said: str) -> None:
        self.broken = f"the queue could not be written: {clean(said)}; see to the disk, then start the engine anew"
        log.error("%s", self.broken)

    def _refuse(self, group: list[_Job], error: Exception) -> None:
        """Answer those of a group that have no answer yet with an error."""
        left = [job for job in group if not job.is_answered]
        self._fail(left, error)
        self._answer_with(left, [])

    def _answer_with(self, group: list[_Job], events: list[Event]) -> None:
        for job in group:
            job.is_answered = True
        self._call(self._answer, group, events)

    def _fail(self, group: list[_Job], error: Exception) -> None:
        for job in group:
            # One instance each: a traceback grows with everyone who raises it.
            job.result, job.error = None, type(error)(*error.args) if isinstance(error, QueueError) else error
            job.error.__cause__ = error.__cause__

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *args)

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def _keep(self, what: str, task: Callable[[], object]) -> bool:
        """Do what keeps the file in order; False where it went wrong.

        A failed sync here counts as one in a commit. A full disk is tried again, and so is what failed by a fault of
        ours, which is told until it succeeds: mail goes on meanwhile.
        """
        if self.broken:
            return False
        try:
            task()
        except Exception as error:
            self._undo()
            verdict = _judge(error)
            if verdict == "other":
                log.exception("a fault in the upkeep of the queue: %s", what)
                self._faults[what] = _of_fault(f"{what} of the queue fails", error)
            else:
                self._refusal(error, verdict)
            return False
        self._faults.pop(what, None)
        return True

    def _mend(self) -> bool:
        """Make anew what is damaged and holds no mail; True where something was."""
        if self.broken or not self.damage.is_to_be_mended:
            return False
        events: list[Event] = []
        done = self._keep("mending", lambda: events.extend(self.damage.mend(self._connection, self._clock.now())))
        if events:
            self._call(self._deliver, events)
        return done and bool(events)

    def _may_give_back(self) -> bool:
        return self._jobs.empty() and not self.broken and not self.damage.is_met

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The thread has ended: nobody is to wait for it. Called after all answers it has given."""
        self._fail_all(QueueBroken(self.broken) if self.broken else QueueError("the queue is closed"))
        self._ended.set()

    def _fail_all(self, error: QueueError) -> None:
        """Answer all that wait for the thread, and what it had in hand."""
        left = [job for job in (*self._group, self._carried) if job is not None and not job.is_answered]
        self._group, self._carried = [], None
        with contextlib.suppress(queue.Empty):
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    left.append(job)
        self._fail(left, error)
        self._answer(left, [])

    def _answer(self, group: list[_Job], events: list[Event]) -> None:
        try:
            if events:
                self._deliver(events)
        finally:  # an error of who follows the events goes to the loop's handler, not to the callers
            for job in group:
                if job.future.done():
                    continue
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.result)


def _have_looked(done: asyncio.Future[Any]) -> None:
    """Nobody waits for this one: an error in it is told otherwise."""
    if not done.cancelled():
        done.exception()


def _of_fault(what: str, error: BaseException) -> str:
    return f"{what}: {clean(f'{type(error).__name__}: {error}', 200)}"


_FULL = {sqlite3.SQLITE_FULL}
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _judge(error: BaseException | None) -> Literal["full", "busy", "damaged", "broken", "other"]:
    """Tell a full disk, a file held by others and a broken one from what concerns one operation alone.

    A page that cannot be read concerns what needs it. In a commit, or where the log is copied, whatever is neither
    full nor held is final.
    """
    if isinstance(error, Unsure):
        found = _judge(error.__cause__)
        return found if found in ("full", "busy") else "broken"
    if not isinstance(error, sqlite3.Error):
        return "other"
    if is_busy(error):
        return "busy"
    if is_damage(error):
        return "damaged"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        said = str(error)
        return "full" if "disk is full" in said else "broken" if "disk I/O error" in said else "other"
    # The index of the log could not grow: the disk is full, and nothing of the data was touched.
    if code & 0xFF in _FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return "full"
    return "broken" if code & 0xFF in _BROKEN else "other"
