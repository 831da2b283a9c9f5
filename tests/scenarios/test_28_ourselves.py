"""28. Mail that would come back to us goes no round: our names, our addresses, and a peer that greets as we do."""

import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.control.client import Refused
from engine.delivery.routes import NetworkRefused, untried
from engine.dns.mx import LookupFailed, NoExchange, OwnName
from engine.model.message import Entry
from engine.model.probe import Probed
from engine.model.verbs import Override
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from engine.settings.names import network
from engine.settings.ourselves import Interfaces, Ourselves, address_in, is_localhost, is_number, leads_nowhere
from engine.settings.settings import Listen, Route, TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.serving import free_port

HOUR = 3600.0


@pytest.fixture
async def internet(clock: FakeClock) -> AsyncIterator[Internet]:
    """As elsewhere, but its port is nobody's on 127.0.0.1 either: the relay listens on it."""
    async with Internet(clock=clock, smtp_port=free_port()) as internet:
        yield internet


@asynccontextmanager
async def looping(internet: Internet, clock: FakeClock, **settings: Any) -> AsyncIterator[Relay]:
    """A relay that takes mail at the very port that it sends to, as those on port 25 do."""
    async with relaying(
        internet, clock=clock, listen=(Listen("127.0.0.1", internet.port),), **{"port": internet.port, **settings}
    ) as relay:
        yield relay


async def ended(relay: Relay) -> list[str]:
    """Why mail could not be sent for good, of every message of which that is so."""
    every = await relay.events("returned", "discarded")
    return [event.outcome.line for event in every if event.outcome is not None]


# -- by the DNS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record", ["10 us.example.", "10 127.0.0.1.", "10 0.0.0.0.", "10 localhost.", "10 mx.localhost.", "10 2130706433.",
               "10 0x7f000001.", "10 127.1.", "10 0.", "10 mapped.example.", "10 zero.example.", "10 any6.example."]
)  # fmt: skip
async def test_an_exchange_that_is_this_relay_returns_the_mail_at_once_with_one_notice(
    internet: Internet, clock: FakeClock, record: str
) -> None:
    internet.dns.add("loop.example", "MX", record)
    internet.dns.add("us.example", "A", "127.0.0.1")
    internet.dns.add("mapped.example", "AAAA", "::ffff:127.0.0.1")
    internet.dns.add("zero.example", "A", "0.0.0.0")
    internet.dns.add("any6.example", "AAAA", "::")
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    async with looping(internet, clock) as relay:
        await relay.send("bob@loop.example")
        await relay.settled()
        accepted = await relay.events("accepted")
        assert len(accepted) == 2, "the message, and the notice of it; no round"
        (why,) = await ended(relay)
        assert "loops back to this relay" in why
        (notice,) = internet.delivered
        assert notice.recipients == ("ann@example.com",)
        assert b"5.4.6" in notice.content
        assert relay.engine.mx.marks == ()


async def test_the_domain_s_own_address_and_a_literal_may_be_ours_too(internet: Internet, clock: FakeClock) -> None:
    internet.dns.add("bare.example", "A", "127.0.0.1")
    async with looping(internet, clock) as relay:
        await relay.send("bob@bare.example", sender="")
        await relay.send("bob@[127.0.0.1]", sender="")
        await relay.send("bob@[IPv6:::ffff:127.0.0.1]", sender="")
        await relay.settled()
        assert len(await relay.events("accepted")) == 3
        assert len(await ended(relay)) == 3
        assert not await relay.entries()


async def test_better_hosts_are_tried_and_none_that_is_no_better_than_we(internet: Internet, clock: FakeClock) -> None:
    await internet.add("example.org", mx=[(10, "best.example", Dead()), (30, "worse.example", Healthy())])
    internet.dns.add("example.org", "MX", "20 us.example.")
    internet.dns.add("us.example", "A", "127.0.0.1")
    async with looping(internet, clock) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert (entry.state, internet.messages) == ("waiting", 0)
        assert internet.exchange("worse.example").sessions == 0
        await internet.exchange("best.example").become(Healthy())
        await relay.engine.mx.mark_good("best.example")
        await relay.later(HOUR)
        assert [one.host for one in internet.delivered] == ["best.example"]


