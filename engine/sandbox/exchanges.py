"""The sandbox's mail exchanges: small SMTP servers whose every reply a temper may decide.

An `Exchange` listens on one address and keeps what was delivered to it; each connection is a `Session`; what makes
one server differ from another is its `Temper`. The tempers one meets on the internet are in `tempers`.
"""

import asyncio
import base64
import binascii
import contextlib
import re
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import ClassVar, Literal

from msgspec import Struct

from engine.base.clock import Clock
from engine.sandbox.certificates import Certificate, Certificates
from engine.sandbox.serving import Connections

LONGEST_MESSAGE = 64 * 1024 * 1024  # bytes
_LONGEST_LINE = 64 * 1024  # bytes of one command
_MOST_SESSIONS = 500
_COMMANDS_KEPT = 1000
_HANDSHAKE = 10.0  # seconds

_PATH = re.compile(r"(?i)^(?:FROM|TO):\s*<([^>]*)>\s*(.*)$", re.DOTALL)
_CHUNK = re.compile(r"(?i)([0-9]{1,20})( LAST)?")
_BEARER = re.compile("auth=Bearer ([^\x01]+)\x01")
_NAMED = re.compile("(?:user=|n,a=)([^\x01,]+)")
Tokens = Callable[[str, str], bool]  # whether a token is one of a user's, and good now
Offer = Certificate | Literal["broken"]  # what STARTTLS comes to

