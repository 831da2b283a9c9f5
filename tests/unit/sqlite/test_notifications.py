"""What is to be told of settled recipients, in the store: kept with the settlement, told once, in bounded pieces."""

import shutil
from pathlib import Path

import pytest

from engine.queue.errors import QueueError
from engine.queue.sqlite import notifications
from tests.clock import FakeClock
from tests.unit.queue.test_telling import GATHER, NOTICE, fails
from tests.unit.sqlite.support import opened


async def test_a_kill_between_the_settlement_and_the_notification_loses_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "one", clock, gather=GATHER) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await fails(spool, claim)
        await spool.queue.arrivals.record()
        (tmp_path / "two").mkdir()
        for path in spool.directory.iterdir():
            shutil.copy(path, tmp_path / "two")
    async with opened(tmp_path / "two", clock, gather=GATHER) as spool:
        (untold,) = await spool.queue.claims.untold(9)
        assert [entry.recipient for entry in untold.entries] == ["bob@example.org"]


async def test_the_notification_and_the_forgetting_are_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await fails(spool, claim)
        (untold,) = await spool.queue.claims.untold(9)

        def cut(*_: object) -> int:
            raise QueueError("cut short")

        monkeypatch.setattr(notifications, "enqueue", cut)
        with pytest.raises(QueueError, match="cut short"):
            await spool.queue.claims.tell(untold, NOTICE)
        monkeypatch.undo()
        assert await spool.queue.claims.untold(9) == [untold]


async def test_more_recipients_than_one_notification_names_are_told_of_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "RECIPIENTS_TOLD", 3)
    async with opened(tmp_path, gather=GATHER) as spool:
        await spool.add(*(f"{name}@example.org" for name in "abcdefgh"))
        (claim,) = await spool.claim()
        await fails(spool, claim)
        told = []
        while found := await spool.queue.claims.untold(9):
            (untold,) = found
            told.append(len(untold.entries))
            await spool.queue.claims.tell(untold, None)
        assert told == [3, 3, 2]
        assert spool.sql("SELECT count(*) FROM message") == [(0,)]


async def test_what_is_read_at_a_time_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "RECIPIENTS_TOLD", 5)
    async with opened(tmp_path) as spool:
        for _ in range(4):
            await spool.add("a@example.org", "b@example.org")
        for claim in await spool.claim():
            await fails(spool, claim)
        assert [len(one.entries) for one in await spool.queue.claims.untold(9)] == [2, 2]
