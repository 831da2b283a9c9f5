"""One session of SMTP intake, octet by octet: the same however its pieces come, and bounded whatever they are."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations, pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.intake.reply import Reply, goodbye
from engine.intake.smtp import connection as octets
from engine.intake.smtp.command import MAX_COMMAND
from engine.intake.smtp.session import MAX_UNKNOWN
from engine.model.message import NewMessage
from tests.unit.fake_arrivals import FakeArrivals
from tests.unit.fake_transport import FakeTransport, Guest, lines, turns
from tests.waiting import PATIENCE

ENVELOPE = b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\n"
AFTER = b"NOOP\r\nRSET\r\n"

# Each group is sent once the replies to the one before are there (RFC 2920 3.1).
GROUPS = (
    b"EHLO client.example\r\n",
    b"NOOP\r\nMAIL FROM:<ann@example.com> SIZE=9\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<a,b@c>\r\nDATA\r\n",
    (
        b"Subject: one\r\n\r\n..dot\r\nbare\nend\r.\r\n\n.\n.\r\n\r\n.\r\n"
        b"NOOP\r\nXYZ\r\nMAIL FROM:<>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n"
    ),
    b".\r\nVRFY x\r\n\r\n\xff\r\nmail from:<eve@example.com>\nRCPT TO:<eve@example.org>\r\nDATA x\r\nDATA\r\n",
    b"\r\n\r\n.\r\n" + b"N" * (MAX_COMMAND + 1) + b"\r\nRSET\r\nQUIT\r\n",
)


async def held(groups: Sequence[Sequence[bytes]]) -> tuple[list[str], list[NewMessage]]:
    """Hold a conversation, each group in these pieces; give the replies and the messages."""
    guest = await Guest().come(greet=False)
    for pieces in groups:
        await guest.say(*pieces)
    assert guest.transport.is_closing()
    assert not guest.sessions
    return guest.heard, guest.queue.messages


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The same octets in pieces, none of them empty."""
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


async def test_a_conversation_is_what_it_is() -> None:
    replies, messages = await held([[group] for group in GROUPS])
    assert [reply[:3] for reply in replies] == (
        ["220"] + ["250"] * 8  # EHLO, with its offers
        + ["250", "250", "250", "501", "354"]
        + ["250", "250", "500", "250", "250", "354"]
        + ["250", "252", "500", "500", "250", "250", "501", "354"]
        + ["250", "500", "250", "221"]
    )  # fmt: skip
    assert [message.recipients for message in messages] == [
        ("bob@example.net",), ("Postmaster@relay.example",), ("eve@example.org",),
    ]  # fmt: skip
    assert messages[0].content.endswith(b"\r\n\r\n.dot\r\nbare\r\nend\r\n.\r\n\r\n.\r\n.\r\n\r\n")


async def test_it_is_the_same_wherever_it_is_cut() -> None:
    whole = await held([[group] for group in GROUPS])
    for number, group in enumerate(GROUPS):
        for place in range(1, min(len(group), 400)):
            groups = [[each] for each in GROUPS]
            groups[number] = [group[:place], group[place:]]
            assert await held(groups) == whole
    assert await held([[bytes([octet]) for octet in group] for group in GROUPS]) == whole


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 10_000), max_size=30), min_size=len(GROUPS), max_size=len(GROUPS)))
def test_it_is_the_same_in_whatever_pieces_it_comes(places: list[list[int]]) -> None:
    async def both() -> None:
        whole = await held([[group] for group in GROUPS])
        assert await held([cut(group, each) for group, each in zip(GROUPS, places, strict=True)]) == whole

    asyncio.run(both())


@pytest.mark.parametrize("content", [b"", b"\r\n", b"x\r\n", b"..\r\n", b"\r\n.\r", b"\r.\r\n", b"x\n.\r\n.\n"])
async def test_the_final_dot_is_found_across_every_border_and_what_follows_is_a_command(content: bytes) -> None:
    wire = (content + b"\r\n" if content and not content.endswith(b"\r\n") else content) + b".\r\n"
    guest = await Guest().come()
    sent = 0
    for places in combinations(range(len(wire + AFTER) + 1), 2):
        await guest.say(ENVELOPE + b"DATA\r\n")
        replies = await guest.say(*cut(wire + AFTER, places))
        assert [reply[:3] for reply in replies] == ["250", "250", "250"], places
        sent += 1
    assert len(guest.queue.messages) == sent
    assert len({message.content for message in guest.queue.messages}) == 1


NO_ENDS = (b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n.\r\r\n", b"\r\n.x\r\n",
           b"\r\n \r.\r\n", b"\r\n.\n\r\n", b"\r\r\n.\r\r\n", b"\n\n.\n\n")  # fmt: skip


