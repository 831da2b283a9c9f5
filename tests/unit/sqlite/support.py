"""A queue in a SQLite store of its own, and a look at its rows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.queue.sqlite.store import SqliteQueue
from engine.queue.sqlite.writer import Writer
from tests.clock import FakeClock
from tests.unit.queue.support import Spool


class SqliteSpool(Spool):
    """The queue in `directory`."""

    queue: SqliteQueue

    def __init__(self, directory: Path, clock: FakeClock, **settings: Any) -> None:
        super().__init__(SqliteQueue(directory, clock, **settings), clock)
        self.directory = directory

    @property
    def writer(self) -> Writer:
        return self.queue._database.writer

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the store's own connection, between two operations."""
        rows: list[tuple[Any, ...]] = self.writer._connection.execute(query, values).fetchall()
        return rows


@asynccontextmanager
async def opened(directory: Path, clock: FakeClock | None = None, **settings: Any) -> AsyncIterator[SqliteSpool]:
    """Open a queue in `directory` and close it in the end."""
    spool = SqliteSpool(directory, clock or FakeClock(), **settings)
    await spool.queue.open()
    try:
        yield spool
    finally:
        await spool.queue.close()
