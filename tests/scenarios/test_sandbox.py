"""The sandbox's exchanges behave as those on the internet do."""

import asyncio
import random
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from engine.sandbox.exchanges import Exchange, Offer, Session, Temper
from engine.sandbox.internet import Internet
from engine.sandbox.serving import Connections
from engine.sandbox.tempers import (
    Authenticating,
    BlackHole,
    Busy,
    Dead,
    Disconnecting,
    Encrypted,
    Greylisting,
    Healthy,
    HelloOnly,
    Hostile,
    RateLimiting,
    Refusing,
    Script,
    Slow,
    Tarpit,
    TemporarilyFailing,
)
from tests.clock import FakeClock
from tests.smtp import NAME
from tests.waiting import PATIENCE, until

HOST = "mx.example.org"
MESSAGE = b"Subject: hello\r\n\r\n.dotted\r\n..twice\r\n.\xff\r\n"
ENVELOPE = (b"EHLO me.example", b"MAIL FROM:<a@example.net>", b"RCPT TO:<b@example.org>")


async def talk(exchange: Exchange, *commands: bytes) -> list[bytes]:
    """Say each command and give the last line of each reply, the greeting first; b"" once the connection ended."""
    reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
    said = []
    try:
        for command in (b"", *commands):
            if command:
                writer.write(command + b"\r\n")
            line = await asyncio.wait_for(reader.readline(), PATIENCE)
            while line[3:4] == b"-":
                line = await asyncio.wait_for(reader.readline(), PATIENCE)
            said.append(line.rstrip(b"\r\n"))
    except ConnectionError:
        said.append(b"")
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return said


@contextmanager
def dialled(exchange: Exchange) -> Iterator[smtplib.SMTP]:
    """A conversation of the standard library's client; to be used in a thread."""
    client = smtplib.SMTP(local_hostname=NAME, timeout=PATIENCE)
    client.connect(exchange.address, exchange.port)
    client._host = exchange.host  # type: ignore[attr-defined]  # the name that TLS is to check
    with client:
        yield client


async def test_a_healthy_exchange_keeps_what_was_sent_byte_for_byte(internet: Internet, clock: FakeClock) -> None:
    exchange = await internet.host(HOST)

    def send() -> None:
        with dialled(exchange) as client:
            client.sendmail(
                "a@example.net", ["b@example.org", "c@example.org"], MESSAGE, mail_options=["BODY=8BITMIME"]
            )
            client.sendmail("", ["b@example.org"], b"\r\n")

    await asyncio.to_thread(send)
    first, second = exchange.delivered
    assert first.content == MESSAGE
    assert first.sender == "a@example.net"
    assert first.recipients == ("b@example.org", "c@example.org")
    assert first.at == clock.now()
    assert "BODY=8BITMIME" in first.parameters
    assert not first.tls
    assert first.session == second.session == 1
    assert (exchange.sessions, exchange.messages, exchange.most_open) == (1, 2, 1)


@pytest.mark.parametrize("content", [b"", b".", b"\r\n", b"a\r\n\r\n.", b".\r\n.."])
async def test_dots_at_the_start_of_lines_come_through(internet: Internet, content: bytes) -> None:
    exchange = await internet.host(HOST)
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in content.split(b"\r\n"))
    said = await talk(exchange, *ENVELOPE, b"DATA", (stuffed + b"\r\n" if stuffed else b"") + b".", b"QUIT")
    assert [line[:3] for line in said] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert exchange.delivered[0].content == (content + b"\r\n" if content else b"")


async def test_what_is_kept_is_bounded(clock: FakeClock) -> None:
    async with Internet(clock=clock, keep_messages=2, keep_bytes=30) as internet:
        exchange = await internet.host(HOST)
        for content in (b"one", b"two", b"three", b"x" * 20):
            await talk(exchange, *ENVELOPE, b"DATA", content + b"\r\n.", b"QUIT")
        assert [delivery.content for delivery in exchange.delivered] == [b"three\r\n", b"x" * 20 + b"\r\n"]
        assert internet.messages == 4


async def test_pipelined_commands_are_answered_in_order(internet: Internet) -> None:
    exchange = await internet.host(HOST)
    reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
    writer.write(b"EHLO me\r\n" + b"\r\n".join(ENVELOPE[1:]) + b"\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n")
    said = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    codes = [line[:3] for line in said.split(b"\r\n") if line[3:4] == b" "]
    assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]


async def test_a_server_that_knows_helo_only_refuses_ehlo(internet: Internet) -> None:
    exchange = await internet.host(HOST, HelloOnly())
    said = await talk(exchange, b"EHLO me", b"HELO me", b"MAIL FROM:<a@example.net> SIZE=10", ENVELOPE[1])
    assert [line[:3] for line in said] == [b"220", b"502", b"250", b"555", b"250"]


async def test_starttls_with_a_good_certificate_satisfies_a_client_that_checks(internet: Internet) -> None:
    exchange = await internet.host(HOST, Encrypted())

    def send() -> None:
        with dialled(exchange) as client:
            client.starttls(context=internet.certificates.client_context())
            client.sendmail("a@example.net", ["b@example.org"], MESSAGE)

    await asyncio.to_thread(send)
    assert exchange.delivered[0].tls


