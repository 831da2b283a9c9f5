"""The demo's world is complete, and traffic reaches it."""

import email
import email.policy
import random
import tempfile
from pathlib import Path

import pytest

from engine.dns.lookups import resolver_for
from engine.sandbox import world
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.letters import Letters
from engine.sandbox.tempers import Refusing, Script
from engine.sandbox.traffic import Traffic
from engine.settings.settings import TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.waiting import PATIENCE, until


async def test_the_standard_world_has_a_few_dozen_domains_and_every_temper(internet: Internet) -> None:
    await internet.populate()
    assert len(internet.weights) >= 36
    tempers = {type(exchange.temper).__name__ for exchange in internet.exchanges.values()}
    assert tempers >= {
        "Healthy", "HelloOnly", "Encrypted", "Slow", "Tarpit", "Greylisting", "Busy", "RateLimiting", "Refusing",
        "TemporarilyFailing", "Dead", "BlackHole", "Disconnecting", "Hostile",
    }  # fmt: skip
    resolver = resolver_for([internet.nameserver], timeout=PATIENCE, lifetime=PATIENCE)
    for domain, _, mx in world.DOMAINS:
        if mx:
            answer = await resolver.resolve(domain, "MX")
            assert len(answer) == len(mx)
    for host, exchange in internet.exchanges.items():
        answer = await resolver.resolve(host, "A")
        assert [record.to_text() for record in answer] == [exchange.address]
    assert all(name.endswith(".example") for name in [*internet.weights, *internet.exchanges])


def test_letters_are_varied_and_well_formed() -> None:
    letters = Letters({"a.example": 3.0, "b.example": 1.0, "never.example": 0.0}, random.Random(7))
    written = [letters.write() for _ in range(300)]
    assert {len(letter.recipients) for letter in written} == {1, 2, 3}
    assert all(500 < len(letter.content) < 41 * 1024 for letter in written)
    assert any(not letter.subject.isprintable() for letter in written)
    assert not any(address.endswith("@never.example") for letter in written for address in letter.recipients)
    for letter in written:
        assert b"\n" not in letter.content.replace(b"\r\n", b"")
        assert max(map(len, letter.content.split(b"\r\n"))) <= 998
        parsed = email.message_from_bytes(letter.content, policy=email.policy.default)
        if letter.subject.isprintable():
            assert parsed["Subject"] == letter.subject


def test_letters_need_somebody_to_write_to() -> None:
    with pytest.raises(ValueError, match="nobody"):
        Letters({"a.example": 0.0})


@pytest.fixture
async def relay(internet: Internet) -> Exchange:
    """Something that takes mail where a relay would."""
    return await internet.host("relay.example")


async def test_traffic_sends_as_many_letters_as_asked_over_one_connection(internet: Internet, relay: Exchange) -> None:
    traffic = Traffic(relay.address, relay.port, {"a.example": 1.0}, rate=1000, count=20, draw=random.Random(1))
    async with traffic:
        await traffic.finished(10)
    assert (traffic.sent, traffic.refused, traffic.lost) == (20, 0, 0)
    assert (relay.messages, relay.sessions) == (20, 1)


async def test_traffic_goes_on_after_a_refusal_and_a_lost_connection(internet: Internet, relay: Exchange) -> None:
    relay.temper = Script({"RCPT": ["550 5.1.1 no", None], "content": [None, "421 4.3.2 later", None]})
    traffic = Traffic(relay.address, relay.port, {"a.example": 1.0}, rate=1000, count=4, draw=random.Random(2))
    async with traffic:
        await traffic.finished(10)
    assert (traffic.sent, traffic.refused, traffic.lost) == (3, 1, 1)
    assert (relay.messages, relay.sessions) == (3, 2)


async def test_traffic_stops_when_it_is_told_to(internet: Internet, relay: Exchange) -> None:
    relay.temper = Refusing()
    async with Traffic(relay.address, relay.port, {"a.example": 1.0}, rate=1000) as traffic:
        await until(lambda: traffic.refused > 0)
    assert relay.messages == 0


async def test_two_internets_live_side_by_side(clock: FakeClock, internet: Internet) -> None:
    async with Internet(clock=clock) as other:
        here, there = await internet.host("mx.example"), await other.host("mx.example")
        assert (here.address, here.port) != (there.address, there.port)


async def test_a_relay_in_the_demo_gets_mail_to_those_that_are_proved_and_to_no_others(internet: Internet) -> None:
    """One domain of each kind: MTA-STS and DANE, with the right certificate and with another."""
    await internet.populate()
    authority = internet.certificates.authority_pem
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(authority)
        file.flush()
        rules = TlsRules(ca_file=Path(file.name))
        async with relaying(internet, clock=FakeClock(), tls=rules, validating=True) as relay:
            for domain in ("sealed", "lapsed-seal", "fingerprint", "smudged-print"):
                await relay.send(f"a@{domain}.example")
            await internet.wait_for(2)
            await relay.settled()
            assert {one.host for one in internet.delivered} == {"mx.sealed.example", "mx.fingerprint.example"}
            why = {entry.destination: entry.last.enhanced for entry in await relay.entries() if entry.last}
            assert why == {"lapsed-seal.example": "4.7.5", "smudged-print.example": "4.7.5"}
