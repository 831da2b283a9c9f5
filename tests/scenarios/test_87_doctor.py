"""87. The doctor in a sandbox internet: what he finds of names, name servers, ways out and senders, and what to do."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dns.reversename
import msgspec
import pytest

from engine.dns.lookups import resolver_for
from engine.doctor.checkup import Surroundings, checkup
from engine.model.finding import Asked, Finding
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.provider import Provider, TokenServer
from engine.sandbox.tempers import Dead, EncryptedAtOnce, Healthy, Script
from engine.settings.settings import Delivery, Dns, OAuth, Route, Settings
from engine.smtpclient.dialler import TcpDialler
from tests.clock import FakeClock
from tests.scenarios.firewalled import Firewalled
from tests.scenarios.relaying import LETTER
from tests.serving import serving
from tests.smtp import smtp_client

US = "relay.example.net"
OURS = "203.0.113.5"
NAME = "relay@shop.example"


async def _no_database(store: str, password: str) -> float:
    raise AssertionError


class Patient:
    """A relay's settings in a sandbox internet, and what the doctor says of them."""

    def __init__(self, internet: Internet, folder: Path) -> None:
        self.internet = internet
        self.folder = folder
        self.spool = folder / "spool"
        self.fields: dict[str, Any] = {}
        self.around: dict[str, Any] = {}

    def names(self, address: str, *names: str) -> None:
        """Have an address be named so."""
        self.internet.dns.replace(str(dns.reversename.from_address(address)), "PTR", *(f"{name}." for name in names))

    async def found(self, **asked: Any) -> Mapping[str, list[Finding]]:
        """What is found, by what it is of."""
        settings = Settings(
            hostname=US,
            spool=self.spool,
            delivery=Delivery(port=self.internet.port, loopback_exchanges=True),
            **self.fields,
        )
        surroundings: dict[str, Any] = {
            "resolver": resolver_for([self.internet.nameserver], timeout=0.5, lifetime=1.0, validating=True),
            "unsafe": lambda _: "",
            "time_there": _no_database,
            "dialler": TcpDialler(),
            "source": lambda _: "",
            "has_family": lambda family: family == "IPv4",
            "synchronised": lambda: True,
        }
        found = await checkup(settings, Asked(**asked), Surroundings(**(surroundings | self.around)))
        by_name: dict[str, list[Finding]] = {}
        for one in found:
            by_name.setdefault(one.name, []).append(one)
        return by_name

    async def one(self, name: str, **asked: Any) -> Finding:
        """What is found of one thing."""
        (found,) = (await self.found(**asked))[name]
        return found


@pytest.fixture
def patient(internet: Internet, tmp_path: Path) -> Patient:
    return Patient(internet, tmp_path)


# -- names ------------------------------------------------------------------------------------------------------------


async def test_a_name_that_leads_to_an_address_and_back_is_well(internet: Internet, patient: Patient) -> None:
    internet.dns.add(US, "A", OURS)
    internet.dns.add(US, "AAAA", "2001:db8::5")
    patient.names(OURS, US)
    patient.names("2001:db8::5", "other.example.net", US)
    found = await patient.found(addresses=(OURS, "2001:db8::5"))
    assert [one.result for one in (*found["hostname"], *found["address"], *found["PTR"])] == ["ok"] * 4
    assert found["PTR"][0].text == f"{OURS} is {US}, and {US} is {OURS}"


