"""The pulse of a node: it says at every heartbeat that it lives, takes over from who does not, and hears the others.

All of it on a connection of its own: a writer that is busy must not have a node be thought dead.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, get_args

from engine.model.node import NODES, QUEUED, News, NewsKind
from engine.queue.errors import QueueBusy, QueueError
from engine.queue.postgres.connection import CHANNEL, DURABLY, Server, connect, said
from engine.queue.postgres.errands import Errands
from engine.queue.postgres.node import Fenced, Node
from engine.queue.postgres.transaction import Snapshot

SOONEST = 0.1  # seconds from one heartbeat to the next, where a lease of another ends
AGAIN = 1.0  # seconds between tries to be heard
STOP_SECONDS = 2.0  # for the statement that is under way when the store is closed

_KINDS: dict[str, NewsKind] = {kind: kind for kind in get_args(NewsKind)}

log = logging.getLogger(__name__)


class Pulse:
    """Beats from `start` to `stop`. `take_over` is run after each beat, `hear` is called with the news of others.

    Where others have taken over from this node, `begin_anew` is run.
    `follow` is told the time of the database, and within how many seconds that is known. `say` gives what the node says
    of itself; of its `errands` it hears. `trouble` is what keeps the node from sending, or "".
    """

    def __init__(
        self,
        server: Server,
        node: Node,
        take_over: Callable[[], Awaitable[None]],
        begin_anew: Callable[[], Awaitable[None]],
        hear: Callable[[News], None],
        follow: Callable[[float, float], None],
        errands: Errands,
    ) -> None:
        self.say: Callable[[], str] = str
        self._server = server
        self._node = node
        self._take_over = take_over
        self._begin_anew = begin_anew
        self._hear = hear
        self._follow = follow
        self._errands = errands
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._taking_over: asyncio.Future[None] | None = None
        self._soon = asyncio.Event()

    @property
    def trouble(self) -> str:
        """Why nothing is sent, or ""."""
        if self._task is None or self._node.left > 0:
            return ""
        return f"node {self._node.name} was not heard of by the database for too long: it sends nothing"

    async def start(self) -> None:
        """Connect and beat once. Raises QueueError."""
        try:
            await self._beat()
        except TimeoutError as error:
            raise QueueBusy(f"the database did not answer within a heartbeat, {self._node.heartbeat:g} s") from error
        self._task = asyncio.create_task(self._run(), name="pulse")

    def soon(self) -> None:
        """Beat at once: something is said, or told, that need not wait."""
        self._soon.set()

    async def stop(self) -> None:
        """Beat no more."""
        tasks = [task for task in (self._task, self._taking_over) if task is not None]
        self._task = self._taking_over = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        self._disconnect()

    async def _run(self) -> None:
        # A beat that came too late, or was not heard, is made up for at once.
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause if self._connection is not None else AGAIN):
                    await self._soon.wait()
            self._soon.clear()
            try:
                await self._beat()
                await self._see_to_others()
            except Fenced:
                await self._try_anew()
            except Exception as error:  # noqa: BLE001  whatever it is, the next beat is due
                log.warning("a heartbeat of node %s was not heard: %s", self._node.name, said(error))

    @property
    def _pause(self) -> float:
        """Seconds until the next beat, or until it is to be seen whether another one's lease has ended."""
        return min(self._node.heartbeat, max(SOONEST, self._node.first_end))

    async def _see_to_others(self) -> None:
        """Take over from who is lost. It may wait for the writer, or a reader; the next heartbeat waits for neither."""
        if self._taking_over is None:
            self._taking_over = asyncio.ensure_future(self._take_over())
        done, _ = await asyncio.wait([self._taking_over], timeout=self._node.heartbeat / 2)
        if done:
            taken_over, self._taking_over = self._taking_over, None
            await taken_over

    async def _try_anew(self) -> None:
        """Begin a new life; where that is refused (the queue is being moved, say) it is tried at the next beat."""
        try:
            await self._begin_anew()
            self._soon.set()
        except QueueError as error:
            log.warning("node %s cannot begin anew: %s", self._node.name, error)

    async def _beat(self) -> None:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await connect(self._server)
                await self._connection.execute(DURABLY)  # a crash must not shorten a lease that is counted on
                await self._connection.add_listener(CHANNEL, self._told)
                self._hear(NODES)  # what was told meanwhile was not heard
                self._hear(QUEUED)
            asked, was_drained = time.monotonic(), self._node.is_drained
            async with asyncio.timeout(self._node.heartbeat):
                now = await self._node.beat(Snapshot(self._connection, 0.0), self.say())
            within = (time.monotonic() - asked) / 2
            self._follow(now + within, within)
            if self._node.is_drained != was_drained:
                self._hear(NODES)
            if self._node.is_asked:
                self._errands.look()
        except QueueError:
            raise
        except BaseException:
            self._disconnect()
            raise

    def _told(self, _connection: object, _pid: int, _channel: str, payload: str) -> None:
        epoch, kind, name = (*payload.split(" ", 2), "", "")[:3]
        if epoch == str(self._node.epoch):
            return
        if kind in ("errand", "answer"):
            self._errands.told(kind, name)
            return
        if kind == "nodes":
            self._soon.set()
        self._hear(News(_KINDS.get(kind, "queued"), name))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
