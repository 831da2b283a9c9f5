"""A queue in a PostgreSQL database of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.queue.postgres.store import PostgresQueue
from tests.clock import FakeClock
from tests.postgres import cluster
from tests.unit.queue.support import Spool


@asynccontextmanager
async def opened(directory: Path, clock: FakeClock | None = None, **settings: Any) -> AsyncIterator[Spool]:
    """Open the queue of this folder, in a database of its own, and close it in the end."""
    server = await asyncio.to_thread(cluster)
    clock = clock or FakeClock()
    spool = Spool(PostgresQueue(await server.database(directory), clock, **{"node": "a", **settings}), clock)
    await spool.queue.open()
    try:
        yield spool
    finally:
        await spool.queue.close()
