"""What is to be told of settled recipients, in the store: kept with the settlement, told once, in bounded pieces."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import pytest

from engine.delivery import dsn
from engine.delivery.attempt import AttemptManager
from engine.delivery.retry import RetryPlan
from engine.model.claim import Claim, EntryResult, Settlement
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from engine.queue.errors import NoSuchMessage
from engine.settings.settings import Retry
from tests.unit.queue.support import LATER, Opened, Spool, new_message

NO = Outcome.of_reply(550, "5.1.1 no such user")


NOTICE = new_message("ann@example.net", sender="", origin="bounce of 1")


GATHER = 15.0


async def fails(spool: Spool, claim: Claim, numbers: Sequence[int] = ()) -> None:
    """These entries of a claim (all) fail for good, the others for now."""
    results = [
        EntryResult(number=entry.number, attempt=entry.attempt, outcome=NO, tell="failed")
        if not numbers or entry.number in numbers
        else EntryResult(number=entry.number, attempt=entry.attempt, outcome=LATER, due=spool.clock.now() + 1e4)
        for entry in claim.entries
    ]
    await spool.queue.claims.settle(Settlement(message=claim.message, results=tuple(results), epoch=claim.epoch))


async def test_it_is_gathered_for_a_time_which_wakes_the_engine(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, gather=GATHER) as spool:
        now = spool.clock.now()
        await spool.add("a@example.org", "b@example.org", "c@example.com")
        (claim,) = await spool.claim()
        await fails(spool, claim, [1])
        assert await spool.queue.claims.untold(9) == []
        assert await spool.queue.claims.next_due(now) == now + GATHER
        await spool.clock.advance(GATHER)
        (untold,) = await spool.queue.claims.untold(9)
        assert [(entry.recipient, entry.outcome, entry.action) for entry in untold.entries] == [
            ("a@example.org", NO, "failed")
        ]


async def test_with_the_last_recipient_it_is_told_at_once_however_that_leaves(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, gather=GATHER) as spool:
        number = await spool.add("a@example.org", "c@example.com")
        (claim,) = await spool.claim()
        await fails(spool, claim)
        assert await spool.queue.claims.untold(9) == []
        await spool.queue.orders.give_up("drop", Filter.parse("to=c@*"), "ann", "", 0)
        await spool.queue.claims.overdue(9)
        (untold,) = await spool.queue.claims.untold(9)
        assert await spool.queue.claims.tell(untold, NOTICE)
        with pytest.raises(NoSuchMessage):
            await spool.queue.claims.content(number)


async def test_it_is_told_once_whoever_asks(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await fails(spool, claim)
        (untold,) = await spool.queue.claims.untold(9)
        assert await spool.queue.claims.tell(untold, NOTICE)
        assert not await spool.queue.claims.tell(untold, NOTICE)
        assert [entry.sender for entry in await spool.entries()] == [""]


async def test_what_cannot_be_told_is_looked_at_again_later(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        await fails(spool, claim)
        await spool.queue.claims.tell_later(number, 600)
        assert await spool.queue.claims.untold(9) == []
        await spool.clock.advance(600)
        assert len(await spool.queue.claims.untold(9)) == 1


async def test_a_thousand_are_named_to_programs_and_a_hundred_to_people_in_bounded_time_and_size(
    tmp_path: Path, opened: Opened
) -> None:
    reply = Outcome.of_reply(550, "5.1.1 " + "no such user " * 60, host="mx.example.org")
    async with opened(tmp_path) as spool:
        await spool.add(*(f"user{number}@example.org" for number in range(1000)))
        attempts = AttemptManager(spool.queue, RetryPlan(Retry()), spool.clock, hostname="relay.example.net")
        while claims := await spool.claim():
            for claim in claims:
                await attempts.report(claim, [reply] * len(claim.entries))
        begin = perf_counter()
        assert await attempts.tell_settled(9) == (True, "")
        assert perf_counter() - begin < 10
        (entry,) = await spool.entries()
        content = await spool.queue.claims.content(entry.message)
        assert content.count(b"Final-Recipient:") == 1000
        assert content.count(b"  <user") == dsn.NAMED
        assert b"and 900 more" in content
        assert len(content) < 2_500_000
