"""Which store the scenarios run on: `pytest --store sqlite` (as by default) or `--store postgres`."""

import asyncio
from pathlib import Path

import pytest

from engine.settings.settings import QueueStore
from tests import postgres

STORES = ("sqlite", "postgres")

chosen = "sqlite"


def only(name: str) -> pytest.MarkDecorator:
    """For what looks into one store, or puts faults into it: with another it would show nothing."""
    return pytest.mark.skipif(chosen != name, reason=f"of the store in {name} alone")


async def store_of(spool: Path) -> QueueStore:
    """The setting by which an engine of this spool keeps its queue there; the same spool, the same queue."""
    if chosen == "sqlite":
        return QueueStore()
    server = await asyncio.to_thread(postgres.cluster)
    return QueueStore(store=await server.database(spool))
