"""50. Why mail waits: replies that differ only in numbers and names are one reason, and one order acts on its mail."""

import json

import pytest

from engine.control.client import Refused
from engine.model.verbs import Hold, Retry
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from tests.scenarios.relaying import Relay

LOCKED = [f"450 4.2.1 <user{number}@later.example>: mailbox busy, ticket {number}77A41" for number in range(9)]
WHY = "450 4.2.1 <address>: mailbox busy, ticket <id>"


async def stuck(internet: Internet, relay: Relay) -> None:
    """Three messages for one reason, at two destinations, and one for another."""
    for domain in ("later.example", "late.example"):
        await internet.add(domain, mx=[(10, f"mx.{domain}", Script({"RCPT": LOCKED}))])
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@later.example", times=2)
    await relay.clock.advance(60)
    await relay.send("a@late.example", "b@dead.example")
    await relay.settled()


async def test_what_differs_only_in_numbers_and_names_is_one_reason(internet: Internet, relay: Relay) -> None:
    begin = relay.clock.now()
    await stuck(internet, relay)
    first, second = await relay.client.reasons()
    assert first.group == WHY
    assert (first.entries, first.messages, first.destinations) == (3, 3, 2)
    assert first.busiest == ("later.example", "late.example")
    assert first.oldest == begin
    assert first.example is not None
    assert first.example.line.startswith("450 4.2.1 <user")
    assert second.group == "4.4.1 connection refused by [<ip>]:<n>"
    assert (second.entries, second.destinations) == (1, 1)


async def test_the_reasons_are_bounded_and_those_with_most_mail_come_first(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay)
    (only,) = await relay.client.reasons(limit=1)
    assert only.group == WHY
    with pytest.raises(Refused, match="limit"):
        await relay.client.reasons(limit=0)


async def test_an_order_on_a_reason_acts_on_its_mail_and_nothing_else(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay)
    named = f"group={json.dumps(WHY)}"
    seen = await relay.client.would(Hold(filter=named))
    assert (seen.messages, seen.recipients) == (3, 3)
    await relay.client.ask(Hold(filter=named, note="looking into it"))
    held = await relay.entries("state=held")
    assert {entry.group for entry in held} == {WHY}
    assert [entry.recipient for entry in await relay.entries("!state=held")] == ["b@dead.example"]
    assert [entry.recipient for entry in await relay.entries(f"!{named}")] == ["b@dead.example"]


async def test_a_retry_of_a_reason_sends_what_is_taken_now(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay)
    for exchange in list(internet.exchanges.values()):
        if exchange.host != "mx.dead.example":
            await exchange.become(Healthy())
    await relay.client.ask(Retry(filter=f"group={json.dumps(WHY)}"))
    await internet.wait_for(3)
    await relay.settled()
    assert [one.group for one in await relay.client.reasons()] == ["4.4.1 connection refused by [<ip>]:<n>"]


async def test_mail_that_has_not_been_tried_has_no_reason(internet: Internet, relay: Relay) -> None:
    await internet.add("later.example", mx=[(10, "mx.later.example", Dead())])
    assert await relay.client.reasons() == ()
    await relay.send("a@later.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert entry.group
    assert (await relay.client.queue(f"group={json.dumps(entry.group)}")).rows[0].group == entry.group


async def test_hostile_words_make_a_reason_that_is_harmless_and_can_be_acted_on(
    internet: Internet, relay: Relay
) -> None:
    nasty = b'450 4.2.0 \x1b]52;c;AAAA\x07 "\\quoted\\" * \xff\xfe \xe2\x80\xae [/bold][@click=app.quit] 12345\r\n'
    await internet.add("nasty.example", mx=[(10, "mx.nasty.example", Script({"RCPT": nasty}))])
    await relay.send("a@nasty.example")
    await relay.settled()
    (one,) = await relay.client.reasons()
    assert one.group.isprintable()
    quoted = one.group.replace("\\", "\\\\").replace('"', '\\"')
    assert (await relay.client.queue(f'group="{quoted}"')).total == 1
