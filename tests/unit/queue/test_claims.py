"""Claim and settle: what a relayer answers for, what becomes of it, and what a killed engine leaves behind."""

import random
from pathlib import Path

import pytest

from engine.model.claim import EntryResult, Settlement
from engine.model.destination import Suspension
from engine.model.event import Event
from engine.model.outcome import Outcome
from engine.queue.errors import QueueError
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool


async def test_a_claim_is_recorded_before_anything_is_dialled(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org", "b@example.org", "c@example.com")
        (claim,) = await spool.claim()
        assert [entry.recipient for entry in claim.entries] == ["a@example.org", "b@example.org"]
        message = await spool.queue.listing.message(number)
        assert [entry.state for entry in message.entries] == ["relaying", "relaying", "waiting"]
        assert [(attempt.entry, attempt.relayer, attempt.ended) for attempt in message.attempts] == [
            (1, 1, None),
            (2, 1, None),
        ]
        assert await spool.claim() == []


async def test_a_claim_takes_the_oldest_due_first_within_its_limits(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        late = await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=60)
        await spool.clock.advance(10)
        numbers = [await spool.add(*(f"u{n}@example.org" for n in range(5))) for _ in range(3)]
        await spool.clock.advance(100)
        claims = await spool.queue.claims.claim("example.org", 2, 1, recipients=3)
        assert [(one.message, len(one.entries)) for one in claims] == [(numbers[0], 3), (numbers[1], 3)]
        rest = await spool.queue.claims.claim("example.org", 10, 1, recipients=3)
        assert [(one.message, len(one.entries)) for one in rest] == [
            (numbers[0], 2),
            (numbers[1], 2),
            (numbers[2], 3),
            (late, 1),
        ]


async def test_what_is_not_due_is_not_claimed(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
        assert await spool.claim() == []
        assert await spool.queue.claims.due_destinations(10) == []
        assert await spool.queue.claims.next_due() == spool.clock.now() + 300
        await spool.clock.advance(300)
        assert await spool.queue.claims.due_destinations(10) == ["example.org"]
        (again,) = await spool.claim()
        assert (again.entries[0].attempts, again.entries[0].last) == (1, LATER)


async def test_destinations_take_turns_the_one_served_longest_ago_first(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for name in ("a", "b", "c"):
            for _ in range(3):
                await spool.add(f"x@{name}.example")
        served = []
        for _ in range(6):
            (next_one,) = await spool.queue.claims.due_destinations(1)
            served.append(next_one)
            await spool.claim(next_one, limit=1)
        assert served == ["a.example", "b.example", "c.example"] * 2
        await spool.add("x@new.example")
        assert await spool.queue.claims.due_destinations(9) == ["a.example", "b.example", "new.example", "c.example"]
        assert await spool.queue.claims.due_destinations(9, without=["b.example"]) == [
            "a.example",
            "new.example",
            "c.example",
        ]


async def test_a_suspended_or_blocked_destination_is_not_served(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example", "x@b.example")
        now = spool.clock.now()
        await spool.queue.standing.suspend(suspension("a.example", now, 60))
        await spool.queue.standing.block("b.example", now + 30, "connect: refused")
        assert await spool.queue.claims.due_destinations(9) == []
        assert await spool.claim("a.example") == await spool.claim("b.example") == []
        assert await spool.queue.claims.next_due() == now + 30
        await spool.clock.advance(30)
        assert await spool.queue.claims.due_destinations(9) == ["b.example"]
        await spool.clock.advance(30)
        assert await spool.queue.claims.due_destinations(9) == ["a.example", "b.example"]


async def test_while_the_relay_is_suspended_nothing_is_served(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        now = spool.clock.now()
        await spool.queue.standing.suspend(suspension("*", now, 60))
        assert await spool.queue.claims.due_destinations(9) == []
        assert await spool.claim() == []
        assert await spool.queue.claims.next_due() == now + 60
        await spool.queue.standing.resume("*", "oncall")
        assert len(await spool.claim()) == 1


async def test_each_recipient_is_settled_by_itself_and_the_rest_of_the_message_stays(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org", "b@example.org")
        (claim,) = await spool.claim()
        first, second = claim.entries
        due = spool.clock.now() + 300
        told = Event(at=spool.clock.now(), kind="delivered", message=number, entry=1, outcome=DELIVERED)
        await spool.queue.claims.settle(
            Settlement(
                message=number,
                results=(
                    EntryResult(number=1, attempt=first.attempt, outcome=DELIVERED),
                    EntryResult(number=2, attempt=second.attempt, outcome=LATER, due=due),
                ),
                events=(told,),
            )
        )
        (entry,) = (await spool.queue.listing.message(number)).entries
        assert (entry.number, entry.state, entry.due, entry.attempts, entry.last) == (2, "waiting", due, 1, LATER)
        assert [attempt.outcome for attempt in (await spool.queue.listing.message(number)).attempts] == [
            DELIVERED,
            LATER,
        ]
        destination = await spool.queue.listing.destination("example.org")
        assert (destination.last, destination.last_at) == (LATER, spool.clock.now())
        assert (spool.events[-1].kind, spool.events[-1].outcome) == ("delivered", DELIVERED)


async def test_an_attempt_is_settled_once(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=0)
        with pytest.raises(QueueError, match="is not running"):
            await spool.settle(claim, DELIVERED)
        (again,) = await spool.claim()
        with pytest.raises(QueueError, match="is not running"):
            await spool.settle(claim, DELIVERED)
        await spool.settle(again, DELIVERED)
        assert (await spool.queue.listing.totals()).destinations == 0


async def test_what_is_put_back_is_as_it_was_before(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        before = await spool.entry(number)
        await spool.queue.claims.put_back(await spool.claim(), "the connection was closed")
        assert await spool.entry(number) == before
        assert (await spool.queue.listing.message(number)).attempts == ()
        assert len(await spool.claim()) == 1


async def test_a_claim_put_back_late_does_not_disturb_the_next_one(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=0)
        await spool.claim()
        await spool.queue.claims.put_back([claim], "late")
        assert (await spool.entry(number)).state == "relaying"


async def test_what_expired_while_waiting_is_claimed_to_be_given_up(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000) as spool:
        await spool.add("a@example.org", "b@example.com")
        for destination in ("example.org", "example.com"):
            (claim,) = await spool.claim(destination)
            await spool.settle(claim, LATER, after=5000)
        assert await spool.queue.claims.overdue(9) == []
        await spool.clock.advance(999)
        assert await spool.queue.claims.next_due() == spool.clock.now() + 1
        await spool.clock.advance(1)
        first, second = await spool.queue.claims.overdue(9)
        assert {first.destination, second.destination} == {"example.org", "example.com"}
        (entry,) = first.entries if first.destination == "example.org" else second.entries
        assert (entry.attempt, entry.attempts, entry.given_up, entry.last) == (0, 1, "", LATER)
        assert await spool.queue.claims.overdue(9) == []
        for one in (first, second):
            await spool.settle(one, Outcome.permanent("expired", enhanced="5.4.7"))
        assert (await spool.queue.listing.totals()).destinations == 0


async def tried(spool: Spool) -> None:
    """Try all that waits, and have it wait for long."""
    for claim in await spool.claim():
        await spool.settle(claim, LATER, after=1e6)


async def test_overdue_claims_no_more_than_asked(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=10) as spool:
        for _ in range(3):
            await spool.add()
        await tried(spool)
        await spool.clock.advance(10)
        assert [len(await spool.queue.claims.overdue(2)) for _ in range(3)] == [2, 1, 0]


async def test_what_expired_without_an_attempt_says_how_its_destination_fared(tmp_path: Path, opened: Opened) -> None:
    dead = Outcome.transient("connect: refused", host="mx1.example.org")
    async with opened(tmp_path, give_up_after=1000) as spool:
        for _ in range(3):
            await spool.add("a@example.org")
        (claim,) = await spool.claim(limit=1)
        await spool.settle(claim, dead, after=5000)
        await spool.clock.advance(1000)
        await spool.queue.standing.block("example.org", spool.clock.now() + 900, "connect: refused", failed=True)
        claims = await spool.queue.claims.overdue(9)
        assert [(one.entries[0].attempts, one.entries[0].last) for one in claims] == [(1, dead), (0, dead), (0, dead)]
        for one in claims:  # an entry's own record tells of its own attempts alone
            await spool.queue.claims.put_back([one], "no room")
        assert [entry.last for entry in await spool.entries()] == [dead, None, None]


@pytest.mark.parametrize("said", [DELIVERED, Outcome.of_reply(550, "5.1.1 no such user"), None])
async def test_what_expired_without_an_attempt_says_why_its_destination_was_blocked(
    tmp_path: Path, said: Outcome | None, opened: Opened
) -> None:
    """What the destination said to others of their mail is no reason for what was never sent."""
    async with opened(tmp_path, give_up_after=1000) as spool:
        if said is not None:
            await spool.add()
            (claim,) = await spool.claim()
            await spool.settle(claim, said)
        await spool.add()
        await spool.clock.advance(1000)
        await spool.queue.standing.block("example.org", spool.clock.now() + 60, "4.4.1 refused", failed=True)
        (claim,) = await spool.queue.claims.overdue(9)
        assert claim.entries[0].last == Outcome.transient("4.4.1 refused")


async def test_what_expired_without_any_known_reason_has_no_last_outcome(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000) as spool:
        await spool.add()
        await spool.clock.advance(1000)
        await spool.queue.standing.block("example.org", spool.clock.now() + 60, "", failed=True)
        (claim,) = await spool.queue.claims.overdue(9)
        assert claim.entries[0].last is None


async def test_a_claim_to_give_up_that_is_put_back_is_overdue_again(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=10) as spool:
        await spool.add()
        await tried(spool)
        await spool.clock.advance(10)
        await spool.queue.claims.put_back(await spool.queue.claims.overdue(9), "no room for the bounce")
        assert len(await spool.queue.claims.overdue(9)) == 1


async def test_a_bounce_that_cannot_be_made_is_not_tried_for_ever(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 0)
        (claim,) = await spool.queue.claims.overdue(9)
        await spool.queue.claims.set_aside(claim, "the body is damaged")
        assert await spool.queue.claims.overdue(9) == []
        assert (await spool.entry(number)).ordered == "hold"


def suspension(destination: str, now: float, seconds: float) -> Suspension:
    return Suspension(destination=destination, since=now, until=now + seconds, by="oncall", note="maintenance")


async def retried(spool: Spool, count: int, *recipients: str) -> None:
    """So many messages that were tried before and are due again."""
    for _ in range(count):
        await spool.add(*recipients)
    for claim in await spool.claim(limit=count):
        await spool.settle(claim, LATER, after=60)
    await spool.clock.advance(61)


async def test_half_of_each_claim_is_for_what_was_never_tried(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await retried(spool, 30)
        await spool.clock.advance(600)
        fresh = {await spool.add() for _ in range(7)}
        first = [claim.message for claim in await spool.claim(limit=10)]
        assert [message in fresh for message in first] == [True] * 5 + [False] * 5
        second = [claim.message for claim in await spool.claim(limit=10)]
        assert [message in fresh for message in second] == [True] * 2 + [False] * 8


async def test_what_is_left_of_a_claim_is_for_what_was_never_tried_where_nothing_else_is_due(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await retried(spool, 2)
        for _ in range(9):
            await spool.add()
        assert len(await spool.claim(limit=10)) == 10


@pytest.mark.parametrize("recipients", [1, 2])
async def test_claims_of_one_take_what_was_never_tried_and_what_was_however_many_recipients_they_have(
    tmp_path: Path, recipients: int, opened: Opened
) -> None:
    """Such are all claims where a host takes one message a session, or a rate allows no more."""
    random.seed(9)
    to = tuple(f"u{number}@example.org" for number in range(recipients))
    async with opened(tmp_path) as spool:
        await retried(spool, 60, *to)
        fresh = {await spool.add(*to) for _ in range(10)}
        taken = [(await spool.claim(limit=1))[0].message in fresh for _ in range(40)]
        assert sum(taken) == 10
        assert 0 < sum(taken[:11]) < 10  # neither kind goes before all of the other
