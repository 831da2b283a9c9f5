"""43. A host can be asked how it is without sending it mail, and a connection can be ended without losing any."""

import asyncio
import getpass
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.control.client import Refused
from engine.delivery.relayer import ManagedRelayer
from engine.model.probe import Probed, ProbedAddress
from engine.model.verbs import Close
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import BlackHole, Busy, Dead, Encrypted, Healthy, HelloOnly, Hostile, Script
from engine.settings.settings import Route, TlsRules
from engine.smtpclient import probe as probing
from engine.smtpclient.probe import read_certificate
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.waiting import PATIENCE, until


def only(found: Probed) -> ProbedAddress:
    (one,) = found.addresses
    return one


# -- Probe ------------------------------------------------------------------------------------------------------------


async def test_a_probe_tells_greeting_extensions_and_time_and_sends_no_mail(internet: Internet, relay: Relay) -> None:
    exchange = await internet.host("mx.good.example", Healthy())
    found = await relay.client.probe("MX.good.example.")
    one = only(found)
    assert (found.host, one.port, one.trouble, one.phase) == ("mx.good.example", internet.port, "", "QUIT")
    assert one.address == exchange.address
    assert one.greeting.startswith("220 mx.good.example")
    assert {"PIPELINING", "8BITMIME", "SMTPUTF8"} <= set(one.offered)
    assert one.tls == ""
    assert one.verifies is None
    assert 0 < one.seconds < 5
    said = [command.split()[0] for _, command in exchange.commands]
    assert said == ["EHLO", "QUIT"]
    (event,) = await relay.events("probed")
    assert (event.by, event.host, event.text) == (
        getpass.getuser(), "mx.good.example", "1 of 1 addresses answered as they should",
    )  # fmt: skip


async def test_a_certificate_that_no_authority_of_ours_has_signed_is_shown_and_said_to_be_so(
    internet: Internet, relay: Relay
) -> None:
    await internet.host("mx.tls.example", Encrypted("self-signed"))
    one = only(await relay.client.probe("mx.tls.example"))
    assert (one.trouble, one.tls, one.verifies) == ("", "TLSv1.3", False)
    assert "self-signed" in one.verify_trouble or "issuer" in one.verify_trouble
    assert one.certificate is not None
    assert one.certificate.names == ("mx.tls.example",)
    assert "Self-signed" in one.certificate.issuer
    assert one.certificate.until is not None
    assert "STARTTLS" in one.offered
    assert "STARTTLS" not in one.offered_secured
    assert "PIPELINING" in one.offered_secured


@pytest.fixture
def authorities(internet: Internet, tmp_path: Path) -> Path:
    """The file of the authority that has signed the sandbox's certificates; the system's do not know it."""
    path = tmp_path / "ca.pem"
    path.write_bytes(internet.certificates.authority_pem)
    return path


@pytest.mark.parametrize(("certificate", "verifies", "why"), [("good", True, ""), ("wrong name", False, "mismatch")])
async def test_it_is_said_whether_the_certificate_would_verify_by_the_authorities_of_the_settings(
    internet: Internet, clock: FakeClock, authorities: Path, certificate: str, verifies: bool, why: str
) -> None:
    await internet.host("mx.tls.example", Encrypted(certificate))  # type: ignore[arg-type]
    async with relaying(internet, clock=clock, tls=TlsRules(ca_file=authorities)) as relay:
        one = only(await relay.client.probe("mx.tls.example"))
    assert (one.trouble, one.tls, one.verifies) == ("", "TLSv1.3", verifies)
    assert why in one.verify_trouble


async def test_the_host_of_a_route_is_probed_at_its_port_and_judged_by_its_authorities(
    internet: Internet, clock: FakeClock, authorities: Path
) -> None:
    await internet.host("smtp.provider.example", Encrypted("good"))
    await internet.host("mx.other.example", Encrypted("good"))
    port = internet.port
    route = Route(domain="*", host="smtp.provider.example", port=port, tls="verified", ca_file=authorities)
    async with relaying(internet, clock=clock, route=(route,), port=1) as relay:
        for asked in ("smtp.provider.example", f"smtp.provider.example:{port}"):
            one = only(await relay.client.probe(asked))
            assert (one.port, one.trouble, one.verifies, one.verify_trouble) == (port, "", True, "")
        other = only(await relay.client.probe(f"mx.other.example:{port}"))
        assert (other.trouble, other.verifies) == ("", False)  # the route's authorities are for its host alone


async def test_authorities_that_can_no_longer_be_read_are_told(
    internet: Internet, clock: FakeClock, authorities: Path
) -> None:
    await internet.host("mx.tls.example", Encrypted("good"))
    async with relaying(internet, clock=clock, tls=TlsRules(ca_file=authorities)) as relay:
        authorities.unlink()
        one = only(await relay.client.probe("mx.tls.example"))
    assert str(authorities) in one.trouble
    assert "No such file" in one.trouble


