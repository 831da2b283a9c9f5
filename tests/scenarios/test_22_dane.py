"""22. DANE (RFC 7672): TLSA records in signed zones prove a host, whatever the authorities say."""

import logging
from pathlib import Path

import pytest
import uvloop
from msgspec.structs import replace

from engine.dns.lookups import LookupFailed
from engine.sandbox.certificates import Certificate
from engine.sandbox.exchanges import Temper
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import Encrypted, Healthy
from engine.settings.settings import TlsRules
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.scenarios.securing import level, rules, said, why_kept

__all__ = ["rules"]

MX = "mx.example.org"
EVERY: tuple[Certificate, ...] = ("good", "self-signed", "wrong name", "expired")
UNUSABLE = ("0 0 1 " + "00" * 32, "1 1 1 " + "00" * 32, "3 2 1 " + "00" * 32, "3 1 9 00")


async def signed(internet: Internet, temper: Temper, *, mx_too: bool = False) -> None:
    await internet.add("example.org", mx=[(10, MX, temper)])
    internet.dns.sign(MX, *(["example.org"] if mx_too else []))


@pytest.mark.parametrize("certificate", EVERY)
@pytest.mark.parametrize(("selector", "matching"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])
async def test_a_record_of_the_certificate_itself_proves_it_whatever_it_says(
    internet: Internet, clock: FakeClock, certificate: Certificate, selector: int, matching: int
) -> None:
    await signed(internet, Encrypted(certificate))
    internet.tlsa(MX, internet.certificates.tlsa(MX, certificate, selector=selector, matching=matching))
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        await relay.settled()
        assert internet.delivered[0].tls
        assert f"TLS verified is required: DANE: TLSA records of _{internet.port}._tcp.{MX}" in await said(relay)


@pytest.mark.parametrize("temper", [Encrypted("good"), Encrypted("broken"), Healthy()], ids=lambda t: t.word)
async def test_a_host_that_its_records_do_not_prove_gets_nothing(
    internet: Internet, clock: FakeClock, temper: Temper
) -> None:
    await signed(internet, temper)
    internet.tlsa(MX, "3 1 1 " + "ab" * 32)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        why = await why_kept(relay)
        assert why.startswith("4.7.")
        assert "DANE: TLSA records of _" in why


@pytest.mark.parametrize(
    ("certificate", "delivered"), [("good", True), ("wrong name", False), ("expired", False), ("self-signed", False)]
)
@pytest.mark.parametrize(("selector", "matching"), [(0, 0), (1, 1), (0, 2)])
async def test_a_record_of_the_authority_proves_what_it_signed_under_the_right_name(
    internet: Internet, clock: FakeClock, certificate: Certificate, delivered: bool, selector: int, matching: int
) -> None:
    await signed(internet, Encrypted(certificate))
    internet.tlsa(MX, internet.certificates.tlsa(MX, usage=2, selector=selector, matching=matching))
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert internet.messages == delivered
        if not delivered:
            assert (await why_kept(relay)).startswith("4.7.5 ")


@pytest.mark.parametrize("mx_is_signed", [True, False])
async def test_the_name_of_the_domain_will_do_where_its_mx_is_signed(
    internet: Internet, clock: FakeClock, mx_is_signed: bool
) -> None:
    await internet.add("wrong-name.example", mx=[(10, MX, Encrypted("wrong name"))])
    internet.dns.sign(*(["wrong-name.example"] if mx_is_signed else []))
    internet.tlsa(MX, internet.certificates.tlsa(MX, usage=2))
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@wrong-name.example")
        await relay.settled()
        assert internet.messages == mx_is_signed


@pytest.mark.parametrize("temper", [Encrypted("self-signed"), Healthy()], ids=lambda t: t.word)
async def test_records_that_cannot_be_used_still_forbid_clear_text(
    internet: Internet, clock: FakeClock, temper: Temper
) -> None:
    await signed(internet, temper)
    internet.tlsa(MX, *UNUSABLE)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        if isinstance(temper, Encrypted):
            assert internet.delivered[0].tls
        else:
            why = await why_kept(relay)
            assert why.startswith("4.7.4 TLS is required: DANE: no usable TLSA record")


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED])
async def test_records_of_a_signed_host_that_cannot_be_had_keep_the_mail(
    internet: Internet, clock: FakeClock, fault: Fault
) -> None:
    await signed(internet, Encrypted("good"))
    internet.dns.behave(f"_{internet.port}._tcp.{MX}", fault)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert (await why_kept(relay)).startswith(f"4.7.5 DANE: the TLSA records of {MX} cannot be had")
        assert internet.exchange(MX).sessions == 0


async def test_addresses_that_cannot_be_had_when_asked_for_are_no_reason_to_do_without(
    internet: Internet, clock: FakeClock
) -> None:
    await signed(internet, Healthy())
    internet.tlsa(MX, "3 1 1 " + "ab" * 32)
    internet.dns.behave(MX, Fault.SERVFAIL)
    async with relaying(internet, clock=clock, validating=True) as relay:
        with pytest.raises(LookupFailed):
            await relay.engine.tls.demand("example.org", MX, port=internet.port)


