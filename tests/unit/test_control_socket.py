"""The socket itself: who may knock, what stands in its way, and what stays when it goes."""

import asyncio
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from engine.control import peer
from engine.control.client import Client, EngineUnreachable
from engine.model.event import ENGINE
from engine.model.verbs import Check
from tests.unit.fake_relay import FakeEngine, short_folder
from tests.waiting import PATIENCE, until


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_only_its_owner_may_use_the_socket(engine: FakeEngine) -> None:
    async with engine.serving():
        assert mode(engine.socket) == 0o600


async def test_a_group_may_be_let_in(engine: FakeEngine) -> None:
    group = grp.getgrgid(os.getgid())
    async with engine.serving(group=group.gr_name) as client:
        assert mode(engine.socket) == 0o660
        assert engine.socket.stat().st_gid == group.gr_gid
        assert (await client.health()).state == "relaying"


async def test_the_socket_is_never_open_to_others_not_even_while_it_is_made(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    chmod = Path.chmod

    def look_first(path: Path, wanted: int) -> None:
        seen.append(mode(path))
        chmod(path, wanted)

    monkeypatch.setattr(Path, "chmod", look_first)
    before = os.umask(0)
    try:
        async with engine.serving():
            assert seen == [0o600, 0o600]  # the operators', and the one for looking
    finally:
        os.umask(before)


async def test_a_group_that_does_not_exist_is_named(engine: FakeEngine) -> None:
    with pytest.raises(OSError, match="there is no group 'no-such-group'"):
        await engine.server(group="no-such-group").start()
    assert not engine.socket.exists()


async def test_a_socket_left_behind_is_replaced(engine: FakeEngine) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(engine.socket))
    async with engine.serving() as client:
        assert (await client.health()).state == "relaying"
    assert not engine.socket.exists()


async def test_what_is_no_socket_is_left_alone(engine: FakeEngine) -> None:
    engine.socket.write_text("a letter")
    with pytest.raises(FileExistsError, match="is no socket"):
        await engine.server().start()
    assert engine.socket.read_text() == "a letter"


async def test_a_socket_that_another_made_meanwhile_is_not_taken_away(engine: FakeEngine) -> None:
    server = engine.server()
    await server.start()
    engine.socket.rename(engine.socket.with_name("moved"))
    engine.socket.write_text("another's")
    await server.stop()
    assert engine.socket.exists()


async def test_a_server_can_be_stopped_twice_and_before_it_was_started(engine: FakeEngine) -> None:
    server = engine.server()
    await server.stop()
    assert not engine.socket.exists()
    server = engine.server()
    await server.start()
    assert engine.socket.exists()
    await server.stop()
    await server.stop()
    assert not engine.socket.exists()


async def test_it_stops_quickly_while_a_request_hangs_and_a_connection_idles(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.door.HEAD_SECONDS", 10 * PATIENCE)
    server = engine.server()
    await server.start()
    async with Client(engine.socket, timeout=10 * PATIENCE) as client:
        await client.health()
        stalls = engine.queue.stalls = asyncio.Event()
        hanging = asyncio.create_task(client.queue())
        await until(lambda: bool(stalls._waiters))
        async with asyncio.timeout(PATIENCE):
            await server.stop()
        with pytest.raises(EngineUnreachable):
            await hanging


async def test_who_has_no_name_is_known_by_number(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    peer._name.cache_clear()
    monkeypatch.setattr("pwd.getpwuid", nobody)
    async with engine.serving() as client:
        await client.ask(Check())
    peer._name.cache_clear()
    assert engine.queue.calls[0] == ("record", "checked", f"uid {os.getuid()}")


def test_nobody_can_pass_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        pw_name = ENGINE

    peer._name.cache_clear()
    monkeypatch.setattr("pwd.getpwuid", lambda _: Named())
    assert peer._name(4711) == "engine (uid 4711)"
    peer._name.cache_clear()


def test_the_peer_is_known_on_the_loop_the_engine_uses(engine: FakeEngine) -> None:
    async def check() -> None:
        async with engine.serving() as client:
            await client.ask(Check())

    uvloop.run(check())
    assert engine.queue.calls[0][2] == peer._name(os.getuid())
