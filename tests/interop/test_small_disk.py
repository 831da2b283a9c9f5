"""A spool on a file system of its own, that is full, or may only be read (promise 4)."""

import asyncio
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiosmtplib
import pytest

from engine.base.clock import SystemClock
from engine.queue.errors import QueueFull
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests.interop.needs import program
from tests.serving import Served
from tests.smtp import smtp_client
from tests.unit.queue.support import DELIVERED, LATER
from tests.unit.sqlite.support import opened


def mount(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program("mount") or "mount", *words], capture_output=True, text=True, check=False, timeout=10
    )


def _may_mount() -> bool:
    if not program("mount"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        if mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder).returncode != 0:
            return False
        subprocess.run([program("umount"), folder], check=True, timeout=10)
    return True


pytestmark = pytest.mark.skipif(not _may_mount(), reason="no file system may be mounted here")


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A folder whose `spool` is a file system of this size."""
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        spool = Path(folder) / "spool"
        spool.mkdir()
        assert mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(spool)).returncode == 0
        try:
            yield Path(folder)
        finally:
            subprocess.run([program("umount"), spool], check=True, timeout=10)


@asynccontextmanager
async def relay_on(folder: Path, internet: Internet) -> AsyncIterator[Served]:
    relay = Served(folder, internet.nameserver, internet.port)
    await relay.start()
    try:
        yield relay
    finally:
        assert await asyncio.to_thread(relay.stop) == 0  # the exchanges live on this loop


async def fill(relay: Served, size: int, *, at_most: int) -> tuple[list[str], str]:
    """Hand over messages of this size until one is refused; give the words of those taken, and the refusal."""
    taken: list[str] = []
    async with smtp_client(relay.port) as smtp:
        for number in range(at_most):
            word = f"{size}-{number}"
            body = f"Subject: {word}\r\n\r\n".encode() + b"x" * 70 + (b"\r\n" + b"y" * 70) * (size // 72) + b"\r\n"
            try:
                await smtp.sendmail("ann@example.com", ["bob@example.org"], body)
            except aiosmtplib.SMTPResponseException as error:
                return taken, f"{error.code} {error.message}"
            taken.append(word)
    return taken, ""


async def test_a_full_disk_refuses_mail_loses_none_and_works_again_once_there_is_room() -> None:
    async with Internet(clock=SystemClock()) as internet:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
        with small_disk("8m") as folder:
            async with relay_on(folder, internet) as relay:
                taken: list[str] = []
                for size in (200_000, 20_000, 2_000):  # to the last corner
                    more, refused = await fill(relay, size, at_most=100)
                    taken += more
                    assert refused.startswith("452 4.3.1"), refused
                async with relay.client() as client:
                    health = await client.health()
                assert health.waiting == len(taken) > 10

                assert mount("-o", "remount,size=64m", str(relay.spool)).returncode == 0
                more, refused = await fill(relay, 100_000, at_most=5)
                assert (len(more), refused) == (5, "")
                taken += more
                await exchange.become(Healthy())
                assert relay.command("mark-good", "mx.example.org").returncode == 0
                assert relay.command("retry", "domain=example.org").returncode == 0
                await internet.wait_for(len(taken), seconds=30)
            subjects = [one.content.split(b"Subject: ")[1].split(b"\r\n")[0].decode() for one in exchange.delivered]
            assert sorted(subjects) == sorted(taken)
            for one in exchange.delivered:
                size = int(one.content.split(b"Subject: ")[1].split(b"-")[0])
                assert one.content.count(b"y") >= 70 * (size // 72)


async def test_a_full_disk_keeps_what_waits_moving() -> None:
    async with Internet(clock=SystemClock()) as internet:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
        with small_disk("8m") as folder:
            async with relay_on(folder, internet) as relay:
                taken: list[str] = []
                for size in (200_000, 20_000, 2_000):
                    more, refused = await fill(relay, size, at_most=100)
                    taken += more
                assert refused.startswith("452 4.3.1")
                await exchange.become(Healthy())
                assert relay.command("mark-good", "mx.example.org").returncode == 0
                assert relay.command("retry", "domain=example.org").returncode == 0
                await internet.wait_for(len(taken), seconds=30)
                again: list[str] = []
                refusals: Counter[str] = Counter()
                try:
                    async with asyncio.timeout(30):
                        while len(again) < 20:  # what has left has made room
                            more, refused = await fill(relay, 20_000, at_most=5)
                            again += more
                            refusals[refused] += 1
                except TimeoutError:
                    pytest.fail(f"{len(again)} of 20 taken; refused: {refusals}")
                await internet.wait_for(len(taken) + len(again), seconds=30)


@pytest.mark.parametrize("tries", range(8, 24, 2))
async def test_the_log_of_a_full_disk_is_never_left_without_room_in_the_file_to_be_copied_into(tries: int) -> None:
    with small_disk("8m") as folder:
        async with opened(folder / "spool") as spool:

            async def fill(size: int) -> int:
                for number in range(100):
                    try:
                        await spool.add(content=b"Subject: hi\r\n\r\n" + b"x" * size + b"\r\n")
                    except QueueFull:
                        return number
                return 100

            taken = sum([await fill(size) for size in (200_000, 20_000, 2_000)])
            for _ in range(tries):  # which is written in the room that is left
                (claim,) = await spool.claim(limit=1)
                await spool.settle(claim, LATER, after=0)
            for _ in range(taken):
                (claim,) = await spool.claim(limit=1)
                await spool.settle(claim, DELIVERED)
            assert await spool.entries() == ()
            assert await fill(20_000) > 20


async def test_a_spool_that_may_only_be_read_is_named_at_the_start() -> None:
    async with Internet(clock=SystemClock()) as internet:
        with small_disk("4m") as folder:
            relay = Served(folder, internet.nameserver, internet.port)
            assert mount("-o", "remount,ro", str(relay.spool)).returncode == 0
            refused = relay.command("serve")
            assert refused.returncode == 1
            assert str(relay.spool) in refused.stderr
            assert "read-only" in refused.stderr.lower()
            assert "Traceback" not in refused.stderr
