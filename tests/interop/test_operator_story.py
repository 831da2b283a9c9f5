"""In a real terminal, and over a real SSH line: see a domain stuck, read why, retry, mark its MX bad and good again."""

import asyncio
import grp
import os
import pwd
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.base.clock import SystemClock
from engine.model.event import ENGINE
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Script
from tests.interop.needs import needs, program
from tests.interop.test_postfix_tools import until_empty
from tests.interop.tmux import Screen, screen
from tests.serving import SMARTHOST, Served, free_port, serving, until_listening
from tests.smtp import smtp_client

SAID = "450 4.2.1 over quota"


@asynccontextmanager
async def stuck() -> AsyncIterator[tuple[Internet, Served]]:
    """A relay that serves, and a domain whose exchange puts everything off."""
    async with Internet(clock=SystemClock()) as internet:
        await internet.add("stuck.example", mx=[(10, "mx.stuck.example", Script({"RCPT": SAID}))])
        async with serving(internet.nameserver, internet.port) as relay:
            async with smtp_client(relay.port) as smtp:
                for name in ("a", "b", "c"):
                    letter = b"Subject: hi\r\n\r\nhi\r\n"
                    await smtp.sendmail("ann@example.com", [f"{name}@stuck.example"], letter)
            yield internet, relay


def attempts(internet: Internet) -> list[str]:
    """The messages that were offered to the exchange."""
    return [line for _, line in internet.exchange("mx.stuck.example").commands if line.startswith("MAIL")]


async def tell(shown: Screen, internet: Internet) -> str:
    """The story, with the keys that README gives, each after what it answers is seen; give the screen at its end."""
    await shown.shows("stuck.example", "450 4.2.1")
    await shown.press("Enter")
    await shown.shows("stuck.example", SAID, "a@stuck.example", "mx.stuck.example")
    tried = len(attempts(internet))
    await shown.press("r")
    await shown.shows("is due now")
    await shown.until(lambda _: len(attempts(internet)) > tried, "another try")
    await shown.press("b")
    await shown.shows("Mark mx.stuck.example bad?")
    await shown.type("10m")
    await shown.press("Tab")
    await shown.type("maintenance")
    await shown.press("Enter")
    await shown.shows("marked bad for 10m")
    await shown.press("4")
    await shown.shows("mx.stuck.example", "9:5", "maintenance")
    await internet.exchange("mx.stuck.example").become(Healthy())
    await shown.press("g")
    await shown.shows("Mark mx.stuck.example good?")
    await shown.shows("3 messages, 3 recipients  wait for")
    await shown.press("Right", "Enter")
    await shown.shows("is used again", "no bad hosts")
    await internet.wait_for(3)
    await shown.press("6")
    return await shown.shows("delivered", "a@stuck.example", "marked good")


class Came(NamedTuple):
    """What came of it, by the relay's own record: what operators `did`, the hosts `marked`, how much waits, arrived."""

    did: tuple[str, ...]
    marked: tuple[str, ...]
    waiting: int
    arrived: int


async def came_of(relay: Served, internet: Internet) -> Came:
    async with relay.client() as client:
        did = tuple(event.kind for event in await client.events(limit=1000) if event.by != ENGINE)
        marked = tuple(host.host for host in (await client.hosts()).rows)
        waiting = (await client.health()).waiting
    return Came(did, marked, waiting, internet.exchange("mx.stuck.example").messages)


STORY = Came(did=("retried", "marked bad", "marked good"), marked=(), waiting=0, arrived=3)


@needs("tmux")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40)])
async def test_a_stuck_domain_is_seen_understood_and_set_going(tmp_path: Path, columns: int, lines: int) -> None:
    async with stuck() as (internet, relay):
        command = [str(SMARTHOST), "--config", str(relay.settings), "attach"]
        async with screen(tmp_path, command, columns, lines) as shown:
            told = await tell(shown, internet)
        assert "marked good" in told
        await until_empty(relay.control_socket)
        assert await came_of(relay, internet) == STORY


def _why_no_ssh() -> str:
    """Why sshd, run by ourselves, would let us into no terminal here; "" where it does."""
    try:
        who = pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid {os.getuid()} has no name to log in with"
    if who.pw_shell.endswith(("/nologin", "/false")):
        return f"{who.pw_name} has no shell to log in to ({who.pw_shell})"
    ours, theirs = os.openpty()
    try:
        group = os.fstat(theirs).st_gid
    finally:
        os.close(ours)
        os.close(theirs)
    with suppress(KeyError):
        if os.getuid() != 0 and group != grp.getgrnam("tty").gr_gid:
            return "only root's sshd can give a terminal here: /dev/pts is not mounted with the group tty"
    return ""


@asynccontextmanager
async def sshd(folder: Path) -> AsyncIterator[Sequence[str]]:
    """Run OpenSSH's server on loopback for ourselves alone; give the words that log in to it."""
    port = free_port()
    for name in ("host", "user"):
        key = ["-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        await asyncio.to_thread(subprocess.run, [program("ssh-keygen"), *key], check=True)
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PasswordAuthentication": "no",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where its unprivileged half lives
    server = await asyncio.create_subprocess_exec(
        program("sshd"), "-D", "-f", "/dev/null", *words, stderr=subprocess.DEVNULL
    )
    client = ["-F", "/dev/null", "-p", str(port), "-i", str(folder / "user"), "-o", "IdentitiesOnly=yes"]
    trust = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "LogLevel=ERROR"]
    try:
        await until_listening(port)
        yield [program("ssh"), "-tt", *client, *trust, f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1"]
    finally:
        server.terminate()
        await server.wait()


@needs("tmux", "ssh", "sshd", "ssh-keygen")
@pytest.mark.skipif(bool(_why_no_ssh()), reason=_why_no_ssh() or "never")
@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (120, 40)])
async def test_the_same_over_an_ssh_line(tmp_path: Path, columns: int, lines: int) -> None:
    async with stuck() as (internet, relay), sshd(tmp_path) as ssh:
        attach = f"{SMARTHOST} --config {relay.settings} attach"
        async with screen(tmp_path, [*ssh, attach], columns, lines) as shown:
            told = await tell(shown, internet)
        assert "marked good" in told
        await until_empty(relay.control_socket)
        assert await came_of(relay, internet) == STORY


@needs("tmux")
async def test_a_read_only_console_looks_and_does_nothing(tmp_path: Path) -> None:
    async with stuck() as (internet, relay):
        command = [str(SMARTHOST), "--config", str(relay.settings), "attach", "--read-only"]
        async with screen(tmp_path, command, 80, 24) as shown:
            await shown.shows("stuck.example", "read-only")
            await shown.press("r", "b", "s")
            await shown.press("Enter")
            seen = await shown.shows(SAID)
            assert SAID in seen
            assert "Retry" not in seen
            assert "Mark bad?" not in seen
        assert await came_of(relay, internet) == Came(did=(), marked=(), waiting=3, arrived=0)
