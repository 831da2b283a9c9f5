"""Mail comes in over SMTP: real clients, real sockets, and what clients ought not to do."""

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from ipaddress import ip_network
from typing import Any

import aiosmtplib
import pytest

from engine.intake.smtp.connection import Connection
from engine.intake.smtp.listener import IntakeError, SmtpIntake
from engine.model.message import NewMessage
from engine.queue.errors import QueueBroken, QueueError, QueueFull
from engine.settings.settings import Intake, Listen, Settings
from engine.settings.settings import Smtp as SmtpSettings
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

LINE = "Subject: hello\r\n\r\nbody\r\n"
STRANGERS = (ip_network("192.0.2.0/24"),)
PATIENCE = 60.0


@asynccontextmanager
async def intake(queue: FakeArrivals, *, idle: float = 60.0, **rules: Any) -> AsyncIterator[SmtpIntake]:
    rules.setdefault("listen", (Listen("127.0.0.1", 0),))
    settings = Settings(hostname="relay.example", intake=Intake(smtp=SmtpSettings(**rules)))
    server = SmtpIntake(queue, settings, FakeClock(), idle=idle)
    await server.start()
    try:
        async with asyncio.timeout(PATIENCE):
            yield server
    finally:
        await server.stop(0.5)


class Talk:
    """A client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> str:
        while True:
            line = (await self.reader.readline()).decode()
            if line[3:4] != "-":
                return line.rstrip("\r\n")

    async def say(self, line: str) -> str:
        self.send(f"{line}\r\n".encode())
        return await self.reply()

    async def begin(self, *recipients: str, sender: str = "a@example.org", options: str = "") -> None:
        assert (await self.say(f"MAIL FROM:<{sender}>{options}")).startswith("250")
        for recipient in recipients or ("b@example.net",):
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")

    async def data(self, content: bytes) -> str:
        assert (await self.say("DATA")).startswith("354")
        self.send(content + b"\r\n.\r\n")
        return await self.reply()

    async def replies(self) -> list[str]:
        return [line.decode().rstrip("\r\n") for line in (await self.reader.read()).splitlines(keepends=True)]


@asynccontextmanager
async def talk(server: SmtpIntake, greet: str = "EHLO client.example") -> AsyncIterator[Talk]:
    address = server.addresses[0]
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=2**20)
    client = Talk(reader, writer)
    try:
        assert (await client.reply()).startswith("220 relay.example ESMTP")
        if greet:
            assert (await client.say(greet)).startswith("250")
        yield client
    finally:
        writer.close()


async def eventually(holds: Callable[[], bool]) -> None:
    await until(holds, PATIENCE)


async def one(queue: FakeArrivals) -> NewMessage:
    await eventually(lambda: bool(queue.messages))
    (message,) = queue.messages
    return message


# -- what is taken ------------------------------------------------------------------------------------------------


async def test_a_message_is_queued_as_it_came_with_its_trace_on_top() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=server.addresses[0].port, start_tls=False, local_hostname="client.example"
        )
        async with client:
            content = b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <1@x>\r\n\r\n.dot\r\n..two\r\n\r\nend\r\n"
            errors, reply = await client.sendmail("A@Example.org", ["b@example.net", "C@example.net"], content)
    message = await one(queue)
    assert not errors
    assert reply == "2.0.0 Ok: queued as 1"
    assert message.sender == "A@example.org"
    assert message.recipients == ("b@example.net", "C@example.net")
    assert message.content.endswith(b"\r\n" + content)
    assert message.origin == "smtp 127.0.0.1"
    assert (message.subject, message.message_id, message.smtputf8) == ("grüße", "<1@x>", False)
    trace = message_from_bytes(message.content)["Received"]
    assert trace.startswith("from client.example ([127.0.0.1])")
    assert "by relay.example (smarthost) with ESMTP;" in trace
    assert "for <" not in trace
    assert trace.endswith("Fri, 15 Jan 2027 08:00:00 +0000")


async def test_250_comes_only_when_the_message_is_on_disk() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        answer = asyncio.create_task(client.data(LINE.encode()))
        await queue.started.wait()
        async with talk(server) as later:  # whoever comes later is answered before
            assert (await later.say("NOOP")).startswith("250")
        assert not answer.done()
        queue.open_gate.set()
        assert await answer == "250 2.0.0 Ok: queued as 1"


async def test_the_null_sender_and_a_bare_postmaster_are_taken() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin("Postmaster", sender="")
        assert (await client.data(b"\r\nx")).startswith("250")
    message = await one(queue)
    assert message.sender == ""
    assert message.recipients == ("Postmaster@relay.example",)


async def test_helo_and_smtputf8_show_in_the_trace() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server:
        async with talk(server, "HELO old.example") as client:
            await client.begin()
            await client.data(LINE.encode())
        async with talk(server) as client:
            await client.begin("jürgen@bücher.example", options=" SMTPUTF8 BODY=8BITMIME SIZE=20")
            await client.data("Subject: grüße\r\n\r\nx".encode())
    old, new = queue.messages
    assert b"with SMTP\r\n\tfor <b@example.net>;" in old.content
    assert "with UTF8SMTP\r\n\tfor <jürgen@xn--bcher-kva.example>;".encode() in new.content
    assert new.smtputf8
    assert new.subject == "grüße"


async def test_smtputf8_is_passed_on_only_where_it_is_needed() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin("ann@bücher.example", options=" SMTPUTF8")
        await client.data(b"Subject: plain\r\n\r\n\xc3\xa4")
        assert not (await one(queue)).smtputf8
        assert (await client.say("MAIL FROM:<jürgen@example.org>")).startswith("553 5.6.7")


async def test_content_without_header_cannot_be_folded_into_the_trace() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        await client.data(b" X-Folded: into what stands before it\r\n\r\nbody")
    assert b"+0000\r\n\r\n X-Folded" in (await one(queue)).content


async def test_an_empty_message_is_one_message() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        assert (await client.say("DATA")).startswith("354")
        client.send(b".\r\n")
        assert (await client.reply()).startswith("250")
        assert (await client.say("NOOP")).startswith("250")
    assert (await one(queue)).content.endswith(b"+0000\r\n\r\n")


async def test_bare_line_ends_become_crlf() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        await client.data(b"Subject: x\r\n\r\none\ntwo\rthree\r\nfour")
    assert (await one(queue)).content.endswith(b"\r\n\r\none\r\ntwo\r\nthree\r\nfour\r\n")


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipient",
    [
        "b@example.net",
        "b%example.net@relay.example",
        "@relay.example:b@example.net",
        '"b@example.net"@relay.example',
        "b@[192.0.2.1]",
        "example.net!b",
        "postmaster",
        "",
    ],
)
async def test_a_stranger_may_not_relay_however_it_is_written(recipient: str) -> None:
    queue = FakeArrivals()
    async with intake(queue, relay_networks=STRANGERS) as server, talk(server) as client:
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith("250")
        assert await client.say(f"RCPT TO:<{recipient}>") == "550 5.7.1 Relaying denied"
        assert (await client.say("DATA")).startswith("503")
    assert not queue.messages
    assert [event.kind for event in queue.events_recorded] == ["refused"]
    assert "relaying denied" in queue.events_recorded[0].text


async def test_a_stranger_who_goes_on_is_sent_away() -> None:
    queue = FakeArrivals()
    async with intake(queue, relay_networks=STRANGERS) as server, talk(server) as client:
        client.send(b"MAIL FROM:<a@example.org>\r\n" + b"RCPT TO:<b@example.net>\r\n" * 60)
        replies = await client.replies()
        assert replies.count("550 5.7.1 Relaying denied") == 20
        assert replies[-1].startswith("421 4.7.0")
    assert len(queue.events_recorded) == 1


@pytest.mark.parametrize("command", [b"VRFY", b'MAIL FROM:<"', b"DATA x", b"RCPT TO:<b@example.net>"])
async def test_a_stranger_who_sends_nothing_but_errors_is_sent_away(command: bytes) -> None:
    queue = FakeArrivals()
    async with intake(queue, relay_networks=STRANGERS) as server, talk(server) as client:
        client.send((command + b"\r\n") * 60)
        replies = await client.replies()
        assert (len(replies), replies[-1][:9]) == (21, "421 4.7.0")
    async with intake(queue) as server, talk(server) as client:  # who may relay may have a long list of bad addresses
        client.send((command + b"\r\n") * 60 + b"QUIT\r\n")
        assert len(await client.replies()) == 61


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL FROM:<a,b@example.org>", "553 5.1.7"),
        ("MAIL FROM:<a@example.org> SIZE=99999999999", "552 5.3.4"),
        ("MAIL FROM:<a@example.org> SIZE=x", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> BODY=BINARYMIME", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> RET=ALL", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> ENVID=a+2", "501 5.5.4"),
        ("MAIL FROM:<a@example.org> HOLDFOR=60", "555 5.5.4"),
        ("MAIL FROM:<a@example.org> SMTPUTF8=yes", "501 5.5.4"),
        ("MAIL FROM:<a@example.org>x", "501 5.5.4"),
        ("MAIL FROM:<a@exam\x00ple.org>", "553 5.1.7"),
        ("MAIL FROM:<a\x7f@example.org>", "553 5.1.7"),
        ("MAIL FROM:<a@example.org\rRCPT TO:<b@c>>", "501 5.5.4"),
        ("MAIL a@example.org", "501 5.5.4"),
        ("MAIL FROM:", "501 5.5.4"),
        ("RCPT TO:<b@example.net>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("VRFY b@example.net", "252"),
        ("EXPN list", "502"),
        ("STARTTLS", "500"),
        ("AUTH PLAIN AGEAYg==", "500"),
        ("EHLO a\x1b[2Jb", "501 5.5.4"),
        ("EHLO a b", "501 5.5.4"),
        ("HELO ", "501 5.5.4"),
        ("HELP", "214"),
        ("X" * 3000, "500"),
        ("X" * 300_000, "500"),
    ],
)  # fmt: skip
async def test_commands_are_answered_as_the_rfc_asks(command: str, reply: str) -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        answer = await client.say(command)
        assert answer.startswith(reply)
        assert len(answer) < 510
        assert (await client.say("NOOP")).startswith("250")


async def test_a_bad_recipient_does_not_spoil_the_others() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        assert (await client.say("RCPT TO:<a,b@example.net>")).startswith("501 5.1.3")
        assert (await client.say("RCPT TO:<jürgen@example.net>")).startswith("553 5.6.7")
        assert (await client.say("RCPT TO:<c@example.net> NOTIFY=SOON")).startswith("501")
        assert (await client.say("RCPT TO:<c@example.net> RRVS=2026-01-01")).startswith("555")
        assert (await client.say("RCPT TO:<b@example.net>")).startswith("250")
        await client.data(LINE.encode())
    assert (await one(queue)).recipients == ("b@example.net",)


async def test_a_thousand_recipients_are_taken_and_no_more() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith("250")
        client.send(b"".join(b"RCPT TO:<b%d@example.net>\r\n" % number for number in range(1001)))
        replies = [await client.reply() for _ in range(1001)]
        assert all(reply.startswith("250") for reply in replies[:1000])
        assert replies[1000].startswith("452 4.5.3")
        assert (await client.data(LINE.encode())).startswith("250")
    assert len((await one(queue)).recipients) == 1000


@pytest.mark.parametrize("size", [10_240, 10_241, 15_000, 200_000])
async def test_the_size_limit_counts_the_message_as_it_was_sent(size: int) -> None:
    queue = FakeArrivals()
    async with intake(queue, max_message_size=10_240) as server, talk(server) as client:
        assert (await client.say(f"MAIL FROM:<a@example.org> SIZE={size}"))[:3] == ("250" if size <= 10_240 else "552")
        await client.say("RSET")
        await client.begin()
        content = (b"x" * 98 + b"\r\n") * 2000
        reply = await client.data(content[: size - 2])
        if size <= 10_240:
            assert reply.startswith("250")
        elif size < 20_480:
            assert reply.startswith("552 5.3.4 Message too big; at most 10240")
            assert (await client.say("NOOP")).startswith("250")
        else:
            assert reply.startswith(("552", "421"))
    assert len(queue.messages) == (size <= 10_240)


async def test_nul_and_endless_lines_are_refused() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        for content, reply in (
            (b"a\0b", "554 5.6.0"),
            (b"Subject: x\r\n\r\n" + b"x" * 2**20, "500 5.5.2"),
            (b"Subject: x\r\n\r\n" + b"x" * 998, "250"),
            (b"Subject: x\r\n\r\n" + b"x" * 999, "250"),
            (b"Subject: x\r\n\r\n" + b"x" * 60_000, "250"),
            (b"".join(b"X-%d: %s\r\n" % (number, b"y" * 70) for number in range(2000)) + b"\r\n", "250"),
            (b"a:\r\n" * 10_000 + b"\r\nx", "250"),
            (b"a:\r\n" * 10_001 + b"\r\nx", "552 5.3.4 Header too big: more than 10000 fields"),
            (b"a:\r\n" + b" b\r\n" * 300_000, "552 5.3.4 Header too big: more than 1048576 octets"),
        ):
            await client.begin()
            assert (await client.data(content)).startswith(reply)


@pytest.mark.parametrize("line", [b"a:\r\n", b"\n", b"\r\n..", b"\r\n"])
async def test_a_hostile_message_of_many_mebibytes_holds_up_nobody(line: bytes) -> None:
    queue = FakeArrivals()
    groups = (b"EHLO c\r\n", b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
    content = b"a:\r\n" + line * (24 * 2**20 // len(line)) + b"\r\n.\r\nQUIT\r\n"

    def send(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            lines = client.makefile("rb")
            for group, last in zip((b"", *groups), (b"220 ", b"250 ", b"354 "), strict=True):
                client.sendall(group)
                assert any(line.startswith(last) for line in iter(lines.readline, b""))
            client.sendall(content)
            return b"".join(iter(lambda: client.recv(65536), b""))

    async with intake(queue, max_message_size=26 * 2**20) as server:
        sending = asyncio.create_task(asyncio.to_thread(send, server.addresses[0].port))
        longest, last = 0.0, time.process_time()  # what others do on this machine is not held up by us
        while not sending.done():
            await asyncio.sleep(0.002)
            longest, last = max(longest, time.process_time() - last), time.process_time()
        replies = (await sending).decode().splitlines()
    assert replies[-2].startswith("552 5.3.4 Header" if line == b"a:\r\n" else "250")
    assert longest < 0.25  # a twentieth of a second is usual


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), MemoryError(), AssertionError("/secret"), OSError("/secret")]
)
@pytest.mark.parametrize("content", [LINE.encode(), LINE.encode() + b"x\r\n" * 100_000])
async def test_whatever_goes_wrong_in_judging_the_session_goes_on(
    error: Exception, content: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(content: bytes) -> bytes:
        raise error

    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        with monkeypatch.context() as patch:
            patch.setattr("engine.intake.smtp.submitted.canonical", broken)
            await client.begin()
            assert await client.data(content) == "451 4.3.0 This system has a problem; try again later"
        await client.begin()
        assert (await client.data(content)).startswith("250")
    assert "Traceback" in caplog.text
    assert len(queue.messages) == 1


@pytest.mark.parametrize("error", [ConnectionResetError("odd"), TimeoutError("odd")])
async def test_an_error_in_judging_that_looks_like_the_clients_leaving_is_none(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(content: bytes) -> bytes:
        raise error

    async with intake(FakeArrivals()) as server, talk(server) as client:
        monkeypatch.setattr("engine.intake.smtp.submitted.canonical", broken)
        await client.begin()
        assert (await client.data(LINE.encode())).startswith("451 4.3.0")
        assert (await client.say("NOOP")).startswith("250")
    assert "Traceback" in caplog.text


async def test_large_messages_are_judged_two_at_a_time_and_on_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, gate, most, now = threading.Lock(), threading.Event(), 0, 0

    def slow(content: bytes) -> bytes:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        gate.wait(PATIENCE)
        with lock:
            now -= 1
        return content

    monkeypatch.setattr("engine.intake.smtp.submitted.canonical", slow)
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as one, talk(server) as two, talk(server) as three:
        for client, so_far in ((one, 1), (two, 2), (three, 2)):
            await client.begin()
            assert (await client.say("DATA")).startswith("354")
            client.send(b"x\r\n" * 100_000 + b".\r\n")
            await eventually(lambda so_far=so_far: now == so_far)  # type: ignore[misc]
        waiting = server._reception._slots._waiting
        await eventually(lambda: bool(waiting))
        for client in (one, two):
            # With no time to linger, to close is to reset.
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.writer.transport.abort()
        await eventually(lambda: server.sessions == 1)
        assert waiting, "those two are in memory for as long as they are judged, though nobody waits for them"
        gate.set()
        assert (await three.reply()).startswith("250")
        assert most == 2
        assert len(queue.messages) == 1


async def test_a_message_that_goes_round_is_stopped() -> None:
    queue = FakeArrivals()
    async with intake(queue, max_received=5) as server, talk(server) as client:
        for count, reply in ((5, "250"), (6, "554 5.4.6")):
            await client.begin()
            content = b"Received: from a\r\n\tby b; x\r\n" * count + b"\r\nReceived: this is body\r\n"
            assert (await client.data(content)).startswith(reply)


@pytest.mark.parametrize(
    ("error", "reply", "then"),
    [
        (QueueFull("disk full"), "452 4.3.1", "250"),
        (QueueError("odd"), "451 4.3.0", "250"),
        (QueueBroken("fsync"), "451 4.3.0", "452 4.3.1"),
        (RuntimeError("/secret/path"), "451 4.3.0", "250"),
    ],
)
async def test_what_the_queue_cannot_take_is_not_answered_with_250(error: Exception, reply: str, then: str) -> None:
    queue = FakeArrivals()
    queue.fail = error
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        answer = await client.data(LINE.encode())
        assert answer.startswith(reply)
        assert "secret" not in answer
        queue.fail = None
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith(then)
        assert server.paused == ("fsync" if then == "452 4.3.1" else "")
    assert not queue.messages


async def test_a_paused_intake_answers_452_until_it_is_resumed() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        server.pause("the disk is full")
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith("452 4.3.1")
        server.resume()
        await client.begin()


# -- what clients ought not to do ---------------------------------------------------------------------------------

ENDS = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\n\x00.\r\n",
    b"\r\r\n.\r\r\n",
)


@pytest.fixture
def octets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many octets came in each read of the server, so that a client can wait until a part of its own is one."""
    came: list[int] = []
    take = Connection.data_received

    def data_received(connection: Connection, data: bytes) -> None:
        came.append(len(data))
        take(connection, data)

    monkeypatch.setattr(Connection, "data_received", data_received)
    return came


