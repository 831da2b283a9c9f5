"""The one writer of an engine: it takes all operations waiting at a moment into one transaction.

One commit then makes many messages durable. Where any of them fails the transaction is undone, and each is done in one
of its own: one that fails undoes nothing of the others.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import msgspec

from engine.base.clock import Clock
from engine.model.event import Event
from engine.queue.bounds import MAX_GROUP, MAX_GROUP_WEIGHT
from engine.queue.errors import QueueBusy, QueueError
from engine.queue.moving import Leaving
from engine.queue.postgres.connection import (
    CHANGE,
    DURABLY,
    FENCED,
    LOCK_TIMEOUT,
    MOVING,
    NODE,
    TAKING,
    Server,
    connect,
    is_lost,
    is_to_be_repeated,
    refusal,
    said,
)
from engine.queue.postgres.node import Node
from engine.queue.postgres.rows import CONCLUDE_NODE, CONCLUDED, event_values
from engine.queue.postgres.transaction import Transaction

T = TypeVar("T")

TRIES = 5  # of a transaction that met others', before who asked is told
PRUNE_EVERY = 1000  # events written between two looks at how many are kept
PRUNE_AT_ONCE = 5000
LOOK_SECONDS = 10.0  # for what became of a commit whose answer was lost; looked at every LOOK_AGAIN seconds
LOOK_AGAIN = 0.1
HALTED_SECONDS = 5.0  # in the middle of a transaction, and no longer than a third of `takeover`; then it is undone
NAME_SECONDS = 3.0  # for a session of ours that was lost to end; then the name is another engine's
STOP_SECONDS = 2.0  # for saying that the node leaves
END_SECONDS = 8.0  # for what is under way when the store is closed; then it is cut short

# Whatever may take mail in holds this lock with all others, so that who makes a hold rule can wait for mail that is
# being taken in without it (see engine.queue.postgres.rules).
_BEGIN = f"BEGIN; SELECT pg_advisory_xact_lock_shared({TAKING})"

log = logging.getLogger(__name__)

A = TypeVar("A")
# Does the same for several who asked, in one go; gives each a result, or the error that concerns this one alone.
Together = Callable[[Transaction, Sequence[A]], Awaitable[Sequence[T | QueueError]]]


class _Job:
    """What somebody asked for, and waits for: an operation by itself, or one that is done for several, and the item."""

    def __init__(self, operation: Callable[..., Awaitable[Any]], weight: int, item: tuple[Any, ...] = ()) -> None:
        self.operation = operation
        self.item = item
        self.weight = weight
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, result: Any) -> None:
        if isinstance(result, QueueError):
            self.refuse(result)
        elif not self.future.done():
            self.future.set_result(result)

    def refuse(self, error: Exception) -> None:
        """Tell who asked; one instance each, since a traceback grows with everyone who raises it."""
        if not self.future.done():
            own = type(error)(*error.args) if isinstance(error, QueueError) else error
            own.__cause__ = error.__cause__
            self.future.set_exception(own)


class Writer:
    """Runs operations on a connection of its own, in order. `deliver` is called with the events of each transaction.

    It is made anew where it is lost. What a lost commit came to is asked of the database: nothing is done twice, and
    nobody is told of success that was none. What was written for a life of the node that is over is undone, and done
    anew in the next. `trouble` says why nothing can be written now, or is "".
    """

    def __init__(
        self, server: Server, node: Node, clock: Clock, deliver: Callable[[Sequence[Event]], None], events_kept: int
    ) -> None:
        self._server = server
        self._node = node
        self._clock = clock
        self._deliver = deliver
        self._events_kept = events_kept
        self._jobs: asyncio.Queue[_Job | None] = asyncio.Queue()
        self._carried: _Job | None = None
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self._since_prune = PRUNE_EVERY
        self.trouble = ""

    async def open(self) -> None:
        """Connect, and begin a life of the node. Raises QueueError where another engine has its name."""
        await self._connect()
        try:
            await self._join()
        except Exception as error:
            await self._disconnect()
            raise refusal(error) from error
        self._task = asyncio.create_task(self._run(), name="queue-writer")

    async def close(self) -> None:
        """Finish what was asked for, within END_SECONDS, and leave."""
        if self._task is None:
            return
        self._is_closing = True
        self._jobs.put_nowait(None)
        _, pending = await asyncio.wait([self._task], timeout=END_SECONDS)
        if pending:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=END_SECONDS)
        while not self._jobs.empty():
            if (job := self._jobs.get_nowait()) is not None:
                job.refuse(QueueError("the queue is closed"))
        with suppress(Exception):  # then others find that it is gone when its lease ends
            async with asyncio.timeout(STOP_SECONDS):
                await self._node.leave(self._connection)
        await self._disconnect()

    async def do(self, operation: Callable[[Transaction], Awaitable[T]], weight: int = 0) -> T:
        """Run an operation; it is committed when this returns. Who is cancelled has it done all the same."""
        found: T = await self._ask(_Job(operation, weight))
        return found

    async def do_together(self, operation: Together[A, T], item: A, weight: int = 0) -> T:
        """The same, done in one go for all who ask for it at a moment; `operation` is the same object for all."""
        found: T = await self._ask(_Job(operation, weight, (item,)))
        return found

    async def _ask(self, job: _Job) -> Any:
        if self._is_closing or self._task is None or self._task.done():
            raise QueueError("the queue is closed")
        self._jobs.put_nowait(job)
        return await asyncio.shield(job.future)

    # -- the task ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            group, is_last = await self._take()
            try:
                await self._commit(group)
            finally:
                for job in group:  # of what was cut short nobody is to wait
                    job.refuse(QueueError("the queue is closed"))
            if is_last:
                return

    async def _take(self) -> tuple[list[_Job], bool]:
        """Wait for an operation and take all that wait with it, within the bounds of a group; True: it is the last."""
        group: list[_Job] = []
        weight = 0
        job = self._carried or await self._jobs.get()
        self._carried = None
        while job is not None:
            if group and weight + job.weight > MAX_GROUP_WEIGHT:
                self._carried = job
                return group, False
            group.append(job)
            weight += job.weight
            if len(group) == MAX_GROUP or self._jobs.empty():
                return group, False
            job = self._jobs.get_nowait()
        return group, True

    async def _commit(self, group: list[_Job]) -> None:
        if not group:
            return
        if await self._try(group) is None:
            return
        for job in group:
            if (error := await self._try([job])) is not None:
                job.refuse(error)

    async def _try(self, group: list[_Job]) -> Exception | None:
        """Do a group in one transaction, and answer who asked; give the error that undid it, of which none is told."""
        error: Exception = QueueBusy("the database cannot be reached")
        for _ in range(TRIES):
            token = 0  # drawn once there is something to be committed
            try:
                if self._connection is None or self._connection.is_closed():
                    await self._connect()
                await self._connection.execute(_BEGIN)
                results, events, news = await self._do(group)
                token, events = await self._conclude(events, news)
                await self._connection.execute("COMMIT")
            except Exception as met:  # noqa: BLE001  it is for who asked, whatever it is
                error = met
                if getattr(met, "sqlstate", "") == FENCED:
                    log.warning("others have taken over from node %s: it begins anew", self._node.name)
                    await self._undo(lost=False)
                    try:
                        await self._join()
                    except Exception as refused:  # noqa: BLE001
                        error = refused
                        await self._undo(lost=is_lost(refused))
                    continue
                lost = is_lost(met)
                if token and await self._is_answered(token, group, results, events):
                    return None
                await self._undo(lost=lost)
                if lost or is_to_be_repeated(met):
                    continue
                if self._connection is None or self._connection.is_closed():  # another engine has its name
                    self.trouble = str(met)
                return refusal(met)
            self.trouble = ""
            self._answer(group, results, events)
            await self._prune(len(events))
            return None
        self.trouble = str(refusal(error))
        return refusal(error)

    async def _do(self, group: list[_Job]) -> tuple[list[Any], list[Event], list[str]]:
        """Do what was asked for, in order; give the results, and what is to be told here and to other nodes."""
        name, epoch, has_others = self._node.name, self._node.epoch, self._node.share.nodes > 1
        transactions: list[Transaction] = []
        results: dict[_Job, Any] = {}
        for job in group:
            if job in results:
                continue
            transaction = Transaction(self._connection, self._clock.now(), name, epoch, has_others=has_others)
            transactions.append(transaction)
            if job.item:
                others = [other for other in group if other.operation is job.operation]
                found = await job.operation(transaction, [item for other in others for item in other.item])
                results.update(zip(others, found, strict=True))
            else:
                results[job] = await job.operation(transaction)
        if last := [step for transaction in transactions for step in transaction.last]:
            await self._connection.execute("SELECT alone()")
            for step in last:
                await step()
        events = [event for transaction in transactions for event in transaction.events]
        return (
            [results[job] for job in group],
            events,
            sorted({" ".join(told) for transaction in transactions for told in transaction.news}),
        )

    async def _conclude(self, events: list[Event], news: list[str]) -> tuple[int, list[Event]]:
        """Write what all have in common; give the token by which it can be asked what became of this, and the events.

        What changed nothing needs none of that, and has no token: 0.
        """
        if not events and await self._connection.fetchval("SELECT pg_current_xact_id_if_assigned()") is None:
            return 0, []
        token = secrets.randbits(62) + 1
        values = (self._node.epoch, news, *event_values(events), self._node.name, token)
        rows = await self._connection.fetch(CONCLUDE_NODE, *values)
        return token, [msgspec.structs.replace(event, seq=row[0]) for event, row in zip(events, rows, strict=True)]

    async def _join(self) -> None:
        """Begin a life of the node. Raises whatever keeps it from that."""
        await self._connection.execute("BEGIN")
        epoch, asked = await self._node.join(Transaction(self._connection, self._clock.now()))
        await self._connection.execute("COMMIT")
        self._node.joined(epoch, asked)

    async def _is_answered(self, token: int, group: list[_Job], results: list[Any], events: list[Event]) -> bool:
        """Find out what became of a commit whose answer was lost, and answer who asked; False: it was not done.

        Where that cannot be known it is told as not done, and yet not done again.
        """
        await self._disconnect()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                is_committed = await self._is_committed(token)
                while is_committed is None:
                    await asyncio.sleep(LOOK_AGAIN)
                    is_committed = await self._is_committed(token)
        except TimeoutError:
            self.trouble = "the database cannot be reached: what became of a commit is not known"
            log.error("%s", self.trouble)
            await self._disconnect()
            for job in group:
                job.refuse(QueueBusy(self.trouble))
            return True
        if is_committed:
            self._answer(group, results, events)
        return is_committed

    async def _is_committed(self, token: int) -> bool | None:
        """Whether the transaction of this token was committed; None: nobody can say so yet.

        Its session is over, since the name of the node was to be had; nothing was committed in that name after it.
        """
        try:
            if self._connection is None:
                await self._connect()
            return bool(await self._connection.fetchval(CONCLUDED, self._node.name, token))
        except Exception as error:  # noqa: BLE001  it is asked again
            log.warning("what became of a commit cannot be asked: %s", said(error))
            await self._disconnect()
            return None

    def _answer(self, group: list[_Job], results: list[Any], events: list[Event]) -> None:
        """Hand the events on, then the answers. What a follower does wrong goes to the loop's handler."""
        if events:
            try:
                self._deliver(events)
            except Exception as error:  # noqa: BLE001
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "who follows the events of the queue failed", "exception": error}
                )
        for job, result in zip(group, results, strict=True):
            job.answer(result)

    async def _undo(self, *, lost: bool) -> None:
        if lost:
            await self._disconnect()
            return
        with suppress(Exception):
            await self._connection.execute("ROLLBACK")

    async def _prune(self, events: int) -> None:
        """Remove events past the number kept, where it is time for that."""
        self._since_prune += events
        if self._since_prune < PRUNE_EVERY:
            return
        self._since_prune = 0
        try:
            done: str = await self._connection.execute(
                "DELETE FROM event WHERE seq <= (SELECT max(seq) FROM event) - $1 "
                "AND seq < (SELECT min(seq) FROM event) + $2",
                self._events_kept,
                PRUNE_AT_ONCE,
            )
        except Exception as error:  # noqa: BLE001  it is done another time
            log.warning("old events could not be removed: %s", said(error))
            return
        if done == f"DELETE {PRUNE_AT_ONCE}":
            self._since_prune = PRUNE_EVERY

    async def _connect(self) -> None:
        """Connect in the name of the node. A session of ours that was lost may have it for a moment: that is awaited.

        Raises QueueError where another engine has it, and where the queue is being moved away, which may have begun
        while the connection was lost.
        """
        connection = await connect(self._server)
        try:
            # One that was stopped in the middle of a transaction must not keep others from taking over.
            halted = min(HALTED_SECONDS, self._node.takeover / 3)
            await connection.execute(f"SET idle_in_transaction_session_timeout = '{1000 * halted:.0f}ms'")
            await connection.execute(f"SET lock_timeout = '{NAME_SECONDS:g}s'")
            await _see_that_it_stays(connection)
            await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", NODE, self._node.name)
            await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
            await connection.execute(DURABLY)
            await connection.execute(CHANGE)
        except asyncpg.LockNotAvailableError as error:
            connection.terminate()
            why = f'another engine is node "{self._node.name}" of the queue in this database'
            raise QueueError(f"{why}: give each a name of its own (queue.node)") from error
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=2)
            except Exception:  # noqa: BLE001
                connection.terminate()


async def _see_that_it_stays(connection: Any) -> None:
    """Keep the queue from being moved while this session is there. Raises QueueError where it is being moved."""
    try:
        await connection.execute("SELECT pg_advisory_lock_shared($1)", MOVING)
    except asyncpg.LockNotAvailableError as error:
        raise QueueError("the queue in this database is being moved") from error
    if (mark := await connection.fetchrow("SELECT move, source, target FROM leaving")) is not None:
        raise QueueError(Leaving(*mark).refusal)