@pytest.mark.parametrize("no_end", NO_ENDS)
async def test_nothing_but_crlf_dot_crlf_ends_a_message_however_it_is_cut(no_end: bytes) -> None:
    hidden = b"MAIL FROM:<x@example.com>\r\nRCPT TO:<y@example.com>\r\nDATA\r\nhidden\r\n"
    wire = b"first" + no_end + hidden + b"\r\n.\r\n"
    guest = await Guest().come()
    for number, place in enumerate(range(4, len(b"first" + no_end) + 3), 1):
        await guest.say(ENVELOPE + b"DATA\r\n")
        replies = await guest.say(wire[:place], wire[place:] + AFTER)
        assert [reply[:3] for reply in replies] == ["250", "250", "250"]
        assert len(guest.queue.messages) == number
    for message in guest.queue.messages:
        assert message.recipients == ("bob@example.net",)
        assert b"hidden" in message.content
        rest = message.content.replace(b"\r\n", b"")
        assert not {*rest} & {10, 13}


async def test_a_message_of_line_ends_alone_is_a_message() -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + b"DATA\r\n")
    replies = await guest.say(*[b"\r\n" * 30_000] * 3, b".\r\n")
    assert replies[-1].startswith("250")
    assert guest.queue.messages[0].content.endswith(b"\r\n" * 90_000)


@pytest.mark.parametrize("forget", [b"EHLO other.example\r\n", b"HELO other.example\r\n", b"RSET\r\n"])
async def test_a_transaction_is_forgotten_with_a_greeting_and_with_rset(forget: bytes) -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE)
    assert (await guest.say(forget))[-1].startswith("250")
    assert [reply[:9] for reply in await guest.say(b"RCPT TO:<eve@example.org>\r\n")] == ["503 5.5.1"]
    said = await guest.say(b"MAIL FROM:<ann@example.com> SIZE=5\r\n")
    assert [reply[:9] for reply in said] == ["555 5.5.4" if forget.startswith(b"HELO") else "250 2.1.0"]


async def test_who_says_nothing_but_what_nobody_knows_is_sent_away() -> None:
    guest = await Guest().come()
    replies = await guest.say(b"XYZ\r\nNOOP\r\n" * (MAX_UNKNOWN + 1))
    assert [reply[:3] for reply in replies] == ["500", "250"] * (MAX_UNKNOWN - 1) + ["502"]
    assert not guest.sessions


@pytest.mark.parametrize("turns_later", [0, 1, 2])
@pytest.mark.parametrize("last", [b"EHLO c\r\n", ENVELOPE + b"DATA\r\n"])
async def test_what_lies_in_the_socket_when_a_group_ends_was_sent_out_of_turn(last: bytes, turns_later: int) -> None:
    guest, loop = await Guest().come(), asyncio.get_running_loop()
    guest.connection.data_received(last)
    if turns_later == 0:
        guest.connection.data_received(b"x")
    elif turns_later == 1:
        loop.call_soon(guest.connection.data_received, b"x")
    else:
        loop.call_soon(loop.call_soon, guest.connection.data_received, b"x")
    await turns()
    assert guest.heard[-1].startswith("554 5.5.0 relay.example You spoke out of turn")


async def test_replies_to_a_group_go_out_in_one_write() -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + ENVELOPE[29:] * 3 + b"DATA\r\n")
    assert [len(lines([write])) for write in guest.transport.writes] == [6]
    await guest.say(b"x\r\n.\r\n" + AFTER)
    assert [len(lines([write])) for write in guest.transport.writes] == [6, 3]


async def test_a_burst_lets_others_have_their_turn() -> None:
    one, other = await Guest().come(), await Guest().come()
    order: list[str] = []
    for name, guest in (("one", one), ("other", other)):
        transport = guest.transport

        def write(data: bytes, name: str = name, transport: FakeTransport = transport) -> None:
            order.append(name)
            transport.writes.append(data)

        transport.write = write  # type: ignore[method-assign]
    one.connection.data_received(b"VRFY x\r\n" * 8000)
    await asyncio.sleep(0)
    other.connection.data_received(b"NOOP\r\n")
    await turns(500)
    assert len(one.heard) == 8000
    assert order.index("other") < 5
    assert max(len(lines([write])) for write in one.transport.writes) <= 33


# -- bounds -------------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_is_not_heard_and_then_cut_off() -> None:
    guest = await Guest().come()
    guest.connection.pause_writing()
    guest.transport.unsent = 70_000
    for _ in range(300):
        if not guest.transport.is_paused:
            guest.connection.data_received(b"NOOP\r\n" * 1000)
        await turns(2)
    assert guest.transport.is_paused
    assert len(guest.connection._come) <= octets.AHEAD + 6000
    assert len(guest.heard) <= 33
    time_is_up(guest)
    await asyncio.wait_for(guest.session.ended, PATIENCE)
    assert guest.transport.was_aborted
    assert not guest.sessions