@pytest.mark.parametrize("end", ENDS)
async def test_one_message_never_becomes_two(end: bytes, octets: list[int]) -> None:
    smuggled = b"MAIL FROM:<x@x.example>\r\nRCPT TO:<y@y.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
    content = b"Subject: one\r\n\r\nfirst" + end + smuggled + b"\r\n.\r\n"
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        for split in range(len(b"Subject: one\r\n\r\nfirst") - 1, len(b"Subject: one\r\n\r\nfirst") + len(end) + 2):
            before = len(queue.messages)
            await client.begin()
            assert (await client.say("DATA")).startswith("354")
            octets.clear()
            client.send(content[:split])
            await until(lambda split=split: sum(octets) == split)  # type: ignore[misc]
            client.send(content[split:])
            reply = await client.reply()
            assert reply.startswith("554" if b"\0" in end else "250")
            assert (await client.say("NOOP")) == "250 OK"
            assert len(queue.messages) - before == (b"\0" not in end)
    for message in queue.messages:
        assert message.recipients == ("b@example.net",)
        assert b"\n" not in message.content.replace(b"\r\n", b"")
        assert b"\r" not in message.content.replace(b"\r\n", b"")


@pytest.mark.parametrize("content", [b"", b".", b"\r\n", b"\r\n.", b".\r", b"\n.\r\n", b"\r\n\r\n", b"a\r\n..\r\n"])
async def test_the_end_is_found_wherever_the_bytes_are_split(content: bytes, octets: list[int]) -> None:
    stuffed = b"".join(b"." + line if line.startswith(b".") else line for line in content.splitlines(keepends=True))
    wire = (stuffed + b"\r\n" if not stuffed.endswith(b"\r\n") and stuffed else stuffed) + b".\r\n"
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        for split in range(len(wire) + 1):
            await client.begin()
            assert (await client.say("DATA")).startswith("354")
            octets.clear()
            client.send(wire[:split])
            await until(lambda split=split: sum(octets) == split)  # type: ignore[misc]
            client.send(wire[split:])
            assert (await client.reply()).startswith("250")
            assert (await client.say("NOOP")) == "250 OK"
    assert len({message.content for message in queue.messages}) == 1


