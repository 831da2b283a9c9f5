"""Behind the real HAProxy: clients are who they are, in both versions of its protocol, and its checks find us well."""

import asyncio
import csv
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from tests.interop.needs import needs, needs_swaks_with_tls, program
from tests.scenarios.submitting import Keys
from tests.serving import Served, free_port, until_listening
from tests.waiting import PATIENCE

PROXY = "127.0.0.66"  # whence HAProxy comes to us
FRIEND, STRANGER = "127.0.0.77", "127.0.0.78"  # clients of it; one of them may relay
REFUSED = 24  # exit status of swaks where no recipient was taken
WAYS = ("v1", "v2", "tlvs")

CONFIGURATION = """
global
    maxconn 200
    stats socket {folder}/haproxy.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
    timeout check 10s
    unique-id-format %[uuid]
listen v1
    bind 127.0.0.1:{v1}
    option smtpchk EHLO haproxy.example
    server relay 127.0.0.1:{relay} source {proxy} send-proxy check inter 200
listen v2
    bind 127.0.0.1:{v2}
    option smtpchk HELO haproxy.example
    server relay 127.0.0.1:{relay} source {proxy} send-proxy-v2 check inter 200
listen tlvs
    bind 127.0.0.1:{tlvs}
    server relay 127.0.0.1:{relay} source {proxy} send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 200
listen starttls
    bind 127.0.0.1:{starttls}
    server relay 127.0.0.1:{relay_starttls} source {proxy} send-proxy
listen tls-v1
    bind 127.0.0.1:{tls_v1}
    server relay 127.0.0.1:{relay_tls} source {proxy} send-proxy check inter 200
listen tls-v2
    bind 127.0.0.1:{tls_v2}
    server relay 127.0.0.1:{relay_tls} source {proxy} send-proxy-v2
listen silent
    bind 127.0.0.1:{silent}
    server relay 127.0.0.1:{relay} source {proxy}
"""


