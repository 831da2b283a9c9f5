"""BDAT (RFC 3030): chunks are octets and nothing else, and bounded as what comes after DATA is."""

import asyncio
from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.intake.reply import FULL, too_big
from engine.intake.smtp import reader
from engine.intake.smtp.chunk import MALFORMED
from engine.intake.smtp.command import MAX_COMMAND
from engine.queue.errors import QueueFull
from tests.unit.fake_arrivals import FakeArrivals
from tests.unit.fake_transport import Guest, turns
from tests.waiting import PATIENCE

ENVELOPE = b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.net>\r\n"
HIDDEN = b"\r\n.\r\nMAIL FROM:<x@example.com>\r\nRCPT TO:<y@example.com>\r\nDATA\r\nx\r\n.\r\nBDAT 2 LAST\r\nxQUIT\r\n"
MOST = 100_000  # octets of a message, where that is what is tried


def bdat(content: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(content), b" LAST" if last else b"", content)


def codes(replies: Sequence[str]) -> list[str]:
    return [reply[:9] if reply[4:5].isdigit() and reply[5:6] == "." else reply[:3] for reply in replies]


def body(guest: Guest, number: int = 0) -> bytes:
    """What came, without the Received field on top."""
    content = guest.queue.messages[number].content
    return content.partition(b"\r\n\r\n")[2] if b"\r\n\r\n" in content else content


async def small() -> Guest:
    """A guest where a message has MOST octets at the most: then it stays in memory."""
    guest = Guest()
    guest.reception.rules = replace(guest.reception.rules, max_message_size=MOST)
    return await guest.come()


def nothing_is_held(guest: Guest) -> bool:
    return guest.reception.storeroom.memory == 0


async def test_chunking_is_offered_and_binarymime_is_not() -> None:
    guest = await Guest().come(greet=False)
    offered = await guest.say(b"EHLO client.example\r\n")
    assert "250-CHUNKING" in offered
    assert not any("BINARYMIME" in line for line in offered)
    said = await guest.say(b"MAIL FROM:<ann@example.com> BODY=BINARYMIME\r\n")
    assert codes(said) == ["501 5.5.4"]


async def test_a_message_comes_in_chunks_and_is_taken_with_the_last() -> None:
    guest = await Guest().come()
    assert codes(await guest.say(ENVELOPE)) == ["250 2.1.0", "250 2.1.5"]
    assert await guest.say(bdat(b"Subject: x\r\n\r\n.one\r\n")) == ["250 2.0.0 20 octets taken"]
    assert guest.queue.messages == []
    assert await guest.say(bdat(b"..two\r\n")) == ["250 2.0.0 7 octets taken"]
    assert (await guest.say(bdat(b"three\r\n", last=True)))[0].startswith("250 2.0.0 Ok: queued as")
    assert body(guest) == b".one\r\n..two\r\nthree\r\n"  # no dot is taken away
    assert codes(await guest.say(b"RCPT TO:<eve@example.org>\r\n")) == ["503 5.5.1"]
    assert nothing_is_held(guest)


