"""40. Explain names the one true cause of why mail is not moving, and tells the rest as facts."""

import getpass

import pytest

from engine.control.client import Refused
from engine.model.explanation import Explanation
from engine.model.verbs import Bounce, Close, Hold, HoldRule, MarkBad, Override, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import BlackHole, Dead, Healthy, Script
from engine.settings.settings import Limit, Route
from tests.clock import FakeClock
from tests.scenarios.relaying import QUICK, Relay, relaying
from tests.waiting import until

MINUTE, HOUR = 60.0, 3600.0
ME = getpass.getuser()


async def explained(relay: Relay, subject: str) -> Explanation:
    """The one explanation of what is asked for."""
    (one,) = (await relay.client.explain(subject)).explanations
    return one


def facts(one: Explanation, name: str) -> str:
    return " | ".join(fact.text for fact in one.facts if fact.name == name)


@pytest.fixture
async def deferred(internet: Internet, relay: Relay) -> Internet:
    """One message for stuck.example, which has said "later" once; it is due in five minutes."""
    await internet.add("stuck.example", mx=[(10, "mx.stuck.example", Script({"RCPT": "450 4.2.1 over quota"}))])
    await relay.send("a@stuck.example")
    await relay.settled()
    return internet


# -- ten stuck messages -----------------------------------------------------------------------------------------------


async def test_not_due(deferred: Internet, relay: Relay) -> None:
    one = await explained(relay, "1")
    assert one.cause == "not due"
    assert "450 4.2.1 over quota" in one.text
    (entry,) = await relay.entries()
    assert one.until == one.earliest == entry.due
    assert one.entry == "1.1"


async def test_held(deferred: Internet, relay: Relay) -> None:
    await relay.client.ask(Hold(filter="id=1", note="look at it"))
    one = await explained(relay, "1.1")
    assert one.cause == "held"
    assert one.text == f"it is held by {ME} (look at it) until it is released"
    assert one.earliest is None
    assert "not due" in facts(one, "also")


async def test_held_by_a_rule(deferred: Internet, relay: Relay) -> None:
    await relay.client.ask(HoldRule(filter="from=*@example.com", seconds=2 * HOUR, note="runaway"))
    one = await explained(relay, "1")
    assert one.cause == "held"
    assert one.text == f"it is held by hold rule 1 of {ME} (runaway), from=*@example.com, for another 2h"
    assert one.until == one.earliest == relay.clock.now() + 2 * HOUR


async def test_suspended(deferred: Internet, relay: Relay) -> None:
    await relay.client.ask(Suspend(destination="stuck.example", seconds=2 * HOUR, note="maintenance"))
    one = await explained(relay, "1")
    assert one.cause == "suspended"
    assert one.text == f"stuck.example is suspended by {ME} (maintenance) for another 2h"
    assert one.until == one.earliest == relay.clock.now() + 2 * HOUR


async def test_the_whole_relay_suspended_comes_before_all_else(deferred: Internet, relay: Relay) -> None:
    await relay.client.ask(Hold(filter="id=1"))
    await relay.client.ask(Suspend(destination="stuck.example", seconds=2 * HOUR, note=""))
    await relay.client.ask(Suspend(destination="*", seconds=HOUR, note="storm"))
    one = await explained(relay, "1")
    assert (one.cause, "(storm) for another 1h" in one.text) == ("relay suspended", True)
    assert one.earliest is None
    assert "held by" in facts(one, "also")
    assert "stuck.example is suspended" in facts(one, "also")


async def test_its_only_host_bad(internet: Internet, relay: Relay) -> None:
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@dead.example")
    await relay.settled()
    one = await explained(relay, "1")
    assert one.cause == "hosts bad"
    assert "its only host mx.dead.example is marked bad by engine: connection refused" in one.text
    assert "refused" in one.text
    assert one.earliest is not None
    assert relay.clock.now() < one.earliest < relay.clock.now() + 10 * MINUTE
    assert "marked bad by engine" in facts(one, "host mx.dead.example")


async def test_all_hosts_marked_bad_by_operators(internet: Internet, relay: Relay) -> None:
    await internet.add("two.example", mx=[(10, "mx1.two.example", Healthy()), (20, "mx2.two.example", Healthy())])
    await relay.client.ask(MarkBad(host="mx1.two.example", seconds=2 * HOUR, note="slow"))
    await relay.client.ask(MarkBad(host="mx2.two.example", seconds=HOUR, note="maintenance"))
    await relay.send("a@two.example")
    await relay.settled()
    one = await explained(relay, "1")
    assert one.cause == "hosts bad"
    assert one.text.startswith("every exchange of two.example is marked bad:")
    assert f"mx2.two.example by {ME} (maintenance)" in one.text
    assert one.until == relay.clock.now() + HOUR


