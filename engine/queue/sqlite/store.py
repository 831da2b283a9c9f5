"""The default store: one SQLite file in the spool, one writer, and readers that never wait for it."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.base.clock import Clock
from engine.model.event import Event
from engine.model.node import ALL_OF_IT, News, Share
from engine.queue.contract import Queue
from engine.queue.errors import QueueDamaged, QueueError
from engine.queue.mail import Terms
from engine.queue.moving import Leaving
from engine.queue.sqlite import bulk, filesystems, who_reads
from engine.queue.sqlite.arrivals import Arrivals
from engine.queue.sqlite.attempts import recover
from engine.queue.sqlite.claims import Claims
from engine.queue.sqlite.connection import SEE_TO_IT
from engine.queue.sqlite.database import Database
from engine.queue.sqlite.listing import Listing
from engine.queue.sqlite.marks import Marks
from engine.queue.sqlite.nodes import Nodes
from engine.queue.sqlite.orders import Orders
from engine.queue.sqlite.selection import newest_message
from engine.queue.sqlite.standing import Standing
from engine.queue.sqlite.suppression import Suppression
from engine.queue.sqlite.writer import Transaction
from engine.settings.settings import Events, Retry

FILE = "queue.db"

_RETRY, _EVENTS = Retry(), Events()  # as the settings have it where nobody says


class SqliteQueue(Queue):
    """The durable queue in `directory`/queue.db (mode 0600), made by `open` where there is none.

    `give_up_after` is in seconds from arrival, or gives them for a destination, in any thread; so is `delay_notice`,
    after which the sender is told (0: never), and `gather`, for which what failed is gathered. Of the events the newest
    `events_kept` are kept. Only one engine may have it open: see that the spool is locked before. `unsafe_on` says
    which kind of file system a folder is on, where the store is not to be opened on it, and "" where it is.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        give_up_after: float | Callable[[str], float] = _RETRY.give_up_after,
        delay_notice: float = 0.0,
        gather: float = 0.0,
        events_kept: int = _EVENTS.kept,
        unsafe_on: Callable[[Path], str] = filesystems.unsafe,
    ) -> None:
        self.on_events: Callable[[Sequence[Event]], None] = lambda _: None
        self.on_news: Callable[[News], None] = lambda _: None  # a spool has one owner: there are none
        patience = give_up_after if callable(give_up_after) else (lambda _: give_up_after)
        self._database = Database(directory / FILE, clock, Terms(patience, delay_notice, gather))
        self._events_kept = events_kept
        self._unsafe_on = unsafe_on
        ruling = asyncio.Lock()
        self.arrivals = Arrivals(self._database)
        self.claims = Claims(self._database, ruling)
        self.standing = Standing(self._database, ruling)
        self.orders = Orders(self._database)
        self.listing = Listing(self._database)
        self.marks = Marks(self._database)
        self.suppression = Suppression(self._database)
        self.nodes = Nodes()

    async def open(self) -> int:
        database = self._database
        if kind := self._unsafe_on(database.path.parent):
            raise filesystems.refusal(database.path.parent, kind)
        await database.open(self._deliver, self._events_kept)
        try:
            interrupted = await database.do(_recover)
            await database.readers.ask(newest_message)  # a read-only connection is open from now on: see its close()
        except BaseException as error:
            await self.close()
            if isinstance(error, QueueDamaged):
                raise QueueDamaged(f"{error}; {SEE_TO_IT}") from error
            raise
        return interrupted

    async def close(self) -> None:
        await self._database.close()

    @property
    def broken(self) -> str:
        return self._database.writer.broken if self._database.is_open else ""

    @property
    def trouble(self) -> str:
        if not self._database.is_open:
            return ""
        writer, readers = self._database.writer, self._database.readers
        path = self._database.path
        return writer.damage.trouble or writer.fault or who_reads.trouble(writer.stuck_log, path, readers.seconds)

    @property
    def share(self) -> Share:
        return ALL_OF_IT

    @property
    def spare(self) -> int:
        return self._database.writer.spare if self._database.is_open else 0

    def _deliver(self, events: Sequence[Event]) -> None:
        self.on_events(events)


def _recover(tx: Transaction) -> int:
    if (mark := tx.execute("SELECT move, source, target FROM leaving").fetchone()) is not None:
        raise QueueError(Leaving(*mark).refusal)
    bulk.end_unfinished(tx)
    return recover(tx)
