"""54. What rows, pages, health line and Explain say of waiting mail is what the engine does with it."""

import asyncio
import getpass

import pytest

from engine.model.destination import Destination
from engine.model.explanation import Explanation
from engine.model.message import Entry
from engine.model.verbs import Close, EndOverride, Hold, MarkBad, Override, Retry, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Encrypted, Healthy, Script
from engine.settings.settings import Limit, Route, TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.scenarios.securing import rules
from tests.waiting import until

__all__ = ["rules"]

MINUTE, HOUR = 60.0, 3600.0
ME = getpass.getuser()
FULL = "452 4.2.2 the inbox is over quota"


async def row(relay: Relay, id: str) -> Entry:
    return next(one for one in (await relay.client.queue()).rows if one.id == id)


async def listed(relay: Relay, name: str) -> Destination:
    """A destination, which must say the same in the list, on the overview and on its page."""
    page = await relay.client.destination(name)
    (one,) = (await relay.client.destinations(name)).rows
    shown = next(one for one in (await relay.client.overview()).destinations if one.name == name)
    for other in (one, shown):
        same = (other.condition, other.next_try, other.condition_why, other.override)
        assert same == (page.condition, page.next_try, page.condition_why, page.override)
    return page


async def explained(relay: Relay, subject: str) -> Explanation:
    (one,) = (await relay.client.explain(subject)).explanations
    return one


async def agree(relay: Relay, id: str) -> Entry:
    """A row, of which Explain says the same next try."""
    one, said = await row(relay, id), await explained(relay, id)
    assert said.earliest == (None if one.next_try is None else max(one.next_try, relay.clock.now()))
    return one


async def test_what_no_connection_is_left_for_is_limited_and_not_ready_until_there_is_one(
    internet: Internet, clock: FakeClock
) -> None:
    await internet.add("void.example", mx=[(10, "mx.void.example", BlackHole())])
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        await relay.send("a@void.example")
        await until(lambda: bool(relay.engine.smarthost.managed))
        await relay.send("b@good.example")
        await relay.engine.smarthost.check_state()
        one = await agree(relay, "2.1")
        assert (one.condition, one.next_try) == ("limited", None)
        assert one.condition_why == "delivery.max_connections: all 1 connections are in use"
        health = await relay.client.health()
        assert (health.waiting, health.due, health.ready) == (1, 1, 0)
        assert (await listed(relay, "good.example")).condition == "limited"
        (live,) = relay.engine.smarthost.managed
        await relay.client.ask(Close(relayer=live.id))
        await internet.wait_for(1)


async def test_what_a_rate_keeps_is_sent_when_it_is_said_to_be(internet: Internet, clock: FakeClock) -> None:
    (exchange,) = await internet.add("slow.example", mx=[(10, "mx.slow.example", Healthy())])
    slowly = Limit(destination="slow.example", messages_per_minute=1)
    async with relaying(internet, clock=clock, limit=(slowly,)) as relay:
        await relay.send("a@slow.example")
        await relay.settled()
        await relay.send("b@slow.example")
        await relay.engine.smarthost.check_state()
        one = await agree(relay, "2.1")
        assert one.condition == "limited"
        assert one.next_try is not None
        assert one.condition_why == "limit[slow.example].messages_per_minute: no more than 1 a minute"
        assert (await relay.client.health()).ready == 0
        await relay.later(one.next_try - clock.now() - 1)
        assert exchange.messages == 1
        await relay.later(1)
        assert exchange.messages == 2


