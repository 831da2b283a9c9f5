"""A queue in a SQLite store of its own, and a look at its rows."""

import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from engine.queue.sqlite.store import FILE, SqliteQueue
from engine.queue.sqlite.writer import Writer
from tests.clock import FakeClock
from tests.unit.queue.support import Spool

T = TypeVar("T")

_made: dict[tuple[object, ...], tuple[bytes, Any]] = {}


async def begun_with(directory: Path, make: Callable[..., Awaitable[T]], *how: Any) -> T:
    """A closed store as `make` leaves it in a folder, and what that gives: made once, and copied for each test."""
    if (make, *how) not in _made:
        with tempfile.TemporaryDirectory(prefix="sh-") as folder:
            given = await make(Path(folder), *how)
            _made[make, *how] = (Path(folder) / FILE).read_bytes(), given
    content, given = _made[make, *how]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).touch(0o600)
    (directory / FILE).write_bytes(content)
    return cast("T", given)


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
        """Ask the store's own connection, between two operations; what its thread does after one is waited for."""
        ends = time.monotonic() + 10
        while True:
            try:
                rows: list[tuple[Any, ...]] = self.writer._connection.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > ends:
                    raise
                time.sleep(0.001)
            else:
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
