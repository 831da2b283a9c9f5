"""Postfix's own load tools and swaks as our peers: nothing lost, nothing twice, not a byte changed."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests.interop.needs import needs, program
from tests.serving import free_port, serving, until_listening

MESSAGES = 1000


@asynccontextmanager
async def sink(address: str, port: int, folder: Path) -> AsyncIterator[Path]:
    """Run smtp-sink, which keeps each message in a file of its own."""
    dumps = folder / "sink"
    dumps.mkdir()
    as_whom = ("-u", "root") if os.getuid() == 0 else ()  # root must say so, others may not
    process = await asyncio.create_subprocess_exec(
        program("smtp-sink"), *as_whom, "-d", f"{dumps}/m.", f"{address}:{port}", "1000",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until_listening(port, address=address)
        yield dumps
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_empty(client_path: Path, seconds: float = 60) -> None:
    """Wait until the relay's queue is empty."""
    from engine.control.client import Client

    async with asyncio.timeout(seconds), Client(client_path) as client:
        while True:
            health = await client.health()
            if not health.waiting and not health.relaying:
                return
            await asyncio.sleep(0.1)


@needs("smtp-source", "smtp-sink")
async def test_what_smtp_source_sends_reaches_smtp_sink_whole_and_once(tmp_path: Path) -> None:
    async with Internet(clock=SystemClock()) as internet:
        # smtp-sink stands on the address DNS gives and the port all exchanges share
        address, port = "127.0.0.9", free_port("127.0.0.9")
        internet.dns.add("sink.example", "MX", "10 mx.sink.example.")
        internet.dns.add("mx.sink.example", "A", address)
        async with sink(address, port, tmp_path) as dumps, serving(internet.nameserver, port) as relay:
            source = await asyncio.create_subprocess_exec(
                program("smtp-source"), "-N", "-d", "-s", "20", "-m", str(MESSAGES), "-l", "4096",
                "-f", "ann@source.example", "-t", "bob@sink.example", f"127.0.0.1:{relay.port}",
            )  # fmt: skip
            assert await source.wait() == 0
            await until_empty(relay.control_socket)
            assert relay.stop() == 0
        dumped = [path.read_bytes() for path in dumps.iterdir()]
    recipients = [re.findall(rb"^X-Rcpt-Args: <(.+?)>", dump, re.M) for dump in dumped]
    assert sorted(len(each) for each in recipients) == [1] * MESSAGES
    assert len({each[0] for each in recipients}) == MESSAGES
    bodies = {dump.partition(b"\nReceived: from ")[2].partition(b"\nFrom:")[2].partition(b"\n\n")[2] for dump in dumped}
    assert len(bodies) == 1
    (body,) = bodies
    assert len(body.replace(b"\n", b"\r\n")) in range(4096, 4200)


@needs("swaks")
async def test_a_message_of_swaks_arrives_at_the_second_exchange_and_the_first_is_marked(tmp_path: Path) -> None:
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx1.example.org", Dead()), (20, "mx2.example.org", Healthy())])
        async with serving(internet.nameserver, internet.port) as relay:
            swaks = await asyncio.create_subprocess_exec(
                program("swaks"), "--server", f"127.0.0.1:{relay.port}", "--from", "ann@example.com",
                "--to", "bob@example.org", "--body", "hello from swaks",
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
            assert await swaks.wait() == 0
            await internet.wait_for(1)
            (delivery,) = internet.delivered
            assert delivery.host == "mx2.example.org"
            assert b"hello from swaks" in delivery.content
            hosts = await asyncio.to_thread(relay.command, "hosts")
            assert hosts.returncode == 0
            assert "mx1.example.org" in hosts.stdout