async def test_the_last_is_answered_only_after_the_commit() -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    guest = await Guest(queue=queue).come()
    assert codes(await guest.say(ENVELOPE + bdat(b"x\r\n", last=True))) == ["250 2.1.0", "250 2.1.5"]
    queue.open_gate.set()
    await turns()
    assert guest.heard[-1].startswith("250 2.0.0 Ok: queued as")
    queue.fail = QueueFull("no room")
    assert await guest.say(ENVELOPE + bdat(b"x\r\n", last=True)) == [
        "250 2.1.0 Ok", "250 2.1.5 Ok", FULL.encoded().decode().rstrip(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chunks", "taken"),
    [
        ([b"a: b\r\n\r\nx", b""], b"x\r\n"),
        ([b"a: b\r\n\r\nx\r", b"\n"], b"x\r\n"),
        ([b"a: b\r\n\r\nx\r\n.\r", b"\n.\r\n"], b"x\r\n.\r\n.\r\n"),
        ([b"a: b\r\n\r\nbare\nand", b"\rends"], b"bare\r\nand\r\nends\r\n"),
        ([b"", b"", b"a: b\r\n\r\n\xff\xfe\r\n", b""], b"\xff\xfe\r\n"),
    ],
)
async def test_what_comes_is_made_canonical_as_after_data(chunks: list[bytes], taken: bytes) -> None:
    guest = await Guest().come()
    *first, last = chunks
    await guest.say(ENVELOPE + b"".join(map(bdat, first)) + bdat(last, last=True))
    assert body(guest) == taken


async def test_content_is_judged_as_after_data() -> None:
    guest = await Guest().come()
    for content, reply in (
        (b"a\0b\r\n", "554 5.6.0"),
        (b"x" * 70_000 + b"\r\n", "500 5.5.2"),
        (b"Received: x\r\n" * 60, "554 5.4.6"),
    ):
        assert codes(await guest.say(ENVELOPE, bdat(content, last=True)))[-1] == reply
    assert guest.queue.messages == []
    assert nothing_is_held(guest)


async def test_a_message_of_nothing_is_one() -> None:
    guest = await Guest().come()
    assert codes(await guest.say(ENVELOPE + b"BDAT 0 LAST\r\n"))[-1] == "250 2.0.0"
    assert len(guest.queue.messages) == 1


# -- where commands begin again -----------------------------------------------------------------------------------


async def test_nothing_in_a_chunk_is_a_command_however_it_is_cut() -> None:
    guest = await Guest().come()
    wire = ENVELOPE + bdat(HIDDEN[:20]) + bdat(HIDDEN[20:], last=True) + b"NOOP\r\n"
    places = [*range(len(ENVELOPE), len(ENVELOPE) + 50), *range(len(wire) - 30, len(wire))]
    for number, cut in enumerate(combinations(places, 2), 1):
        edges = [0, *cut, len(wire)]
        replies = await guest.say(*(wire[start:end] for start, end in pairwise(edges) if end > start))
        assert codes(replies) == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "250"], cut
        assert len(guest.queue.messages) == number
    assert {message.recipients for message in guest.queue.messages} == {("bob@example.net",)}


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from([b"", b".\r\n", b"\r\n.\r\n", b"QUIT\r\n", b"BDAT 9\r\n", b"x", b"\r", b"\n", HIDDEN])),
    st.lists(st.integers(0, 400), max_size=10),
)
def test_chunks_are_what_they_are_in_whatever_pieces_they_come(chunks: list[bytes], places: list[int]) -> None:
    async def held() -> None:
        wire = ENVELOPE + b"".join(map(bdat, chunks)) + b"BDAT 0 LAST\r\nNOOP\r\n"
        edges = sorted({0, len(wire), *(place % len(wire) for place in places)})
        guest = await Guest().come()
        replies = await guest.say(*(wire[start:end] for start, end in pairwise(edges)))
        assert codes(replies) == ["250 2.1.0", "250 2.1.5", *["250 2.0.0"] * (len(chunks) + 1), "250"]
        other = await Guest().come()
        await other.say(ENVELOPE + bdat(b"".join(chunks), last=True))
        assert [each.content for each in guest.queue.messages] == [each.content for each in other.queue.messages]

    asyncio.run(held())


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT", b"BDAT ", b"BDAT x", b"BDAT -5", b"BDAT +5", b"BDAT 5 LAST now", b"BDAT 5 FIRST", b"BDAT LAST",
        b"BDAT 5LAST", b"BDAT 0x5", b"BDAT 5,0", b"BDAT 1" + b"0" * 20, b"BDAT \xb2", b"BDAT\t5", b" BDAT 5",
        b"bdat\xff 5", b"BDAT 5\rLAST", b"BDAT\x005", b"BDAT" + b" " * MAX_COMMAND + b"5", b"BDAT 5" + b" " * 70_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("known", [True, False])
async def test_a_size_that_cannot_be_read_ends_the_session_with_all_that_follows(line: bytes, known: bool) -> None:
    guest = await Guest(known=known).come()
    await guest.say(ENVELOPE)
    assert await guest.say(line + b"\r\n" + HIDDEN) == [MALFORMED.encoded().decode().rstrip()]
    assert guest.transport.is_closing()
    assert (guest.queue.messages, guest.sessions) == ([], set())


@pytest.mark.parametrize("line", [b"bdat 3 last", b"BDAT  3   LAST ", b"BDAT 00000000000000000003 LAST"])
async def test_a_size_is_read_as_it_may_be_written(line: bytes) -> None:
    guest = await Guest().come()
    assert codes(await guest.say(ENVELOPE + line + b"\r\nx\r\nNOOP\r\n"))[-2:] == ["250 2.0.0", "250"]


# -- out of place -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "before",
    [(b"",), (b"MAIL FROM:<ann@example.com>\r\n",), (ENVELOPE + b"RSET\r\n",), (b"HELO c.example\r\n", ENVELOPE)],
)
@pytest.mark.parametrize("last", [True, False])
async def test_without_a_transaction_a_chunk_is_read_and_thrown_away(before: tuple[bytes, ...], last: bool) -> None:
    guest = await Guest().come()
    for group in before:
        await guest.say(group)
    assert codes(await guest.say(bdat(HIDDEN, last=last) + b"NOOP\r\n")) == ["503 5.5.1", "250"]
    assert codes(await guest.say(b"RCPT TO:<bob@example.net>\r\n")) == ["503 5.5.1"]  # there is no transaction now
    assert guest.queue.messages == []
    assert nothing_is_held(guest)


async def test_a_stranger_can_have_no_more_chunks_thrown_away_than_other_errors() -> None:
    guest = await Guest(known=False).come()
    replies = await guest.say((ENVELOPE + bdat(HIDDEN)) * 30)
    assert codes(replies)[-1] == "421 4.7.0"
    assert guest.transport.is_closing()


