"""Every kind of reply at every command: what it comes to for the mail (promises 15, 17 to 19, 21).

Each test runs twice, against a peer that offers PIPELINING and against one that does not: the outcomes are the same.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.login.login import Password
from engine.model.outcome import Outcome
from engine.sandbox.certificates import Certificate, Certificates
from engine.sandbox.exchanges import Action, Exchange, Temper
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.tempers import Authenticating, BlackHole, Encrypted, Healthy, HelloOnly, Script
from engine.settings.kinds import Tls
from engine.settings.settings import Timeouts
from engine.smtpclient.dialler import TcpDialler
from engine.smtpclient.failures import SessionError, TlsBroken
from engine.smtpclient.mail import Mail
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import _Protocol
from engine.tls.demand import TlsDemand

QUICK = Timeouts(
    connect=2, greeting=0.5, hello=0.5, tls=1, mail=0.5, rcpt=0.5, data=0.5, block=0.5, reply=0.5, quit=0.5, attempt=5
)
MAIL = Mail(sender="ann@example.com", recipients=("bob@example.org",), content=b"Subject: hi\r\n\r\nbody\r\n")

# The time-out that bounds the wait for the reply to each command, and one that is soon over.
BOUND = {
    "connect": "greeting", "EHLO": "hello", "HELO": "hello", "STARTTLS": "tls", "AUTH": "hello", "MAIL": "mail",
    "RCPT": "rcpt", "DATA": "data", "content": "reply", "RSET": "mail", "QUIT": "quit",
}  # fmt: skip
SOON = 0.1

Serve = Callable[[Temper], Awaitable[Exchange]]


@pytest.fixture(params=["in one flight", "one by one"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    running: list[Exchange] = []
    certificates = Certificates()

    async def start(temper: Temper) -> Exchange:
        if request.param == "one by one":
            temper.extensions = tuple(line for line in temper.extensions if line != "PIPELINING")
        exchange = Exchange("mx.example.org", temper, clock=SystemClock(), certificates=certificates)
        await exchange.start()
        running.append(exchange)
        return exchange

    yield start
    for exchange in running:
        await exchange.stop()


def quick(silent: str = "") -> Timeouts:
    """Time-outs for tests; the one for the command that is met with silence is over at once."""
    return replace(QUICK, **{BOUND[silent]: SOON}) if silent else QUICK


def session_with(
    exchange: Exchange,
    tls: Tls = "opportunistic",
    timeouts: Timeouts = QUICK,
    ca_file: Path | None = None,
    **target: Any,
) -> Session:
    demand = TlsDemand(level=tls, ca_file=ca_file)
    return Session(
        Target(host=exchange.host, address=exchange.address, port=exchange.port, demand=demand, **target),
        hostname="relay.example.net",
        timeouts=timeouts,
        transcript=Transcript(SystemClock()),
        on_phase=lambda phase: None,
    )


def session_at(server: asyncio.Server) -> Session:
    """A session with a peer that is no exchange of the sandbox."""
    return Session(
        Target(host="mx", address="127.0.0.1", port=server.sockets[0].getsockname()[1]),
        hostname="relay",
        timeouts=QUICK,
        transcript=Transcript(SystemClock()),
        on_phase=lambda phase: None,
    )


async def outcome_of(exchange: Exchange, mail: Mail = MAIL, timeouts: Timeouts = QUICK) -> Outcome:
    session = session_with(exchange, timeouts=timeouts)
    await session.open(TcpDialler())
    try:
        (outcome,) = await session.deliver(mail)
    finally:
        session.close()
    return outcome


AT = ("MAIL", "RCPT", "DATA", "content")

TABLE: list[tuple[str | bytes | Action, str, int, str]] = [
    ("450 4.2.1 later", "transient", 450, "4.2.1"),
    ("421 4.3.2 closing", "transient", 421, "4.3.2"),
    ("550 5.7.1 never", "permanent", 550, "5.7.1"),
    ("554 no", "permanent", 554, ""),
    ("550 first\n550 second", "permanent", 550, ""),
    (b"550-5.1.1 no\r\n250 5.1.1 yes\r\n", "transient", 0, ""),  # a reply of two minds
    (b"2_2 what\r\n", "transient", 0, ""),
    (b"999 what\r\n", "transient", 0, ""),
    (b"+25 what\r\n", "transient", 0, ""),
    (b"hello\r\n", "transient", 0, ""),
    (b"550 \x1b]0;x\x07\xff\r\n", "permanent", 550, ""),
    (b"250-and on\r\n" * 5000, "transient", 0, ""),  # never ends
    (b"250 " + b"x" * 100_000 + b"\r\n", "transient", 0, ""),
    (Action.DROP, "transient", 0, ""),
    (Action.SILENCE, "transient", 0, ""),
]


@pytest.mark.parametrize("verb", AT)
@pytest.mark.parametrize(("said", "kind", "code", "enhanced"), TABLE, ids=lambda value: repr(value)[:24])
async def test_a_reply_is_judged_by_its_code_alone(
    serve: Serve, verb: str, said: str | bytes | Action, kind: str, code: int, enhanced: str
) -> None:
    outcome = await outcome_of(
        await serve(Script({verb: said})), timeouts=quick(verb if said is Action.SILENCE else "")
    )
    assert (outcome.kind, outcome.code) == (kind, code)
    assert outcome.enhanced == (enhanced or outcome.enhanced)
    assert outcome.text.isprintable()
    assert outcome.host == "mx.example.org"


@pytest.mark.parametrize("verb", AT)
async def test_only_a_loss_after_the_final_dot_may_duplicate(serve: Serve, verb: str) -> None:
    outcome = await outcome_of(await serve(Script({verb: Action.DROP})))
    assert outcome.may_duplicate == (verb == "content")


async def test_a_2xx_after_the_final_dot_is_delivered(serve: Serve) -> None:
    exchange = await serve(Healthy())
    outcome = await outcome_of(exchange)
    assert (outcome.kind, outcome.code) == ("delivered", 250)
    assert exchange.delivered[0].content == MAIL.content


WAYS_OF_SAYING: list[str | bytes | Action] = [said for said, *_ in TABLE]
REFUSALS = [said for said, kind, *_ in TABLE if kind == "permanent"]
GOING_ON = [*REFUSALS, "450 4.2.1 later", "250 hm", "354 hm"]  # after any of these to STARTTLS


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        *(("connect", said) for said in [*WAYS_OF_SAYING, "250 hm", "354 hm"]),
        # 5xx to EHLO is no refusal: it says that only HELO is known (RFC 5321 3.2).
        *(("EHLO", said) for said in [*WAYS_OF_SAYING, "220 hm", "354 hm"] if said not in REFUSALS),
        *(("HELO", said) for said in [*WAYS_OF_SAYING, "220 hm", "354 hm"]),
        *(("AUTH", said) for said in [*WAYS_OF_SAYING, "250 hm", "334 hm"]),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_a_host_that_will_not_talk_is_no_verdict_on_the_mail(
    serve: Serve, trusted: Callable[[Exchange], Path], verb: str, said: str | bytes | Action
) -> None:
    behind: dict[str, Temper] = {"HELO": HelloOnly(), "AUTH": Authenticating({"relay": "s3cret"}, certificate="good")}
    exchange = await serve(Script({verb: said}, on=behind.get(verb)))
    login: dict[str, Any] = (
        {"login": Password("relay", "s3cret"), "ca_file": trusted(exchange)} if verb == "AUTH" else {}
    )
    session = session_with(
        exchange, timeouts=quick(verb if said is Action.SILENCE else ""), **(login if verb == "AUTH" else {})
    )
    with pytest.raises(SessionError) as refused:
        await session.open(TcpDialler())
    assert refused.value.outcome.kind == "transient"
    assert refused.value.outcome.text.isprintable()
    assert not session.usable


@pytest.mark.parametrize("said", [*WAYS_OF_SAYING, "250 hm", "354 hm"], ids=lambda value: repr(value)[:24])
async def test_whatever_is_said_to_starttls_the_mail_goes_in_the_clear_or_waits(
    serve: Serve, said: str | bytes | Action
) -> None:
    exchange = await serve(Script({"STARTTLS": said}, on=Encrypted()))
    session = session_with(exchange, timeouts=quick("STARTTLS" if said is Action.SILENCE else ""))
    if said in GOING_ON:
        await session.open(TcpDialler())
        assert not session.tls
        assert (await session.deliver(MAIL))[0].kind == "delivered"
        session.close()
        return
    with pytest.raises(SessionError) as refused:
        await session.open(TcpDialler())
    assert refused.value.outcome.kind == "transient"
    assert not session.usable


@pytest.mark.parametrize("said", [*WAYS_OF_SAYING, "220 hm", "354 hm"], ids=lambda value: repr(value)[:24])
async def test_whatever_is_said_to_rset_no_more_is_sent_and_what_was_said_before_stands(
    serve: Serve, said: str | bytes | Action
) -> None:
    exchange = await serve(Script({"RCPT": "550 5.1.1 unknown", "RSET": said}))
    session = session_with(exchange, timeouts=quick("RSET" if said is Action.SILENCE else ""))
    await session.open(TcpDialler())
    (outcome,) = await session.deliver(MAIL)
    if session.pipelining_failed:
        # RSET cannot be refused: this reply may be the one to DATA, and the one to RCPT that to MAIL. Nobody is to
        # lose mail by that: it is tried again, one command at a time.
        assert outcome.kind == "transient"
    else:
        assert (outcome.kind, outcome.code) == ("permanent", 550)
    assert not session.usable


@pytest.mark.parametrize("said", [*WAYS_OF_SAYING, "250 hm", "354 hm"], ids=lambda value: repr(value)[:24])
async def test_whatever_is_said_to_quit_the_mail_has_been_delivered(serve: Serve, said: str | bytes | Action) -> None:
    exchange = await serve(Script({"QUIT": said}))
    session = session_with(exchange, timeouts=quick("QUIT" if said is Action.SILENCE else ""))
    await session.open(TcpDialler())
    (outcome,) = await session.deliver(MAIL)
    await session.quit()
    assert outcome.kind == "delivered"
    assert not session.usable


async def test_a_host_that_never_greets_counts_as_unreachable(serve: Serve) -> None:
    session = session_with(await serve(BlackHole()))
    with pytest.raises(SessionError) as refused:
        await session.open(TcpDialler())
    assert refused.value.unreachable


async def test_a_host_that_knows_only_helo_gets_helo(serve: Serve) -> None:
    exchange = await serve(HelloOnly())
    assert (await outcome_of(exchange)).kind == "delivered"
    assert exchange.delivered[0].hello == "relay.example.net"


async def test_each_recipient_has_an_outcome_of_its_own(serve: Serve) -> None:
    exchange = await serve(Script({"RCPT": [None, "550 5.1.1 unknown", "451 later", None]}))
    session = session_with(exchange)
    await session.open(TcpDialler())
    many = replace(MAIL, recipients=("a@x.example", "b@x.example", "c@x.example", "d@x.example"))
    outcomes = await session.deliver(many)
    session.close()
    assert [outcome.kind for outcome in outcomes] == ["delivered", "permanent", "transient", "delivered"]
    assert exchange.delivered[0].recipients == ("a@x.example", "d@x.example")


class Choosy(Temper):
    """Knows nobody called nobody, and is not ready for those who write from later@."""

    async def reply(self, session: Peer, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "RCPT" and "nobody@" in argument:
            return "550 5.1.1 unknown"
        return "451 later" if verb == "DATA" and session.sender == "later@example.com" else None


async def test_after_a_refusal_the_next_message_goes_over_the_same_connection(serve: Serve) -> None:
    exchange = await serve(Choosy())
    session = session_with(exchange)
    await session.open(TcpDialler())
    mails = (replace(MAIL, recipients=("nobody@example.org",)), replace(MAIL, sender="later@example.com"), MAIL)
    kinds = [(await session.deliver(mail))[0].kind for mail in mails]
    await session.quit()
    assert kinds == ["permanent", "transient", "delivered"]
    assert exchange.sessions == 1
    assert exchange.messages == 1


async def test_421_ends_the_session_whatever_was_asked(serve: Serve) -> None:
    for verb in AT:
        session = session_with(await serve(Script({verb: b"421 closing\r\n"})))
        await session.open(TcpDialler())
        (outcome,) = await session.deliver(MAIL)
        assert outcome.kind == "transient"
        assert not session.usable


async def test_lines_that_begin_with_a_dot_arrive_as_they_were(serve: Serve) -> None:
    exchange = await serve(Healthy())
    content = b".\r\n..\r\n.hidden\r\n\r\n.\r\nend\r\n"
    assert (await outcome_of(exchange, replace(MAIL, content=content))).kind == "delivered"
    assert exchange.delivered[0].content == content


async def test_a_message_over_the_announced_size_is_not_sent(serve: Serve) -> None:
    exchange = await serve(Script({"EHLO": "250 mx\n250 SIZE 10"}))
    outcome = await outcome_of(exchange)
    assert (outcome.kind, outcome.enhanced) == ("permanent", "5.3.4")
    assert not any(line.startswith("MAIL") for _, line in exchange.commands)


async def test_a_message_that_needs_smtputf8_is_refused_where_the_peer_has_none(serve: Serve) -> None:
    exchange = await serve(Script({"EHLO": "250 mx\n250 8BITMIME"}))
    outcome = await outcome_of(exchange, replace(MAIL, recipients=("jörg@example.org",), smtputf8=True))
    assert (outcome.kind, outcome.enhanced) == ("permanent", "5.6.7")


async def test_what_the_peer_offers_is_used(serve: Serve) -> None:
    exchange = await serve(Healthy())
    mail = replace(MAIL, recipients=("jörg@example.org",), smtputf8=True, eight_bit=True)
    assert (await outcome_of(exchange, mail)).kind == "delivered"
    assert exchange.delivered[0].parameters == f"SIZE={MAIL.size} BODY=8BITMIME SMTPUTF8"


@pytest.mark.parametrize("certificate", ["good", "self-signed", "wrong name"])
async def test_opportunistic_tls_takes_any_certificate(serve: Serve, certificate: str) -> None:
    exchange = await serve(Encrypted(certificate))  # type: ignore[arg-type]
    session = session_with(exchange)
    await session.open(TcpDialler())
    await session.deliver(MAIL)
    await session.quit()
    assert exchange.delivered[0].tls
    assert session.tls.startswith("TLSv1.")


async def test_a_broken_handshake_is_told_apart_so_that_it_can_be_done_without(serve: Serve) -> None:
    session = session_with(await serve(Encrypted("broken")))
    with pytest.raises(TlsBroken):
        await session.open(TcpDialler())


async def test_without_tls_nothing_is_sent_where_tls_is_required(serve: Serve) -> None:
    exchange = await serve(Healthy())
    session = session_with(exchange, tls="required")
    with pytest.raises(SessionError, match="TLS is required") as refused:
        await session.open(TcpDialler())
    assert refused.value.outcome.kind == "transient"
    assert not any(line.startswith("MAIL") for _, line in exchange.commands)


async def test_what_is_injected_before_the_handshake_is_thrown_away(serve: Serve) -> None:
    injected = b"220 go ahead\r\n250 injected.example\r\n250 AUTH PLAIN\r\n"
    session = session_with(await serve(Script({"STARTTLS": injected}, on=Encrypted())))
    try:
        await session.open(TcpDialler())
    except SessionError:
        return  # refusing to go on is as good
    assert session.tls
    session.close()


@pytest.fixture
def trusted(tmp_path: Path) -> Callable[[Exchange], Path]:
    """Write down the authority that the exchange's good certificate is from."""

    def authority(exchange: Exchange) -> Path:
        path = tmp_path / "authority.pem"
        path.write_bytes(exchange.certificates.authority_pem)
        return path

    return authority


