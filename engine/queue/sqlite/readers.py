"""Reading the store: a few threads, each with a read-only connection of its own, beside the writer.

What mail needs to move, what operators' orders look up, and what consoles and viewers see have separate threads: a
listing that takes long delays neither mail nor an order. Those who only look wait for each other.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engine.base.text import clean
from engine.queue.errors import QueueBusy, QueueDamaged, QueueError
from engine.queue.sqlite.connection import connect_reader, is_busy, is_damage

T = TypeVar("T")

END_SECONDS = 2.0  # for the questions under way when the store is closed; then they are cut short
GIVE_UP_SECONDS = 2.0  # for that; a disk that hangs must not keep the engine here


class Readers:
    """Answers questions about the store from its last committed state.

    `on_damage` is awaited with the error of a question that met a damaged page: True where that has been mended.
    `mendings` says how often something was: what has been mended since a question began is not told again.
    """

    def __init__(
        self, path: Path, on_damage: Callable[[BaseException], Awaitable[bool]], mendings: Callable[[], int]
    ) -> None:
        self._path = path
        self._mendings = mendings
        self._on_damage = on_damage
        self._asked: dict[int, float] = {}  # since when each thread answers, on time.monotonic's clock
        self._mail = ThreadPoolExecutor(1, "queue-mail")
        self._console = ThreadPoolExecutor(1, "queue-console")
        self._orders = ThreadPoolExecutor(1, "queue-orders")
        self._pools = (self._mail, self._console, self._orders)
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False
        self._is_cut = False
        self._ended = False

    async def ask(
        self, question: Callable[[sqlite3.Connection], T], *, console: bool = False, order: bool = False
    ) -> T:
        """Run `question` on one consistent snapshot: what mail needs, unless a `console` or an `order` asks.

        Raises what it raises, and QueueBusy or QueueError for what SQLite raises.
        """
        if self._closed:
            raise QueueError("the queue is closed")
        pool = self._console if console else self._orders if order else self._mail
        loop = asyncio.get_running_loop()
        before = self._mendings()
        try:
            return await loop.run_in_executor(pool, self._answer, question)
        except QueueDamaged as error:
            if self._mendings() == before and not await self._on_damage(error.__cause__ or error):
                raise
        return await loop.run_in_executor(pool, self._answer, question)

    @property
    def seconds(self) -> float:
        """For how long the oldest question under way has been read for; 0 where there is none."""
        return time.monotonic() - min(list(self._asked.values()), default=time.monotonic())

    async def close(self) -> None:
        """Finish what was asked for, but for what takes longer than END_SECONDS: that is cut short.

        The connections stay open; see `disconnect`.
        """
        self._closed = True
        ending = asyncio.gather(*(asyncio.to_thread(pool.shutdown) for pool in self._pools))
        done, _ = await asyncio.wait({ending}, timeout=END_SECONDS)
        if not done:
            self._is_cut = True
            for connection in self._connections:
                connection.interrupt()
            done, _ = await asyncio.wait({ending}, timeout=GIVE_UP_SECONDS)
        self._ended = bool(done)

    def disconnect(self) -> None:
        """Close the connections of readers that were closed; one that hangs is left to its thread."""
        for connection in self._connections if self._ended else ():
            connection.close()

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        if self._is_cut:
            raise QueueError("the queue is closed")
        thread = threading.get_ident()
        self._asked[thread] = time.monotonic()
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return question(connection)
            finally:
                with contextlib.suppress(sqlite3.Error):  # after a read that failed it may have ended by itself
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            kind = QueueBusy if is_busy(error) else QueueDamaged if is_damage(error) else QueueError
            raise kind(f"the queue could not be read: {clean(str(error))}") from error
        finally:
            del self._asked[thread]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = connect_reader(self._path)
            self._own.connection = connection
            self._connections.append(connection)
        return connection
