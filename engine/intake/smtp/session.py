"""One SMTP session with a client: what is said, who may send, and what is taken (RFC 5321, RFC 2920).

A command is a method of the session that gives the reply, or raises it as Refused. The octets are the connection's.

The way of a message, 1 of 7: it comes in here. On to engine.queue.contract.
"""

import asyncio
import logging
import math
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, ClassVar

from engine.intake.errors import Refused
from engine.intake.reply import PAUSED, SICK, Reply, drained, going_down, goodbye
from engine.intake.smtp.chunk import MALFORMED, begins_one, read_chunk
from engine.intake.smtp.command import TOO_LONG, read_command
from engine.intake.smtp.connection import Connection, Gone, LineTooLong
from engine.intake.smtp.incoming import Incoming, client_name
from engine.intake.smtp.occupancy import Door
from engine.intake.smtp.reader import Reader
from engine.intake.smtp.reception import Reception
from engine.intake.smtp.submitted import Submitted
from engine.intake.smtp.transaction import Transaction, begun
from engine.model.refusal import Refusal

log = logging.getLogger(__name__)

IDLE = 300.0  # seconds a client may take for its next command, RFC 5321 4.5.3.2.7
AT_WORK = 300.0  # seconds for which a transaction without its message keeps a session from making room for others
MAX_ERRORS = 20  # commands refused to a stranger before the session ends
MAX_UNKNOWN = 5  # commands that nobody knows: with so many the session ends

Method = Callable[[Any, str | None], Coroutine[Any, Any, Reply | None]]

_GREETED = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}", re.ASCII)