async def test_a_connection_limit_with_the_settings_name(internet: Internet, clock: FakeClock) -> None:
    await internet.add("void.example", mx=[(10, "mx.void.example", BlackHole())])
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        await relay.send("a@void.example")
        await until(lambda: bool(relay.engine.smarthost.managed))
        await relay.send("b@good.example")
        one = await explained(relay, "2")
        assert one.cause == "limit"
        assert one.text.startswith("delivery.max_connections: all 1 connections")
        assert one.earliest is None
        first = await explained(relay, "1")
        assert first.cause == "being relayed"
        assert "in greeting for" in first.text


async def test_a_connection_limit_of_one_destination_with_its_name(internet: Internet, clock: FakeClock) -> None:
    await internet.add("void.example", mx=[(10, "mx.void.example", BlackHole())])
    async with relaying(internet, clock=clock, limit=(Limit(destination="void.example", connections=1),)) as relay:
        await relay.send("a@void.example")
        await until(lambda: bool(relay.engine.smarthost.managed))
        await relay.send("b@void.example")
        one = await explained(relay, "2")
        assert (one.cause, one.earliest) == ("limit", None)
        assert one.text == "limit[void.example].connections: 1 of 1 open"


async def test_a_rate_limit_with_its_name_and_its_end(internet: Internet, clock: FakeClock) -> None:
    (exchange,) = await internet.add("corporate.example", mx=[(10, "mx.corporate.example", Healthy())])
    slowly = Limit(destination="corporate.example", messages_per_minute=1)
    async with relaying(internet, clock=clock, limit=(slowly,)) as relay:
        await relay.send("a@corporate.example")
        await relay.settled()
        await relay.send("b@corporate.example")
        await relay.engine.smarthost.check_state()
        one = await explained(relay, "2")
        assert one.cause == "rate"
        assert one.text == "limit[corporate.example].messages_per_minute: no more than 1 a minute"
        assert one.until is not None
        assert one.until == one.earliest == pytest.approx(clock.now() + MINUTE, abs=1)
        await relay.later(MINUTE + 1)
        assert exchange.messages == 2


async def test_dns_that_answers_servfail(internet: Internet, relay: Relay) -> None:
    internet.dns.behave("fails.example", Fault.SERVFAIL)
    await relay.send("a@fails.example")
    await relay.settled()
    one = await explained(relay, "1")
    assert one.cause == "DNS"
    assert "SERVFAIL" in one.text
    assert "MX of fails.example" in one.text
    internet.dns.behave("fails.example", None)
    await internet.add("fails.example", mx=[(10, "mx.fails.example", Healthy())])
    one = await explained(relay, "1")
    assert one.cause in ("not due", "blocked")  # it answers again: what is left is the waiting time
    assert "SERVFAIL" in one.text


async def test_tls_required_but_broken(internet: Internet, clock: FakeClock) -> None:
    await internet.host("smart.example", Healthy())
    route = Route(domain="*", host="smart.example", port=internet.port, tls="required")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("a@good.example")
        await relay.settled()
        one = await explained(relay, "1")
        assert one.cause == "TLS"
        assert "does not offer STARTTLS" in one.text
        assert "smart.example" in one.text
        assert facts(one, "host smart.example").endswith("TLS required (the route of *)")


# -- other causes -----------------------------------------------------------------------------------------------------


async def test_to_be_bounced_until_it_is_undone(deferred: Internet, relay: Relay) -> None:
    await relay.client.ask(Bounce(filter="id=1", note="gone"))
    one = await explained(relay, "1")
    assert one.cause == "to be bounced"
    assert f"by order of {ME} (gone) in 10s, unless undone" in one.text
    assert one.earliest is None


