"""41. A hold rule keeps mail that is still to come, for a time, and says who wanted it so."""

import getpass
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.control.client import Refused
from engine.model.verbs import Bounce, Drop, Hold, HoldRule, Release, ReleaseRule, Suspend, Undo
from engine.queue.errors import QueueError
from engine.queue.sqlite.writer import Transaction
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

HOUR = 3600.0


@pytest.fixture
async def healthy(internet: Internet, relay: Relay) -> Internet:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await internet.add("other.example", mx=[(10, "mx.other.example", Healthy())])
    return internet


async def test_what_comes_is_held_from_the_first_moment_and_goes_when_the_rule_ends_by_itself(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(HoldRule(filter="from=runaway@*", seconds=2 * HOUR, note="runaway script"))
    await relay.send("a@good.example", sender="Runaway@example.com")
    await relay.send("b@good.example", sender="ann@example.com")
    await relay.settled()
    assert [one.recipients for one in healthy.delivered] == [("b@good.example",)]
    (held,) = await relay.entries("state=held")
    assert (held.by, held.note, held.rule) == (getpass.getuser(), "runaway script", 1)
    await relay.later(2 * HOUR + 1)
    assert healthy.messages == 2
    assert await relay.client.overrides() == ()
    made, story, ended = await relay.events("held", "released")
    assert "from=runaway@*" in made.text
    assert (story.message, story.by) == (held.message, getpass.getuser())
    assert (ended.by, "1 recipient let go" in ended.text) == ("engine", True)


async def test_what_waits_already_is_held_too(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("stuck.example", mx=[(10, "mx.stuck.example", Dead())])
    await relay.send("a@stuck.example", times=3)
    await relay.settled()
    result = await relay.client.ask(HoldRule(filter="domain=stuck.example", seconds=HOUR, note="look first"))
    assert result.recipients == 3
    await exchange.become(Healthy())
    await relay.later(HOUR / 2)
    assert internet.messages == 0
    result = await relay.client.ask(ReleaseRule(rule=1))
    assert result.recipients == 3
    await relay.later(HOUR / 2)
    assert internet.messages == 3


async def test_a_rule_for_a_recipient_holds_that_recipient_alone(healthy: Internet, relay: Relay) -> None:
    await relay.client.ask(HoldRule(filter="to=*@other.example", seconds=HOUR, note=""))
    await relay.send("a@good.example", "b@other.example")
    await relay.settled()
    assert [one.recipients for one in healthy.delivered] == [("a@good.example",)]
    assert [one.recipient for one in await relay.entries("state=held")] == ["b@other.example"]


async def test_what_was_released_by_hand_stays_released_and_what_was_held_by_hand_stays_held(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note=""))
    await relay.send("a@good.example")
    await relay.send("b@good.example")
    await relay.send("c@good.example")
    await relay.client.ask(Release(filter="to=a@good.example"))
    await relay.client.ask(Hold(filter="to=b@good.example", note="mine"))
    await healthy.wait_for(1)
    await relay.later(HOUR + 1)
    assert healthy.messages == 2
    (held,) = await relay.entries()
    assert (held.recipient, held.state, held.rule) == ("b@good.example", "held", None)


async def test_what_two_rules_name_is_held_until_both_have_ended(healthy: Internet, relay: Relay) -> None:
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note="first"))
    await relay.client.ask(HoldRule(filter="from=ann@example.com", seconds=3 * HOUR, note="second"))
    await relay.send("a@good.example")
    await relay.later(2 * HOUR)
    (held,) = await relay.entries()
    assert (held.state, held.rule, held.note) == ("held", 2, "second")
    await relay.later(HOUR + 1)
    assert healthy.messages == 1


async def test_mail_ordered_to_be_bounced_that_is_taken_back_after_the_rules_end_goes_on(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=60, note=""))
    await relay.send("a@good.example")
    await relay.clock.advance(55)
    bounced = await relay.client.ask(Bounce(filter="to=a@good.example"))
    await relay.later(6)
    assert (await relay.entries())[0].ordered == "bounce"
    await relay.client.ask(Undo(operation=bounced.operation))
    await healthy.wait_for(1)


async def test_mail_that_is_not_to_be_dropped_after_all_is_held_by_a_rule_made_meanwhile(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(Suspend(destination="*", seconds=60, note="so that it waits"))
    await relay.send("a@good.example")
    drop = await relay.client.ask(Drop(filter="domain=good.example"))
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note="look first"))
    await relay.client.ask(Undo(operation=drop.operation))
    await relay.later(61)
    assert healthy.messages == 0
    (held,) = await relay.entries()
    assert (held.state, held.note, held.rule) == ("held", "look first", 1)


