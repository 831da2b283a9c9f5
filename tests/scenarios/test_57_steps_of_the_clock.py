"""57. Steps of the clock, of days, both ways: nothing is frozen, and nothing is returned untried."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.intake.smtp.limits import Meter, Rates
from engine.model.claim import Claim
from engine.model.verbs import Resume, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from engine.settings.settings import Limits
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

DAY = 86_400.0


async def test_a_retry_of_five_minutes_stays_one_when_the_clock_is_set_back_a_day(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    (exchange,) = await internet.add(
        "once.example", mx=[(10, "mx.once.example", Script({"RCPT": ["450 4.2.1 locked", None]}))]
    )
    await relay.send("bob@once.example")
    await relay.settled()
    await clock.set_by(-DAY)
    await relay.settled()
    (entry,) = await relay.entries()
    assert 0 <= entry.due - clock.now() <= 331
    await relay.later(331)
    assert exchange.messages == 1
    (event,) = await relay.events("clock set")
    assert event.text.startswith("the clock was set back by 1d")


async def test_a_block_of_a_destination_does_not_outlast_its_bound(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("bob@dead.example")
    await relay.settled()
    await clock.set_by(-DAY)
    await relay.settled()
    await exchange.become(Healthy())
    await relay.later(1000)
    assert exchange.messages == 1


async def test_mail_is_not_returned_untried_when_the_clock_is_set_ahead_by_days(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    (once,) = await internet.add(
        "once.example", mx=[(10, "mx.once.example", Script({"RCPT": ["450 4.2.1 locked", None]}))]
    )
    (never,) = await internet.add("never.example", mx=[(10, "mx.never.example", Healthy())])
    await relay.client.ask(Suspend(destination="never.example", seconds=20 * DAY, note="storm"))
    await relay.send("bob@never.example")
    await relay.send("bob@once.example")
    await relay.settled()
    await clock.set_by(6 * DAY)
    await relay.settled()
    assert once.messages == 1
    assert await relay.events("returned") == []
    await relay.later(60)
    assert await relay.events("returned") == []  # nor later: it was never tried
    await relay.client.ask(Resume(destination="never.example"))
    await relay.settled()
    assert never.messages == 1
    (event,) = await relay.events("clock set")
    assert event.text == "the clock was set ahead by 6d: what is due is tried before it is returned"


async def test_nothing_expires_in_the_check_that_notices_the_step(
    relay: Relay, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due by the new clock has its try first."""
    queue = relay.engine.queue
    asked: list[bool] = []
    overdue = queue.claims.overdue

    async def asking(limit: int, *, expire: bool = True) -> Sequence[Claim]:
        asked.append(expire)
        return await overdue(limit, expire=expire)

    await relay.settled()
    monkeypatch.setattr(queue.claims, "overdue", asking)
    await clock.set_by(6 * DAY)
    await relay.settled()
    await relay.engine.smarthost.check_state()
    assert asked[0] is False
    assert all(asked[1:])
    assert len(asked) > 1


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_steps_all_mail_to_hosts_that_take_it_arrives_and_none_is_returned(
    internet: Internet, clock: FakeClock, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    (exchange,) = await internet.add(
        "mixed.example", mx=[(10, "mx.mixed.example", Script({"RCPT": [*["450 4.2.1 later"] * 5, None]}))]
    )
    (grey,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        for _ in range(4):
            await relay.send("a@mixed.example", "b@dead.example")
            await relay.settled()
            await clock.set_by(draw.choice([-1, 1]) * draw.uniform(0.1, 6) * DAY)
            await relay.settled()
            await relay.later(draw.uniform(10, 400))
    await grey.become(Healthy())
    await clock.set_by(-draw.uniform(1, 6) * DAY)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        for _ in range(8):
            await relay.later(7200)
        left = await relay.entries("!from=<>")
        words = [event.outcome.text for event in await relay.events("returned") if event.outcome is not None]
    assert left == ()
    assert [one for one in words if "the last try: " not in one or "no attempt" in one] == []
    assert exchange.messages + grey.messages > 0


def test_a_sender_at_its_limit_waits_for_a_window_and_not_for_the_time_of_the_step() -> None:
    clock = FakeClock()
    meter = Meter(2, 60.0, clock)
    meter.use("a")
    meter.use("a")
    clock._now -= DAY
    assert not meter.has_room("a")
    clock._now += 60
    assert meter.has_room("a")
    rates = Rates(Limits(messages_per_minute_per_address=1), clock)
    assert rates.begin("192.0.2.1", "") == ""
    clock._now -= DAY
    assert rates.begin("192.0.2.1", "") == "address"
    clock._now += 61
    assert rates.begin("192.0.2.1", "") == ""