@pytest.mark.parametrize("offer", ["self-signed", "wrong name", "broken"])
async def test_starttls_that_is_not_right_fails_a_client_that_checks(internet: Internet, offer: Offer) -> None:
    exchange = await internet.host(HOST, Encrypted(offer))

    def send() -> None:
        with dialled(exchange) as client:
            client.starttls(context=internet.certificates.client_context())

    with pytest.raises((ssl.SSLError, smtplib.SMTPServerDisconnected)):
        await asyncio.to_thread(send)
    assert exchange.messages == 0


async def test_what_was_said_in_clear_text_before_tls_is_thrown_away(internet: Internet) -> None:
    exchange = await internet.host(HOST, Encrypted())
    reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
    await reader.readline()
    writer.write(b"STARTTLS\r\nMAIL FROM:<injected@example.net>\r\n")
    assert (await reader.readline()).startswith(b"220")
    await writer.start_tls(internet.certificates.client_context(), server_hostname=HOST)
    writer.write(b"RCPT TO:<b@example.org>\r\n")
    assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"503")
    writer.close()
    await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_mail_is_taken_from_those_who_log_in_and_from_nobody_else(internet: Internet, mechanism: str) -> None:
    exchange = await internet.host(HOST, Authenticating({"ada": "s3cret"}))

    def send(password: str) -> None:
        with dialled(exchange) as client:
            client.ehlo()
            client.user, client.password = "ada", password
            client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            client.sendmail("a@example.net", ["b@example.org"], MESSAGE)

    with pytest.raises(smtplib.SMTPAuthenticationError):
        await asyncio.to_thread(send, "guess")
    assert (await talk(exchange, *ENVELOPE[:2]))[-1].startswith(b"530")
    await asyncio.to_thread(send, "s3cret")
    assert exchange.delivered[0].login == "ada"


async def test_greylisting_takes_the_same_pair_later(internet: Internet, clock: FakeClock) -> None:
    exchange = await internet.host(HOST, Greylisting(60))
    assert (await talk(exchange, *ENVELOPE))[-1].startswith(b"451 4.7.1")
    await clock.advance(59)
    assert (await talk(exchange, *ENVELOPE))[-1].startswith(b"451 4.7.1")
    await clock.advance(1)
    assert (await talk(exchange, *ENVELOPE))[-1].startswith(b"250")
    assert (await talk(exchange, *ENVELOPE[:2], b"RCPT TO:<other@example.org>"))[-1].startswith(b"451")


async def test_a_rate_limit_opens_again_with_time(internet: Internet, clock: FakeClock) -> None:
    exchange = await internet.host(HOST, RateLimiting(messages=1, seconds=60))
    said = await talk(exchange, *ENVELOPE, b"DATA", b".", ENVELOPE[1])
    assert said[-1].startswith(b"421 4.7.28")
    await clock.advance(60)
    assert (await talk(exchange, *ENVELOPE))[-1].startswith(b"250")


@pytest.mark.parametrize(
    ("temper", "code"),
    [
        (Refusing(), b"554 5.7.1"),
        (Refusing({"b"}), b"550 5.1.1"),
        (Refusing({"x"}), b"250"),
        (TemporarilyFailing(), b"4"),
        (TemporarilyFailing(0.0), b"250"),
        (Hostile(), b"451"),
        (Slow(0.001), b"250"),
    ],
)
async def test_recipients_are_answered_by_temper(internet: Internet, temper: Temper, code: bytes) -> None:
    exchange = await internet.host(HOST, temper)
    assert (await talk(exchange, *ENVELOPE))[-1].startswith(code)


async def test_a_busy_server_says_so_and_hangs_up(internet: Internet) -> None:
    exchange = await internet.host(HOST, Busy())
    said = await talk(exchange, b"EHLO me")
    assert said[0].startswith(b"421")
    assert said[1] == b""


@pytest.mark.parametrize(("at", "replies"), [("connect", 0), ("EHLO", 1), ("MAIL", 2), ("DATA", 4), ("content", 5)])
async def test_a_disconnecting_server_drops_the_connection_at_its_point(
    internet: Internet, at: str, replies: int
) -> None:
    exchange = await internet.host(HOST, Disconnecting(at))
    said = await talk(exchange, *ENVELOPE, b"DATA", b"hello\r\n.")
    assert len([line for line in said if line]) == replies
    assert exchange.messages == 0


async def test_a_message_may_be_kept_although_the_connection_is_dropped(internet: Internet) -> None:
    exchange = await internet.host(HOST, Disconnecting("content", delivers=True))
    await talk(exchange, *ENVELOPE, b"DATA", b"hello\r\n.")
    assert exchange.messages == 1


async def test_a_black_hole_says_nothing_to_whoever_waits_for_its_greeting(internet: Internet) -> None:
    exchange = await internet.host(HOST, BlackHole())
    reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
    await until(lambda: exchange.open == 1)
    writer.write(b"EHLO me.example\r\n")
    writer.write_eof()  # the client has had enough
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b""
    writer.close()


