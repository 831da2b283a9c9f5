"""11. Destinations whose exchanges are the same hosts are one site: they share connections and limits."""

import asyncio

from msgspec.structs import replace

from engine.model.message import NewMessage
from engine.model.verbs import MarkBad, MarkGood, Suspend
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import BlackHole, Busy, Dead, Healthy, Refusing, Script, Slow
from engine.settings.settings import Route
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, QUICK, Relay, relaying
from tests.waiting import PATIENCE

FARM = [(10, "mx1.farm.example"), (20, "mx2.farm.example")]


async def farm(internet: Internet, count: int, temper: Healthy | Dead | Slow | BlackHole | Script) -> list[str]:
    """Domains that live on one provider of two hosts, of which the first has this temper."""
    await internet.host("mx1.farm.example", temper)
    await internet.host("mx2.farm.example", temper)
    domains = [f"customer{number}.example" for number in range(count)]
    for domain in domains:
        await internet.add(domain, mx=FARM)
    return domains


async def one_each(relay: Relay, domains: list[str]) -> None:
    """Queue one message for each domain, all at once."""
    await asyncio.gather(
        *(
            relay.enqueue(
                NewMessage(sender="ann@example.com", recipients=(f"x@{domain}",), content=LETTER, origin="test")
            )
            for domain in domains
        )
    )


async def test_a_burst_of_small_domains_of_one_provider_shares_few_connections(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock, max_connections_per_destination=3) as relay:
        domains = await farm(internet, 300, Slow(0.002))
        await one_each(relay, domains)
        await internet.wait_for(300, seconds=30)
        await relay.settled()
        first = internet.exchange("mx1.farm.example")
        assert first.most_open <= 3
        assert first.sessions < 150  # not one for each domain: a session ends here as soon as it has no more mail
        assert await relay.entries() == ()
        assert {recipient for each in internet.delivered for recipient in each.recipients} == {
            f"x@{domain}" for domain in domains
        }


async def test_the_next_mail_for_known_domains_goes_over_one_connection(internet: Internet, relay: Relay) -> None:
    domains = await farm(internet, 30, Healthy())
    await one_each(relay, domains)
    await internet.wait_for(30)
    await relay.settled()
    for domain in domains:
        await relay.client.ask(Suspend(destination=domain, seconds=600, note="test"))
    await one_each(relay, domains)
    sessions = internet.exchange("mx1.farm.example").sessions
    await relay.later(601)
    assert internet.messages == 60
    assert internet.exchange("mx1.farm.example").sessions - sessions <= 5


async def test_a_relayer_tells_its_site_and_its_domains(internet: Internet, relay: Relay) -> None:
    await one_each(relay, await farm(internet, 12, Healthy()))
    await internet.wait_for(12)
    await relay.settled()
    ended = await relay.client.relayers(ended=100)
    assert {one.site for one in ended} <= {"mx1.farm.example"}
    carried = [domain for one in ended if one.done for domain in one.domains]
    assert len(carried) == len(set(carried)) == 12


async def test_a_dead_provider_costs_one_connection_at_a_time_and_not_one_for_each_domain(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock) as relay:
        domains = await farm(internet, 50, Dead())
        await one_each(relay, domains)
        await relay.settled()
        tried = [entry for entry in await relay.entries() if entry.attempts]
        assert 1 <= len(tried) <= 3
        assert len(await relay.events("unreachable")) <= 3
        for host in ("mx1.farm.example", "mx2.farm.example"):
            await internet.exchange(host).become(Healthy())
        await relay.later(1000)
        assert internet.messages == 50


async def test_a_message_for_two_domains_of_a_site_goes_to_both(internet: Internet, relay: Relay) -> None:
    await farm(internet, 2, Healthy())
    await relay.send("warm@customer0.example", "warm@customer1.example")
    await internet.wait_for(2)
    await relay.settled()
    await relay.send("x@customer0.example", "y@customer1.example")
    await internet.wait_for(4)
    await relay.settled()
    assert await relay.entries() == ()


async def test_a_domain_that_has_moved_is_not_sent_where_it_was(internet: Internet, relay: Relay) -> None:
    domains = await farm(internet, 3, Healthy())
    for domain in domains:
        internet.dns.replace(domain, "MX", *(f"{number} {host}." for number, host in FARM), ttl=0)
    await one_each(relay, domains)
    await internet.wait_for(3)
    await relay.settled()
    await internet.host("mx.new.example", Healthy())
    internet.dns.replace("customer2.example", "MX", "10 mx.new.example.", ttl=0)
    await one_each(relay, domains)
    await internet.wait_for(6)
    await relay.settled()
    (delivery,) = internet.exchange("mx.new.example").delivered
    assert delivery.recipients == ("x@customer2.example",)


