"""Out through another's host: how it is spoken to."""

from pathlib import Path

import pytest

from engine.sandbox.certificates import Certificate
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import EncryptedAtOnce, Healthy, HelloOnly
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


async def test_an_old_host_is_greeted_with_helo_at_once(internet: Internet, clock: FakeClock) -> None:
    upstream = await internet.host("old.example", HelloOnly())
    route = Route(domain="*", host="old.example", port=upstream.port, form="smtp")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
    assert [command.split()[0] for _, command in upstream.commands] == ["HELO", "MAIL", "RCPT", "DATA", "QUIT"]
