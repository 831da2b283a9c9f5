"""A managed relayer: one life, in which it opens a way to one site and carries messages there, one after the other.

What it answers for is in its mailbag, of which each message is settled or put back; its ways are found, and each
message is sent and judged, by parts of their own (engine.delivery.ways, engine.delivery.transaction). It tells its site
how it goes. What it still answers for when it is stopped is put back untried.

The way of a message, 4 of 7: here it is carried. From engine.delivery.smarthost; on to engine.delivery.routes.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec.structs import replace

from engine.base.text import clean
from engine.delivery.addresses import Found
from engine.delivery.hurry import Hurry
from engine.delivery.mailbag import Mailbag
from engine.delivery.opening import Opening
from engine.delivery.parts import Parts
from engine.delivery.routes import Way
from engine.delivery.site import PAUSE, Site
from engine.delivery.stall import Pace
from engine.delivery.transaction import Sent, Transaction
from engine.delivery.turns import Flow
from engine.delivery.verdict import Rest, Verdict, rest
from engine.delivery.ways import Ways
from engine.model.claim import Claim
from engine.model.outcome import Outcome
from engine.queue.errors import NotHeld, QueueBroken, QueueBusy, QueueError
from engine.smtpclient.session import Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.tls.secured import Secured

log = logging.getLogger(__name__)

_LAST_SECONDS = 10.0  # for writing down what a relayer leaves behind

# It finds its way, opens a connection, carries messages over it, waits for more; it writes down what it leaves behind.
# From there it comes back to an earlier one where some of its mail needs another way.
State = Literal["lookup", "connecting", "carrying", "idle", "ending", "ended"]

STORE_PAUSE = 2.0  # seconds for which a site rests once the store was busy: it may be asked again in a moment


class _Fault(NamedTuple):
    """What broke off a relayer's life, ours or the store's, and for how many seconds its site rests.

    `may_repeat`: met on the way there, it would come again.
    """

    outcome: Outcome
    may_repeat: bool = False
    pause: float = PAUSE


class Manager(Protocol):
    """What a relayer asks of the smart host that manages it."""

    async def more(self, relayer: "ManagedRelayer") -> list[Claim]:
        """Further messages for a relayer that has carried all it had; [] ends it."""
        ...

    async def admit(self, relayer: "ManagedRelayer", way: Way) -> str:
        """Let a relayer that has found its way connect, as one of its site's; or say why not, or why not now."""
        ...

    def stranded(self, claims: list[Claim]) -> None:
        """These could neither be settled nor put back, because the store would not."""
        ...