async def test_dns_trouble_of_one_domain_leaves_the_others_of_its_site_alone(internet: Internet, relay: Relay) -> None:
    domains = await farm(internet, 4, Healthy())
    for domain in domains:
        internet.dns.replace(domain, "MX", *(f"{number} {host}." for number, host in FARM), ttl=0)
    await one_each(relay, domains)
    await internet.wait_for(4)
    await relay.settled()
    internet.dns.behave("customer0.example", Fault.SERVFAIL)
    await one_each(relay, domains)
    await internet.wait_for(7)
    await relay.settled()
    (entry,) = await relay.entries()
    assert (entry.destination, entry.attempts) == ("customer0.example", 1)


async def test_a_provider_marked_bad_by_an_operator_costs_no_attempt_and_comes_back(
    internet: Internet, relay: Relay
) -> None:
    domains = await farm(internet, 40, Healthy())
    for host in ("mx1.farm.example", "mx2.farm.example"):
        await relay.client.ask(MarkBad(host=host, seconds=600, note="maintenance"))
    await one_each(relay, domains)
    await relay.settled()
    assert internet.messages == 0
    assert not any(entry.attempts for entry in await relay.entries())
    await relay.client.ask(MarkGood(host="mx2.farm.example"))
    await internet.wait_for(40)
    assert {delivery.host for delivery in internet.delivered} == {"mx2.farm.example"}


