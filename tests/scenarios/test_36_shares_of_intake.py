"""36. What one client leaves half sent, slowly or for ever, the others do not miss."""

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from engine.intake.errors import Refused
from engine.intake.floor import DiskFloor
from engine.intake.reply import Reply
from engine.intake.smtp.incoming import Storeroom, client_name
from engine.intake.smtp.listener import SmtpIntake
from engine.intake.smtp.submitted import Submitted
from engine.model.message import NewMessage
from engine.sandbox.internet import Internet
from engine.settings.settings import Intake, Limits, Settings, Smtp
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay
from tests.scenarios.submitting import ANYWHERE, PATIENCE, Keys, Talk, made_keys, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

MIB = 2**20
LARGEST = Smtp().max_message_size
HOG, OTHER = "127.0.0.66", "127.0.0.1"


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


@asynccontextmanager
async def intake(
    queue: FakeArrivals,
    *,
    folder: Path | None = None,
    floor: DiskFloor | None = None,
    limits: Limits | None = None,
    clock: FakeClock | None = None,
    **rules: Any,
) -> AsyncIterator[SmtpIntake]:
    settings = Settings(
        hostname="relay.example", intake=Intake(smtp=Smtp(listen=ANYWHERE, **rules), limits=limits or Limits())
    )
    server = SmtpIntake(queue, settings, clock or FakeClock(), folder=folder, floor=floor)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE):
            yield server
    finally:
        await server.stop(0.5)


async def at_data(client: Talk) -> None:
    """Say all that comes before the message."""
    await client.reply()
    await client.ehlo()
    for line, code in (("MAIL FROM:<ann@example.com>", "250"), ("RCPT TO:<bob@example.net>", "250"), ("DATA", "354")):
        assert (await client.say(line)).startswith(code)


