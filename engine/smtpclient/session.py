"""One SMTP session: greeted, secured, and then one transaction after the other.

Exceptions stop here: what a transaction comes to is an Outcome for each recipient, judged by the code of the reply
alone (RFC 5321 4.2.1, 4.3.2).

The way of a message, 6 of 7: here it is sent. From engine.delivery.routes; on to engine.delivery.attempt.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from typing import Literal

from aiosmtplib.auth import auth_login_encode, auth_plain_encode
from aiosmtplib.esmtp import parse_esmtp_extensions
from msgspec.structs import replace

from engine.model.message import NO_DSN_REQUEST
from engine.model.outcome import Cause, Outcome
from engine.settings.settings import Timeouts
from engine.smtpclient.blame import MACHINE, Blame, of_error
from engine.smtpclient.dialler import Dialler
from engine.smtpclient.failures import LoopsBack, SessionError, TlsBroken
from engine.smtpclient.mail import Mail, mail_command, rcpt_command
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import HandshakeFailed, OutOfStep, Reply, Wire, WireError
from engine.tls import chains, contexts, dane
from engine.tls.demand import TlsDemand
from engine.tls.secured import Secured, is_trusted

__all__ = ["Form", "LoopsBack", "Mail", "Phase", "Session", "SessionError", "TlsBroken"]

_DIGITS = re.compile(r"[0-9]{1,20}")

Phase = Literal[
    "lookup", "connecting", "greeting", "hello", "TLS", "AUTH",
    "MAIL", "RCPT", "DATA", "body", "reply", "idle", "QUIT", "ended",
]  # fmt: skip
Form = Literal["SMTP", "ESMTP"]


class Session:
    """A conversation with one target. `phase` can be read at any time; `on_phase` is told of each change.

    `pipelining`: MAIL, RCPT and DATA go in one flight where the peer offers that (RFC 2920); `pipelining_failed` tells
    that one went wrong on the wire, so that the peer had better be asked one thing at a time. `taken` counts the
    messages that the peer has taken, `secured` tells how the session is. Whoever is cancelled in `deliver` finds in
    `in_hand` what the reply to the final dot comes to, where it had come by then. `blame` judges what dialling an
    address meets.
    """

    def __init__(
        self,
        target: Target,
        *,
        hostname: str,
        timeouts: Timeouts,
        transcript: Transcript,
        on_phase: Callable[[Phase], None],
        form: Form = "ESMTP",
        pipelining: bool = True,
        blame: Callable[[OSError, str], Blame] = of_error,
    ) -> None:
        self._target = target
        self._hostname = hostname.encode("ascii")
        self._timeouts = timeouts
        self._transcript = transcript
        self._on_phase = on_phase
        self._form = form
        self._may_pipeline = pipelining
        self._blame = blame
        self._wire = Wire(transcript)
        self._extensions: dict[str, str] = {}
        self._auth: list[str] = []
        self.phase: Phase = "connecting"
        self.dotted = False  # the final dot of the current transaction is on its way
        self.secured = Secured()
        self.pipelining_failed = False
        self.taken = 0
        self.in_hand: list[Outcome] | None = None
        self._has_flown = False  # the current transaction's commands have been sent in one flight
        self._has_landed = False  # such a flight has gone well before

    @property
    def tls(self) -> str:
        """The TLS version in use ("TLSv1.3"), or ""."""
        return self.secured.version

    @property
    def demand(self) -> TlsDemand:
        """What was demanded of its TLS when it was opened."""
        return self._target.demand

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
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in MACHINE:
                raise self._unusable(str(error), blamed="machine") from error
            is_greeting = self.phase == "greeting"
            lost: Cause = "greeting" if is_greeting else "lost"
            raise self._unusable(str(error), unreachable=is_greeting, cause=lost) from error
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
            why = f"no connection within {timeouts.connect:.0f} s to [{target.address}]:{target.port}"
            raise self._unusable(why, unreachable=True, cause="connect") from error
        except OSError as error:
            blamed = self._blame(error, target.address)
            # What first: columns are narrow.
            why = f"{_reason(error)} {'by' if blamed == 'host' else 'here, for'} [{target.address}]:{target.port}"
            raise self._unusable(why, unreachable=True, blamed=blamed, cause="connect") from error
        self._enter("greeting")
        greeting = await self._wire.open(sock, timeouts.greeting)
        if greeting.code != 220:
            raise self._refused(greeting)
        self._meets_another(greeting)

    async def _hello(self) -> None:
        """RFC 5321 3.2: EHLO, and HELO where that is not known."""
        self._enter("hello")
        self._extensions, self._auth = {}, []
        if self._form == "ESMTP":
            reply = await self._wire.command(b"EHLO", self._hostname, timeout=self._timeouts.hello)
            if reply.code == 250:
                self._meets_another(reply)
                self._extensions, self._auth = parse_esmtp_extensions(reply.text)
                return
            if not 500 <= reply.code <= 599 or not self._wire.is_open:
                raise self._refused(reply)
        reply = await self._wire.command(b"HELO", self._hostname, timeout=self._timeouts.hello)
        if reply.code != 250:
            raise self._refused(reply)
        self._meets_another(reply)

    def _meets_another(self, reply: Reply) -> None:
        """Raise LoopsBack where the peer calls itself by our name, which comes first (RFC 5321 4.2, 4.3.1).

        Not where ours is no full name: half the machines that nobody has named are "localhost".
        """
        ours = self._hostname.decode("ascii").lower()
        if "." in ours and reply.text.lower().split(None, 1)[:1] == [ours]:
            what = f"{self._target.host} [{self._target.address}] greets with our own name, {ours}"
            raise LoopsBack(self._unusable(what, enhanced="4.4.6", cause="dns").outcome)

    async def _secure(self) -> None:
        demand = self._target.demand
        for said in (demand.why and demand.line, demand.trial):
            if said:
                self._transcript.add("=", said)
        if demand.level == "none":
            return
        if "starttls" not in self._extensions:  # the host has none, or someone on the way has taken it out
            if demand.is_must:
                why = f"{demand.line}; the host does not offer STARTTLS"
                raise self._unusable(why, enhanced="4.7.4", cause="tls")
            self._transcript.add("=", "no STARTTLS is offered: going on in the clear")
            return
        self._enter("TLS")
        if not await self._start_tls():
            self._transcript.add("=", "going on without TLS")
            return
        self.secured = self._judged_secured()
        self._transcript.add("=", f"secured: {self.secured.line}")
        await self._hello()  # RFC 3207 4.2: what was said before TLS counts for nothing

    async def _start_tls(self) -> bool:
        """Shake hands and look at the certificate as is demanded; False: the host declined, and may."""
        target, demand = self._target, self._target.demand
        # RFC 7672 8.1: with DANE the host is asked for by its TLSA base domain.
        by_dane = demand.dane is not None and not demand.by_authorities
        name = demand.dane.names[0] if demand.dane is not None and by_dane else target.host
        try:
            declined = await self._wire.start_tls(_context(target), name, self._timeouts.tls)
        except WireError as error:
            by_network = isinstance(error, HandshakeFailed) and error.by_network
            raise self._tls_broken(str(error), by_network=by_network) from error
        except OSError as error:  # not the wire's
            why = f"the authorities to trust cannot be read: {_reason(error)}"
            raise self._unusable(why, enhanced="4.3.5", cause="ours") from error
        if declined is not None:
            if declined.code == 421:
                raise self._refused(declined)
            if demand.is_must:
                why = f"{demand.line}; the host answers STARTTLS with {declined.code} {declined.text}"
                raise self._unusable(why, enhanced="4.7.4", cause="tls")
            return False
        if demand.dane is not None and (fault := dane.fault(demand.dane, self._wire.chain)):
            self.close()
            self._transcript.add("=", fault)
            raise self._tls_broken(fault)
        if demand.trial and (fault := self._on_trial()):
            self._transcript.add("=", f"{demand.trial}: {fault}")
        return True

    def _on_trial(self) -> str:
        """Why the certificate would not do if the policy that is being tested were enforced, or ""."""
        try:
            return chains.by_authorities(self._wire.chain, self._target.host, self._target.demand.ca_file)
        except OSError as error:
            return f"the authorities to trust cannot be read: {_reason(error)}"

    def _judged_secured(self) -> Secured:
        """Whether the certificate, which is good enough for what is demanded, is one to trust."""
        target = self._target
        is_proved = target.demand.level == "verified" or bool(target.username)
        trusted = is_proved or is_trusted(self._wire.chain, target.host, target.demand.ca_file)
        return Secured(self._wire.tls, trusted)

    def _tls_broken(self, why: str, *, by_network: bool = False) -> TlsBroken:
        demand = self._target.demand
        text = f"{why} ({demand.line})" if demand.is_must else why
        outcome = Outcome.transient(text, enhanced="4.7.5", host=self._target.host, phase=self.phase, cause="tls")
        return TlsBroken(outcome, by_network=by_network)

    async def _authenticate(self) -> None:
        """RFC 4954. A refused password is our fault, not the message's: transient."""
        target = self._target
        if not target.username:
            return
        self._enter("AUTH")
        if not self.tls:
            raise self._unusable("the route has a password, and the host offers no TLS to send it under", cause="login")
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
            why = "the route has a password, and the host offers neither AUTH PLAIN nor LOGIN"
            raise self._unusable(why, cause="login")
        if reply.code != 235:
            raise self._refused(reply)

    # -- transactions ---------------------------------------------------------------------------------------------

    async def deliver(self, mail: Mail) -> list[Outcome]:
        """Send one message; give an outcome for each recipient, in their order. Raises nothing of the network's.

        What reading the content raises, or `before_its_end`, goes on; the session is over then, and the peer has no
        whole message.
        """
        self.dotted = self._has_flown = False
        self.in_hand = None
        impossible = self._impossible(mail)
        if impossible is not None:
            return [impossible] * len(mail.recipients)
        outcomes: list[Outcome | None] = [None] * len(mail.recipients)
        try:
            rest = await self._transact(mail, outcomes)
        except OutOfStep as error:
            self.pipelining_failed = True
            outcomes = [None] * len(mail.recipients)  # whose replies they were, nobody knows
            rest = replace(self._lost(str(error)), enhanced="4.5.0")
        except WireError as error:
            # Where flights have gone well, it is the session that has ended, and not this one that went wrong.
            self.pipelining_failed = self._has_flown and not self._has_landed and self.phase in ("MAIL", "RCPT", "DATA")
            rest = self._lost(str(error))
        except asyncio.CancelledError:
            if self.dotted and (reply := self._wire.in_hand) is not None:
                said = self._judge(reply)
                self.in_hand = [outcome or said for outcome in outcomes]
            raise
        else:
            self._has_landed = self._has_landed or self._has_flown
            self.taken += rest.kind == "delivered"
        if self.usable:
            self._enter("idle")
        return [outcome or rest for outcome in outcomes]

    def _impossible(self, mail: Mail) -> Outcome | None:
        """What the peer has said it cannot take is not sent."""
        limit = self._extensions.get("size", "").strip()
        if _DIGITS.fullmatch(limit) and 0 < int(limit) < mail.size:  # RFC 1870 5
            return self._ours("permanent", f"the message has {mail.size} bytes, the host takes {limit}", "5.3.4")
        if mail.smtputf8 and "smtputf8" not in self._extensions:  # RFC 6531 3.2
            return self._ours("permanent", "the message needs SMTPUTF8, which the host does not offer", "5.6.7")
        return None

    @property
    def _pipelines(self) -> bool:
        return self._may_pipeline and "pipelining" in self._extensions

    async def _transact(self, mail: Mail, outcomes: list[Outcome | None]) -> Outcome:
        """MAIL, RCPT for each, DATA. Fills the outcomes of refused recipients, gives that of all others.

        Every status is checked, in one flight as one by one (RFC 2920 3.1), and means the same.
        """
        timeouts = self._timeouts
        opening = mail_command(mail, self._extensions)
        dsn = mail.dsn or (NO_DSN_REQUEST,) * len(mail.recipients)
        paths = [rcpt_command(*each, self._extensions) for each in zip(mail.recipients, dsn, strict=True)]
        self._enter("MAIL")
        if self._pipelines:
            self._wire.send_ahead([opening, *paths, b"DATA"])  # DATA comes last in a flight: RFC 2920 3.1
            self._has_flown = True
        reply = await self._ask(opening, timeouts.mail)
        if not 200 <= reply.code <= 299:
            return await self._abandon(reply)
        self._enter("RCPT")
        for number, path in enumerate(paths):
            reply = await self._ask(path, timeouts.rcpt)
            if reply.code == 421:
                return await self._abandon(reply)
            if not 200 <= reply.code <= 299:
                outcomes[number] = self._at_rcpt(reply)
        if all(outcome is not None for outcome in outcomes):
            return await self._abandon(reply)  # each has an outcome of its own already
        self._enter("DATA")
        reply = await self._ask(b"DATA", timeouts.data)
        if reply.code != 354:
            return await self._abandon(reply)
        self._enter("body")
        early = await self._wire.send_body(mail.content, timeouts.block)
        if early is not None:
            return self._not_delivered(early)
        try:
            mail.before_its_end()
        except BaseException:
            self.close()
            raise
        self._enter("reply")
        self.dotted = True
        reply = await self._wire.send_end(timeouts.reply)
        self.dotted = False
        if reply.code == 421:
            self.close()
        return self._judge(reply)

    async def _ask(self, line: bytes, timeout: float) -> Reply:
        """Send a command, or have the reply to one that was sent ahead."""
        verb, *rest = line.split(b" ", 1)
        reply = await self._wire.command(verb, *rest, timeout=timeout)
        # Only the last of a flight, DATA, is answered with 3xx, and DATA with nothing positive but that. Other replies
        # are those to other commands: the peer has left one out or put one in, or one to an earlier command came late.
        if 200 <= reply.code <= 399 and (reply.code >= 300) != (verb == b"DATA"):
            raise self._wire.out_of_step()
        return reply

    async def _abandon(self, reply: Reply) -> Outcome:
        """The transaction ends before its message: clear the peer's buffers so that the next can begin."""
        outcome = self._not_delivered(reply)
        if reply.code == 421:  # RFC 5321 3.8: the peer is closing the connection
            self.close()
        elif self._wire.is_open:
            try:
                await self._hear_out()
                if self._wire.is_open:
                    await self._reset()
            except OutOfStep:
                raise
            except WireError:
                return outcome  # the outcome stands; the wire has closed itself
        return outcome

    async def _hear_out(self) -> None:
        """Read the replies to what else was in the flight: they change nothing, but the next must not be mixed up."""
        timeouts = self._timeouts
        taken = False
        while ahead := self._wire.ahead:
            is_data = ahead[0] == b"DATA"
            self._enter("DATA" if is_data else "RCPT")
            reply = await self._ask(ahead[0], timeouts.data if is_data else timeouts.rcpt)
            if reply.code == 421:
                self.close()
            elif not is_data:
                taken = taken or 200 <= reply.code <= 299
            elif reply.code == 354 and taken:
                # Refused the sender, took the recipients, wants the message: a dot might send them an empty one.
                self._transcript.add("=", "the host wants a message that it refused: closed without one")
                self.close()
            elif reply.code == 354:
                await self._wire.send_end(timeouts.reply)  # a single dot, for no recipients: RFC 2920 3.1
        if self._pipelines and self._wire.has_surplus:
            raise self._wire.out_of_step()

    async def _reset(self) -> None:
        """RSET (RFC 5321 4.1.1.5). It is not sent along with the next MAIL: its reply shows that we are in step."""
        reset = await self._wire.command(b"RSET", timeout=self._timeouts.mail)
        # One by one, a host may not know RSET, or say more than it was asked; but where it wants a message now, the
        # replies came late, and none of those before was to what it was taken for.
        is_wrong = reset.code != 250 or self._wire.has_surplus if self._pipelines else 300 <= reset.code <= 399
        if reset.code != 421 and is_wrong:
            raise self._wire.out_of_step()
        if reset.code != 250:
            self.close()

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
        outcome = Outcome.of_reply(reply.code, reply.text, host=self._target.host, phase=self.phase, cause="reply")
        if outcome.kind != "delivered":
            return outcome
        return replace(outcome, peer_notifies="dsn" in self._extensions, secured=self.secured.line)

    def _at_rcpt(self, reply: Reply) -> Outcome:
        """552 here means too many recipients: those that are left come in another transaction (RFC 5321 4.5.3.1.10)."""
        outcome = self._judge(reply)
        return replace(outcome, kind="transient") if reply.code == 552 else outcome

    def _not_delivered(self, reply: Reply) -> Outcome:
        """A reply that ended the transaction early: a 2xx or 3xx where it does not belong delivers nothing."""
        outcome = self._judge(reply)
        if outcome.kind != "delivered":
            return outcome
        unexpected = f"unexpected reply: {outcome.text}"
        return replace(outcome, kind="transient", enhanced="", text=unexpected, peer_notifies=False, secured="")

    def _lost(self, why: str) -> Outcome:
        return Outcome(
            kind="transient",
            enhanced="4.4.2",
            text=why,
            host=self._target.host,
            phase=self.phase,
            may_duplicate=self.dotted,
            cause="lost",
        )

    def _ours(self, kind: Literal["permanent"], text: str, enhanced: str) -> Outcome:
        return Outcome(kind=kind, enhanced=enhanced, text=text, host=self._target.host, phase="MAIL")

    def _refused(self, reply: Reply) -> SessionError:
        """A host that will not talk to us is no verdict on the mail: whatever the code, transient."""
        said = Outcome.of_reply(reply.code, reply.text, host=self._target.host, phase=self.phase)
        self.close()
        cause: Cause = "greeting" if self.phase in ("greeting", "hello") else "login" if self.phase == "AUTH" else "tls"
        return SessionError(replace(said, kind="transient", cause=cause))

    def _unusable(
        self,
        why: str,
        *,
        unreachable: bool = False,
        enhanced: str = "4.4.1",
        blamed: Blame = "host",
        cause: Cause = "",
    ) -> SessionError:
        self.close()
        self._transcript.add("=", why)
        if blamed != "host":
            enhanced, cause = "4.3.2", "ours"  # RFC 3463 3.4: a system that does not take part now, and it is ours
        outcome = Outcome.transient(why, enhanced=enhanced, host=self._target.host, phase=self.phase, cause=cause)
        return SessionError(outcome, unreachable=unreachable, blamed=blamed)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._on_phase(phase)


def _context(target: Target) -> ssl.SSLContext:
    """What is offered and checked in the handshake; raises OSError where the authorities cannot be read.

    A password is given to nobody but the host it is for, so for one the certificate must be right (RFC 8314 3).
    """
    if target.username or target.demand.by_authorities:
        return contexts.verifying(target.demand.ca_file)
    return contexts.opportunistic() if target.demand.level == "opportunistic" else contexts.unverified()


def _reason(error: OSError) -> str:
    # The loops word a failed connect each in their own way; the system's words are the ones people know.
    return os.strerror(error.errno).lower() if error.errno else str(error)
