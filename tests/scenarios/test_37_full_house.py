"""37. When all sessions are taken, those that do nothing make room, and nobody is interrupted."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from ipaddress import ip_network

import pytest

from engine.intake.reply import Reply
from engine.intake.smtp.occupancy import KEPT, Occupancy, full_house, turned_out
from engine.settings.settings import Limits
from tests.clock import FakeClock
from tests.scenarios.submitting import Keys, Talk, made_keys, secured, submission, talk
from tests.unit.fake_arrivals import FakeArrivals


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    with made_keys() as keys:
        yield keys


async def good(client: Talk) -> str:
    """Greet and send a message; give the last reply."""
    assert (await client.reply()).startswith("220")
    await client.ehlo()
    return await client.mail()


async def test_two_hundred_idle_connections_of_this_machine_shut_neither_door(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue) as server, AsyncExitStack() as held:
        relaying, submitting, wrapped = (
            server.addresses[0], server.submission_addresses[0], server.submission_tls_addresses[0],
        )  # fmt: skip
        idle = []
        for _ in range(200):
            client = await held.enter_async_context(talk(relaying))
            assert (await client.reply()).startswith("220")
            idle.append(client)
        assert server.sessions == 150  # a quarter is kept for submission
        assert await idle[0].reply() == said(turned_out("relay.example"))
        for _ in range(3):
            async with talk(relaying) as client:
                assert (await good(client)).startswith("250")
            async with secured(submitting, keys) as client:
                assert (await client.log_in()).startswith("235")
                assert (await client.mail()).startswith("250")
            async with talk(wrapped, tls=keys.client) as client:
                await client.reply()
                await client.ehlo()
                assert (await client.log_in()).startswith("235")
                assert (await client.mail()).startswith("250")
        assert server.notes == (
            "all 150 sessions for relaying are in use: those idle longest make room for others (421)",
        )
    assert len(queue.messages) == 9


async def test_who_sends_a_message_is_not_turned_out(keys: Keys) -> None:
    queue = FakeArrivals()
    async with submission(keys, queue, max_sessions=4) as server, AsyncExitStack() as held:
        door = server.addresses[0]  # three sessions are for relaying here
        async with talk(door) as sender:
            await sender.reply()
            await sender.ehlo()
            for line in ("MAIL FROM:<ann@example.com>", "RCPT TO:<bob@example.net>", "DATA"):
                await sender.say(line)
            sender.send(b"Subject: x\r\n")
            for _ in range(6):
                idle = await held.enter_async_context(talk(door))
                assert (await idle.reply()).startswith("220")
                assert (await idle.say("NOOP")).startswith("250")
            sender.send(b"\r\nbody\r\n.\r\n")
            assert (await sender.reply()).startswith("250")
    assert len(queue.messages) == 1


async def test_where_all_are_at_work_others_are_told_to_come_again(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    async with submission(keys, FakeArrivals(), max_sessions=4) as server, AsyncExitStack() as held:
        door = server.addresses[0]
        for _ in range(3):
            client = await held.enter_async_context(talk(door))
            await client.reply()
            await client.ehlo()
            assert (await client.say("MAIL FROM:<ann@example.com>")).startswith("250")
        async with talk(door) as late:
            assert await late.reply() == said(full_house("relay.example"))
        assert server.notes == ("all 3 sessions for relaying are at work: others are told to come again (421)",)
        async with secured(server.submission_addresses[0], keys) as client:
            assert (await client.log_in()).startswith("235")
        monkeypatch.setattr("engine.intake.smtp.session.AT_WORK", 0.0)  # they have had their time, without a message
        async with talk(door) as late:
            assert (await good(late)).startswith("250")


async def test_a_hundred_strangers_who_say_mail_and_no_more_keep_no_known_client_out(keys: Keys) -> None:
    """Who may not relay can begin a transaction as well, and is at no work of ours in it."""
    queue = FakeArrivals()
    networks = (ip_network("127.0.0.1/32"),)
    async with submission(keys, queue, relay_networks=networks) as server, AsyncExitStack() as held:
        door = server.addresses[0]
        known = []
        for _ in range(50):  # with the strangers these are all of the 150 for relaying, and all of them are at work
            client = await held.enter_async_context(talk(door))
            await client.reply()
            await client.ehlo()
            assert (await client.say("MAIL FROM:<ann@example.com>")).startswith("250")
            known.append(client)
        for number in range(100):
            stranger = await held.enter_async_context(talk(door, source=f"127.0.0.{2 + number // 50}"))
            assert (await stranger.reply()).startswith("220")
            await stranger.ehlo()
            assert (await stranger.say("MAIL FROM:<eve@example.com>")).startswith("250")
        assert server.sessions == 150
        for _ in range(60):
            client = await held.enter_async_context(talk(door))
            assert (await good(client)).startswith("250")
        for client in known:
            for line, code in (("RCPT TO:<bob@example.net>", "250"), ("DATA", "354"), ("Subject: x\r\n\r\n.", "250")):
                assert (await client.say(line)).startswith(code)
    assert len(queue.messages) == 110


def said(reply: Reply) -> str:
    """A reply of one line as a client reads it."""
    return reply.encoded().decode().rstrip("\r\n")


class Guest:
    """A session that only says whether it is at work, and keeps its farewell."""

    def __init__(self, *, at_work: bool = False) -> None:
        self.at_work = at_work
        self.farewell: Reply | None = None

    def close(self, farewell: Reply) -> None:
        self.farewell = farewell


def occupancy(most: int, *, submits: bool = False) -> Occupancy:
    return Occupancy(most, Limits(), "relay.example", FakeClock(), submits=submits)


def test_the_one_that_sent_last_stays_longest() -> None:
    full = occupancy(3)
    guests = [Guest() for _ in range(3)]
    for guest in guests:
        assert full.make_room("127.0.0.1", known=True) is None
        full.enter(guest, "127.0.0.1", known=True)
    full.touch(guests[0])
    for guest in (guests[1], guests[2], guests[0]):
        assert full.make_room("127.0.0.1", known=True) is None
        assert guest.farewell == turned_out("relay.example")
        full.enter(Guest(), "127.0.0.1", known=True)
    assert len(full) == 3


def test_relaying_has_three_quarters_where_there_is_submission_and_all_where_there_is_none() -> None:
    for submits, most in ((True, 8 - 8 // KEPT), (False, 8)):
        full = occupancy(8, submits=submits)
        for _ in range(20):
            assert full.make_room("127.0.0.1", known=True) is None
            full.enter(Guest(), "127.0.0.1", known=True)
        assert len(full) == most


def test_submission_may_have_all_and_those_idle_longest_go_whoever_they_are() -> None:
    full = occupancy(4, submits=True)
    guests = [Guest(at_work=number == 0) for number in range(4)]
    for number, guest in enumerate(guests):
        assert full.make_room(f"192.0.2.{number}", known=False, door="submission") is None
        full.enter(guest, f"192.0.2.{number}", known=False, door="submission")
        assert full.log_in(guest, f"login{number}") is None
    assert full.make_room("127.0.0.1", known=True, door="relay") is None
    assert [bool(guest.farewell) for guest in guests] == [False, True, False, False]


def test_where_everybody_is_at_work_nobody_is_turned_out() -> None:
    full = occupancy(2)
    guests = [Guest(at_work=True) for _ in range(2)]
    for guest in guests:
        full.enter(guest, "127.0.0.1", known=True)
    assert full.make_room("127.0.0.1", known=True) == full_house("relay.example")
    assert not any(guest.farewell for guest in guests)
