"""Notices of delay in the store: due once, told in one transaction, and only of what still waits."""

from pathlib import Path

import pytest

from engine.model.message import DsnRequest, NewMessage
from engine.queue.errors import QueueError
from tests.clock import FakeClock
from tests.unit.queue.support import DELIVERED, LATER, Opened, Spool, new_message

FOUR_HOURS = 14_400.0


NOTICE = new_message("ann@example.net", sender="", origin="delay notice of 1")


async def waiting(spool: Spool, *recipients: str, **fields: object) -> int:
    """A message whose notice is due."""
    number = await spool.add(*(recipients or ("bob@example.org",)), **fields)
    await spool.clock.advance(FOUR_HOURS)
    return number


async def test_it_is_due_after_its_time_and_wakes_the_engine(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        now = spool.clock.now()
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=9 * FOUR_HOURS)
        assert await spool.queue.claims.next_due() == now + FOUR_HOURS
        assert await spool.queue.claims.late(10) == []
        await spool.clock.advance(FOUR_HOURS)
        (late,) = await spool.queue.claims.late(10)
        assert (late.sender, late.entries[0].recipient, late.entries[0].last) == (
            "ann@example.net",
            "bob@example.org",
            LATER,
        )


async def test_it_is_told_once(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        number = await waiting(spool, "a@example.org", "b@example.com")
        (late,) = await spool.queue.claims.late(10)
        assert await spool.queue.claims.notify(late, NOTICE)
        assert not await spool.queue.claims.notify(late, NOTICE)
        assert await spool.queue.claims.late(10) == []
        assert [entry.message for entry in await spool.entries()] == [number, number, number + 1]


async def test_what_is_being_relayed_or_has_left_is_not_told_of(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool)
        (late,) = await spool.queue.claims.late(10)
        (claim,) = await spool.claim()
        assert not await spool.queue.claims.notify(late, NOTICE)
        assert await spool.queue.claims.late(10) == []
        await spool.settle(claim, DELIVERED)
        assert not await spool.queue.claims.notify(late, NOTICE)
        assert await spool.entries() == ()


async def test_what_comes_back_from_its_attempt_is_told_of_then(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool)
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=60)
        (late,) = await spool.queue.claims.late(10)
        assert await spool.queue.claims.notify(late, NOTICE)


async def test_it_outlives_the_engine(tmp_path: Path, opened: Opened) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool)
    async with opened(tmp_path, clock, delay_notice=0.0) as spool:
        (late,) = await spool.queue.claims.late(10)
        assert await spool.queue.claims.notify(late, NOTICE)
    async with opened(tmp_path, clock) as spool:
        assert await spool.queue.claims.late(10) == []


@pytest.mark.parametrize(
    ("sender", "notify", "count"),
    [
        ("ann@example.net", "", 1),
        ("ann@example.net", "DELAY", 1),
        ("ann@example.net", "FAILURE,DELAY", 1),
        ("ann@example.net", "FAILURE", 0),
        ("ann@example.net", "NEVER", 0),
        ("", "", 0),
        ("", "DELAY", 0),
    ],
)
async def test_it_comes_to_who_has_not_said_otherwise(
    tmp_path: Path, sender: str, notify: str, count: int, opened: Opened
) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS) as spool:
        await waiting(spool, sender=sender, dsn=(DsnRequest(notify=notify),))
        assert len(await spool.queue.claims.late(10)) == count


async def test_what_has_expired_is_no_delay_any_more(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, delay_notice=FOUR_HOURS, give_up_after=FOUR_HOURS) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=2 * FOUR_HOURS)
        await spool.clock.advance(FOUR_HOURS)
        assert await spool.queue.claims.late(10) == []
        assert len(await spool.queue.claims.overdue(10)) == 1


async def test_the_wishes_of_each_recipient_are_kept(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        dsn = (DsnRequest(notify="NEVER"), DsnRequest(orcpt="rfc822;x@y.example"))
        await spool.add("a@example.org", "b@example.org", ret="FULL", envid="e+2B1", dsn=dsn)
        (claim,) = await spool.claim()
        assert (claim.ret, claim.envid) == ("FULL", "e+2B1")
        assert tuple(entry.dsn for entry in claim.entries) == dsn


async def test_wishes_that_are_not_one_for_each_recipient_are_refused(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        odd = NewMessage(
            sender="a@b.example",
            recipients=("c@d.example",),
            content=b"x\r\n",
            origin="",
            dsn=(DsnRequest(), DsnRequest()),
        )
        with pytest.raises(QueueError, match="as many DSN requests"):
            await spool.queue.arrivals.enqueue(odd)
