"""56. What could go at once is tried before it is returned, and nothing is returned that was never tried."""

from pathlib import Path

from engine.model.message import Entry
from engine.model.verbs import Hold, HoldRule, Release, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

DAY = 86_400.0
ONE_MORE = "its time is over: it has one more try"


async def home(internet: Internet) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])


async def shown(relay: Relay) -> Entry:
    (row,) = (await relay.client.queue("")).rows
    return row


async def test_what_was_held_beyond_its_time_is_tried_once_it_is_released(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.client.ask(Suspend(destination="good.example", seconds=60, note="to have it wait"))
    await relay.send("bob@good.example")
    await relay.client.ask(Hold(filter="id=1"))
    await relay.later(6 * DAY)
    (one,) = (await relay.client.explain("1")).explanations
    said = {fact.name: fact.text for fact in one.facts}
    assert said["tries"] == f"0; {ONE_MORE} once it is released"
    await relay.client.ask(Release(filter="id=1"))
    await relay.settled()
    assert await relay.events("returned") == []
    assert exchange.messages == 1


async def test_what_was_tried_and_then_held_beyond_its_time_is_tried_once_more(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add(
        "once.example", mx=[(10, "mx.once.example", Script({"RCPT": ["450 4.2.1 locked", None]}))]
    )
    await relay.send("bob@once.example")
    await relay.settled()
    await relay.client.ask(Hold(filter="id=1"))
    await relay.later(6 * DAY)
    await relay.client.ask(Release(filter="id=1"))
    await relay.settled()
    assert (exchange.messages, await relay.events("returned")) == (1, [])


async def test_what_a_hold_rule_held_beyond_its_time_is_tried_when_the_rule_ends(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=6 * DAY, note="storm"))
    await relay.send("bob@good.example")
    await relay.later(6 * DAY + 1)
    assert (exchange.messages, await relay.events("returned")) == (1, [])


async def test_a_try_after_its_time_that_fails_is_the_last(internet: Internet, relay: Relay) -> None:
    await home(internet)
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 locked"}))])
    await relay.send("bob@later.example")
    await relay.settled()
    await relay.client.ask(Hold(filter="id=1"))
    await relay.later(6 * DAY)
    await relay.client.ask(Release(filter="id=1"))
    await relay.settled()
    (returned,) = await relay.events("returned")
    assert returned.outcome is not None
    assert returned.outcome.line == "5.4.7 delivery time expired; the last try: 450 4.2.1 locked"
    assert len(await relay.events("returned")) == 1
    assert b"Status: 5.4.7" in internet.delivered[-1].content


async def test_what_waited_while_the_engine_was_down_is_tried_first(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    (exchange,) = await internet.add(
        "once.example", mx=[(10, "mx.once.example", Script({"RCPT": ["450 4.2.1 locked", None]}))]
    )
    (never,) = await internet.add("never.example", mx=[(10, "mx.never.example", Healthy())])
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.client.ask(Suspend(destination="never.example", seconds=60, note="to have it wait"))
        await relay.send("bob@once.example")
        await relay.send("bob@never.example")
        await relay.settled()
    await clock.advance(6 * DAY)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.settled()
        assert (exchange.messages, never.messages) == (1, 1)
        assert await relay.events("returned") == []


async def test_what_a_suspension_kept_from_being_tried_is_tried_when_it_ends_and_that_is_told(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.client.ask(Suspend(destination="good.example", seconds=7 * DAY, note="storm"))
    until = relay.clock.now() + 7 * DAY
    await relay.send("bob@good.example")
    assert (await shown(relay)).next_try == until
    await relay.later(6 * DAY)
    row = await shown(relay)
    assert (row.condition, row.next_try) == ("suspended", until)
    assert row.condition_why.endswith(ONE_MORE)
    await relay.later(DAY)
    assert (exchange.messages, await relay.events("returned")) == (1, [])


async def test_of_the_mail_for_a_dead_host_that_came_back_late_one_batch_is_tried_for_all(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    """A host is not asked for each of a hundred messages before they go back."""
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.client.ask(Suspend(destination="dead.example", seconds=60, note="to have it wait"))
        await relay.send("bob@dead.example", sender="", times=100)
    await clock.advance(6 * DAY)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.settled()
        await relay.later(31)
        assert await relay.entries() == ()
        assert len(await relay.events("unreachable")) == 1
        outcomes = {event.outcome.text for event in await relay.events("discarded") if event.outcome is not None}
        assert all("refused" in text for text in outcomes)


async def test_what_is_not_due_when_its_time_is_over_goes_back_then(internet: Internet, relay: Relay) -> None:
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 locked"}))])
    await relay.send("bob@later.example", sender="")
    await relay.settled()
    for _ in range(70):
        await relay.later(7200)
    attempts = len(await relay.events("deferred"))
    (gone,) = await relay.events("discarded")
    arrived = (await relay.events("accepted"))[0].at
    assert gone.at - arrived <= 5 * DAY + 7200
    assert attempts > 30
