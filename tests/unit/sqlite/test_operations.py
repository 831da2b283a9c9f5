"""What came of an order to bounce or drop: told once, when it is whole, with exact counts."""

from pathlib import Path

import pytest

from engine.queue.sqlite import claims, overdue
from tests.unit.queue.support import ALL
from tests.unit.queue.test_operations import GIVEN_UP, told
from tests.unit.sqlite.support import opened


async def test_a_bounce_is_told_of_with_the_return_of_its_last_recipient(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.com")
        await spool.add("c@example.org")
        await spool.queue.orders.give_up("bounce", ALL, "ann", "", 0)
        claims = await spool.queue.claims.overdue(9)
        for claim in claims[:-1]:
            await spool.settle(claim, GIVEN_UP)
        assert told(spool) == []
        before = spool.writer.groups
        await spool.settle(claims[-1], GIVEN_UP)
        assert told(spool) == [("ann", "bounce: 2 messages (3 recipients) bounced; operation 1: everything")]
        assert spool.writer.groups == before + 1


async def test_drops_that_take_several_transactions_are_counted_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (claims, overdue):
        monkeypatch.setattr(module, "DROPS_AT_ONCE", 2)
    async with opened(tmp_path) as spool:
        await spool.add("a@one.example", "b@two.example", "c@three.example")
        await spool.add("d@one.example", "e@two.example")
        await spool.queue.orders.give_up("drop", ALL, "ann", "", 0)
        await spool.carry_out()
        assert told(spool) == [("ann", "drop: 2 messages (5 recipients) dropped; operation 1: everything")]