async def test_eight_thousand_commands_in_one_burst_are_answered_in_order() -> None:
    queue = FakeArrivals()
    burst = b"".join(b"VRFY a\r\n" if number % 3 else b"NOOP\r\n" for number in range(8000)) + b"QUIT\r\n"

    def send_all_and_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            lines = client.makefile("rb")
            assert lines.readline().startswith(b"220 ")
            client.sendall(b"EHLO client.example\r\n")  # which ends a group of commands
            assert any(line.startswith(b"250 ") for line in iter(lines.readline, b""))
            client.sendall(burst)
            return b"".join(iter(lambda: client.recv(65536), b""))

    async with intake(queue) as server:
        answers = await asyncio.to_thread(send_all_and_then_read, server.addresses[0].port)
    lines = [line for line in answers.decode().split("\r\n") if line[3:4] == " "]
    assert [line[:3] for line in lines] == ["252" if number % 3 else "250" for number in range(8000)] + ["221"]


async def test_a_message_and_the_next_envelope_may_be_pipelined() -> None:
    queue = FakeArrivals()
    envelope = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n"
    async with intake(queue) as server, talk(server) as client:
        client.send(envelope)
        for number in range(50):
            assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "250", "354"]
            client.send(b"Subject: %d\r\n\r\n.\r\n" % number + (envelope if number < 49 else b"QUIT\r\n"))
            assert (await client.reply())[:3] == "250"
        assert (await client.reply())[:3] == "221"
    assert [message.subject for message in queue.messages] == [str(number) for number in range(50)]


