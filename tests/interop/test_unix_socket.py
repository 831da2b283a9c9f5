"""swaks, over a Unix socket: whoever the file lets in is served, as the user that he is."""

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from tests.interop.needs import needs, program
from tests.plain_user import USER, needs_root
from tests.serving import Served

UNREACHABLE = 2  # exit status of swaks where it cannot connect


@asynccontextmanager
async def listening_on_a_socket(group: str) -> AsyncIterator[tuple[Served, Internet, Path]]:
    with tempfile.TemporaryDirectory(prefix="sh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "smtp.sock"
        async with Internet(clock=SystemClock()) as internet:
            await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
            relay = Served(folder, internet.nameserver, internet.port)
            changed = relay.settings.read_text().replace('listen = ["', f'listen = ["unix:{path}", "', 1)
            relay.settings.write_text(changed.replace("[dns]", f'socket_group = "{group}"\n[dns]'))
            await relay.start()
            try:
                yield relay, internet, path
                assert relay.stop() == 0
                assert not path.exists()
            finally:
                relay.kill()


async def swaks(path: Path, user: str | None = None) -> int:
    """Send a message to bob@example.org."""
    words = [program("swaks"), "--socket", str(path), "--from", "ann@example.com", "--to", "bob@example.org"]
    words += ["--helo", "client.example", "--body", "hello"]
    done = await asyncio.to_thread(
        subprocess.run, words, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", check=False
    )
    return done.returncode


@needs("swaks")
async def test_its_owner_sends_through_it() -> None:
    async with listening_on_a_socket("") as (_, internet, path):
        assert await swaks(path) == 0
        await internet.wait_for(1)
        (delivery,) = internet.delivered
        assert f"from client.example (unix uid {os.geteuid()})".encode() in delivery.content


@needs("swaks")
@needs_root
@pytest.mark.parametrize(("group", "status"), [("", UNREACHABLE), ("*", 0)])
async def test_another_user_sends_through_it_as_himself_where_he_may(group: str, status: int) -> None:
    async with listening_on_a_socket(group) as (relay, internet, path):
        assert await swaks(path, USER) == status
        if not status:
            await internet.wait_for(1)
            uid = pwd.getpwnam(USER).pw_uid
            assert f"from client.example (unix uid {uid})".encode() in internet.delivered[0].content
        events = await asyncio.to_thread(relay.command, "events", "--json")
        assert ('"kind":"refused"' in events.stdout) is False