async def half_sent(client: Talk, octets: int) -> None:
    """Send so much of a message, and no end."""
    await at_data(client)
    client.send(b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * (octets // 1000))
    await until(lambda: client.writer.transport.get_write_buffer_size() == 0)


async def send(client: Talk, content: bytes) -> str:
    await at_data(client)
    client.send(content + b"\r\n.\r\n")
    return await client.reply()


async def test_eight_half_sent_messages_of_one_client_keep_nobody_else_out(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server, AsyncExitStack() as held:
        door = server.addresses[0]
        for _ in range(8):
            client = await held.enter_async_context(talk(door, source=HOG))
            await half_sent(client, LARGEST - 3000)
        for size in (100_000, 10**6, LARGEST - 3000):
            async with talk(door, source=OTHER) as client:
                assert (await send(client, (b"z" * 98 + b"\r\n") * (size // 100))).startswith("250")
        assert server._reception.held < 8 * MIB
    assert [len(message.content) // 1000 for message in queue.messages] == [100, 1000, (LARGEST - 3000) // 1000]


async def test_a_large_message_lies_in_a_file_without_a_name_and_goes_on_whole(tmp_path: Path) -> None:
    queue = FakeArrivals()
    body = b"".join(b"%d\r\n..%d.\r\n.\r\n" % (number, number) for number in range(300_000))
    wire = b"Subject: x\r\n\r\n" + body.replace(b"\r\n.", b"\r\n..")
    async with intake(queue, folder=tmp_path) as server:
        room = server._reception.storeroom
        async with talk(server.addresses[0]) as client:
            await at_data(client)
            client.send(wire[: 3 * MIB])
            await until(lambda: room.on_disk > 2 * MIB)
            assert not list(tmp_path.iterdir())
            with room.open_file() as like_it:
                assert os.fstat(like_it.fileno()).st_mode & 0o777 == 0o600
            assert room.memory <= MIB
            client.send(wire[3 * MIB :] + b".\r\n")
            assert (await client.reply()).startswith("250")
            assert (room.memory, room.on_disk) == (0, 0)
        async with talk(server.addresses[0]) as client:
            await half_sent(client, 3 * MIB)
            await until(lambda: room.on_disk > 2 * MIB)
        await until(lambda: (room.memory, room.on_disk) == (0, 0))  # a client that leaves takes all with it
    assert queue.messages[0].content.endswith(b"\r\n\r\n" + body)


async def test_what_a_kill_left_is_swept_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "incoming.abc").write_bytes(b"half")
    (tmp_path / "queue.db").write_bytes(b"")
    async with intake(FakeArrivals(), folder=tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["queue.db"]


@pytest.mark.parametrize(("error", "reply"), [(28, "452 4.3.1"), (122, "452 4.3.1"), (5, "451 4.3.0")])
async def test_a_disk_that_is_full_or_fails_refuses_the_message_and_the_session_goes_on(
    error: int, reply: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise OSError(error, "odd")

    queue = FakeArrivals()
    async with intake(queue) as server, talk(server.addresses[0]) as client:
        monkeypatch.setattr(server._reception.storeroom, "open_file", broken)
        assert (await send(client, (b"z" * 98 + b"\r\n") * 10_000)).startswith(reply)
        monkeypatch.undo()
        assert (await client.mail()).startswith("250")
        assert (server._reception.storeroom.memory, server._reception.storeroom.on_disk) == (0, 0)


async def test_messages_that_come_in_count_against_the_floor_and_health_says_so() -> None:
    floor = DiskFloor(Path("/"), 100 * MIB)
    floor.free = lambda folder: 120 * MIB
    clock = FakeClock()
    async with intake(FakeArrivals(), floor=floor, clock=clock) as server, talk(server.addresses[0]) as client:
        assert (await send(client, (b"z" * 98 + b"\r\n") * 250_000)).startswith("452 4.3.1")
        assert server.notes == ("452 to some messages: intake stops: 120 MiB free in /, intake.min_free is 100 MiB",)
        await clock.advance(301)
        assert not server.notes
        assert (await client.mail()).startswith("250")


async def test_of_the_disk_one_client_has_a_share_and_the_others_have_theirs() -> None:
    floor = DiskFloor(Path("/"), 100 * MIB)
    floor.free = lambda folder: 130 * MIB  # a share is a quarter of what is there
    async with intake(FakeArrivals(), floor=floor, max_message_size=8 * MIB) as server, AsyncExitStack() as held:
        door = server.addresses[0]
        first = await held.enter_async_context(talk(door, source=HOG))
        await half_sent(first, 7 * MIB)
        await until(lambda: server._reception.storeroom.on_disk > 6 * MIB)
        async with talk(door, source=HOG) as client:
            assert (await send(client, (b"z" * 98 + b"\r\n") * 60_000)).startswith("452 4.3.1")
        assert server.notes == (f"452 to some messages: {HOG} holds its share of the disk for messages that come in",)
        async with talk(door, source=OTHER) as client:
            assert (await send(client, (b"z" * 98 + b"\r\n") * 60_000)).startswith("250")


async def test_a_client_that_drips_is_sent_away_and_one_that_sends_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(least_data_rate=100_000)
    queue = FakeArrivals()
    async with intake(queue, limits=limits) as server:
        monkeypatch.setattr("engine.intake.smtp.reader.GRACE", 0.5)
        async with talk(server.addresses[0]) as slow, talk(server.addresses[0]) as fast:
            began = asyncio.get_running_loop().time()  # its time runs from DATA on, not from when the other is there
            await at_data(slow)
            await at_data(fast)
            slow.send(b"Subject: x\r\n")
            fast.send((b"z" * 98 + b"\r\n") * 20_000)  # two megabytes: enough for twenty seconds
            assert (await slow.reply()).startswith("421 4.4.2 relay.example Too slow: at least 100000 octets a second")
            assert asyncio.get_running_loop().time() - began >= 0.5
            assert await slow.reader.read() == b""
            fast.send(b".\r\n")
            assert (await fast.reply()).startswith("250")
        assert server.notes == (
            "421 in the middle of messages of 127.0.0.1: slower than intake.limits.least_data_rate",
        )
    assert any("too slow" in event.text for event in queue.events_recorded)


async def test_large_messages_are_in_memory_two_at_a_time_until_they_are_committed() -> None:
    class Counting(FakeArrivals):
        now = most = 0

        async def enqueue(self, message: NewMessage) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                return await super().enqueue(message)
            finally:
                self.now -= 1

    queue = Counting()
    queue.open_gate.clear()
    async with intake(queue) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(talk(server.addresses[0])) for _ in range(5)]
        sending = [asyncio.create_task(send(client, (b"z" * 98 + b"\r\n") * 10_000)) for client in clients]
        await until(lambda: queue.now >= 2)
        async with talk(server.addresses[0]) as small:
            waiting = asyncio.create_task(send(small, b"Subject: small\r\n"))
            await until(lambda: queue.now >= 3)  # what is small goes past them
            assert queue.most == 3
            queue.open_gate.set()
            assert (await waiting).startswith("250")
        assert all(reply.startswith("250") for reply in await asyncio.gather(*sending))
    assert queue.most == 3


async def test_of_the_memory_one_client_has_a_share_and_the_others_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with intake(FakeArrivals()) as server, AsyncExitStack() as held:
        monkeypatch.setattr(server._reception.storeroom, "may_hold", 2 * MIB)  # a share is two small messages
        door = server.addresses[0]
        for _ in range(2):
            client = await held.enter_async_context(talk(door, source=HOG))
            await half_sent(client, 250_000)
        await until(lambda: server._reception.held >= 380_000)
        async with talk(door, source=HOG) as client:
            assert (await send(client, (b"z" * 98 + b"\r\n") * 2000)).startswith("452 4.3.1")
        assert server.notes == (f"452 to some messages: {HOG} holds its share of the memory for messages that come in",)
        async with talk(door, source=OTHER) as client:
            assert (await send(client, (b"z" * 98 + b"\r\n") * 2000)).startswith("250")


async def test_a_login_counts_as_one_client_wherever_it_comes_from(keys: Keys) -> None:
    assert client_name("192.0.2.1", "ann") == client_name("198.51.100.1", "ann") == "the login ann"
    assert client_name("2001:db8::1", "") == client_name("2001:db8::2", "") == "2001:db8::/64"


async def test_bounds_that_are_reached_are_named() -> None:
    limits = Limits(exempt_networks=(), connections_per_address=1, messages_per_minute_per_address=1)
    async with intake(FakeArrivals(), limits=limits) as server, talk(server.addresses[0]) as client:
        await client.reply()
        await client.ehlo()
        assert (await client.mail()).startswith("250")
        assert (await client.mail()).startswith("450 4.7.1")
        async with talk(server.addresses[0]) as second:
            assert (await second.reply()).startswith("421 4.7.0")
        assert set(server.notes) == {
            "450 to mail of 127.0.0.1: more than intake.limits allows",
            "421 to more sessions from 127.0.0.1 (intake.limits.connections_per_address)",
        }


async def test_health_tells_operators_which_bounds_are_reached(internet: Internet, relay: Relay) -> None:
    assert await relay.bounds() == []
    relay.engine.floor.free = lambda folder: 110 * MIB
    async with talk(relay.engine.smtp.addresses[0]) as client:
        assert (await send(client, (b"z" * 98 + b"\r\n") * 150_000)).startswith("452 4.3.1")
    (note,) = await relay.bounds()
    assert note.startswith("452 to some messages: intake stops: 110 MiB free in ")


async def test_a_stop_waits_for_who_still_reads_a_large_message_whose_client_has_gone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or its file would stay open until the process ends, with nobody left to close it, or to hear the verdict."""
    reading, go_on, files = threading.Event(), threading.Event(), list[IO[bytes]]()

    def held_up(submitted: Submitted, *_: object) -> NewMessage:
        reading.set()
        go_on.wait(PATIENCE)
        raise Refused(Reply(550, "5.7.1", "No"), "no")

    def opened(room: Storeroom) -> IO[bytes]:
        files.append(open_file(room))
        return files[-1]

    open_file = Storeroom.open_file
    monkeypatch.setattr(Storeroom, "open_file", opened)
    monkeypatch.setattr(Submitted, "message", held_up)
    async with intake(FakeArrivals()) as server:
        async with talk(server.addresses[0]) as client:
            await at_data(client)
            client.send((b"z" * 98 + b"\r\n") * 5000 + b".\r\n")
            await until(reading.is_set)
        asyncio.get_running_loop().call_later(1, go_on.set)  # when the stop has cut off who is not done in time
    assert [file.closed for file in files] == [True]
    gc.collect()
    assert "never retrieved" not in caplog.text