class Session:
    """The server's side of one connection.

    `reading` is true while a message is being read or committed; `ended` is done when the connection is gone.
    `commands` are those that are known here, each a method that is given what follows its verb.
    """

    door: ClassVar[Door] = "relay"

    def __init__(
        self, reception: Reception, sessions: set["Session"], *, idle: float = IDLE, is_secure: bool = False
    ) -> None:
        self.connection = Connection(self, idle=idle, is_secure=is_secure)
        self.hostname = reception.hostname
        self.reading = False
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._reception = reception
        self._sessions = sessions
        self._task: asyncio.Task[None] | None = None
        self._peer = ""
        self._login = ""
        self._trusted = False
        self._greeted = ""
        self._extended = False
        self._mail: Transaction | None = None
        self._began = 0.0
        self._reader: Reader | None = None
        self._errors = 0
        self._unknown = 0

    # -- the connection -------------------------------------------------------------------------------------------

    def arrive(self, raw: asyncio.Transport, peer: str, *, known: bool) -> None:
        """A client has come, from this address; it is met once the connection is made, after TLS where that is first.

        `known`: it may send without further ado.
        """
        self._peer, self._trusted = peer, known
        self.connection.arrive(raw, peer)
        self._sessions.add(self)
        self._reception.occupancy.enter(self, peer, known=known, door=self.door)

    def begin(self) -> None:
        """The client is there: talk with it."""
        self._task = self._loop.create_task(self._converse())

    @property
    def at_work(self) -> bool:
        """Whether it is sending a message, in which nobody we know is interrupted to make room for others.

        A stranger is at no work of ours: it can begin a transaction as anybody can, and nobody is kept out by that. And
        one that goes on and on without its message counts no more: else one could sit in it for ever.
        """
        opened = self._mail is not None and self._loop.time() - self._began < AT_WORK
        return self._trusted and (self.reading or opened)

    def depart(self) -> None:
        """The client has gone, or never got as far as a conversation."""
        self._sessions.discard(self)
        self._reception.occupancy.leave(self)
        if not self.ended.done():
            self.ended.set_result(None)

    def lost(self) -> None:
        """The client has gone, or we have closed. A commit that is under way goes on without the session."""
        self.depart()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def late(self) -> None:
        """The client has taken too long for a command, or for its message."""
        said = "Too slow, closing the connection"
        is_message = self._mail is not None and bool(self._mail.recipients)  # and no chunk that is thrown away
        if self._reader is not None and is_message and (why := self._reader.too_slow()):
            self._tell("too slow", why)
            self._reception.slow(self._peer, self._login)
            said = f"Too slow: {why}; closing the connection"
        self.close(goodbye("4.4.2", self.hostname, said))

    def close(self, farewell: Reply) -> None:
        """Say why and hang up, now; a client that does not read is cut off."""
        self.connection.close(farewell)

    def abort(self) -> None:
        """Hang up without a word."""
        self.connection.abort()

    # -- the conversation -----------------------------------------------------------------------------------------

    async def _converse(self) -> None:
        """Greet, and answer one command after the other, until the client or we have had enough."""
        try:
            await self._answer(self._greet())
            while True:
                try:
                    line = await self.connection.line()
                except LineTooLong as error:
                    if begins_one(error.begun):
                        self._say(MALFORMED)
                        break
                    await self.connection.skip_line()
                    self._say(TOO_LONG)
                else:
                    await self._answer(self._obey(line))
                if self._reception.closing:
                    self._say(going_down(self.hostname))
        except Gone:
            pass
        finally:
            self._forget()
            self.connection.finish()

    async def _answer(self, command: Coroutine[Any, Any, Reply | None]) -> None:
        """Carry out a command, and say what came of it. Raises Gone."""
        try:
            reply = await command
        except Refused as refused:
            reply = self._told(refused)
        except Gone:
            raise
        except Exception:
            log.exception("SMTP session with %s failed", self._peer)
            reply = SICK
        if reply is not None:
            self._say(reply)

    def _say(self, reply: Reply) -> None:
        if reply.is_permanent and not self._trusted:
            self._errors += 1
            if self._errors > MAX_ERRORS:
                reply = goodbye("4.7.0", self.hostname, "Too many errors")
        self.connection.say(reply)

    async def _obey(self, line: bytes) -> Reply | None:
        """Do what a line asks for."""
        try:
            command = read_command(line)
        except Refused:
            if begins_one(line):
                return MALFORMED
            raise
        method = self.commands.get(command.verb)
        if method is not None:
            # Between the chunks of a message its time goes on.
            self.connection.heard(until=self._reader.until if self._reader is not None else math.inf)
            return await method(self, command.argument)
        if begins_one(line):  # octets follow, and nobody knows how many
            return MALFORMED
        if command.is_strange:  # HTTP, or a header field: who sends that means another server, or was tricked into this
            self._tell("no SMTP", "a request of HTTP or a line of a header came in place of a command")
            return goodbye("4.7.0", self.hostname, "This is SMTP, and that was not; goodbye")
        self._unknown += 1
        if self._unknown >= MAX_UNKNOWN:
            return Reply(502, "5.5.1", "Too many unrecognized commands, goodbye.", closes=True)
        return Reply(500, "", f'Error: command "{command.verb}" not recognized')

    async def _in_turn(self, when: str) -> None:
        """Send away who has sent something that it could not know to be wanted (RFC 2920 3.1, as Postfix does).

        Whoever writes a whole conversation blindly, such as a web server that was tricked into it, is no mail client.
        EHLO and DATA end a group of commands, and the greeting comes first; a client that keeps to that is never met.
        NOOP and VRFY should end one as well, but let nothing happen that a later command could rely on.
        """
        if early := await self.connection.early():
            reply = Reply(554, "5.5.0", f"{self.hostname} You spoke out of turn, {when} (RFC 2920)", closes=True)
            raise Refused(reply, "spoke out of turn", f"{early} octets {when}")

    def _told(self, refused: Refused) -> Reply:
        if refused.why:
            self._tell(refused.why, refused.detail, reply=refused.reply)
        return refused.reply

    def _tell(
        self, why: str, detail: str = "", *, sender: str = "", recipient: str = "", reply: Reply | None = None
    ) -> None:
        """Tell in the events what was refused; `sender` where it is not that of the transaction."""
        sender = sender or (str(self._mail.sender) if self._mail is not None else "")
        said = f"{reply.code} {reply.enhanced}".strip() if reply is not None else ""
        self._reception.refusals.note(
            Refusal(peer=f"smtp {self._peer}", why=why, detail=detail, sender=sender, recipient=recipient, reply=said)
        )

    # -- commands -------------------------------------------------------------------------------------------------

    async def _greet(self) -> Reply:
        await self._in_turn("before the greeting")
        if self._reception.is_drained:
            return drained(self.hostname)
        return Reply(220, "", f"{self.hostname} ESMTP smarthost")

    async def helo(self, name: str | None) -> Reply:
        """HELO: the old greeting."""
        await self._in_turn("after HELO")
        self._greeted_by("HELO", name)
        self._extended = False
        return Reply(250, "", self.hostname)

    async def ehlo(self, name: str | None) -> Reply:
        """EHLO: the greeting, answered with what we offer (RFC 5321 4.1.1.1)."""
        await self._in_turn("after EHLO")
        self._greeted_by("EHLO", name)
        self._extended = True
        return Reply(250, "", self.hostname, more=(*self._offers(), "HELP"))

    async def mail(self, argument: str | None) -> Reply:
        """MAIL: begin a transaction (RFC 5321 4.1.1.2)."""
        self._need_greeting("HELO")
        if self._mail is not None:
            return Reply(503, "5.5.1", "A transaction is open already; RSET ends it")
        if self._reception.is_drained:
            return drained(self.hostname)
        if self._reception.paused:
            raise Refused(PAUSED, "not taking mail", self._reception.paused)
        mail = begun(
            argument,
            hostname=self.hostname,
            largest=self._reception.rules.max_message_size,
            is_extended=self._extended,
            has_login=bool(self._login),
        )
        self._check_sender(mail)
        self._reception.begin(self._peer, self._login, mail.octets)
        self._mail, self._began = mail, self._loop.time()
        self._reception.occupancy.touch(self)
        return Reply(250, "2.1.0", "Ok")

    async def rcpt(self, argument: str | None) -> Reply:
        """RCPT: one more recipient (RFC 5321 4.1.1.3); none of a stranger's, however it is written (7.9)."""
        self._need_greeting("HELO")
        if self._mail is None:
            return Reply(503, "5.5.1", "MAIL comes before RCPT")
        if not self._trusted:
            reply = Reply(550, "5.7.1", "Relaying denied")
            self._tell("relaying denied", recipient=(argument or "").removeprefix("TO:"), reply=reply)
            return reply
        if self._reader is not None:
            return Reply(503, "5.5.1", "RCPT comes before BDAT")
        known = self._mail.recipients
        recipient = self._mail.read_recipient(argument, hostname=self.hostname, is_extended=self._extended)
        if recipient.name not in known:
            self._reception.recipient(self._peer, self._login, is_first=not known)
            if self._reception.refusing.is_on:
                queued = self._reception.preparation.recipient(recipient.address)
                if no := await self._reception.refusing.reply(self._mail.sender, queued):
                    self._tell("suppressed recipient", no.text, recipient=recipient.name, reply=no)
                    return no
        known[recipient.name] = recipient
        return Reply(250, "2.1.5", "Ok")

    async def data(self, argument: str | None) -> Reply:
        """DATA: read the message and queue it (RFC 5321 4.1.1.4)."""
        if argument:
            return Reply(501, "5.5.4", "DATA takes no argument")
        await self._in_turn("after DATA")
        self._need_greeting("HELO")
        if self._mail is None or not self._mail.recipients:
            return Reply(503, "5.5.1", "RCPT comes before DATA")
        if self._reader is not None:  # RFC 3030 2: one or the other
            return Reply(503, "5.5.1", "The message has begun to come with BDAT")
        self.reading = True
        try:
            self._say(Reply(354, "", "End the message with <CR><LF>.<CR><LF>"))
            self._reader = self._new_reader()
            await self._reader.read()
            return await self._queued(self._mail, self._reader.incoming, by_octets=False)
        except Refused as refused:
            return self._told(refused)  # while it is known whose message it is
        finally:
            self.reading = False
            self._forget()
            self._reception.occupancy.touch(self)

    async def bdat(self, argument: str | None) -> Reply:
        """BDAT: read a chunk of the message, and with the last queue it (RFC 3030 2). Commands may follow at once.

        A chunk that is refused ends the transaction: what follows it in the same flight is read, and is of none.
        """
        chunk = read_chunk(argument)
        is_in_turn = self._extended and self._mail is not None and bool(self._mail.recipients)
        goes_on = False
        self.reading = is_in_turn
        try:
            if self._reader is None:
                self._reader = self._new_reader()
            if not is_in_turn:
                self._reader.refuse(Refused(Reply(503, "5.5.1", "EHLO, MAIL and RCPT come before BDAT")))
            await self._reader.read_chunk(chunk)
            if self._mail is not None and chunk.is_last:
                return await self._queued(self._mail, self._reader.incoming, by_octets=True)
            goes_on = True
            return Reply(250, "2.0.0", f"{chunk.octets} octets taken")
        except Refused as refused:
            return self._told(refused)
        finally:
            self.reading = False
            if not goes_on:
                self._forget()
            self._reception.occupancy.touch(self)

    async def rset(self, argument: str | None) -> Reply:
        """RSET: forget the transaction (RFC 5321 4.1.1.5)."""
        if argument:
            return Reply(501, "", "Syntax: RSET")
        self._forget()
        return Reply(250, "", "OK")

    async def noop(self, argument: str | None) -> Reply:  # noqa: ARG002
        """NOOP: nothing (RFC 5321 4.1.1.9)."""
        return Reply(250, "", "OK")

    async def vrfy(self, argument: str | None) -> Reply:
        """VRFY: we do not know who exists elsewhere (RFC 5321 3.5.3)."""
        if argument:
            return Reply(252, "2.5.0", "Cannot verify, but send it and see")
        return Reply(501, "5.5.4", "VRFY <address>")

    async def expn(self, argument: str | None) -> Reply:  # noqa: ARG002
        """EXPN: there are no lists here (RFC 5321 3.5.3)."""
        return Reply(502, "", "EXPN not implemented")

    async def help_(self, argument: str | None) -> Reply:  # noqa: ARG002
        """HELP: what one can say here."""
        return Reply(214, "2.0.0", "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT")

    async def quit_(self, argument: str | None) -> Reply:
        """QUIT: the end (RFC 5321 4.1.1.10)."""
        return Reply(501, "", "Syntax: QUIT") if argument else Reply(221, "", "Bye", closes=True)

    commands: ClassVar[Mapping[str, Method]] = {
        "HELO": helo, "EHLO": ehlo, "MAIL": mail, "RCPT": rcpt, "DATA": data, "BDAT": bdat, "RSET": rset,
        "NOOP": noop, "VRFY": vrfy, "EXPN": expn, "HELP": help_, "QUIT": quit_,
    }  # fmt: skip

    def _offers(self) -> tuple[str, ...]:
        """The extensions that EHLO is answered with."""
        size = f"SIZE {self._reception.rules.max_message_size}"
        return ("PIPELINING", size, "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING")

    def _greeted_by(self, verb: str, name: str | None) -> None:
        """This is the client's name; what it had begun is forgotten (RFC 5321 4.1.4). Raises Refused."""
        if not name or not _GREETED.fullmatch(name):
            raise Refused(Reply(501, "5.5.4", f"{verb} and then the name or the address literal of your host"))
        self._greeted = name
        self._forget()

    def _forget(self) -> None:
        """There is no transaction any more, and nothing of its message."""
        self._mail = None
        if self._reader is not None:
            self._reader.incoming.close()
            self._reader = None

    def _need_greeting(self, verb: str) -> None:
        if not self._greeted:
            raise Refused(Reply(503, "", f"Error: send {verb} first"))

    def _check_sender(self, mail: Transaction) -> None:
        """Whether this client may send as whom it says. Who is known by the address alone may as anybody."""

    # -- the message ----------------------------------------------------------------------------------------------

    def _new_reader(self) -> Reader:
        """Who reads a message that begins to come."""
        return Reader(
            self.connection,
            self._reception.storeroom.begin(client_name(self._peer, self._login)),
            hostname=self.hostname,
            limit=self._reception.rules.max_message_size,
            least_rate=self._reception.least_rate,
        )

    async def _queued(self, mail: Transaction, incoming: Incoming, *, by_octets: bool) -> Reply:
        """Judge a message that has come whole, and queue it. Raises Refused, Gone.

        Whatever it waits for, be it the client, the disk, a slot or the store, it waits no longer than the client's
        time lasts: then `late` closes the connection, and that ends this. A commit that has begun goes on to its end.
        """
        rules = self._reception.rules
        submitted = Submitted(
            chunks=incoming.pieces(),
            sender=mail.sender,
            recipients=tuple(recipient.address for recipient in mail.recipients.values()),
            mail_dsn=mail.dsn,
            dsn=tuple(recipient.dsn for recipient in mail.recipients.values()),
            protocol=self._protocol(mail),
            greeted=self._greeted,
            peer=self._peer,
            secured=self.connection.secured,
            by_octets=by_octets,
            login=self._login,
        )
        judge = partial(submitted.message, self._reception.preparation, rules, self._reception.clock.now())
        self.connection.flush()
        return await self._reception.take(incoming, judge)

    def _protocol(self, mail: Transaction) -> str:
        """What the Received field says the message came with (RFC 5321 4.4, RFC 6531 4.3)."""
        return "UTF8SMTP" if mail.declared_utf8 else "ESMTP" if self._extended else "SMTP"