async def test_a_password_is_given_under_tls_and_kept_out_of_the_transcript(
    serve: Serve, trusted: Callable[[Exchange], Path]
) -> None:
    exchange = await serve(Authenticating({"relay": "s3cret"}, certificate="good"))
    session = session_with(exchange, tls="required", login=Password("relay", "s3cret"), ca_file=trusted(exchange))
    await session.open(TcpDialler())
    assert (await session.deliver(MAIL))[0].kind == "delivered"
    await session.quit()
    assert exchange.delivered[0].login == "relay"
    said = "\n".join(line.text for line in session._transcript.lines())
    assert "AUTH PLAIN ********" in said
    assert "s3cret" not in said
    assert "AHJlbGF5AHMzY3JldA==" not in said


@pytest.mark.parametrize("certificate", ["self-signed", "wrong name"])
async def test_a_password_is_given_to_nobody_whose_certificate_is_wrong(
    serve: Serve, trusted: Callable[[Exchange], Path], certificate: Certificate
) -> None:
    exchange = await serve(Authenticating({"relay": "s3cret"}, certificate=certificate))
    session = session_with(exchange, tls="required", login=Password("relay", "s3cret"), ca_file=trusted(exchange))
    with pytest.raises(SessionError, match="certificate") as refused:
        await session.open(TcpDialler())
    assert refused.value.outcome.kind == "transient"
    assert not any("AUTH" in line for _, line in exchange.commands)