async def hang_up(client: Talk) -> None:
    client.writer.close()


async def shut_down_writing(client: Talk) -> None:
    client.writer.write_eof()


async def reset(client: Talk) -> None:
    client.writer.transport.abort()


@pytest.mark.parametrize("leave", [hang_up, shut_down_writing, reset])
async def test_a_client_that_leaves_during_the_commit_leaves_a_whole_message(
    leave: Callable[[Talk], Awaitable[None]],
) -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        assert (await client.say("DATA")).startswith("354")
        client.send(LINE.encode() + b".\r\n")
        await queue.started.wait()
        (session,) = server._sessions
        await leave(client)
        await eventually(lambda: session.connection.is_over or session.connection._has_ended)
        queue.open_gate.set()
        assert (await one(queue)).content.endswith(LINE.encode())
        if leave is shut_down_writing:
            assert await client.reply() == "250 2.0.0 Ok: queued as 1"
        await eventually(lambda: server.sessions == 0)


async def test_a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing() -> None:
    queue = FakeArrivals()
    async with intake(queue) as server, talk(server) as client:
        await client.begin()
        assert (await client.say("DATA")).startswith("354")
        client.send(b"Subject: half\r\n\r\nno")
        client.writer.close()
        await eventually(lambda: server.sessions == 0)
    assert not queue.messages


