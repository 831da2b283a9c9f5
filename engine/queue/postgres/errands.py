"""Errands: what one node asks another, and the answers, by way of the database, which both reach anyway.

A question is a row, and a notification that there is one; so is its answer. A notification may be lost: who waits looks
again by himself, and who is asked at each heartbeat. A question belongs to one life of who is asked, is not begun once
nobody waits for it, and is taken away by whoever asked; what is left over is pruned. Both sides bound what they read,
for whoever may write to the database may write anything there.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from engine.queue.errors import NodeSilent, NoSuchNode, QueueBusy
from engine.queue.postgres.connection import CHANNEL, Server, connect, refusal, said
from engine.queue.postgres.node import Node

MAX_REQUEST = 64 * 1024  # octets of a question
MAX_ANSWER = 4 * 2**20  # and of an answer
AT_ONCE = 16  # questions of others that are being answered at a time
MOST_WAITING = 200  # questions that wait for one node
LOOK_AGAIN = 0.5  # seconds between looks for an answer of which nobody may have heard
KEPT = 60.0  # seconds for which rows are kept that nobody waits for any more
LAST_LOOK = 1.0  # seconds for the look whether there is an answer after all

_NOW = "extract(epoch FROM clock_timestamp())::float8"
_ASK = (
    "WITH asked AS (SELECT name, epoch, is_lost FROM node WHERE name = $1), "
    "crowd AS (SELECT count(*) AS waiting FROM errand JOIN asked USING (epoch) WHERE NOT is_taken), "
    "put AS (INSERT INTO errand (epoch, asker, request, until) "
    f"SELECT epoch, $2, $3, {_NOW} + $4::float8 FROM asked, crowd WHERE NOT is_lost AND waiting < $5 "
    "RETURNING id, epoch) "
    "SELECT (SELECT id FROM put), (SELECT is_lost FROM asked), "
    "(SELECT pg_notify($6, $2::bigint || ' errand ' || epoch) FROM put)"
)
_TAKE = (
    "UPDATE errand SET is_taken = TRUE WHERE id IN (SELECT id FROM errand WHERE epoch = $1 AND NOT is_taken "
    f"AND until > {_NOW} AND octet_length(request) <= $2 ORDER BY id LIMIT $3) RETURNING id, request, until - {_NOW}"
)
_ANSWER = (
    "WITH answered AS (UPDATE errand SET answer = $2 WHERE id = $1 AND epoch = $3 RETURNING id, asker) "
    "SELECT pg_notify($4, $3::bigint || ' answer ' || asker || ' ' || id) FROM answered"
)
_FETCH = (
    "DELETE FROM errand WHERE id = $1 AND asker = $2 AND answer IS NOT NULL "
    "RETURNING CASE WHEN octet_length(answer) > $3 THEN '' ELSE answer END"
)
_TAKE_AWAY = (
    "DELETE FROM errand WHERE id = $1 AND asker = $2 "
    "RETURNING is_taken, CASE WHEN octet_length(answer) > $3 THEN '' ELSE answer END"
)
_PRUNE = f"DELETE FROM errand WHERE until < {_NOW} - $1::float8"

log = logging.getLogger(__name__)


class Errands:
    """Asks other nodes, and answers what they ask by `on_request`, on a connection that is made when it is needed."""

    def __init__(self, server: Server, node: Node) -> None:
        self.on_request: Callable[[bytes], Awaitable[bytes]] = _nobody
        self._server = server
        self._node = node
        self._connection: Any = None
        self._one_at_a_time = asyncio.Lock()
        self._answers: dict[int, asyncio.Event] = {}  # by the number of the question
        self._at_work: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False
        self._is_open = False

    def open(self) -> None:
        """Answer from now on."""
        self._is_open = True

    def close(self) -> None:
        """Answer nothing more."""
        self._is_open = False
        for task in (*self._at_work, *filter(None, (self._looking,))):
            task.cancel()
        self._disconnect()

    def told(self, kind: str, text: str) -> None:
        """There is a question for a node of the epoch named, or an answer for it."""
        epoch, _, number = text.partition(" ")
        if epoch != str(self._node.epoch):
            return
        if kind == "errand":
            self.look()
        elif number.isdecimal() and (waiting := self._answers.get(int(number))) is not None:
            waiting.set()

    # -- asking ---------------------------------------------------------------------------------------------------

    async def ask(self, name: str, request: bytes, seconds: float) -> bytes:
        """Ask a node, and wait for its answer so long. Raises NoSuchNode, NodeSilent, QueueBusy."""
        if len(request) > MAX_REQUEST:
            raise NodeSilent(f"more than node {name} could be asked at once")
        asker = self._node.epoch
        number, asked_on = 0, None
        try:
            async with asyncio.timeout(seconds):
                asked = await self._row(_ASK, name, asker, request, seconds, MOST_WAITING, CHANNEL)
                number, asked_on = asked[0] or 0, self._connection
                if not number:
                    raise _not_asked(name, asked[1])
                return _readable(name, await self._answer_to(number, asker, asked_on))
        except TimeoutError:
            answer, is_taken = await self._last_look(number, asker, asked_on)
            if answer is not None:
                return _readable(name, answer)
            begun = "; what was asked may still be carried out: the events will tell" if is_taken else ""
            raise NodeSilent(f"node {name} does not answer{begun}") from None
        finally:
            self._answers.pop(number, None)

    async def _answer_to(self, number: int, asker: int, asked_on: Any) -> bytes:
        heard = self._answers[number] = asyncio.Event()
        while True:
            heard.clear()
            found = await self._row(_FETCH, number, asker, MAX_ANSWER, on=asked_on)
            if found is not None:
                return bytes(found[0])
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await heard.wait()

    async def _last_look(self, number: int, asker: int, asked_on: Any) -> tuple[bytes | None, bool]:
        """Take a question away: its answer, if it has come after all, and whether it was begun, or may have been."""
        if not number:
            return None, True  # it may have been put, and nobody has said so
        with suppress(QueueBusy, TimeoutError):
            async with asyncio.timeout(LAST_LOOK):
                found = await self._row(_TAKE_AWAY, number, asker, MAX_ANSWER, on=asked_on)
                if found is not None:
                    return (None if found[1] is None else bytes(found[1])), found[0]
        return None, True  # nobody knows

    # -- answering ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """There may be questions for this node."""
        self._look_again = True
        if self._is_open and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look(), name="questions of other nodes")

    async def _look(self) -> None:
        while self._look_again and len(self._at_work) < AT_ONCE:  # else whoever is done looks again
            self._look_again = False
            epoch, room = self._node.epoch, AT_ONCE - len(self._at_work)
            try:
                await self._rows(_PRUNE, KEPT)
                rows = await self._rows(_TAKE, epoch, MAX_REQUEST, room)
            except QueueBusy as error:
                log.warning("what other nodes ask could not be looked at: %s", error)
                return
            self._look_again |= len(rows) == room
            for number, request, left in rows:
                task = asyncio.create_task(self._carry_out(number, bytes(request), left, epoch), name="an errand")
                self._at_work.add(task)
                task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._at_work.discard(task)
        if self._look_again:
            self.look()

    async def _carry_out(self, number: int, request: bytes, seconds: float, epoch: int) -> None:
        asked_on, answer = self._connection, b""
        try:
            async with asyncio.timeout(seconds):
                answer = await self.on_request(request)
        except TimeoutError:
            return  # nobody waits for it
        except Exception:
            log.exception("what another node asked could not be answered")
        if len(answer) > MAX_ANSWER:
            log.error("the answer to another node is too large: %d octets", len(answer))
            answer = b""
        try:
            await self._rows(_ANSWER, number, answer, epoch, CHANNEL, on=asked_on)
        except QueueBusy as error:
            log.warning("another node could not be answered: %s", error)

    # -- the connection -------------------------------------------------------------------------------------------

    async def _row(self, query: str, *values: object, on: Any = None) -> Any:
        found = await self._rows(query, *values, on=on)
        return found[0] if found else None

    async def _rows(self, query: str, *values: object, on: Any = None) -> list[Any]:
        """Ask the database; on the connection given, or not at all: a server that was started anew counts anew."""
        async with self._one_at_a_time:
            try:
                connection = await self._connected(on)
                return list(await connection.fetch(query, *values))
            except QueueBusy:
                raise
            except Exception as error:
                self._disconnect()
                refused = refusal(error)
                raise refused if isinstance(refused, QueueBusy) else QueueBusy(said(error)) from error

    async def _connected(self, on: Any) -> Any:
        """The connection, made where there is none unless it is to be `on` another. Raises QueueBusy."""
        if not self._is_open:
            raise QueueBusy("the queue is closed")
        if self._connection is not None and self._connection.is_closed():
            self._connection = None
        if on is not None and on is not self._connection:
            raise QueueBusy("the database cannot be reached: the connection was lost")
        if self._connection is None:
            self._connection = await connect(self._server)
            if not self._is_open:  # it was closed meanwhile: nobody else would end this session
                self._disconnect()
                raise QueueBusy("the queue is closed")
            await self._connection.execute("SET synchronous_commit = off")  # nothing here is to be kept
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _not_asked(name: str, is_lost: bool | None) -> Exception:
    if is_lost is None:
        return NoSuchNode(f"there is no node {name}")
    return NodeSilent(f"node {name} is lost" if is_lost else f"node {name} does not answer: too much waits for it")


def _readable(name: str, answer: bytes) -> bytes:
    if not answer:
        raise NodeSilent(f"node {name} could not answer: its log says more")
    return answer


async def _nobody(_: bytes) -> bytes:
    raise NodeSilent("nobody answers here yet")