async def test_a_wrong_password_keeps_the_mail(serve: Serve, trusted: Callable[[Exchange], Path]) -> None:
    exchange = await serve(Authenticating({"relay": "right"}, certificate="good"))
    session = session_with(exchange, tls="required", login=Password("relay", "wrong"), ca_file=trusted(exchange))
    with pytest.raises(SessionError) as refused:
        await session.open(TcpDialler())
    assert (refused.value.outcome.kind, refused.value.outcome.code) == ("transient", 535)


async def test_a_password_is_never_sent_in_the_clear(serve: Serve) -> None:
    exchange = await serve(Authenticating({"relay": "s3cret"}))
    session = session_with(exchange, login=Password("relay", "s3cret"))
    with pytest.raises(SessionError):
        await session.open(TcpDialler())
    assert not any("AUTH" in line for _, line in exchange.commands)


async def test_a_peer_that_does_not_read_the_message_is_left() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"220 mx", b"250 mx", b"250 ok", b"250 ok", b"354 go"):
            writer.write(reply + b"\r\n")
            if reply != b"354 go":
                await reader.readline()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await left.wait()
        writer.transport.abort()

    left = asyncio.Event()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1024)
    session = session_at(server)
    await session.open(TcpDialler())
    (outcome,) = await session.deliver(replace(MAIL, content=b"x" * 98 * 300_000 + b"\r\n"))
    assert (outcome.kind, outcome.phase, outcome.may_duplicate) == ("transient", "body", False)
    assert not session.usable
    left.set()
    server.close()
    await server.wait_closed()


