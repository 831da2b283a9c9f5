"""One SMTP session with a client: aiosmtpd's protocol, with our rules for what is taken and how it is read.

The library reads commands and keeps their order. Envelope and message are read here: its own reading rewrites
addresses, holds a line to 1001 octets, and lets go of a message in mid-commit when the client hangs up.

The way of a message, 1 of 7: it comes in here. On to engine.queue.contract.
"""

import asyncio
import collections
import logging
import re
from functools import partial
from typing import AnyStr, cast

from aiosmtpd.smtp import SMTP, Envelope

from engine.base.address import Address, AddressError, parse_path
from engine.base.text import clean
from engine.intake.content import MAX_LINE
from engine.intake.errors import Refused
from engine.intake.smtp.command import Argument, SyntaxProblem, read_argument
from engine.intake.smtp.crowd import Door
from engine.intake.smtp.incoming import Incoming, client_name
from engine.intake.smtp.reading import OnlyLineEnds, TooLong, TooSlow, read_message
from engine.intake.smtp.reception import FULL, PAUSED, SICK, Reception
from engine.intake.smtp.strange import Commands
from engine.intake.smtp.stream import Stream
from engine.intake.smtp.submitted import Submitted
from engine.intake.smtp.wishes import OF_MAIL, OF_RCPT, OfMail, of_mail, of_recipient
from engine.model.message import Wishes

_LOG = logging.getLogger(__name__)

IDLE = 300.0  # seconds a client may take for its next command, RFC 5321 4.5.3.2.7
AT_WORK = 300.0  # seconds for which a transaction without its message keeps a session from making room for others
MAX_RECIPIENTS = 1000  # RFC 5321 4.5.3.1.8 asks for 100
MAX_COMMAND = 2048  # octets; RFC 5321 4.5.3.1.4 asks for 512
MAX_REPLY = 500  # characters, RFC 5321 4.5.3.1.5
MAX_ERRORS = 20  # commands refused to a stranger before the session ends

_GREETED = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}", re.ASCII)
_YIELD_EVERY = 32  # replies; a pipelined burst must not keep the loop from everyone else
_TOO_BIG = "552 5.3.4 Message too big; at most {} octets are taken"


class _Transaction(Envelope):
    """The mail transaction that MAIL begins: who sends it and who is to have it."""

    def __init__(self) -> None:
        super().__init__()
        self.sender: Address | None = None
        self.declared_utf8 = False
        self.recipients: dict[str, Address] = {}
        self.dsn = OfMail()
        self.wishes: dict[str, Wishes] = {}


