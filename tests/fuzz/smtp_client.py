"""The SMTP client's replies: whatever a host says, early, late or half, the mail has an outcome of the contract."""

import asyncio
import contextlib
import re
import time
from typing import Literal, get_args

from hypothesis import strategies as st
from msgspec import Struct

from engine.base.clock import SystemClock
from engine.base.text import clean
from engine.model.outcome import Kind, Outcome
from engine.model.transcript import Line
from engine.settings.settings import Timeouts
from engine.smtpclient.dialler import TcpDialler
from engine.smtpclient.failures import SessionError
from engine.smtpclient.mail import Mail
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from tests.fuzz.fuzzing import Fault, Fuzzer

STEP = 0.08  # seconds each phase may take
BOUND = 20.0  # seconds within which all of it is over: two dozen phases, on a machine with much else to do
MOST_LINES = 300  # of a transcript
CONTENT = b"Subject: hi\r\n\r\n.dotted\r\nbody\r\n"
MAILS = (
    Mail(sender="ann@example.com", recipients=("bob@example.org",), content=CONTENT),
    Mail(sender="", recipients=("bob@example.org", "cy@example.org", "dee@example.org"), content=CONTENT * 50),
    Mail(sender="jürgen@example.com", recipients=("ü@example.org",), content=CONTENT, smtputf8=True, eight_bit=True),
)

_CHUNK = re.compile(rb"BDAT ([0-9]+)")
Doing = Literal["say", "read", "read dot", "read chunk", "wait", "close", "reset"]
_SAID = (
    b"220 mx.example.org\r\n", b"250 ok\r\n", b"250-mx\r\n250-PIPELINING\r\n250-SIZE 100000\r\n250 SMTPUTF8\r\n",
    b"250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n", b"250-mx\r\n250 CHUNKING\r\n",
    b"250-mx\r\n250-STARTTLS\r\n250-DSN\r\n250 8BITMIME\r\n", b"250-mx\r\n250 SIZE 1\r\n", b"354 go on\r\n",
    b"354-a\r\n354 b\r\n", b"421 4.3.2 closing\r\n", b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n",
    b"552 5.5.3 too many\r\n", b"250-half", b"25", b"2", b"250\r\n", b"250 \xff\x00\x1b]0;x\x07\r\n", b"2_2 x\r\n",
    b"999 x\r\n", b"550-a\r\n250 b\r\n", b"100 x\r\n", b"\r\n", b"\n", b"250 ok\n", b"250 ok\r", b"250-x\r\n" * 200,
    b"250 " + b"x" * 9000 + b"\r\n", b"x" * 70_000, b"334 dXNlcg==\r\n", b"220 go ahead\r\n\x16\x03\x01",
    b"221 bye\r\n", b"251 2.1.5 elsewhere\r\n", b"299 5.1.1 odd\r\n", b"503 5.5.1 what\r\n",
    b"250 2.0.0 taken\r\n250 2.0.0 taken\r\n250 2.0.0 taken\r\n354 go\r\n250 2.0.0 taken\r\n",
)  # fmt: skip


class Step(Struct, frozen=True):
    """One thing the host does: say bytes, read a line, read up to the final dot, read a chunk, wait a moment, or go."""

    do: Doing
    data: bytes = b""


class Play(Struct, frozen=True):
    """What the host does in turn, and which mail is to be delivered; from the end of the steps on it says nothing."""

    steps: tuple[Step, ...]
    mail: int = 0
    pipelining: bool = True
    chunking: bool = False


_step = st.one_of(
    st.sampled_from(_SAID).map(lambda data: Step("say", data)),
    st.builds(Step, st.just("say"), st.binary(max_size=12)),
    st.just(Step("read")),
    st.sampled_from((Step("read"), Step("read dot"), Step("read chunk"), Step("wait"), Step("close"), Step("reset"))),
)
_answer = st.sampled_from(_SAID).map(lambda data: (Step("read"), Step("say", data)))
_OK = (Step("read"), Step("say", b"250 ok\r\n"))


def _usual(mail: int, *, chunking: bool = False) -> list[tuple[Step, ...]]:
    """What a host that is well does, turn by turn; `chunking`: it is sent BDAT."""
    if chunking:
        return [
            (Step("say", b"220 mx\r\n"),),
            (Step("read"), Step("say", b"250-mx\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n")),
            _OK,
            *[_OK] * len(MAILS[mail].recipients),
            (Step("read chunk"), Step("say", b"250 2.0.0 taken\r\n")),
            (Step("read"), Step("say", b"221 bye\r\n")),
        ]
    return [
        (Step("say", b"220 mx\r\n"),),
        (Step("read"), Step("say", b"250-mx\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250 DSN\r\n")),
        _OK,
        *[_OK] * len(MAILS[mail].recipients),
        (Step("read"), Step("say", b"354 go\r\n")),
        (Step("read dot"), Step("say", b"250 2.0.0 taken\r\n")),
        (Step("read"), Step("say", b"221 bye\r\n")),
    ]


def _changed(changes: list[tuple[int, tuple[Step, ...]]], mail: int = 0, *, chunking: bool = False) -> tuple[Step, ...]:
    """A host that is well, but for some things it does."""
    turns = _usual(mail, chunking=chunking)
    for at, steps in changes:
        turns[at % len(turns)] = steps
    return tuple(step for turn in turns for step in turn)