async def test_the_transcript_tells_what_was_said(serve: Serve) -> None:
    session = session_with(await serve(Script({"RCPT": "550 5.1.1 \x1b[2J unknown"})))
    await session.open(TcpDialler())
    await session.deliver(MAIL)
    await session.quit()
    said = [f"{line.side} {line.text}" for line in session._transcript.lines()]
    assert said[1] == "< 220 mx.example.org ESMTP"
    assert "> MAIL FROM:<ann@example.com> SIZE=21" in said
    assert "< 550 5.1.1 \\x1b[2J unknown" in said
    assert "> QUIT" in said


async def test_552_at_rcpt_means_too_many_recipients_and_is_tried_again(serve: Serve) -> None:
    outcome = await outcome_of(await serve(Script({"RCPT": "552 5.5.3 too many recipients"})))
    assert (outcome.kind, outcome.code) == ("transient", 552)


@pytest.mark.parametrize("size", ["²", "9" * 5000, "-5", "", "0", "1e3"])
async def test_a_strange_size_is_no_limit(serve: Serve, size: str) -> None:
    exchange = await serve(Script({"EHLO": f"250-mx\r\n250 SIZE {size}\r\n".encode()[:8000]}))
    assert (await outcome_of(exchange)).kind == "delivered"


async def test_an_enhanced_code_has_ascii_digits(serve: Serve) -> None:
    outcome = await outcome_of(await serve(Script({"RCPT": "550 5.\N{ARABIC-INDIC DIGIT THREE}.1 no"})))
    assert (outcome.kind, outcome.enhanced) == ("permanent", "")


