"""What the kernel was asked for, as strace saw it: nothing is answered with 250 before it is on the disk."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosmtplib
import pytest

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests.interop.needs import needs, program
from tests.serving import Served, serving
from tests.smtp import smtp_client

SESSIONS = 5
MESSAGES = 5  # of each session
CALLS = "pwrite64,fdatasync,fsync,write,sendto,writev,sendmsg"

traced = pytest.mark.skipif(
    bool(program("strace"))
    and subprocess.run([program("strace"), "-o", "/dev/null", "true"], capture_output=True, check=False).returncode
    != 0,
    reason="no process may be traced here",
)


@asynccontextmanager
async def serving_traced(internet: Internet, trace: Path, *inject: str) -> AsyncIterator[Served]:
    """Serve under strace, with these faults."""
    under = [program("strace"), "-f", "-y", "-s", "10000", "-e", f"trace={CALLS}", *inject, "-o", str(trace)]
    async with serving(internet.nameserver, internet.port, under=under) as relay:
        try:
            yield relay
        finally:
            await stop(relay)


async def stop(relay: Served) -> None:
    """Stop the engine itself: whoever traces it ends with it."""
    async with relay.client() as client:
        os.kill((await client.health()).pid, signal.SIGTERM)
    assert relay.process is not None
    await asyncio.to_thread(relay.process.wait, 20)


async def hand_over(port: int, session: int) -> dict[str, str]:
    """Hand over some messages; give the reply to each, by a word that stands in it alone."""
    said = {}
    async with smtp_client(port) as smtp:
        for number in range(MESSAGES):
            word = f"word-{session}-{number}-drow"
            content = f"Subject: {word}\r\n\r\nhello\r\n".encode()
            _, said[word] = await smtp.sendmail("ann@example.com", ["bob@example.org"], content)
    return said


@needs("strace")
@traced
async def test_the_sync_of_the_commit_comes_before_the_250_on_the_wire(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
        async with serving_traced(internet, trace) as relay:
            parts = await asyncio.gather(*(hand_over(relay.port, session) for session in range(SESSIONS)))
            await internet.wait_for(SESSIONS * MESSAGES, seconds=20)
    lines = trace.read_text(errors="replace").splitlines()
    syncs = list(_syncs(lines))
    assert syncs
    for word, said in (one for part in parts for one in part.items()):
        written = next(at for at, line in enumerate(lines) if word in line and "pwrite64(" in line and "-wal>" in line)
        answered = next(at for at, line in enumerate(lines) if f'"250 {said}' in line)
        assert any(written < begun and done < answered for begun, done in syncs), (word, written, answered)


def _syncs(lines: list[str]) -> list[tuple[int, int]]:
    """The syncs of the store's log that came to an end: the lines where each begins and ends."""
    found, begun = [], {}
    for at, line in enumerate(lines):
        pid = line.split(" ", 1)[0]
        if re.search(r"\bf(data)?sync\(\d+<[^>]*-wal>", line):
            if line.endswith("= 0"):
                found.append((at, at))
            elif "unfinished" in line:
                begun[pid] = at
        elif re.search(r"<\.\.\. f(data)?sync resumed>.*= 0$", line) and pid in begun:
            found.append((begun.pop(pid), at))
    return found


@needs("strace")
@traced
async def test_a_disk_that_fails_to_sync_stops_the_intake_and_is_not_asked_again(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
        inject = ("-e", "inject=fdatasync,fsync:error=EIO:when=40+")
        answered, refused = 0, ""
        async with serving_traced(internet, trace, *inject) as relay:
            async with smtp_client(relay.port) as smtp:
                while not refused and answered < 200:
                    try:
                        await smtp.sendmail("ann@example.com", ["bob@example.org"], b"Subject: hi\r\n\r\nhi\r\n")
                        answered += 1
                    except aiosmtplib.SMTPResponseException as error:
                        refused = f"{error.code} {error.message}"
            assert refused.startswith("451 4.3.0")
            async with relay.client() as client:
                health = await client.health()
            assert health.state == "sick"
            assert "I/O error" in health.trouble
            await asyncio.sleep(2)  # checks go on every second: none of them may try the handle again
            failed = [line for line in trace.read_text(errors="replace").splitlines() if "EIO" in line]
            assert len(failed) == 1, failed
            await stop(relay)
            relay.under = ()
            await relay.start()
            async with relay.client() as client:
                health = await client.health()
                assert health.waiting + health.relaying >= answered > 5
