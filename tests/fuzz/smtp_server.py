"""The SMTP server: whatever clients say, in whatever pieces, is answered well.

It is at most one message for each DATA, and for each BDAT LAST.
"""

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path

from hypothesis import strategies as st
from msgspec import Struct

from engine.base.clock import SystemClock
from engine.intake.smtp.listener import SmtpIntake
from engine.settings.kinds import Network
from engine.settings.names import network
from engine.settings.settings import Intake, Limits, Listen, Settings, Smtp
from tests.fuzz.fuzzing import Fault, Fuzzer
from tests.scenarios.submitting import Keys
from tests.unit.fake_arrivals import FakeArrivals

KNOWN, STRANGER = "127.0.0.1", "127.0.9.9"
PATIENCE = 20.0  # seconds until the server must have ended a session whose client has hung up
LARGEST = 64 * 1024  # bytes of a message, so that a case can go beyond it
POLL, STILL, MOST_POLLS = 0.0005, 3, 60  # seconds between looks for an answer; how often it is to be the same; how many
LONGEST_REPLY = 512  # octets of a line (RFC 5321 4.5.3.1.5)

_REPLY = re.compile(rb"[2-5][0-9][0-9][ -][\x20-\x7e]*\Z")
_END = re.compile(rb"(?=\r\n\.\r\n)")
_LAST = re.compile(rb"(?i)bdat +[0-9]+ +last")

_COMMANDS = (
    b"EHLO client.example\r\n", b"HELO client.example\r\n", b"EHLO [127.0.0.1]\r\n", b"EHLO \r\n", b"EHLO \xff\r\n",
    b"MAIL FROM:<ann@example.com>\r\n", b"MAIL FROM:<>\r\n", b"MAIL FROM:<a@b.example> SIZE=99999999\r\n",
    b"MAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=+0A\r\n", b"mail from: <a@b.example>\r\n",
    b"MAIL FROM:<\xc3\xbc@b.example> SMTPUTF8\r\n", b'MAIL FROM:<"a b"@b.example>\r\n',
    b"RCPT TO:<bob@example.org>\r\n", b"RCPT TO:<bob@example.org> NOTIFY=NEVER,DELAY ORCPT=rfc822;x\r\n",
    b"RCPT TO:<@a.example:b@c.example>\r\n", b"RCPT TO:<b%c.example@d.example>\r\n", b"RCPT TO:<Postmaster>\r\n",
    b"DATA\r\n", b"data\r\n", b"DATA x\r\n", b"RSET\r\n", b"NOOP\r\n", b"NOOP x\r\n", b"VRFY a\r\n", b"HELP\r\n",
    b"QUIT\r\n", b"STARTTLS\r\n", b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", b"AUTH LOGIN\r\n", b"AUTH PLAIN\r\n", b"*\r\n",
    b"BDAT 5 LAST\r\n", b"BDAT 5\r\n", b"BDAT 0\r\n", b"bdat 0 last\r\n", b"BDAT 99999 LAST\r\n", b"BDAT x\r\n",
    b"EXPN x\r\n", b"XCLIENT ADDR=1.2.3.4\r\n", b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n",
    b"\n", b"\r", b".\r\n",
)  # fmt: skip
_HELLO = b"EHLO c.example\r\n"
_TRANSACTION = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
_ENVELOPE = _TRANSACTION.removesuffix(b"DATA\r\n")
_BODIES = (
    b"Subject: x\r\n\r\nbody\r\n.\r\n", b".\r\n", b"\r\n.\r\n", b"a\n.\nMAIL FROM:<x@y.example>\n", b"a\r.\rb",
    b"a\n.\r\n", b"a\r\n.\n", b"\r\n..\r\n", b"a\x00b\r\n", b"Received: x\r\n" * 60, b"a" * 70_000,
    b"x" * 998 + b"\r\n", b"\xff\xfe\r\n", b"Subject: =?utf-8?b?////?=\r\n\r\n", b" folded\r\n", b":\r\n",
    b"\r\n" * 500, b"A: b\r\n" * 2000, b"\r\n.\r",
)  # fmt: skip

_piece = st.one_of(
    st.sampled_from(_COMMANDS),
    st.sampled_from(_COMMANDS),
    st.just(_TRANSACTION),
    st.sampled_from(_BODIES),
    st.binary(max_size=20),
    st.builds(lambda line, at, junk: line[:at] + junk + line[at:], st.sampled_from(_COMMANDS), st.integers(0, 30),
              st.binary(max_size=3)),
)  # fmt: skip
_one = _piece.map(lambda piece: (piece,))
_whole = st.sampled_from(_BODIES).map(lambda body: (_HELLO, _TRANSACTION, body + b"\r\n.\r\n"))
_chunks = st.lists(st.sampled_from(_BODIES), min_size=1, max_size=4).map(
    lambda bodies: (
        _HELLO,
        _ENVELOPE + b"".join(b"BDAT %d\r\n%b" % (len(body), body) for body in bodies) + b"BDAT 0 LAST\r\n",
    )
)
_move = st.one_of(_one, _whole, _chunks)