async def test_a_chunk_that_fails_takes_those_behind_it_in_the_flight_with_it() -> None:
    guest = await small()
    wire = ENVELOPE + bdat(b"x" * (MOST + 1)) + bdat(b"more") + bdat(b"end\r\n", last=True)
    replies = await guest.say(*(wire[start : start + 60_000] for start in range(0, len(wire), 60_000)), b"NOOP\r\n")
    assert codes(replies) == ["250 2.1.0", "250 2.1.5", "552 5.3.4", "503 5.5.1", "503 5.5.1", "250"]
    assert replies[2] == too_big(MOST).encoded().decode().rstrip()
    assert guest.queue.messages == []
    assert codes(await guest.say(ENVELOPE + bdat(b"x\r\n", last=True))) == ["250 2.1.0", "250 2.1.5", "250 2.0.0"]


async def test_data_and_bdat_are_not_mixed() -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + bdat(b"a: b\r\n\r\none\r\n"))
    assert codes(await guest.say(b"DATA\r\n")) == ["503 5.5.1"]
    assert codes(await guest.say(b"RCPT TO:<eve@example.org>\r\n")) == ["503 5.5.1"]
    assert codes(await guest.say(b"MAIL FROM:<eve@example.org>\r\n")) == ["503 5.5.1"]
    assert codes(await guest.say(bdat(b"two\r\n", last=True))) == ["250 2.0.0"]
    assert body(guest) == b"one\r\ntwo\r\n"
    assert guest.queue.messages[0].recipients == ("bob@example.net",)


@pytest.mark.parametrize("forget", [b"EHLO other.example\r\n", b"RSET\r\n"])
async def test_chunks_are_forgotten_with_their_transaction(forget: bytes) -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + bdat(b"old\r\n") + forget)
    assert nothing_is_held(guest)
    await guest.say(ENVELOPE + bdat(b"a: b\r\n\r\nnew\r\n", last=True))
    assert [body(guest, number) for number in range(len(guest.queue.messages))] == [b"new\r\n"]


@pytest.mark.parametrize("said", [bdat(b"one\r\n"), b"BDAT 100 LAST\r\nhalf a chunk"])
async def test_who_goes_in_the_middle_leaves_nothing(said: bytes) -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + said)
    assert not nothing_is_held(guest)
    await guest.leave()
    assert nothing_is_held(guest)
    assert (guest.queue.messages, guest.sessions) == ([], set())


# -- bounds -------------------------------------------------------------------------------------------------------


async def test_of_all_chunks_together_no_more_comes_than_of_a_message() -> None:
    guest = await small()
    half = bdat(b"x\r" * (MOST // 4))
    await guest.say(ENVELOPE)
    for reply in ("250 2.0.0", "250 2.0.0", "552 5.3.4"):
        assert codes(await guest.say(*(half[at : at + 60_000] for at in range(0, len(half), 60_000)))) == [reply]
    assert nothing_is_held(guest)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("before", [b"", ENVELOPE])
async def test_what_is_announced_far_beyond_that_is_not_waited_for(known: bool, before: bytes) -> None:
    guest = await Guest(known=known).come()
    await guest.say(before)
    assert codes(await guest.say(b"BDAT 99999999999999999999 LAST\r\n" + HIDDEN)) == ["552 5.3.4"]
    assert guest.transport.is_closing()


async def test_chunks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_CHUNKS", 20)
    guest = await Guest().come()
    replies = await guest.say(ENVELOPE + b"BDAT 0\r\n" * 20 + b"BDAT 2\r\nxxNOOP\r\n")
    assert codes(replies)[2:] == ["250 2.0.0"] * 20 + ["552 5.3.4", "250"]
    assert codes(await guest.say(ENVELOPE + b"BDAT 0\r\n" * 19 + bdat(b"x\r\n", last=True)))[-1] == "250 2.0.0"


@pytest.mark.parametrize("said", [b"", b"NOOP\r\n", b"BDAT 1\r\nx", b"BDAT 100\r\nx"])
async def test_between_chunks_the_time_of_the_message_goes_on(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(reader, "GRACE", 0.05)
    guest = await Guest(idle=PATIENCE).come()
    await guest.say(ENVELOPE + bdat(b"x"), said)
    await asyncio.wait_for(guest.session.ended, PATIENCE / 2)
    assert guest.heard[-1].startswith("421 4.4.2 relay.example Too slow: at least")
    assert nothing_is_held(guest)


async def test_a_chunk_that_is_thrown_away_has_its_time_too_and_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "GRACE", 0.05)
    guest = await Guest(idle=PATIENCE, known=False).come()
    await guest.say(ENVELOPE + b"BDAT 100\r\nx")
    await asyncio.wait_for(guest.session.ended, PATIENCE / 2)
    assert guest.heard[-1] == "421 4.4.2 relay.example Too slow, closing the connection"
    assert not guest.reception._lately.texts


async def test_after_a_message_in_chunks_its_time_is_over() -> None:
    guest = await Guest().come()
    await guest.say(ENVELOPE + bdat(b"x\r\n", last=True))
    assert guest.connection._deadline > asyncio.get_running_loop().time() + 59
    await guest.leave()