async def test_a_client_that_says_nothing_is_sent_away() -> None:
    queue = FakeArrivals()
    async with intake(queue, idle=0.1) as server, talk(server, greet="") as client:
        assert (await client.reply()).startswith("421 4.4.2")
        assert await client.reader.read() == b""


async def test_a_client_that_never_reads_is_cut_off_and_costs_little_until_then() -> None:
    async with intake(FakeArrivals(), idle=2.0) as server, talk(server) as other:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, ("127.0.0.1", server.addresses[0].port))
            await loop.sock_recv(deaf, 4096)  # the greeting
            await loop.sock_sendall(deaf, b"EHLO c\r\n")
            await loop.sock_recv(deaf, 4096)  # what is said to that, and no more
            sending = asyncio.create_task(loop.sock_sendall(deaf, b"VRFY x\r\n" * 10**6))  # more than all buffers hold
            while server.sessions > 1:  # it is not heard any more, and then gone
                assert (await other.say("NOOP")).startswith("250")
                await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError):
                await sending


async def test_there_are_no_more_sessions_than_allowed() -> None:
    queue = FakeArrivals()
    async with intake(queue, max_sessions=2) as server, talk(server) as one, talk(server) as two:
        await one.begin()
        await two.begin()
        assert server.sessions == 2
        reader, writer = await asyncio.open_connection("127.0.0.1", server.addresses[0].port)
        assert (await reader.read()).startswith(b"421 4.3.2")
        writer.close()