class Talk(Struct, frozen=True):
    """What one client sends: each piece is one write, cut once more at `cut`.

    `waits`: for the greeting, and for an answer after each piece.

    `door`: 0 the relay's, 1 the submission port, 2 the one with TLS from the first octet. It ends with a reset where
    it `resets`, else it hears all out.
    """

    pieces: tuple[bytes, ...]
    cut: int = 0
    waits: bool = False
    is_known: bool = True
    door: int = 0
    resets: bool = False


class SmtpServer(Fuzzer[Talk]):
    """the SMTP server: commands and messages of every kind, in every kind of pieces, beside a good client."""

    FOUND = (
        Talk((_HELLO, b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n", _TRANSACTION, b"x\r\n.\r\n"), waits=True, door=2),
        Talk((_HELLO, _TRANSACTION, b"x\r\n.\r\n"), waits=True),
        Talk((_HELLO + _TRANSACTION + b"\r\n.\r\nQUIT\r\n",), cut=3),
        Talk(
            (b"EHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@c.example>\r\nDATA\r\nx\r\n.\r\n",),
            is_known=False,
        ),
        Talk((_HELLO, _ENVELOPE + b"BDAT 4\r\nx\r\n.BDAT 2 LAST\r\n\r\n"), waits=True),
        Talk((_HELLO, b"BDAT 12 LAST\r\n" + b"MAIL FROM:<>"), waits=True, is_known=False),
        Talk((b"x" * 998 + b"\r\n",), waits=True),
        Talk((_HELLO, b"AUTH LOGIN\r\n", b"EHLO \xff\r\n"), waits=True, door=2),
    )
    SHORT = 120

    @property
    def cases(self) -> st.SearchStrategy[Talk]:
        return st.builds(
            Talk,
            st.lists(_move, min_size=1, max_size=6).map(lambda moves: tuple(piece for move in moves for piece in move)),
            cut=st.integers(0, 8),
            waits=st.sampled_from((True, True, False)),
            is_known=st.sampled_from((True, True, True, False)),
            door=st.sampled_from((0, 0, 0, 0, 1, 2)),
            resets=st.sampled_from((False, False, False, True)),
        )

    async def open(self) -> None:
        self._open = contextlib.AsyncExitStack()
        folder = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="sh-")))
        keys = await asyncio.to_thread(Keys, folder)
        keys.file.name_senders("ann", ["*"])  # as whom she sends is not what is tried here
        known: tuple[Network, ...] = (network("127.0.0.0/29"),)
        everybody: tuple[Network, ...] = (network("127.0.0.0/8"),)
        settings = Settings(
            hostname="relay.example.net",
            intake=Intake(
                smtp=Smtp(listen=(Listen(KNOWN, 0),), relay_networks=known, max_message_size=LARGEST),
                submission=keys.submission(),
                # How often somebody may come, or guess, is not what is tried here.
                limits=Limits(exempt_networks=everybody, guesses_before_delay=10**6, guesses_per_login=10**6),
            ),
        )
        self._queue = FakeArrivals()
        self._tried = 0
        self._intake = SmtpIntake(self._queue, settings, SystemClock())
        await self._intake.start()
        self._open.push_async_callback(self._intake.stop, 0.5)
        doors = (self._intake.addresses, self._intake.submission_addresses, self._intake.submission_tls_addresses)
        self._doors = tuple(door[0].port for door in doors)
        self._tls = keys.client
        self._good = await _Good.come(self._doors[0])
        self._open.callback(self._good.close)

    async def close(self) -> None:
        await self._open.aclose()

    async def check(self, case: Talk) -> None:
        self._queue.messages.clear()
        self._queue.events_recorded.clear()
        self._tried += 1
        said, _ = await asyncio.gather(self._talk(case), self._good.served())
        was_cut = case.resets or case.door == 2  # TLS has no end of one direction alone
        replies = _replies(said, was_cut=was_cut)
        lasts = len(_LAST.findall(b"".join(case.pieces)))
        begun = sum(reply[-1].startswith(b"354") for reply in replies) + lasts
        queued = [message for message in self._queue.messages if message.sender != _Good.SENDER]
        if len(queued) > begun and not was_cut:
            raise Fault(f"{len(queued)} messages came of {begun} that were asked for")
        ends = len(_END.findall(b"".join(case.pieces)))
        if len(queued) > ends + lasts:
            how_often = f"<CRLF>.<CRLF> came {ends} times (RFC 5321 4.1.1.4), and BDAT LAST {lasts} times"
            raise Fault(f"{len(queued)} messages came, and {how_often}")
        logged_in = case.door == 2 and any(reply[-1].startswith(b"235") for reply in replies)
        if queued and not logged_in and (not case.is_known or case.door):
            raise Fault("mail was taken of somebody who may not send")
        promised = sum(b"queued as" in reply[-1] for reply in replies)
        if promised > len(queued) or (promised < len(queued) and not was_cut):
            raise Fault(f"{promised} messages were answered with 250, and {len(queued)} were queued")
        self.went_well += bool(queued)
        for message in queued:
            rest = message.content.replace(b"\r\n", b"")
            if b"\r" in rest or b"\n" in rest or not message.content.endswith(b"\r\n"):
                raise Fault("a message was queued whose line ends are not all CRLF")
            if b"\0" in "".join((message.sender, *message.recipients)).encode("utf-8", "surrogateescape"):
                raise Fault("an envelope with NUL")
        if self._tried % 50 == 0:
            await self._good.sends(self._queue)

    async def _talk(self, case: Talk) -> bytes:
        """Hold the conversation; give all that the server said."""
        source = KNOWN if case.is_known else STRANGER
        tls = {"ssl": self._tls, "server_hostname": "localhost"} if case.door == 2 else {}
        port = self._doors[case.door]
        reader, writer = await asyncio.open_connection(KNOWN, port, local_addr=(source, 0), **tls)  # type: ignore[arg-type]
        said = bytearray()
        hearing = asyncio.create_task(_hear(reader, said))
        try:
            with contextlib.suppress(OSError, RuntimeError):  # which uvloop raises of what is closed
                if case.waits:
                    await _quiet(said, 0, hearing)
                for piece in case.pieces:
                    before = len(said)
                    for part in (piece[: case.cut], piece[case.cut :]) if case.cut else (piece,):
                        if part and not writer.is_closing():
                            writer.write(part)
                            await writer.drain()
                        await asyncio.sleep(0)
                    if case.waits:
                        await _quiet(said, before, hearing)
                if case.door == 2:
                    writer.close()
                elif not case.resets:
                    writer.write_eof()
            if case.resets:
                return bytes(said)
            try:
                async with asyncio.timeout(PATIENCE):
                    await hearing
            except TimeoutError:
                raise Fault("the session goes on though its client has hung up") from None
            return bytes(said)
        finally:
            hearing.cancel()
            writer.transport.abort()
            await asyncio.gather(hearing, return_exceptions=True)
            await self._gone()

    async def _gone(self) -> None:
        """Wait until the good client is alone again."""
        for _ in range(int(PATIENCE * 200)):
            if self._intake.sessions <= 1:
                return
            await asyncio.sleep(0.005)
        raise Fault("a session stays open though its client has gone")


