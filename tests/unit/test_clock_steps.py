"""Steps of the clock: noticed by comparing it with one that nobody sets, told, and put right."""

import random
from pathlib import Path

import dns.asyncresolver
import pytest

from engine.delivery.clock_steps import TOLERANCE, ClockSteps, ClockWatch
from engine.delivery.limits import Limits
from engine.delivery.retry import RetryPlan
from engine.delivery.sites import Sites
from engine.delivery.stumbles import Stumbles
from engine.dns.mx import MXCalculator
from engine.intake.refusals import Refusals
from engine.model.destination import Override, Suspension
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.refusal import Refusal
from engine.settings.settings import Limit, Retry
from tests.clock import FakeClock
from tests.sites import sites_of
from tests.unit.fake_arrivals import FakeArrivals
from tests.unit.queue.support import LATER
from tests.unit.sqlite.support import SqliteSpool, opened

HOUR, DAY = 3600.0, 86_400.0
BLOCK = 900.0
RETRIES = RetryPlan(Retry(), random.Random(1))


def stepping(spool: SqliteSpool, sites: Sites | None = None) -> ClockSteps:
    mx = MXCalculator(dns.asyncresolver.Resolver(configure=False), clock=spool.clock, marks=spool.queue.marks)
    sites = sites if sites is not None else sites_of(spool.clock)
    return ClockSteps(spool.queue, sites, mx, RETRIES, spool.clock, BLOCK)


async def test_only_a_difference_between_the_clocks_is_a_step() -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    await clock.advance(30 * DAY)
    assert watch.step() == 0.0
    await clock.set_by(TOLERANCE)
    assert watch.step() == 0.0
    await clock.set_by(TOLERANCE + 1)
    assert watch.step() == TOLERANCE + 1
    assert watch.step() == 0.0
    await clock.advance(30)
    await clock.set_by(-DAY)
    assert watch.step() == -DAY


@pytest.mark.parametrize("back", [DAY, 10 * 365 * DAY])
async def test_after_a_step_back_nothing_is_further_off_than_it_may_be(tmp_path: Path, back: float) -> None:
    async with opened(tmp_path, give_up_after=5 * DAY, delay_notice=4 * HOUR, gather=15.0) as spool:
        clock, queue = spool.clock, spool.queue
        step = stepping(spool)
        await step.look()
        begin = clock.now()
        await spool.add("tried@example.org")
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
        await spool.add("fresh@example.com")
        await spool.add("held@example.net")
        await queue.orders.hold(Filter.parse("to=held@*"), "ann", "")
        await queue.standing.block("example.org", begin + 300, "refused", failed=True)
        await queue.standing.suspend(
            Suspension(destination="x.example", since=begin, until=begin + HOUR, by="ann", note="")
        )
        one = Override(destination="y.example", host="h", port=25, since=begin, until=begin + HOUR, by="ann", note="")
        await queue.standing.set_override(one)
        await queue.standing.add_rule(Filter.parse("domain=z.example"), begin + HOUR, "ann", "")
        await queue.orders.give_up("drop", Filter.parse("to=held@*"), "ann", "", 10)
        await clock.set_by(-back)
        now = clock.now()
        assert not await step.look()
        tried, fresh, held = await spool.entries(sort="id")
        assert (tried.due, fresh.due, held.due) == (now + 300, now, now)
        assert {entry.expires for entry in (tried, fresh, held)} == {now + 5 * DAY}
        assert tried.last_at == now
        assert held.order_at == now + 10
        assert {row[0] for row in spool.sql("SELECT notice_at FROM entry")} == {now + 4 * HOUR}
        known = await queue.listing.destination("example.org")
        assert now < (known.blocked_until or 0) <= now + BLOCK
        assert [(one.since, one.until) for one in await queue.standing.suspensions()] == [(now, now + HOUR)]
        assert [(one.since, one.until) for one in await queue.standing.overrides()] == [(now, now + HOUR)]
        assert [(one.since, one.until) for one in await queue.standing.rules()] == [(now, now + HOUR)]
        (told,) = [event.text for event in spool.events if event.kind == "clock set"]
        days = "1d" if back == DAY else "3650d"
        assert told == f"the clock was set back by {days}; the times of 3 recipients were put right"


