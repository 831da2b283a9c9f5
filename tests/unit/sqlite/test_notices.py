"""Notices of delay in the store: due once, told in one transaction, and only of what still waits."""

from pathlib import Path

import pytest

from engine.queue.errors import QueueError
from engine.queue.sqlite import notices
from tests.unit.queue.test_notices import FOUR_HOURS, NOTICE, waiting
from tests.unit.sqlite.support import opened


async def test_the_mark_and_the_notice_are_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool)
        (late,) = await spool.queue.claims.late(10)

        def cut(*_: object) -> int:
            raise QueueError("cut short")

        monkeypatch.setattr(notices, "enqueue", cut)
        with pytest.raises(QueueError, match="cut short"):
            await spool.queue.claims.notify(late, NOTICE)
        monkeypatch.undo()
        assert await spool.queue.claims.late(10) == [late]


async def test_a_message_with_more_recipients_than_one_notice_names_is_told_of_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "LATE_AT_ONCE", 3)
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool, *(f"{name}@example.org" for name in "abcde"))
        told = []
        while found := await spool.queue.claims.late(10):
            (late,) = found
            told.append(len(late.entries))
            await spool.queue.claims.notify(late, None)
        assert told == [3, 2]