async def test_localhost_ends_the_list_as_our_name_does_and_a_number_is_only_left_out(
    internet: Internet, clock: FakeClock
) -> None:
    for domain, best in (("named.example", "localhost"), ("numbered.example", "2130706433")):
        await internet.add(domain, mx=[(20, f"mx.{domain}", Healthy())])
        internet.dns.add(domain, "MX", f"10 {best}.")
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@named.example", "bob@numbered.example", sender="")
        await relay.settled()
        assert [one.host for one in internet.delivered] == ["mx.numbered.example"]
        (why,) = await ended(relay)
        assert why.startswith("5.4.6 mail for named.example loops back")


async def test_where_a_better_host_has_no_address_the_mail_waits_for_it(internet: Internet, clock: FakeClock) -> None:
    """As Postfix has it: we are a substitute, and the first one is away."""
    internet.dns.add("example.org", "MX", "10 best.example.", "20 us.example.")
    internet.dns.add("best.example", "TXT", '"moving house"')
    internet.dns.add("us.example", "A", "127.0.0.1")
    async with looping(internet, clock) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        entry = await waiting(relay)
        assert entry.last is not None
        assert entry.last.enhanced == "4.4.6"
        assert "no better host is to be had: the host best.example has no address" in entry.last.text


async def waiting(relay: Relay) -> Entry:
    (entry,) = await relay.entries()
    assert entry.state == "waiting"
    return entry


async def test_what_the_dns_says_of_loopback_is_said_of_this_machine_but_in_a_sandbox(
    internet: Internet, clock: FakeClock
) -> None:
    """Its port is not one that we listen on: a neighbour's, on this machine, who expects no mail of strangers."""
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@example.org", sender="")
        await relay.settled()
        assert internet.messages == 1
    async with relaying(internet, clock=clock, loopback_exchanges=False) as relay:
        await relay.send("bob@example.org", sender="")
        await relay.settled()
        assert internet.messages == 1
        (why,) = await ended(relay)
        assert "which is this machine itself" in why


async def test_an_address_that_is_no_hosts_is_not_dialled(internet: Internet, clock: FakeClock) -> None:
    internet.dns.add("many.example", "A", "224.0.0.251")
    internet.dns.add("all.example", "A", "255.255.255.255")
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@many.example", "bob@all.example", sender="")
        await relay.settled()
        texts = await ended(relay)
        assert len(texts) == 2
        assert all("is one that mail can be sent to" in text for text in texts)


# -- a peer that is we ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["connect", "EHLO"])
async def test_a_peer_with_our_own_name_is_this_relay_behind_an_address_we_do_not_know(
    internet: Internet, clock: FakeClock, at: str
) -> None:
    """As behind a router that translates addresses, or a container's ports."""
    said = {"connect": "220 Relay.Example.NET ESMTP", "EHLO": "250 relay.example.net greets you"}[at]
    await internet.add("example.org", mx=[(10, "mx.example.org", Script({at: said})), (20, "worse.example", Healthy())])
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@example.org", sender="")
        await relay.settled()
        (why,) = await ended(relay)
        assert "greets with our own name" in why
        assert internet.messages == 0
        assert internet.exchange("worse.example").sessions == 0
        assert internet.exchange("mx.example.org").sessions == 1
        assert relay.engine.mx.marks == ()