# By command: what a parameter needs to be offered.
_PARAMETERS = {
    "MAIL": {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN"},
    "RCPT": {"NOTIFY": "DSN", "ORCPT": "DSN"},
}


class Action(Enum):
    """What a server may do instead of replying."""

    DROP = "ends the connection at once, with a reset where the system can"
    SILENCE = "says nothing any more, and lets the client wait"


class Delivery(Struct, frozen=True, kw_only=True):
    """One message as an exchange took it. `content` is without dot-stuffing; `at` is by the exchange's clock."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    at: float
    tls: bool
    peer: str
    session: int
    hello: str = ""
    login: str = ""
    parameters: str = ""
    recipient_parameters: tuple[str, ...] = ()


class Temper:
    """How a server behaves; this one is healthy. Override `reply`, or set what is offered.

    `certificate` None: no STARTTLS; "broken": STARTTLS is offered and ends in garbage. `tls_at_once`: TLS comes before
    the greeting instead. `logins` (user to password) makes AUTH PLAIN and LOGIN offered and required, `tokens` XOAUTH2
    and OAUTHBEARER. `listens` False: connections are refused.
    """

    word: ClassVar[str] = "healthy"
    listens: bool = True
    extended: bool = True
    extensions: tuple[str, ...] = ("PIPELINING", f"SIZE {LONGEST_MESSAGE}", "8BITMIME", "SMTPUTF8")
    certificate: Offer | None = None
    tls_at_once: bool = False
    logins: Mapping[str, str] = {}
    tokens: Tokens | None = None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The ways to log in, of which one must be taken; none: nobody need."""
        return (*(("PLAIN", "LOGIN") if self.logins else ()), *(("XOAUTH2", "OAUTHBEARER") if self.tokens else ()))

    def refusal(self, mechanism: str) -> str:  # noqa: ARG002
        """The reply to a login that is wrong."""
        return "535 5.7.8 wrong login"

    async def reply(self, session: "Session", verb: str, argument: str) -> str | bytes | Action | None:  # noqa: ARG002
        """The reply to a command; None: what a healthy server says.

        `verb` is the command in upper case, or "connect" for the greeting and "content" after the final dot or the last
        chunk. A text is one reply ("\\n" between its lines), bytes go out as they are. A positive reply has the
        command's effect. A server that says 421 or 221 hangs up.
        """
        return None


class Bell:
    """Wakes whoever waits for something to become so."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Let everyone who waits look again."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait_until(self, so: Callable[[], bool], seconds: float) -> None:
        """Wait until `so()`, looking at every ring. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not so():
                await self._event.wait()


class Exchange:
    """One mail exchange. `temper` may be changed while it runs; sessions under way follow at their next command.

    What was delivered last is in `delivered`, up to `keep_messages` and `keep_bytes`; `messages` counts all.
    `commands` are the last lines that clients said, with the number of their session. A session that says nothing
    for `patience` seconds is ended.
    """

    def __init__(
        self,
        host: str,
        temper: Temper | None = None,
        *,
        clock: Clock,
        certificates: Certificates,
        address: str = "127.0.0.1",
        port: int = 0,
        patience: float = 300.0,
        keep_messages: int = 10_000,
        keep_bytes: int = 16 * 1024 * 1024,
        bell: Bell | None = None,
    ) -> None:
        self.host = host
        self.address = address
        self.port = port
        self.clock = clock
        self.certificates = certificates
        self.patience = patience
        self.sessions = 0
        self.most_open = 0
        self.messages = 0
        self.delivered: deque[Delivery] = deque()
        self.commands: deque[tuple[int, str]] = deque(maxlen=_COMMANDS_KEPT)
        self._temper = temper or Temper()
        self._keep_messages = keep_messages
        self._keep_bytes = keep_bytes
        self._kept_bytes = 0
        self._bell = bell or Bell()
        self._server: asyncio.Server | None = None
        self._started = False
        self._open = Connections(_MOST_SESSIONS)
        self._change: asyncio.Task[None] | None = None

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def listening(self) -> bool:
        """Whether a connection would be taken."""
        return self._server is not None

    @property
    def temper(self) -> Temper:
        """How it behaves. A change to or from one that does not listen takes effect at the loop's next turn."""
        return self._temper

    @temper.setter
    def temper(self, temper: Temper) -> None:
        self._temper = temper
        if self._started and temper.listens != self.listening:
            self._change = asyncio.get_running_loop().create_task(self._follow(self._change))

    async def become(self, temper: Temper) -> None:
        """Change the temper, and return when it is in effect."""
        self.temper = temper
        if self._change:
            await self._change

    async def start(self) -> None:
        """Begin to listen, unless the temper is one that does not."""
        self._started = True
        if self._temper.listens and self._server is None:
            self._open.begin()
            server = await asyncio.start_server(self._accept, self.address, self.port)
            self.port = server.sockets[0].getsockname()[1]
            self._server = server

    async def stop(self) -> None:
        """Stop listening and end all sessions; `start` begins anew."""
        self._started = False
        if self._change:
            await self._change
        await self._close()

    async def wait_for(self, messages: int, seconds: float = 30.0) -> None:
        """Wait until this many messages have been delivered in all. Raises TimeoutError."""
        await self._bell.wait_until(lambda: self.messages >= messages, seconds)

    def keep(self, delivery: Delivery) -> None:
        """Count a delivery and keep it, letting go of the oldest beyond the bounds."""
        self.messages += 1
        self.delivered.append(delivery)
        self._kept_bytes += len(delivery.content)
        while len(self.delivered) > self._keep_messages or self._kept_bytes > self._keep_bytes:
            self._kept_bytes -= len(self.delivered.popleft().content)
        self._bell.ring()

    async def _follow(self, before: asyncio.Task[None] | None) -> None:
        if before:
            await before
        if self._started and self._temper.listens:
            await self.start()
        else:
            await self._close()

    async def _close(self) -> None:
        server, self._server = self._server, None
        if server:
            server.close()
        await self._open.end()
        if server:
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open.takes(writer):
            return
        self.sessions += 1
        self._open.serve(writer, Session(self, self.sessions, reader, writer).run())
        self.most_open = max(self.most_open, len(self._open))


class Session:
    """One connection to an exchange, as its temper sees it. `taken` counts the messages it brought."""

    def __init__(
        self, exchange: Exchange, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.exchange = exchange
        self.number = number
        self.peer = str(writer.get_extra_info("peername")[0])
        self.tls = False
        self.hello = ""
        self.extended = False
        self.login = ""
        self.sender: str | None = None
        self.parameters = ""
        self.recipients: list[str] = []
        self.recipient_parameters: list[str] = []
        self.content = b""
        self.chunks: list[bytes] = []
        self.taken = 0
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._going_on = True

    async def run(self) -> None:
        """Hold the conversation to its end. Never raises, but when it is cancelled."""
        try:
            if self.exchange.temper.tls_at_once:
                await self._secure()
            await self._perform("connect", "")
            while self._going_on:
                line = (await self._until(b"\r\n", _LONGEST_LINE)).decode("utf-8", "surrogateescape")
                self.exchange.commands.append((self.number, line))
                verb, _, argument = line.partition(" ")
                await self._perform(verb.upper(), argument.strip())
        except (TimeoutError, OSError, EOFError):
            return  # the client has gone, or is asleep
        finally:
            await self._hang_up()

    async def send(self, data: bytes) -> None:
        """Write bytes to the client as they are. Raises ConnectionError when it has gone."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._writer.write(data)
        async with asyncio.timeout(self.exchange.patience):
            await self._writer.drain()

    def deliver(self) -> None:
        """Keep the message that was just transferred."""
        self.taken += 1
        delivery = Delivery(
            host=self.exchange.host,
            sender=self.sender or "",
            recipients=tuple(self.recipients),
            content=self.content,
            at=self.exchange.clock.now(),
            tls=self.tls,
            peer=self.peer,
            session=self.number,
            hello=self.hello,
            login=self.login,
            parameters=self.parameters,
            recipient_parameters=tuple(self.recipient_parameters),
        )
        self.exchange.keep(delivery)

    # -- one command ------------------------------------------------------------------------------------------------

    async def _perform(self, verb: str, argument: str) -> None:
        """Reply to a command, and do what it says where the reply is positive."""
        said = await self.exchange.temper.reply(self, verb, argument)
        if said is None:
            said = await self._usual(verb, argument)
        if said is Action.DROP:
            self._writer.transport.abort()
            self._going_on = False
        elif said is Action.SILENCE:
            self._going_on = False
            while await self._more():
                self._buffer.clear()
        elif said:
            assert not isinstance(said, Action)
            wire = said if isinstance(said, bytes) else _wire(said)
            await self.send(wire)
            if wire.startswith((b"421", b"221")):
                self._going_on = False
            elif wire.startswith((b"2", b"3")):
                await self._take_effect(verb, argument, wire)

    async def _usual(self, verb: str, argument: str) -> str | None:
        """What a healthy server replies."""
        temper = self.exchange.temper
        host = self.exchange.host
        match verb:
            case "connect":
                return f"220 {host} ESMTP" if temper.extended else f"220 {host} SMTP"
            case "HELO":
                return f"250 {host}"
            case "EHLO" if temper.extended:
                return "\n".join([f"250 {host} at your service", *(f"250 {line}" for line in self._offered())])
            case "STARTTLS" if "STARTTLS" in self._offered():
                return "220 2.0.0 ready to start TLS"
            case "AUTH" if temper.mechanisms:
                return await self._auth(argument)
            case "MAIL" | "RCPT":
                return self._envelope(verb, argument)
            case "DATA":
                return "354 end with a dot on a line by itself" if self.recipients else "503 5.5.1 RCPT first"
            case "BDAT" if "CHUNKING" in self._offered():
                return await self._chunk(argument)
            case "content" if not self.recipients:
                return "554 5.5.1 no valid recipients"
            case "content":
                return f"250 2.0.0 taken as {self.number}-{self.taken + 1}"
            case "RSET" | "NOOP":
                return "250 2.0.0 ok"
            case "VRFY":
                return "252 2.1.5 try it"
            case "QUIT":
                return f"221 2.0.0 {host} says good-bye"
            case _:
                return "502 5.5.2 that is no command here"

    def _offered(self) -> list[str]:
        temper = self.exchange.temper
        offered = list(temper.extensions)
        if temper.certificate is not None and not self.tls:
            offered.append("STARTTLS")
        if temper.mechanisms and not self.login:
            offered.append(f"AUTH {' '.join(temper.mechanisms)}")
        return offered

    def _envelope(self, verb: str, argument: str) -> str:
        """The usual reply to MAIL and RCPT."""
        path = _PATH.match(argument)
        if path is None or (verb == "RCPT" and not path[1]):
            return "501 5.5.4 write it as MAIL FROM:<address>, RCPT TO:<address>"
        if self.exchange.temper.mechanisms and not self.login:
            return "530 5.7.0 authentication required"
        if verb == "RCPT" and self.sender is None:
            return "503 5.5.1 MAIL first"
        offered = {line.split(" ")[0] for line in self._offered()} if self.extended else set()
        for parameter in path[2].split():
            name, _, value = parameter.upper().partition("=")
            if _PARAMETERS[verb].get(name) not in offered:
                return f"555 5.5.4 {name} is not offered"
            if name == "SIZE" and value.isdigit() and int(value) > LONGEST_MESSAGE:
                return "552 5.3.4 the message is too large"
        if not path[1].isascii() and "SMTPUTF8" not in (path[2] if verb == "MAIL" else self.parameters).upper():
            return "553 5.6.7 that address needs SMTPUTF8"
        return "250 2.1.0 ok" if verb == "MAIL" else "250 2.1.5 ok"

    async def _auth(self, argument: str) -> str:
        """AUTH by one of the mechanisms that are offered, with an initial response or without."""
        temper = self.exchange.temper
        mechanism, _, initial = argument.partition(" ")
        mechanism = mechanism.upper()
        if mechanism not in temper.mechanisms:
            return f"504 5.5.4 {' or '.join(temper.mechanisms)}"
        try:
            if mechanism == "LOGIN":
                user = _decoded(initial) if initial else await self._challenge("Username:")
                is_right = temper.logins.get(user) == await self._challenge("Password:")
            else:
                said = _decoded(initial) if initial else await self._challenge("")
                if mechanism == "PLAIN":
                    _, user, password = said.split("\0")
                    is_right = temper.logins.get(user) == password
                else:
                    user, is_right = await self._bearer(said)
        except (ValueError, binascii.Error):
            return "501 5.5.2 that cannot be decoded"
        if not user or not is_right:
            return temper.refusal(mechanism)
        self.login = user
        return "235 2.7.0 welcome"

    async def _bearer(self, said: str) -> tuple[str, bool]:
        """Who logs in with a token, and whether it is a good one; who has a wrong one is told so (RFC 7628 3.2.2)."""
        named, token = _NAMED.search(said), _BEARER.search(said)
        if named is None or token is None:
            raise ValueError(said)
        tokens = self.exchange.temper.tokens
        is_right = tokens is not None and tokens(named[1], token[1])
        if not is_right:
            await self._challenge('{"status":"400","schemes":"Bearer","scope":"https://mail.example/"}')
        return named[1], is_right

    async def _challenge(self, text: str) -> str:
        await self.send(b"334 " + base64.b64encode(text.encode()) + b"\r\n")
        return _decoded((await self._until(b"\r\n", _LONGEST_LINE)).decode("ascii", "replace"))

    async def _take_effect(self, verb: str, argument: str, wire: bytes) -> None:
        match verb:
            case "HELO" | "EHLO":
                self.hello, self.extended = argument, verb == "EHLO"
                self._forget()
            case "STARTTLS" if wire.startswith(b"220"):
                await self._secure()
            case "MAIL" if path := _PATH.match(argument):
                self._forget()
                self.sender, self.parameters = path[1], path[2]
            case "RCPT" if path := _PATH.match(argument):
                self.recipients.append(path[1])
                self.recipient_parameters.append(path[2])
            case "DATA" if wire.startswith(b"354"):
                await self._transfer()
            case "content":
                self.deliver()
            case "RSET":
                self._forget()

    def _forget(self) -> None:
        self.sender, self.parameters, self.content = None, "", b""
        self.recipients, self.recipient_parameters, self.chunks = [], [], []

    async def _transfer(self) -> None:
        """Take the content up to the final dot, and reply to it."""
        self._buffer[:0] = b"\r\n"  # the dot may be the first thing that comes
        stuffed = await self._until(b"\r\n.\r\n", LONGEST_MESSAGE)
        self.content = (stuffed + b"\r\n").replace(b"\r\n..", b"\r\n.")[2:]
        await self._perform("content", "")
        self._forget()

    async def _chunk(self, argument: str) -> str:
        """Take a chunk, and reply to it, or to the message where it is the last (RFC 3030 2)."""
        said = _CHUNK.fullmatch(argument)
        if said is None or int(said[1]) > LONGEST_MESSAGE:
            return "421 5.5.4 write it as BDAT octets, or BDAT octets LAST"
        octets = int(said[1])
        while len(self._buffer) < octets:
            if not await self._more():
                raise EOFError
        self.chunks.append(bytes(self._buffer[:octets]))
        del self._buffer[:octets]
        if not self.recipients:
            self._forget()
            return "503 5.5.1 RCPT first"
        if said[2] is None:
            return f"250 2.0.0 {octets} octets taken"
        self.content = b"".join(self.chunks)
        await self._perform("content", "")
        self._forget()
        return ""

    async def _secure(self) -> None:
        certificate = self.exchange.temper.certificate
        self._buffer.clear()  # what came in clear text is thrown away (RFC 3207 4.2)
        if certificate is None or certificate == "broken":
            await self._more()  # the client's hello
            await self.send(b"this is no handshake\r\n")
            self._going_on = False
            return
        context = self.exchange.certificates.context(self.exchange.host, certificate)
        await self._writer.start_tls(context, ssl_handshake_timeout=_HANDSHAKE)
        self.tls = True
        self.hello, self.extended, self.login = "", False, ""
        self._forget()

    # -- the wire ---------------------------------------------------------------------------------------------------

    async def _until(self, end: bytes, most: int) -> bytes:
        """What comes before `end`, at most `most` bytes. Raises EOFError, TimeoutError, OSError."""
        looked = 0
        while (at := self._buffer.find(end, looked)) < 0:
            looked = max(0, len(self._buffer) - len(end))
            if len(self._buffer) > most or not await self._more():
                raise EOFError
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(end)]
        return found

    async def _more(self) -> bool:
        async with asyncio.timeout(self.exchange.patience):
            data = await self._reader.read(65536)
        self._buffer += data
        return bool(data)

    async def _hang_up(self) -> None:
        self._writer.close()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        self._writer.transport.abort()


def _wire(said: str) -> bytes:
    """A reply on the wire: its lines carry the same code, all but the last with a hyphen (RFC 5321 4.2.1)."""
    *lines, last = said.split("\n")
    continued = [f"{line[:3]}-{line[4:]}\r\n" for line in lines]
    return "".join([*continued, last, "\r\n"]).encode("utf-8", "surrogateescape")


def _decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode("utf-8")
