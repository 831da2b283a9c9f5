"""39. What is no mail client is sent away: who speaks before its turn, and who speaks HTTP (RFC 2920 3.1)."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from engine.intake.smtp.listener import SmtpIntake
from engine.settings.settings import Listen
from tests.scenarios.submitting import LETTER, Keys, Talk, made_keys, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until_told

ENVELOPE = b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\n"
OUT_OF_TURN = "554 5.5.0 relay.example You spoke out of turn, {} (RFC 2920)"


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


@asynccontextmanager
async def greeted(server: SmtpIntake, hello: str = "EHLO") -> AsyncIterator[Talk]:
    async with talk(server.addresses[0]) as client:
        await client.reply()
        assert (await client.say(f"{hello} client.example")).startswith("250")
        yield client


async def rest(client: Talk) -> list[str]:
    """All replies until the session ends."""
    return (await client.reader.read()).decode().splitlines()


async def test_what_comes_with_data_is_no_message_and_ends_the_session(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server:
        for early in (LETTER + b".\r\nQUIT\r\n", b".\r\n", b"x"):
            async with greeted(server) as client:
                client.send(ENVELOPE + early)
                assert [reply[:3] for reply in await rest(client)] == ["250", "250", "250", "554"]
        async with greeted(server) as client:
            client.send(ENVELOPE + LETTER)
            assert (await rest(client))[-1] == OUT_OF_TURN.format("after DATA")
            assert server.sessions <= 1
        async with greeted(server, "HELO") as client:  # where nothing at all may be pipelined
            client.send(ENVELOPE + LETTER)
            assert (await rest(client))[-1].startswith("554 5.5.0")
    assert not queue.messages
    assert any("spoke out of turn" in event.text for event in queue.events_recorded)


@pytest.mark.parametrize("hello", [b"EHLO c\r\n", b"HELO c\r\n"])
async def test_a_conversation_written_blindly_ends_at_its_first_line(keys: Keys, hello: bytes) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server:
        for wait in (False, True):
            async with talk(server.addresses[0]) as client:
                if wait:
                    await client.reply()
                client.send(hello + ENVELOPE + LETTER + b".\r\nQUIT\r\n")
                replies = await rest(client)
                assert replies[-1].startswith("554 5.5.0 relay.example You spoke out of turn")
                assert not any(reply.startswith(("250", "354")) for reply in replies)
    assert not queue.messages


async def test_who_has_spoken_before_the_greeting_gets_none(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.intake.smtp.connection import Connection

    early = Connection.early

    async def later(self: Connection) -> int:
        # As on a loop that is busy: what was sent at once has come by then.
        return await until_told(lambda: early(self))

    monkeypatch.setattr(Connection, "early", later)
    async with submission(keys, FakeArrivals()) as server, talk(server.addresses[0]) as client:
        client.send(b"EHLO c\r\n")
        assert await rest(client) == [OUT_OF_TURN.format("before the greeting")]


async def test_the_same_holds_under_tls(keys: Keys) -> None:
    queue = FakeArrivals()
    async with (
        submission(keys, queue) as server,
        talk(server.submission_tls_addresses[0], tls=keys.client) as client,
    ):
        await client.reply()
        await client.ehlo()
        await client.log_in()
        client.send(ENVELOPE + LETTER + b".\r\n")
        assert [reply[:3] for reply in await rest(client)] == ["250", "250", "250", "554"]
    assert not queue.messages


async def test_a_client_that_keeps_its_turn_is_never_refused_however_its_bytes_come(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server, greeted(server) as client:
        sent = 0
        for split in range(0, len(ENVELOPE) + 1, 3):
            client.send(ENVELOPE[:split])
            await client.writer.drain()
            await asyncio.sleep(0 if split % 2 else 0.001)
            client.send(ENVELOPE[split:])
            assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
            client.send(LETTER + b".\r\n" + (b"NOOP\r\nRSET\r\n" if split % 2 else b""))
            assert (await client.reply()).startswith("250")
            if split % 2:
                assert [(await client.reply())[:3] for _ in range(2)] == ["250", "250"]
            sent += 1
    assert len(queue.messages) == sent


async def test_many_clients_that_keep_their_turn_at_a_time_are_never_refused(keys: Keys) -> None:
    queue = FakeArrivals()

    async def one(door: Listen) -> None:
        async with talk(door) as client:
            await client.reply()
            await client.ehlo()
            for _ in range(10):
                client.send(ENVELOPE)
                assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
                client.send(LETTER + b".\r\n")
                assert (await client.reply()).startswith("250")

    async with submission(keys, queue) as server:
        await asyncio.gather(*(one(server.addresses[0]) for _ in range(30)))
    assert len(queue.messages) == 300


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1", b"POST /hook HTTP/1.1", b"PUT / HTTP/1.0", b"HEAD / HTTP/1.1", b"OPTIONS * HTTP/1.1",
     b"CONNECT a:25 HTTP/1.1", b"PRI * HTTP/2.0", b"get / http/1.0", b"Host: relay.example", b"host:relay.example",
     b"Content-Type: text/plain"],
)  # fmt: skip
async def test_http_ends_the_session_with_one_reply_and_an_event(keys: Keys, first: bytes) -> None:
    queue = FakeArrivals()
    blind = first + b"\r\nHost: x\r\nContent-Length: 99\r\n\r\nEHLO c\r\n" + ENVELOPE + LETTER + b".\r\n"
    async with submission(keys, queue) as server, talk(server.addresses[0]) as client:
        await client.reply()
        client.send(blind)
        assert await rest(client) == ["421 4.7.0 relay.example This is SMTP, and that was not; goodbye"]
    assert not queue.messages
    assert [event.kind for event in queue.events_recorded] == ["refused"]
    assert "no SMTP" in queue.events_recorded[0].text


@pytest.mark.parametrize("command", ["GETX", "HOSTS", "XCLIENT A=b", "TURN", "MAIL FROM: <a@example.org>"])
async def test_what_is_only_not_known_ends_nothing(keys: Keys, command: str) -> None:
    async with submission(keys, FakeArrivals()) as server, greeted(server) as client:
        assert (await client.say(command))[0] in "25"
        assert (await client.say("NOOP")).startswith("250")