class ManagedRelayer:
    """One connection's life, readable from outside while it runs: where it is, since when, and what was said.

    `bag` is what it was given to carry; `answers_for` are the messages in it that are not settled, by message and
    destination. `destination` is whose mail it carries at the moment, `site` what all of it shares. `is_admitted`: it
    has found its way, and has a connection. `is_in_doubt`: the destination it was opened for has not proved itself, and
    `flow` says for whom that is. `result` tells in a few words how it ended. Times are the clock's. `state` is where it
    is in its life; its `pace` is finer, for those who look.
    """

    def __init__(
        self,
        id: int,
        site: Site,
        claims: list[Claim],
        parts: Parts,
        manager: Manager,
        is_in_doubt: bool = False,
        flow: Flow | None = None,
    ) -> None:
        self.id = id
        self.site = site
        self.destination = claims[0].destination
        self.is_in_doubt = is_in_doubt
        self.flow = flow
        self.hurry = Hurry()
        self.state: State = "lookup"
        self.is_admitted = False
        self.host = ""
        self.address = ""
        self.port = 0
        self.pace = Pace(parts.clock, parts.delivery.timeouts)
        self.started = self.pace.since
        self.ended: float | None = None
        self.result = ""
        self.secured = Secured()
        self.is_established = False
        self.transcript = Transcript(parts.clock)
        self._parts = parts
        self._begun = parts.clock.monotonic()
        self._manager = manager
        self._leaving = ""  # why, once it is to
        self._closed_by = ""
        self._called = asyncio.Event()
        self._connecting = 0.0
        self._most: int | None = None  # how many messages the host takes in this session, where that is known
        self._unsaid: tuple[Claim, Sequence[Outcome]] | None = None  # what another host may still better
        self._session: Session | None = None
        self._transaction: Transaction | None = None  # what is being sent, until what came of it is recorded
        self.has_delivered = False
        self.bag = Mailbag(claims, parts.queue, parts.attempts, returned=lambda count: self.site.returned(count))
        self._ways = Ways(self, self.bag, parts)

    @property
    def answers_for(self) -> Mapping[tuple[int, str], Claim]:
        """The messages that are neither settled nor put back."""
        return self.bag.claims

    @property
    def taken(self) -> int:
        """How many messages it was given, but for those that it gave back."""
        return self.bag.taken

    @property
    def age(self) -> float:
        """For how many seconds it has been there, whatever the clock was set to meanwhile."""
        return self._parts.clock.monotonic() - self._begun

    @property
    def is_doubtful(self) -> bool:
        """Whether it counts among those that have not proved themselves: who keeps us waiting does, whoever it is."""
        return self.is_in_doubt or self.pace.is_stalling

    @property
    def tls(self) -> str:
        """The version of TLS ("TLSv1.3"), or ""."""
        return self.secured.version

    @property
    def room(self) -> int | None:
        """How many messages its session may still take; None where no bound is known."""
        if self._most is None or self._session is None:
            return None
        return max(0, self._most - self._session.taken)

    @property
    def has_dialled(self) -> bool:
        """Whether it has tried any address yet."""
        return bool(self.address)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for more messages, with a connection that is open."""
        return self.state == "idle"

    @property
    def is_leaving(self) -> bool:
        """Whether it takes no more messages."""
        return bool(self._leaving)

    @property
    def is_called(self) -> bool:
        """Whether there is mail for it that it has not asked for yet."""
        return self._called.is_set()

    def tries(self, target: Target) -> None:
        """Be at another address from now on."""
        self.host, self.address, self.port = target.host, target.address, target.port

    def connected_in(self) -> float:
        """How many seconds it took to open the session, for the first message that goes over it; for others none."""
        took, self._connecting = self._connecting, 0.0
        return took

    def sends(self, claim: Claim) -> None:
        """Be at another message from now on."""
        self.destination = claim.destination
        self.pace.attempt()

    def reconsider(self, destination: str) -> None:
        """What was known of the way to a destination counts no more: it is sought anew before its next message."""
        self._ways.forget(destination)
        if not self.is_established and destination == self.destination:
            self.leave("its mail goes another way now")

    def leave(self, why: str = "left") -> None:
        """End after the message that is being sent."""
        self._leaving = self._leaving or why
        self._called.set()

    def call(self) -> None:
        """Have an idle relayer ask for more messages."""
        self.state = "carrying"
        self._called.set()

    def close(self, by: str) -> bool:
        """Note who closes this connection; whoever asks cancels `run` then. False: it is ending already.

        A relayer that writes down what it leaves behind must not be cancelled in the middle of that.
        """
        if self.state in ("ending", "ended"):
            return False
        self.state = "ending"
        self._closed_by = by
        self.transcript.add("=", f"closed by {by}")
        return True

    async def run(self) -> None:
        """Carry the messages until there are none left. Raises nothing but cancellation and QueueBroken."""
        fault: _Fault | None = None
        try:
            await self._relay()
        except QueueBroken as error:
            self.result = f"the queue is broken: {error}"
            raise
        except NotHeld as error:  # what is on its way is broken off, and goes back untried where it is still ours
            self.result = str(error)
        except QueueError as error:
            # Nothing the peer has taken is concerned (see AttemptManager.report): it goes back untried.
            self._transaction = None
            why = f"fault here, not recorded: {error}"
            pause = STORE_PAUSE if isinstance(error, QueueBusy) else PAUSE
            fault = _Fault(Outcome.transient(why, enhanced="4.3.1", cause="ours"), pause=pause)
        except asyncio.CancelledError:
            self.result = self._stopped
            raise
        except Exception as error:
            # A fault of ours must neither strand what this relayer answers for nor repeat itself without a pause.
            log.exception("relayer %d to %s", self.id, self.destination)
            why = f"fault in the relay: {type(error).__name__}"
            fault = _Fault(Outcome.transient(why, enhanced="4.3.0", cause="ours"), may_repeat=self._session is None)
        finally:
            await self._leave_nothing_behind(fault)
            self.pace.rest("ended")
            self.state, self.ended = "ended", self._parts.clock.now()

    # -- the way there --------------------------------------------------------------------------------------------

    async def _relay(self) -> None:
        while not self._leaving and (way := await self._find_way()) is not None:
            found = await self._ways.addresses(way)
            if found is None:
                continue
            if found.has_targets and not self.is_admitted:  # else nothing is dialled
                if refusal := await self._manager.admit(self, way):
                    self.result = refusal
                    await self.bag.put_back(refusal)
                    return
                self.is_admitted = True
            await self._go(way, found)
        self.result = self.result or self._leaving

    async def _find_way(self) -> Way | None:
        """The way of the first destination that has one; what has none, or another than this site, is dealt with."""
        while self.answers_for:
            self.destination = next(iter(self.answers_for.values())).destination
            self.state = "lookup"
            self.pace.enter("lookup")
            way = await self._ways.to(self.destination)
            if way is not None and (not self.is_admitted or await self._ways.leads_here(way)):
                return way
            if not self.answers_for:
                self.bag.take(await self._manager.more(self))
        return None

    async def _go(self, way: Way, found: Found) -> None:
        """Carry what may go over sessions opened for this way; what is left then needs one of its own."""
        self._ways.begin(way)
        opening = Opening(self, way, found, self._parts)
        while (session := await self._open(opening)) is not None:
            try:
                if not await self._carry(session, opening):
                    await session.quit()
                    return
            finally:
                session.close()

    async def _open(self, opening: Opening) -> Session | None:
        """The next session of an attempt; None: it has been reported that there is none."""
        self.state = "connecting"
        self.pace.attempt()
        began = self._parts.clock.monotonic()
        found = await opening.session()
        self._connecting = self._parts.clock.monotonic() - began
        if isinstance(found, Session):
            self._session, self.secured = found, found.secured
            self.is_established = True
            self._most = self._parts.session_lengths.begin(self.host)
            where = f"{clean(self.host)} [{self.address}]:{self.port}"
            log.info("relayer %d: %s, %s", self.id, where, self.secured.line)
            self.site.established()
            return found
        if self._unsaid is not None:
            await self._say_after_all()
        elif found is not None and found.by_dns:
            await self._ways.no_way(self.destination, found.outcome)
        elif found is not None:
            await self._ways.no_connection(found.outcome, found.blamed)
        return None

    # -- the messages ---------------------------------------------------------------------------------------------

    async def _carry(self, session: Session, opening: Opening) -> bool:
        """Send what this session may carry, and wait a moment for more; True: go on with the next host."""
        was_idle = False  # just before the message that is sent
        while self.answers_for:
            self.state = "carrying"
            for claim in self.bag.left():
                if not self._leaving and await self._ways.may_carry(session, claim):
                    sent = await self._send(session, claim, opening, was_idle=was_idle)
                    was_idle = was_idle and bool(sent.why)  # nothing was said to the peer of what cannot be read
                    if sent.verdict is Verdict.OTHER_FAMILY:
                        await self._go_over_ipv4(session, opening)
                        return True
                    if not session.usable:
                        return await self._hung_up(session, opening, sent)
                    self._parts.session_lengths.outlasted(self.host, session.taken)
                    if self._most is not None and session.taken >= self._most:
                        self.leave(f"{self.bag.done} sent, as many as {self.host} takes in a session")
                if self._leaving:
                    self.result = self._leaving
                    return False
            if self.answers_for:
                return False  # these demand more of a session than this one has
            claims, was_idle = await self._more(session)
            self.bag.take(claims)
        self.result = f"{self.bag.done} sent" + (f"; {self._leaving}" if self._leaving else "")
        return False

    async def _more(self, session: Session) -> tuple[list[Claim], bool]:
        """More messages, at once or within the time that the connection may be idle; and whether it was.

        The peer may close meanwhile: then there is nothing to tell, and the next connection is a new one.
        """
        claims = await self._manager.more(self)
        until = None if claims or self._leaving else self.site.idle_until(self)
        if until is None:
            return claims, False
        self.pace.rest("idle")
        while not self._leaving and session.usable:
            self._called.clear()
            self.state = "idle"
            try:
                if not await self._parts.clock.wait(self._called, until):
                    return [], False
            finally:
                if self.is_idle:  # it may have been closed meanwhile
                    self.state = "carrying"
            if not self._leaving and session.usable:
                claims = await self._manager.more(self)
                self._called.clear()
                if claims:
                    return claims, True
        return [], False

    async def _go_over_ipv4(self, session: Session, opening: Opening) -> None:
        """The host would not have us over IPv6, for want of a name: all that is for it goes over the other now."""
        self.transcript.add("=", "our IPv6 address has no name that this host would have: over IPv4 from now on")
        self._parts.router.ipv6_refusals.note(self.host)
        opening.go_over_ipv4()
        await session.quit()

    async def _hung_up(self, session: Session, opening: Opening, sent: Sent) -> bool:
        """The peer ended the session: see to those that were to go over it. True: another host is tried for them."""
        if self._unsaid is not None:
            opening.go_on()
            return True
        match Rest.AT_ONCE if sent.why else rest(sent.verdict, sent.last, session.taken):
            case Rest.NEXT_HOST:
                opening.go_on()
                return True
            case Rest.AT_ONCE:
                self.result = sent.why or "the peer closed the idle connection"
                self.leave(self.result)
            case Rest.CUT_SHORT:
                # One that ends it for a message which it refused has not said how many it takes.
                is_enough = sent.verdict is Verdict.BETWEEN or sent.last.kind == "delivered"
                is_usual = is_enough and self._parts.session_lengths.ended(self.host, session.taken)
                self.site.cut_short(self, sent.last, is_usual=is_usual)
                self.result = f"{self.bag.done} sent; then the host ended the session"
                self.leave(self.result)
            case Rest.LATER:
                self.result = sent.last.line
                # Blocked first: what is put back must not be claimed before the block stands.
                await self.site.unreachable(self, sent.last.as_transient(), pause=self.has_delivered)
        await self.bag.put_back(self.result)
        return False

    async def _say_after_all(self) -> None:
        """No other host was of use: what the first session came to stands."""
        assert self._unsaid is not None
        (claim, outcomes), self._unsaid = self._unsaid, None
        self.result = outcomes[-1].line
        await self.bag.report(claim, outcomes)
        await self.site.unreachable(self, outcomes[-1].as_transient())
        await self.bag.put_back(self.result)

    async def _send(self, session: Session, claim: Claim, opening: Opening, *, was_idle: bool) -> Sent:
        """Send one message and record what came of it, or leave it for another session."""
        self._transaction = Transaction(self, claim, session, self.bag, self._parts)
        sent = await self._transaction.run(
            was_idle=was_idle, may_go_on=opening.may_go_on(), may_go_over_ipv4=opening.may_go_over_ipv4()
        )
        self._transaction = None
        if sent.verdict is Verdict.ELSEWHERE:
            self._unsaid = claim, sent.outcomes
        elif sent.verdict is Verdict.OTHER_FAMILY:
            # For good it was only over IPv6: where nobody is to be had over IPv4 now, it waits.
            self._unsaid = claim, [replace(outcome, kind="transient") for outcome in sent.outcomes]
        elif sent.verdict is Verdict.STANDS and not sent.why:
            self._unsaid = None
        return sent

    # -- the end --------------------------------------------------------------------------------------------------

    async def _leave_nothing_behind(self, fault: _Fault | None) -> None:
        """Settle or put back what is still ours, and hand to the manager what the store would not take."""
        self.state = "ending"
        if fault is not None:
            self.result = fault.outcome.text
        if self._session is not None:
            self._session.close()
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                if fault is not None and fault.may_repeat:
                    await self.bag.report_all(self.destination, fault.outcome)
                if self._transaction is not None:
                    await self._transaction.break_off(self._stopped, fault.outcome if fault is not None else None)
                if fault is not None:
                    await self.site.faulted(self, fault.outcome, seconds=fault.pause)
                await self.bag.put_back(self.result or "connection lost")
        except (QueueError, TimeoutError) as error:
            log.warning("relayer %d could not give back %d messages: %s", self.id, len(self.answers_for), error)
            self._manager.stranded(self.bag.left())
        except asyncio.CancelledError:  # in the middle of it: what it was about to give back is given back later
            self._manager.stranded(self.bag.left())
            raise

    @property
    def _stopped(self) -> str:
        return f"closed by {self._closed_by}" if self._closed_by else "stopped"
