"""15. Mail that demands more of a connection is not carried over one that was opened for mail that demands less."""

import asyncio

import pytest
from msgspec.structs import replace

from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Encrypted
from engine.settings.settings import TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.scenarios.securing import level, rules
from tests.scenarios.test_11_sites import one_each
from tests.scenarios.test_14_reuse import idles

__all__ = ["rules"]

ENFORCE = "version: STSv1\nmode: enforce\nmx: *.farm.example\nmax_age: 604800\n"
NOTHING = ENFORCE.replace("enforce", "none")
HOST = "mx.farm.example"


def announced(internet: Internet, domain: str, id: str, policy: str) -> None:
    """A policy whose announcement nobody caches."""
    internet.policies.say(domain, policy)
    internet.dns.replace(f"_mta-sts.{domain}", "TXT", f'"v=STSv1; id={id};"', ttl=0)


async def farm(internet: Internet, temper: Temper, *domains: str) -> None:
    """Domains that live on one host; those called strict enforce a policy that names it."""
    await internet.host(HOST, temper)
    for domain in domains:
        await internet.add(domain, mx=[(10, HOST)])
        if domain.startswith("strict"):
            await internet.policy(domain, ENFORCE)


async def test_a_domain_whose_policy_fails_keeps_no_other_of_its_hosts_from_going(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    domains = ("strict.example", "plain1.example", "plain2.example")
    await farm(internet, Encrypted("expired"), *domains)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        for number in range(1, 4):
            await one_each(relay, list(domains))
            await internet.wait_for(2 * number)
            await relay.settled()
        assert {each.recipients for each in internet.delivered} == {("x@plain1.example",), ("x@plain2.example",)}
        waiting = await relay.entries()
        assert {entry.destination for entry in waiting} == {"strict.example"}
        (deferred,) = {event.outcome.enhanced for event in await relay.events("deferred") if event.outcome}
        assert deferred == "4.7.5"
        await internet.exchange(HOST).become(Encrypted("good"))
        await relay.later(2000)
        assert internet.messages == 9


async def test_an_idle_connection_is_not_used_for_mail_that_demands_more(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await farm(internet, Encrypted("good"), "plain.example", "strict1.example", "strict2.example")
    async with relaying(internet, clock=clock, tls=rules, idle=2.0) as relay:
        await relay.send("a@plain.example")
        await idles(relay)
        await relay.send("b@strict1.example")
        await idles(relay, 2)
        assert internet.exchange(HOST).sessions == 2
        await relay.send("c@strict2.example")  # demands the same as the other: it goes over its connection
        await internet.wait_for(3)
        await idles(relay, 2)
        assert internet.exchange(HOST).sessions == 2
        of_strict = next(one for one in await relay.client.relayers() if "strict1.example" in one.domains)
        assert of_strict.domains == ("strict1.example", "strict2.example")


@pytest.mark.parametrize("first", ["plain.example", "later.example"])
async def test_a_policy_that_comes_while_a_connection_is_open_counts_for_the_next_message(
    internet: Internet, clock: FakeClock, rules: TlsRules, first: str
) -> None:
    await farm(internet, Encrypted("self-signed"), "plain.example", "later.example")
    await internet.policy("later.example", NOTHING)
    announced(internet, "later.example", "1", NOTHING)
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await one_each(relay, ["plain.example", "later.example"])
        await internet.wait_for(2)
        await relay.settled()
        await one_each(relay, ["later.example" if first == "plain.example" else "plain.example"])  # that had its turn
        await internet.wait_for(3)
        await relay.settled()
        announced(internet, "later.example", "2", ENFORCE)
        await one_each(relay, ["plain.example", "later.example"])
        await internet.wait_for(4)
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.destination == "later.example"
        assert entry.last is not None
        assert "MTA-STS policy of later.example" in entry.last.text


async def test_what_the_settings_demand_of_one_domain_gets_a_connection_of_its_own_and_starves_nobody(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await farm(internet, Encrypted("good"), "plain.example", "safe.example")
    rules = replace(rules, destination=level("safe.example", "verified"))
    async with relaying(internet, clock=clock, tls=rules, max_connections=1) as relay:
        for _ in range(20):
            await one_each(relay, ["plain.example", "safe.example"])
        async with asyncio.timeout(10):
            await internet.wait_for(40)
        await relay.settled()
        assert await relay.entries() == ()