async def test_what_is_wrong_with_names_is_told_with_what_to_do(internet: Internet, patient: Patient) -> None:
    found = await patient.found(addresses=(OURS,))
    assert found["address"][0].line == (
        f"{US} has no address in the DNS; have your DNS give {US} the address that this relay sends from (A, AAAA),"
        " for many hosts look"
    )
    assert found["PTR"][0].result == "bad"
    assert found["PTR"][0].text == f"{OURS} has no name"
    patient.names(OURS, "dyn-5.isp.example")
    found = await patient.found(addresses=(OURS,))
    assert (found["PTR"][0].result, found["PTR"][0].text) == (
        "bad",
        f"{OURS} is dyn-5.isp.example, which does not lead back to it",
    )
    assert found["PTR"][0].todo == f"have whoever gave it to you name it {US}, and your DNS give {US} this address"
    patient.names(OURS, US)
    found = await patient.found(addresses=(OURS,))
    assert found["PTR"][0].todo == f"have your DNS give {US} this address"
    patient.names(OURS, "dyn-5.isp.example")
    internet.dns.add("dyn-5.isp.example", "A", OURS)
    found = await patient.found(addresses=(OURS,))
    assert found["PTR"][0].result == "warn"
    assert found["PTR"][0].todo.startswith('set hostname = "dyn-5.isp.example"')
    internet.dns.behave(str(dns.reversename.from_address(OURS)), Fault.SERVFAIL)
    assert (await patient.one("PTR", addresses=(OURS,))).result == "warn"


# -- name servers -----------------------------------------------------------------------------------------------------


async def test_name_servers_that_answer_and_validate_are_well(internet: Internet, patient: Patient) -> None:
    patient.fields["dns"] = Dns(validating=True)
    internet.dns.add("ietf.org", "A", "192.0.2.1")
    internet.dns.add("dnssec-failed.org", "A", "192.0.2.2")
    found = await patient.one("DNSSEC")
    assert (found.result, found.text) == (
        "bad",
        "dns.validating is true, and the name servers do not call ietf.org authentic, which is signed",
    )
    internet.dns.sign("ietf.org")
    found = await patient.one("DNSSEC")
    assert (found.result, found.text) == (
        "bad",
        "the name servers answer for dnssec-failed.org, whose signatures are wrong",
    )
    internet.dns.behave("dnssec-failed.org", Fault.SERVFAIL)
    all_of_it = await patient.found()
    assert [one.result for one in (*all_of_it["resolver"], *all_of_it["DNSSEC"])] == ["ok", "ok"]


@pytest.mark.parametrize("fault", [Fault.SILENT, Fault.REFUSED, Fault.SERVFAIL])
async def test_name_servers_that_do_not_answer_are_told_of(internet: Internet, patient: Patient, fault: Fault) -> None:
    internet.dns.behave("ietf.org", fault)
    found = await patient.one("resolver")
    assert found.result == "bad"
    assert "ietf.org" in found.text
    assert "/etc/resolv.conf" in found.todo


# -- ways out ---------------------------------------------------------------------------------------------------------


async def test_a_way_out_that_is_open_is_found_so_without_a_word_of_mail(internet: Internet, patient: Patient) -> None:
    (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Healthy())])
    found = await patient.one(f"port {internet.port}", probes=("big.example", "gone.example"))
    assert (found.result, found.text) == ("ok", "open over IPv4, to mx.big.example")
    assert [command for _, command in exchange.commands] == ["QUIT"]


async def test_a_way_out_that_is_shut_is_bad(internet: Internet, patient: Patient) -> None:
    await internet.add("big.example", mx=[(10, "mx.big.example", Healthy())])
    patient.around["dialler"] = Firewalled("")
    found = await patient.one(f"port {internet.port}", probes=("big.example",))
    assert found.result == "bad"
    assert found.text == f"nobody answers at port {internet.port}: mx.big.example: no connection within 10 s"
    assert "[[route]]" in found.todo


async def test_a_way_out_that_is_shut_over_ipv6_alone_is_told(internet: Internet, patient: Patient) -> None:
    await internet.add("big.example", mx=[(10, "mx.big.example", Healthy())])
    internet.dns.add("mx.big.example", "AAAA", "2001:db8::1")
    patient.around |= {"dialler": Firewalled("2001:"), "has_family": lambda _: True}
    found = await patient.one(f"port {internet.port}", probes=("big.example",))
    assert (found.result, found.text) == ("warn", "open over IPv4; over IPv6 nobody answers")


async def test_a_host_that_sends_us_away_is_told(internet: Internet, patient: Patient) -> None:
    unwelcoming = Script({"connect": "554 5.7.1 your address is on a list"})
    await internet.add("big.example", mx=[(10, "mx.big.example", unwelcoming)])
    found = await patient.one(f"port {internet.port}", probes=("big.example",))
    assert found.result == "warn"
    assert "mx.big.example greets with 554 5.7.1 your address is on a list" in found.text