async def test_a_client_that_reads_again_is_heard_again_in_order() -> None:
    guest = await Guest().come()
    guest.connection.pause_writing()
    await guest.say(*[b"VRFY x\r\nNOOP\r\n"] * 100)
    assert len(guest.heard) <= 1
    guest.connection.resume_writing()
    await turns()
    assert [reply[:3] for reply in guest.heard] == ["252", "250"] * 100


async def test_who_does_not_read_the_last_reply_is_cut_off_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(octets, "LINGER", 0.05)
    guest = await Guest().come()
    guest.transport.unsent = 10
    assert await guest.say(b"QUIT\r\n") == ["221 Bye"]
    await asyncio.wait_for(guest.session.ended, PATIENCE)
    assert guest.transport.was_aborted


async def test_what_is_sent_ahead_of_a_commit_waits_in_the_clients_socket() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    await guest.say(ENVELOPE + b"DATA\r\n")
    await guest.say(b"x\r\n.\r\n")
    sent = 0
    while not guest.transport.is_paused:
        guest.connection.data_received(b"VRFY x\r\n" * 100)
        sent += 100
        assert len(guest.connection._come) <= octets.AHEAD + 800
    queue.open_gate.set()
    await turns(3000)
    assert [reply[:3] for reply in guest.heard[-sent - 1 :]] == ["250", *["252"] * sent]
    assert (guest.transport.is_paused, guest.transport.was_paused) == (False, 1)


@pytest.mark.parametrize("length", [MAX_COMMAND - 1, MAX_COMMAND, MAX_COMMAND + 1, 70_000, 1_000_000])
async def test_a_line_that_is_too_long_has_one_reply_at_its_end_and_is_not_kept(length: int) -> None:
    guest = await Guest().come()
    line = b"NOOP " + b"x" * (length - 5)
    for start in range(0, length, 50_000):
        assert await guest.say(line[start : start + 50_000]) == []
        assert len(guest.connection._come) <= 2 * 50_000 + 2**16
    long = await guest.say(b"\r\nNOOP\r\n")
    assert long == ["250 OK" if length <= MAX_COMMAND else "500 Command line too long", "250 OK"]


async def test_a_line_without_an_end_is_answered_by_nothing_but_the_time_out() -> None:
    guest = await Guest().come()
    for number in range(100):
        guest.connection.data_received(b"x" * 60_000)
        await turns(2)
        assert len(guest.connection._come) < 200_000
        if number == 50:
            assert guest.heard == []
            time_is_up(guest)
    await asyncio.wait_for(guest.session.ended, PATIENCE)
    assert guest.heard == ["421 4.4.2 relay.example Too slow, closing the connection"]


Doing = Callable[[Guest], Awaitable[object]]

STATES: dict[str, Doing] = {
    "greeted by us": lambda guest: turns(),
    "in a line": lambda guest: guest.say(b"EHLO cli"),
    "after EHLO": lambda guest: guest.say(b"EHLO c\r\n"),
    "in a transaction": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE),
    "after DATA": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"DATA\r\n"),
    "in a message": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"DATA\r\n", b"Subject: x\r\n"),
    "at the final dot": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"DATA\r\n", b"x\r\n."),
    "after a message": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n"),
    "in a chunk": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"BDAT 10\r\nSubject"),
    "between chunks": lambda guest: both(guest, b"EHLO c\r\n", ENVELOPE + b"BDAT 5\r\nx\r\ny\r"),
    "in a chunk of nothing": lambda guest: both(guest, b"EHLO c\r\n", b"BDAT 10\r\nx"),
    "in a line too long": lambda guest: guest.say(b"x" * 100_000),
}


def time_is_up(guest: Guest) -> None:
    """In a moment: what it waits for does not come."""
    guest.connection.heard(until=asyncio.get_running_loop().time() + 0.02)


async def both(guest: Guest, *groups: bytes) -> None:
    for group in groups:
        await guest.say(group)


@pytest.mark.parametrize("state", STATES)
async def test_in_every_state_a_client_has_its_time_and_no_more(state: str) -> None:
    guest = await Guest().come(greet=False)
    await STATES[state](guest)
    time_is_up(guest)
    await asyncio.wait_for(guest.session.ended, PATIENCE)
    assert guest.heard[-1] == "421 4.4.2 relay.example Too slow, closing the connection"
    assert not guest.transport.was_aborted
    assert (guest.reception.storeroom.memory, len(guest.reception.occupancy), guest.sessions) == (0, 0, set())
    assert len(guest.queue.messages) == (state == "after a message")


