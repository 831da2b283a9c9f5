"""One SMTP session: greeted, secured, and then one transaction after the other.

Exceptions stop here: what a transaction comes to is an Outcome for each recipient, judged by the code of the reply
alone (RFC 5321 4.2.1, 4.3.2).

The way of a message, 6 of 7: here it is sent. From engine.delivery.routes; on to engine.delivery.attempt.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from engine.model.message import NO_DSN_REQUEST
from engine.model.outcome import Outcome
from engine.settings.settings import Timeouts
from engine.smtpclient.blame import Blame, of_error
from engine.smtpclient.dialler import Dialler
from engine.smtpclient.initiation import Initiation, Phase
from engine.smtpclient.mail import Mail, mail_command, rcpt_command
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.smtpclient.wire import OutOfStep, Reply, Wire, WireError
from engine.tls.demand import TlsDemand
from engine.tls.secured import Secured

_NOT_UNDERSTOOD = range(500, 505)  # RFC 5321 4.2.2: of the command, and not of what it brings
_DIGITS = re.compile(r"[0-9]{1,20}")


class Session:
    """A conversation with one target. `phase` can be read at any time; `on_phase` is told of each change.

    `pipelining`: MAIL, RCPT and DATA go in one flight where the peer offers that (RFC 2920); `pipelining_failed` tells
    that one went wrong on the wire, so that the peer had better be asked one thing at a time. `chunking`: the message
    goes with BDAT where the peer offers that (RFC 3030); `chunking_failed` tells that it did not understand it, or that
    nothing came of it, so that it had better have DATA. `taken` counts the messages that the peer has taken. Whoever is
    cancelled in `deliver` finds in `in_hand` what the reply to the final dot comes to, where it had come by then.
    `blame` judges what dialling an address meets.
    """

    def __init__(
        self,
        target: Target,
        *,
        hostname: str,
        timeouts: Timeouts,
        transcript: Transcript,
        on_phase: Callable[[Phase], None],
        pipelining: bool = True,
        chunking: bool = False,
        blame: Callable[[OSError, str], Blame] = of_error,
    ) -> None:
        self._target = target
        self._timeouts = timeouts
        self._transcript = transcript
        self._on_phase = on_phase
        self._may_pipeline = pipelining
        self._may_chunk = chunking
        self._wire = Wire(transcript)
        self._initiation = Initiation(
            self._wire,
            target,
            hostname=hostname.encode("ascii"),
            timeouts=timeouts,
            transcript=transcript,
            on_phase=self._enter,
            blame=blame,
        )
        self.phase: Phase = "connecting"
        self.dotted = False  # the final dot of the current transaction, or the end of its chunk, is on its way
        self.pipelining_failed = False
        self.chunking_failed = False
        self.taken = 0
        self.in_hand: list[Outcome] | None = None
        self._has_flown = False  # the current transaction's commands have been sent in one flight
        self._has_landed = False  # such a flight has gone well before

    @property
    def secured(self) -> Secured:
        """How the session is secured."""
        return self._initiation.secured

    @property
    def _extensions(self) -> dict[str, str]:
        """What the peer offers."""
        return self._initiation.extensions

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

    async def open(self, dialler: Dialler) -> None:
        """Connect, greet, secure and log in. Raises SessionError, TlsBroken; the connection is closed then."""
        await self._initiation.run(dialler)
        self._enter("idle")

    # -- transactions ---------------------------------------------------------------------------------------------

    async def deliver(self, mail: Mail) -> list[Outcome]:
        """Send one message; give an outcome for each recipient, in their order. Raises nothing of the network's.

        What reading the content raises, or `before_its_end`, goes on; the session is over then, and the peer has no
        whole message.
        """
        self.dotted = self._has_flown = self.chunking_failed = False
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
                said = self._at_the_end(reply)
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
    def ending(self) -> str:
        """What makes the message whole that is being sent: the final dot, or the end of its chunk."""
        return self._wire.ending

    @property
    def _chunks(self) -> bool:
        return self._may_chunk and "chunking" in self._extensions

    @property
    def _pipelines(self) -> bool:
        return self._may_pipeline and "pipelining" in self._extensions

    async def _transact(self, mail: Mail, outcomes: list[Outcome | None]) -> Outcome:
        """MAIL, RCPT for each, DATA or BDAT. Fills the outcomes of refused recipients, gives that of all others.

        Every status is checked, in one flight as one by one (RFC 2920 3.1), and means the same.
        """
        timeouts = self._timeouts
        opening = mail_command(mail, self._extensions)
        dsn = mail.dsn or (NO_DSN_REQUEST,) * len(mail.recipients)
        paths = [rcpt_command(*each, self._extensions) for each in zip(mail.recipients, dsn, strict=True)]
        # BDAT does not go along: of a session that was lost one could never say that the peer has no message.
        last = () if self._chunks else (b"DATA",)  # DATA comes last in a flight: RFC 2920 3.1
        self._enter("MAIL")
        if self._pipelines:
            self._wire.send_ahead([opening, *paths, *last])
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
        if self._chunks:
            early = await self._send_chunk(mail)
        else:
            self._enter("DATA")
            reply = await self._ask(b"DATA", timeouts.data)
            if reply.code != 354:
                return await self._abandon(reply)
            self._enter("body")
            early = await self._wire.send_body(mail.content, timeouts.block)
        if early is not None:
            said = self._not_understood(early) or self._not_delivered(early)
            self.chunking_failed = self.chunking_failed and not _is_answer(early)
            return said
        try:
            mail.before_its_end()
        except BaseException:
            self.close()
            raise
        self._enter("reply")
        self.dotted = True
        reply = await self._wire.send_end(timeouts.reply)
        self.dotted = False
        said = self._at_the_end(reply)
        if reply.code == 421 or self.chunking_failed:
            self.close()
        elif self._chunks and said.kind != "delivered":
            self.in_hand = [outcome or said for outcome in outcomes]
            await self._clear()
        return said

    async def _send_chunk(self, mail: Mail) -> Reply | None:
        """Send the message with BDAT, all but its end; give what the peer said to it too early."""
        self._enter("body")
        self.chunking_failed = True  # until it is answered for
        if self._wire.has_surplus:
            # After DATA only 354 is right; here one reply too many would be taken for the word on the message.
            raise self._wire.out_of_step()
        return await self._wire.send_chunk(mail.content, self._timeouts.block)

    async def _clear(self) -> None:
        """RSET after a chunk that was refused: a host may keep the transaction open, and refuse the next for it."""
        with contextlib.suppress(WireError):
            reset = await self._wire.command(b"RSET", timeout=self._timeouts.mail)
            if reset.code != 250 or self._wire.has_surplus:
                self.close()

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

    def _at_the_end(self, reply: Reply) -> Outcome:
        """What the reply to the whole message comes to."""
        said = self._not_understood(reply) or self._judge(reply)
        self.chunking_failed = self.chunking_failed and said.kind != "delivered" and not _is_answer(reply)
        return said

    def _not_understood(self, reply: Reply) -> Outcome | None:
        """What it comes to where a host offers BDAT and does not know it: that judges no mail."""
        if not self.chunking_failed or reply.code not in _NOT_UNDERSTOOD:
            return None
        said = self._judge(reply)
        return replace(said, kind="transient", enhanced="", text=f"CHUNKING is offered, but BDAT refused: {said.text}")

    def _at_rcpt(self, reply: Reply) -> Outcome:
        """552 here means too many recipients: those that are left come in another transaction (RFC 5321 4.5.3.1.10)."""
        outcome = self._judge(reply)
        if self._target.is_named:
            outcome = replace(outcome, is_named=True)
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

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self._on_phase(phase)


def _is_answer(reply: Reply) -> bool:
    """Whether a host that does not take a message has understood how it was brought."""
    return reply.code >= 400 and reply.code not in _NOT_UNDERSTOOD