async def test_mail_that_is_not_to_be_dropped_after_all_is_held_by_another_rule_that_names_it(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note="first"))
    await relay.client.ask(HoldRule(filter="from=ann@example.com", seconds=2 * HOUR, note="second"))
    await relay.send("a@good.example")
    (held,) = await relay.entries()
    drop = await relay.client.ask(Drop(filter="domain=good.example"))
    await relay.client.ask(ReleaseRule(rule=held.rule or 0))
    await relay.client.ask(Undo(operation=drop.operation))
    await relay.settled()
    assert healthy.messages == 0
    (still,) = await relay.entries()
    assert (still.state, still.rule) == ("held", 3 - (held.rule or 0))


async def test_a_rule_outlives_a_restart(internet: Internet, clock: FakeClock, tmp_path: Path) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note="later"))
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.send("a@good.example")
        await relay.settled()
        assert internet.messages == 0
        (rule,) = await relay.client.overrides()
        assert (rule.kind, rule.name, rule.by, rule.note) == (
            "hold rule", "domain=good.example", getpass.getuser(), "later",
        )  # fmt: skip
        await relay.later(HOUR + 1)
        assert internet.messages == 1


async def test_letting_go_and_looking_through_what_waits_that_were_cut_short_go_on(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Dead())])
    await relay.send("a@good.example", times=7)
    await relay.settled()
    monkeypatch.setattr("engine.queue.sqlite.rules.CHUNK", 2)
    writer = relay.sqlite._database.writer
    draw, do = random.Random(1), writer.do

    async def sometimes(operation: Callable[[Transaction], Any], weight: int = 0) -> Any:
        if draw.random() < 0.4 and operation.__module__ == "engine.queue.sqlite.rules":
            raise QueueError("cut short")
        return await do(operation, weight)

    monkeypatch.setattr(writer, "do", sometimes)
    with pytest.raises(Refused, match="cut short"):
        await relay.client.ask(HoldRule(filter="domain=good.example", seconds=60, note=""))
    for _ in range(20):
        with suppress(QueueError):
            await relay.engine.queue.claims.overdue(10)
    assert len(await relay.entries("state=held")) == 7
    await relay.clock.advance(61)
    for _ in range(20):
        with suppress(QueueError):
            await relay.engine.queue.claims.overdue(10)
    assert await relay.entries("state=held") == ()
    assert await relay.engine.queue.standing.rules() == ()


@pytest.mark.parametrize("filter", ["", "state=held", "!domain=good.example", "age>2h", "from="])
async def test_a_rule_that_cannot_be_one_is_refused_with_what_is_allowed(relay: Relay, filter: str) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.ask(HoldRule(filter=filter, seconds=HOUR, note=""))
    assert "from=" in refused.value.refusal.allowed


async def test_a_rule_of_an_older_version_that_cannot_be_read_keeps_no_mail_from_moving(
    healthy: Internet, relay: Relay
) -> None:
    await relay.client.ask(HoldRule(filter="domain=other.example", seconds=HOUR, note=""))
    await relay.client.ask(HoldRule(filter="domain=good.example", seconds=HOUR, note=""))
    await relay.sqlite._database.writer.do(
        lambda tx: tx.execute(
            "UPDATE hold_rule SET filter = 'domain=*bücher.example', swept = 0, newest = 9 WHERE id = 2"
        )
    )
    await relay.send("a@good.example", "b@other.example")
    await relay.settled()
    assert [one.recipients for one in healthy.delivered] == [("a@good.example",)]
    assert [one.rule for one in await relay.entries()] == [1]
    assert (await relay.client.ask(ReleaseRule(rule=2))).recipients == 0


async def test_no_more_rules_than_intake_can_bear(relay: Relay) -> None:
    for number in range(100):
        await relay.client.ask(HoldRule(filter=f"domain=a{number}.example", seconds=HOUR, note=""))
    with pytest.raises(Refused, match="100 hold rules"):
        await relay.client.ask(HoldRule(filter="domain=b.example", seconds=HOUR, note=""))
    await relay.client.ask(HoldRule(filter="domain=a7.example", seconds=2 * HOUR, note="longer"))
    assert len(await relay.client.overrides()) == 100


async def test_a_rule_that_is_not_there_is_not_released(relay: Relay) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.ask(ReleaseRule(rule=7))
    assert refused.value.refusal.not_found