async def test_a_tarpit_does_not_come_to_the_end_of_its_greeting(internet: Internet) -> None:
    exchange = await internet.host(HOST, Tarpit(0.001))
    reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
    async with asyncio.timeout(PATIENCE):
        assert await reader.readexactly(124) == b"220-" + b"please hold " * 10
    assert exchange.open == 1
    writer.close()


async def test_a_dead_server_refuses_until_it_is_mended(internet: Internet) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, HOST, Dead())])
    with pytest.raises(ConnectionRefusedError):
        await talk(exchange)
    await exchange.become(Healthy())
    assert (await talk(exchange))[0].startswith(b"220")
    await exchange.stop()
    with pytest.raises(ConnectionRefusedError):
        await talk(exchange)
    await exchange.start()
    exchange.temper = Dead()
    exchange.temper = Busy()
    await exchange.become(exchange.temper)
    assert (await talk(exchange))[0].startswith(b"421")


async def test_a_session_that_says_nothing_is_ended(clock: FakeClock) -> None:
    async with Internet(clock=clock, patience=0.05) as internet:
        exchange = await internet.host(HOST)
        reader, writer = await asyncio.open_connection(exchange.address, exchange.port)
        assert (await asyncio.wait_for(reader.read(), PATIENCE)).startswith(b"220")
        writer.close()


async def test_replies_can_be_scripted_for_any_command(internet: Internet) -> None:
    script = Script(
        {"RCPT": ["450 4.2.1 no", "250 ok"], "content": b"250-half\r\n250 \xff\r\n", "NOOP": "250 a\n250 b"}
    )
    exchange = await internet.host(HOST, script)
    said = await talk(exchange, *ENVELOPE, ENVELOPE[2], b"NOOP", b"DATA", b"hi\r\n.", b"WHAT")
    assert said[3:] == [b"450 4.2.1 no", b"250 ok", b"250 b", said[6], b"250 \xff", said[8]]
    assert said[6].startswith(b"354")
    assert said[8].startswith(b"502")
    assert exchange.delivered[0].recipients == ("b@example.org",)
    assert (1, "NOOP") in exchange.commands


async def test_a_temper_of_ones_own_needs_one_method(internet: Internet) -> None:
    class Monday(Temper):
        async def reply(self, session: Session, verb: str, argument: str) -> str | None:
            return "452 4.3.1 not on Mondays" if verb == "MAIL" and session.taken == 0 else None

    exchange = await internet.host(HOST, Monday())
    assert (await talk(exchange, *ENVELOPE[:2]))[-1] == b"452 4.3.1 not on Mondays"


async def test_stopping_ends_every_connection(clock: FakeClock) -> None:
    internet = Internet(clock=clock)
    await internet.start()
    exchange = await internet.host(HOST)
    clients = [await asyncio.open_connection(exchange.address, exchange.port) for _ in range(5)]
    await internet.stop()
    for reader, writer in clients:
        await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
    assert exchange.open == 0


async def test_two_sandboxes_at_a_time_share_no_address(clock: FakeClock) -> None:
    async with Internet(clock=clock) as one, Internet(clock=clock, smtp_port=one.port) as other:
        addresses = [(await each.host(HOST, temper)).address for each in (one, other) for temper in (Dead(), Healthy())]
        assert addresses[0] == addresses[1]  # the host that was dead lives where it was
        assert {address.split(".")[1] for address in addresses[:2]}.isdisjoint(
            {address.split(".")[1] for address in addresses[2:]}
        )


async def test_a_connection_whose_end_comes_before_its_first_step_is_cut_off() -> None:
    """Else it would be left open when the sandbox ends: the loop cannot be closed then."""
    connections, accepted = Connections(2), asyncio.get_running_loop().create_future()

    async def work() -> None:
        raise AssertionError("this was not to begin")

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if connections.takes(writer):
            connections.serve(writer, work())
            for task in connections._tasks:
                task.cancel()
        if not accepted.done():
            accepted.set_result(None)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        for _ in range(2):  # the second comes after the end
            reader, writer = await asyncio.open_connection(*address)
            async with asyncio.timeout(PATIENCE):
                await accepted
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
            await connections.end()
    assert len(connections) == 0


async def test_waiting_for_deliveries_ends_when_they_have_come(internet: Internet) -> None:
    exchange = await internet.host(HOST)
    with pytest.raises(TimeoutError):
        await internet.wait_for(1, seconds=0.01)
    waiting = asyncio.create_task(internet.wait_for(2))
    for _ in range(2):
        await talk(exchange, *ENVELOPE, b"DATA", b"hi\r\n.", b"QUIT")
    await waiting
    await exchange.wait_for(2)
    assert len(internet.delivered) == 2


async def test_temporary_failures_come_in_different_words(internet: Internet) -> None:
    exchange = await internet.host(HOST, TemporarilyFailing(draw=random.Random(1)))
    said = await talk(exchange, *ENVELOPE, *[ENVELOPE[2]] * 5)
    assert len(set(said[3:])) == 6