class Proxied:
    """A relay, HAProxy before it, and its ports by the names of the ways through it."""

    def __init__(self, internet: Internet, relay: Served, ports: dict[str, int], folder: Path) -> None:
        self.internet = internet
        self.relay = relay
        self.ports = ports
        self._socket = folder / "haproxy.sock"

    async def swaks(self, way: str, *words: str, source: str = FRIEND) -> int | None:
        """Send a message to bob@example.org this way."""
        process = await asyncio.create_subprocess_exec(
            program("swaks"), "--server", f"127.0.0.1:{self.ports[way]}", "--local-interface", source,
            "--from", "ann@example.com", "--to", "bob@example.org", "--body", "hello", "--helo", "client.example",
            *words,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait()

    async def delivered(self, number: int) -> list[bytes]:
        """The messages, once there are so many."""
        await self.internet.wait_for(number)
        return [delivery.content for delivery in self.internet.delivered]

    async def checks(self) -> dict[str, tuple[str, str, str]]:
        """By way, whether HAProxy thinks us well, what its last check came to, and how many have failed."""
        table = (await self._told("show stat")).lstrip("# ")
        return {
            row["pxname"]: (row["status"], row["check_status"].removeprefix("* "), row["chkfail"])
            for row in csv.DictReader(table.splitlines())
            if row["svname"] == "relay"
        }

    async def doubt(self, *ways: str) -> None:
        """Have HAProxy think the relay down, until two checks of these ways in a row have found it well."""
        for way in ways:
            assert await self._told(f"set server {way}/relay health down") == "\n"

    async def _told(self, order: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        writer.write(f"{order}\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer


@contextmanager
def haproxy(folder: Path, ports: dict[str, int]) -> Iterator[None]:
    """Run it; what it says is in the error where it does not start."""
    configuration, output = folder / "haproxy.cfg", folder / "haproxy.log"
    configuration.write_text(CONFIGURATION.format(folder=folder, proxy=PROXY, **ports))
    with output.open("wb") as log:
        process = subprocess.Popen([program("haproxy"), "-db", "-f", configuration], stdout=log, stderr=log)
        try:
            yield
            assert process.poll() is None, output.read_text()
        except TimeoutError:
            raise AssertionError(output.read_text()) from None
        finally:
            process.terminate()
            process.wait()


@asynccontextmanager
async def proxied() -> AsyncIterator[Proxied]:
    with tempfile.TemporaryDirectory(prefix="sh-") as name:
        folder = Path(name)
        keys = Keys(folder)
        ways = ("v1", "v2", "tlvs", "starttls", "tls_v1", "tls_v2", "silent", "relay_starttls", "relay_tls")
        ports = {way: free_port() for way in ways}
        extra = f"""
[intake.submission]
listen = ["127.0.0.1:{ports["relay_starttls"]}"]
listen_tls = ["127.0.0.1:{ports["relay_tls"]}"]
proxy_networks = ["{PROXY}"]
certificate = "{keys.certificate}"
key = "{keys.key}"
users = "{keys.users}"
"""
        async with Internet(clock=SystemClock()) as internet:
            await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
            relay = Served(folder, internet.nameserver, internet.port, extra)
            settings = f'[intake.smtp]\nrelay_networks = ["{FRIEND}"]\nproxy_networks = ["{PROXY}"]'
            relay.settings.write_text(relay.settings.read_text().replace("[intake.smtp]", settings))
            await relay.start()
            try:
                with haproxy(folder, {**ports, "relay": relay.port}):
                    await until_listening(*ports.values())
                    yield Proxied(internet, relay, ports, folder)
            finally:
                relay.kill()


@needs("haproxy", "swaks")
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_relays_through_it_by_its_own_address_and_a_stranger_does_not(way: str) -> None:
    async with proxied() as here:
        assert await here.swaks(way) == 0
        (content,) = await here.delivered(1)
        assert f"from client.example ([{FRIEND}])".encode() in content
        assert await here.swaks(way, source=STRANGER) == REFUSED
        events = await asyncio.to_thread(here.relay.command, "events", "--limit", "500")
        assert f"smtp {STRANGER}: relaying denied" in events.stdout.replace("\n", " ")
        assert f"smtp {PROXY}: " not in events.stdout


@needs("haproxy", "swaks")
@needs_swaks_with_tls
async def test_tls_goes_through_it_untouched_and_the_login_comes_from_the_client() -> None:
    async with proxied() as here:
        login = ("--auth", "PLAIN", "--auth-user", "ann", "--auth-password", "secret")
        assert await here.swaks("starttls", "--tls", *login, source=STRANGER) == 0
        assert await here.swaks("tls_v1", "--tls-on-connect", *login, source=STRANGER) == 0
        assert await here.swaks("tls_v2", "--tls-on-connect", *login, source=STRANGER) == 0
        for content in await here.delivered(3):
            assert f"from client.example ([{STRANGER}])".encode() in content
            assert b"with ESMTPSA" in content


@needs("haproxy")
async def test_its_checks_find_the_relay_well_and_are_no_refusals() -> None:
    async with proxied() as here:
        spoken, reached = ("UP", "L7OK", "0"), ("UP", "L4OK", "0")
        wanted = {"v1": spoken, "v2": spoken, "tlvs": reached, "tls-v1": reached}
        for again in (False, True):  # and two more of each, at the least
            if again:
                await here.doubt(*wanted)
            async with asyncio.timeout(PATIENCE):
                while not wanted.items() <= (await here.checks()).items():
                    await asyncio.sleep(0.1)
        events = await asyncio.to_thread(here.relay.command, "events", "--limit", "500")
        assert "no PROXY header" not in events.stdout


@needs("haproxy", "swaks")
async def test_where_it_says_nothing_of_the_client_nobody_is_let_in() -> None:
    async with proxied() as here:
        assert await here.swaks("silent") not in (0, None)
        assert not here.internet.delivered