async def test_a_big_site_does_not_starve_a_small_one(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        domains = await farm(internet, 60, Slow(0.001))
        await internet.add("small.example", mx=[(10, "mx.small.example", Healthy())])
        await one_each(relay, domains)
        await relay.settled()
        await one_each(relay, [*domains, *domains, "small.example"])
        await internet.wait_for(181, seconds=30)
        (small,) = internet.exchange("mx.small.example").delivered
        after = [one for one in internet.exchange("mx1.farm.example").commands if one[1].startswith("MAIL")]
        assert small.recipients == ("x@small.example",)
        assert len(after) == 180


async def test_the_domains_of_a_route_share_its_host(internet: Internet, clock: FakeClock) -> None:
    upstream = await internet.host("upstream.example", Slow(0.002))
    route = Route(domain="*", host="upstream.example", port=upstream.port)
    async with relaying(internet, clock=clock, route=(route,), max_connections_per_destination=2) as relay:
        await one_each(relay, [f"anywhere{number}.example" for number in range(60)])
        await internet.wait_for(60)
        assert upstream.most_open <= 2


# -- trying hosts -----------------------------------------------------------------------------------------------------


async def test_five_dead_addresses_of_one_family_do_not_hide_the_other(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, timeouts=replace(QUICK, connect=0.2)) as relay:
        (exchange,) = await internet.add("mixed.example", mx=[(20, "mx2.mixed.example", Healthy())])
        internet.dns.add("mixed.example", "MX", "10 mx1.mixed.example.")
        internet.dns.add("mx1.mixed.example", "AAAA", *(f"2001:db8::{number}" for number in range(1, 9)))
        await relay.send("a@mixed.example")
        await internet.wait_for(1)
        assert exchange.messages == 1


async def test_one_attempt_tries_so_many_addresses_and_no_more(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_addresses=3) as relay:
        hosts = [(number, f"mx{number}.many.example", Dead()) for number in range(10, 18)]
        await internet.add("many.example", mx=hosts)
        await relay.send("a@many.example")
        await relay.settled()
        assert sorted(mark.host for mark in relay.engine.mx.marks) == [
            f"mx{number}.many.example" for number in (10, 11, 12)
        ]


async def test_two_hosts_that_turn_us_away_are_enough_for_one_attempt(internet: Internet, relay: Relay) -> None:
    hosts = await internet.add(
        "busy.example", mx=[(10 * number, f"mx{number}.busy.example", Busy()) for number in range(1, 5)]
    )
    await relay.send("a@busy.example")
    await relay.settled()
    assert [host.sessions for host in hosts] == [1, 1, 0, 0]
    marks = {mark.host: mark.note for mark in relay.engine.mx.marks}
    assert set(marks) == {"mx1.busy.example", "mx2.busy.example"}
    assert "421 4.3.2" in marks["mx1.busy.example"]


async def test_where_a_session_breaks_before_anything_was_taken_the_next_host_is_tried_once(
    internet: Internet, relay: Relay
) -> None:
    first, second = await internet.add(
        "moody.example",
        mx=[
            (10, "mx1.moody.example", Script({"MAIL": "421 4.3.2 going down"})),
            (20, "mx2.moody.example", Healthy()),
        ],
    )
    await relay.send("a@moody.example")
    await internet.wait_for(1)
    await relay.settled()
    assert (first.sessions, second.messages) == (1, 1)
    assert await relay.events("deferred") == []


async def test_what_the_first_session_came_to_stands_where_the_next_host_is_of_no_use(
    internet: Internet, relay: Relay
) -> None:
    await internet.add(
        "moody.example",
        mx=[(10, "mx1.moody.example", Script({"MAIL": "421 4.3.2 going down"})), (20, "mx2.moody.example", Dead())],
    )
    await relay.send("a@moody.example", times=3)
    await relay.settled()
    attempts = [entry.attempts for entry in await relay.entries()]
    assert sorted(attempts)[-1] == 1
    (deferred,) = {event.outcome.line for event in await relay.events("deferred") if event.outcome}
    assert deferred == "421 4.3.2 going down"


async def test_a_permanent_refusal_is_not_taken_to_the_next_host(internet: Internet, relay: Relay) -> None:
    _, second = await internet.add(
        "fort.example", mx=[(10, "mx1.fort.example", Refusing()), (20, "mx2.fort.example", Healthy())]
    )
    await relay.send("a@fort.example", sender="")
    await relay.settled()
    assert second.sessions == 0
    assert await relay.entries() == ()


async def test_a_mark_that_does_not_help_lasts_longer_each_time_until_the_host_delivers(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await relay.send("a@dead.example")
    await relay.settled()
    lasting = []
    for _ in range(60):
        (mark,) = relay.engine.mx.marks
        lasting.append(round(mark.until - relay.clock.now()))
        await relay.later(1000)
    steps = sorted({round(seconds / 3600) for seconds in lasting if seconds % 3600 == 0})
    assert steps[:4] == [1, 2, 4, 8]
    assert max(lasting) <= 8 * 3600
    (host,) = (await relay.client.hosts()).rows
    assert host.times >= 4
    await exchange.become(Healthy())
    await relay.later(8000)
    assert (internet.messages, relay.engine.mx.marks) == (1, ())
    await exchange.become(Dead())
    await relay.send("b@dead.example")
    await relay.settled()
    (mark,) = relay.engine.mx.marks
    assert mark.until - relay.clock.now() == 3600


# -- stalling ---------------------------------------------------------------------------------------------------------


class Holding(Healthy):
    """Says nothing at MAIL until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go = asyncio.Event(), asyncio.Event()

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "MAIL":
            self.reached.set()
            await self.go.wait()
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


async def test_a_relayer_past_half_of_its_phases_time_stalls(internet: Internet, clock: FakeClock) -> None:
    holding = Holding()
    async with relaying(internet, clock=clock, timeouts=replace(QUICK, mail=10)) as relay:
        await internet.add("slow.example", mx=[(10, "mx.slow.example", holding)])
        await relay.send("a@slow.example")
        await asyncio.wait_for(holding.reached.wait(), PATIENCE)
        await clock.advance(4)
        (one,) = await relay.client.relayers()
        assert (one.phase, one.stalling) == ("MAIL", False)
        await clock.advance(2)
        (one,) = await relay.client.relayers()
        assert one.stalling
        holding.go.set()
        await internet.wait_for(1)


async def test_with_the_usual_time_outs_it_stalls_after_twenty_seconds(internet: Internet, clock: FakeClock) -> None:
    holding = Holding()
    async with relaying(internet, clock=clock, timeouts=replace(QUICK, mail=300, attempt=1800)) as relay:
        await internet.add("slow.example", mx=[(10, "mx.slow.example", holding)])
        await relay.send("a@slow.example")
        await asyncio.wait_for(holding.reached.wait(), PATIENCE)
        await clock.advance(21)
        (one,) = await relay.client.relayers()
        assert one.stalling
        holding.go.set()
        await internet.wait_for(1)
