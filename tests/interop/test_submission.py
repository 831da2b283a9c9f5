"""Real senders and a real server: swaks and Postfix submit mail to us, and we hand mail to Postfix under TLS."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from tests.interop.needs import needs, needs_swaks_with_tls, program
from tests.interop.postfix import needs_root, postfix
from tests.interop.test_postfix_tools import until_empty
from tests.scenarios.submitting import Keys
from tests.serving import Served, free_port, serving, until_listening
from tests.smtp import smtp_client

PLAIN = [Path("/usr/lib/sasl2/libplain.so"), *Path("/usr/lib").glob("*-linux-gnu/sasl2/libplain.so")]
needs_plain = pytest.mark.skipif(
    not any(path.exists() for path in PLAIN), reason="not installed: libsasl2-modules, which gives Postfix PLAIN"
)

NO_AUTH, NO_TLS = 28, 29  # exit statuses of swaks


class Submitting:
    """A relay that serves, with both doors for those who log in, and what it delivers."""

    def __init__(self, internet: Internet, relay: Served, starttls: int, wrapped: int) -> None:
        self.internet = internet
        self.relay = relay
        self.starttls = starttls
        self.wrapped = wrapped

    async def swaks(self, port: int, *words: str) -> int | None:
        """Send a message to bob@example.org."""
        process = await asyncio.create_subprocess_exec(
            program("swaks"), "--server", f"127.0.0.1:{port}", "--from", "ann@example.com", "--to", "bob@example.org",
            "--body", "hello from swaks", *words,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait()


@asynccontextmanager
async def submitting(folder: Path) -> AsyncIterator[Submitting]:
    keys, starttls, wrapped = Keys(folder), free_port(), free_port()
    extra = f"""
[intake.submission]
listen = ["127.0.0.1:{starttls}"]
listen_tls = ["127.0.0.1:{wrapped}"]
certificate = "{keys.certificate}"
key = "{keys.key}"
users = "{keys.users}"
"""
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with serving(internet.nameserver, internet.port, extra) as relay:
            await until_listening(starttls, wrapped)  # they open after the door for mail of the relay's own networks
            yield Submitting(internet, relay, starttls, wrapped)


@needs("swaks")
@needs_swaks_with_tls
async def test_swaks_submits_with_each_mechanism_and_each_way_to_tls(tmp_path: Path) -> None:
    async with submitting(tmp_path) as here:
        sent = 0
        for mechanism in ("PLAIN", "LOGIN"):
            login = ("--auth", mechanism, "--auth-user", "ann", "--auth-password", "secret")
            assert await here.swaks(here.starttls, "--tls", *login) == 0
            assert await here.swaks(here.wrapped, "--tls-on-connect", *login) == 0
            sent += 2
        await here.internet.wait_for(sent)
        assert all(b"with ESMTPSA" in delivery.content for delivery in here.internet.delivered)


@needs("swaks")
@needs_swaks_with_tls
async def test_swaks_sends_nothing_with_a_wrong_password_without_tls_or_without_a_login(tmp_path: Path) -> None:
    async with submitting(tmp_path) as here:
        wrong = ("--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "wrong")
        right = ("--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "secret")
        assert await here.swaks(here.starttls, "--tls", *wrong) == NO_AUTH
        assert await here.swaks(here.wrapped, "--tls-on-connect", *wrong) == NO_AUTH
        assert await here.swaks(here.starttls, *right) == NO_AUTH  # it is not offered
        assert await here.swaks(here.starttls, "--tls") not in {0, None}
        assert await here.swaks(here.relay.port, "--tls", *right) == NO_TLS
        listed = await asyncio.to_thread(here.relay.command, "queue")
        assert "bob@example.org" not in listed.stdout
        assert not here.internet.delivered


@needs("postfix")
@needs_root
@needs_plain
async def test_postfix_relays_through_us_with_starttls_and_a_login(tmp_path: Path) -> None:
    async with submitting(tmp_path) as here:
        port = free_port()
        passwords = tmp_path / "passwords"
        passwords.write_text(f"[127.0.0.1]:{here.starttls} ann:secret\n")
        settings = f"""