async def test_where_the_dns_gives_no_exchange_nothing_is_said_of_the_way(patient: Patient) -> None:
    found = await patient.one(f"port {patient.internet.port}")
    assert (found.result, found.text) == ("skipped", "the DNS gives no exchange of gmail.com, outlook.com, icloud.com")


# -- upstream hosts ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def provider(internet: Internet) -> Exchange:
    return await internet.host("smtp.provider.example", Provider(logins={NAME: "s3cret"}))


def route(patient: Patient, exchange: Exchange, password: str = "s3cret", **fields: Any) -> Route:
    authorities, file = patient.folder / "authorities.pem", patient.folder / "password"
    authorities.write_bytes(patient.internet.certificates.authority_pem)
    file.write_text(f"{password}\n")
    login: dict[str, Any] = {"tls": "required", "username": NAME, "password_file": file, "ca_file": authorities}
    return Route(domain="*", host=exchange.host, port=exchange.port, **(login | fields))


async def test_an_upstream_login_is_tried_and_ends_before_any_mail(patient: Patient, provider: Exchange) -> None:
    patient.fields["route"] = (route(patient, provider),)
    patient.internet.dns.add("shop.example", "TXT", '"v=spf1 -all"')
    found = await patient.found(domains=("shop.example",))
    (upstream,) = found["upstream"]
    assert upstream.result == "ok"
    assert upstream.text.startswith(f"{provider.host}:{provider.port}: TLS 1.")
    assert upstream.text.endswith(f"logged in as {NAME}")
    assert "s3cret" not in str(found)
    verbs = [command.split()[0] for _, command in provider.commands]
    assert (verbs[0], verbs[-1]) == ("EHLO", "QUIT")
    assert "MAIL" not in verbs
    assert found["PTR"][0].result == "skipped"
    assert found["SPF"][0].text == "shop.example has a record; from which address its mail leaves is not known here"
    assert not patient.spool.exists()


async def test_a_login_that_is_refused_is_told_in_the_hosts_words(patient: Patient, provider: Exchange) -> None:
    patient.fields["route"] = (route(patient, provider, password="guess"),)
    found = await patient.one("upstream")
    assert found.result == "bad"
    assert "535 5.7.8 Username and Password not accepted" in found.text
    assert found.todo == 'see [[route]] "*".username and where its password or token comes from'
    assert "guess" not in found.line


async def test_an_upstream_host_without_the_tls_that_is_asked_for_is_told(internet: Internet, patient: Patient) -> None:
    exchange = await internet.host("plain.example", Healthy())
    patient.fields["route"] = (route(patient, exchange),)
    found = await patient.one("upstream")
    assert found.result == "bad"
    assert "does not offer STARTTLS" in found.text
    assert ".tls" in found.todo


@pytest.mark.parametrize("certificate", ["self-signed", "expired", "wrong name"])
async def test_an_upstream_host_with_a_wrong_certificate_is_told(
    internet: Internet, patient: Patient, certificate: Any
) -> None:
    exchange = await internet.host("odd.example", EncryptedAtOnce(certificate))
    patient.fields["route"] = (route(patient, exchange, tls="implicit", username="", password_file=None),)
    found = await patient.one("upstream")
    assert found.result == "bad"
    assert "certificate" in found.todo


async def test_upstream_hosts_that_are_dead_or_unknown_are_told(internet: Internet, patient: Patient) -> None:
    dead = await internet.host("dead.example", Dead())
    hosts = ("dead.example", "unknown.example")
    patient.fields["route"] = (Route(domain="*.corp.example", host=hosts, port=dead.port),)
    found = (await patient.found())["upstream"]
    assert [one.result for one in found] == ["bad", "bad"]
    assert "connection refused" in found[0].text
    assert "firewall" in found[0].todo
    assert "the host unknown.example has no address" in found[1].text