async def test_only_what_is_known_gives_a_client_more_time() -> None:
    guest = await Guest().come()
    for line, gives in ((b"XYZ\r\n", False), (b"\r\n", False), (b"N" * 5000 + b"\r\n", False), (b"NOOP\r\n", True)):
        guest.connection._deadline = before = guest.connection._deadline - 1.0  # a second has passed
        await guest.say(line)
        assert (guest.connection._deadline > before) == gives
    await guest.leave()


async def test_a_commit_that_takes_too_long_ends_the_session_and_not_the_commit() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    await both(guest, ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n")
    time_is_up(guest)
    await asyncio.wait_for(guest.session.ended, PATIENCE)
    assert guest.heard[-1].startswith("421 4.4.2")
    queue.open_gate.set()
    await guest.reception.finish(5)
    assert len(queue.messages) == 1


async def test_who_ends_its_message_while_intake_stops_has_its_reply_and_then_goes() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    await both(guest, ENVELOPE + b"DATA\r\n", b"x\r\n.\r\nNOOP\r\n")
    guest.reception.closing = True
    queue.open_gate.set()
    await turns()
    assert guest.heard[-2:] == ["250 2.0.0 Ok: queued as 1", "421 4.3.2 relay.example Going down, come again"]
    assert not guest.sessions


async def test_the_events_tell_whose_message_was_refused() -> None:
    guest = await Guest().come()
    await both(guest, ENVELOPE + b"DATA\r\n", b"\0\r\n.\r\n")
    (told,) = guest.queue.events_recorded
    assert (told.sender, told.text) == ("ann@example.com", "smtp 127.0.0.1: NUL in the message")


async def test_who_has_shut_its_side_in_mid_commit_is_answered_all_the_same() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    await both(guest, ENVELOPE + b"DATA\r\n", b"x\r\n.\r\nNOOP\r\nVRFY half a li")
    assert guest.connection.eof_received() is True
    await turns()
    assert guest.heard[-1].startswith("354")
    queue.open_gate.set()
    await turns()
    assert guest.heard[-2:] == ["250 2.0.0 Ok: queued as 1", "250 OK"]
    assert guest.transport.is_closing()
    assert not guest.sessions


async def test_who_hangs_up_in_mid_commit_leaves_a_whole_message_and_no_session() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    await both(guest, ENVELOPE + b"DATA\r\n", b"x\r\n.\r\n")
    await guest.leave()
    assert not guest.sessions
    assert guest.reception.storeroom.memory == 0
    queue.open_gate.set()
    await turns()
    assert len(queue.messages) == 1


async def test_what_comes_right_after_the_handshake_holds_up_the_client_and_not_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nobody:
        def begin(self) -> None: ...
        def late(self) -> None: ...
        def lost(self) -> None: ...

    connection, raw, secure = octets.Connection(Nobody(), idle=60), FakeTransport(), FakeTransport()

    async def start_tls(*_: object, **__: object) -> FakeTransport:
        connection.data_received(b"NOOP\r\n" * 50_000)
        return secure

    monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls)
    connection.connection_made(raw)
    await connection.start_tls(ssl.create_default_context(), Reply(220, "2.0.0", "Ready"))
    assert (raw.is_paused, secure.is_paused) == (False, True)
    for _ in range(50_000):
        assert await connection.line() == b"NOOP\r\n"
    assert not secure.is_paused
    connection.connection_lost(None)


async def test_a_turned_out_client_is_told_and_one_that_does_not_read_is_not() -> None:
    for unsent in (0, 5):
        guest = await Guest().come()
        guest.transport.unsent = unsent
        guest.session.close(goodbye("4.3.2", "relay.example", "Why"))
        await turns()
        assert guest.heard == (["421 4.3.2 relay.example Why"] if not unsent else [])
        assert guest.transport.was_aborted == bool(unsent)
        assert not guest.sessions


async def test_small_pieces_take_no_more_memory_than_they_say() -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + b"DATA\r\n")
    for _ in range(5000):
        guest.connection.data_received(b"x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert guest.session._reader is not None
    incoming = guest.session._reader.incoming
    assert 4990 <= incoming.size <= 5002
    assert len(incoming._held) == incoming.size
    await guest.leave()


async def test_a_session_sets_no_timer_for_each_command(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), 0
    call_at = loop.call_at

    def counted(*given: object, **named: object) -> asyncio.TimerHandle:
        nonlocal timers
        timers += 1
        return call_at(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", cast("Callable[..., asyncio.TimerHandle]", counted))
    guest = await Guest().come()
    for _ in range(20):
        await both(guest, ENVELOPE, b"DATA\r\n", b"x\r\n.\r\n", b"NOOP\r\n")
    assert timers <= 2
    await guest.leave()
