"""The store in PostgreSQL: one database, a writer of this engine, and readers that never wait for it."""

import asyncio
from collections.abc import Callable, Sequence

from engine.base.clock import Clock
from engine.model.event import Event
from engine.model.node import News, Share
from engine.queue.contract import Queue
from engine.queue.mail import Terms
from engine.queue.postgres import bulk
from engine.queue.postgres.arrivals import Arrivals
from engine.queue.postgres.attempts import recover
from engine.queue.postgres.claims import Claims
from engine.queue.postgres.connection import Server
from engine.queue.postgres.database import Database
from engine.queue.postgres.errands import Errands
from engine.queue.postgres.listing import Listing
from engine.queue.postgres.marks import Marks
from engine.queue.postgres.node import Node, begin_anew, is_someone_lost, take_over
from engine.queue.postgres.nodes import Nodes
from engine.queue.postgres.orders import Orders
from engine.queue.postgres.pulse import Pulse
from engine.queue.postgres.standing import Standing
from engine.queue.postgres.suppression import Suppression
from engine.queue.postgres.transaction import Transaction
from engine.settings.settings import Events, QueueStore, Retry

_RETRY, _EVENTS, _STORE = Retry(), Events(), QueueStore()  # as the settings have it where nobody says


class PostgresQueue(Queue):
    """The durable queue in the database that `dsn` names, its tables made by `open` where there are none.

    `give_up_after` is in seconds from arrival, or gives them for a destination; so is `delay_notice`, after which the
    sender is told (0: never), and `gather`, for which what failed is gathered. Of the events the newest `events_kept`
    are kept. Several engines may have it open at a time, each as the `node` of a name of its own; see there for
    `heartbeat` and `takeover`, in seconds. `follow` is told the time of the database, and within how many seconds that
    is known, at each heartbeat: it is the time that all of them go by.
    """

    def __init__(
        self,
        dsn: str,
        clock: Clock,
        *,
        password: str = "",
        node: str = "",
        heartbeat: float = _STORE.heartbeat,
        takeover: float = _STORE.takeover,
        version: str = "",
        follow: Callable[[float, float], None] = lambda _, __: None,
        give_up_after: float | Callable[[str], float] = _RETRY.give_up_after,
        delay_notice: float = 0.0,
        gather: float = 0.0,
        events_kept: int = _EVENTS.kept,
    ) -> None:
        self.on_events: Callable[[Sequence[Event]], None] = lambda _: None
        patience = give_up_after if callable(give_up_after) else (lambda _: give_up_after)
        self.on_news: Callable[[News], None] = lambda _: None
        server = Server(dsn, password)
        self.node = Node(node, heartbeat=heartbeat, takeover=takeover, version=version)
        self._database = Database(server, self.node, clock, Terms(patience, delay_notice, gather))
        self._errands = Errands(server, self.node)
        self._pulse = Pulse(server, self.node, self._take_over, self._begin_anew, self._hear, follow, self._errands)
        self._events_kept = events_kept
        ruling = asyncio.Lock()
        self.arrivals = Arrivals(self._database)
        self.claims = Claims(self._database, ruling)
        self.standing = Standing(self._database, ruling)
        self.orders = Orders(self._database)
        self.listing = Listing(self._database)
        self.marks = Marks(self._database)
        self.suppression = Suppression(self._database)
        self.nodes = Nodes(self._database, self.node, self._errands, self._pulse.soon)
        self._pulse.say = self.nodes.said

    async def open(self) -> int:
        await self._database.open(self._deliver, self._events_kept)
        try:
            self._errands.open()
            await self._pulse.start()
            return await self._database.do(_recover)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._errands.close()
        await self._pulse.stop()
        await self._database.close()

    @property
    def broken(self) -> str:
        return ""  # it works again once the database can be reached

    @property
    def trouble(self) -> str:
        return self._database.trouble or self._pulse.trouble

    @property
    def share(self) -> Share:
        return self.node.share

    @property
    def spare(self) -> int:
        return 0  # the database's disk is not ours to look at

    def _deliver(self, events: Sequence[Event]) -> None:
        self.on_events(events)

    def _hear(self, news: News) -> None:
        self.on_news(news)

    async def _take_over(self) -> None:
        """See whose lease has ended, and put back what they had."""
        if await self._database.ask(is_someone_lost):
            await self._database.do(take_over)
            await self._database.do(_recover)

    async def _begin_anew(self) -> None:
        """A new life begins as an engine does that is started."""
        await self._database.do(begin_anew)
        await self._database.do(_recover)


async def _recover(tx: Transaction) -> int:
    """Put back what nobody living has, in a transaction after the one in which others lost it: then it is all there."""
    await bulk.end_unfinished(tx)
    return await recover(tx)
