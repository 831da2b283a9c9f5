"""The door for looking: whoever comes by it cannot act, with any program; and the console knows it from the engine."""

import asyncio
import grp
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from engine.control import views
from engine.control.client import Barred, Client, Refused, answers, control_socket, view_socket
from engine.control.server import VIEWERS_AT_ONCE
from engine.model.verbs import Check
from tests.unit.fake_relay import FakeEngine, short_folder
from tests.waiting import PATIENCE, until


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


@asynccontextmanager
async def raw(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """HTTP without the client's good manners."""
    connector = aiohttp.UnixConnector(path=str(path))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


def acting(engine: FakeEngine) -> list[str]:
    server = engine.server()
    return [route.path for route in (*server.acting, *server.listing)]


async def test_nothing_that_acts_can_be_asked_by_the_door_for_looking(engine: FakeEngine) -> None:
    body = b'{"filter": "", "now": true, "host": "mx.example", "destination": "*", "seconds": 60, "note": ""}'
    async with engine.serving(group=grp.getgrgid(os.getgid()).gr_name), raw(view_socket(engine.socket)) as session:
        for path in acting(engine):
            for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
                async with session.request(method, f"http://relay{path}", data=body) as response:
                    refusal = msgspec.json.decode(await response.read(), type=views.Refusal)
                assert response.status == 403, (method, path)
                assert refusal.what == "this is the way in for looking alone"
                assert "control.sock" in refusal.allowed
    assert engine.queue.suppression.calls == []
    assert (engine.queue.calls, engine.mx.calls, engine.queue.suspended) == ([], [], [])


async def test_all_that_shows_is_shown_by_the_door_for_looking_and_metrics_with_it(engine: FakeEngine) -> None:
    filled = {"{number}": "7", "{name}": "example.org", "{subject}": "example.org"}
    async with engine.serving(), raw(view_socket(engine.socket)) as session:
        for route in engine.server().looking:
            path = route.path
            if path.endswith("/follow"):
                continue
            for name, value in filled.items():
                path = path.replace(name, value)
            async with session.get(f"http://relay{path}") as response:
                assert response.status in (200, 404), path
                assert response.status == 200 or b'"not_found":true' in await response.read(), path


async def test_the_engine_says_by_which_door_one_came(engine: FakeEngine) -> None:
    async with engine.serving() as operator, Client(view_socket(engine.socket)) as viewer:
        assert not (await operator.health()).read_only
        assert not (await operator.overview()).health.read_only
        assert (await viewer.health()).read_only
        assert (await viewer.overview()).health.read_only
        with pytest.raises(Refused, match="for looking alone"):
            await viewer.ask(Check())


async def test_viewers_keep_no_operator_waiting(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.control.streams._FOLLOWERS", 2)
    under_way = most = 0
    gate = asyncio.Event()
    window = engine.queue.listing.window

    async def counted(*asked: Any) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return await window(*asked)

    monkeypatch.setattr(engine.queue.listing, "window", counted)
    async with engine.serving() as operator, Client(view_socket(engine.socket)) as viewer:
        streams = [viewer.follow() for _ in range(2)]
        following = [asyncio.create_task(anext(stream)) for stream in streams]
        crowd = [asyncio.create_task(viewer.queue()) for _ in range(20)]
        await until(lambda: under_way >= VIEWERS_AT_ONCE and len(engine.events._followers) >= 2)
        assert (await operator.health()).state == "relaying"
        own = asyncio.create_task(anext(operator.follow()))
        await until(lambda: len(engine.events._followers) == 3)
        gate.set()
        async with asyncio.timeout(PATIENCE):
            assert {window.total for window in await asyncio.gather(*crowd)} == {3}
        assert most == VIEWERS_AT_ONCE
        for task in (own, *following):
            task.cancel()
        await asyncio.gather(own, *following, return_exceptions=True)


async def test_each_door_has_its_own_group(engine: FakeEngine) -> None:
    own = grp.getgrgid(os.getgid())
    async with engine.serving(view_group=own.gr_name):
        looking, acting = view_socket(engine.socket).stat(), engine.socket.stat()
        assert stat.S_IMODE(acting.st_mode) == 0o600
        assert (stat.S_IMODE(looking.st_mode), looking.st_gid) == (0o660, own.gr_gid)


async def test_both_sockets_go_with_the_engine(engine: FakeEngine) -> None:
    async with engine.serving():
        assert view_socket(engine.socket).exists()
    assert not engine.socket.exists()
    assert not view_socket(engine.socket).exists()


async def test_a_socket_for_looking_that_cannot_be_made_leaves_none_of_them(engine: FakeEngine) -> None:
    with pytest.raises(OSError, match="there is no group 'no-such-group'"):
        await engine.server(view_group="no-such-group").start()
    assert not engine.socket.exists()


def barring(monkeypatch: pytest.MonkeyPatch, *barred: Path) -> None:
    """Have the kernel say of these that we may not open them; to root it never would."""
    connect = socket.socket.connect

    def refused(self: socket.socket, address: Any) -> None:
        if Path(str(address)) in barred:
            raise PermissionError(13, "Permission denied")
        connect(self, address)

    sock_connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def refused_too(self: Any, sock: socket.socket, address: Any) -> None:
        if Path(str(address)) in barred:
            raise PermissionError(13, "Permission denied")
        await sock_connect(self, sock, address)

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", refused_too)


async def test_who_may_not_open_the_operators_socket_looks_by_the_other(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine.serving():
        barring(monkeypatch, engine.socket)
        assert answers(engine.socket)
        async with Client(engine.socket) as viewer:
            assert (await viewer.health()).read_only


async def test_who_may_open_neither_is_told_of_the_operators(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine.serving():
        barring(monkeypatch, engine.socket, view_socket(engine.socket))
        assert not answers(engine.socket)
        async with Client(engine.socket) as client:
            with pytest.raises(Barred, match=r"control\.sock may not be opened"):
                await client.health()


def test_where_nobody_listens_nobody_answers(engine: FakeEngine) -> None:
    assert not answers(control_socket(engine.socket.parent))
