"""23. TLS 1.0, 1.1 and old ciphers are better than clear text where nothing more is asked (RFC 7435), and only there"""

import logging
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest
import trustme
from msgspec.structs import replace

from engine.sandbox.exchanges import Action, Temper
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Encrypted, Healthy
from engine.settings.kinds import Tls
from engine.settings.settings import TlsRules
from engine.tls import contexts
from engine.tls.secured import Secured
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.scenarios.securing import level, rules, said, why_kept

__all__ = ["rules"]

HOST = "mx.old.example"
OLD = {
    "TLS 1.0": (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0"),
    "TLS 1.1": (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
    "TLS 1.2, CBC with SHA-1": (ssl.TLSVersion.TLSv1_2, "ECDHE-RSA-AES128-SHA:@SECLEVEL=0"),
    "TLS 1.2, no forward secrecy": (ssl.TLSVersion.TLSv1_2, "AES128-SHA:@SECLEVEL=0"),
}


def knows_only(internet: Internet, host: str, version: ssl.TLSVersion, ciphers: str) -> None:
    """Have a host know one version of TLS, and these ciphers; its certificate is good, and has an RSA key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    leaf = internet.certificates._intermediate.issue_cert(host, key_type=trustme.KeyType.RSA)
    leaf.configure_cert(context)
    internet.certificates._made[host, "good"] = (leaf, context)


@pytest.mark.parametrize("old", OLD)
async def test_a_host_that_knows_nothing_better_gets_its_mail_under_what_it_knows(
    internet: Internet, clock: FakeClock, rules: TlsRules, caplog: pytest.LogCaptureFixture, old: str
) -> None:
    caplog.set_level(logging.INFO, "engine")
    (exchange,) = await internet.add("old.example", mx=[(10, HOST, Encrypted("good"))])
    knows_only(internet, HOST, *OLD[old])
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@old.example")
        await exchange.wait_for(1)
        await relay.settled()
        assert exchange.delivered[0].tls
        assert exchange.sessions == 1
        words = f"{old.partition(',')[0]}, certificate trusted"
        assert f"secured: {words}" in await said(relay)
        (shown,) = await relay.client.relayers(ended=5)
        assert (shown.secured, shown.trusted) == (words, True)
        (delivered,) = await relay.events("delivered")
        assert delivered.outcome is not None
        assert delivered.outcome.secured == words
        assert f"[{exchange.address}]:{exchange.port}, {words}" in caplog.text


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("wanted", ["required", "verified"])
async def test_where_more_is_asked_nothing_goes_under_less_than_tls_1_2(
    internet: Internet, clock: FakeClock, rules: TlsRules, old: str, wanted: Tls
) -> None:
    await internet.add("old.example", mx=[(10, HOST, Encrypted("good"))])
    knows_only(internet, HOST, *OLD[old])
    async with relaying(internet, clock=clock, tls=replace(rules, destination=level("old.example", wanted))) as relay:
        await relay.send("bob@old.example")
        await relay.settled()
        assert (await why_kept(relay)).startswith("4.7.5 TLS handshake failed")


async def test_dane_asks_for_more_too(internet: Internet, clock: FakeClock, rules: TlsRules) -> None:
    await internet.add("old.example", mx=[(10, HOST, Encrypted("good"))])
    knows_only(internet, HOST, *OLD["TLS 1.0"])
    internet.dns.sign(HOST)
    internet.tlsa(HOST, internet.certificates.tlsa(HOST))
    async with relaying(internet, clock=clock, tls=rules, validating=True) as relay:
        await relay.send("bob@old.example")
        await relay.settled()
        assert "DANE: TLSA records of _" in await why_kept(relay)


def test_what_both_know_best_is_offered_first_and_nothing_that_hides_nothing() -> None:
    offered = [cipher["name"] for cipher in contexts.opportunistic().get_ciphers()]
    assert all("NULL" not in name and "ADH" not in name and "AECDH" not in name for name in offered)
    assert offered[0].startswith("TLS_")
    assert "GCM" in offered[3]
    assert offered.index("ECDHE-RSA-AES128-SHA") < offered.index("AES128-SHA")
    assert contexts.opportunistic().options & ssl.OP_NO_SSLv3


@pytest.mark.parametrize("made", [contexts.unverified, lambda: contexts.verifying(None)], ids=["any", "trusted"])
def test_what_must_be_secured_asks_for_the_same_whoever_built_python(made: Callable[[], ssl.SSLContext]) -> None:
    """Debian's Python has no defaults of its own, and takes OpenSSL's: TLS 1.2 without forward secrecy among them."""
    strict = made()
    assert strict.minimum_version == ssl.TLSVersion.TLSv1_2
    offered = [cipher["name"] for cipher in strict.get_ciphers()]
    assert offered
    assert all(name.startswith(("TLS_", "ECDHE-", "DHE-")) and not name.endswith("-SHA") for name in offered), offered
    assert not [name for name in offered if "PSK" in name or "SRP" in name]


async def test_a_probe_tells_what_such_a_host_knows(internet: Internet, clock: FakeClock, rules: TlsRules) -> None:
    await internet.add("old.example", mx=[(10, HOST, Encrypted("good"))])
    knows_only(internet, HOST, *OLD["TLS 1.1"])
    async with relaying(internet, clock=clock, tls=rules) as relay:
        (found,) = (await relay.client.probe(HOST)).addresses
        assert (found.trouble, found.tls, found.verifies) == ("", "TLSv1.1", False)
        assert "nothing as good as TLS 1.2" in found.verify_trouble


# -- one wording ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secured", "line"),
    [
        (Secured(), "clear text"),
        (Secured("TLSv1", False), "TLS 1.0, certificate not trusted"),
        (Secured("TLSv1.3", True), "TLS 1.3, certificate trusted"),
    ],
)
def test_how_a_session_is_secured_has_one_wording(secured: Secured, line: str) -> None:
    assert secured.line == line


@pytest.mark.parametrize(
    ("temper", "line"),
    [
        (Healthy(), "clear text"),
        (Encrypted("self-signed"), "TLS 1.3, certificate not trusted"),
        (Encrypted("wrong name"), "TLS 1.3, certificate not trusted"),
        (Encrypted("good"), "TLS 1.3, certificate trusted"),
    ],
    ids=["none", "self-signed", "wrong name", "good"],
)
async def test_clear_text_and_tls_with_and_without_trust_are_told_apart(
    internet: Internet, clock: FakeClock, rules: TlsRules, caplog: pytest.LogCaptureFixture, temper: Temper, line: str
) -> None:
    caplog.set_level(logging.INFO, "engine")
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", temper)])
    async with relaying(internet, clock=clock, tls=rules) as relay:
        await relay.send("bob@example.org")
        await exchange.wait_for(1)
        await relay.settled()
        (shown,) = await relay.client.relayers(ended=5)
        assert shown.secured == line
        (delivered,) = await relay.events("delivered")
        assert delivered.outcome is not None
        assert delivered.outcome.secured == line
        assert caplog.text.count(f", {line}\n") == 1


# -- what a handshake that fails costs --------------------------------------------------------------------------------


class Cut(Encrypted):
    """Cuts the handshake off, `times` times: with a reset, an end of file, or by saying nothing any more."""

    def __init__(self, how: str, times: int = 1) -> None:
        super().__init__("good")
        self.how = how
        self.times = times

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        if verb != "STARTTLS" or not self.times:
            return None
        self.times -= 1
        await session.send(b"220 2.0.0 go ahead\r\n")
        if self.how == "silence":
            return Action.SILENCE
        await session._more()  # the client's hello
        if self.how == "reset":
            return Action.DROP
        session._writer.write_eof()
        with suppress(OSError, TimeoutError):
            while await session._more():
                pass
        session._going_on = False
        return b""


@pytest.mark.parametrize("how", ["reset", "end of file", "silence"])
async def test_a_handshake_that_the_network_cuts_off_costs_the_host_its_tls_for_that_attempt_alone(
    internet: Internet, relay: Relay, how: str
) -> None:
    (exchange,) = await internet.add("cut.example", mx=[(10, "mx.cut.example", Cut(how))])
    await relay.send("a@cut.example")
    await exchange.wait_for(1)
    await relay.settled()
    await relay.send("b@cut.example")
    await exchange.wait_for(2)
    assert [delivery.tls for delivery in exchange.delivered] == [False, True]


class Alerting(Encrypted):
    """Ends each handshake with an alert (RFC 8446 6): handshake_failure or protocol_version."""

    def __init__(self, alert: int) -> None:
        super().__init__("good")
        self.alert = alert

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        if verb != "STARTTLS":
            return None
        await session.send(b"220 2.0.0 go ahead\r\n")
        await session._more()  # the client's hello
        session._going_on = False
        return bytes([21, 3, 1, 0, 2, 2, self.alert])


@pytest.mark.parametrize("alert", [40, 70])
async def test_a_handshake_that_fails_in_tls_is_remembered(internet: Internet, relay: Relay, alert: int) -> None:
    (exchange,) = await internet.add("odd.example", mx=[(10, "mx.odd.example", Alerting(alert))])
    await relay.send("a@odd.example")
    await exchange.wait_for(1)
    await relay.settled()
    assert exchange.sessions == 2
    await relay.send("b@odd.example")
    await exchange.wait_for(2)
    await relay.settled()
    assert exchange.sessions == 3
    assert "TLS is not used: it broke at " in await said(relay)
