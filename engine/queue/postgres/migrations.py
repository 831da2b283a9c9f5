"""The store's schema and its versions: made where there is none, under a lock, so that two that start make it once."""

from functools import cache
from importlib import resources
from typing import Any

from engine.queue.contract import QueueError
from engine.queue.postgres.connection import MAKING, SCHEMA

VERSION = 2


@cache
def schema() -> str:
    """The statements that make the tables of this version, and what is done with them."""
    folder = resources.files("engine.queue.postgres")
    return "".join((folder / name).read_text("utf-8") for name in ("schema.sql", "functions.sql"))


async def prepare(connection: Any) -> None:
    """See that the tables of this version are there. Raises QueueError where they are of a newer one."""
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise QueueError(f"the database keeps its texts in {encoding}: make one with ENCODING 'UTF8'")
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MAKING)
        if await connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.version") is None:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            await connection.execute(schema())
    version = await connection.fetchval("SELECT number FROM version")
    if version != VERSION:
        raise QueueError(f"the queue is of version {version}, this smarthost knows {VERSION}: use the newer smarthost")