async def test_a_host_whose_zone_is_not_signed_is_not_asked_for_records(internet: Internet, clock: FakeClock) -> None:
    await internet.add("example.org", mx=[(10, MX, Healthy())])
    internet.dns.behave(f"_{internet.port}._tcp.{MX}", Fault.SERVFAIL)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        assert internet.dns.asked(f"_{internet.port}._tcp.{MX}", "TLSA") == 0


async def test_a_signed_host_without_records_is_as_any_other(internet: Internet, clock: FakeClock) -> None:
    await signed(internet, Healthy(), mx_too=True)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
        assert internet.dns.asked(f"_{internet.port}._tcp.{MX}", "TLSA") == 1


async def test_records_whose_own_answer_is_not_signed_prove_nothing(internet: Internet, clock: FakeClock) -> None:
    await signed(internet, Healthy())
    internet.dns.add(f"_{internet.port}._tcp.{MX}", "TLSA", "3 1 1 " + "ab" * 32)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert [delivery.host for delivery in internet.delivered] == [MX]
        assert await relay.events("deferred") == []


@pytest.mark.parametrize(("where", "right"), [("canonical", True), ("alias", True), ("both", False)])
async def test_of_an_alias_the_records_of_the_canonical_name_come_first(
    internet: Internet, clock: FakeClock, where: str, right: bool
) -> None:
    real = await internet.host("real.example.net", Encrypted("self-signed"))
    internet.dns.add("alias.example.org", "CNAME", "real.example.net.")
    internet.dns.add("example.org", "MX", "10 alias.example.org.")
    internet.dns.sign("alias.example.org", "real.example.net")
    true = internet.certificates.tlsa(real.host, "self-signed")
    if where in ("canonical", "both"):
        internet.tlsa("real.example.net", "3 1 1 " + "ab" * 32 if where == "both" else true)
    if where in ("alias", "both"):
        internet.tlsa("alias.example.org", true)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert internet.messages == right


async def test_of_an_alias_that_leads_out_of_the_signed_zones_its_own_records_count(
    internet: Internet, clock: FakeClock
) -> None:
    await internet.host("real.example.net", Healthy())
    internet.dns.add("alias.example.org", "CNAME", "real.example.net.")
    internet.dns.add("example.org", "MX", "10 alias.example.org.")
    internet.tlsa("alias.example.org", "3 1 1 " + "ab" * 32)
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert "4.7.4 TLS verified is required: DANE" in await why_kept(relay)


@pytest.mark.parametrize("certificate", ["good", "self-signed"])
async def test_neither_a_policy_nor_a_record_overrides_the_other(
    internet: Internet, clock: FakeClock, rules: TlsRules, certificate: Certificate
) -> None:
    await signed(internet, Encrypted(certificate))
    internet.tlsa(MX, internet.certificates.tlsa(MX, certificate))
    await internet.policy("example.org", f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 86400\n")
    async with relaying(internet, clock=clock, validating=True, tls=rules) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert internet.messages == (certificate == "good")
        demand = await relay.engine.tls.demand("example.org", MX, port=internet.port)
        assert demand.line == (
            "TLS verified is required: MTA-STS policy of example.org (enforce); "
            f"DANE: TLSA records of _{internet.port}._tcp.{MX}"
        )


async def test_a_resolver_that_does_not_validate_is_not_believed_and_the_start_says_so(
    internet: Internet, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await signed(internet, Healthy())
    internet.tlsa(MX, "3 1 1 " + "ab" * 32)
    caplog.set_level(logging.INFO)
    async with relaying(internet, clock=clock, tls=TlsRules(dane=True)) as relay:
        await relay.send("bob@example.org")
        await internet.wait_for(1)
    assert "DANE is off: dns.validating is false" in caplog.text


async def test_settings_can_turn_it_off_for_all_and_for_one(internet: Internet, clock: FakeClock) -> None:
    await signed(internet, Healthy())
    internet.tlsa(MX, "3 1 1 " + "ab" * 32)
    for changed in (TlsRules(dane=False), replace(TlsRules(), destination=level("example.org", "none"))):
        async with relaying(internet, clock=clock, validating=True, tls=changed) as relay:
            await relay.send("bob@example.org")
            await relay.settled()
    assert internet.messages == 2


def test_both_work_on_the_loop_that_the_engine_runs_on(tmp_path: Path) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with Internet(clock=clock) as internet:
            path = tmp_path / "authority.pem"
            path.write_bytes(internet.certificates.authority_pem)
            await signed(internet, Encrypted("good"))
            internet.tlsa(MX, internet.certificates.tlsa(MX, usage=2))
            await internet.policy("example.org", f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 86400\n")
            async with relaying(internet, clock=clock, validating=True, tls=TlsRules(ca_file=path)) as relay:
                await relay.send("bob@example.org")
                await internet.wait_for(1)
                await relay.settled()
                assert "MTA-STS policy of example.org (enforce); DANE: TLSA records of" in await said(relay)

    uvloop.run(main())