class _Good:
    """A client as it should be, beside all others."""

    SENDER = "good@client.example"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def come(cls, port: int) -> "_Good":
        good = cls(*await asyncio.open_connection(KNOWN, port))
        await good._reply(b"220")
        await good._say(b"EHLO good.example", b"250")
        return good

    async def served(self) -> None:
        """Ask something small."""
        await self._say(b"NOOP", b"250")

    async def sends(self, queue: FakeArrivals) -> None:
        """Send a whole message."""
        before = len(queue.messages)
        for line, first in (
            (b"MAIL FROM:<" + self.SENDER.encode() + b">", b"250"), (b"RCPT TO:<a@example.org>", b"250"),
            (b"DATA", b"354"), (b"Subject: good\r\n\r\nbody\r\n.", b"250"),
        ):  # fmt: skip
            await self._say(line, first)
        if len(queue.messages) != before + 1:
            raise Fault("the good client's message was not taken")

    def close(self) -> None:
        self._writer.transport.abort()

    async def _say(self, line: bytes, first: bytes) -> None:
        self._writer.write(line + b"\r\n")
        await self._reply(first)

    async def _reply(self, first: bytes) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while (line := await self._reader.readline())[3:4] == b"-":
                    pass
        except TimeoutError:
            raise Fault("the good client was not answered") from None
        if not line.startswith(first):
            raise Fault(f"the good client was answered {line!r}")


async def _quiet(said: bytearray, before: int, hearing: asyncio.Task[None]) -> None:
    """Wait for an answer beyond what was said `before`, and until no more comes of it; not for ever."""
    still, length = 0, len(said)
    for _ in range(MOST_POLLS):
        await asyncio.sleep(POLL)
        still = still + 1 if len(said) == length else 0
        length = len(said)
        if hearing.done() or (length > before and still >= STILL):
            return


async def _hear(reader: asyncio.StreamReader, said: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            said.extend(data)


def _replies(said: bytes, *, was_cut: bool) -> list[list[bytes]]:
    """What the server said, reply by reply. Raises Fault where it is none (RFC 5321 4.2)."""
    *lines, rest = said.split(b"\r\n")
    if rest and not was_cut:
        raise Fault(f"a reply without an end: {rest[:100]!r}")
    found: list[list[bytes]] = []
    reply: list[bytes] = []
    for line in lines:
        if not _REPLY.match(line) or len(line) + 2 > LONGEST_REPLY:
            raise Fault(f"no reply: {line[:100]!r}")
        if reply and line[:3] != reply[0][:3]:
            raise Fault(f"a reply of two codes: {reply[0]!r}, {line!r}")
        reply.append(line)
        if line[3:4] == b" ":
            found.append(reply)
            reply = []
    if reply and not was_cut:
        raise Fault(f"a reply without a last line: {reply[-1]!r}")
    return found
