"""10. MAIL, RCPT and DATA go in one flight, and mean for each recipient what they mean one by one (RFC 2920)."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.delivery.stumbles import Stumbles
from engine.model.outcome import Outcome
from engine.sandbox.exchanges import Action, Temper
from engine.sandbox.exchanges import Session as SandboxSession
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import Timeouts
from engine.smtpclient.mail import Mail
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay

THREE = ("a@x.example", "b@x.example", "c@x.example")
FIFTY = tuple(f"{'x' * 60}{number}@{'a-long-name.' * 15}example" for number in range(50))
MAIL = Mail(sender="ann@example.com", recipients=THREE, content=b"Subject: hi\r\n\r\n.body\r\n")
ALL_AT_ONCE = (1_000_000,)
OK, NO, LATER, WRONG_ORDER, GO = b"250 2.1.0 ok", b"550 5.1.1 no", b"451 4.3.0 later", b"503 5.5.1 no", b"354 go"
CLOSING = b"421 4.3.2 closing"


class Peer:
    """Answers MAIL, each RCPT and DATA with `replies`, in order, on the other end of a pair of sockets.

    Whatever has come (it looks at `looks` bytes at a time) is answered together, in pieces of `sizes` (the last
    repeats), before it looks again; None in place of a reply hangs up, b"" says nothing. `buffers` narrows the way
    between the two. What it was sent is in `flights`, a part for each look; `contents` are the messages.
    """

    def __init__(
        self,
        replies: Sequence[bytes | None],
        *,
        dot: bytes = b"250 2.0.0 taken",
        rset: bytes = b"250 2.0.0 ok",
        sizes: Sequence[int] = ALL_AT_ONCE,
        pipelines: bool = True,
        looks: int = 1_000_000,
        buffers: int = 0,
    ) -> None:
        self.replies = replies
        self.dot = dot
        self.rset = rset
        self.sizes = list(sizes)
        self.pipelines = pipelines
        self.looks = looks
        self.flights: list[bytes] = []
        self.contents: list[bytes] = []
        self._content: list[bytes] | None = None
        self._recipients = 0
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        if buffers:
            for end in (self._ours, self._theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        return self._theirs

    async def run(self) -> None:
        """Hold the conversation until either end closes."""
        loop = asyncio.get_running_loop()
        with self._ours, contextlib.suppress(OSError):
            await self._say(b"220 mx\r\n")
            rest = b""
            while data := await loop.sock_recv(self._ours, self.looks):
                self.flights.append(data)
                *lines, rest = (rest + data).split(b"\r\n")
                said = [self._reply(line) for line in lines]
                end = said.index(None) if None in said else len(said)
                await self._say(b"".join(reply + b"\r\n" for reply in said[:end] if reply))
                if None in said:
                    return

    async def _say(self, data: bytes) -> None:
        sizes = iter(self.sizes)
        size = 1
        while data:
            size = next(sizes, size)
            piece, data = data[:size], data[size:]
            await asyncio.get_running_loop().sock_sendall(self._ours, piece)
            for _ in range(3):
                await asyncio.sleep(0)  # the other end reads this piece by itself

    def _reply(self, line: bytes) -> bytes | None:
        if self._content is not None:
            if line != b".":
                self._content.append(line)
                return b""
            self.contents.append(b"\r\n".join([*self._content, b""]))
            self._content = None
            return self.dot
        verb = line.split(b" ")[0]
        if verb == b"EHLO":
            return b"250-mx\r\n250-PIPELINING\r\n250 8BITMIME" if self.pipelines else b"250-mx\r\n250 8BITMIME"
        if verb == b"RSET":
            return self.rset
        if verb == b"MAIL":
            self._recipients = 0
            return self.replies[0]
        if verb == b"RCPT":
            self._recipients += 1
            return self.replies[self._recipients]
        reply = self.replies[-1]
        if reply is not None and GO in reply:
            self._content = []
        return reply


@asynccontextmanager
async def talking(peer: Peer, *, timeouts: Timeouts | None = None) -> AsyncIterator[Session]:
    """A session with this peer, greeted."""
    bounds = timeouts or Timeouts(greeting=5, hello=5, mail=5, rcpt=5, data=5, block=5, reply=5)
    session = Session(
        Target(host="mx.x.example", address="", port=25),
        hostname="relay.example.net",
        timeouts=bounds,
        transcript=Transcript(SystemClock()),
        on_phase=lambda phase: None,
    )
    running = asyncio.create_task(peer.run())
    await session.open(peer)
    try:
        yield session
    finally:
        session.close()
        await running


async def deliver(peer: Peer, mail: Mail = MAIL) -> list[Outcome]:
    """What becomes of one message; the session is usable afterwards, or it is closed."""
    async with talking(peer) as session:
        return await session.deliver(mail)


def kinds(outcomes: Sequence[Outcome]) -> list[tuple[str, int]]:
    return [(outcome.kind, outcome.code) for outcome in outcomes]


# -- the flight -------------------------------------------------------------------------------------------------------


async def test_an_envelope_of_fifty_recipients_goes_in_one_flight_and_its_message_in_another() -> None:
    peer = Peer([OK, *[OK] * 50, GO])
    assert {outcome.kind for outcome in await deliver(peer, replace(MAIL, recipients=FIFTY))} == {"delivered"}
    hello, flight, *body = peer.flights
    assert hello == b"EHLO relay.example.net\r\n"
    assert len(flight) > 12_000
    assert [line.split(b":")[0] for line in flight.split(b"\r\n")] == [b"MAIL FROM", *[b"RCPT TO"] * 50, b"DATA", b""]
    assert b"".join(body) == b"Subject: hi\r\n\r\n..body\r\n.\r\n"
    assert peer.contents == [b"Subject: hi\r\n\r\n..body\r\n"]


async def test_where_it_is_not_offered_each_command_waits_for_its_reply() -> None:
    peer = Peer([OK, OK, OK, OK, GO], pipelines=False)
    assert kinds(await deliver(peer)) == [("delivered", 250)] * 3
    assert [flight.count(b"\r\n") for flight in peer.flights[:6]] == [1] * 6


async def test_the_next_message_follows_in_a_flight_of_its_own() -> None:
    peer = Peer([OK, OK, NO, OK, GO])
    async with talking(peer) as session:
        for _ in range(3):
            assert kinds(await session.deliver(MAIL)) == [("delivered", 250), ("permanent", 550), ("delivered", 250)]
    assert sum(b"MAIL" in flight for flight in peer.flights) == 3
    assert len(peer.contents) == 3


async def test_a_peer_that_writes_before_it_reads_on_cannot_block_us_both() -> None:
    long_winded = b"".join(b"250-%s\r\n" % (b"x" * 200) for _ in range(100)) + b"250 ok"
    peer = Peer([OK, *[long_winded] * 50, GO], looks=400, buffers=4096)
    assert kinds(await deliver(peer, replace(MAIL, recipients=FIFTY))) == [("delivered", 250)] * 50
    assert len(peer.flights) > 30


# -- every case of RFC 2920 3.1 ---------------------------------------------------------------------------------------

REFUSED = [("permanent", 550)] * 3

CASES: dict[str, tuple[list[bytes | None], list[tuple[str, int]], bool]] = {
    # what the peer says, what becomes of the three, whether the session goes on
    "sender refused, the rest out of order": ([NO, *[WRONG_ORDER] * 4], REFUSED, True),
    "sender refused, DATA taken": ([NO, *[WRONG_ORDER] * 3, GO], REFUSED, True),
    "sender refused, the rest taken": ([NO, OK, OK, OK, GO], REFUSED, False),
    "sender refused, and hung up": ([NO, None, OK, OK, GO], REFUSED, False),
    "sender refused, then 421": ([NO, CLOSING, OK, OK, GO], REFUSED, False),
    "sender put off": ([LATER, *[WRONG_ORDER] * 4], [("transient", 451)] * 3, True),
    "all refused": ([OK, NO, NO, NO, WRONG_ORDER], REFUSED, True),
    "all refused, DATA taken": ([OK, NO, NO, NO, GO], REFUSED, True),
    "all refused, then 421": ([OK, NO, NO, NO, CLOSING], REFUSED, False),
    "all refused, and hung up": ([OK, NO, NO, NO, None], REFUSED, False),
    "some refused": ([OK, NO, OK, LATER, GO], [("permanent", 550), ("delivered", 250), ("transient", 451)], True),
    "some refused, DATA too": (
        [OK, NO, OK, LATER, b"554 5.7.1 no"],
        [("permanent", 550), ("permanent", 554), ("transient", 451)],
        True,
    ),
    "421 first": ([CLOSING, None, None, None, None], [("transient", 421)] * 3, False),
    "421 in the middle": ([OK, NO, CLOSING, None, None], [("permanent", 550), *[("transient", 421)] * 2], False),
    "421 in the middle, and on": ([OK, NO, CLOSING, OK, GO], [("permanent", 550), *[("transient", 421)] * 2], False),
    "421 to DATA": ([OK, OK, NO, OK, CLOSING], [("transient", 421), ("permanent", 550), ("transient", 421)], False),
    "lost at once": ([None] * 5, [("transient", 0)] * 3, False),
    "lost in the middle": ([OK, NO, None, OK, GO], [("permanent", 550), *[("transient", 0)] * 2], False),
    "lost before DATA": ([OK, NO, OK, OK, None], [("permanent", 550), *[("transient", 0)] * 2], False),
    "nonsense in the middle": ([OK, NO, b"what?", OK, GO], [("permanent", 550), *[("transient", 0)] * 2], False),
    "a reply of two minds": (
        [OK, NO, b"550-no\r\n250 yes", OK, GO],
        [("permanent", 550), *[("transient", 0)] * 2],
        False,
    ),
}


@pytest.mark.parametrize("sizes", [ALL_AT_ONCE, (1,)], ids=["together", "byte by byte"])
@pytest.mark.parametrize(("replies", "expected", "goes_on"), CASES.values(), ids=CASES.keys())
async def test_every_status_of_a_flight_is_checked(
    replies: list[bytes | None], expected: list[tuple[str, int]], goes_on: bool, sizes: Sequence[int]
) -> None:
    peer = Peer(replies, sizes=sizes, dot=b"250 2.0.0 taken" if ("delivered", 250) in expected else b"554 5.5.1 no")
    async with talking(peer) as session:
        outcomes = await session.deliver(MAIL)
        assert kinds(outcomes) == expected
        assert not any(outcome.may_duplicate for outcome in outcomes)
        assert session.usable == goes_on
        if goes_on:
            assert kinds(await session.deliver(MAIL)) == expected
    alone = Peer(replies, sizes=sizes, dot=peer.dot, pipelines=False)
    assert kinds(await deliver(alone)) == expected


@pytest.mark.parametrize("dot", [b"554 5.5.1 no valid recipients", b"250 2.0.0 taken", b"451 4.3.0 later"])
async def test_a_message_nobody_is_to_have_is_a_single_dot_and_changes_nothing(dot: bytes) -> None:
    peer = Peer([OK, NO, LATER, NO, GO], dot=dot)
    expected = [("permanent", 550), ("transient", 451), ("permanent", 550)]
    async with talking(peer) as session:
        assert kinds(await session.deliver(MAIL)) == expected
        assert session.usable
    assert peer.flights[2:] == [b".\r\n", b"RSET\r\n"]


async def test_no_empty_message_goes_to_recipients_that_were_taken_after_their_sender_was_refused() -> None:
    peer = Peer([NO, OK, OK, WRONG_ORDER, GO])
    assert kinds(await deliver(peer)) == REFUSED
    assert len(peer.flights) == 2
    assert not peer.contents


# -- however the replies come -----------------------------------------------------------------------------------------

MIXED: list[bytes | None] = [
    b"250-2.1.0 sender\r\n250 2.1.0 ok",
    OK,
    b"550-5.1.1 not\r\n550-5.1.1 \r\n550 5.1.1 here",
    OK,
    GO,
]


async def test_replies_may_be_cut_at_any_byte() -> None:
    length = sum(len(reply or b"") + 2 for reply in MIXED)
    for cut in range(1, length):
        peer = Peer(MIXED, sizes=(cut, 1_000_000))
        assert kinds(await deliver(peer)) == [("delivered", 250), ("permanent", 550), ("delivered", 250)], cut


REPLIES = st.sampled_from(
    [OK, OK, OK, NO, LATER, b"552 5.5.3 too many", CLOSING, WRONG_ORDER, None, b"junk", b"251-a\r\n251 b"]
)


@settings(max_examples=150, deadline=None)
@given(
    envelope=st.lists(REPLIES, min_size=2, max_size=6),
    data=st.sampled_from([GO, GO, GO, b"354-go\r\n354 on", NO, LATER, WRONG_ORDER, CLOSING, None, b"junk"]),
    dot=st.sampled_from([OK, NO, LATER, CLOSING, b"junk"]),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20),
)
def test_an_outcome_is_the_same_in_one_flight_and_one_by_one(
    envelope: list[bytes | None], data: bytes | None, dot: bytes, sizes: list[int]
) -> None:
    mail = replace(MAIL, recipients=tuple(f"{number}@x.example" for number in range(len(envelope) - 1)))

    async def both() -> tuple[list[Outcome], list[Outcome]]:
        together = Peer([*envelope, data], dot=dot, sizes=sizes)
        alone = Peer([*envelope, data], dot=dot, pipelines=False)
        outcomes = await deliver(together, mail), await deliver(alone, mail)
        # One message where there is one, and none where there is none; a dot for nobody is not one.
        assert [content for content in together.contents if content] == alone.contents
        return outcomes

    together, alone = asyncio.run(both())
    assert together == alone


# -- replies that do not match the commands ---------------------------------------------------------------------------

OUT_OF_STEP: dict[str, list[bytes | None]] = {
    "one too many to MAIL": [OK + b"\r\n" + NO, OK, OK, OK, GO],
    "one too many to MAIL, all refused": [OK + b"\r\n" + NO, NO, NO, NO, WRONG_ORDER],
    "one too many to a recipient": [OK, OK, OK + b"\r\n" + NO, OK, GO],
    "one too many to DATA": [OK, NO, NO, NO, WRONG_ORDER + b"\r\n" + OK],
    "two too many": [OK, OK, OK + b"\r\n" + NO + b"\r\n" + NO, OK, GO],
    "the end of one": [OK, NO, NO, NO, WRONG_ORDER + b"\r\n250"],
    "one too few": [OK, b"", NO, NO, GO],
    "354 to MAIL": [GO, OK, OK, OK, GO],
    "250 to DATA": [OK, NO, OK, OK, OK],
}


# Those that are noticed even when the surplus comes later than the last reply of the flight.
NOTICED_EVEN_LATE = {
    "one too many to MAIL",
    "one too many to MAIL, all refused",
    "one too many to a recipient",
    "one too few",
}


@pytest.mark.parametrize(
    ("replies", "sizes"),
    [
        *(pytest.param(replies, ALL_AT_ONCE, id=f"{name}, together") for name, replies in OUT_OF_STEP.items()),
        *(pytest.param(OUT_OF_STEP[name], (1,), id=f"{name}, byte by byte") for name in sorted(NOTICED_EVEN_LATE)),
    ],
)
async def test_replies_that_do_not_match_the_commands_are_no_verdict_on_anybody(
    replies: list[bytes | None], sizes: Sequence[int]
) -> None:
    peer = Peer(replies, sizes=sizes)
    async with talking(peer) as session:
        outcomes = await session.deliver(MAIL)
        assert [(outcome.kind, outcome.enhanced) for outcome in outcomes] == [("transient", "4.5.0")] * 3
        assert session.pipelining_failed
        assert not session.usable
    assert not peer.contents


async def test_a_reply_that_comes_late_and_unasked_is_found_out_by_the_one_to_rset() -> None:
    peer = Peer([OK, NO, NO, NO, WRONG_ORDER], rset=WRONG_ORDER)
    async with talking(peer) as session:
        assert {outcome.kind for outcome in await session.deliver(MAIL)} == {"transient"}
        assert session.pipelining_failed
        assert not session.usable


async def test_what_is_said_unasked_after_a_message_is_not_taken_for_an_answer_to_the_next() -> None:
    peer = Peer([OK, OK, OK, OK, GO], dot=b"250 2.0.0 taken\r\n550 5.1.1 no such user")
    async with talking(peer) as session:
        for _ in range(3):
            assert kinds(await session.deliver(MAIL)) == [("delivered", 250)] * 3
        assert any("nobody asked for" in line.text for line in session._transcript.lines())


async def test_what_is_said_unasked_after_354_is_not_taken_for_the_answer_to_the_message() -> None:
    peer = Peer([OK, OK, OK, OK, GO + b"\r\n250 2.0.0 taken"], dot=LATER)
    assert kinds(await deliver(peer)) == [("transient", 451)] * 3


async def test_a_flood_in_the_middle_ends_the_session_and_takes_no_memory() -> None:
    peer = Peer([OK, NO, b"250 " + b"x" * 500_000, OK, GO])
    assert kinds(await deliver(peer)) == [("transient", 0)] * 3


async def test_a_connection_that_the_peer_has_closed_meanwhile_is_no_reason_not_to_pipeline() -> None:
    peer = Peer([OK, OK, OK, OK, GO])
    async with talking(peer) as session:
        session._wire._protocol.transport.abort()  # type: ignore[union-attr]
        await asyncio.sleep(0)
        assert kinds(await session.deliver(MAIL)) == [("transient", 0)] * 3
        assert not session.pipelining_failed
        assert not session.usable


# -- what can be seen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "bound", "phase", "said"),
    [
        ([b"", b"", b"", b"", b""], "mail", "MAIL", "no reply to MAIL within"),
        ([OK, OK, b"", b"", b""], "rcpt", "RCPT", "no reply to RCPT within"),
        ([OK, OK, NO, OK, b""], "data", "DATA", "no reply to DATA within"),
        ([OK, OK, OK, OK, GO], "reply", "reply", "no reply to the final dot within"),
    ],
)
async def test_each_awaited_reply_has_its_own_time_out_and_its_phase(
    replies: list[bytes | None], bound: str, phase: str, said: str
) -> None:
    long = Timeouts(mail=60, rcpt=60, data=60, reply=60)
    peer = Peer(replies, dot=b"")
    async with talking(peer, timeouts=replace(long, **{bound: 0.1})) as session:
        first, *_ = await session.deliver(MAIL)
        assert (first.kind, first.phase) == ("transient", phase)
        assert first.text.startswith(said)
        assert first.may_duplicate == (bound == "reply")
        assert session.pipelining_failed == (bound != "reply")
        assert not session.usable


async def test_the_transcript_shows_the_flight_and_then_the_replies_in_order() -> None:
    async with talking(Peer([OK, OK, NO, OK, GO])) as session:
        await session.deliver(MAIL)
        said = [f"{line.side} {line.text}" for line in session._transcript.lines()]
    begin = said.index("> MAIL FROM:<ann@example.com>")
    assert said[begin:] == [
        "> MAIL FROM:<ann@example.com>",
        "> RCPT TO:<a@x.example>",
        "> RCPT TO:<b@x.example>",
        "> RCPT TO:<c@x.example>",
        "> DATA",
        "< 250 2.1.0 ok",
        "< 250 2.1.0 ok",
        "< 550 5.1.1 no",
        "< 250 2.1.0 ok",
        "< 354 go",
        "> (22 bytes of message)",
        "> .",
        "< 250 2.0.0 taken",
    ]


# -- the whole relay --------------------------------------------------------------------------------------------------


class Stammering(Temper):
    """Says PIPELINING, and answers MAIL twice."""

    async def reply(self, session: SandboxSession, verb: str, argument: str) -> str | bytes | Action | None:
        return b"250 ok\r\n550 5.1.1 or not\r\n" if verb == "MAIL" else None


async def test_a_host_that_cannot_pipeline_gets_its_mail_one_command_at_a_time(
    internet: Internet, relay: Relay
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Stammering())])
    await relay.send("bob@example.org")
    await relay.settled()
    assert exchange.messages == 0
    (waiting,) = await relay.entries()
    assert waiting.attempts == 1
    await relay.later(2000)
    assert exchange.messages == 1
    assert not await relay.entries()


async def test_a_host_that_could_not_may_pipeline_again_after_an_hour(clock: FakeClock) -> None:
    pipelining = Stumbles(clock)
    pipelining.note("mx.example.org")
    assert not pipelining.has_none("mx.example.org")
    assert pipelining.has_none("mx.example.net")
    await clock.advance(3600)
    assert pipelining.has_none("mx.example.org")
    for number in range(2000):
        pipelining.note(f"mx{number}.example.org")
    assert len(pipelining._until) == 1000
    assert not pipelining.has_none("mx1999.example.org")


async def test_one_message_to_fifty_of_a_domain_is_one_transaction(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    await relay.send(*(f"u{number}@example.org" for number in range(50)))
    await relay.settled()
    (delivery,) = exchange.delivered
    assert len(delivery.recipients) == 50
