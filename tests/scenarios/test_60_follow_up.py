"""60. What came of an order is told to who gave it: what was delivered, what failed again and why, what was dropped."""

import getpass

import pytest

from engine.control.client import Refused
from engine.model.verbs import Check, Drop, MarkBad, MarkGood, Release, Retry
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from tests.scenarios.relaying import Relay

LATER = Script({"RCPT": "450 4.2.1 over quota"})


@pytest.fixture
async def stuck(internet: Internet, relay: Relay) -> Internet:
    """Two messages wait for one domain that says "later", three for one that cannot be reached."""
    await internet.add("full.example", mx=[(10, "mx.full.example", LATER)])
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    for address in ("a@full.example", "b@full.example", "c@dead.example", "d@dead.example", "e@dead.example"):
        await relay.send(address)
        await relay.settled()
    assert len(await relay.entries()) == 5
    return internet


async def test_a_retry_that_fails_again_says_so_and_why(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Retry(filter="domain=dead.example"))
    assert result.follow
    await relay.settled()
    seen = await relay.client.operation(result.follow)
    assert (seen.verb, seen.by, seen.recipients, seen.over) == ("retry", getpass.getuser(), 3, True)
    assert seen.deferred + seen.blocked == 3
    assert seen.text == f"3 retried: 3 not reached again: {seen.why}"
    assert "refused" in seen.why


async def test_a_retry_that_succeeds_in_part_says_how_many(stuck: Internet, relay: Relay) -> None:
    await stuck.exchange("mx.full.example").become(Healthy())
    result = await relay.client.ask(Retry(filter=""))
    await stuck.wait_for(2)
    await relay.settled()
    seen = await relay.client.operation(result.follow)
    assert (seen.delivered, seen.deferred + seen.blocked, seen.over) == (2, 3, True)
    assert seen.text.startswith("5 retried: 2 delivered, 3 not reached again: ")


async def test_a_reply_is_told_as_the_reason(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Retry(filter="domain=full.example"))
    await relay.settled()
    seen = await relay.client.operation(result.follow)
    assert seen.text == "2 retried: 2 refused again: 450 4.2.1 over quota"


async def test_what_is_followed_stays_as_it_was_when_it_was_over(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Retry(filter="domain=full.example"))
    await relay.settled()
    before = await relay.client.operation(result.follow)
    await stuck.exchange("mx.full.example").become(Healthy())
    await relay.client.ask(Retry(filter="domain=full.example"))
    await stuck.wait_for(2)
    assert await relay.client.operation(result.follow) == before


async def test_a_host_marked_good_is_followed_and_its_event_says_how_many_were_made_due(
    stuck: Internet, relay: Relay
) -> None:
    await relay.client.ask(MarkBad(host="mx.dead.example", seconds=600))
    await stuck.exchange("mx.dead.example").become(Healthy())
    result = await relay.client.ask(MarkGood(host="mx.dead.example"))
    await stuck.wait_for(3)
    await relay.settled()
    seen = await relay.client.operation(result.follow)
    assert (seen.verb, seen.text, seen.over) == ("mark-good", "3 let go: 3 delivered", True)
    (event,) = [one for one in await relay.events("marked good") if one.by == getpass.getuser()]
    assert (event.host, event.text) == ("mx.dead.example", "3 recipients that waited for it made due")


async def test_a_drop_tells_its_exact_result_once_it_is_carried_out(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Drop(filter="domain=dead.example", note="runaway"))
    await relay.client.ask(Release(filter="to=c@dead.example"))
    before = await relay.client.operation(result.follow)
    assert (before.over, before.held) == (False, 2)
    await relay.later(11)
    seen = await relay.client.operation(result.follow)
    assert (seen.over, seen.dropped) == (True, 2)
    assert seen.text == "2 messages dropped; 1 was released meanwhile"
    (event,) = await relay.events("carried out")
    assert event.by == getpass.getuser()
    assert event.text == f"drop: {seen.text}; operation {result.operation}: domain=dead.example"


async def test_a_check_says_in_its_event_what_it_opened(stuck: Internet, relay: Relay) -> None:
    result = await relay.client.ask(Check())
    (event,) = await relay.events("checked")
    assert (event.by, f"checked: {event.text}") == (getpass.getuser(), result.text)
    assert "new connection" in event.text


async def test_what_nobody_knows_of_is_said_to_be_unknown(relay: Relay) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.operation(99)
    assert refused.value.refusal.not_found