async def test_the_next_try_of_what_is_due_is_when_its_destination_is_blocked_no_more(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@dead.example")
    await relay.settled()
    await relay.send("b@dead.example")
    await relay.settled()
    (_, second) = (await relay.client.queue()).rows
    one = await explained(relay, second.id)
    assert second.next_try is not None
    assert second.due <= relay.clock.now() < second.next_try
    assert one.earliest == second.next_try


async def test_blocked_after_a_connection_that_was_closed(internet: Internet, relay: Relay) -> None:
    await internet.add("void.example", mx=[(10, "mx.void.example", BlackHole())])
    await relay.send("a@void.example")
    await until(lambda: bool(relay.engine.smarthost.managed))
    (live,) = relay.engine.smarthost.managed
    await relay.client.ask(Close(relayer=live.id))
    one = await explained(relay, "1")
    assert one.cause == "blocked"
    assert f"closed by {ME}" in one.text
    assert one.until == relay.clock.now() + 30


async def test_a_domain_that_does_not_exist_will_have_its_mail_returned(relay: Relay) -> None:
    one = await explained(relay, "bob@nowhere.example")
    assert one.cause == "refused by DNS"
    assert "does not exist" in one.text
    assert one.earliest is None


async def test_an_override_to_a_dead_host_is_among_the_facts(internet: Internet, relay: Relay) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await internet.host("spare.example", Dead())
    await relay.client.ask(Override(destination="good.example", to="spare.example", seconds=HOUR, note="test"))
    await relay.send("a@good.example")
    await relay.settled()
    one = await explained(relay, "1")
    assert one.cause == "hosts bad"
    assert "its only host spare.example" in one.text
    assert facts(one, "route") == f"overridden by {ME} (test): to spare.example instead of its own hosts"


# -- what can be asked ------------------------------------------------------------------------------------------------


async def test_an_address_without_mail_gets_a_dry_run(internet: Internet, relay: Relay) -> None:
    (best, _) = await internet.add(
        "good.example", mx=[(10, "mx1.good.example", Healthy()), (20, "mx2.good.example", Healthy())]
    )
    one = await explained(relay, "Bob@Good.example")
    assert (one.cause, one.entry, one.destination) == ("nothing", "", "good.example")
    assert one.earliest == relay.clock.now()
    assert facts(one, "DNS") == "mail exchanges mx1.good.example (10), mx2.good.example (20)"
    assert facts(one, "host mx1.good.example") == f"{best.address}; TLS opportunistic (the default)"
    assert "0 of 100 open (delivery.max_connections)" in facts(one, "connections")
    await relay.client.ask(HoldRule(filter="to=*@good.example", seconds=HOUR, note="wait"))
    assert (await explained(relay, "bob@good.example")).cause == "held"
    assert (await explained(relay, "good.example")).cause == "held"
    assert await relay.entries() == ()


async def test_an_address_with_mail_is_explained_by_its_mail(deferred: Internet, relay: Relay) -> None:
    await relay.send("a@stuck.example", "b@stuck.example")
    await relay.settled()
    found = (await relay.client.explain("a@stuck.example")).explanations
    assert [one.entry for one in found] == ["1.1", "2.1"]
    assert {one.cause for one in found} == {"not due"}
    assert len((await relay.client.explain("2")).explanations) == 2


@pytest.mark.parametrize("address", ["a@stuck.example", "a*a@stuck.example"])
async def test_an_address_is_explained_by_its_own_mail_among_many_alike(
    deferred: Internet, relay: Relay, address: str
) -> None:
    await relay.client.ask(Hold(filter="id=1"))
    await relay.send(*(f"j{number}a*aa@stuck.example" for number in range(60)))
    await relay.send(*(f"j{number}a@stuck.example" for number in range(60)))
    await relay.settled()
    if "*" in address:
        await relay.send(address)
        await relay.settled()
    one, *_ = (await relay.client.explain(address)).explanations
    assert one.cause == ("not due" if "*" in address else "held")


async def test_a_domain_is_explained_by_what_of_it_is_due_first(deferred: Internet, relay: Relay) -> None:
    one = await explained(relay, "stuck.example")
    assert (one.cause, one.subject) == ("not due", "stuck.example")
    await relay.client.ask(Hold(filter="domain=stuck.example"))
    assert (await explained(relay, "stuck.example")).cause == "held"


async def test_a_message_that_has_left_is_said_to_have_left(internet: Internet, relay: Relay) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.send("a@good.example")
    await relay.settled()
    with pytest.raises(Refused, match=r"1 has left the queue: delivered a@good\.example") as refused:
        await relay.client.explain("1")
    assert refused.value.refusal.not_found
    with pytest.raises(Refused, match="no message 99"):
        await relay.client.explain("99")


@pytest.mark.parametrize("subject", ["*", "two words", "a@b@c", "@", "x" * 401, "not/a domain"])
async def test_what_names_nothing_is_refused_with_what_is_allowed(relay: Relay, subject: str) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.explain(subject)
    assert refused.value.refusal.allowed


async def test_dns_that_is_silent_is_not_waited_for_long(
    internet: Internet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.delivery.explain.LOOKUP_SECONDS", 0.2)
    internet.dns.behave("silent.example", Fault.SILENT)
    async with relaying(internet, clock=clock, timeouts=QUICK) as relay:
        one = await explained(relay, "silent.example")
        assert (one.cause, "no answer" in one.text) == ("DNS", True)