@pytest.mark.parametrize("verb", ["connect", "EHLO", "MAIL", "RCPT", "DATA"])
async def test_what_a_peer_says_unasked_is_not_taken_for_the_next_answer(serve: Serve, verb: str) -> None:
    said = {"connect": b"220 hi", "EHLO": b"250-mx\r\n250 PIPELINING", "DATA": b"354 go"}.get(verb, b"250 ok")
    temper = Script({verb: said + b"\r\n550 5.1.1 not you\r\n"})
    session = session_with(await serve(temper))
    await session.open(TcpDialler())
    (outcome,) = await session.deliver(MAIL)
    if verb in ("MAIL", "RCPT") and "PIPELINING" in temper.extensions:
        # In a flight it cannot be told from an answer; but that something is wrong can be, and that is no verdict.
        assert (outcome.kind, outcome.enhanced, session.pipelining_failed) == ("transient", "4.5.0", True)
    else:
        assert outcome.kind == "delivered"
    session.close()


async def test_a_250_before_the_final_dot_delivers_nothing() -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for reply in (b"220 mx", b"250 mx", b"250 ok", b"250 ok", b"354 go"):
            writer.write(reply + b"\r\n")
            if reply != b"354 go":
                await reader.readline()
        await reader.read(100_000)
        writer.write(b"250 that will do\r\n")
        with suppress(ConnectionError):
            while await reader.read(1_000_000):
                pass
        writer.transport.abort()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(hasty, "127.0.0.1", 0)
    session = session_at(server)
    await session.open(TcpDialler())
    (outcome,) = await session.deliver(replace(MAIL, content=(b"x" * 98 + b"\r\n") * 300_000))
    assert (outcome.kind, outcome.phase, outcome.may_duplicate) == ("transient", "body", False)
    assert "unexpected reply" in outcome.text
    assert not session.usable
    await gone.wait()
    server.close()
    await server.wait_closed()


async def test_a_reply_in_thousands_of_pieces_is_read_in_no_time() -> None:
    wire = _Protocol(asyncio.get_running_loop(), Transcript(SystemClock()))
    wire._response_waiter, wire._response_pending = asyncio.get_running_loop().create_future(), True
    begin = time.process_time()
    for _ in range(120):
        for piece in (b"250-", b"x" * 200, b"\r\n"):
            wire.data_received(piece)
    wire.data_received(b"250 done\r\n")
    assert wire._response_waiter.result().code == 250
    assert time.process_time() - begin < 1