async def test_a_route_whose_host_greets_as_we_do_returns_no_mail(internet: Internet, clock: FakeClock) -> None:
    await internet.host("smart.example", Script({"connect": "220 relay.example.net ESMTP"}))
    route = Route(domain="*", host="smart.example", port=internet.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        entry = await waiting(relay)
        assert entry.last is not None
        assert entry.last.enhanced == "4.4.6"
        assert "routed to this relay itself" in entry.last.text


# -- by an operator ---------------------------------------------------------------------------------------------------


async def test_an_override_to_ourselves_is_refused(internet: Internet, clock: FakeClock) -> None:
    internet.dns.add("us.example", "A", "127.0.0.1")
    async with relaying(internet, clock=clock) as relay:
        port = relay.engine.smtp.addresses[0].port
        for to in (f"127.0.0.1:{port}", f"us.example:{port}", f"localhost:{port}", f"[IPv6:::ffff:127.0.0.1]:{port}",
                   "0.0.0.0", "2130706433", "relay.example.net", "Relay.Example.NET:2526"):  # fmt: skip
            with pytest.raises(Refused, match="this relay itself") as refused:
                await relay.client.ask(Override(destination="x.example", to=to, seconds=HOUR, note=""))
            assert refused.value.refusal.where == "to"
            assert "another takes mail" in refused.value.refusal.allowed
        await internet.host("spare.example", Healthy())
        for to in (f"127.0.0.1:{port - 1}", "spare.example", f"us.example:{internet.port}", "nowhere.example"):
            await relay.client.ask(Override(destination="x.example", to=to, seconds=HOUR, note=""))


async def test_an_override_that_leads_here_only_later_keeps_the_mail(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock) as relay:
        port = relay.engine.smtp.addresses[0].port
        ask = Override(destination="x.example", to=f"later.example:{port}", seconds=HOUR, note="")
        await relay.client.ask(ask)
        internet.dns.add("later.example", "A", "127.0.0.1")
        relay.engine.mx._lookups._cache.flush()
        await relay.send("bob@x.example")
        await relay.settled()
        entry = await waiting(relay)
        assert entry.last is not None
        assert entry.last.enhanced == "4.4.6"
        assert "overridden to this relay itself" in entry.last.text
        (explained,) = (await relay.client.explain("bob@x.example")).explanations
        assert "overridden to this relay itself" in explained.text
        probed = await relay.client.probe("mx.localhost")
        assert isinstance(probed, Probed)


async def test_explain_says_that_the_mail_would_come_back_before_any_is_sent(
    internet: Internet, clock: FakeClock
) -> None:
    internet.dns.add("loop.example", "MX", "10 us.example.")
    internet.dns.add("us.example", "A", "127.0.0.1")
    async with looping(internet, clock) as relay:
        (explained,) = (await relay.client.explain("bob@loop.example")).explanations
        assert explained.cause == "refused by DNS"
        assert f"where this relay listens, on 127.0.0.1:{internet.port}" in explained.text


# -- networks that are refused ----------------------------------------------------------------------------------------


async def test_to_a_network_that_is_refused_nobody_sends_by_the_dns_or_a_literal(
    internet: Internet, clock: FakeClock
) -> None:
    (exchange,) = await internet.add("inside.example", mx=[(10, "db.inside.example", Healthy())])
    (other,) = await internet.add("both.example", mx=[(20, "mx.both.example", Healthy())])
    internet.dns.add("both.example", "MX", "10 db.inside.example.")
    refused = (network(f"{exchange.address}/32"),)
    async with relaying(internet, clock=clock, refuse_networks=refused) as relay:
        await relay.send("a@inside.example", f"a@[{exchange.address}]", sender="")
        await relay.settled()
        assert exchange.sessions == 0
        texts = await ended(relay)
        assert len(texts) == 2
        assert all("5.7.1" in text and "delivery.refuse_networks" in text for text in texts)
        (explained,) = (await relay.client.explain("a@inside.example")).explanations
        assert "delivery.refuse_networks" in explained.text
        await relay.send("a@both.example", sender="")
        await internet.wait_for(1)
        assert other.messages == 1
        ask = Override(destination="inside.example", to="db.inside.example", seconds=HOUR, note="")
        await relay.client.ask(ask)  # an operator knows what he names
        await relay.send("a@inside.example", sender="")
        await internet.wait_for(2)
        assert exchange.messages == 1


async def test_no_policy_is_fetched_from_a_network_that_is_refused(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    """A recipient's domain names that server, too."""
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    await internet.policy("example.org", "version: STSv1\nmode: enforce\nmx: other.example.org\nmax_age: 86400\n")
    authority = tmp_path / "authority.pem"
    authority.write_bytes(internet.certificates.authority_pem)
    for refused, delivered in (((network(f"{internet.policies.address}/32"),), True), ((), False)):
        async with relaying(internet, clock=clock, refuse_networks=refused, tls=TlsRules(ca_file=authority)) as relay:
            before = internet.messages
            await relay.send("bob@example.org")
            await relay.settled()
            assert internet.messages - before == delivered
            assert bool(internet.policies.asked["example.org"]) != delivered


# -- what is said of several ------------------------------------------------------------------------------------------


def test_that_nobody_is_dialled_is_for_good_only_where_no_host_may_come_back() -> None:
    ours, none = OwnName("we are the host"), NoExchange("it has no address")
    refused, unknown = NetworkRefused("we send nothing there"), LookupFailed("DNS gave no answer")
    assert untried(None, ours) is ours
    for better in (none, unknown):
        for pair in ((better, ours), (ours, better)):
            found = untried(*pair)
            assert (found.outcome.kind, found.outcome.enhanced) == ("transient", "4.4.6")
            assert better.outcome.text in found.outcome.text
    for before, error in ((refused, ours), (ours, refused), (none, refused), (refused, none)):
        assert untried(before, error) is error
    assert untried(none, unknown) is unknown is untried(unknown, none)


# -- the one that decides ---------------------------------------------------------------------------------------------


def ours(*listening: str, loopback: bool = False, interfaces: tuple[str, ...] = ()) -> Ourselves:
    found = [Listen(host, int(port)) for host, _, port in (one.rpartition(":") for one in listening)]
    return Ourselves(
        listening=lambda: found,
        loopback_exchanges=loopback,
        interfaces=lambda: frozenset(map(ipaddress.ip_address, interfaces)),
    )


@pytest.mark.parametrize(
    ("listening", "address", "port", "is_ours"),
    [
        ("192.0.2.1:25", "192.0.2.1", 25, True),
        ("192.0.2.1:25", "::ffff:192.0.2.1", 25, True),
        ("192.0.2.1:25", "192.0.2.1", 587, False),
        ("192.0.2.1:25", "192.0.2.2", 25, False),
        ("0.0.0.0:25", "192.0.2.7", 25, True),
        ("0.0.0.0:25", "192.0.2.8", 25, False),
        ("0.0.0.0:25", "127.9.9.9", 25, True),
        ("0.0.0.0:25", "2001:db8::7", 25, False),
        (":::25", "2001:db8::7", 25, True),
        (":::25", "2001:db8::8", 25, False),
        (":::25", "fe80::1%eth0", 25, True),
        ("localhost:2525", "127.0.0.1", 2525, True),
        ("127.0.0.1:2525", "127.0.0.2", 2525, False),
        ("127.0.0.1:2525", "0.0.0.0", 25, True),
        ("127.0.0.1:2525", "0.1.2.3", 25, True),
        ("127.0.0.1:2525", "::", 25, True),
        ("127.0.0.1:2525", "mx.example", 2525, False),
    ],
)
def test_what_we_listen_on_is_ours(listening: str, address: str, port: int, is_ours: bool) -> None:
    one = ours(listening, loopback=True, interfaces=("192.0.2.7", "2001:db8::7", "fe80::1"))
    assert bool(one.why(address, port, by_dns=True)) == is_ours
    assert bool(one.why(address, port, by_dns=False)) == is_ours


def test_loopback_is_ours_where_the_dns_names_it_and_an_operator_may_mean_a_neighbour() -> None:
    one = ours("127.0.0.1:25")
    for address in ("127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"):
        assert one.why(address, 10025, by_dns=True)
        assert not one.why(address, 10025, by_dns=False)


def test_numbers_and_localhost_are_told_from_names() -> None:
    for number in ("0", "1", "127.1", "2130706433", "0x7f000001", "0X7F.1", "017700000001", "1.2.3", "999.1.1.1"):
        assert is_number(number), number
    for name in ("192.0.2.1", "mx1.example", "1.example", "0xg", "a", "1e", "::1", "7.example.1x"):
        assert not is_number(name), name
    assert is_localhost("localhost")
    assert is_localhost("mx.localhost")
    assert not is_localhost("localhost.example")
    assert [leads_nowhere(each) for each in ("224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1", "mx")] == [
        True, True, True, False, False]  # fmt: skip


def test_this_machines_addresses_are_known() -> None:
    found = Interfaces()()
    assert address_in("127.0.0.1") in found
    for address in found:
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
            if not address.is_link_local:
                probe.bind((str(address), 0))
