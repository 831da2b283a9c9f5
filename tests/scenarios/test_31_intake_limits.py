"""One address, or one login, cannot have it all: sessions, messages, guesses; and others are served meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from ipaddress import ip_network
from time import monotonic

import pytest

from engine.intake.smtp.guesses import LONGEST_DELAY, Guesses
from engine.intake.smtp.limits import Meter, Rates, address_key
from engine.settings.settings import Limits
from tests.clock import FakeClock
from tests.scenarios.submitting import LETTER, Keys, made_keys, secured, submission, talk
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

GOOD, ATTACKER = "127.0.0.1", "127.0.0.66"
GOOD_ONLY = (ip_network("127.0.0.1/32"),)


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


def test_a_meter_fills_at_once_and_drains_evenly() -> None:
    clock = FakeClock()
    meter = Meter(6, 60.0, clock)
    for _ in range(6):
        assert meter.has_room("a")
        meter.use("a")
    assert not meter.has_room("a")
    assert meter.has_room("b")
    clock._now += 9.9
    assert not meter.has_room("a")
    clock._now += 0.1
    assert meter.has_room("a")
    clock._now -= 3600  # set back: nobody is let in for it, or kept out
    assert meter.level("a") <= 6


def test_a_meter_remembers_no_more_than_it_may() -> None:
    meter = Meter(2, 60.0, FakeClock(), remembered=100)
    for number in range(10_000):
        meter.use(str(number))
    assert len(meter) == 100


def test_a_host_counts_by_its_address_or_by_its_64() -> None:
    assert address_key("192.0.2.1") == "192.0.2.1"
    assert address_key("::ffff:192.0.2.1") == "192.0.2.1"
    assert address_key("2001:db8::1%eth0") == address_key("2001:db8::ffff") == "2001:db8::/64"


def test_messages_are_counted_by_the_minute_and_by_the_hour_and_by_address_and_login() -> None:
    clock = FakeClock()
    limits = Limits(messages_per_minute_per_address=3, messages_per_hour_per_address=5, messages_per_minute_per_login=2)
    rates = Rates(limits, clock)
    assert [rates.begin("192.0.2.1", "") for _ in range(4)] == ["", "", "", "address"]
    assert rates.begin("192.0.2.2", "") == ""
    clock._now += 60
    assert [rates.begin("192.0.2.1", "") for _ in range(3)] == ["", "", "address"]  # five within the hour
    assert [rates.begin(f"192.0.2.{host}", "ann") for host in (10, 11, 12)] == ["", "", "login"]
    assert rates.begin("192.0.2.12", "bob") == ""
    assert {rates.begin("127.0.0.1", "") for _ in range(50)} == {""}  # exempt


def test_guesses_are_slowed_and_then_refused_until_time_has_passed() -> None:
    clock = FakeClock()
    guesses = Guesses(Limits(guesses_per_address=6, guesses_per_login=20, guess_window=600.0), clock)
    delays: list[float] = []
    while not guesses.refused("192.0.2.1", f"login{len(delays)}"):
        delays.append(guesses.begin("192.0.2.1", f"login{len(delays)}"))
    assert delays == [0, 0, 0, 1, 2, 4]
    assert max(delays) <= LONGEST_DELAY
    assert guesses.refused("192.0.2.1", "ann") == "address"
    assert not guesses.refused("192.0.2.2", "ann")
    clock._now += 100
    assert not guesses.refused("192.0.2.1", "ann")


def test_guessing_at_a_login_from_many_addresses_does_not_keep_its_owner_out() -> None:
    guesses = Guesses(Limits(guesses_per_login=5), FakeClock())
    guesses.begin("198.51.100.1", "ann")
    guesses.right("198.51.100.1", "ann")
    host = 0
    while not guesses.refused(f"192.0.2.{host}", "ann"):
        guesses.begin(f"192.0.2.{host}", "ann")
        host += 1
    assert host == 25  # of the network; from the first of its addresses nobody is heard after five
    assert guesses.refused("192.0.2.0", "ann") == "login"
    assert not guesses.refused("203.0.113.1", "ann")  # who comes from elsewhere is heard, slowly
    assert guesses.begin("203.0.113.1", "ann") == LONGEST_DELAY
    assert not guesses.refused("198.51.100.1", "ann")
    assert guesses.begin("198.51.100.1", "ann") == 0


async def test_a_guesser_is_slowed_and_refused_and_others_log_in_meanwhile(keys: Keys) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    limits = Limits(exempt_networks=(), guesses_per_address=4, guesses_per_login=100)
    async with submission(keys, queue, clock=clock, limits=limits) as server:
        door = server.submission_addresses[0]
        async with secured(door, keys, source=ATTACKER) as guesser:
            for number in range(3):
                assert (await guesser.log_in("bob", f"guess{number}")).startswith("535")
            fourth = asyncio.create_task(guesser.log_in("bob", "guess3"))
            async with secured(door, keys, source=GOOD) as good:
                assert (await good.log_in("ann", "secret")).startswith("235")
                assert (await good.mail()).startswith("250")
            assert not fourth.done()  # it waits for the clock, which stands still
            await clock.advance(1)
            assert (await fourth).startswith("535")
        async with secured(door, keys, source=ATTACKER) as guesser:
            # even the right password is not heard now
            assert (await guesser.log_in("bob", "other")).startswith("421 4.7.0")
            assert await guesser.reader.read() == b""
        await clock.advance(900)
        async with secured(door, keys, source=ATTACKER) as guesser:
            assert (await guesser.log_in("bob", "other")).startswith("235")
    assert any("too many failed logins of the address" in event.text for event in queue.events_recorded)


async def test_a_session_ends_after_five_failed_logins(keys: Keys) -> None:
    limits = Limits(guesses_before_delay=100, guesses_per_login=100)
    async with (
        submission(keys, FakeArrivals(), limits=limits) as server,
        secured(server.submission_addresses[0], keys) as client,
    ):
        replies = [(await client.log_in("ann", "wrong"))[:3] for _ in range(5)]
        assert replies == ["535"] * 4 + ["421"]


async def test_a_login_has_one_count_of_guesses_however_it_is_spelt(keys: Keys) -> None:
    queue = FakeArrivals()
    limits = Limits(exempt_networks=(), guesses_before_delay=100, guesses_per_address=100, guesses_per_login=2)
    async with submission(keys, queue, limits=limits) as server:
        for composed in ("J\u00fcrgen", "Ju\u0308rgen"):
            async with secured(server.submission_addresses[0], keys) as client:
                assert (await client.log_in(composed, "wrong")).startswith("535")
        async with secured(server.submission_addresses[0], keys) as client:
            assert (await client.log_in("Ju\u0308rgen", "wrong")).startswith("421 4.7.0")


async def test_too_much_mail_is_put_off(keys: Keys) -> None:
    clock = FakeClock()
    limits = Limits(messages_per_minute_per_login=2)
    async with (
        submission(keys, FakeArrivals(), clock=clock, limits=limits) as server,
        secured(server.submission_addresses[0], keys) as client,
    ):
        await client.log_in()
        assert [(await client.mail())[:9] for _ in range(3)] == ["250 2.0.0", "250 2.0.0", "450 4.7.1"]
        await clock.advance(30)
        assert (await client.mail()).startswith("250")


async def test_so_many_recipients_are_taken_and_the_others_put_off(keys: Keys) -> None:
    clock, queue = FakeClock(), FakeArrivals()
    limits = Limits(recipients_per_minute_per_login=3)
    async with (
        submission(keys, queue, clock=clock, limits=limits) as server,
        secured(server.submission_addresses[0], keys) as client,
    ):
        await client.log_in()
        await client.say("MAIL FROM:<ann@example.com>")
        replies = [await client.say(f"RCPT TO:<{name}@example.net>") for name in ("a", "b", "a", "c", "d", "e")]
        assert [reply[:9] for reply in replies] == ["250 2.1.5"] * 4 + ["452 4.5.3"] * 2  # who was named before is free
        await client.say("DATA")
        client.send(LETTER + b".\r\n")
        assert (await client.reply()).startswith("250")
        assert queue.messages[0].recipients == ("a@example.net", "b@example.net", "c@example.net")
        assert (await client.mail("d@example.net")).startswith("452 4.7.1 Too many recipients from your login")
        assert server.notes == ("452 to recipients of the login ann: more than intake.limits allows",)
        await client.say("RSET")
        await clock.advance(20)
        assert (await client.mail("d@example.net")).startswith("250")
    (told,) = queue.events_recorded
    assert told.text == "smtp 127.0.0.1: too many recipients: the limit of the login for recipients"


def test_recipients_are_counted_by_the_minute_and_by_the_hour_and_by_address_and_login() -> None:
    clock = FakeClock()
    limits = Limits(
        recipients_per_minute_per_address=3, recipients_per_hour_per_address=5, recipients_per_minute_per_login=2
    )
    rates = Rates(limits, clock)
    assert [rates.recipient("192.0.2.1", "") for _ in range(4)] == ["", "", "", "address"]
    assert rates.begin("192.0.2.1", "") == ""
    clock._now += 60
    assert [rates.recipient("192.0.2.1", "") for _ in range(3)] == ["", "", "address"]
    assert [rates.recipient(f"192.0.2.{host}", "ann") for host in (10, 11, 12)] == ["", "", "login"]
    assert {rates.recipient("127.0.0.1", "") for _ in range(50)} == {""}


async def test_an_address_and_a_login_have_only_so_many_sessions(keys: Keys) -> None:
    limits = Limits(exempt_networks=(), connections_per_address=3, connections_per_login=2)
    async with submission(keys, FakeArrivals(), limits=limits) as server, AsyncExitStack() as open_:
        door = server.submission_addresses[0]
        held = [await open_.enter_async_context(secured(door, keys, source=ATTACKER)) for _ in range(3)]
        async with talk(door, source=ATTACKER) as fourth:
            assert (await fourth.reply()).startswith("421 4.7.0")
        async with talk(server.submission_tls_addresses[0], source=ATTACKER) as fifth:
            assert await fifth.reader.read() == b""  # before TLS nothing can be said
        assert [(await client.log_in())[:3] for client in held] == ["235", "235", "421"]
        async with secured(door, keys, source=GOOD) as other:
            assert (await other.log_in("bob", "other")).startswith("235")


async def test_hundreds_of_idle_and_dripping_sessions_keep_no_good_client_out(keys: Keys) -> None:
    queue = FakeArrivals()
    limits = Limits(exempt_networks=(), connections_per_address=40)
    async with submission(keys, queue, limits=limits, max_sessions=60, relay_networks=GOOD_ONLY) as server:
        relaying, submitting, wrapped = (
            server.addresses[0], server.submission_addresses[0], server.submission_tls_addresses[0],
        )  # fmt: skip

        async def good_clients() -> float:
            begin = monotonic()
            for _ in range(20):
                async with talk(relaying) as client:
                    assert (await client.reply()).startswith("220")
                    await client.ehlo()
                    assert (await client.mail()).startswith("250")
                async with secured(submitting, keys) as client:
                    assert (await client.log_in()).startswith("235")
                    assert (await client.mail()).startswith("250")
            return monotonic() - begin

        alone = await good_clients()  # seconds, as busy as this machine is
        held: list[asyncio.StreamWriter] = []
        stop = asyncio.Event()

        async def drip() -> None:
            while not stop.is_set():
                for writer in held:
                    if not writer.is_closing():
                        writer.write(b"N")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        for number in range(300):
            door = (relaying, submitting, wrapped)[number % 3]
            _, writer = await asyncio.open_connection(door.host, door.port, local_addr=(f"127.0.1.{number % 20}", 0))
            held.append(writer)
        assert 25 <= server.sessions <= 60
        assert await good_clients() < max(3, 3 * alone)
        assert len(server._reception.occupancy._strangers) <= 30
        assert server._reception.held == 0
        stop.set()
        await dripping
        for writer in held:
            writer.transport.abort()
        await until(lambda: not server.sessions)
        left = server._reception.occupancy
        for count in (left._strangers, left._known, left._addresses, left._by_address, left._by_login):
            assert not count
    assert len(queue.messages) == 80
