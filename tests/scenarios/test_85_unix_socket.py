"""85. Over a Unix socket: programs of this machine hand us mail as the users that the kernel knows them to be."""

import asyncio
import grp
import logging
import os
import pwd
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from engine.engine import Engine
from engine.intake.errors import IntakeError
from engine.intake.smtp.listener import SmtpIntake
from engine.settings.settings import Dns, Intake, Limits, Listen, Nameserver, Settings, Smtp, UnixSocket
from tests.clock import FakeClock
from tests.scenarios.submitting import Talk, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import PATIENCE, until

UID = os.geteuid()
NAME = pwd.getpwuid(UID).pw_name
PEER = f"unix uid {UID} ({NAME})"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "smtp.sock"


@asynccontextmanager
async def intake(
    path: Path, queue: FakeArrivals, limits: Limits | None = None, **rules: Any
) -> AsyncIterator[SmtpIntake]:
    """An intake that listens on a socket, and at an address."""
    smtp = Smtp(**{"listen": (UnixSocket(path), Listen("127.0.0.1", 0)), **rules})
    settings = Settings(hostname="relay.example", intake=Intake(smtp=smtp, limits=limits or Limits()))
    server = SmtpIntake(queue, settings, FakeClock())
    await server.start()
    try:
        async with asyncio.timeout(2 * PATIENCE):
            yield server
    finally:
        await server.stop(0.5)


@asynccontextmanager
async def local(path: Path) -> AsyncIterator[Talk]:
    """A program of this machine."""
    client = Talk(*await asyncio.open_unix_connection(str(path)))
    try:
        yield client
    finally:
        client.writer.transport.abort()


async def sent(path: Path) -> str:
    """Hand over a message; give the last reply."""
    async with local(path) as client:
        greeting = await client.reply()
        if not greeting.startswith("220"):
            return greeting
        await client.ehlo()
        return await client.mail()


async def test_who_sends_is_known_by_the_kernel_and_told_by_name(path: Path) -> None:
    queue = FakeArrivals()
    async with intake(path, queue) as server:
        for _ in range(2):
            assert (await sent(path)).startswith("250")
        assert [place.host for place in server.addresses] == ["127.0.0.1"]
        async with talk(server.addresses[0]) as client:
            assert (await client.reply()).startswith("220")
    for message in queue.messages:
        assert message.origin == f"smtp {PEER}"
        received = message_from_bytes(message.content)["Received"]
        assert received.startswith(f"from client.example (unix uid {UID})\r\n\tby relay.example (smarthost) with")
    assert len(queue.messages) == 2
    assert not path.exists()


async def test_he_may_relay_where_loopback_may(path: Path) -> None:
    queue = FakeArrivals()
    async with intake(path, queue, relay_networks=(ip_network("192.0.2.0/24"),)):
        assert (await sent(path)).startswith("550 5.7.1")
        await until(lambda: bool(queue.events_recorded))
    assert queue.events_recorded[0].text == f"smtp {PEER}: relaying denied"
    async with intake(path, queue, relay_networks=(ip_network("::1/128"),)):
        assert (await sent(path)).startswith("250")


async def test_limits_count_by_his_uid(path: Path) -> None:
    limits = Limits(connections_per_address=1, messages_per_minute_per_address=1)
    async with intake(path, FakeArrivals(), limits) as server:
        async with local(path) as client:
            assert (await client.reply()).startswith("220")
            assert (await sent(path)).startswith("421 4.7.0")
            assert server.notes == (
                f"421 to more sessions from unix uid {UID} (intake.limits.connections_per_address)",
            )
        await until(lambda: not server.sessions)
        assert (await sent(path)).startswith("250")
        await until(lambda: not server.sessions)
        assert (await sent(path)).startswith("450 4.7.1")


