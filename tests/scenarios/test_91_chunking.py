"""91. CHUNKING: a message in chunks comes in as one after DATA does, and goes out so where that is set and offered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.model.outcome import Outcome
from engine.queue.content import BLOCK, Content
from engine.queue.errors import NotHeld, QueueError
from engine.sandbox.certificates import Certificates
from engine.sandbox.exchanges import Action, Exchange, Temper
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Chunking, Disconnecting, Healthy, Notifying, Script
from engine.settings.settings import Route, Timeouts
from engine.smtpclient.dialler import TcpDialler
from engine.smtpclient.mail import Mail
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, relaying
from tests.scenarios.submitting import Talk

CONTENT = b"Subject: hi\r\n\r\n.one\r\n..\r\n.\r\n\xff" + b"x" * 200 + b"\r\n"
MAIL = Mail(sender="ann@example.com", recipients=("bob@example.org", "cy@example.org"), content=CONTENT)
OFFERED: Any = {"chunking": "offered"}
QUICK = Timeouts(greeting=2, hello=2, mail=2, rcpt=2, data=2, block=2, reply=2, quit=1, attempt=5)
SHORT = replace(QUICK, reply=0.2, block=0.2)


class Unpipelined(Chunking):
    extensions = tuple(line for line in Chunking.extensions if line != "PIPELINING")


SILENT = Script({"content": Action.SILENCE}, on=Chunking())


@asynccontextmanager
async def exchange_with(temper: Temper) -> AsyncIterator[Exchange]:
    exchange = Exchange("mx.example.org", temper, clock=SystemClock(), certificates=Certificates())
    await exchange.start()
    try:
        yield exchange
    finally:
        await exchange.stop()


@asynccontextmanager
async def session_with(exchange: Exchange, *, timeouts: Timeouts = QUICK) -> AsyncIterator[Session]:
    session = Session(
        Target(host=exchange.host, address=exchange.address, port=exchange.port),
        hostname="relay.example.net",
        timeouts=timeouts,
        transcript=Transcript(SystemClock()),
        on_phase=lambda phase: None,
        chunking=True,
    )
    await session.open(TcpDialler())
    try:
        yield session
    finally:
        session.close()


async def deliver(temper: Temper, mail: Mail = MAIL, timeouts: Timeouts = QUICK) -> tuple[list[Outcome], bool, bool]:
    """What becomes of a message; whether the session goes on, and whether it counts as one in which BDAT failed."""
    async with exchange_with(temper) as exchange, session_with(exchange, timeouts=timeouts) as session:
        outcomes = await session.deliver(mail)
        return outcomes, session.usable, session.chunking_failed


def verbs(exchange: Exchange) -> list[str]:
    return [line.split(" ")[0].upper() for _, line in exchange.commands]


# -- in -------------------------------------------------------------------------------------------------------------


async def test_a_message_in_chunks_is_delivered_as_it_came(internet: Internet, clock: FakeClock) -> None:
    mx = await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    async with relaying(internet, clock=clock) as relay:
        door = relay.engine.smtp.addresses[0]
        talk = Talk(*await asyncio.open_connection(door.host, door.port))
        await talk.reply()
        assert "CHUNKING" in await talk.ehlo()
        first, rest = b"Subject: x\r\n\r\n.\r\nMAIL FROM:<eve@example.com>\r\n.", b"\r\nQUIT\r\nthe end"
        talk.send(b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\n")
        talk.send(b"BDAT %d\r\n%bBDAT %d LAST\r\n%bNOOP\r\n" % (len(first), first, len(rest), rest))
        assert [(await talk.reply())[:9] for _ in range(5)] == [
            "250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "250 OK",
        ]  # fmt: skip
        await relay.settled()
        talk.writer.close()
    (delivery,) = internet.delivered
    assert delivery.content.endswith(first + rest + b"\r\n")
    assert b"with ESMTP" in delivery.content
    assert mx


async def test_who_goes_before_the_last_chunk_has_sent_nothing(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock) as relay:
        door = relay.engine.smtp.addresses[0]
        for said in (b"BDAT 3\r\nx\r\n", b"BDAT 300 LAST\r\nx\r\n"):
            talk = Talk(*await asyncio.open_connection(door.host, door.port))
            await talk.reply()
            await talk.ehlo()
            talk.send(b"MAIL FROM:<ann@example.com>\r\nRCPT TO:<bob@example.org>\r\n" + said)
            assert (await talk.reply(), await talk.reply()) == ("250 2.1.0 Ok", "250 2.1.5 Ok")
            talk.writer.close()
        await relay.settled()
        assert not await relay.entries()


# -- out: when ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temper", "setting", "sent"),
    [
        (Chunking(), {}, "DATA"),
        (Chunking(), {"chunking": "never"}, "DATA"),
        (Chunking(), OFFERED, "BDAT"),
        (Healthy(), OFFERED, "DATA"),
        (Notifying(), OFFERED, "DATA"),
    ],
)
async def test_bdat_is_sent_where_it_is_set_and_offered(
    internet: Internet, clock: FakeClock, temper: Temper, setting: dict[str, Any], sent: str
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", temper)])
    async with relaying(internet, clock=clock, **setting) as relay:
        await relay.send("bob@example.org", times=3)
        await relay.settled()
    said = verbs(internet.exchanges["mx.example.org"])
    assert said.count(sent) == 3
    assert not {"DATA", "BDAT"} - {sent} & {*said}
    assert [delivery.content.endswith(LETTER) for delivery in internet.delivered] == [True] * 3


@pytest.mark.parametrize(
    ("of_all", "of_route", "sent"),
    [("never", "offered", "BDAT"), ("offered", "never", "DATA"), ("offered", None, "BDAT")],
)
async def test_a_route_has_its_own(internet: Internet, clock: FakeClock, of_all: Any, of_route: Any, sent: str) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Chunking())])
    exchange = internet.exchanges["mx.example.org"]
    route = Route(domain="example.org", host="mx.example.org", port=exchange.port, chunking=of_route)
    async with relaying(internet, clock=clock, route=(route,), chunking=of_all) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
    assert sent in verbs(exchange)
    assert len(internet.delivered) == 1


# -- out: what is sent ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temper", [Chunking, Unpipelined])
@pytest.mark.parametrize("content", [CONTENT, b"\r\n", b"", b"x" * 70_000 + b"\r\n", b".\r\n" * 100_000])
async def test_what_goes_in_a_chunk_is_what_it_was(temper: type[Temper], content: bytes) -> None:
    async with exchange_with(temper()) as exchange, session_with(exchange) as session:
        for _ in range(2):
            outcomes = await session.deliver(replace(MAIL, content=content))
            assert [outcome.kind for outcome in outcomes] == ["delivered"] * 2
            assert (session.usable, session.chunking_failed) == (True, False)
        assert [delivery.content for delivery in exchange.delivered] == [content] * 2
        assert f"BDAT {len(content)} LAST" in [line for _, line in exchange.commands]


def in_blocks(content: bytes, size: int, fault: Exception | None = None) -> Content:
    """A content that is read block by block, of so many bytes, or so it says."""
    blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    rest = iter(blocks[1:])

    async def more() -> bytes:
        if fault is not None:
            raise fault
        return next(rest, b"x" * 10)

    return Content(size, blocks[0], more)


async def test_a_large_content_is_sent_as_it_is_read() -> None:
    large = bytes(range(256)) * (5 * BLOCK // 512)
    async with exchange_with(Chunking()) as exchange, session_with(exchange) as session:
        outcomes = await session.deliver(replace(MAIL, content=in_blocks(large, len(large))))
        assert [outcome.kind for outcome in outcomes] == ["delivered"] * 2
        assert exchange.delivered[0].content == large


async def test_a_content_that_is_found_damaged_is_not_made_whole() -> None:
    large = b"x" * (2 * BLOCK)
    async with exchange_with(Chunking()) as exchange, session_with(exchange) as session:
        with pytest.raises(QueueError):
            await session.deliver(replace(MAIL, content=in_blocks(large, 2 * BLOCK, QueueError("damaged"))))
        assert (session.usable, session.dotted) == (False, False)
        assert not exchange.delivered


async def test_nothing_beyond_the_announced_length_is_sent() -> None:
    large = b"x" * (2 * BLOCK)
    async with exchange_with(Chunking()) as exchange, session_with(exchange) as session:
        outcomes = await session.deliver(replace(MAIL, content=in_blocks(large, BLOCK + 5)))
        assert [(outcome.kind, outcome.may_duplicate) for outcome in outcomes] == [("transient", False)] * 2
        assert not session.usable
        assert (len(exchange.delivered), set(verbs(exchange)) - {"EHLO", "MAIL", "RCPT", "BDAT"}) == (0, set())


async def test_the_end_of_a_chunk_is_not_sent_where_the_mail_is_no_longer_ours() -> None:
    def ended() -> None:
        raise NotHeld("the lease has ended")

    async with exchange_with(Chunking()) as exchange:
        for content in (b"", b"x", CONTENT):
            async with session_with(exchange) as session:
                with pytest.raises(NotHeld):
                    await session.deliver(replace(MAIL, content=content, before_its_end=ended))
                assert (session.usable, session.dotted) == (False, False)
        async with session_with(exchange) as session:  # who has come after these have gone
            assert (await session.deliver(MAIL))[0].kind == "delivered"
        assert exchange.messages == 1


async def test_the_transcript_tells_it() -> None:
    async with exchange_with(Chunking()) as exchange, session_with(exchange) as session:
        await session.deliver(MAIL)
        lines = [f"{line.side} {line.text}" for line in session._transcript.lines()]
    at = lines.index(f"> BDAT {len(CONTENT)} LAST")
    assert lines[at + 1 :] == [
        f"> ({len(CONTENT)} bytes of message)", "> (the last byte of the chunk)", "< 250 2.0.0 taken as 1-1",
    ]  # fmt: skip


# -- out: what is said to it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temper", [Chunking, Unpipelined])
@pytest.mark.parametrize(
    ("said", "kind", "code", "goes_on"),
    [
        ("250 2.0.0 ok", "delivered", 250, True),
        ("451 4.3.0 later", "transient", 451, True),
        ("421 4.3.2 closing", "transient", 421, False),
        ("552 5.3.4 too big", "permanent", 552, True),
        ("554 5.7.1 never", "permanent", 554, True),
    ],
)
async def test_what_is_said_to_the_chunk_is_said_of_the_message(
    temper: type[Temper], said: str, kind: str, code: int, goes_on: bool
) -> None:
    outcomes, usable, failed = await deliver(Script({"content": said}, on=temper()))
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [(kind, code)] * 2
    assert (usable, failed) == (goes_on, False)
    assert {outcome.may_duplicate for outcome in outcomes} == {False}


@pytest.mark.parametrize("said", ["500 5.5.2 what", "501 5.5.4 no", "502 5.5.1 no", "503 5.5.1 no", "504 no", "354 go"])
@pytest.mark.parametrize("at", ["BDAT", "content"])
async def test_a_bdat_that_is_not_understood_is_no_verdict_on_the_mail(said: str, at: str) -> None:
    outcomes, usable, failed = await deliver(Script({at: said}, on=Chunking()))
    assert {(outcome.kind, outcome.may_duplicate) for outcome in outcomes} == {("transient", False)}
    assert (usable, failed) == (False, True)


@pytest.mark.parametrize("content", [CONTENT, b"x\r\n" * 2_000_000], ids=["small", "large"])
@pytest.mark.parametrize("said", [Action.DROP, "250 2.0.0 taken", "502 5.5.1 no", "554 5.7.1 no", b"nonsense\r\n"])
async def test_what_is_said_before_the_end_delivers_nothing(content: bytes, said: str | bytes | Action) -> None:
    """The peer says it, and reads no chunk: what it takes for commands then is none of ours."""

    class Hasty(Chunking):
        async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
            if verb != "BDAT":
                return await super().reply(session, verb, argument)
            if isinstance(said, Action):
                return said
            await session.send(said if isinstance(said, bytes) else f"{said}\r\n".encode())
            return Action.SILENCE  # it reads no more, and does not end the connection before what it said is heard

    outcomes, usable, failed = await deliver(Hasty(), replace(MAIL, content=content))
    kinds = {outcome.kind for outcome in outcomes}
    if said == "554 5.7.1 no":
        assert kinds == {"permanent"}
    elif said == "250 2.0.0 taken" and content is CONTENT:
        assert kinds <= {"transient", "delivered"}  # it can come just after the end, and is the peer's word then
    else:
        assert kinds == {"transient"}
    assert not usable or "delivered" in kinds
    assert failed == (kinds == {"transient"})


@pytest.mark.parametrize(
    "temper", [Script({"content": Action.SILENCE}, on=Chunking()), Script({"content": Action.DROP}, on=Chunking())]
)
async def test_what_is_lost_after_the_end_of_the_chunk_may_duplicate(temper: Temper) -> None:
    outcomes, usable, failed = await deliver(temper, timeouts=SHORT)
    assert {(outcome.kind, outcome.may_duplicate, outcome.phase) for outcome in outcomes} == {
        ("transient", True, "reply")
    }
    assert (usable, failed) == (False, True)


async def test_a_peer_that_goes_in_the_middle_of_a_chunk_has_no_message() -> None:
    class Leaving(Chunking):
        async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
            return Action.DROP if verb == "BDAT" else await super().reply(session, verb, argument)

    outcomes, usable, failed = await deliver(Leaving(), replace(MAIL, content=b"x\r\n" * 5_000_000))
    assert {(outcome.kind, outcome.may_duplicate, outcome.phase) for outcome in outcomes} == {
        ("transient", False, "body")
    }
    assert (usable, failed) == (False, True)


async def test_one_reply_too_many_is_not_taken_for_the_word_on_the_message() -> None:
    twice = Script({"RCPT": b"250 2.1.5 ok\r\n250 2.1.5 ok\r\n"}, on=Chunking())
    outcomes, usable, failed = await deliver(twice)
    assert {outcome.kind for outcome in outcomes} == {"transient"}
    assert (usable, failed) == (False, True)


async def test_a_recipient_that_is_refused_has_its_own_outcome() -> None:
    outcomes, usable, _ = await deliver(Script({"RCPT": ["550 5.1.1 no", "250 ok"]}, on=Chunking()))
    assert [(outcome.kind, outcome.code) for outcome in outcomes] == [("permanent", 550), ("delivered", 250)]
    assert usable
    outcomes, usable, failed = await deliver(Script({"RCPT": "550 5.1.1 no"}, on=Chunking()))
    assert [outcome.code for outcome in outcomes] == [550, 550]
    assert (usable, failed) == (True, False)


async def test_after_a_chunk_that_was_refused_the_next_message_goes_over_the_same_connection() -> None:
    temper = Script({"content": ["554 5.7.1 no", "250 ok"]}, on=Chunking())
    async with exchange_with(temper) as exchange, session_with(exchange) as session:
        assert {outcome.code for outcome in await session.deliver(MAIL)} == {554}
        assert {outcome.code for outcome in await session.deliver(MAIL)} == {250}
        assert verbs(exchange) == ["EHLO", "MAIL", "RCPT", "RCPT", "BDAT", "RSET", "MAIL", "RCPT", "RCPT", "BDAT"]


async def test_who_is_called_away_finds_the_reply_that_had_come() -> None:
    async with exchange_with(SILENT) as exchange, session_with(exchange) as session:
        sending = asyncio.create_task(session.deliver(MAIL))
        while not session.dotted:
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert (session.dotted, session.in_hand, session.ending) == (True, None, "the end of the chunk")


# -- out: the mail gets there -----------------------------------------------------------------------------------------


def leaving_at_bdat() -> Temper:
    temper = Disconnecting("BDAT")
    temper.extensions = Chunking.extensions
    return temper


@pytest.mark.parametrize(
    ("broken", "may_duplicate"),
    [
        (Script({"BDAT": "502 5.5.1 what is that"}, on=Chunking()), False),
        (Script({"content": ["503 5.5.1 no such thing", None]}, on=Chunking()), False),
        (leaving_at_bdat(), True),  # all of it had been sent by then
    ],
)
async def test_a_host_that_offers_it_and_cannot_has_the_message_with_data(
    internet: Internet, clock: FakeClock, broken: Temper, may_duplicate: bool
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", broken)])
    async with relaying(internet, clock=clock, **OFFERED) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert (entry.last.kind, entry.last.may_duplicate) == ("transient", may_duplicate)
        await relay.later(400)
        assert len(internet.delivered) == 1
        said = verbs(internet.exchanges["mx.example.org"])
        assert (said.count("BDAT"), said.count("DATA")) == (1, 1)
        assert not await relay.entries()


async def test_a_message_that_may_have_been_taken_says_so(internet: Internet, clock: FakeClock) -> None:
    temper = Disconnecting("content", delivers=True)
    temper.extensions = Chunking.extensions
    await internet.add("example.org", mx=[(10, "mx.example.org", temper)])
    async with relaying(internet, clock=clock, **OFFERED) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert entry.last.may_duplicate
        assert "BDAT" in verbs(internet.exchanges["mx.example.org"])
