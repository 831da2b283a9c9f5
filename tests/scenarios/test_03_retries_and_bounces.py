"""3. What fails for now is tried again on schedule; what fails for good is returned to its sender, once."""

import email
import email.policy

import aiosmtplib
import pytest

from engine.model.verbs import Override, Suspend
from engine.sandbox.exchanges import Action
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import Dead, Disconnecting, Greylisting, Healthy, Refusing, Script
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.smtp import smtp_client

DAY = 86_400.0


async def home(internet: Internet) -> None:
    """Give the sender's own domain an exchange, for bounces."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])


async def test_greylisting_is_waited_out(internet: Internet, relay: Relay) -> None:
    await internet.add("grey.example", mx=[(10, "mx.grey.example", Greylisting(290))])
    await relay.send("bob@grey.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert (entry.last.code, entry.last.enhanced, entry.attempts) == (451, "4.7.1", 1)
    assert 290 <= entry.due - relay.clock.now() <= 319  # the host has said how long
    await relay.later(331)
    assert internet.messages == 1


async def test_the_intervals_grow(internet: Internet, relay: Relay) -> None:
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 later"}))])
    await relay.send("bob@later.example")
    await relay.settled()
    waits = []
    for _ in range(7):
        (entry,) = await relay.entries()
        waits.append(entry.due - relay.clock.now())
        await relay.later(waits[-1] + 0.001)
    for wait, planned in zip(waits, (300, 600, 1200, 2400, 3600, 7200, 7200), strict=True):
        assert planned <= wait <= planned * 1.1 + 0.1


async def test_a_permanent_refusal_is_returned_to_the_sender(internet: Internet, relay: Relay) -> None:
    await home(internet)
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    await relay.send("bob@fort.example")
    await internet.wait_for(1)
    await relay.settled()
    (bounce,) = internet.delivered
    assert (bounce.sender, bounce.recipients) == ("", ("ann@example.com",))
    report = email.message_from_bytes(bounce.content, policy=email.policy.default)
    assert report.get_content_type() == "multipart/report"
    assert b"554 5.7.1" in bounce.content
    assert await relay.entries() == ()
    assert [event.kind for event in await relay.events("returned")] == ["returned"]


async def test_a_bounce_that_bounces_ends_there(internet: Internet, relay: Relay) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Refusing())])
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    await relay.send("bob@fort.example")
    await relay.settled()
    await relay.settled()
    assert await relay.entries() == ()
    assert [event.kind for event in await relay.events("returned", "discarded")] == ["returned", "discarded"]


async def test_after_five_days_it_is_returned_with_the_last_reply(internet: Internet, relay: Relay) -> None:
    await home(internet)
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 mailbox locked"}))])
    await relay.send("bob@later.example")
    await relay.settled()
    await relay.later(5 * DAY - 10)
    assert len(await relay.entries()) == 1
    await relay.later(20)
    await relay.settled()
    delayed, bounce = internet.delivered
    assert b"Action: delayed" in delayed.content
    assert b"Status: 5.4.7" in bounce.content
    assert b"mailbox locked" in bounce.content


async def test_mail_that_was_never_tried_is_tried_once_before_it_is_returned(internet: Internet, relay: Relay) -> None:
    await home(internet)
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.client.ask(Suspend(destination="dead.example", seconds=30 * DAY, note="test"))
    await relay.send("bob@dead.example")
    await relay.later(5 * DAY + 10)
    assert await relay.events("returned") == []
    await relay.later(25 * DAY)
    await relay.settled()
    (returned,) = await relay.events("returned")
    assert returned.outcome is not None
    assert "refused" in returned.outcome.text
    internet.delivered.pop(0)  # of the delay
    assert [delivery.recipients for delivery in internet.delivered] == [("ann@example.com",)]


async def test_a_domain_that_does_not_exist_is_returned_at_once(internet: Internet, relay: Relay) -> None:
    await home(internet)
    await relay.send("bob@nowhere.example")
    await internet.wait_for(1)
    assert b"Status: 5.1.2" in internet.delivered[0].content


async def test_a_null_mx_is_returned_with_5_1_10(internet: Internet, relay: Relay) -> None:
    await home(internet)
    internet.dns.add("no-mail.example", "MX", "0 .")
    await relay.send("bob@no-mail.example")
    await internet.wait_for(1)
    assert b"Status: 5.1.10" in internet.delivered[0].content


async def test_dns_trouble_never_bounces(internet: Internet, relay: Relay) -> None:
    internet.dns.behave("ill.example", Fault.SERVFAIL)
    await relay.send("bob@ill.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert (entry.last.kind, entry.last.enhanced) == ("transient", "4.4.3")


async def test_a_connection_lost_after_the_final_dot_is_tried_again_and_told(internet: Internet, relay: Relay) -> None:
    await internet.add("twice.example", mx=[(10, "mx.twice.example", Disconnecting("content", delivers=True))])
    await relay.send("bob@twice.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert entry.last.may_duplicate
    (deferred,) = await relay.events("deferred")
    assert "twice" in deferred.text


async def test_a_lost_connection_does_not_cost_the_messages_behind_it(internet: Internet, relay: Relay) -> None:
    replies = [Action.DROP, None]
    (exchange,) = await internet.add("hiccup.example", mx=[(10, "mx.hiccup.example", Dead())])
    for number in range(4):
        await relay.send(f"u{number}@hiccup.example")
    await relay.settled()
    await exchange.become(Script({"MAIL": replies}))
    await relay.later(1000)
    assert exchange.sessions == 1  # not pressed upon a peer that hung up
    await relay.later(1000)
    assert exchange.messages == 4
    assert await relay.entries() == ()


async def test_hostile_replies_are_recorded_and_harmless(internet: Internet, relay: Relay) -> None:
    nasty = b"450 4.2.0 \x1b]52;c;AAAA\x07 \xff\xfe \xe2\x80\xae [/bold][@click=app.quit]x\r\n"
    await internet.add("nasty.example", mx=[(10, "mx.nasty.example", Script({"RCPT": nasty}))])
    await relay.send("bob@nasty.example")
    await relay.settled()
    (entry,) = await relay.entries()
    assert entry.last is not None
    assert entry.last.text.isprintable()
    assert entry.attempts == 1


async def test_a_message_is_refused_for_a_loop_before_it_goes_round_again(internet: Internet, relay: Relay) -> None:
    received = b"Received: from a by b; Fri, 20 Nov 2026 00:00:00 +0000\r\n" * 51
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        with pytest.raises(aiosmtplib.SMTPDataError, match=r"5\.4\.6") as refused:
            await smtp.sendmail("ann@example.com", ["bob@example.org"], received + LETTER)
    assert refused.value.code == 554


async def test_a_loop_of_two_relays_ends_with_one_bounce(internet: Internet, clock: FakeClock) -> None:
    (home,) = await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    another = relaying(internet, clock=clock, hostname="other.example.net")
    async with relaying(internet, clock=clock) as one, another as other:
        for here, there in ((one, other), (other, one)):
            door = there.engine.smtp.addresses[0]
            await here.client.ask(
                Override(destination="loop.example", to=f"{door.host}:{door.port}", seconds=3600, note="a mistake")
            )
        await one.send("bob@loop.example")
        await internet.wait_for(1, seconds=30)
        for relay in (one, other):
            await relay.settled()
        assert home.messages == 1
        (bounce,) = home.delivered
        assert (bounce.sender, b"5.4.6" in bounce.content) == ("", True)
        returned = [event for relay in (one, other) for event in await relay.events("returned")]
        assert len(returned) == 1
        assert [await relay.entries() for relay in (one, other)] == [(), ()]
