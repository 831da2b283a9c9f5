"""One SMTP session: greeted, secured, and then one transaction after the other.

Exceptions stop here: what a transaction comes to is an Outcome for each recipient, judged by the code of the reply
alone (RFC 5321 4.2.1, 4.3.2).
"""

import os
import re
import ssl
from collections.abc import Callable
from typing import Literal

from aiosmtplib.auth import auth_login_encode, auth_plain_encode
from aiosmtplib.esmtp import parse_esmtp_extensions
from msgspec import Struct
from msgspec.structs import replace

from engine.config import Timeouts
from engine.outcome import Outcome
from engine.queue.queue import NO_WISHES, Ret, Wishes
from engine.relayer.dialler import Dialler
from engine.relayer.transcript import Transcript
from engine.relayer.wire import Reply, Wire, WireError
from engine.routes import Target

_DIGITS = re.compile(r"[0-9]{1,20}")

Phase = Literal[
    "connecting", "greeting", "hello", "TLS", "AUTH",
    "MAIL", "RCPT", "DATA", "body", "reply", "idle", "QUIT", "ended",
]  # fmt: skip
Form = Literal["SMTP", "ESMTP"]


class Mail(Struct, frozen=True, kw_only=True):
    """What one transaction carries: content with CRLF line ends, and whether its envelope or headers need more.

    `ret`, `envid` and the wishes of each recipient (or ()) are as the sender gave them.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    eight_bit: bool = False
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""
    wishes: tuple[Wishes, ...] = ()


class SessionError(Exception):
    """No session could be had with this target; `outcome` is transient. `unreachable`: the host did not answer."""

    def __init__(self, outcome: Outcome, *, unreachable: bool = False) -> None:
        super().__init__(outcome.line)
        self.outcome = outcome
        self.unreachable = unreachable


class TlsBroken(SessionError):
    """The handshake failed on a peer that offers STARTTLS."""


class Session:
    """A conversation with one target. `phase` can be read at any time; `on_phase` is told of each change."""

    def __init__(
        self,
        target: Target,
        *,
        hostname: str,
        timeouts: Timeouts,
        transcript: Transcript,
        on_phase: Callable[[Phase], None],
        form: Form = "ESMTP",
    ) -> None:
        self._target = target
        self._hostname = hostname.encode("ascii")
        self._timeouts = timeouts
        self._transcript = transcript
        self._on_phase = on_phase
        self._form = form
        self._wire = Wire(transcript)
        self._extensions: dict[str, str] = {}
        self._auth: list[str] = []
        self.phase: Phase = "connecting"
        self.dotted = False  # the final dot of the current transaction is on its way
        self.tls = ""

    @property
    def usable(self) -> bool:
        """Whether another transaction can begin."""
        return self._wire.is_open

    # -- opening --------------------------------------------------------------------------------------------------

    async def open(self, dialler: Dialler) -> None:
        """Connect, greet, secure and authenticate. Raises SessionError, TlsBroken; the connection is closed then."""
        try:
            await self._connect(dialler)
            await self._hello()
            await self._secure()
            await self._authenticate()
            self._enter("idle")
        except WireError as error:
            raise self._unusable(str(error), unreachable=self.phase == "greeting") from error
        except BaseException:
            self.close()
            raise

    async def _connect(self, dialler: Dialler) -> None:
        target, timeouts = self._target, self._timeouts
        self._enter("connecting")
        self._transcript.add("=", f"connecting to {target.host} [{target.address}]:{target.port}")
        try:
            sock = await dialler.dial(target.address, target.port, timeouts.connect)
        except TimeoutError as error:
            why = f"connect to [{target.address}]:{target.port}: no answer within {timeouts.connect:.0f} s"
            raise self._unusable(why, unreachable=True) from error
        except OSError as error:
            why = f"connect to [{target.address}]:{target.port}: {_reason(error)}"
            raise self._unusable(why, unreachable=True) from error
        self._enter("greeting")
        greeting = await self._wire.open(sock, timeouts.greeting)
        if greeting.code != 220:
            raise self._refused(greeting)

    async def _hello(self) -> None:
        """RFC 5321 3.2: EHLO, and HELO where that is not known."""
        self._enter("hello")
        self._extensions, self._auth = {}, []
        if self._form == "ESMTP":
            reply = await self._wire.command(b"EHLO", self._hostname, timeout=self._timeouts.hello)
            if reply.code == 250:
                self._extensions, self._auth = parse_esmtp_extensions(reply.text)
                return
            if not 500 <= reply.code <= 599 or not self._wire.is_open:
                raise self._refused(reply)
        reply = await self._wire.command(b"HELO", self._hostname, timeout=self._timeouts.hello)
        if reply.code != 250:
            raise self._refused(reply)

    async def _secure(self) -> None:
        target = self._target
        if target.tls == "none":
            return
        if "starttls" not in self._extensions:
            if target.tls == "required":
                raise self._unusable("TLS is required, but the host does not offer STARTTLS", enhanced="4.7.4")
            self._transcript.add("=", "no STARTTLS is offered: going on in the clear")
            return
        self._enter("TLS")
        try:
            declined = await self._wire.start_tls(_context(target), target.host, self._timeouts.tls)
        except WireError as error:
            outcome = Outcome.transient(str(error), enhanced="4.7.5", host=target.host, phase=self.phase)
            raise TlsBroken(outcome) from error
        if declined is not None:
            if target.tls == "required" or declined.code == 421:
                raise self._refused(declined)
            self._transcript.add("=", "going on without TLS")
            return
        self.tls = self._wire.tls
        await self._hello()  # RFC 3207 4.2: what was said before TLS counts for nothing

    async def _authenticate(self) -> None:
        """RFC 4954. A refused password is our fault, not the message's: transient."""
        target = self._target
        if not target.username:
            return
        self._enter("AUTH")
        if not self.tls:
            raise self._unusable("the route has a password, and the host offers no TLS to send it under")
        timeout = self._timeouts.hello
        if "plain" in self._auth:
            words = (b"AUTH", b"PLAIN", auth_plain_encode(target.username, target.password))
            reply = await self._wire.command(*words, timeout=timeout, shown="AUTH PLAIN ********")
        elif "login" in self._auth:
            name, password = auth_login_encode(target.username, target.password)
            reply = await self._wire.command(b"AUTH", b"LOGIN", name, timeout=timeout, shown="AUTH LOGIN ********")
            if reply.code == 334:
                reply = await self._wire.command(password, timeout=timeout, shown="********")
        else:
            raise self._unusable("the route has a password, and the host offers neither AUTH PLAIN nor LOGIN")
        if reply.code != 235:
            raise self._refused(reply)

    # -- transactions ---------------------------------------------------------------------------------------------

    async def deliver(self, mail: Mail) -> list[Outcome]:
        """Send one message; give an outcome for each recipient, in their order. Raises nothing of the network's."""
        self.dotted = False
        impossible = self._impossible(mail)
        if impossible is not None:
            return [impossible] * len(mail.recipients)
        outcomes: list[Outcome | None] = [None] * len(mail.recipients)
        try:
            rest = await self._transact(mail, outcomes)
        except WireError as error:
            rest = self._lost(str(error))
        if self.usable:
            self._enter("idle")
        return [outcome or rest for outcome in outcomes]

    def _impossible(self, mail: Mail) -> Outcome | None:
        """What the peer has said it cannot take is not sent."""
        limit = self._extensions.get("size", "").strip()
        if _DIGITS.fullmatch(limit) and 0 < int(limit) < len(mail.content):  # RFC 1870 5
            return self._ours(
                "permanent", f"the message has {len(mail.content)} bytes, the host takes {limit}", "5.3.4"
            )
        if mail.smtputf8 and "smtputf8" not in self._extensions:  # RFC 6531 3.2
            return self._ours("permanent", "the message needs SMTPUTF8, which the host does not offer", "5.6.7")
        return None

    async def _transact(self, mail: Mail, outcomes: list[Outcome | None]) -> Outcome:
        """MAIL, RCPT for each, DATA. Fills the outcomes of refused recipients, gives that of all others."""
        timeouts = self._timeouts
        self._enter("MAIL")
        reply = await self._wire.command(*self._mail_command(mail), timeout=timeouts.mail)
        if not 200 <= reply.code <= 299:
            return await self._abandon(reply)
        self._enter("RCPT")
        for number, recipient in enumerate(mail.recipients):
            wishes = mail.wishes[number] if mail.wishes else NO_WISHES
            reply = await self._wire.command(*self._rcpt_command(recipient, wishes), timeout=timeouts.rcpt)
            if reply.code == 421:
                return await self._abandon(reply)
            if not 200 <= reply.code <= 299:
                outcomes[number] = self._at_rcpt(reply)
        if all(outcome is not None for outcome in outcomes):
            return await self._abandon(reply)  # each has an outcome of its own already
        self._enter("DATA")
        reply = await self._wire.command(b"DATA", timeout=timeouts.data)
        if reply.code != 354:
            return await self._abandon(reply)
        self._enter("body")
        early = await self._wire.send_body(mail.content, timeouts.block)
        if early is not None:
            return self._not_delivered(early)
        self._enter("reply")
        self.dotted = True
        reply = await self._wire.send_end(timeouts.reply)
        self.dotted = False
        if reply.code == 421:
            self.close()
        return self._judge(reply)

    def _mail_command(self, mail: Mail) -> list[bytes]:
        words = [b"MAIL", b"FROM:<" + mail.sender.encode("utf-8") + b">"]
        if "size" in self._extensions:
            words.append(b"SIZE=%d" % len(mail.content))
        if mail.eight_bit and "8bitmime" in self._extensions:  # RFC 6152 3
            words.append(b"BODY=8BITMIME")
        if mail.smtputf8:
            words.append(b"SMTPUTF8")
        if "dsn" in self._extensions:  # RFC 3461 5.2.1: what the sender asked for goes on as it came
            if mail.ret:
                words.append(b"RET=" + mail.ret.encode("ascii"))
            if mail.envid:
                words.append(b"ENVID=" + mail.envid.encode("ascii"))
        return words

    def _rcpt_command(self, recipient: str, wishes: Wishes) -> list[bytes]:
        words = [b"RCPT", b"TO:<" + recipient.encode("utf-8") + b">"]
        if "dsn" in self._extensions:
            if wishes.notify:
                words.append(b"NOTIFY=" + wishes.notify.encode("ascii"))
            if wishes.orcpt:
                words.append(b"ORCPT=" + wishes.orcpt.encode("ascii"))
        return words

    async def _abandon(self, reply: Reply) -> Outcome:
        """The transaction ends before its message: clear the peer's buffers so that the next can begin."""
        outcome = self._not_delivered(reply)
        if reply.code == 421:  # RFC 5321 3.8: the peer is closing the connection
            self.close()
        elif self._wire.is_open:
            try:
                reset = await self._wire.command(b"RSET", timeout=self._timeouts.mail)
            except WireError:
                return outcome  # the outcome stands; the wire has closed itself
            if reset.code != 250:
                self.close()
        return outcome

    # -- closing --------------------------------------------------------------------------------------------------

    async def quit(self) -> None:
        """Say QUIT, wait a moment for the answer, close."""
        if self._wire.is_open:
            self._enter("QUIT")
            try:
                await self._wire.command(b"QUIT", timeout=self._timeouts.quit)
            except WireError:
                self._transcript.add("=", "closed without an answer to QUIT")
        self.close()

    def close(self) -> None:
        """Close at once."""
        self._wire.close()

    # -- judging --------------------------------------------------------------------------------------------------

    def _judge(self, reply: Reply) -> Outcome:
        outcome = Outcome.of_reply(reply.code, reply.text, host=self._target.host, phase=self.phase)
        notifies = outcome.kind == "delivered" and "dsn" in self._extensions
        return replace(outcome, peer_notifies=True) if notifies else outcome

    def _at_rcpt(self, reply: Reply) -> Outcome:
        """552 here means too many recipients: those that are left come in another transaction (RFC 5321 4.5.3.1.10)."""
        outcome = self._judge(reply)
        return replace(outcome, kind="transient") if reply.code == 552 else outcome

    def _not_delivered(self, reply: Reply) -> Outcome:
        """A reply that ended the transaction early: a 2xx or 3xx where it does not belong delivers nothing."""
        outcome = self._judge(reply)
        if outcome.kind != "delivered":
            return outcome
        return replace(outcome, kind="transient", enhanced="", text=f"unexpected reply: {outcome.text}")

    def _lost(self, why: str) -> Outcome:
        return Outcome(
            kind="transient",
            enhanced="4.4.2",
            text=why,
            host=self._target.host,
            phase=self.phase,
            may_duplicate=self.dotted,
        )

    def _ours(self, kind: Literal["permanent"], text: str, enhanced: str) -> Outcome:
        return Outcome(kind=kind, enhanced=enhanced, text=text, host=self._target.host, phase="MAIL")

    def _refused(self, reply: Reply) -> SessionError:
        """A host that will not talk to us is no verdict on the mail: whatever the code, transient."""
        said = Outcome.of_reply(reply.code, reply.text, host=self._target.host, phase=self.phase)
        self.close()
        return SessionError(replace(said, kind="transient"))

    def _unusable(self, why: str, *, unreachable: bool = False, enhanced: str = "4.4.1") -> SessionError:
        self.close()
        self._transcript.add("=", why)
        outcome = Outcome.transient(why, enhanced=enhanced, host=self._target.host, phase=self.phase)
        return SessionError(outcome, unreachable=unreachable)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._on_phase(phase)


def _context(target: Target) -> ssl.SSLContext:
    """TLS against eavesdroppers: names and certificates of exchanges prove nothing without a policy (RFC 7435).

    A password is given to nobody but the host it is for, so for one the certificate must be right (RFC 8314 3).
    """
    if target.username:
        return ssl.create_default_context(cafile=str(target.ca_file) if target.ca_file else None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    # The loops word a failed connect each in their own way; the system's words are the ones people know.
    return os.strerror(error.errno).lower() if error.errno else str(error)
