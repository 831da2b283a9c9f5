"""84. Behind a proxy: it says whom it brings, and that address is the client's, to those limits, rules and traces."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from email import message_from_bytes
from ipaddress import ip_network

import pytest

from engine.intake.smtp.listener import SmtpIntake
from engine.settings.settings import Limits, Listen
from tests.scenarios.proxying import LOCAL, block, line, tlv
from tests.scenarios.submitting import Keys, Talk, made_keys, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import PATIENCE, until

PROXY = "127.0.0.66"
PROXIES = (ip_network(f"{PROXY}/32"),)
CLIENT, CLIENT_6, STRANGER = "192.0.2.10", "2001:db8::10", "203.0.113.9"
CLIENTS = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
TLVS = tlv(0x02, b"relay.example") + tlv(0x03, b"\0\0\0\0") + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


@asynccontextmanager
async def behind(keys: Keys, queue: FakeArrivals, limits: Limits | None = None) -> AsyncIterator[SmtpIntake]:
    """An intake with a proxy before all its doors, and clients who may relay by their address."""
    async with submission(keys, queue, limits=limits, proxies=PROXIES, relay_networks=CLIENTS) as server:
        yield server


@asynccontextmanager
async def brought(door: Listen, *said: bytes) -> AsyncIterator[Talk]:
    """A client whom the proxy brings, with this said of it."""
    async with talk(door, source=PROXY) as client:
        for piece in said:
            client.send(piece)
            await asyncio.sleep(0)
        yield client


async def ended(client: Talk) -> bytes:
    """What is said before the end."""
    said = b""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            said = await client.reader.read()
    return said


def told(queue: FakeArrivals) -> list[str]:
    return [event.text for event in queue.events_recorded]


@pytest.mark.parametrize(
    ("header", "address", "traced"),
    [
        (line(CLIENT), CLIENT, f"([{CLIENT}])"),
        (line(CLIENT_6), CLIENT_6, f"([IPv6:{CLIENT_6}])"),
        (block(CLIENT), CLIENT, f"([{CLIENT}])"),
        (block(CLIENT_6), CLIENT_6, f"([IPv6:{CLIENT_6}])"),
        (block(CLIENT, more=TLVS), CLIENT, f"([{CLIENT}])"),
    ],
)
async def test_a_client_sends_by_the_address_that_its_proxy_says(
    keys: Keys, header: bytes, address: str, traced: str
) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server:
        for pieces in ((header,), tuple(header[place : place + 1] for place in range(len(header)))):
            async with brought(server.addresses[0], *pieces) as client:
                assert (await client.reply()).startswith("220")
                await client.ehlo()
                assert (await client.mail()).startswith("250")
    for message in queue.messages:
        assert message.origin == f"smtp {address}"
        assert message_from_bytes(message.content)["Received"].startswith(f"from client.example {traced}")
    assert len(queue.messages) == 2


@pytest.mark.parametrize("header", [line(STRANGER), block(STRANGER)])
async def test_a_stranger_stays_one_whatever_the_address_of_its_proxy_may_do(keys: Keys, header: bytes) -> None:
    queue = FakeArrivals()
    everybody_near = (*CLIENTS, ip_network("127.0.0.0/8"))
    async with (
        submission(keys, queue, proxies=PROXIES, relay_networks=everybody_near) as server,
        brought(server.addresses[0], header) as client,
    ):
        assert (await client.reply()).startswith("220")
        await client.ehlo()
        assert (await client.mail()).startswith("550 5.7.1")
        await until(lambda: bool(queue.events_recorded))
    assert told(queue) == [f"smtp {STRANGER}: relaying denied"]


@pytest.mark.parametrize("header", [line(STRANGER), block(STRANGER, more=TLVS)])
async def test_who_logs_in_does_so_behind_a_proxy_with_starttls(keys: Keys, header: bytes) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server, brought(server.submission_addresses[0], header) as client:
        assert (await client.reply()).startswith("220")
        await client.ehlo()
        await client.start_tls(keys)
        await client.ehlo()
        assert (await client.log_in()).startswith("235")
        assert (await client.mail()).startswith("250")
    assert queue.messages[0].origin == f"smtp {STRANGER} as ann"
    assert [known.address for known in queue.logins] == [STRANGER]


@pytest.mark.parametrize("header", [line(STRANGER), block(STRANGER, more=TLVS)])
async def test_where_tls_comes_first_the_header_comes_before_it(keys: Keys, header: bytes) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server, brought(server.submission_tls_addresses[0], header) as client:
        await client.writer.start_tls(keys.client, server_hostname="localhost")
        assert (await client.reply()).startswith("220")
        await client.ehlo()
        assert (await client.log_in()).startswith("235")
        assert (await client.mail()).startswith("250")
    assert queue.messages[0].origin == f"smtp {STRANGER} as ann"


async def test_a_handshake_that_comes_in_one_piece_with_the_header_is_begun(keys: Keys) -> None:
    async with behind(keys, FakeArrivals()) as server:
        door = server.submission_tls_addresses[0]
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        shaking = keys.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            shaking.do_handshake()
        async with brought(door, block(STRANGER) + outgoing.read()) as client:
            while True:
                incoming.write(await client.reader.read(65_536))
                try:
                    shaking.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    continue
                finally:
                    client.send(outgoing.read())
            said = b""
            while not said.endswith(b"\r\n"):
                with suppress(ssl.SSLWantReadError):
                    said += shaking.read(1000)
                    continue
                incoming.write(await client.reader.read(65_536))
            assert said.startswith(b"220 ")


async def test_limits_count_by_the_clients_address_and_not_by_the_proxys(keys: Keys) -> None:
    limits = Limits(exempt_networks=(), connections_per_address=1)
    async with behind(keys, FakeArrivals(), limits) as server:
        door = server.addresses[0]
        async with brought(door, line(CLIENT)) as one, brought(door, line("192.0.2.11")) as another:
            assert (await one.reply()).startswith("220")
            assert (await another.reply()).startswith("220")
            async with brought(door, block(CLIENT)) as again:
                assert (await again.reply()).startswith("421 4.7.0")


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", block(command=LOCAL), block(CLIENT, command=LOCAL), block()], ids=repr
)
async def test_a_proxy_that_only_looks_is_greeted_as_itself_and_may_send_nothing(keys: Keys, header: bytes) -> None:
    queue = FakeArrivals()
    proxies_may = (ip_network("127.0.0.0/8"),)
    async with (
        submission(keys, queue, proxies=PROXIES, relay_networks=proxies_may) as server,
        brought(server.addresses[0], header) as client,
    ):
        assert (await client.reply()).startswith("220")
        assert (await client.say("HELO localhost")).startswith("250")
        assert (await client.mail()).startswith("550 5.7.1")
        assert (await client.say("QUIT")).startswith("221")
        await until(lambda: bool(queue.events_recorded))
    assert told(queue) == [f"smtp {PROXY}: relaying denied"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"EHLO client.example\r\n", "something else came in its place"),
        (b"PROXY TCP4 192.0.2.10 198.51.100.1 1\r\n", "its line is none of TCP4, TCP6 and UNKNOWN"),
        (b"PROXY TCP4 192.0.2.300 198.51.100.1 1 25\r\n", "an address of it is none of TCP4"),
        (b"PROXY TCP4 192.0.2.10 198.51.100.1 1 65536\r\n", "a port of it is none"),
        (b"PROXY " + b"x" * 100_000, "its line has more than 107 octets"),
        (block(CLIENT, family=0x12), "its family 0x12 is none of TCP"),
        (block(CLIENT)[:15] + b"\x08" + b"x" * 8, "8 octets are too few for the addresses of its family"),
        (block(CLIENT, more=b"x" * 60_000), "it would have 60012 octets; at most 4096 are taken"),
        (block(CLIENT, command=0x2F), "version and command 0x2f are none of LOCAL and PROXY in version 2"),
    ],
)
async def test_what_is_no_header_ends_the_connection_without_a_word_and_is_told_of(
    keys: Keys, said: bytes, why: str
) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server:
        for door in (server.addresses, server.submission_addresses, server.submission_tls_addresses):
            async with brought(door[0], said) as client:
                assert await ended(client) == b""
        await until(lambda: not server._meetings and bool(queue.events_recorded))
        assert not server.sessions
        async with brought(server.addresses[0], line(CLIENT)) as client:
            assert (await client.reply()).startswith("220")
    assert told(queue)[0].startswith(f"smtp {PROXY}: no PROXY header: {why}")


@pytest.mark.parametrize("begun", [b"", b"PROXY TCP4 192", block(CLIENT)[:20]])
async def test_a_header_that_does_not_come_is_not_waited_for(
    keys: Keys, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.intake.smtp.proxy.PATIENCE", 0.2)
    queue = FakeArrivals()
    async with behind(keys, queue) as server, brought(server.addresses[0], begun) as client:
        assert await ended(client) == b""
        await until(lambda: bool(queue.events_recorded))
        assert not server._meetings
    assert told(queue) == [f"smtp {PROXY}: no PROXY header: none has come in 0.2 seconds"]


@pytest.mark.parametrize(("begun", "events"), [(b"", 0), (b"PROXY TCP4", 1)])
async def test_who_leaves_before_the_header_leaves_nothing_behind(keys: Keys, begun: bytes, events: int) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server:
        async with brought(server.addresses[0], begun) as client:
            await until(lambda: bool(server._meetings))
            client.writer.write_eof()
            assert await ended(client) == b""
        await until(lambda: not server._meetings and len(queue.events_recorded) == events)


async def test_who_waits_for_longest_without_a_header_makes_room(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.intake.smtp.listener.AT_ONCE", 2)
    async with behind(keys, FakeArrivals()) as server:
        door = server.addresses[0]
        async with brought(door) as first:
            await until(lambda: len(server._meetings) == 1)
            async with brought(door) as second:
                await until(lambda: len(server._meetings) == 2)
                async with brought(door, line(CLIENT)) as third:
                    assert (await third.reply()).startswith("220")
                    assert await ended(first) == b""
                    second.send(line(CLIENT))
                    assert (await second.reply()).startswith("220")


@pytest.mark.parametrize("header", [line(CLIENT), block(CLIENT)])
async def test_from_elsewhere_a_header_is_nonsense_and_nobody_is_whom_it_says(keys: Keys, header: bytes) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server:
        async with talk(server.addresses[0]) as client:
            assert (await client.reply()).startswith("220")
            client.send(header)
            assert (await client.reply()).startswith("500")
        async with talk(server.addresses[0]) as client:
            assert (await client.reply()).startswith("220")
            await client.ehlo()
            assert (await client.mail()).startswith("550 5.7.1")
    assert not any(CLIENT in text for text in told(queue))


async def test_a_client_that_speaks_before_it_is_greeted_is_sent_away_behind_a_proxy_too(keys: Keys) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server:
        async with brought(server.addresses[0], line(CLIENT) + b"EHLO client.example\r\n") as client:
            assert (await client.reply()).startswith("554 5.5.0")
        await until(lambda: bool(queue.events_recorded))
    assert told(queue)[0].startswith(f"smtp {CLIENT}: spoke out of turn")


async def test_a_stop_waits_for_no_header(keys: Keys) -> None:
    queue = FakeArrivals()
    async with behind(keys, queue) as server, brought(server.addresses[0], b"PROXY ") as client:
        await until(lambda: bool(server._meetings))
        async with asyncio.timeout(PATIENCE):
            await server.stop(0)
        assert await ended(client) == b""
    assert not queue.events_recorded
