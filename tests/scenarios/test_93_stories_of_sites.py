"""93. Two sites, each from an empty machine to a delivered message: what a person there types, reads and writes."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosmtplib
import msgspec

from engine.base.clock import SystemClock
from engine.model.finding import Finding
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.provider import Provider, TokenServer
from engine.sandbox.tempers import Healthy, Script
from tests.scenarios.submitting import Keys
from tests.serving import SMARTHOST, free_port, until_listening
from tests.smtp import smtp_client
from tests.unit.dkim_keys import verified
from tests.waiting import until, until_told

PATIENCE = 120.0  # seconds for a command: the doctor's bound is a minute
OURS = "203.0.113.5"
NAMELESS = "550 5.7.25 [::1] The IP address sending this message does not have a PTR record setup"


class Machine:
    """A machine on which nothing is: a folder for what will be below /etc/smarthost, and a spool to be.

    `around` are settings of the sandbox, which no site has: where its internet is, and a port for us.
    """

    def __init__(self, folder: Path, internet: Internet) -> None:
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.spool = folder / "spool"
        self.port = free_port()
        self.around = f"""
spool = "{self.spool}"
[intake.smtp]
listen = ["127.0.0.1:{self.port}"]
[dns]
nameservers = ["{internet.nameserver}"]
[delivery]
port = {internet.port}
loopback_exchanges = true
"""
        self._log = folder / "serve.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "SMARTHOST_CONFIG": str(self.etc / "smarthost.toml")}

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write a file below /etc/smarthost."""
        path = self.etc / name
        path.write_text(text)
        path.chmod(mode)
        return path

    async def types(self, *words: str, given: bytes = b"", status: int | None = 0) -> str:
        """What `smarthost` says to these words, and to what is given on standard input; it ends with this status."""
        process = await asyncio.create_subprocess_exec(
            SMARTHOST, *words,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environment,
        )  # fmt: skip
        try:
            async with asyncio.timeout(PATIENCE):
                said = (await process.communicate(given))[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        assert status in (process.returncode, None), said
        return said

    async def doctor(self, *words: str) -> dict[str, Finding]:
        """What the doctor says of each thing."""
        said = await self.types("doctor", "--json", *words, status=None)
        return {one.name: one for one in (msgspec.json.decode(line, type=Finding) for line in said.splitlines())}

    async def serve(self, *ports: int) -> None:
        """`smarthost serve`, until there is somebody at each port."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [SMARTHOST, "serve"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        await until_listening(self.port, *ports)

    async def stop(self) -> str:
        """End it as systemd does; give what it has logged."""
        assert self._process is not None
        self._process.terminate()
        assert await asyncio.to_thread(self._process.wait, PATIENCE) == 0
        return self._log.read_text()

    def kill(self) -> None:
        """Leave no process behind."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[Machine, Internet]]:
    """An empty machine, and an internet whose clock is everybody's."""
    async with Internet(clock=SystemClock()) as internet:
        machine = Machine(folder, internet)
        try:
            yield machine, internet
        finally:
            machine.kill()


@asynccontextmanager
async def token_endpoint(internet: Internet) -> AsyncIterator[TokenServer]:
    """Where a provider gives tokens."""
    tokens = TokenServer("login.provider.example", internet.certificates, internet.clock)
    await tokens.start()
    internet.dns.add(tokens.host, "A", tokens.address)
    try:
        yield tokens
    finally:
        await tokens.stop()


# -- a small company relays through its provider ----------------------------------------------------------------------


COMPANY = """
hostname = "relay.shop.example"
{around}
[intake]
min_free = "0"
[intake.submission]
listen = ["127.0.0.1:{port}"]
certificate = "{keys.certificate}"
key = "{keys.key}"
users = "{etc}/users"

[[rewrite]]
match = "*@relay.shop.example"
to = "relay@shop.example"
[[rewrite]]
match = "root"
to = "ops@shop.example"
of = "recipients"

[[route]]
domain = "*"
host = "smtp.provider.example"
port = {upstream.port}
tls = "required"
username = "relay@shop.example"
ca_file = "{authority}"
[route.oauth]
token_endpoint = "{tokens.url}"
client_id = "1234.apps.provider.example"
client_secret_file = "{etc}/provider.secret"
refresh_token_file = "{etc}/provider.refresh"
ca_file = "{authority}"
"""


async def test_a_small_company_relays_through_its_provider(tmp_path: Path) -> None:
    async with site(tmp_path) as (here, internet), token_endpoint(internet) as tokens:
        provider = Provider(tokens, may_send={"relay@shop.example": ("scanner@shop.example",)})
        upstream = await internet.host("smtp.provider.example", provider)
        tokens.refreshes["1//company"] = "relay@shop.example"
        keys, port = Keys(tmp_path), free_port()

        async def scan(sender: str) -> None:
            """What the device in the corridor does with a page."""
            device = aiosmtplib.SMTP(
                hostname="localhost", port=port, start_tls=True, tls_context=keys.client,
                local_hostname="scanner.local", username="scanner", password="paper",
            )  # fmt: skip
            async with device:
                await device.sendmail(sender, ["bob@example.org"], f"From: {sender}\r\nSubject: page\r\n\r\n.\r\n")

        # The settings as docs/providers.md has them. What is not there yet is named, all of it at once.
        authority = here.write("authorities.pem", internet.certificates.authority_pem.decode())
        here.write(
            "smarthost.toml",
            COMPANY.format(
                around=here.around, etc=here.etc, port=port, keys=keys, upstream=upstream, tokens=tokens,
                authority=authority,
            ),
        )  # fmt: skip
        said = await here.types("config", "check", status=1)
        assert "route[0].oauth.client_secret_file: " in said
        assert "route[0].oauth.refresh_token_file: " in said

        # Both are copied from the provider's pages, one of them wrongly. Then whoever may hand in mail is named.
        here.write("provider.secret", "geheim\n")
        here.write("provider.refresh", "1//compa\n")
        assert "`smarthost user add NAME` adds who may log in" in await here.types("config", "check")
        words = ("user", "add", "scanner", "--sender", "*@shop.example", "--password-stdin")
        assert "may send as *@shop.example" in await here.types(*words, given=b"paper\n")
        assert "user add" not in await here.types("config", "check")

        # Nothing here is for the DNS to name. The refresh token is not touched before there is a place for the next.
        found = await here.doctor()
        assert {found[name].result for name in ("address", "PTR", "upstream")} == {"skipped"}
        assert {found[name].result for name in ("hostname", "resolver", "disk", "certificate")} == {"ok"}

        # Once it serves, the doctor finds the wrong token, in the endpoint's words, and where to look.
        await here.serve(port)
        found = await here.doctor()
        assert found["upstream"].result == "bad"
        assert "invalid_grant" in found["upstream"].text
        assert "where its password or token comes from" in found["upstream"].todo
        here.write("provider.refresh", "1//company\n")
        found = await here.doctor()
        assert (found["upstream"].result, "bad" in {one.result for one in found.values()}) == ("ok", False)
        assert found["upstream"].text.endswith("certificate trusted; logged in as relay@shop.example")

        # A page from the device: what it lacks is added, and it goes out under the company's login.
        tokens.seconds = 4  # one that short is used for half of it, which is as long as a session may be idle
        await scan("scanner@shop.example")
        await upstream.wait_for(1)
        page = upstream.delivered[0]
        assert (page.sender, page.login, page.tls) == ("scanner@shop.example", "relay@shop.example", True)
        assert b"\r\nDate: " in page.content
        asked = tokens.asked["refresh_token"]

        # Cron writes to root as root. When the session has ended, so has the token: another is fetched.
        await until(lambda: not upstream.open)
        await here.types("sendmail", "-i", "-FCronDaemon", "root", given=b"Subject: Cron <root@relay> backup\n\nwell\n")
        await upstream.wait_for(2)
        cron = upstream.delivered[1]
        assert (cron.sender, cron.recipients) == ("relay@shop.example", ("ops@shop.example",))
        assert b"\r\nFrom: CronDaemon <relay@shop.example>\r\n" in cron.content
        assert tokens.asked["refresh_token"] > asked
        tokens.seconds = 3600

        # The provider has enough for the day: it waits, and the relay says why, and what could be done.
        provider.a_day = 2
        await scan("scanner@shop.example")
        waiting = await until_told(lambda: here.types("queue"), lambda listed: "421 4.7.28 Daily user" in listed)
        assert "bob@example.org" in waiting
        assert re.search(r"to do .*\[\[limit\]\]", await here.types("explain", "bob@example.org"))
        provider.a_day = 2000
        await here.types("retry", "domain=example.org")
        await upstream.wait_for(3)

        # The boss sends as herself, for which the login has no right. She is told; the operator is told what to do.
        await scan("boss@shop.example")
        await upstream.wait_for(4)
        bounce = upstream.delivered[3]
        assert (bounce.sender, bounce.recipients) == ("", ("boss@shop.example",))
        assert b"554 5.2.252 SendAsDenied" in bounce.content
        (number,) = re.findall(r"returned +(\d+)\.1", await here.types("events"))
        said = await here.types("explain", number, status=1)
        assert "SendAsDenied" in said
        assert "login relay@shop.example there let it send as boss@shop.example" in said
        provider.may_send = {"relay@shop.example": ("scanner@shop.example", "boss@shop.example")}
        await scan("boss@shop.example")
        await upstream.wait_for(5)
        assert upstream.delivered[4].sender == "boss@shop.example"

        logged = await here.stop()
        assert [logged.count(f"status={each} (") for each in ("sent", "deferred", "bounced")] == [5, 1, 1]
        assert "geheim" not in logged
        assert "1//compa" not in logged


# -- delivery without a provider --------------------------------------------------------------------------------------


async def test_direct_delivery_with_dkim_while_the_ptr_is_wrong_and_ipv6_is_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as (here, internet):
        (four,) = await internet.add("big.example", mx=[(10, "mx.big.example", Healthy())])
        internet.dns.add("mx.big.example", "AAAA", "::1")
        internet.dns.add("relay.shop.example", "A", OURS)
        internet.dns.add("5.113.0.203.in-addr.arpa", "PTR", "static-5.isp.example.")
        internet.dns.add("shop.example", "MX", "10 relay.shop.example.")
        six = Exchange(
            "mx.big.example", Script({"MAIL": NAMELESS}), clock=internet.clock, certificates=internet.certificates,
            address="::1", port=internet.port,
        )  # fmt: skip
        await six.start()
        look = ("--address", OURS, "--domain", "shop.example", "--probe", "big.example")
        try:
            # The doctor, before anything is started: whose name our address has, and who can mend it; and SPF.
            settings = f'hostname = "relay.shop.example"\n{here.around}\n[intake]\nmin_free = "0"\n'
            here.write("smarthost.toml", settings)
            found = await here.doctor(*look)
            assert (found["address"].result, found[f"port {internet.port}"].result) == ("ok", "ok")
            assert found["PTR"].result == "bad"
            assert found["PTR"].text == f"{OURS} is static-5.isp.example, which does not lead back to it"
            assert found["PTR"].todo.startswith("have whoever gave it to you name it relay.shop.example, ")
            assert found["SPF"].result == "warn"
            (record,) = re.findall(r'"v=spf1 [^"]*"', found["SPF"].todo)
            internet.dns.add("shop.example", "TXT", record)
            assert (await here.doctor(*look))["SPF"].result == "ok"

            # Keys: what is printed goes into the settings, and is missed in the DNS until it is there, too.
            assert "`smarthost dkim add DOMAIN` makes keys" in await here.types("dkim", "check", status=1)
            told = await here.types("dkim", "add", "shop.example")
            zone, blocks = re.findall(r"(?s)\d\. Put this into [^\n]*:\n\n(.*?)\n\n(?=\d\. )", told)
            here.write("smarthost.toml", settings + blocks)
            await here.types("config", "check")
            missed = await here.types("dkim", "check", "shop.example", status=1)
            assert missed.count(": missing: the DNS has no such name") == 2
            published = {}
            for name, text in re.findall(r"(?m)^(\S+)\. IN TXT ((?:\(\n(?: .*\n?)*\)?|.*)$)", zone):
                strings = re.findall(r'"([^"]*)"', text)
                internet.dns.add(name, "TXT", " ".join(f'"{each}"' for each in strings))
                published[name] = "".join(strings)
            assert (await here.types("dkim", "check", "shop.example")).count(": our key") == 2

            # Mail goes out. The host will not have our nameless IPv6, and has it over IPv4 in the same attempt.
            await here.serve()
            async with smtp_client(here.port) as program:
                letter = b"From: shop@shop.example\r\nTo: bob@big.example\r\nSubject: your order\r\n\r\nIt is here.\r\n"
                await program.sendmail("shop@shop.example", ["bob@big.example"], letter)
            await four.wait_for(1)
            assert any(line.startswith("MAIL FROM:<shop@shop.example>") for _, line in six.commands)
            events = await until_told(lambda: here.types("events"), lambda said: "delivered" in said)
            assert not re.search("deferred|returned", events)
            (delivery,) = four.delivered
            assert verified(delivery.content, published) == list(published)

            # It is said, with what to do, wherever one looks.
            why = "mx.big.example took no mail over IPv6, for want of a PTR record of our address: it goes over IPv4"
            assert why in await here.types("status")
            assert (await here.doctor(*look))["engine"].line.startswith(why)
            assert "over IPv4 alone" in await here.types("explain", "bob@big.example")
            assert "no host marked bad" in await here.types("hosts")

            # Whoever has the network names the address as he was asked to.
            internet.dns.replace("5.113.0.203.in-addr.arpa", "PTR", "relay.shop.example.")
            assert (await here.doctor(*look))["PTR"].result == "ok"
            await here.stop()
        finally:
            await six.stop()