class Session(SMTP):
    """The server's side of one connection.

    `reading` is true while a message is being read or committed; `ended` is done when the connection is gone.
    """

    line_length_limit = MAX_LINE
    command_size_limit = MAX_COMMAND
    absent: tuple[str, ...] = ("AUTH", "STARTTLS")  # commands of the library's that are not known here
    door: Door = "relay"

    def __init__(self, reception: Reception, sessions: set["Session"], *, idle: float = IDLE) -> None:
        super().__init__(
            object(),
            data_size_limit=reception.rules.max_message_size,
            enable_SMTPUTF8=True,
            hostname=reception.hostname,
            ident="ESMTP smarthost",
            timeout=idle,
            loop=asyncio.get_running_loop(),
        )
        # The library's own is shared by all sessions, and cleared by each new one.
        self.command_size_limits = collections.defaultdict(lambda: MAX_COMMAND)
        known = {name: method for name, method in self._smtp_methods.items() if name not in self.absent}
        self._smtp_methods = Commands(known, self._not_smtp)
        self.reading = False
        self.ended: asyncio.Future[None] = self.loop.create_future()
        self._mail = _Transaction()
        self._reception = reception
        self._sessions = sessions
        self._raw: asyncio.Transport | None = None
        self._peer = ""
        self._login = ""
        self._trusted = False
        self._errors = 0
        self._replies = 0
        self._incoming: Incoming | None = None
        self._began = 0.0

    # -- the connection -------------------------------------------------------------------------------------------

    def arrive(self, raw: asyncio.Transport, peer: str, *, known: bool) -> None:
        """A client has come, from this address; `connection_made` follows, after TLS where that comes first.

        `known`: it may send without further ado.
        """
        self._raw, self._peer, self._trusted = raw, peer, known
        self._sessions.add(self)
        self._reception.crowd.enter(self, peer, known=known, door=self.door)

    @property
    def at_work(self) -> bool:
        """Whether it is sending a message, in which nobody we know is interrupted to make room for others.

        A stranger is at no work of ours: it can begin a transaction as anybody can, and nobody is kept out by that. And
        one that goes on and on without its message counts no more: else one could sit in it for ever.
        """
        opened = self._mail.sender is not None and self.loop.time() - self._began < AT_WORK
        return self._trusted and (self.reading or opened)

    def depart(self) -> None:
        """The client has gone, or never got as far as a conversation."""
        self._sessions.discard(self)
        self._reception.crowd.leave(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone, or we have closed."""
        self.depart()
        super().connection_lost(error)

    def eof_received(self) -> bool | None:
        """The client will send no more. What it sent is still answered; the library would drop it in mid-commit."""
        return asyncio.StreamReaderProtocol.eof_received(self)

    def close(self, farewell: str) -> None:
        """Say why and hang up, now; a client that does not read is cut off."""
        line = self._line
        if line is None:
            self.abort()
        elif line.is_closing():
            return
        elif line.get_write_buffer_size():
            line.abort()
        else:
            line.write(f"{farewell}\r\n".encode())
            line.close()

    def abort(self) -> None:
        """Hang up without a word."""
        if line := self._line or self._raw:
            line.abort()

    @property
    def _line(self) -> asyncio.Transport | None:
        """What the conversation goes over; None before there is one. (uvloop's are no instances of asyncio's class.)"""
        return cast("asyncio.Transport | None", self.transport)

    async def push(self, status: AnyStr) -> None:
        """Send a reply, and let other sessions have their turn now and then.

        A reply in text is one line; the library's own may repeat what the client said, so it is cleaned.
        """
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError("the session has ended")
        if not self._trusted and status[:1] in ("5", b"5"):
            self._errors += 1
            if self._errors > MAX_ERRORS:
                self.close(f"421 4.7.0 {self.hostname} Too many errors")
                return
        if isinstance(status, str):  # in ASCII (RFC 5321 4.2), also where it was cut
            status = clean(status, MAX_REPLY).encode("ascii", "replace").decode()
        await super().push(status)
        self._replies += 1
        if self._replies % _YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def handle_exception(self, error: Exception) -> str:
        """What went wrong here is no fault of the message, and no business of the client's."""
        _LOG.error("SMTP session with %s failed", self._peer, exc_info=error)
        return SICK

    async def _handle_client(self) -> None:
        try:
            await self._in_turn("before the greeting")
            await super()._handle_client()
        except ConnectionError:
            self._hang_up()

    def _cb_client_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super()._cb_client_connected(Stream(reader), writer)  # type: ignore[arg-type]

    async def _in_turn(self, when: str) -> None:
        """Send away who has sent something that it could not know to be wanted (RFC 2920 3.1, as Postfix does).

        Whoever writes a whole conversation blindly, such as a web server that was tricked into it, is no mail client.
        EHLO and DATA end a group of commands, and the greeting comes first; a client that keeps to that is never met.
        NOOP and VRFY should end one as well, but let nothing happen that a later command could rely on.
        """
        if early := await self._reader.came_early():  # type: ignore[attr-defined]
            self._refuse("spoke out of turn", f"{early} octets {when}")
            self.close(f"554 5.5.0 {self.hostname} You spoke out of turn, {when} (RFC 2920)")
            raise ConnectionResetError("the client speaks out of turn")

    async def _not_smtp(self, arg: str | None) -> None:  # noqa: ARG002
        """What came is HTTP, or a header field: whoever sends that means another server, or was tricked into this."""
        self._refuse("no SMTP", "a request of HTTP or a line of a header came in place of a command")
        self.close(f"421 4.7.0 {self.hostname} This is SMTP, and that was not; goodbye")
        raise ConnectionResetError("the client speaks no SMTP")

    def _timeout_cb(self) -> None:
        self.close(f"421 4.4.2 {self.hostname} Too slow, closing the connection")

    def _create_envelope(self) -> _Transaction:
        self._mail = _Transaction()
        return self._mail

    # -- commands -------------------------------------------------------------------------------------------------

    async def smtp_HELO(self, hostname: str) -> None:  # noqa: N802
        """HELO: the old greeting."""
        await self._in_turn("after HELO")
        if await self._greeted_well("HELO", hostname):
            await super().smtp_HELO(hostname)

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        """EHLO: the greeting, answered with what we offer (RFC 5321 4.1.1.1)."""
        await self._in_turn("after EHLO")
        if not await self._greeted_well("EHLO", hostname):
            return
        assert self.session is not None
        self.envelope = self._create_envelope()
        self.session.extended_smtp = True
        self.session.host_name = hostname
        lines = (f"250-{self.hostname}", *(f"250-{offer}" for offer in self._offers()), "250 HELP")
        await self.push("\r\n".join(lines).encode())

    def _offers(self) -> tuple[str, ...]:
        """The extensions that EHLO is answered with."""
        return ("PIPELINING", f"SIZE {self._reception.rules.max_message_size}", "8BITMIME", "SMTPUTF8", "DSN")

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        """MAIL: begin a transaction (RFC 5321 4.1.1.2)."""
        if await self.check_helo_needed():
            return
        if self._mail.sender is not None:
            await self.push("503 5.5.1 A transaction is open already; RSET ends it")
        elif self._reception.paused:
            self._refuse("not taking mail", self._reception.paused)
            await self.push(PAUSED)
        else:
            await self.push(self._begin(arg))

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        """RCPT: one more recipient (RFC 5321 4.1.1.3)."""
        if await self.check_helo_needed():
            return
        if self._mail.sender is None:
            await self.push("503 5.5.1 MAIL comes before RCPT")
        elif self._trusted:
            await self.push(self._address(arg))
        else:
            await self._deny(arg)

    async def smtp_DATA(self, arg: str | None) -> None:  # noqa: N802
        """DATA: read the message and queue it (RFC 5321 4.1.1.4)."""
        if arg:
            await self.push("501 5.5.4 DATA takes no argument")
            return
        await self._in_turn("after DATA")
        if await self.check_helo_needed():
            return
        if not self._mail.recipients:
            await self.push("503 5.5.1 RCPT comes before DATA")
            return
        self.reading = True
        try:
            await self.push("354 End the message with <CR><LF>.<CR><LF>")
            reply = await self._message()
        finally:
            self.reading = False
            self._let_go()
            self.envelope = self._create_envelope()
            self._reception.crowd.touch(self)
        await self.push(reply)
        if reply.startswith("421"):
            self._hang_up()
        elif self._reception.closing:
            self.close(f"421 4.3.2 {self.hostname} Going down, come again")

    async def smtp_VRFY(self, arg: str | None) -> None:  # noqa: N802
        """VRFY: we do not know who exists elsewhere (RFC 5321 3.5.3)."""
        await self.push("252 2.5.0 Cannot verify, but send it and see" if arg else "501 5.5.4 VRFY <address>")

    async def smtp_HELP(self, arg: str | None) -> None:  # noqa: ARG002, N802
        """HELP: what one can say here."""
        await self.push("214 2.0.0 EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT")

    async def _greeted_well(self, verb: str, hostname: str | None) -> bool:
        if hostname and _GREETED.fullmatch(hostname):
            return True
        await self.push(f"501 5.5.4 {verb} and then the name or the address literal of your host")
        return False

    # -- the envelope ---------------------------------------------------------------------------------------------

    def _begin(self, arg: str | None) -> str:
        try:
            argument = read_argument(arg, "FROM:")
        except SyntaxProblem as error:
            return f"501 5.5.4 MAIL: {error}"
        if refusal := self._wrong_parameters(argument):
            return refusal
        try:
            dsn = of_mail(argument.parameters)
        except SyntaxProblem as error:
            return f"501 5.5.4 MAIL: {error}"
        declared = "SMTPUTF8" in argument.parameters
        try:
            sender = parse_path(argument.path, sender=True, qualify=self.hostname)
        except AddressError as error:
            self._refuse("bad sender address", str(error))
            return f"553 5.1.7 {_reason(error)}"
        if sender.smtputf8 and not declared:
            return "553 5.6.7 This sender needs the SMTPUTF8 parameter"
        refusal, why = self._reception.begin(self._peer, self._login, int(argument.parameters.get("SIZE") or 0))
        if refusal:
            self._refuse("not taking mail", why)
            return refusal
        self._mail.sender, self._mail.declared_utf8, self._mail.dsn = sender, declared, dsn
        self._mail.mail_from = str(sender)
        self._began = self.loop.time()
        self._reception.crowd.touch(self)
        return "250 2.1.0 Ok"

    def _wrong_parameters(self, argument: Argument) -> str:
        """Give the reply to parameters of MAIL that cannot be kept, or ""."""
        assert self.session is not None
        if argument.parameters and not self.session.extended_smtp:
            return "555 5.5.4 Parameters come after EHLO, not after HELO"
        for name, value in argument.parameters.items():
            if name == "SIZE":
                if value is None or not re.fullmatch(r"[0-9]{1,20}", value):
                    return "501 5.5.4 SIZE is written SIZE=octets"
                if int(value) > self._reception.rules.max_message_size:
                    self._refuse("too big", f"{int(value)} octets announced")
                    return _TOO_BIG.format(self._reception.rules.max_message_size)
            elif name == "BODY":
                if (value or "").upper() not in {"7BIT", "8BITMIME"}:
                    return "501 5.5.4 BODY is 7BIT or 8BITMIME"
            elif name == "SMTPUTF8":
                if value is not None:
                    return "501 5.5.4 SMTPUTF8 takes no value"
            elif name == "AUTH" and self._login:
                pass  # RFC 4954 5: taken, and not believed; we know who has logged in
            elif name not in OF_MAIL:
                return "555 5.5.4 Only SIZE, BODY, SMTPUTF8, RET and ENVID are known here"
        return ""

    def _address(self, arg: str | None) -> str:
        """Add a recipient and give the reply."""
        try:
            argument = read_argument(arg, "TO:")
        except SyntaxProblem as error:
            return f"501 5.5.4 RCPT: {error}"
        assert self.session is not None
        if argument.parameters and not self.session.extended_smtp:
            return "555 5.5.4 Parameters come after EHLO, not after HELO"
        if not argument.parameters.keys() <= OF_RCPT:
            return "555 5.5.4 Only NOTIFY and ORCPT are known here"
        try:
            wishes = of_recipient(argument.parameters)
        except SyntaxProblem as error:
            return f"501 5.5.4 RCPT: {error}"
        mail = self._mail
        if len(mail.recipients) >= MAX_RECIPIENTS:
            return f"452 4.5.3 At most {MAX_RECIPIENTS} recipients at a time; send it again for the others"
        try:
            recipient = parse_path(argument.path, qualify=self.hostname)
        except AddressError as error:
            self._refuse("bad recipient address", str(error))
            return f"501 5.1.3 {_reason(error)}"
        if recipient.smtputf8 and not mail.declared_utf8:
            return "553 5.6.7 This recipient needs the SMTPUTF8 parameter of MAIL"
        if str(recipient) not in mail.recipients:
            refusal, why = self._reception.recipient(self._peer, self._login, is_first=not mail.recipients)
            if refusal:
                self._refuse("too many recipients", why)
                return refusal
        mail.recipients[str(recipient)] = recipient
        mail.wishes[str(recipient)] = wishes
        return "250 2.1.5 Ok"

    async def _deny(self, arg: str | None) -> None:
        """Refuse a stranger's recipient, however it is written (RFC 5321 7.9)."""
        self._refuse("relaying denied", recipient=(arg or "").removeprefix("TO:"))
        await self.push("550 5.7.1 Relaying denied")

    def _refuse(self, why: str, detail: str = "", *, recipient: str = "") -> None:
        self._reception.refusals.note(
            f"smtp {self._peer}", why, sender=str(self._mail.sender or ""), recipient=recipient, detail=detail
        )

    # -- the message ----------------------------------------------------------------------------------------------

    async def _message(self) -> str:
        """Read the message, judge it, queue it; give the reply."""
        rules, room = self._reception.rules, self._reception.storeroom
        incoming = self._incoming = room.begin(client_name(self._peer, self._login))
        try:
            found = await read_message(
                self._reader,  # type: ignore[arg-type]  # a Stream: see _cb_client_connected
                incoming,
                limit=rules.max_message_size,
                least_rate=self._reception.least_rate,
                heard=self._reset_timeout,
            )
        except TooSlow as error:
            self._refuse("too slow", str(error))
            self._reception.slow(self._peer, self._login)
            return f"421 4.4.2 {self.hostname} Too slow: {error}; closing the connection"
        except TooLong:
            self._refuse("too big", f"more than {incoming.size} octets")
            return f"421 4.3.4 {self.hostname} {_TOO_BIG.format(rules.max_message_size)[10:]}"
        except OnlyLineEnds:
            self.close(f"421 4.5.2 {self.hostname} Nothing but line ends is no message")
            raise ConnectionResetError("the client sends only line ends") from None
        if found.refusal:
            self._refuse(found.refusal, found.why)
            if found.refusal == "too big":
                return _TOO_BIG.format(rules.max_message_size)
            return FULL if found.refusal == "no room" else SICK
        # From here to the reply the client waits, and the time it may take for a command starts anew.
        self._reset_timeout()
        return await self._taken(incoming)

    async def _taken(self, incoming: Incoming) -> str:
        """Judge and queue what has come; give the reply."""
        mail = self._mail
        assert self.session is not None
        assert mail.sender is not None
        submitted = Submitted(
            chunks=incoming.pieces(),
            sender=mail.sender,
            recipients=tuple(mail.recipients.values()),
            dsn=mail.dsn,
            wishes=tuple(mail.wishes.values()),  # as many as recipients, and in their order
            protocol=self._protocol(),
            greeted=self.session.host_name or "unknown",
            peer=self._peer,
            login=self._login,
        )
        work = partial(
            submitted.message, hostname=self.hostname, rules=self._reception.rules, at=self._reception.clock.now()
        )
        try:
            return await self._reception.take(incoming, work)
        except Refused as refused:
            self._refuse(refused.why, refused.detail)
            return refused.reply
        except Exception:  # noqa: BLE001 - a connection error among them would be taken for the client's leaving
            _LOG.exception("a message from %s could not be judged", self._peer)
            return SICK

    def _protocol(self) -> str:
        """What the Received field says the message came with (RFC 5321 4.4, RFC 6531 4.3)."""
        assert self.session is not None
        return "UTF8SMTP" if self._mail.declared_utf8 else "ESMTP" if self.session.extended_smtp else "SMTP"

    def _let_go(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None

    def _hang_up(self) -> None:
        if self.transport is not None:
            self.transport.close()


def _reason(error: AddressError) -> str:
    """The reason as a reply may carry it: one line, well within 512 octets (RFC 5321 4.5.3.1.5)."""
    return clean(str(error), 120).encode("ascii", "replace").decode()
