"""The store's schema and its versions: made where there is none, and brought up to ours, under a lock.

Nodes are started anew one after the other, so that for a while the tables are of a newer version than some who use
them: each version says from which on (`usable_from`), and is made so that the one before can go on with it. Of version
1 that cannot be said, for it knew of no nodes.
"""

from functools import cache
from importlib import resources
from typing import Any

from engine.queue.errors import QueueError
from engine.queue.postgres.connection import MAKING, NODE, SCHEMA

VERSION = 4
OLDEST = 15  # version of the server


@cache
def statements(*names: str) -> str:
    """The statements of these files of ours."""
    folder = resources.files("engine.queue.postgres")
    return "".join((folder / name).read_text("utf-8") for name in names)


async def prepare(connection: Any) -> None:
    """See that the tables are there, and of a version that this engine can use. Raises QueueError."""
    if (major := connection.get_server_version().major) < OLDEST:
        raise QueueError(f"the database is PostgreSQL {major}: it takes {OLDEST} or newer")
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise QueueError(f"the database keeps its texts in {encoding}: make one with ENCODING 'UTF8'")
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MAKING)
        if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.version") is None:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(statements("schema.sql", "functions.sql"))
        version = await connection.fetchval("SELECT number FROM version")
        if version < VERSION:
            await _bring_up(connection, version)
            return
        usable_from = await connection.fetchval("SELECT usable_from FROM version")
    if usable_from > VERSION:
        raise QueueError(
            f"the queue is of version {version}, to be used from {usable_from} on; this smarthost knows {VERSION}: use "
            "the newer smarthost"
        )


async def _bring_up(connection: Any, version: int) -> None:
    """From one version to the next, in one transaction: whatever ends it, it is whole or has not begun."""
    # The one engine of version 1 holds this lock by itself, with no name.
    if version == 1 and not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", NODE):
        raise QueueError("an engine of an older smarthost has this queue open: stop it first")
    for number in range(version + 1, VERSION + 1):
        await connection.execute(statements(f"version_{number}.sql"))
    await connection.execute(statements("functions.sql"))
    await connection.execute("UPDATE version SET number = $1", VERSION)