async def test_every_address_is_asked_and_each_tells_its_own_trouble(internet: Internet, relay: Relay) -> None:
    dead, good = await internet.host("a.example", Dead()), await internet.host("b.example", Healthy())
    internet.dns.add("both.example", "A", dead.address, good.address)
    found = await relay.client.probe("both.example")
    troubles = {one.address: one.trouble for one in found.addresses}
    assert "refused" in troubles[dead.address].lower()
    assert troubles[good.address] == ""
    assert found.summary.startswith("1 of 2 addresses answered as they should: connect")


@pytest.mark.parametrize(
    ("temper", "phase", "says"),
    [
        (Busy(), "greeting", "does not greet: 421"),
        (Encrypted("broken"), "TLS", "TLS handshake failed"),
        (Script({"EHLO": "550 5.7.1 go away", "HELO": "550 5.7.1 go away"}), "QUIT", "does not take our name: 550"),
        (HelloOnly(), "QUIT", ""),
    ],
)
async def test_what_goes_wrong_is_told_with_where(
    internet: Internet, relay: Relay, temper: Healthy, phase: str, says: str
) -> None:
    await internet.host("mx.odd.example", temper)
    one = only(await relay.client.probe("mx.odd.example"))
    assert one.phase == phase
    assert says in one.trouble
    assert bool(one.trouble) == bool(says)


async def test_a_host_that_says_nothing_is_not_waited_for_long(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "STEP_SECONDS", 0.2)
    await internet.host("mx.void.example", BlackHole())
    one = only(await relay.client.probe("mx.void.example"))
    assert (one.phase, "no reply to greeting within" in one.trouble) == ("greeting", True)


async def test_a_host_without_an_address_or_with_dns_that_fails_says_so(internet: Internet, relay: Relay) -> None:
    assert (
        "does not exist" in (await relay.client.probe("nowhere.example")).trouble
        or "no address" in (await relay.client.probe("nowhere.example")).trouble
    )
    internet.dns.add("mx.fails.example", "A", "127.0.0.1")
    internet.dns.behave("mx.fails.example", Fault.SERVFAIL)
    assert "SERVFAIL" in (await relay.client.probe("mx.fails.example")).trouble


async def test_hostile_replies_reach_nobody_as_they_came(internet: Internet, relay: Relay) -> None:
    await internet.host("mx.hostile.example", Hostile())
    found = await relay.client.probe("mx.hostile.example")
    one = only(found)
    for text in (one.greeting, *one.offered, one.trouble, found.summary, *(line.text for line in one.lines)):
        assert text.isprintable()


async def test_a_port_may_be_named_and_a_wrong_one_is_refused(internet: Internet, relay: Relay) -> None:
    exchange = await internet.host("mx.good.example", Healthy())
    assert only(await relay.client.probe(f"{exchange.address}:{internet.port}")).trouble == ""
    with pytest.raises(Refused):
        await relay.client.probe("mx.good.example:smtp")


def test_bytes_that_are_no_certificate_are_said_to_be_none() -> None:
    assert read_certificate(b"").trouble
    assert read_certificate(b"\x30\x03\x02\x01\x01").trouble
    assert ssl.OPENSSL_VERSION


# -- Close ------------------------------------------------------------------------------------------------------------


async def in_phase(relay: Relay, phase: str) -> int:
    """The id of the one live relayer, once it is in this phase."""
    await until(lambda: any(one.pace.phase == phase for one in relay.engine.smarthost.managed))
    return next(one.id for one in relay.engine.smarthost.managed if one.pace.phase == phase)


@pytest.fixture
async def alone(internet: Internet, clock: FakeClock) -> AsyncIterator[Relay]:
    """A relay that has one connection to a site."""
    async with relaying(internet, clock=clock, max_connections_per_destination=1) as relay:
        yield relay


