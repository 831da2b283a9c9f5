"""The live stream of events: what a follower gets, and what a bad follower cannot do."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from engine.control import streams
from engine.control.client import Client, Refused
from engine.control.feed import EventLog
from engine.control.streams import EventStreams
from engine.model.event import Event
from engine.queue.errors import QueueBusy
from tests.clock import FakeClock
from tests.unit.fake_relay import DEFERRED, NOW, FakeEngine, short_folder
from tests.waiting import PATIENCE, until


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


def event(seq: int, text: str = "") -> Event:
    return Event(
        seq=seq, at=NOW, kind="deferred", message=7, entry=2, host="mx.example.org", outcome=DEFERRED, text=text
    )


class Written:
    """What the server writes into its streams: the signs of life that have gone out, and the writes that wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.signs_of_life = self.waiting = 0
        self._write = web.StreamResponse.write
        monkeypatch.setattr(web.StreamResponse, "write", lambda response, data: self._noted(response, data))

    async def _noted(self, response: web.StreamResponse, data: bytes) -> None:
        self.waiting += 1
        try:
            await self._write(response, data)
        finally:
            self.waiting -= 1
        self.signs_of_life += data == b"\n"


@asynccontextmanager
async def following(engine: FakeEngine, client: Client) -> AsyncIterator[asyncio.Queue[Event | None]]:
    """A queue of what the follower got; None at the end of the stream."""
    got: asyncio.Queue[Event | None] = asyncio.Queue()
    before = followers(engine)

    async def follow() -> None:
        async with aclosing(client.follow()) as stream:
            async for one in stream:
                got.put_nowait(one)
        got.put_nowait(None)

    task = asyncio.create_task(follow())
    try:
        await until(lambda: followers(engine) > before)
        yield got
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def followers(engine: FakeEngine) -> int:
    return len(engine.events._followers)


async def _next(got: asyncio.Queue[Event | None]) -> Event | None:
    async with asyncio.timeout(PATIENCE):
        return await got.get()


async def test_a_follower_gets_each_event_as_it_happens(engine: FakeEngine) -> None:
    async with engine.serving() as client, following(engine, client) as got:
        engine.events.publish([event(1)])
        assert await _next(got) == Event(
            seq=1,
            at=NOW,
            kind="deferred",
            by="engine",
            message=7,
            entry=2,
            host="mx.example.org",
            outcome=DEFERRED,
        )
        engine.events.publish([event(2), event(3)])
        assert [one.seq for one in (await _next(got), await _next(got)) if one] == [2, 3]


async def test_every_follower_gets_every_event(engine: FakeEngine) -> None:
    async with engine.serving() as client, following(engine, client) as one, following(engine, client) as other:
        engine.events.publish([event(1)])
        assert await _next(one) == await _next(other)


def deaf(engine: FakeEngine) -> socket.socket:
    """A follower that reads nothing: what the kernel keeps for it is soon full, and stays so."""
    guest = socket.socket(socket.AF_UNIX)
    guest.connect(str(engine.socket))
    guest.sendall(b"GET /v1/events/follow HTTP/1.1\r\nHost: relay\r\n\r\n")
    return guest


async def test_signs_of_life_are_not_taken_for_events(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    async with engine.serving(sign_of_life=0.01) as client, following(engine, client) as got:
        await until(lambda: written.signs_of_life >= 5)
        engine.events.publish([event(1)])
        assert await _next(got) == event(1)  # which came after them
        assert got.empty()


async def test_the_stream_ends_with_the_server_and_quickly(engine: FakeEngine) -> None:
    server = engine.server(sign_of_life=10 * PATIENCE)
    await server.start()
    async with Client(engine.socket) as client, following(engine, client) as one, following(engine, client) as other:
        async with asyncio.timeout(PATIENCE):
            await server.stop()
        assert await _next(one) is None
        assert await _next(other) is None
    assert followers(engine) == 0


async def test_a_follower_that_goes_is_forgotten(engine: FakeEngine) -> None:
    async with engine.serving(sign_of_life=0.01) as client:
        async with following(engine, client):
            assert followers(engine) == 1
        await until(lambda: followers(engine) == 0)


async def test_a_follower_that_does_not_read_is_cut_off(engine: FakeEngine) -> None:
    async with engine.serving(patience=0.2) as client:
        with deaf(engine):
            await until(lambda: followers(engine) == 1)

            def is_cut_off() -> bool:
                engine.events.publish([event(seq, "x" * 900) for seq in range(500)])
                return followers(engine) == 0

            await until(is_cut_off)
            assert (await client.health()).state == "relaying"


async def test_the_server_stops_quickly_with_a_follower_that_does_not_read(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Written(monkeypatch)
    server = engine.server(patience=10 * PATIENCE)
    await server.start()
    with deaf(engine):
        await until(lambda: followers(engine) == 1)

        def is_written_to_in_vain() -> bool:
            engine.events.publish([event(seq, "x" * 900) for seq in range(500)])
            return written.waiting == 1

        await until(is_written_to_in_vain)
        async with asyncio.timeout(PATIENCE):
            await server.stop()
        assert followers(engine) == 0


async def test_there_is_a_limit_to_followers(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.control.streams._FOLLOWERS", 1)
    async with engine.serving() as client, following(engine, client):
        with pytest.raises(Refused, match="too many follow"):
            await anext(client.follow())


class NobodyElse:
    """A store that nodes share, in which this one is alone, and that cannot always be read."""

    def __init__(self) -> None:
        self.is_away = False
        self.asked_in_vain = 0

    async def events_of_all(self, after: int) -> None:
        if self.is_away:
            self.asked_in_vain += 1
            raise QueueBusy("the database cannot be reached")

    async def newest_event(self) -> int:
        await self.events_of_all(0)
        return 0


@asynccontextmanager
async def streaming(elsewhere: NobodyElse) -> AsyncIterator[tuple[EventLog, TestClient[web.Request, web.Application]]]:
    log = EventLog(FakeClock())
    serving = EventStreams(log, elsewhere=elsewhere)
    app = web.Application()
    app.router.add_get("/", serving.serve)
    async with TestClient(TestServer(app)) as client:
        yield log, client
        serving.stop()


async def test_what_happened_while_the_store_could_not_be_read_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_EVERY", 0.01)
    elsewhere = NobodyElse()
    async with streaming(elsewhere) as (log, client), client.get("/") as response:
        assert await response.content.readline() == b"\n"
        elsewhere.is_away = True
        log.publish([event(1), event(2)])
        await until(lambda: elsewhere.asked_in_vain > 1)
        elsewhere.is_away = False
        log.publish([event(3)])
        async with asyncio.timeout(10):
            lines = [await response.content.readline() for _ in range(3)]
        assert [msgspec.json.decode(line, type=Event).seq for line in lines] == [1, 2, 3]


async def test_who_begins_to_follow_while_the_store_cannot_be_read_is_refused() -> None:
    elsewhere = NobodyElse()
    elsewhere.is_away = True
    async with streaming(elsewhere) as (log, client), client.get("/") as response:
        assert response.status == 500  # the server makes 503 of it, as of any question
        assert not log._followers