async def test_a_name_that_does_not_come_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = threading.Event()

    def slow(uid: int) -> str:
        there.wait(PATIENCE)
        return NAME

    monkeypatch.setattr("engine.intake.smtp.local.login_of", slow)
    monkeypatch.setattr("engine.intake.smtp.local.PATIENCE", 0.1)
    queue = FakeArrivals()
    async with intake(path, queue):
        assert (await sent(path)).startswith("250")
        there.set()
    assert queue.messages[0].origin == f"smtp unix uid {UID}"


async def test_who_goes_or_talks_on_while_his_name_is_looked_up_is_dealt_with(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = threading.Event()
    monkeypatch.setattr("engine.intake.smtp.local.login_of", lambda uid: there.wait(PATIENCE) and NAME)
    queue = FakeArrivals()
    flooding = "smtp unix: nobody knows who it is: more than 131072 octets came before the greeting"
    async with intake(path, queue) as server:
        async with local(path):
            await until(lambda: len(server._meetings) == 1)
        await until(lambda: not server._meetings)
        async with local(path) as hasty, local(path) as flood:
            hasty.send(b"EHLO client.example\r\n")
            flood.send(b"x" * 500_000)
            await until(lambda: any(meeting.come for meeting in server._meetings))
            await until(lambda: any(flooding in event.text for event in queue.events_recorded))
            there.set()
            assert (await hasty.reply()).startswith("554 5.5.0")
        await until(lambda: not server.sessions and not server._meetings)


async def test_a_stop_waits_for_no_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = threading.Event()
    monkeypatch.setattr("engine.intake.smtp.local.login_of", lambda uid: there.wait(PATIENCE) and NAME)
    async with intake(path, FakeArrivals()) as server, local(path) as client:
        await until(lambda: len(server._meetings) == 1)
        async with asyncio.timeout(PATIENCE / 2):
            await server.stop(0)
        assert await client.reader.read() == b""
        there.set()


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "mode"), [("", 0o600), ("*", 0o666), (grp.getgrgid(os.getegid()).gr_name, 0o660)])
async def test_the_socket_is_for_whom_the_settings_say(path: Path, group: str, mode: int) -> None:
    async with intake(path, FakeArrivals(), socket_group=group):
        found = path.stat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert found.st_gid == os.getegid()


async def test_a_socket_that_was_left_behind_is_replaced_and_what_is_in_use_or_none_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        async with intake(path, FakeArrivals()):
            assert (await sent(path)).startswith("250")
            with pytest.raises(IntakeError, match=f"cannot listen on unix:{path}: somebody listens there already"):
                async with intake(path, FakeArrivals()):
                    pass
            assert (await sent(path)).startswith("250")
    path.write_text("a file")
    with pytest.raises(IntakeError, match="is there already and is no socket: move it away"):
        async with intake(path, FakeArrivals()):
            pass
    assert path.read_text() == "a file"


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "smtp.sock"
    with pytest.raises(IntakeError, match=f"cannot listen on unix:{nowhere}: No such file or directory"):
        async with intake(nowhere, FakeArrivals()):
            pass


async def test_a_socket_that_is_removed_is_made_anew_and_who_is_inside_stays(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "engine")
    settings = Settings(
        hostname="relay.example.net",
        spool=tmp_path / "spool",
        intake=Intake(min_free=0, smtp=Smtp(listen=(UnixSocket(path),))),
        dns=Dns(nameservers=(Nameserver("127.0.0.1", 1),)),
    )
    engine = Engine(settings)
    await engine.start()
    try:
        async with local(path) as inside:
            assert (await inside.reply()).startswith("220")
            path.unlink()
            await engine._look()
            assert f"{path} was removed or replaced: it is made anew" in caplog.text
            assert (await sent(path)).startswith("250")
            await inside.ehlo()
            assert (await inside.mail()).startswith("250")
        path.unlink()
        path.mkdir()
        await engine._look()
        assert engine.trouble.startswith("a socket of intake.smtp.listen is gone, and cannot be made anew: ")
        assert not engine.supervision.failure
        path.rmdir()
        await engine._look()
        assert not engine.trouble
        assert (await sent(path)).startswith("250")
    finally:
        await engine.stop(drain=0)
    assert not path.exists()
