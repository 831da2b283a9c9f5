"""What the roles of the store share: its one writer, its readers, its clock, and what takes several transactions.

A role's method says by its decorator where it runs: `written` in a transaction of the writer, `read` on a snapshot.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from engine.base.clock import Clock
from engine.model.event import Event
from engine.queue.errors import QueueError
from engine.queue.mail import Terms
from engine.queue.postgres.connection import Server, connect, is_lost, refusal
from engine.queue.postgres.migrations import prepare
from engine.queue.postgres.node import Node
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.postgres.writer import Together, Writer

A = TypeVar("A")
T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", bound="Role")

READERS = 4  # connections for questions
STOP_SECONDS = 2.0  # for an operator's orders that are under way when the store is closed; then they are cut short


class Database:
    """One database, and those who write and read it, from `open` to `close`; the roles ask all they ask of it."""

    def __init__(self, server: Server, node: Node, clock: Clock, terms: Terms) -> None:
        self.node = node
        self.clock = clock
        self.terms = terms
        self._server = server
        self._writer: Writer | None = None
        self._readers: asyncio.Queue[Any] = asyncio.Queue()
        self._connected: set[Any] = set()
        self._stopping = False
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self, deliver: Callable[[Sequence[Event]], None], events_kept: int) -> None:
        """Connect, and make the tables where there are none. Raises QueueError."""
        self._stopping = False
        first = await connect(self._server)
        try:
            await prepare(first)
            await first.close(timeout=2)
        except Exception as error:
            raise refusal(error) from error
        finally:
            first.terminate()
        writer = Writer(self._server, self.node, self.clock, deliver, events_kept)
        await writer.open()
        self._writer = writer
        self._readers = asyncio.Queue()
        for _ in range(READERS):
            self._readers.put_nowait(None)  # connected when it is first needed

    async def close(self) -> None:
        """Finish what was asked for, within bounds, and close; nothing where it is not open."""
        if self._writer is None:
            return
        for self._stopping in (False, True):  # what still runs then ends between two of its transactions
            if self._running:
                await asyncio.wait(self._running, timeout=STOP_SECONDS)
        writer, self._writer = self._writer, None
        await writer.close()
        for connection in self._connected:
            connection.terminate()
        self._connected.clear()

    @property
    def is_open(self) -> bool:
        """Whether anything can be asked of it."""
        return self._writer is not None

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, or ""."""
        return self._writer.trouble if self._writer is not None else ""

    async def do(self, operation: Callable[[Transaction], Awaitable[T]], weight: int = 0) -> T:
        """Run an operation of the writer; see there."""
        if self._writer is None:
            raise QueueError("the queue is not open")
        return await self._writer.do(operation, weight)

    async def do_together(self, operation: Together[A, T], item: A, weight: int = 0) -> T:
        """Run an operation of the writer for all who ask for it at a moment; see there."""
        if self._writer is None:
            raise QueueError("the queue is not open")
        return await self._writer.do_together(operation, item, weight)

    async def ask(self, question: Callable[[Snapshot], Awaitable[T]]) -> T:
        """Answer a question on one committed state. Raises QueueError."""
        if self._writer is None:
            raise QueueError("the queue is not open")
        now = self.clock.now()
        readers = self._readers
        connection = await readers.get()
        try:
            if connection is None or connection.is_closed():
                self._connected.discard(connection)
                connection = await self._connect_reader()
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await question(Snapshot(connection, now))
        except QueueError:
            raise
        except BaseException as error:
            if connection is not None and (is_lost(error) or not isinstance(error, Exception)):
                # Its BEGIN may still be on the way, and asyncpg would take what is asked next for a part of that
                # transaction: it would see the state of that moment for ever.
                connection.terminate()
            refused = refusal(error) if isinstance(error, Exception) else error
            if refused is error:
                raise
            raise refused from error
        finally:
            readers.put_nowait(connection)

    async def _connect_reader(self) -> Any:
        """Who waited for this until the store was closed must not leave a session behind. Raises QueueError."""
        if self._writer is None:
            raise QueueError("the queue is not open")
        connection = await connect(self._server)
        if self._writer is None:
            connection.terminate()
            raise QueueError("the queue is not open")
        self._connected.add(connection)
        return connection

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


class Role:
    """A part of what the store promises (see engine.queue.contract); it asks its `database`."""

    def __init__(self, database: Database) -> None:
        self.database = database


def written(
    method: Callable[Concatenate[R, Transaction, P], Awaitable[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make of what is done in a transaction what waits until that is committed."""

    @functools.wraps(method)
    async def run(role: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await role.database.do(lambda tx: method(role, tx, *args, **kwargs))

    return run


def read(
    method: Callable[Concatenate[R, Snapshot, P], Awaitable[T]],
) -> Callable[Concatenate[R, P], Coroutine[Any, Any, T]]:
    """Make of what is found on a snapshot a question."""

    @functools.wraps(method)
    async def run(role: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await role.database.ask(lambda snapshot: method(role, snapshot, *args, **kwargs))

    return run