relayhost = [127.0.0.1]:{here.starttls}
smtp_tls_security_level = encrypt
smtp_sasl_auth_enable = yes
smtp_sasl_security_options = noanonymous
smtp_sasl_password_maps = texthash:{passwords}
"""
        with postfix("127.0.0.1", port, settings) as log:
            await send(port, "127.0.0.1", "bob@example.org", 20)
            try:
                await here.internet.wait_for(20)
            except TimeoutError:
                raise AssertionError(log.read_text()) from None
        for delivery in here.internet.delivered:
            assert b"from postfix.example.net ([127.0.0.1])\r\n\tby relay.example.net" in delivery.content
            assert b"with ESMTPSA" in delivery.content


@needs("postfix")
@needs_root
async def test_we_hand_mail_to_postfix_under_tls_and_it_takes_all_of_it(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    settings = f"""
smtpd_tls_security_level = may
smtpd_tls_cert_file = {keys.certificate}
smtpd_tls_key_file = {keys.key}
smtpd_tls_loglevel = 1
smtpd_data_restrictions = reject_unauth_pipelining
relay_domains = sink.example
relay_transport = discard:
"""
    address = "127.0.0.9"
    port = free_port(address)
    async with Internet(clock=SystemClock()) as internet:
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", address)
        with postfix(address, port, settings) as log:
            async with serving(internet.nameserver, port) as relay:
                await send(relay.port, "127.0.0.1", "bob@sink.example", 50)
                await until_empty(relay.control_socket)
                events = await asyncio.to_thread(relay.command, "events", "--limit", "500")
            text = await sent(log, 50)
    assert text.count("status=sent (sink.example)") == 50, text
    assert "TLS connection established from" in text
    assert "improper command pipelining" not in text
    assert events.returncode == 0, events.stderr


@needs("postfix", "saslpasswd2")
@needs_root
@needs_plain
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_we_log_in_to_postfix_under_verified_tls_and_it_relays(tmp_path: Path, mechanism: str) -> None:
    keys = Keys(tmp_path)
    logins, password = tmp_path / "sasldb2", tmp_path / "password"
    sasl = f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: {mechanism}\nsasldb_path: {logins}\n"
    subprocess.run(
        [program("saslpasswd2"), "-p", "-c", "-f", logins, "-u", "postfix.example.net", "ann"],
        input=b"secret", check=True,
    )  # fmt: skip
    password.write_text("secret\n")
    tmp_path.chmod(0o755)  # Postfix reads the logins, and is not root then
    logins.chmod(0o644)
    address = "127.0.0.1"  # which /etc/hosts has for localhost, too
    port = free_port(address)
    settings = f"""
mynetworks = 127.0.0.77
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = {keys.certificate}
smtpd_tls_key_file = {keys.key}
smtpd_sasl_auth_enable = yes
smtpd_sasl_local_domain = postfix.example.net
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_data_restrictions = reject_unauth_pipelining
default_transport = discard:
"""
    route = f"""
[[route]]
domain = "*"
host = "localhost"
port = {port}
tls = "verified"
username = "ann"
password_file = "{password}"
ca_file = "{keys.authority}"
"""
    async with Internet(clock=SystemClock()) as internet:
        internet.dns.add("localhost", "A", address)
        with postfix(address, port, settings, sasl=sasl) as log:
            async with serving(internet.nameserver, port, route) as relay:
                await send(relay.port, "127.0.0.1", "bob@sink.example", 20)
                try:
                    async with asyncio.timeout(60):
                        await until_empty(relay.control_socket)
                except TimeoutError:
                    said = await asyncio.to_thread(relay.command, "queue")
                    raise AssertionError(f"{said.stdout}\n{log.read_text()}") from None
                looked = await asyncio.to_thread(relay.command, "doctor", "--json")
            text = await sent(log, 20)
    assert text.count("status=sent (sink.example)") == 20, text
    assert f"sasl_method={mechanism}, sasl_username=ann" in text
    (upstream,) = [line for line in looked.stdout.splitlines() if '"upstream"' in line]
    assert "logged in as ann" in upstream
    assert "improper command pipelining" not in text


async def sent(log: Path, messages: int) -> str:
    """What Postfix has logged, once it has done with so many messages or had long enough: it takes them first."""
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while log.read_text().count("status=") < messages:
                await asyncio.sleep(0.05)
    return log.read_text()


async def send(port: int, address: str, recipient: str, times: int) -> None:
    """Hand messages over by SMTP."""
    async with smtp_client(port, address) as smtp:
        for number in range(times):
            letter = f"From: ann@example.com\r\nSubject: {number}\r\n\r\n.dot {number}\r\n"
            await smtp.sendmail("ann@example.com", [recipient], letter.encode())
