"""Room on the disk: what mail has left is used again or given back, and the last of it is for what is queued."""

import os
from pathlib import Path

import pytest

from engine.queue.errors import QueueFull
from engine.queue.sqlite.store import FILE
from engine.queue.sqlite.upkeep import LAST_ROOM
from tests.unit.queue.support import ALL, DELIVERED
from tests.unit.sqlite.support import SqliteSpool, opened
from tests.waiting import until

MIB = 2**20


async def filled_and_drained(spool: SqliteSpool) -> None:
    for _ in range(40):
        await spool.add(content=b"x" * 200_000)
    for claim in await spool.claim():
        await spool.settle(claim, DELIVERED)


async def test_room_that_mail_has_left_is_known_and_used_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        assert spool.queue.spare < MIB
        await filled_and_drained(spool)
        spare, pages = spool.queue.spare, spool.sql("PRAGMA page_count")
        assert spare > 7 * MIB
        await spool.add(content=b"x" * 5_000_000)
        assert spool.queue.spare < spare - 4 * MIB
        assert spool.sql("PRAGMA page_count") == pages


async def test_more_room_than_is_needed_soon_goes_back_to_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.upkeep.SPARE_KEPT", MIB)
    async with opened(tmp_path) as spool:
        kept = await spool.add("still@waits.example", content=b"x" * 300_000)
        await filled_and_drained(spool)
        await until(lambda: spool.queue.spare <= MIB and (tmp_path / FILE).stat().st_size <= 3 * MIB)
        assert await spool.queue.claims.content(kept) == b"x" * 300_000
        assert spool.sql("PRAGMA integrity_check") == [("ok",)]


async def test_what_the_log_holds_is_copied_once_nothing_more_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.writer.IDLE", 0.01)
    async with opened(tmp_path) as spool:
        await spool.add(content=b"Subject: needle\r\n\r\n")
        await until(lambda: b"needle" in (tmp_path / FILE).read_bytes())
        assert len(await spool.entries()) == 1, "and it is as it was"


async def test_the_last_room_on_the_disk_is_for_what_is_queued_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        leave(LAST_ROOM, monkeypatch)
        with pytest.raises(QueueFull, match="no room"):
            await spool.add(content=b"x" * 100_000)
        (claim,) = await spool.claim()
        await spool.settle(claim, DELIVERED)
        assert await spool.entries() == ()
        monkeypatch.undo()
        await spool.add(content=b"x" * 100_000)


async def test_the_log_is_copied_while_the_disk_has_room_for_what_the_file_grows_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(content=b"Subject: needle\r\n\r\n" + b"x" * 1_000_000)
        assert b"needle" not in (tmp_path / FILE).read_bytes()  # it stands in the log alone
        leave(MIB + LAST_ROOM // 4, monkeypatch)
        await spool.queue.orders.hold(ALL, "ann", "look at this")
        assert b"needle" in (tmp_path / FILE).read_bytes()


def leave(octets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the disk say that so much of it is free."""

    def nearly_full(path: Path) -> os.statvfs_result:
        found = list(real(path))
        found[4] = octets // found[1]  # blocks free to us
        return os.statvfs_result(found)

    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", nearly_full)
