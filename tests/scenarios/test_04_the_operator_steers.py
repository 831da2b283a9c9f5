"""4. What the operator asks through the control socket happens, exactly, and is written down."""

import getpass

import pytest

from engine.control.client import Refused
from engine.model.verbs import (
    Bounce,
    Check,
    Drop,
    Hold,
    MarkBad,
    MarkGood,
    Postpone,
    Release,
    Resume,
    Retry,
    Suspend,
    Undo,
)
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from tests.scenarios.relaying import Relay

MINUTE = 60.0
DAY = 86_400.0


@pytest.fixture
async def stuck(internet: Internet, relay: Relay) -> Internet:
    """Three messages wait for stuck.example, whose exchange says "later"; and bounces can go home."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("stuck.example", mx=[(10, "mx.stuck.example", Script({"RCPT": "450 4.2.1 over quota"}))])
    for name in ("a", "b", "c"):
        await relay.send(f"{name}@stuck.example")
    await relay.settled()
    assert len(await relay.entries()) == 3
    return internet


async def test_the_overview_shows_a_stuck_domain_and_what_was_said_last(stuck: Internet, relay: Relay) -> None:
    overview = await relay.client.overview()
    (destination,) = [row for row in overview.destinations if row.name == "stuck.example"]
    assert (destination.waiting, destination.due) == (3, 0)
    assert destination.last is not None
    assert destination.last.line == "450 4.2.1 over quota"
    assert overview.health.waiting == 3
    assert overview.health.state == "relaying"


async def test_retry_sends_at_once_what_is_not_due_yet(stuck: Internet, relay: Relay) -> None:
    await stuck.exchange("mx.stuck.example").become(Healthy())
    result = await relay.client.ask(Retry(filter="domain=stuck.example"))
    assert (result.messages, result.recipients) == (3, 3)
    await stuck.wait_for(3)


async def test_retry_reaches_a_destination_that_could_not_be_reached(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@dead.example")
    await relay.settled()
    await exchange.become(Healthy())
    await relay.client.ask(Retry(filter="domain=dead.example"))
    await internet.wait_for(1)
    await relay.settled()
    assert exchange.messages == 1
    assert await relay.entries() == ()


async def test_held_mail_stays_until_it_is_released(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Hold(filter="to=a@stuck.example", note="look at it"))
    assert result.recipients == 1
    await stuck.exchange("mx.stuck.example").become(Healthy())
    await relay.later(20 * MINUTE)
    assert stuck.messages == 2
    (held,) = await relay.entries("state=held")
    assert (held.recipient, held.by, held.note) == ("a@stuck.example", getpass.getuser(), "look at it")
    await relay.client.ask(Release(filter="to=a@stuck.example"))
    await stuck.wait_for(3)


async def test_postponed_mail_goes_by_itself_when_its_time_has_come_and_not_before(
    stuck: Internet, relay: Relay
) -> None:
    await stuck.exchange("mx.stuck.example").become(Healthy())
    until = relay.clock.now() + 120 * MINUTE
    result = await relay.client.ask(Postpone(filter="domain=stuck.example", seconds=120 * MINUTE))
    assert result.text == "3 recipients of 3 messages are postponed for 2h"
    shown = (await relay.client.queue("")).rows
    assert [(row.condition, row.next_try) for row in shown] == [("not due", until)] * 3
    assert {row.condition_why for row in shown} == {f"postponed by {getpass.getuser()}"}
    (explained, *_) = (await relay.client.explain(str(shown[0].message))).explanations
    assert explained.text == f"it is postponed by {getpass.getuser()}, for another 2h"
    (event,) = await relay.events("postponed")
    assert (event.by, event.text) == (
        getpass.getuser(),
        "postpone 3 recipients in 3 messages: domain=stuck.example; for 2h",
    )
    await relay.later(119 * MINUTE)
    assert stuck.messages == 0
    await relay.client.ask(Retry(filter="to=a@stuck.example"))
    await stuck.wait_for(1)
    await relay.later(MINUTE)
    assert stuck.messages == 3


async def test_mail_postponed_beyond_its_time_is_tried_then_and_returned_if_that_fails(
    stuck: Internet, relay: Relay
) -> None:
    result = await relay.client.ask(Postpone(filter="domain=stuck.example", seconds=6 * DAY))
    assert "3 would have been given up before that, and are given up then, unless it can be sent" in result.text
    await relay.later(6 * DAY - MINUTE)
    assert await relay.events("returned") == []
    await relay.later(MINUTE)
    assert [event.outcome is not None and event.outcome.line for event in await relay.events("returned")] == [
        "5.4.7 delivery time expired; the last try: 450 4.2.1 over quota"
    ] * 3


async def test_a_bounce_can_be_undone_until_it_is_carried_out(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Bounce(filter="to=a@stuck.example", note="gone"))
    assert result.undo_until is not None
    (held,) = await relay.entries("state=held")
    assert held.ordered == "bounce"
    await relay.client.ask(Undo(operation=result.operation))
    assert await relay.entries("state=held") == ()
    await relay.client.ask(Bounce(filter="to=a@stuck.example", note="gone"))
    await relay.later(11)
    await stuck.wait_for(1)
    (bounce,) = stuck.exchange("mx.example.com").delivered
    assert bounce.recipients == ("ann@example.com",)
    assert b"gone" in bounce.content
    assert len(await relay.entries()) == 2


async def test_dropped_mail_goes_and_nobody_is_told(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Drop(filter="domain=stuck.example", note="runaway"))
    assert result.messages == 3
    await relay.later(11)
    assert await relay.entries() == ()
    assert stuck.messages == 0
    dropped = await relay.events("dropped")
    assert len(dropped) == 3
    assert {event.by for event in dropped} == {getpass.getuser()}


async def test_what_arrived_after_the_preview_is_not_touched(stuck: Internet, relay: Relay) -> None:
    seen = await relay.client.would(Drop(filter="domain=stuck.example"))
    assert seen.messages == 3
    await relay.send("late@stuck.example")
    await relay.settled()
    result = await relay.client.ask(Drop(filter="domain=stuck.example", newest=seen.newest, now=True))
    assert result.messages == 3
    await relay.later(1)
    assert [entry.recipient for entry in await relay.entries()] == ["late@stuck.example"]


async def test_a_suspended_destination_gets_no_connection_until_it_ends_by_itself(
    stuck: Internet, relay: Relay
) -> None:
    await stuck.exchange("mx.stuck.example").become(Healthy())
    sessions = stuck.exchange("mx.stuck.example").sessions
    await relay.client.ask(Suspend(destination="stuck.example", seconds=3600, note="maintenance"))
    await relay.later(30 * MINUTE)
    assert stuck.exchange("mx.stuck.example").sessions == sessions
    (suspension,) = await relay.client.suspensions()
    assert (suspension.by, suspension.note) == (getpass.getuser(), "maintenance")
    await relay.later(31 * MINUTE)
    assert stuck.messages == 3


async def test_the_whole_relay_can_be_suspended_and_resumed(stuck: Internet, relay: Relay) -> None:
    await relay.client.ask(Suspend(destination="*", seconds=3600, note="storm"))
    await relay.send("x@example.com")
    await relay.settled()
    assert (await relay.client.health()).state == "suspended"
    assert stuck.messages == 0
    await relay.client.ask(Resume(destination="*"))
    await stuck.wait_for(1)


async def test_a_host_marked_bad_is_left_out_and_its_mail_waits(stuck: Internet, relay: Relay) -> None:
    exchange = stuck.exchange("mx.stuck.example")
    await exchange.become(Healthy())
    sessions = exchange.sessions
    await relay.client.ask(MarkBad(host="mx.stuck.example", seconds=600, note="maintenance"))
    await relay.client.ask(Retry(filter="domain=stuck.example"))
    await relay.settled()
    assert exchange.sessions == sessions
    (host,) = (await relay.client.hosts()).rows
    assert (host.host, host.waiting, host.by) == ("mx.stuck.example", 3, getpass.getuser())
    assert host.until == pytest.approx(relay.clock.now() + 600)
    (entry, *_) = await relay.entries()
    assert entry.attempts == 1  # waiting for a host is no attempt


async def test_mark_good_lets_the_backlog_go(stuck: Internet, relay: Relay) -> None:
    await stuck.exchange("mx.stuck.example").become(Healthy())
    await relay.client.ask(MarkBad(host="mx.stuck.example", seconds=600, note="maintenance"))
    await relay.client.ask(Retry(filter="domain=stuck.example"))
    await relay.settled()
    result = await relay.client.ask(MarkGood(host="mx.stuck.example"))
    assert "3" in result.text
    await stuck.wait_for(3)
    assert (await relay.client.hosts()).rows == ()


async def test_when_a_mark_ends_the_mail_goes_by_itself(stuck: Internet, relay: Relay) -> None:
    await stuck.exchange("mx.stuck.example").become(Healthy())
    await relay.client.ask(MarkBad(host="mx.stuck.example", seconds=600, note="maintenance"))
    await relay.client.ask(Retry(filter="domain=stuck.example"))
    await relay.later(601)
    assert stuck.messages == 3


async def test_the_engine_does_not_end_an_operators_mark(internet: Internet, relay: Relay) -> None:
    await internet.add("two.example", mx=[(10, "mx1.two.example", Healthy()), (20, "mx2.two.example", Healthy())])
    await relay.client.ask(MarkBad(host="mx1.two.example", seconds=600, note="maintenance"))
    await relay.send("x@two.example")
    await internet.wait_for(1)
    assert internet.delivered[0].host == "mx2.two.example"
    assert [mark.host for mark in relay.engine.mx.marks] == ["mx1.two.example"]


async def test_nothing_matched_is_said(relay: Relay) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.ask(Retry(filter="domain=nobody.example"))
    assert refused.value.refusal.not_found


async def test_a_wrong_filter_is_refused_with_what_is_allowed(relay: Relay) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.ask(Drop(filter="colour=red"))
    assert "colour" in refused.value.refusal.what + refused.value.refusal.where
    assert "domain" in refused.value.refusal.allowed + refused.value.refusal.what


async def test_who_did_what_is_in_the_events(stuck: Internet, relay: Relay) -> None:
    await relay.client.ask(Check())
    await relay.client.ask(Hold(filter="domain=stuck.example", note="wait for them"))
    (held,) = await relay.events("held")
    assert held.by == getpass.getuser()
    assert "3" in held.text
    shown = await relay.client.events(limit=5)
    assert shown[-1].kind == "held"


async def test_a_message_tells_its_whole_story_while_it_waits_and_after(stuck: Internet, relay: Relay) -> None:
    (entry, *_) = await relay.entries()
    message = await relay.client.message(entry.message)
    assert not message.finished
    assert message.sender == "ann@example.com"
    assert any(line.startswith("Subject: hello") for line in message.headers)
    (attempt,) = message.attempts
    assert attempt.outcome is not None
    assert attempt.outcome.line == "450 4.2.1 over quota"
    await stuck.exchange("mx.stuck.example").become(Healthy())
    await relay.client.ask(Retry(filter=f"id={entry.message}"))
    await stuck.wait_for(1)
    await relay.settled()
    after = await relay.client.message(entry.message)
    assert after.finished
    assert [event.kind for event in after.events][-1] == "delivered"


async def test_a_transcript_can_be_read_after_the_conversation(stuck: Internet, relay: Relay) -> None:
    # One more may have been on its way when the connection was open: that one has ended without saying anything.
    transcripts = [await relay.client.transcript(one.id) for one in await relay.client.relayers(ended=10)]
    said = [[f"{line.side} {line.text}" for line in one.lines] for one in transcripts if one.lines]
    assert said
    assert all("< 450 4.2.1 over quota" in lines for lines in said)