# -- life ---------------------------------------------------------------------------------------------------------


async def test_it_listens_on_every_address_and_says_where() -> None:
    listen = (Listen("127.0.0.1", 0), Listen("127.0.0.2", 0))
    async with intake(FakeArrivals(), listen=listen) as server:
        assert [address.host for address in server.addresses] == ["127.0.0.1", "127.0.0.2"]
        assert all(address.port for address in server.addresses)


async def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(IntakeError, match=f"cannot listen on 127.0.0.1:{port}: "):
            async with intake(FakeArrivals(), listen=(Listen("127.0.0.1", 0), Listen("127.0.0.1", port))):
                pass


async def test_stopping_ends_idle_sessions_and_lets_a_message_finish() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    async with intake(queue) as server, talk(server) as idle, talk(server) as busy:
        await busy.begin()
        assert (await busy.say("DATA")).startswith("354")
        busy.send(LINE.encode() + b".\r\n")
        await queue.started.wait()
        stopping = asyncio.create_task(server.stop(5))
        assert (await idle.reply()).startswith("421 4.3.2")
        queue.open_gate.set()
        assert (await busy.reply()).startswith("250")
        assert (await busy.reply()).startswith("421 4.3.2")
        await stopping
        assert server.sessions == 0
        assert len(queue.messages) == 1


async def test_noise_is_answered_or_hung_up_on_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    queue = FakeArrivals()
    dice = random.Random(16)
    words = [b"EHLO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", b".\r\n",
             b"RSET\r\n", b"\r\n", b"\n", b"\r", b"\0", b"\xff\xfe", b"\x1b[2J", b"<", b'"', b" ", b"HELP\r\n",
             b"A" * 700, b"\r\n.\r\n"]  # fmt: skip
    async with intake(queue) as server:
        for _ in range(200):
            async with talk(server, greet="") as client:
                client.send(b"".join(dice.choices(words, k=dice.randrange(40))))
                client.writer.write_eof()
                assert all(reply[:3].isdigit() for reply in await client.replies())
        async with talk(server) as client:
            await client.begin()
            assert (await client.data(LINE.encode())).startswith("250")
    assert not caplog.records
    for message in queue.messages:
        assert not {*message.content.replace(b"\r\n", b"")} & {0, 10, 13}
