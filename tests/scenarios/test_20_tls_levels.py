"""20. How a connection must be secured: by settings, against every kind of certificate, and without STARTTLS."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.sandbox.certificates import Certificate
from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Encrypted, Healthy, Script
from engine.settings.kinds import Tls
from engine.settings.settings import Route, TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.scenarios.securing import level, rules, said, why_kept

__all__ = ["rules"]

EVERY: tuple[Certificate, ...] = ("good", "self-signed", "wrong name", "expired")


@pytest.mark.parametrize("certificate", EVERY)
@pytest.mark.parametrize("wanted", ["none", "opportunistic", "required"])
async def test_below_verified_any_certificate_will_do(
    internet: Internet, clock: FakeClock, rules: TlsRules, wanted: Tls, certificate: Certificate
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Encrypted(certificate))])
    async with relaying(internet, clock=clock, tls=replace(rules, destination=level("example.org", wanted))) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        assert internet.delivered[0].tls == (wanted != "none")
        assert "setting tls.destination of example.org" in await said(relay)


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [("self-signed", "certificate: "), ("wrong name", "Hostname mismatch"), ("expired", "certificate has expired")],
)
async def test_verified_keeps_the_mail_from_a_host_whose_certificate_is_wrong(
    internet: Internet, clock: FakeClock, rules: TlsRules, certificate: Certificate, reason: str
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Encrypted(certificate))])
    rules = replace(rules, destination=level("example.org", "verified"))
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        why = await why_kept(relay)
        assert why.startswith("4.7.5 TLS handshake failed")
        assert reason in why
        assert "TLS verified is required: the setting tls.destination of example.org" in why
        (mark,) = relay.engine.mx.marks
        assert mark.note == why.removeprefix("4.7.5 ")
        await internet.exchange("mx.example.org").become(Encrypted("good"))
        await relay.later(400)
        assert internet.delivered[0].tls
        assert relay.engine.mx.marks == ()


async def test_verified_goes_to_the_next_exchange_where_the_best_is_not_proved(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add(
        "example.org", mx=[(10, "mx1.example.org", Encrypted("expired")), (20, "mx2.example.org", Encrypted("good"))]
    )
    async with relaying(internet, clock=clock, tls=replace(rules, destination=level("*", "verified"))) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        assert internet.delivered[0].host == "mx2.example.org"


@pytest.mark.parametrize("wanted", ["required", "verified"])
@pytest.mark.parametrize(
    ("temper", "code"),
    [
        (Healthy(), "4.7.4"),  # STARTTLS is not offered, or was stripped
        (Script({"STARTTLS": "454 4.7.0 not now"}, on=Encrypted()), "4.7.4"),
        (Script({"STARTTLS": "502 what?"}, on=Encrypted()), "4.7.4"),
        (Encrypted("broken"), "4.7.5"),
    ],
)
async def test_where_tls_is_a_must_its_failure_is_named_and_nothing_goes_in_the_clear(
    internet: Internet, clock: FakeClock, rules: TlsRules, wanted: Tls, temper: Temper, code: str
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", temper)])
    async with relaying(internet, clock=clock, tls=replace(rules, destination=level("example.org", wanted))) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        why = await why_kept(relay)
        assert why.startswith(f"{code} ")
        assert "is required: the setting tls.destination of example.org" in why


async def test_opportunistic_goes_on_where_starttls_is_stripped(internet: Internet, clock: FakeClock) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        assert "no STARTTLS is offered: going on in the clear" in await said(relay)


async def test_a_host_whose_tls_broke_is_tried_without_for_an_hour(internet: Internet, clock: FakeClock) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Encrypted("broken"))])
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        assert exchange.sessions == 2
        await relay.send("bob@example.org")
        await internet.wait_for(2)
        await relay.settled()
        assert exchange.sessions == 3
        transcript = await said(relay)
        assert "TLS is not used: it broke at " in transcript
        assert "TLS handshake failed" in transcript
        assert relay.engine.smarthost.ended[-1].tls == ""
        await exchange.become(Encrypted("good"))
        await relay.later(3601)
        await relay.send("bob@example.org")
        await internet.wait_for(3)
        assert [delivery.tls for delivery in exchange.delivered] == [False, False, True]


async def test_what_broke_when_it_was_optional_is_still_demanded_where_it_is_a_must(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    await internet.add("lax.example", mx=[(10, "mx.example.org", Encrypted("broken"))])
    await internet.add("strict.example", mx=[(10, "mx.example.org")])
    rules = replace(rules, destination=level("strict.example", "required"))
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("x@lax.example")
        await internet.wait_for(1)
        await relay.settled()
        await relay.send("y@strict.example")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert entry.last.enhanced == "4.7.5"
        assert internet.messages == 1


@pytest.mark.parametrize("certificate", ["good", "expired"])
async def test_a_route_may_want_its_host_verified(
    internet: Internet, clock: FakeClock, rules: TlsRules, certificate: Certificate
) -> None:
    upstream = await internet.host("up.example", Encrypted(certificate))
    route = Route(domain="*", host="up.example", port=upstream.port, tls="verified", ca_file=rules.ca_file)
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert upstream.messages == (certificate == "good")
        if certificate == "expired":
            assert "TLS verified is required: the route of *" in await why_kept(relay)


async def test_what_is_set_for_a_destination_counts_on_its_route_too(
    internet: Internet, clock: FakeClock, rules: TlsRules
) -> None:
    upstream = await internet.host("up.example", Healthy())
    route = Route(domain="*", host="up.example", port=upstream.port)
    rules = replace(rules, destination=level("bank.example", "required"))
    async with relaying(internet, clock=clock, route=(route,), tls=rules) as relay:
        await relay.send("x@bank.example")
        await relay.settled()
        assert "TLS is required: the setting tls.destination of bank.example" in await why_kept(relay)
        await relay.send("x@shop.example")
        await internet.wait_for(1)


async def test_authorities_that_cannot_be_read_keep_the_mail_and_say_so(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Encrypted())])
    rules = TlsRules(ca_file=tmp_path / "gone.pem", destination=level("example.org", "verified"))
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert (await why_kept(relay)).startswith("4.3.5 the authorities to trust cannot be read: no such file")