async def test_no_next_try_comes_before_the_end_of_a_suspension(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("stuck.example", mx=[(10, "mx.stuck.example", Script({"RCPT": FULL}))])
    await relay.send("a@stuck.example")
    await relay.settled()
    begin = relay.clock.now()
    await relay.client.ask(Suspend(destination="stuck.example", seconds=HOUR, note="storm"))
    await relay.send("b@stuck.example")
    for name in ("1.1", "2.1"):
        one = await agree(relay, name)
        assert (one.condition, one.next_try) == ("suspended", begin + HOUR)
        assert one.condition_why == f"suspended by {ME}: storm"
    await relay.client.ask(Suspend(destination="*", seconds=2 * HOUR, note="racks"))
    one = await agree(relay, "2.1")
    assert (one.condition, one.next_try) == ("suspended", begin + 2 * HOUR)
    assert one.condition_why == f"the whole relay is suspended by {ME}: racks"
    page = await listed(relay, "stuck.example")
    assert (page.condition, page.next_try) == ("suspended", begin + 2 * HOUR)
    assert (await relay.client.health()).ready == 0
    tried = exchange.messages
    await relay.later(2 * HOUR - 1)
    assert (await row(relay, "1.1")).attempts == 1
    await relay.later(1)
    assert (await row(relay, "1.1")).attempts == 2
    assert exchange.messages == tried


async def test_bad_hosts_say_when_their_mail_is_tried_and_what_is_blocked_says_so(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@dead.example")
    await relay.settled()
    one = await agree(relay, "1.1")
    assert one.condition == "hosts bad"
    assert one.condition_why.startswith("its only host mx.dead.example is marked bad by engine: connection refused")
    (host,) = (await relay.client.hosts()).rows
    page = await listed(relay, "dead.example")
    assert host.next_try == page.next_try
    assert page.next_try is not None
    assert page.next_try > relay.clock.now()
    assert page.condition == "hosts bad"
    await relay.client.ask(Suspend(destination="dead.example", seconds=3 * HOUR, note=""))
    (host,) = (await relay.client.hosts()).rows
    assert host.next_try == relay.clock.now() + 3 * HOUR


async def test_what_operators_left_out_is_tried_when_the_first_mark_ends(internet: Internet, relay: Relay) -> None:
    exchanges = await internet.add(
        "two.example", mx=[(10, "mx1.two.example", Healthy()), (20, "mx2.two.example", Healthy())]
    )
    await relay.client.ask(MarkBad(host="mx1.two.example", seconds=2 * HOUR, note="slow"))
    await relay.client.ask(MarkBad(host="mx2.two.example", seconds=HOUR, note="maintenance"))
    await relay.send("a@two.example", "b@two.example")
    await relay.settled()
    one = await agree(relay, "1.1")
    assert (one.condition, one.next_try) == ("hosts bad", relay.clock.now() + HOUR)
    (why,) = await relay.client.reasons()
    assert (why.group, why.entries) == ("all exchanges are marked bad", 2)
    assert {host.next_try for host in (await relay.client.hosts()).rows} == {one.next_try}
    for _ in range(4):
        assert sum(exchange.messages for exchange in exchanges) == 0
        await relay.later(15 * MINUTE)
    assert [exchange.messages for exchange in exchanges] == [0, 1]


async def test_a_destination_says_why_its_mail_waits_and_not_what_was_said_to_other_mail(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("quota.example", mx=[(10, "mx.quota.example", Script({"RCPT": FULL}))])
    await relay.send("a@quota.example", "b@quota.example")
    await relay.settled()
    await exchange.become(Healthy())
    await relay.send("c@quota.example")
    await internet.wait_for(1)
    await relay.settled()
    page = await listed(relay, "quota.example")
    assert page.last is not None
    assert (page.last.kind, page.waiting) == ("delivered", 2)
    assert (page.condition, page.condition_why) == ("not due", FULL)
    first = min(one.due for one in (await relay.client.queue()).rows)
    assert page.next_try == first


async def test_an_override_is_shown_wherever_its_destination_is(internet: Internet, relay: Relay) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    spare = await internet.host("spare.example", Dead())
    to = f"{spare.address}:{internet.port}"
    await relay.client.ask(Override(destination="good.example", to=to, seconds=HOUR, note="test"))
    shown = (await relay.client.destination("good.example")).override
    assert shown is not None
    assert shown.to == to
    await relay.send("a@good.example")
    await relay.settled()
    page = await listed(relay, "good.example")
    assert (page.override, page.exchanges) == (shown, (spare.address,))
    await relay.client.ask(EndOverride(destination="good.example"))
    assert (await relay.client.destination("good.example")).override is None


async def test_what_is_held_beyond_its_time_is_not_said_to_be_given_up_in_no_time(
    internet: Internet, relay: Relay
) -> None:
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": FULL}))])
    await relay.send("a@later.example")
    await relay.settled()
    said = {fact.name: fact.text for fact in (await explained(relay, "1")).facts}
    assert said["tries"] == "1; will be given up in 5d"
    await relay.client.ask(Hold(filter="id=1"))
    await relay.later(6 * 24 * HOUR)
    said = {fact.name: fact.text for fact in (await explained(relay, "1")).facts}
    assert said["tries"] == "1; its time is over: it has one more try once it is released"
    assert (await row(relay, "1.1")).condition == "held"


async def test_tls_is_no_cause_once_the_host_has_delivered_over_tls(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    """The outcome of an entry is what was so when it was tried, and its host has been mended since."""
    smart = await internet.host("smart.example", Healthy())
    route = Route(domain="*", host="smart.example", port=internet.port, tls="required")
    async with relaying(internet, clock=clock, route=(route,), tls=rules) as relay:
        await relay.send("a@first.example")
        await relay.settled()
        assert (await explained(relay, "1")).cause == "TLS"
        await smart.become(Encrypted("good"))
        await clock.advance(1)
        await relay.send("b@second.example")
        await relay.settled()  # by then its way is known to be blocked
        await relay.client.ask(Retry(filter="id=2"))
        await internet.wait_for(1)
        await relay.settled()
        assert internet.delivered[0].tls
        one = await explained(relay, "1")
        assert one.cause == "not due"
        assert (await agree(relay, "1.1")).condition == "not due"


@pytest.mark.parametrize("domain", ["nowhere.example", "null.example"])
async def test_mail_that_dns_refuses_will_be_returned_and_never_sent(
    internet: Internet, relay: Relay, domain: str
) -> None:
    internet.dns.add("null.example", "MX", "0 .")
    one = await explained(relay, domain)
    assert (one.cause, one.earliest) == ("refused by DNS", None)


async def test_what_nothing_holds_back_is_on_its_way(internet: Internet, relay: Relay) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    one = await explained(relay, "good.example")
    assert (one.cause, one.text) == ("nothing", "mail for it would be sent at once: nothing holds it back")


async def test_counting_what_is_ready_is_bounded_by_what_is_due(internet: Internet, relay: Relay) -> None:
    """200 rows and the health line take the same few questions, however many destinations wait."""
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.client.ask(Suspend(destination="*", seconds=HOUR, note=""))
    await relay.send(*(f"a@d{number}.example" for number in range(200)))
    asked: list[str] = []
    readers = relay.sqlite._database.readers
    await asyncio.wrap_future(readers._console.submit(lambda: readers._connection().set_trace_callback(asked.append)))
    assert len((await relay.client.queue(limit=200)).rows) == 200
    assert len([one for one in asked if one.startswith("SELECT")]) <= 6
