"""How mail comes into the store: durable, whole or not at all, once for each key, many to a sync."""

import asyncio
import os
import stat
from pathlib import Path

from tests.unit.queue.support import CONTENT
from tests.unit.sqlite.support import opened


async def test_many_messages_at_once_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        before = spool.writer.groups
        numbers = await asyncio.gather(*(spool.add(f"u{i}@example.org") for i in range(200)))
        assert len(set(numbers)) == 200
        assert spool.writer.groups - before < 20


async def test_a_caller_gone_during_the_commit_leaves_a_whole_message_or_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for turns in range(8):
            task = asyncio.create_task(spool.add("a@example.org", "b@example.com", key=f"k{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await spool.queue.arrivals.record()  # what was asked for before is done when this is
        for number in {entry.message for entry in await spool.entries()}:
            assert len((await spool.queue.listing.message(number)).entries) == 2
            assert await spool.queue.claims.content(number) == CONTENT
        keys = {row[0] for row in spool.sql("SELECT message FROM taken_key")}
        assert keys == {entry.message for entry in await spool.entries()}


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with opened(tmp_path / "spool") as spool:
            await spool.add()
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in spool.directory.iterdir()}
            assert modes == {"queue.db": 0o600, "queue.db-wal": 0o600, "queue.db-shm": 0o600}
            assert stat.S_IMODE(spool.directory.stat().st_mode) == 0o700
    finally:
        os.umask(before)
