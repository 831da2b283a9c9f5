"""The operator's orders: exactly what was named, exactly what is reported, and the way back."""

from pathlib import Path
from typing import Literal

import pytest

from engine.model.claim import EntryResult, Settlement
from engine.model.destination import Override
from engine.model.filter import Filter
from engine.model.order import Changed
from engine.model.outcome import Outcome
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool


async def three(spool: Spool) -> tuple[int, int, int]:
    """One message that waits for its time, one held, one being relayed."""
    waiting = await spool.add("w@example.com", "w2@example.com")
    (claim,) = await spool.claim("example.com")
    await spool.settle(claim, LATER, after=600)
    held = await spool.add("h@example.org")
    await spool.queue.orders.hold(Filter.of_ids([held]), "night", "asleep")
    relaying = await spool.add("r@example.net")
    await spool.claim("example.net")
    spool.events.clear()
    return waiting, held, relaying


def override(now: float) -> Override:
    """One of example.org."""
    return Override(
        destination="example.org", host="mx.example.net", port=0, since=now, until=now + 600, by="ann", note=""
    )


async def test_retry_makes_due_what_waits_and_unblocks_its_destination(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await three(spool)
        await spool.queue.standing.block("example.com", spool.clock.now() + 99, "connect: refused")
        assert await spool.queue.orders.retry(ALL, "oncall") == Changed(messages=1, recipients=2, skipped=2)
        assert await spool.queue.claims.due_destinations(9) == ["example.com"]
        assert [(event.kind, event.by, event.text) for event in spool.events] == [
            ("retried", "oncall", "retry 2 recipients in 1 message: everything")
        ]


async def test_hold_keeps_from_being_sent_and_skips_what_is_held(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        _, _, relaying = await three(spool)
        assert await spool.queue.orders.hold(ALL, "oncall", "why") == Changed(messages=2, recipients=3, skipped=1)
        assert [entry.by for entry in await spool.entries("state=held")] == ["oncall", "oncall", "night"]
        assert (await spool.entry(relaying)).state == "relaying"
        assert [event.kind for event in spool.events] == ["held"]


async def test_what_is_relayed_is_held_once_its_attempt_has_ended(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org", "b@example.org")
        (claim,) = await spool.claim()
        await spool.queue.orders.hold(ALL, "oncall", "wait")
        first, second = claim.entries
        results = (
            EntryResult(number=1, attempt=first.attempt, outcome=DELIVERED),
            EntryResult(number=2, attempt=second.attempt, outcome=LATER, due=spool.clock.now() + 60),
        )
        await spool.queue.claims.settle(Settlement(message=number, results=results))
        (entry,) = await spool.entries()
        assert (entry.state, entry.ordered, entry.note, entry.attempts) == ("held", "hold", "wait", 1)


async def test_a_claim_put_back_is_held_where_that_was_ordered_meanwhile(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        claims = await spool.claim()
        await spool.queue.orders.hold(ALL, "oncall", "")
        await spool.queue.claims.put_back(claims, "closed")
        assert (await spool.entry(number)).state == "held"


async def test_release_lets_wait_again_until_the_time_it_had(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        waiting, _, _ = await three(spool)
        due = (await spool.entry(waiting)).due
        await spool.queue.orders.hold(ALL, "oncall", "")
        assert await spool.queue.orders.release(ALL, "oncall") == Changed(messages=3, recipients=4)
        entry = await spool.entry(waiting)
        assert (entry.state, entry.due, entry.ordered, entry.by) == ("waiting", due, None, "")
        assert await spool.queue.orders.release(ALL, "oncall") == Changed(messages=0, recipients=0, skipped=4)


async def test_release_ends_a_bounce_that_is_not_done(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 10)
        await spool.queue.orders.release(ALL, "oncall")
        await spool.clock.advance(20)
        assert await spool.queue.claims.overdue(9) == []
        assert (await spool.queue.listing.totals()).waiting == 1


async def test_a_bounce_is_only_held_until_its_time_and_then_claimed(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        at = spool.clock.now() + 10
        changed = await spool.queue.orders.give_up("bounce", ALL, "oncall", "wrong list", 10)
        assert (changed.messages, changed.recipients, changed.skipped, changed.due) == (1, 1, 0, at)
        assert changed.operation
        entry = await spool.entry(number)
        assert (entry.state, entry.ordered, entry.order_at, entry.by) == ("held", "bounce", at, "oncall")
        assert await spool.queue.claims.next_due() == at
        assert await spool.queue.claims.overdue(9) == []
        await spool.clock.advance(10)
        (claim,) = await spool.queue.claims.overdue(9)
        assert (claim.entries[0].attempt, claim.entries[0].given_up) == (0, "bounced by oncall: wrong list")


async def test_a_drop_is_carried_out_at_its_time_and_told_of_each_entry(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org", "b@example.com")
        await spool.queue.orders.give_up("drop", ALL, "oncall", "runaway", 10)
        await spool.clock.advance(10)
        spool.events.clear()
        assert await spool.queue.claims.overdue(9) == []
        assert await spool.entries() == ()
        *each, _ = spool.events  # the last one tells of the whole order
        assert [(e.kind, e.by, e.message, e.entry, e.recipient, e.text) for e in each] == [
            ("dropped", "oncall", number, 1, "a@example.org", "runaway"),
            ("dropped", "oncall", number, 2, "b@example.com", "runaway"),
        ]


async def test_many_drops_are_all_carried_out(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(3):
            await spool.add(*(f"u{n}@example.org" for n in range(400)))
        await spool.queue.orders.give_up("drop", ALL, "oncall", "", 0)
        await spool.carry_out()
        assert (await spool.queue.listing.totals()).held == 0


@pytest.mark.parametrize("order", ["bounce", "drop"])
async def test_undo_restores_each_entry_to_what_it_was(
    tmp_path: Path, order: Literal["bounce", "drop"], opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await three(spool)
        before = await spool.entries()
        changed = await spool.queue.orders.give_up(order, ALL, "oncall", "oops", 10)
        assert changed.recipients == 4
        assert await spool.queue.orders.undo(changed.operation, "oncall") == Changed(messages=3, recipients=4)
        assert await spool.entries() == before
        assert spool.kinds() == ["ordered", "undone"]
        assert await spool.queue.orders.undo(changed.operation, "oncall") == Changed(messages=0, recipients=0)


async def test_undo_after_the_attempt_ended_lets_it_wait_for_its_new_time(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        changed = await spool.queue.orders.give_up("drop", ALL, "oncall", "", 10)
        await spool.settle(claim, LATER, after=300)
        assert (await spool.entry(number)).state == "held"
        await spool.queue.orders.undo(changed.operation, "oncall")
        entry = await spool.entry(number)
        assert (entry.state, entry.due, entry.ordered) == ("waiting", spool.clock.now() + 300, None)


async def test_undo_does_not_reach_what_is_being_carried_out(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        changed = await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 0)
        (claim,) = await spool.queue.claims.overdue(9)
        assert (await spool.queue.orders.undo(changed.operation, "oncall")).recipients == 0
        assert (await spool.queue.orders.release(ALL, "oncall")).recipients == 0
        await spool.settle(claim, Outcome.permanent("given up", enhanced="5.0.0"))
        assert await spool.entries() == ()


async def test_hold_keeps_what_was_to_be_dropped(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        drop = await spool.queue.orders.give_up("drop", ALL, "day", "runaway", 10)
        assert (await spool.queue.orders.hold(ALL, "oncall", "to be looked at")).recipients == 1
        await spool.clock.advance(20)
        await spool.queue.claims.overdue(9)
        entry = await spool.entry(number)
        assert (entry.state, entry.ordered, entry.by, entry.note) == ("held", "hold", "oncall", "to be looked at")
        assert (await spool.queue.orders.undo(drop.operation, "oncall")).recipients == 0
        await spool.queue.orders.release(ALL, "oncall")
        assert (await spool.entry(number)).state == "waiting"


async def test_the_later_of_two_orders_counts_and_undo_goes_back_before_both(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        before = await spool.entry(number)
        bounce = await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 10)
        assert (await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 10)).skipped == 1
        drop = await spool.queue.orders.give_up("drop", ALL, "oncall", "", 10)
        assert (await spool.queue.orders.undo(bounce.operation, "oncall")).recipients == 0
        await spool.queue.orders.undo(drop.operation, "oncall")
        assert await spool.entry(number) == before


async def test_mail_that_came_after_it_was_confirmed_is_not_touched(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        selection = await spool.queue.listing.select(ALL)
        later = await spool.add()
        await spool.queue.orders.hold(ALL, "oncall", "", newest=selection.newest)
        assert [entry.message for entry in await spool.entries("state=waiting")] == [later]


async def test_what_was_being_returned_when_it_was_undone_is_returned_later_where_that_failed(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        changed = await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 0)
        claims = await spool.queue.claims.overdue(9)
        assert (await spool.queue.orders.undo(changed.operation, "oncall")).skipped == 1
        await spool.queue.claims.put_back(claims, "no room for the bounce")
        assert len(await spool.queue.claims.overdue(9)) == 1
    async with opened(tmp_path) as spool:  # the engine ended meanwhile
        assert len(await spool.queue.claims.overdue(9)) == 1


async def test_what_is_postponed_is_due_then_and_not_before(tmp_path: Path, opened: Opened) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        waiting, held, relaying = await three(spool)
        fresh = await spool.add("f@example.com")
        until = clock.now() + 3600
        assert await spool.queue.orders.postpone(ALL, "oncall", until) == Changed(messages=2, recipients=3, skipped=2)
        assert [(event.kind, event.by, event.text) for event in spool.events[-1:]] == [
            ("postponed", "oncall", "postpone 3 recipients in 2 messages: everything; for 1h")
        ]
        shown = {entry.message: (entry.state, entry.postponed_by) for entry in await spool.entries()}
        assert shown == {
            waiting: ("waiting", "oncall"), held: ("held", ""), relaying: ("relaying", ""), fresh: ("waiting", "oncall")
        }  # fmt: skip
        assert (await spool.queue.listing.destination("example.com")).next_due == until
    async with opened(tmp_path, clock) as spool:  # a restart changes nothing of it
        await clock.advance(3599)
        assert "example.com" not in await spool.queue.claims.due_destinations(9)
        assert await spool.queue.claims.next_due(clock.now()) == until
        await clock.advance(1)
        assert {claim.message for claim in await spool.claim("example.com")} == {waiting, fresh}


async def test_what_waits_for_longer_stays_so_but_not_what_was_postponed(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await three(spool)  # of which one message is due in ten minutes
        now, mail = spool.clock.now(), Filter.parse("domain=example.com")
        assert await spool.queue.orders.postpone(mail, "oncall", now + 300) == Changed(
            messages=0, recipients=0, skipped=2
        )
        for seconds in (7200, 300):
            assert (await spool.queue.orders.postpone(mail, "oncall", now + seconds)).recipients == 2
            assert {entry.due for entry in await spool.entries("domain=example.com")} == {now + seconds}


async def test_retry_ends_a_postponement_and_so_does_a_try(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        await spool.queue.orders.postpone(ALL, "oncall", spool.clock.now() + 3600)
        await spool.queue.orders.retry(ALL, "ann")
        entry = await spool.entry(number)
        assert (entry.due, entry.postponed_by) == (spool.clock.now(), "")
        await spool.queue.orders.postpone(ALL, "oncall", spool.clock.now() + 3600)
        await spool.clock.advance(3600)
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
        entry = await spool.entry(number)
        assert (entry.due, entry.postponed_by) == (spool.clock.now() + 300, "")


async def test_what_was_postponed_and_held_is_due_then_once_it_is_released(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        until = spool.clock.now() + 3600
        await spool.queue.orders.postpone(ALL, "oncall", until)
        await spool.queue.orders.hold(ALL, "ann", "")
        await spool.queue.orders.release(ALL, "ann")
        entry = await spool.entry(number)
        assert (entry.state, entry.due, entry.postponed_by) == ("waiting", until, "oncall")


async def test_what_is_postponed_beyond_its_time_has_its_try_first(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        number = await spool.add("tried@example.org")
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=60)
        await spool.add("fresh@example.org")
        until = spool.clock.now() + 1000  # when the first is to be given up, and the second, too
        assert (await spool.queue.orders.postpone(ALL, "oncall", until)).outlasting == 0
        until = spool.clock.now() + 5000
        assert (await spool.queue.orders.postpone(ALL, "oncall", until)).outlasting == 2
        assert spool.events[-1].text.endswith("; for 1h23m, 2 of them beyond their time")
        assert (await spool.queue.listing.message(number)).expires == until
        await spool.clock.advance(4999)
        # No connection can be had meanwhile: that is no try in its stead, for it was not to be tried.
        await spool.queue.standing.block("example.org", until - 0.5, "4.4.1 connection refused")
        assert await spool.queue.claims.overdue(9) == []
        await spool.clock.advance(1)
        assert await spool.queue.claims.overdue(9) == []
        claims = await spool.claim()
        assert [entry.expires for claim in claims for entry in claim.entries] == [until, until]


@pytest.mark.parametrize("attempts", [0, 1])
async def test_what_takes_a_postponement_back_takes_back_what_it_did_to_the_end(
    tmp_path: Path, opened: Opened, attempts: int
) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        number = await spool.add()
        start = spool.clock.now()
        for claim in (await spool.claim())[:attempts]:
            await spool.settle(claim, LATER, after=60)
        await spool.queue.claims.put_back_orphans(await spool.queue.claims.relaying(), "only a look")
        for seconds, outlasting in ((5000, 1), (3000, 1), (900, 0), (5000, 1)):
            changed = await spool.queue.orders.postpone(ALL, "oncall", start + seconds)
            entry = await spool.entry(number)
            assert (changed.outlasting, entry.due) == (outlasting, start + seconds)
            assert entry.expires == max(start + 1000, start + seconds)
        await spool.queue.orders.retry(ALL, "oncall")
        assert (await spool.entry(number)).expires == start + 1000
        await spool.queue.orders.postpone(ALL, "oncall", start + 5000)
        await spool.clock.advance(2000)
        changed = await spool.queue.orders.postpone(ALL, "oncall", start + 2500)
        assert (changed.outlasting, (await spool.entry(number)).expires) == (1, start + 2500)


async def test_what_is_retried_beyond_its_time_has_its_try_first_and_is_told_of(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        await spool.add("old@example.org")
        await spool.clock.advance(1500)
        young = await spool.add("young@example.org")
        await spool.queue.orders.postpone(ALL, "oncall", spool.clock.now() + 5000)
        await spool.clock.advance(500)
        now = spool.clock.now()
        assert (await spool.queue.listing.select(ALL, until=now)).outlasting == 1
        assert (await spool.queue.orders.retry(ALL, "oncall")).outlasting == 1
        assert spool.events[-1].text.endswith(": everything, 1 of them beyond their time")
        assert await spool.queue.claims.overdue(9) == []
        ends = {claim.message: claim.entries[0].expires for claim in await spool.claim()}
        assert ends == {young - 1: now, young: now + 500}


async def test_mail_that_another_order_lets_go_keeps_the_end_that_it_was_given(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        number = await spool.add()
        until = spool.clock.now() + 5000
        await spool.queue.orders.postpone(ALL, "oncall", until)
        await spool.queue.standing.set_override(override(spool.clock.now()))
        entry = await spool.entry(number)
        assert (entry.due, entry.expires, entry.postponed_by) == (spool.clock.now(), until, "")


async def test_how_many_would_be_given_up_before_is_counted_beforehand(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        await three(spool)
        start = spool.clock.now()
        for seconds in (60, 1000, 5000, 300, 2000):
            until = start + seconds
            seen = await spool.queue.listing.select(ALL, until=until)
            done = await spool.queue.orders.postpone(ALL, "oncall", until)
            assert seen.outlasting == done.outlasting
            assert (seen.outlasting > 0) == (seconds > 1000)
        assert (await spool.queue.listing.select(ALL)).outlasting == 0


async def test_each_recipient_of_a_message_has_an_end_of_its_own(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        await spool.add("a@example.org", "b@example.org", "c@example.org")
        end = spool.clock.now() + 1000
        await spool.queue.orders.postpone(Filter.parse("to=b@*"), "oncall", end + 500)
        await spool.queue.standing.set_override(override(spool.clock.now()))  # which lets them go
        (claim,) = await spool.claim()
        assert [entry.expires for entry in claim.entries] == [end, end + 500, end]


@pytest.mark.parametrize("attempts", [0, 1])
async def test_steps_of_the_clock_bring_nothing_forward_that_was_postponed(
    tmp_path: Path, opened: Opened, attempts: int
) -> None:
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        clock = spool.clock
        number = await spool.add()
        for claim in (await spool.claim())[:attempts]:
            await spool.settle(claim, LATER, after=60)
        until = clock.now() + 7200
        await spool.queue.claims.put_back_orphans(await spool.queue.claims.relaying(), "only a look")
        await spool.queue.orders.postpone(ALL, "oncall", until)
        await clock.set_by(3600)
        await spool.queue.standing.clock_was_set("ahead", lambda _: 600.0, 600.0)
        entry = await spool.entry(number)
        assert (entry.due, entry.expires) == (until, until)
        await clock.set_by(-86_400)
        for _ in range(2):  # the second time there is nothing to put right
            await spool.queue.standing.clock_was_set("back", lambda _: 600.0, 600.0)
            entry = await spool.entry(number)
            assert (entry.due, entry.postponed_by) == (clock.now() + 7200, "oncall")
            assert entry.expires >= entry.due
