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
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.clock import Clock
from engine.events import Event
from engine.queue.connection import connect_writer, is_busy
from engine.queue.queue import QueueBroken, QueueBusy, QueueError, QueueFull
from engine.queue.rows import insert_event
from engine.queue.upkeep import Upkeep
from engine.text import clean

T = TypeVar("T")

MAX_GROUP = 256  # operations in one transaction
MAX_GROUP_WEIGHT = 32 * 2**20  # bytes of content in one transaction
IDLE = 1.0  # seconds without an operation, after which what the log holds is copied into the file

_log = logging.getLogger(__name__)


class Transaction:
    """What an operation is given: the connection, the time, and `record` for the events that tell of it.

    An operation may be run a second time after its first run was undone: it changes nothing but the store.
    """

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.now = now
        self.events: list[Event] = []

    def record(self, *events: Event) -> None:
        """Write events in this transaction; they are handed on once it is committed."""
        self.events += [insert_event(self.connection, event) for event in events]


class _Job:
    """One operation, and the future its caller waits for."""

    def __init__(self, operation: Callable[[Transaction], Any], weight: int, future: asyncio.Future[Any]) -> None:
        self.operation = operation
        self.weight = weight
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Runs operations in a thread of its own and keeps the file in order. Made and used on the engine's loop.

    `deliver` is called on that loop with the events of each group, in commit order and before its callers go on.
    `groups` counts the transactions committed.
    """

    def __init__(self, path: Path, clock: Clock, deliver: Callable[[Sequence[Event]], None], events_kept: int) -> None:
        self._path = path
        self._clock = clock
        self._deliver = deliver
        self._events_kept = events_kept
        self._upkeep: Upkeep
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)
        self._opened: Future[None] = Future()
        self._ended = asyncio.Event()
        self._closing = False
        self._connection: sqlite3.Connection
        self.broken = ""
        self.groups = 0

    @property
    def spare(self) -> int:
        """Bytes of the file that nothing is in."""
        return self._upkeep.spare

    async def open(self) -> None:
        """Open the file. Raises QueueError."""
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(self._opened))
        except asyncio.CancelledError:
            self._jobs.put(None)
            raise

    async def close(self) -> None:
        """Finish the operations asked for, and end the thread. The connection stays open; see `disconnect`."""
        self._closing = True
        self._jobs.put(None)
        await self._ended.wait()
        self._thread.join()

    def disconnect(self) -> None:
        """Close the connection of a writer that has ended."""
        self._connection.close()

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
            self._upkeep = Upkeep(self._connection, self._path, self._events_kept)
        except Exception as error:  # noqa: BLE001  whatever it is, the caller of open() is to have it
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        carried: _Job | None = None
        last = False
        while not last:
            if carried is None:
                self._keep(lambda: self._upkeep.give_back(self._may_give_back))
            group, carried, last = self._take(carried)
            if group:
                self._commit(group)
                self._keep(self._upkeep.tend)
        self._keep(self._upkeep.checkpoint)
        self._call(self._ended.set)

    def _take(self, carried: _Job | None) -> tuple[list[_Job], _Job | None, bool]:
        """Wait for an operation and take all that wait with it, within the bounds of a group.

        Gives the group, an operation that did not fit into it, and whether the end was asked for.
        """
        group: list[_Job] = []
        weight = 0
        job = carried or self._next()
        while job is not None:
            if group and weight + job.weight > MAX_GROUP_WEIGHT:
                return group, job, False
            group.append(job)
            weight += job.weight
            if len(group) == MAX_GROUP:
                return group, None, False
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, None, False
        return group, None, True

    def _next(self) -> _Job | None:
        """Wait for an operation; meanwhile leave nothing in the log.

        The disk may fill by others' doing: with an empty log, what is queued can be worked on in the room there is.
        """
        if not self._upkeep.is_log_copied:
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=IDLE)
            self._keep(self._upkeep.checkpoint)
        return self._jobs.get()

    def _commit(self, group: list[_Job], *, again: bool = False) -> None:
        """Run a group in one transaction and answer its callers; `again` after it found the disk full."""
        events: list[Event] = []
        if self.broken:
            self._fail(group, QueueBroken(self.broken))
        else:
            try:
                events = self._transact(group)
            except Exception as error:  # noqa: BLE001  the thread outlives any error: its callers get it
                self._undo()
                verdict = _judge(error)
                if verdict == "full" and not again:
                    self._keep(self._upkeep.checkpoint)  # then the log begins anew, in the room it has
                    for job in group:  # what is small, or frees room, may be done though others may not
                        self._commit([job], again=True)
                    return
                self._fail(group, self._refusal(error, verdict))
        self._call(self._answer, group, events)

    def _transact(self, group: list[_Job]) -> list[Event]:
        events: list[Event] = []
        self._connection.execute("BEGIN IMMEDIATE")
        for job in group:
            events += self._try(job)
        if weight := sum(job.weight for job in group):
            self._upkeep.leave_room(weight)
        self._connection.execute("COMMIT")
        self.groups += 1
        self._keep(lambda: self._upkeep.committed(len(events), weight))  # which can no more undo it
        return events

    def _try(self, job: _Job) -> list[Event]:
        """Run one operation in its savepoint. Raises only what undoes the whole group."""
        job.result = job.error = None
        transaction = Transaction(self._connection, self._clock.now())
        self._connection.execute("SAVEPOINT operation")
        try:
            job.result = job.operation(transaction)
        except Exception as error:  # it is the caller's, and of no concern to the others
            verdict = _judge(error)
            if verdict != "other":
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
        if not isinstance(error, sqlite3.Error):
            return error
        said = clean(str(error))
        refusal = QueueError(f"the queue could not be written: {said}")
        if verdict == "full":
            refusal = QueueFull(f"no room for the queue: {said}")
        elif verdict == "busy":
            refusal = QueueBusy(f"another program holds the queue: {said}")
        elif verdict == "broken":
            self._break(said)
            refusal = QueueBroken(self.broken)
        refusal.__cause__ = error
        return refusal

    def _break(self, said: str) -> None:
        self.broken = f"the queue could not be written: {said}; see to the disk, then start the engine anew"
        _log.error("%s", self.broken)

    def _fail(self, group: list[_Job], error: Exception) -> None:
        for job in group:
            # One instance each: a traceback grows with everyone who raises it.
            job.result, job.error = None, type(error)(*error.args) if isinstance(error, QueueError) else error
            job.error.__cause__ = error.__cause__

    def _call(self, callback: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *args)

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def _keep(self, task: Callable[[], None]) -> None:
        """Do what keeps the file in order. A failed sync here counts as one in a commit; a full disk is tried again."""
        if self.broken:
            return
        try:
            task()
        except sqlite3.Error as error:
            self._undo()
            self._refusal(error, _judge(error))

    def _may_give_back(self) -> bool:
        return self._jobs.empty() and not self.broken

    # -- on the loop ------------------------------------------------------------------------------------------------

    def _answer(self, group: list[_Job], events: list[Event]) -> None:
        try:
            if events:
                self._deliver(events)
        finally:  # an error of who follows the events goes to the loop's handler, not to the callers
            for job in group:
                if job.future.cancelled():
                    continue
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.result)


_FULL = {sqlite3.SQLITE_FULL}
_BROKEN = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _judge(error: Exception) -> Literal["full", "busy", "broken", "other"]:
    """Tell a full disk, a file held by others and a broken one from what concerns one operation alone."""
    if not isinstance(error, sqlite3.Error):
        return "other"
    if is_busy(error):
        return "busy"
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        said = str(error)
        return "full" if "disk is full" in said else "broken" if "disk I/O error" in said else "other"
    # The index of the log could not grow: the disk is full, and nothing of the data was touched.
    if code & 0xFF in _FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return "full"
    return "broken" if code & 0xFF in _BROKEN else "other"