async def test_a_refresh_token_is_not_used_up_where_another_could_not_be_kept(
    internet: Internet, patient: Patient, clock: FakeClock
) -> None:
    tokens = TokenServer("login.provider.example", internet.certificates, clock)
    await tokens.start()
    try:
        internet.dns.add(tokens.host, "A", tokens.address)
        exchange = await internet.host("smtp.provider.example", Provider(tokens))
        refresh = patient.folder / "refresh"
        refresh.write_text("1//first\n")
        tokens.refreshes["1//first"] = NAME
        tokens.rotates = True
        plain = route(patient, exchange)
        oauth = OAuth(
            token_endpoint=tokens.url, client_id="smarthost", refresh_token_file=refresh, ca_file=plain.ca_file
        )
        patient.fields["route"] = (route(patient, exchange, password_file=None, oauth=oauth),)
        found = await patient.one("upstream")
        assert found.result == "skipped"
        assert tokens.asked == {}
        patient.spool.mkdir()
        for _ in range(2):
            assert (await patient.one("upstream")).result == "ok"
        assert tokens.asked == {"refresh_token": 2}
        assert [path.name for path in patient.spool.iterdir()] == ["tokens"]
    finally:
        await tokens.stop()


# -- senders ----------------------------------------------------------------------------------------------------------


async def test_the_spf_records_of_senders_are_judged(internet: Internet, patient: Patient) -> None:
    internet.dns.add("good.example", "TXT", '"google-site-verification=x"', f'"v=spf1 ip4:{OURS} " "-all"')
    internet.dns.add("shut.example", "TXT", '"v=spf1 -all"')
    internet.dns.add("soft.example", "TXT", '"v=spf1 ip4:198.51.100.1 ~all"')
    internet.dns.add("leads.example", "TXT", '"v=spf1 include:_spf.example.com -all"')
    internet.dns.add("two.example", "TXT", '"v=spf1 -all"', '"v=spf1 +all"')
    internet.dns.add("none.example", "TXT", '"v=spf10 no"')
    internet.dns.behave("silent.example", Fault.SILENT)
    domains = ("good", "shut", "soft", "leads", "two", "none", "gone", "silent")
    found = await patient.found(addresses=(OURS,), domains=tuple(f"{name}.example" for name in domains))
    assert dict(zip(domains, (one.result for one in found["SPF"]), strict=True)) == {
        "good": "ok", "shut": "bad", "soft": "warn", "leads": "ok", "two": "bad", "none": "warn", "gone": "bad",
        "silent": "warn",
    }  # fmt: skip
    lines = [one.line for one in found["SPF"]]
    assert lines[0] == f"good.example lets {OURS} send"
    assert lines[1] == f"shut.example does not let {OURS} send; add ip4:{OURS} to it, before its all"
    assert "is not looked at" in lines[3]
    assert f'"v=spf1 ip4:{OURS} -all"' in lines[5]


async def test_beside_a_running_engine_the_command_asks_of_the_senders_seen(internet: Internet) -> None:
    """All of it as an operator has it: two processes, and his own surroundings but for the name servers."""
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    internet.dns.add("shop.example", "TXT", f'"v=spf1 ip4:{OURS} -all"')
    async with serving(internet.nameserver, internet.port) as relay:
        async with smtp_client(relay.port) as smtp:
            await smtp.sendmail("ann@shop.example", ["bob@example.org"], LETTER)
        await exchange.wait_for(1)
        words = ("doctor", "--address", OURS, "--probe", "example.org")
        shown = await asyncio.to_thread(relay.command, *words)
        told = await asyncio.to_thread(relay.command, *words, "--json")
    found = {one.name: one for one in (msgspec.json.decode(line, type=Finding) for line in told.stdout.splitlines())}
    assert found["engine"].result == "ok"
    assert found["engine"].text.startswith("relaying for ")
    assert (found["SPF"].result, found["SPF"].text) == ("ok", f"shop.example lets {OURS} send")
    assert found[f"port {internet.port}"].text.startswith("open over IPv4")
    assert (shown.returncode, told.returncode) == (1, 1)  # its name has no address, nor its address a name
    assert shown.stderr == told.stderr == ""
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert exchange.messages == 1