async def test_a_mark_lasts_as_long_as_it_was_to(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        mx = MXCalculator(dns.asyncresolver.Resolver(configure=False), clock=spool.clock, marks=spool.queue.marks)
        sites = sites_of(spool.clock)
        step = ClockSteps(spool.queue, sites, mx, RETRIES, spool.clock, BLOCK)
        await step.look()
        await mx.mark_bad("mx.example", note="refused")
        await spool.clock.set_by(-DAY)
        await step.look()
        mark = mx.mark("mx.example")
        assert mark is not None
        assert mark.until == spool.clock.now() + HOUR


async def test_what_was_due_long_before_the_step_keeps_within_the_longest_interval(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        step = stepping(spool)
        await step.look()
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=3 * DAY)  # by a schedule of days that was in the settings
        await spool.clock.advance(2 * DAY)
        await spool.clock.set_by(-HOUR)
        await step.look()
        (entry,) = await spool.entries()
        assert entry.due == spool.clock.now() + RETRIES.longest_wait("example.org")


async def test_a_site_is_not_left_alone_nor_kept_small_for_the_time_of_the_step(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        sites = sites_of(spool.clock)
        step = stepping(spool, sites)
        await step.look()
        site = sites.get("mx.example")
        site.leave_alone(spool.clock.now() + 300, "refused")
        site.shrink(1, "too many", by_half=False)
        await spool.clock.set_by(-DAY)
        await step.look()
        assert list(sites.blocked()) == []
        assert site._ceiling_until <= spool.clock.now() + 600


async def test_a_step_back_while_the_engine_was_down_is_known_by_its_events(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
        await spool.queue.arrivals.record(Event(at=clock.now(), kind="stopped"))
    await clock.set_by(-DAY)
    for looks in (1, 0):  # it is found once, though events of the time to come stay
        async with opened(tmp_path, clock) as spool:
            assert not await stepping(spool).look()
            (entry,) = await spool.entries()
            assert entry.due == clock.now() + 300
            assert [event.kind for event in spool.events] == ["clock set"] * looks


async def test_what_is_cut_short_is_done_anew_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.times.CHUNK", 2)
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        step = stepping(spool)
        await step.look()
        await spool.add(*(f"u{number}@example.org" for number in range(7)))
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
        await clock.set_by(-DAY)
        monkeypatch.setattr("engine.queue.sqlite.times.tell", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await step.look()
    monkeypatch.undo()
    async with opened(tmp_path, clock) as spool:
        spool.sql("UPDATE entry SET due = due + 1e6 WHERE number > 4")  # as if it had been cut short there
        await stepping(spool).look()
        waits = sorted({round(entry.due - clock.now(), 3) for entry in await spool.entries()})
        assert waits == [300.0, round(RETRIES.longest_wait("example.org"), 3)]
        assert [event.kind for event in spool.events] == ["clock set"]


async def test_a_step_ahead_is_told_and_nothing_is_to_expire_in_that_check(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        step = stepping(spool)
        assert not await step.look()
        await spool.clock.set_by(6 * DAY)
        assert await step.look()
        assert not await step.look()
        assert [event.text for event in spool.events] == [
            "the clock was set ahead by 6d: what is due is tried before it is returned"
        ]


async def test_a_machine_that_knows_the_time_only_after_its_start_costs_no_mail_its_time(tmp_path: Path) -> None:
    """Without a clock that runs while it is off: it begins in 1970, and is set when the network is there."""
    clock = FakeClock()
    began = clock.now()
    async with opened(tmp_path, clock, give_up_after=5 * DAY) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=300)
    await clock.set_by(-began)
    async with opened(tmp_path, clock, give_up_after=5 * DAY) as spool:
        step = stepping(spool)
        await step.look()
        assert [entry.expires for entry in await spool.entries()] == [clock.now() + 5 * DAY]
        await clock.set_by(began + HOUR)
        assert await step.look()
        (entry,) = await spool.entries()
        assert (entry.expires, entry.state) == (began + 5 * DAY, "waiting")
        assert entry.due <= clock.now()


async def test_what_is_remembered_for_a_while_is_not_remembered_for_the_time_of_the_step() -> None:
    clock, queue = FakeClock(), FakeArrivals()
    stumbles, refusals = Stumbles(clock), Refusals(queue, clock)
    stumbles.note("mx.example")
    refusals.note(Refusal(peer="smtp 192.0.2.1", why="relaying denied"))
    assert not stumbles.has_none("mx.example")
    await clock.set_by(-DAY)
    assert stumbles.has_none("mx.example")
    refusals.note(Refusal(peer="smtp 192.0.2.1", why="relaying denied"))
    await refusals.finish(5)
    assert len(queue.events_recorded) == 2


async def test_a_limit_of_a_destination_is_not_kept_up_by_a_step_back() -> None:
    clock = FakeClock()
    (rule,) = Limits((Limit(destination="a.example", messages_per_minute=60),), clock).of("a.example", ())
    assert rule.messages is not None
    rule.messages.take(6)
    await clock.set_by(-DAY)
    assert rule.messages.available == 0
    await clock.advance(60)
    assert rule.messages.available == 6
