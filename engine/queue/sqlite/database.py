"""What the roles of the store share: its one writer, its readers, its clock, and what takes several transactions.

A role's method says by its decorator where it runs: `written` in a transaction of the writer, `read` and `seen` on a
snapshot of the readers. It is on disk, or known, when it returns.
"""

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from engine.base.clock import Clock
from engine.model.event import Event
from engine.queue.errors import QueueDamaged, QueueError
from engine.queue.mail import Terms
from engine.queue.sqlite.readers import Readers
from engine.queue.sqlite.writer import Transaction, Writer

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", bound="Role")

STOP_SECONDS = 2.0  # for an operator's orders that are under way when the store is closed; then they are cut short


class Snapshot(NamedTuple):
    """What a question is given: a connection that reads the last committed state, and the time it was asked."""

    connection: sqlite3.Connection
    now: float


class Database:
    """One file, and those who write and read it, from `open` to `close`; the roles ask all they ask of it.

    `terms` are those of mail that comes in.
    """

    def __init__(self, path: Path, clock: Clock, terms: Terms) -> None:
        self.path = path
        self.clock = clock
        self.terms = terms
        self._stopping = False
        self._running: set[asyncio.Task[Any]] = set()
        self._writer_or_none: Writer | None = None
        self._readers_or_none: Readers | None = None

    async def open(self, deliver: Callable[[Sequence[Event]], None], events_kept: int) -> None:
        """Open the file, made where there is none; `deliver` has the events of each commit. Raises QueueError."""
        writer = Writer(self.path, self.clock, deliver, events_kept)
        await writer.open()
        self._writer_or_none = writer
        self._readers_or_none = Readers(self.path, self._damage_read, lambda: writer.damage.mended)

    async def close(self) -> None:
        """Finish what was asked for, within bounds, and close; nothing where it is not open."""
        if self._writer_or_none is None or self._readers_or_none is None:
            return
        writer, readers = self._writer_or_none, self._readers_or_none
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        self._stopping = True  # what still runs ends between two of its transactions, which are short
        if self._running:
            await asyncio.wait(self._running, timeout=STOP_SECONDS)
        await writer.close()
        await readers.close()
        # The last connection to close copies the log into the file, unless it may only read. After a failed write
        # nothing more is to be written.
        parts: list[Writer | Readers] = [writer, readers] if writer.broken else [readers, writer]
        for part in parts:
            part.disconnect()
        self._writer_or_none = self._readers_or_none = None

    @property
    def is_open(self) -> bool:
        return self._writer_or_none is not None and self._readers_or_none is not None

    @property
    def writer(self) -> Writer:
        """Raises QueueError where the store is not open."""
        if self._writer_or_none is None:
            raise QueueError("the queue is not open")
        return self._writer_or_none

    @property
    def readers(self) -> Readers:
        """Raises QueueError where the store is not open."""
        if self._readers_or_none is None:
            raise QueueError("the queue is not open")
        return self._readers_or_none

    async def do(self, operation: Callable[[Transaction], T], weight: int = 0) -> T:
        """Run an operation of the writer; see there."""
        return await self.writer.do(operation, weight)

    async def ask(self, question: Callable[[Snapshot], T]) -> T:
        """Answer what mail needs to move."""
        now = self.clock.now()
        return await self.readers.ask(lambda connection: question(Snapshot(connection, now)))

    async def see(self, question: Callable[[Snapshot], T]) -> T:
        """Answer those who look: they wait for each other, and mail for none of them."""
        now = self.clock.now()
        return await self.readers.ask(lambda connection: question(Snapshot(connection, now)), console=True)

    async def ask_beside_damage(self, question: Callable[[Snapshot], T], singly: Callable[[Snapshot], T]) -> T:
        """Ask, and where that meets a damaged page, which is told, ask for what can be read beside it."""
        try:
            return await self.ask(question)
        except QueueDamaged:
            return await self.ask(singly)

    async def to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what takes several transactions in a task of its own: who asked may go, the order is still carried out."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def go_on(self) -> None:
        """Between two transactions of what takes several. Raises QueueError where the store is about to be closed."""
        if self._stopping:
            raise QueueError("the engine stops")

    async def _damage_read(self, error: BaseException) -> bool:
        self.writer.damage.met(error)
        try:
            return await self.writer.mended()
        except QueueError:
            return False


class Role:
    """A part of what the store promises (see engine.queue.contract); it asks its `database`."""

    def __init__(self, database: Database) -> None:
        self.database = database


def written(method: Callable[Concatenate[R, Transaction, P], T]) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make of what is done in a transaction what waits until that is on disk."""

    @functools.wraps(method)
    async def run(role: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await role.database.do(lambda tx: method(role, tx, *args, **kwargs))

    return run


def read(method: Callable[Concatenate[R, Snapshot, P], T]) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make of what is found in a snapshot a question of mail's."""

    @functools.wraps(method)
    async def run(role: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await role.database.ask(lambda snapshot: method(role, snapshot, *args, **kwargs))

    return run


def seen(method: Callable[Concatenate[R, Snapshot, P], T]) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make of what is found in a snapshot a question of those who look."""

    @functools.wraps(method)
    async def run(role: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await role.database.see(lambda snapshot: method(role, snapshot, *args, **kwargs))

    return run