class SmtpClient(Fuzzer[Play]):
    """the SMTP client: hosts that answer with whatever, whenever, or with the half of it."""

    FOUND = (
        Play(_changed([])),
        Play(_changed([(5, (Step("say", b"250 taken\r\n"), Step("read dot"), Step("close")))])),  # before the dot
        Play(_changed([(4, (Step("read"), Step("say", b"354 go\r\n250 taken\r\n"), Step("read dot"), Step("reset")))])),
        Play(_changed([(2, (Step("say", b"250 x\r\n250 y\r\n354 z\r\n250 taken\r\n"),))]), mail=1),
        Play(_changed([], chunking=True), chunking=True),
        Play(_changed([(4, (Step("read"), Step("say", b"502 what\r\n")))], chunking=True), chunking=True),
        Play(_changed([(3, (Step("read"), Step("say", b"250 x\r\n250 y\r\n")))], chunking=True), chunking=True),
    )
    SHORT = 90

    @property
    def cases(self) -> st.SearchStrategy[Play]:
        change = st.tuples(st.integers(0, 8), st.one_of(_answer, st.lists(_step, max_size=4).map(tuple)))

        def plays(mail: int, chunking: bool) -> st.SearchStrategy[Play]:
            some = st.lists(change, min_size=1, max_size=2)
            well = some.map(lambda changes: _changed(changes, mail, chunking=chunking))
            played = st.one_of(well, well, well, st.lists(_step, max_size=14).map(tuple))
            return st.builds(Play, played, mail=st.just(mail), pipelining=st.booleans(), chunking=st.just(chunking))

        return st.tuples(st.integers(0, len(MAILS) - 1), st.booleans()).flatmap(lambda drawn: plays(*drawn))

    async def open(self) -> None:
        self._play: tuple[Step, ...] = ()
        self._hosts: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def check(self, case: Play) -> None:
        self._play = case.steps
        transcript = Transcript(SystemClock())
        mail = MAILS[case.mail]
        session = Session(
            Target(host="mx.example.org", address="127.0.0.1", port=self._port),
            hostname="relay.example.net",
            timeouts=Timeouts(
                connect=5, greeting=STEP, hello=STEP, tls=STEP, mail=STEP, rcpt=STEP, data=STEP, block=STEP, reply=STEP,
                quit=STEP, attempt=5,
            ),
            transcript=transcript,
            on_phase=lambda phase: None,
            pipelining=case.pipelining,
            chunking=case.chunking,
        )  # fmt: skip
        begin = time.monotonic()
        try:
            await session.open(TcpDialler())
        except SessionError as error:
            outcomes, was_open = [error.outcome], False
        else:
            outcomes, was_open = await session.deliver(mail), True
            await session.quit()
        finally:
            session.close()
            await self._hosts_gone()
        if (took := time.monotonic() - begin) > BOUND:
            raise Fault(f"it took {took:.0f} s, of {STEP} a step")
        if was_open and len(outcomes) != len(mail.recipients):
            raise Fault(f"{len(outcomes)} outcomes for {len(mail.recipients)} recipients")
        self.went_well += any(outcome.kind == "delivered" for outcome in outcomes)
        lines = transcript.lines()
        for outcome in outcomes:
            _is_of_the_contract(outcome, lines, was_open=was_open)
        if len(lines) > MOST_LINES or any(clean(line.text, 512) != line.text for line in lines):
            raise Fault("the transcript is not clean, or too long")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_perform(self._play, reader, writer))
        self._hosts.add(task)
        task.add_done_callback(self._hosts.discard)

    async def _hosts_gone(self) -> None:
        for host in list(self._hosts):
            host.cancel()
        await asyncio.gather(*self._hosts, return_exceptions=True)


async def _perform(play: tuple[Step, ...], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the play says, then nothing until the client goes."""
    try:
        with contextlib.suppress(OSError, EOFError, ValueError):
            for step in play:
                match step.do:
                    case "say":
                        writer.write(step.data)
                        await writer.drain()
                    case "read":
                        await reader.readline()
                    case "read dot":
                        await reader.readuntil(b"\r\n.\r\n")
                    case "read chunk":
                        octets = _CHUNK.match(await reader.readline())
                        await reader.readexactly(int(octets[1]) if octets else 0)
                    case "wait":
                        await asyncio.sleep(STEP / 4)
                    case "close":
                        writer.close()
                        return
                    case "reset":
                        writer.transport.abort()
                        return
            await reader.read()
    finally:
        writer.transport.abort()


def _is_of_the_contract(outcome: Outcome, lines: list[Line], *, was_open: bool) -> None:
    """Nothing is delivered, and nothing lost for good, without the host's word for it."""
    if outcome.kind not in get_args(Kind) or clean(outcome.text) != outcome.text:
        raise Fault(f"no outcome: {outcome}")
    if not was_open and outcome.kind != "transient":
        raise Fault(f"no session, and {outcome}")
    if outcome.code and not any(line.side == "<" and line.text.startswith(str(outcome.code)) for line in lines):
        raise Fault(f"nobody said {outcome.code}: {outcome}")
    if outcome.kind == "permanent" and not 500 <= outcome.code <= 599 and outcome.enhanced not in ("5.3.4", "5.6.7"):
        raise Fault(f"returned without a reason: {outcome}")
    if outcome.kind == "delivered":
        said = [(line.side, line.text) for line in lines]
        chunk = max((at for at, one in enumerate(said) if one == (">", "(the last byte of the chunk)")), default=-1)
        dot = max((at for at, one in enumerate(said) if one == (">", ".")), default=chunk)
        if dot < 0 or not any(side == "<" and text.startswith("2") for side, text in said[dot:]):
            raise Fault(f"delivered without a word after the dot: {outcome}")
        if chunk < 0 and not any(side == "<" and text.startswith("354") for side, text in said[:dot]):
            raise Fault(f"delivered though nobody asked for the message: {outcome}")
