"""Reading the store: a few threads, each with a read-only connection of its own, beside the writer.

What mail needs to move and what consoles ask for have separate threads: a listing that takes long delays no mail.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engine.queue.connection import connect_reader, is_busy
from engine.queue.queue import QueueBusy, QueueError
from engine.text import clean

T = TypeVar("T")


class Readers:
    """Answers questions about the store from its last committed state."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mail = ThreadPoolExecutor(1, "queue-mail")
        self._console = ThreadPoolExecutor(1, "queue-console")
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    async def ask(self, question: Callable[[sqlite3.Connection], T], *, console: bool = False) -> T:
        """Run `question` on one consistent snapshot.

        Raises what it raises, and QueueBusy or QueueError for what SQLite raises.
        """
        if self._closed:
            raise QueueError("the queue is closed")
        pool = self._console if console else self._mail
        return await asyncio.get_running_loop().run_in_executor(pool, self._answer, question)

    async def close(self) -> None:
        """Finish what was asked for. The connections stay open; see `disconnect`."""
        self._closed = True
        for pool in (self._mail, self._console):
            await asyncio.to_thread(pool.shutdown)

    def disconnect(self) -> None:
        """Close the connections of readers that were closed."""
        for connection in self._connections:
            connection.close()

    def _answer(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return question(connection)
            finally:
                with contextlib.suppress(sqlite3.Error):  # after a read that failed it may have ended by itself
                    connection.execute("COMMIT")
        except sqlite3.Error as error:
            kind = QueueBusy if is_busy(error) else QueueError
            raise kind(f"the queue could not be read: {clean(str(error))}") from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = connect_reader(self._path)
            self._own.connection = connection
            self._connections.append(connection)
        return connection
