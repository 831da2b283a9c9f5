"""Out through another's host: how it is spoken to."""

from pathlib import Path

import pytest

from engine.dns.hosts_file import HostsFile
from engine.model.verbs import MarkBad, MarkGood, Override
from engine.sandbox.certificates import Certificate
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, EncryptedAtOnce, Healthy, HelloOnly
from engine.settings.settings import Route
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying


@pytest.fixture
def authorities(internet: Internet, tmp_path: Path) -> Path:
    """The file of the authorities that the sandbox's good certificates come from."""
    file = tmp_path / "authorities.pem"
    file.write_bytes(internet.certificates.authority_pem)
    return file


async def said(relay: Relay) -> str:
    """What was said last of the only entry."""
    (entry,) = await relay.entries()
    assert entry.last is not None
    return entry.last.line


async def test_tls_comes_first_where_the_route_says_so(internet: Internet, clock: FakeClock, authorities: Path) -> None:
    upstream = await internet.host("up.example", EncryptedAtOnce())
    route = Route(domain="*", host="up.example", port=upstream.port, tls="implicit", ca_file=authorities)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org", times=2)
        await relay.settled()
    assert [delivery.tls for delivery in upstream.delivered] == [True, True]
    assert "STARTTLS" not in [command for _, command in upstream.commands]


@pytest.mark.parametrize("certificate", ["self-signed", "expired", "wrong name"])
async def test_a_wrong_certificate_has_nothing_though_tls_comes_first(
    internet: Internet, clock: FakeClock, authorities: Path, certificate: Certificate
) -> None:
    upstream = await internet.host("up.example", EncryptedAtOnce(certificate))
    route = Route(domain="*", host="up.example", port=upstream.port, tls="implicit", ca_file=authorities)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert "TLS verified is required: the route of *" in await said(relay)
    assert upstream.commands == upstream.delivered  # neither has anything


async def test_a_host_that_greets_in_the_clear_is_told_from_one_that_has_tls_first(
    internet: Internet, clock: FakeClock, authorities: Path
) -> None:
    upstream = await internet.host("up.example", Healthy())
    route = Route(domain="*", host="up.example", port=upstream.port, tls="implicit", ca_file=authorities)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert 'before STARTTLS: write tls = "required" or "verified"' in await said(relay)


async def test_a_host_that_waits_for_tls_is_told_from_one_that_is_dead(internet: Internet, clock: FakeClock) -> None:
    upstream = await internet.host("up.example", EncryptedAtOnce())
    route = Route(domain="*", host="up.example", port=upstream.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert "wants TLS at once at port" in await said(relay)
        assert 'write tls = "implicit"' in await said(relay)


async def test_a_stranger_that_says_nothing_is_not_dialled_again_for_that(internet: Internet, clock: FakeClock) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", EncryptedAtOnce())])
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert "no reply to greeting" in await said(relay)
    assert exchange.sessions == 1


async def test_an_old_host_is_greeted_with_helo_at_once(internet: Internet, clock: FakeClock) -> None:
    upstream = await internet.host("old.example", HelloOnly())
    route = Route(domain="*", host="old.example", port=upstream.port, form="smtp")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
    assert [command.split()[0] for _, command in upstream.commands] == ["HELO", "MAIL", "RCPT", "DATA", "QUIT"]


async def test_a_host_that_an_operator_names_may_have_its_address_on_this_machine_alone(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    upstream = await internet.host("known.example")
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{upstream.address} inner inner.example mx.stranger.example\n")
    await internet.add("stranger.example", mx=[(10, "mx.stranger.example", Healthy())])
    route = Route(domain="corp.example", host="inner", port=upstream.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        relay.engine._router._hosts_file = HostsFile(hosts)
        await relay.send("bob@corp.example", "eve@stranger.example")
        await relay.settled()
        assert [delivery.recipients for delivery in upstream.delivered] == [("bob@corp.example",)]
        await relay.client.ask(Override(destination="stranger.example", to="inner.example", seconds=3600, note="test"))
        await relay.send("eve@stranger.example")
        await relay.settled()
        assert upstream.messages == 2
    assert internet.messages == 3  # what the DNS named had the first of them


# -- several hosts -----------------------------------------------------------------------------------------------------


async def test_of_several_hosts_the_first_that_can_be_had_takes_the_mail(internet: Internet, clock: FakeClock) -> None:
    first, second = await internet.host("one.example", Dead()), await internet.host("two.example")
    route = Route(domain="*", host=("one.example", "two.example"), port=internet.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert (first.messages, second.messages) == (0, 1)
        assert [mark.host for mark in (await relay.client.hosts()).rows] == ["one.example"]
        await first.become(Healthy())
        await relay.later(3601)  # once its mark is over
        await relay.send("bob@example.org")
        await relay.settled()
        assert (first.messages, second.messages) == (1, 1)


async def test_hosts_have_their_shares_and_one_without_a_share_waits_for_the_others_to_fail(
    internet: Internet, clock: FakeClock
) -> None:
    most, some, spare = [await internet.host(f"{name}.example") for name in ("most", "some", "spare")]
    route = Route(
        domain="*", host=("spare.example", "some.example", "most.example"), weights=(0, 1, 9), port=internet.port
    )
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        for _ in range(40):  # connections
            await relay.send("bob@example.org")
            await relay.settled()
        assert most.messages + some.messages == 40
        assert 1 <= some.messages <= 12
        await most.become(Dead())
        await some.become(Dead())
        await relay.send("bob@example.org")
        await relay.settled()
        assert spare.messages == 1


async def test_hosts_that_an_operator_marked_bad_have_nothing_and_explain_says_so(
    internet: Internet, clock: FakeClock
) -> None:
    hosts = [await internet.host("one.example"), await internet.host("two.example")]
    route = Route(domain="*", host=("one.example", "two.example"), port=internet.port)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.client.ask(MarkBad(host="one.example", seconds=3600, note="their request"))
        await relay.send("bob@example.org")
        await relay.settled()
        assert [host.messages for host in hosts] == [0, 1]
        await relay.client.ask(MarkBad(host="two.example", seconds=3600, note="too"))
        await relay.send("bob@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.attempts == 0
        explained = await relay.client.explain(str(entry.message))
        assert "one.example" in str(explained.explanations)
        assert "two.example" in str(explained.explanations)
        await relay.client.ask(MarkGood(host="one.example"))
        await relay.settled()
        assert [host.messages for host in hosts] == [1, 1]
