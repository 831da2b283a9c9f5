"""A door keeps nobody out by what others do in it: half requests end in time, and a removed socket is made anew."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from aiohttp import web

from engine.control.client import Client, view_socket
from engine.control.server import ControlServer
from tests.unit.fake_relay import FakeEngine, short_folder
from tests.waiting import PATIENCE, until

HALF = b"GET /v1/health HTTP/1.1\r\nHost: re"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


def handlers(server: ControlServer) -> list[web.RequestHandler]:
    """Who is in the operators' door."""
    runner = server._doors[0]._runner
    assert runner is not None
    assert runner.server is not None
    return runner.server.connections


async def sent(engine: FakeEngine, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(engine.socket))
    writer.write(said)
    await writer.drain()
    return reader, writer


async def test_half_a_request_ends_in_time(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.control.door.HEAD_SECONDS", 0.2)
    async with engine.serving():
        for said, has_answer in (
            (b"", False),
            (HALF, False),
            (b"GET /v1/health HTTP/1.1\r\nHost: relay\r\n\r\n", True),
        ):
            reader, writer = await sent(engine, said)
            async with asyncio.timeout(10):
                answer = await reader.read()  # to its end
            assert answer.startswith(b"HTTP/1.1 200 ") == has_answer
            writer.close()


async def test_a_body_that_does_not_come_ends_in_time_and_does_nothing(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.requests.BODY_SECONDS", 0.1)
    monkeypatch.setattr("engine.control.door.LINGER", 0.1)
    async with engine.serving():
        reader, writer = await sent(
            engine, b'POST /v1/drop HTTP/1.1\r\nHost: relay\r\nContent-Length: 99\r\n\r\n{"filter": ""'
        )
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come within 0.1 s" in answer
    assert engine.queue.calls == []


async def test_half_requests_are_bounded_and_keep_nobody_out(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.door.MOST_GUESTS", 8)
    server = engine.server()
    await server.start()
    async with Client(engine.socket) as client:
        await client.health()
        (own,) = handlers(server)
        guests = [await sent(engine, HALF) for _ in range(40)]
        async with Client(engine.socket) as late:
            assert (await late.health()).state == "relaying"
            assert (await client.health()).state == "relaying"
        assert client._open.connector is not None
        assert sum(map(len, client._open.connector._conns.values())) == 1
        assert own in handlers(server), "who asks now and then is not the one who is sent away"
        await until(lambda: sum(not reader.at_eof() for reader, _ in guests) <= 8)
        await until(lambda: bool(server.notes))
        assert server.notes == (
            "control.sock has 8 connections, as many as it holds: the idlest is ended for each more",
        )
        for _, writer in guests:
            writer.close()
        await until(lambda: not server.notes)
    await server.stop()


async def test_who_is_being_answered_is_not_sent_away(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.control.door.MOST_GUESTS", 4)
    async with engine.serving() as client:
        engine.queue.stalls = asyncio.Event()
        asking = asyncio.create_task(client.queue())
        follower = client.follow()
        following = asyncio.create_task(anext(follower))
        await until(lambda: len(engine.events._followers) == 1)
        guests = [await sent(engine, HALF) for _ in range(20)]
        await until(lambda: sum(not reader.at_eof() for reader, _ in guests) <= 4)
        engine.queue.stalls.set()
        assert (await asking).total == 3
        assert not following.done()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await follower.aclose()
        for _, writer in guests:
            writer.close()


@pytest.mark.parametrize("many", [8_000, 400])
async def test_who_does_not_read_the_answer_is_ended_in_time(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, many: int
) -> None:
    """As many as a door holds would else stand there for good, each with its answer in memory."""
    monkeypatch.setattr("engine.control.door.TAKE_SECONDS", 0.3)
    caplog.set_level(logging.INFO, "engine.control.door")
    engine.notes = ("x" * 900,) * many
    server = engine.server()
    await server.start()

    def ended() -> int:
        return sum("did not read its answer in time" in record.getMessage() for record in caplog.records)

    async with Client(engine.socket) as client:
        deaf = []
        for _ in range(4):
            deaf.append(guest := socket.socket(socket.AF_UNIX))
            guest.connect(str(engine.socket))
            guest.sendall(b"GET /v1/health HTTP/1.1\r\nHost: relay\r\n\r\n")
        await until(lambda: ended() == 4 and not handlers(server))
        monkeypatch.setattr("engine.control.door.TAKE_SECONDS", PATIENCE)  # it may take its time on a busy machine
        assert (await client.health()).notes == engine.notes, "who reads has it all"
    for guest in deaf:
        guest.close()
    await server.stop()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_who_reads_and_asks_again_is_not_ended(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at is the answer that waits, not how long somebody has been here."""
    server = engine.server()
    await server.start()
    taking = server._doors[0]._taking  # the time there is to read an answer runs for whoever is in this
    async with Client(engine.socket) as client:
        monkeypatch.setattr("engine.control.door.TAKE_SECONDS", 0.01)
        await client.health()
        (own,) = handlers(server)
        for _ in range(3):
            await until(lambda: not taking)  # it is over before the next question
            await client.health()
        await until(lambda: not taking)
        monkeypatch.setattr("engine.control.door.TAKE_SECONDS", PATIENCE)
        await client.health()
        for _ in range(3):  # and with each question that comes before that it begins anew
            before = taking[own]
            await client.health()
            assert before.cancelled()
            assert taking[own].when() > before.when()
        assert handlers(server) == [own]
    await server.stop()


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/health HTTP/1.1\r\nBad Header\x01: x\r\n\r\n",
        b"EHLO me\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        b"POST /v1/drop HTTP/1.1\r\nHost: r\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/drop HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\nnot a number\r\n\r\n",
        b"POST /v1/drop HTTP/1.1\r\nHost: r\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /v1/drop HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    ],
)
async def test_a_malformed_request_is_refused_without_a_traceback(
    engine: FakeEngine, said: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with engine.serving() as client:
            reader, writer = await sent(engine, said)
            async with asyncio.timeout(10):
                answer = await reader.read(64)
            writer.close()
            assert (await client.health()).state == "relaying"
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert "Traceback" not in caplog.text
    assert all(record.levelno <= logging.INFO for record in caplog.records)
    assert engine.queue.calls == []


async def test_a_removed_socket_is_made_anew_and_who_is_in_stays(engine: FakeEngine) -> None:
    server = engine.server()
    await server.start()
    async with Client(engine.socket) as inside:
        await inside.health()
        assert await server.mend() == ()
        engine.socket.unlink()
        assert await server.mend() == (engine.socket,)
        async with Client(engine.socket) as again:
            assert (await again.health()).state == "relaying"
        assert (await inside.health()).state == "relaying"
        assert await server.mend() == ()
    await server.stop()
    assert not engine.socket.exists()


def test_it_is_made_anew_on_the_loop_the_engine_uses(engine: FakeEngine) -> None:
    async def removed() -> None:
        server = engine.server()
        await server.start()
        engine.socket.unlink()
        assert await server.mend() == (engine.socket,)
        assert await server.mend() == ()
        async with Client(engine.socket) as client:
            assert (await client.health()).state == "relaying"
        await server.stop()
        assert not engine.socket.exists()

    uvloop.run(removed())


async def test_a_socket_in_the_place_of_ours_is_replaced(engine: FakeEngine) -> None:
    server = engine.server()
    await server.start()
    looking = view_socket(engine.socket)
    looking.rename(looking.with_name("moved"))
    other = await asyncio.start_unix_server(lambda _, writer: writer.close(), path=str(looking))
    assert await server.mend() == (looking,)
    async with Client(looking) as client:
        assert (await client.health()).read_only
    other.close()
    await server.stop()


async def test_what_is_no_socket_in_the_place_of_ours_is_left_and_said(engine: FakeEngine) -> None:
    server = engine.server()
    await server.start()
    engine.socket.unlink()
    engine.socket.write_text("a letter")
    with pytest.raises(FileExistsError, match="is no socket"):
        await server.mend()
    assert engine.socket.read_text() == "a letter"
    engine.socket.unlink()
    assert await server.mend() == (engine.socket,), "it is tried again at each look"
    await server.stop()