class Waiting(Healthy):
    """Says nothing to one command, until told to go on."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.go_on = asyncio.Event()

    async def reply(self, session: object, verb: str, argument: str) -> None:
        if verb == self.at:
            await self.go_on.wait()


@pytest.mark.parametrize("at", ["connect", "MAIL", "RCPT"])
async def test_what_a_closed_connection_carried_waits_again_untried(internet: Internet, alone: Relay, at: str) -> None:
    relay = alone
    temper = Waiting(at)
    await internet.add("slow.example", mx=[(10, "mx.slow.example", temper)])
    await relay.send("a@slow.example", times=3)
    number = await in_phase(relay, {"connect": "greeting"}.get(at, at))
    result = await relay.client.ask(Close(relayer=number))
    assert f"relayer {number} to mx.slow.example is closed" in result.text
    assert relay.engine.smarthost.managed == {}
    entries = await relay.entries("state=waiting")
    assert [one.attempts for one in entries] == [0, 0, 0]
    assert [one.last for one in entries] == [None] * 3
    (event,) = await relay.events("closed")
    assert (event.by, event.destination, event.host) == (getpass.getuser(), "slow.example", "mx.slow.example")
    (gone,) = [one for one in await relay.client.relayers(ended=5) if one.id == number]
    assert gone.result == f"closed by {getpass.getuser()}"
    temper.go_on.set()


async def test_a_closed_connection_is_not_reopened_at_once_but_soon(internet: Internet, relay: Relay) -> None:
    temper = Waiting("RCPT")
    await internet.add("slow.example", mx=[(10, "mx.slow.example", temper)])
    await relay.send("a@slow.example")
    await relay.client.ask(Close(relayer=await in_phase(relay, "RCPT")))
    temper.go_on.set()
    await relay.later(20)
    assert internet.messages == 0
    assert "closed by" in (await relay.client.destination("slow.example")).blocked_why
    await relay.later(11)
    assert internet.messages == 1


async def test_after_the_final_dot_it_may_be_a_duplicate_and_that_is_on_record(
    internet: Internet, relay: Relay
) -> None:
    temper = Waiting("content")
    await internet.add("slow.example", mx=[(10, "mx.slow.example", temper)])
    await relay.send("a@slow.example")
    await relay.client.ask(Close(relayer=await in_phase(relay, "reply")))
    (entry,) = await relay.entries("state=waiting")
    assert entry.attempts == 1
    assert entry.last is not None
    assert entry.last.may_duplicate
    assert f"closed by {getpass.getuser()}" in entry.last.text
    temper.go_on.set()


async def test_closing_while_more_is_claimed_strands_nothing(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    queue, claim = relay.engine.queue, relay.engine.queue.claims.claim_site
    claiming, go_on = asyncio.Event(), asyncio.Event()
    calls = 0

    async def slowly(site: str, limit: int, relayer: int, recipients: int = 50) -> object:
        nonlocal calls
        calls += 1
        found = await claim(site, limit, relayer, recipients)
        if calls == 2:
            claiming.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(queue.claims, "claim_site", slowly)
    await relay.send("a@good.example")
    async with asyncio.timeout(PATIENCE):
        await claiming.wait()
        (relayer,) = relay.engine.smarthost.managed
        closing = asyncio.create_task(relay.client.ask(Close(relayer=relayer.id)))
        await until(lambda: any("closed by" in line.text for line in relayer.transcript.lines()))
        go_on.set()
        await closing
    await relay.send("b@good.example")
    await relay.later(31)
    assert internet.messages == 2
    assert await relay.entries() == ()


async def test_a_relayer_that_is_not_there_or_has_ended_is_not_closed(internet: Internet, relay: Relay) -> None:
    with pytest.raises(Refused, match="there is no relayer 77"):
        await relay.client.ask(Close(relayer=77))
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.send("a@good.example")
    await internet.wait_for(1)
    await relay.settled()
    with pytest.raises(Refused, match="has ended already"):
        await relay.client.ask(Close(relayer=1))


async def test_closing_twice_is_harmless(internet: Internet, alone: Relay) -> None:
    relay = alone
    temper = Waiting("RCPT")
    await internet.add("slow.example", mx=[(10, "mx.slow.example", temper)])
    await relay.send("a@slow.example", times=5)
    number = await in_phase(relay, "RCPT")
    closing = [relay.client.ask(Close(relayer=number)) for _ in range(2)]
    await asyncio.gather(*closing, return_exceptions=True)
    await relay.settled()
    assert len(await relay.entries("state=waiting")) == 5
    temper.go_on.set()
    await relay.later(31)
    assert internet.messages == 5


async def test_a_relayer_that_still_looks_for_its_way_does_not_take_the_place_of_one_that_is_closed(
    internet: Internet, alone: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was chosen before the other had come to the site; only what is connected there can be made do with."""
    relay = alone
    queue, smarthost = relay.engine.queue, relay.engine.smarthost
    router, admission = smarthost._parts.router, smarthost._admission
    claim_site, way, admit = queue.claims.claim_site, router.way, admission.admit
    coming, chosen, connected, closed = (asyncio.Event() for _ in range(4))

    async def claim(site: str, limit: int, relayer: int, recipients: int = 50) -> object:
        if relayer == 2:
            chosen.set()
            await connected.wait()
        return await claim_site(site, limit, relayer, recipients)

    async def find(destination: str) -> object:
        if connected.is_set():
            await closed.wait()
        return await way(destination)

    async def let_in(relayer: ManagedRelayer, *more: Any) -> str:
        if relayer.id == 1:
            coming.set()
            await chosen.wait()
        return await admit(relayer, *more)

    monkeypatch.setattr(queue.claims, "claim_site", claim)
    monkeypatch.setattr(router, "way", find)
    monkeypatch.setattr(admission, "admit", let_in)
    temper = Waiting("RCPT")
    await internet.add("slow.example", mx=[(10, "mx.slow.example", temper)])
    async with asyncio.timeout(PATIENCE):
        await relay.send("a@slow.example")
        await coming.wait()
        await relay.send("a@slow.example", times=2)
    assert await in_phase(relay, "RCPT") == 1
    connected.set()
    assert await in_phase(relay, "lookup") == 2
    await relay.client.ask(Close(relayer=1))
    closed.set()
    temper.go_on.set()
    await relay.settled()
    assert "closed by" in (await relay.client.destination("slow.example")).blocked_why
    assert internet.messages == 0
    await relay.later(31)
    assert internet.messages == 3
