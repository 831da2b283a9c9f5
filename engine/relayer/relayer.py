"""A managed relayer: opens a way to one destination and carries its messages there, one after the other.

It reports to the attempt manager as it goes, and to its manager when it is established and when it has ended. What it
still answers for when it is stopped is put back untried.
"""

import asyncio
import logging
from typing import Protocol

from msgspec.structs import replace

from engine.attempt import AttemptManager
from engine.clock import Clock
from engine.config import Timeouts
from engine.mx import AllMarkedBad, MXCalculator, MXError
from engine.outcome import Outcome
from engine.queue.queue import Claim, Queue, QueueBroken, QueueError
from engine.relayer.dialler import Dialler
from engine.relayer.session import Form, Mail, Phase, Session, SessionError, TlsBroken
from engine.relayer.stumbles import Stumbles
from engine.relayer.transcript import Transcript
from engine.routes import Router, Target, Way
from engine.tls.demand import TlsDemand

log = logging.getLogger(__name__)

_STALLS_AFTER = 20.0  # seconds in one phase; an exchange that is well answers in a few
_LAST_SECONDS = 10.0  # for writing down what a relayer leaves behind


class Manager(Protocol):
    """What a relayer asks of the smart host that manages it."""

    async def more(self, relayer: "ManagedRelayer") -> list[Claim]:
        """Further messages for a relayer that has carried all it had; [] ends it."""
        ...

    def established(self) -> None:
        """A relayer's exchange has answered."""
        ...

    def delivered(self, relayer: "ManagedRelayer") -> None:
        """The relayer's exchange has taken a message."""
        ...

    async def unreachable(
        self, relayer: "ManagedRelayer", outcome: Outcome, *, until: float | None = None, pause: bool = False
    ) -> None:
        """No session could be had for the relayer's destination, or it broke: leave it alone for a while.

        `until`: not before then, where that is known; `pause`: only briefly, since it did take mail.
        """
        ...

    def stranded(self, claims: list[Claim]) -> None:
        """These could neither be settled nor put back, because the store would not."""
        ...


class Parts:
    """What every relayer of a smart host works with."""

    def __init__(
        self,
        *,
        queue: Queue,
        mx: MXCalculator,
        router: Router,
        attempts: AttemptManager,
        dialler: Dialler,
        clock: Clock,
        hostname: str,
        timeouts: Timeouts,
    ) -> None:
        self.queue = queue
        self.mx = mx
        self.router = router
        self.attempts = attempts
        self.dialler = dialler
        self.clock = clock
        self.hostname = hostname
        self.timeouts = timeouts
        self.stumbles = Stumbles(clock)


class ManagedRelayer:
    """One connection's life, readable from outside while it runs: where it is, since when, and what was said.

    `done` of `taken` messages are settled; `answers_for` are those that are not. `result` tells in a few words how it
    ended. Times are the clock's seconds.
    """

    def __init__(
        self, id: int, destination: str, claims: list[Claim], parts: Parts, manager: Manager, form: Form = "ESMTP"
    ) -> None:
        self.id = id
        self.destination = destination
        self.answers_for: dict[int, Claim] = {claim.message: claim for claim in claims}
        self.host = ""
        self.address = ""
        self.port = 0
        self.phase: Phase = "connecting"
        self.started = parts.clock.now()
        self.phase_since = self.started
        self.ended: float | None = None
        self.result = ""
        self.taken = len(claims)
        self.done = 0
        self.tls = ""
        self.is_established = False
        self.transcript = Transcript(parts.clock)
        self._parts = parts
        self._manager = manager
        self._form = form
        self._leaving = False
        self._closed_by = ""
        self._is_ending = False
        self._session: Session | None = None
        self._sending: Claim | None = None
        self._outcomes: list[Outcome] | None = None  # of what is being sent, until they are recorded
        self._last: Outcome | None = None
        self._has_delivered = False
        self._fault: Outcome | None = None

    @property
    def stalling(self) -> bool:
        """Whether it has been in its phase for longer than is usual."""
        return self.ended is None and self._parts.clock.now() - self.phase_since > _STALLS_AFTER

    def leave(self) -> None:
        """End after the message that is being sent."""
        self._leaving = True

    def close(self, by: str) -> bool:
        """Note who closes this connection; whoever asks cancels `run` then. False: it is ending already.

        A relayer that writes down what it leaves behind must not be cancelled in the middle of that.
        """
        if self._is_ending:
            return False
        self._is_ending = True
        self._closed_by = by
        self.transcript.add("=", f"closed by {by}")
        return True

    async def run(self) -> None:
        """Carry the messages until there are none left. Raises nothing but cancellation and QueueBroken."""
        try:
            await self._relay()
        except QueueBroken as error:
            self.result = f"the queue is broken: {error}"
            raise
        except QueueError as error:
            # Nothing the peer has taken is concerned (see AttemptManager.report): it goes back untried.
            self._outcomes, self._sending = None, None
            self._fault = Outcome.transient(f"not recorded: {error}", enhanced="4.3.1")
            self.result = self._fault.text
        except asyncio.CancelledError:
            self.result = f"closed by {self._closed_by}" if self._closed_by else "stopped"
            raise
        except Exception as error:
            # A fault of ours must neither strand what this relayer answers for nor repeat itself without a pause.
            log.exception("relayer %d to %s", self.id, self.destination)
            self._fault = Outcome.transient(f"fault in the relay: {type(error).__name__}", enhanced="4.3.0")
            self.result = self._fault.text
        finally:
            await self._leave_nothing_behind()
            self._enter("ended")
            self.ended = self._parts.clock.now()

    # -- the way there --------------------------------------------------------------------------------------------

    async def _relay(self) -> None:
        try:
            way = await self._parts.router.way(self.destination)
        except AllMarkedBad as error:
            await self._parts.queue.note_destination(self.destination, sorted(error.hosts))
            self.result = error.outcome.text
            await self._put_back(error.outcome.text)
            await self._manager.unreachable(self, error.outcome, until=error.until)
            return
        except MXError as error:
            await self._no_way(error.outcome)
            return
        # By preference, not in the order to try: that is drawn anew each time and would be written anew each time.
        known = sorted(way.exchanges, key=lambda exchange: (exchange.preference, exchange.host))
        await self._parts.queue.note_destination(self.destination, [exchange.host for exchange in known])
        session = await self._open(way)
        if session is None:
            return
        try:
            await self._carry(session)
            await session.quit()
        finally:
            session.close()

    async def _no_way(self, outcome: Outcome) -> None:
        """DNS has no way: for good (and then for all the mail that comes after) or for now."""
        self.transcript.add("=", outcome.line)
        self.result = outcome.text
        if outcome.kind == "transient":
            await self._no_connection(outcome)
            return
        while claims := list(self.answers_for.values()):
            for claim in claims:
                await self._report(claim, [outcome] * len(claim.entries))
            self._take(await self._manager.more(self))

    async def _open(self, way: Way) -> Session | None:
        """Try to get a session, for as long as one attempt may take. None: it has been reported that there is none."""
        bound = self._parts.timeouts.attempt
        try:
            async with asyncio.timeout(bound):
                found = await self._try_all(way)
        except TimeoutError:
            found = Outcome.transient(f"no session within {bound:.0f} s", enhanced="4.4.1", host=self.host)
        if isinstance(found, Session):
            return found
        if found is not None and found.kind == "permanent":
            await self._no_way(found)
        elif found is not None:
            await self._no_connection(found)
        return None

    async def _try_all(self, way: Way) -> Session | Outcome | None:
        """Try every exchange, and every address of each, in order, until one gives us a session (RFC 5321 5.1).

        Gives why there is none: permanent only where DNS says of every exchange that it has no address; None when we
        are to leave.
        """
        last: Outcome | None = None
        nowhere = True
        for exchange in way.exchanges:
            reached = False
            try:
                async for target in self._parts.router.targets(way, exchange):
                    nowhere = False
                    try:
                        session = await self._open_target(target)
                    except SessionError as error:
                        last = error.outcome
                        reached = reached or not error.unreachable
                    else:
                        await self._parts.mx.mark_good(exchange.host)
                        self._establish()
                        return session
                    if self._leaving:
                        return None
            except MXError as error:
                last = error.outcome
                nowhere = nowhere and last.kind == "permanent"
                self.transcript.add("=", f"{exchange.host}: {last.line}")
                continue
            if not reached and last is not None:
                await self._parts.mx.mark_bad(exchange.host, reason=last.text, last=last)
        outcome = last or Outcome.transient("no exchange has an address", enhanced="4.4.4")
        # A route whose host has no address is a mistake in the settings, and no verdict on the mail.
        return outcome if nowhere and way.route is None else _transient(outcome)

    async def _open_target(self, target: Target) -> Session:
        """Open a session; where opportunistic TLS breaks, once more without it (RFC 7435 4).

        What did go without it is remembered: for a while the next sessions do not try.
        """
        self.host, self.address, self.port = target.host, target.address, target.port
        session = self._session = self._session_with(target)
        try:
            await session.open(self._parts.dialler)
        except TlsBroken as broken:
            if target.demand.is_must:
                raise
            self.transcript.add("=", "TLS broke: once more without it")
            session = self._session = self._session_with(replace(target, demand=TlsDemand(level="none")))
            await session.open(self._parts.dialler)
            self._parts.router.tls.broke(target.host, broken.outcome.text)
        self.tls = session.tls
        return session

    def _session_with(self, target: Target) -> Session:
        return Session(
            target,
            hostname=self._parts.hostname,
            timeouts=self._parts.timeouts,
            transcript=self.transcript,
            on_phase=self._enter,
            form=self._form,
            pipelining=self._parts.stumbles.may_pipeline(target.host),
        )

    def _establish(self) -> None:
        self.is_established = True
        self._manager.established()

    async def _no_connection(self, outcome: Outcome) -> None:
        self.result = outcome.line
        claims = list(self.answers_for.values())
        await self._parts.attempts.no_connection(claims, outcome)
        for claim in claims:
            self._settled(claim)
        await self._manager.unreachable(self, outcome)

    # -- the messages ---------------------------------------------------------------------------------------------

    async def _carry(self, session: Session) -> None:
        while self.answers_for:
            for claim in list(self.answers_for.values()):
                if self._leaving:
                    self.result = "left"
                    return
                await self._send(session, claim)
                if not session.usable:
                    await self._hung_up()
                    return
            self._take(await self._manager.more(self))
        self.result = f"{self.done} sent"

    async def _hung_up(self) -> None:
        """The peer ended the session: what is left is not pressed upon it at once, or we would be listed for it."""
        self.result = self._last.line if self._last else "connection lost"
        outcome = self._last or Outcome.transient("connection lost", host=self.host)
        # Blocked first: what is put back must not be claimed before the block stands.
        await self._manager.unreachable(self, _transient(outcome), pause=self._has_delivered)
        await self._put_back(self.result)

    async def _send(self, session: Session, claim: Claim) -> None:
        try:
            content = await self._parts.queue.content(claim.message)
        except QueueBroken:
            raise
        except QueueError as error:
            await self._parts.queue.set_aside(claim, str(error))
            self._settled(claim)
            return
        mail = Mail(
            sender=claim.sender,
            recipients=tuple(entry.recipient for entry in claim.entries),
            content=content,
            eight_bit=claim.eight_bit,
            smtputf8=claim.smtputf8,
            ret=claim.ret,
            envid=claim.envid,
            wishes=tuple(entry.wishes for entry in claim.entries),
        )
        self._sending = claim
        self._outcomes = None
        self._outcomes = await self._within_bounds(session, mail)
        if session.stumbled:
            self._parts.stumbles.note(self.host)
        self._last = self._outcomes[-1]
        if any(outcome.kind == "delivered" for outcome in self._outcomes) and not self._has_delivered:
            self._has_delivered = True
            self._manager.delivered(self)
        await self._report(claim, self._outcomes)
        self._sending = None

    async def _within_bounds(self, session: Session, mail: Mail) -> list[Outcome]:
        """Every phase has its time-out; a peer that drips just within each of them has this one."""
        bound = self._parts.timeouts.attempt
        try:
            async with asyncio.timeout(bound):
                return await session.deliver(mail)
        except TimeoutError:
            session.close()
            text = f"the message was not done within {bound:.0f} s"
            return [self._cut_off(session, text)] * len(mail.recipients)

    def _cut_off(self, session: Session, text: str) -> Outcome:
        self.transcript.add("=", text)
        return Outcome(
            kind="transient",
            enhanced="4.4.2",
            text=text,
            host=self.host,
            phase=session.phase,
            may_duplicate=session.dotted,
        )

    async def _report(self, claim: Claim, outcomes: list[Outcome]) -> None:
        await self._parts.attempts.report(claim, outcomes)
        self._settled(claim)

    def _settled(self, claim: Claim) -> None:
        self.answers_for.pop(claim.message, None)
        self.done += 1

    def _take(self, claims: list[Claim]) -> None:
        self.answers_for.update((claim.message, claim) for claim in claims)
        self.taken += len(claims)

    # -- the end --------------------------------------------------------------------------------------------------

    async def _leave_nothing_behind(self) -> None:
        """Settle or put back what is still ours, and hand to the manager what the store would not take."""
        self._is_ending = True
        if self._session is not None:
            self._session.close()
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                if self._fault is not None:
                    await self._manager.unreachable(self, self._fault)
                await self._settle_what_was_sent()
                await self._put_back(self.result or "connection lost")
        except (QueueError, TimeoutError) as error:
            log.warning("relayer %d could not give back %d messages: %s", self.id, len(self.answers_for), error)
            self._manager.stranded(list(self.answers_for.values()))

    async def _settle_what_was_sent(self) -> None:
        """A result in hand is recorded; one that is missing after the final dot may be a duplicate, and says so.

        What cannot be recorded is left `relaying`, for the queue to recover at its next start: putting it back would
        strike from the record that the peer may have it.
        """
        sending, session, outcomes = self._sending, self._session, self._outcomes
        if sending is None or session is None:
            return
        if outcomes is None and session.dotted:
            stopped = f"closed by {self._closed_by}" if self._closed_by else "stopped"
            outcomes = [self._cut_off(session, f"{stopped} while waiting for the reply to the final dot")]
        elif outcomes is None and self._fault is not None:
            outcomes = [self._fault]
        if outcomes is None:
            return  # not a byte of it counts yet: it goes back untried
        outcomes = outcomes if len(outcomes) == len(sending.entries) else outcomes * len(sending.entries)
        self.answers_for.pop(sending.message, None)
        await self._parts.attempts.report(sending, outcomes)
        self.done += 1

    async def _put_back(self, why: str) -> None:
        claims = list(self.answers_for.values())
        if claims:
            await self._parts.queue.put_back(claims, why)
        self.answers_for.clear()
        self.taken -= len(claims)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.phase_since = self._parts.clock.now()


def _transient(outcome: Outcome) -> Outcome:
    """What kept us from connecting is never a verdict on the mail."""
    return outcome if outcome.kind == "transient" else Outcome.transient(outcome.text, host=outcome.host)
