"""A managed relayer: one life, in which it opens a way to one site and carries messages there, one after the other.

It reports to the attempt manager as it goes, and tells its site how it goes. What it still answers for when it is
stopped is put back untried.

The way of a message, 4 of 7: here it is carried. From engine.delivery.smarthost; on to engine.delivery.routes.
"""

import asyncio
import logging
from typing import Literal, NamedTuple, Protocol

from engine.base.text import clean
from engine.delivery.addresses import LOOKUP, WITH_OTHERS, Found, find
from engine.delivery.hurry import WHY, Hurried, Hurry
from engine.delivery.opening import Opening
from engine.delivery.parts import Parts
from engine.delivery.routes import Way, has_hosts_of
from engine.delivery.site import Site
from engine.delivery.stall import PATIENCE, patience, usual
from engine.delivery.turns import Flow
from engine.delivery.verdict import Rest, Verdict, rest, verdict
from engine.dns.mx import MOST_EXCHANGES, AllMarkedBad, MXError
from engine.model.claim import Claim
from engine.model.destination import unknown_site
from engine.model.outcome import Outcome
from engine.queue.contract import QueueBroken, QueueBusy, QueueError
from engine.smtpclient.blame import Blame, shortage
from engine.smtpclient.mail import Mail, mail_of
from engine.smtpclient.session import Form, Phase, Session
from engine.smtpclient.target import Target
from engine.smtpclient.transcript import Transcript
from engine.tls.secured import Secured

log = logging.getLogger(__name__)

_DOMAINS_SHOWN = 100
_LAST_SECONDS = 10.0  # for writing down what a relayer leaves behind

# It finds its way, opens a connection, carries messages over it, waits for more; it writes down what it leaves behind.
# From there it comes back to an earlier one where some of its mail needs another way.
State = Literal["lookup", "connecting", "carrying", "idle", "ending", "ended"]


class _Sent(NamedTuple):
    """What sending a message came to, and what was said `last`; `why` it could not be read, where that is so."""

    verdict: Verdict
    last: Outcome
    why: str = ""


class _Fault(NamedTuple):
    """What broke off a relayer's life, ours or the store's. `may_repeat`: met on the way there, it would come again."""

    outcome: Outcome
    may_repeat: bool = False


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

    `done` of `taken` messages are settled; `answers_for` are those that are not, by message and destination.
    `destination` is whose mail it carries at the moment, `domains` those it has carried any for so far (the first
    hundred), `site` what they share. `is_admitted`: it has found its way, and has a connection.
    `is_in_doubt`: the destination it was opened for has not proved itself, and `flow` says for whom that is. `result`
    tells in a few words how it ended. Times are the clock's. `state` is where it is in its life; `phase` is finer, for
    those who look.
    """

    def __init__(
        self,
        id: int,
        site: Site,
        claims: list[Claim],
        parts: Parts,
        manager: Manager,
        form: Form = "ESMTP",
        is_in_doubt: bool = False,
        flow: Flow | None = None,
    ) -> None:
        self.id = id
        self.site = site
        self.destination = claims[0].destination
        self.answers_for: dict[tuple[int, str], Claim] = {}
        self.domains: list[str] = []
        self.is_in_doubt = is_in_doubt
        self.flow = flow
        self.hurry = Hurry()
        self.state: State = "lookup"
        self.is_admitted = False
        self.host = ""
        self.address = ""
        self.port = 0
        self.phase: Phase = "lookup"
        self.started = parts.clock.now()
        self.phase_since = self.started
        self.stalls_at = self.started + usual(
            self.phase, parts.delivery.timeouts
        )  # when its phase has lasted unusually long
        self.ended: float | None = None
        self.result = ""
        self.taken = 0
        self.done = 0
        self.secured = Secured()
        self.is_established = False
        self.transcript = Transcript(parts.clock)
        self._parts = parts
        self._begun = parts.clock.monotonic()
        self._manager = manager
        self.form = form
        self._leaving = ""  # why, once it is to
        self._closed_by = ""
        self._called = asyncio.Event()
        self._attempt_since: float | None = self.started
        self._ways: set[str] = set()  # destinations that this session is right for
        self._most: int | None = None  # how many messages the host takes in this session, where that is known
        self._unsaid: tuple[Claim, list[Outcome]] | None = None  # what another host may still better
        self._session: Session | None = None
        self._sending: Claim | None = None
        self._outcomes: list[Outcome] | None = None  # of what is being sent, until they are recorded
        self.has_delivered = False
        self._take(claims)

    @property
    def stalling(self) -> bool:
        """Whether it has been in its phase, or at its attempt, for longer than is usual."""
        if self.ended is not None:
            return False
        now = self._parts.clock.now()
        if self._attempt_since is not None and now - self._attempt_since > self._parts.delivery.timeouts.attempt / 2:
            return True
        return now > self.stalls_at

    @property
    def age(self) -> float:
        """For how many seconds it has been there, whatever the clock was set to meanwhile."""
        return self._parts.clock.monotonic() - self._begun

    @property
    def is_doubtful(self) -> bool:
        """Whether it counts among those that have not proved themselves: who keeps us waiting does, whoever it is."""
        return self.is_in_doubt or self.stalling

    @property
    def patience_ends(self) -> float:
        """When it has kept us waiting for long enough, if it is doubtful and others wait for its connection."""
        ends = self.phase_since + patience(self.phase, self._parts.delivery.timeouts)
        if ends < float("inf") and self._attempt_since is not None and self.phase != "body":
            return min(ends, self._attempt_since + PATIENCE)
        return ends

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

    def enter(self, phase: Phase) -> None:
        """Be in another phase from now on."""
        self.phase, self.phase_since = phase, self._parts.clock.now()
        self.stalls_at = self.phase_since + usual(phase, self._parts.delivery.timeouts)

    def tries(self, target: Target) -> None:
        """Be at another address from now on."""
        self.host, self.address, self.port = target.host, target.address, target.port

    def reconsider(self, destination: str) -> None:
        """What was known of the way to a destination counts no more: it is sought anew before its next message."""
        self._ways.discard(destination)
        if not self.is_established and destination == self.destination:
            self.leave("its mail goes another way now")

    def leave(self, why: str = "left") -> None:
        """End after the message that is being sent."""
        self._leaving = self._leaving or why
        self._called.set()

    async def keep(self, count: int) -> None:
        """Give back untried all messages but the first `count`. Raises QueueError."""
        beyond = list(self.answers_for.values())[count:]
        if beyond:
            await self._give_back(beyond, "a limit of its site allows fewer")

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
        except QueueError as error:
            # Nothing the peer has taken is concerned (see AttemptManager.report): it goes back untried.
            self._outcomes, self._sending = None, None
            why = f"fault here, not recorded: {error}"
            fault = _Fault(Outcome.transient(why, enhanced="4.3.1", cause="ours"))
        except asyncio.CancelledError:
            self.result = f"closed by {self._closed_by}" if self._closed_by else "stopped"
            raise
        except Exception as error:
            # A fault of ours must neither strand what this relayer answers for nor repeat itself without a pause.
            log.exception("relayer %d to %s", self.id, self.destination)
            why = f"fault in the relay: {type(error).__name__}"
            fault = _Fault(Outcome.transient(why, enhanced="4.3.0", cause="ours"), may_repeat=self._session is None)
        finally:
            await self._leave_nothing_behind(fault)
            self.enter("ended")
            self.state, self.ended = "ended", self._parts.clock.now()

    # -- the way there --------------------------------------------------------------------------------------------

    async def _relay(self) -> None:
        while not self._leaving and (way := await self._find_way()) is not None:
            seconds = WITH_OTHERS if self.is_admitted else LOOKUP
            found = await find(
                self._parts.router,
                way,
                most=self._parts.delivery.max_addresses,
                seconds=seconds,
                put_off=lambda host: self._is_on_trial(host),
            )
            if self.is_admitted and not found.has_targets:
                await self._look_up_apart(way.destination)
                continue
            if found.has_targets and not self.is_admitted:  # else nothing is dialled
                if refusal := await self._manager.admit(self, way):
                    self.result = refusal
                    await self._put_back(refusal)
                    return
                self.is_admitted = True
            await self._go(way, found)
        self.result = self.result or self._leaving

    def _is_on_trial(self, host: str) -> bool:
        """Whether a host comes back from being bad, and another relayer is the one that finds out how it is."""
        return self._parts.mx.is_returning(host) and self.site.is_tried_by_another(host, self)

    async def _find_way(self) -> Way | None:
        """The way of the first destination that has one; what has none, or another than this site, is dealt with."""
        while self.answers_for:
            self.destination = next(iter(self.answers_for.values())).destination
            self.state = "lookup"
            self.enter("lookup")
            way = await self._way_to(self.destination)
            if way is not None and (not self.is_admitted or await self._leads_here(way)):
                return way
            if not self.answers_for:
                self._take(await self._manager.more(self))
        return None

    async def _go(self, way: Way, found: Found) -> None:
        """Carry what may go over sessions opened for this way; what is left then needs one of its own."""
        self._ways = {way.destination}
        opening = Opening(self, way, found, self._parts)
        while (session := await self._open(opening)) is not None:
            try:
                if not await self._carry(session, opening):
                    await session.quit()
                    return
            finally:
                session.close()

    async def _way_to(self, destination: str) -> Way | None:
        """Find the way to a destination and note it; None when there is none, and its messages are dealt with."""
        is_alone = not self.is_admitted and self.site.name == unknown_site(destination)
        bound = LOOKUP if is_alone else WITH_OTHERS
        try:
            async with asyncio.timeout(bound):
                way = await self._parts.router.apart(await self._parts.router.way(destination))
        except AllMarkedBad as error:
            await self._left_out(destination, error)
            return None
        except MXError as error:
            await self._no_way(destination, error.outcome)
            return None
        except TimeoutError:
            if not is_alone:
                await self._look_up_apart(destination)
                return None
            text = f"no way was found within {bound:.0f} s"
            await self._no_way(destination, Outcome.transient(text, enhanced="4.4.3"))
            return None
        if not self.site.is_of(way.destination, way.site):
            name = self.site.name_of(way.destination, way.site)
            await self._parts.queue.standing.note_destination(destination, way.hosts[:MOST_EXCHANGES], name)
        return way

    async def _look_up_apart(self, destination: str) -> None:
        """What takes long to look up must keep neither a connection nor the mail of others: it gets its own relayer."""
        await self._parts.queue.standing.note_destination(destination, None, unknown_site(destination))
        await self._put_back("its look-up takes long", destination)

    async def _left_out(self, destination: str, error: AllMarkedBad) -> None:
        """Operators have marked all hosts bad: that is no attempt."""
        await self._parts.queue.standing.note_destination(destination, sorted(error.hosts))
        self.result = error.outcome.text
        if error.site and has_hosts_of(error.site, self.site.name):
            await self.site.unreachable(self, error.outcome, until=error.until)
        else:
            await self.site.lost(destination, error.outcome, until=error.until)
        await self._put_back(self.result, destination)

    async def _no_way(self, destination: str, outcome: Outcome) -> None:
        """DNS has no way: for good (and then for all the mail that comes after) or for now."""
        self.transcript.add("=", outcome.line)
        self.result = outcome.text
        if outcome.kind == "transient" and (wanting := shortage()):
            # No name server could be asked, which is no fault of the domain's.
            self.result = f"{wanting} here: {outcome.text}"
            ours = Outcome.transient(self.result, enhanced="4.3.2", cause="ours")
            self.site.is_ours("machine", ours)
            self.leave(self.result)
            await self._put_back(self.result)
            return
        for claim in self._claims_of(destination):
            await self._report(claim, [outcome] * len(claim.entries))
        if outcome.kind == "transient":
            await self.site.lost(destination, outcome)

    async def _leads_here(self, way: Way) -> bool:
        """Whether a way is one of this relayer's site; its messages are given back where it is not."""
        if self.site.is_of(way.destination, way.site):
            return True
        await self._put_back("it has other exchanges now", way.destination)
        return False

    async def _keep_what_leads_here(self) -> None:
        """Give back what has another site by now, as by a policy that is new: how it went here is not its concern."""
        for destination in dict.fromkeys(claim.destination for claim in self.answers_for.values()):
            if destination not in self._ways and (way := await self._way_to(destination)) is not None:
                await self._leads_here(way)

    async def _is_right_for(self, session: Session, claim: Claim) -> bool:
        """Whether a session may carry a claim; else it is dealt with, or left for a session of its own.

        It was so by its last MX answer; what the DNS, the routes, the policies and the marks say now is what counts.
        """
        destination = claim.destination
        if (claim.message, destination) not in self.answers_for:
            return False  # dealt with
        if destination in self._ways:
            return True
        way = await self._way_to(destination)
        if way is None or not await self._leads_here(way):
            return False
        if all(exchange.host != self.host for exchange in way.exchanges):
            self.leave(f"{self.host} is left out now")
            return False
        if not await self._is_safe_enough_for(way, session):
            return False
        self._ways.add(destination)
        return True

    async def _is_safe_enough_for(self, way: Way, session: Session) -> bool:
        """Whether a session meets what a destination's own policies demand of its host."""
        try:
            async with asyncio.timeout(WITH_OTHERS):
                demand = await self._parts.router.demand(way, self.host)
        except (MXError, TimeoutError):
            return False
        return demand.is_met_by(session.demand)

    async def _open(self, opening: Opening) -> Session | None:
        """The next session of an attempt; None: it has been reported that there is none."""
        self.state, self._attempt_since = "connecting", self._parts.clock.now()
        found = await opening.session()
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
            await self._no_way(self.destination, found.outcome)
        elif found is not None:
            await self._no_connection(found.outcome, found.blamed)
        return None

    async def _no_connection(self, outcome: Outcome, blamed: Blame) -> None:
        self.result = outcome.line
        if blamed != "host" and self.site.is_ours(blamed, outcome):
            self.leave(self.result)
            await self._put_back(self.result)
            return
        if self.site.is_served_beside(self):
            # One connection too many is no attempt at the messages: the others take them.
            await self.site.unreachable(self, outcome)
            await self._put_back(self.result)
            return
        await self._keep_what_leads_here()
        claims = list(self.answers_for.values())
        await self._parts.attempts.no_connection(claims, outcome)
        for claim in claims:
            self._settled(claim)
        await self.site.unreachable(self, outcome)

    # -- the messages ---------------------------------------------------------------------------------------------

    async def _carry(self, session: Session, opening: Opening) -> bool:
        """Send what this session may carry, and wait a moment for more; True: go on with the next host."""
        was_idle = False  # just before the message that is sent
        while self.answers_for:
            self.state = "carrying"
            for claim in list(self.answers_for.values()):
                if not self._leaving and await self._is_right_for(session, claim):
                    sent = await self._send(session, claim, opening, was_idle=was_idle)
                    was_idle = was_idle and bool(sent.why)  # nothing was said to the peer of what cannot be read
                    if not session.usable:
                        return await self._hung_up(session, opening, sent)
                    self._parts.session_lengths.outlasted(self.host, session.taken)
                    if self._most is not None and session.taken >= self._most:
                        self.leave(f"{self.done} sent, as many as {self.host} takes in a session")
                if self._leaving:
                    self.result = self._leaving
                    return False
            if self.answers_for:
                return False  # these demand more of a session than this one has
            claims, was_idle = await self._more(session)
            self._take(claims)
        self.result = f"{self.done} sent" + (f"; {self._leaving}" if self._leaving else "")
        return False

    async def _more(self, session: Session) -> tuple[list[Claim], bool]:
        """More messages, at once or within the time that the connection may be idle; and whether it was.

        The peer may close meanwhile: then there is nothing to tell, and the next connection is a new one.
        """
        claims = await self._manager.more(self)
        until = None if claims or self._leaving else self.site.idle_until(self)
        if until is None:
            return claims, False
        self._attempt_since = None
        self.enter("idle")
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

    async def _hung_up(self, session: Session, opening: Opening, sent: _Sent) -> bool:
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
                self.result = f"{self.done} sent; then the host ended the session"
                self.leave(self.result)
            case Rest.LATER:
                self.result = sent.last.line
                # Blocked first: what is put back must not be claimed before the block stands.
                await self.site.unreachable(self, sent.last.as_transient(), pause=self.has_delivered)
        await self._put_back(self.result)
        return False

    async def _say_after_all(self) -> None:
        """No other host was of use: what the first session came to stands."""
        assert self._unsaid is not None
        (claim, outcomes), self._unsaid = self._unsaid, None
        self.result = outcomes[-1].line
        await self._report(claim, outcomes)
        await self.site.unreachable(self, outcomes[-1].as_transient())
        await self._put_back(self.result)

    async def _send(self, session: Session, claim: Claim, opening: Opening, *, was_idle: bool) -> _Sent:
        """Send one message and record what came of it, or leave it for another session."""
        try:
            mail = mail_of(claim, await self._parts.queue.claims.open_content(claim.message))
            self.destination = claim.destination
            self._sending, self._outcomes = claim, None
            self._attempt_since = self._parts.clock.now()
            self._outcomes = await self._within_bounds(session, mail)
        except (QueueBroken, QueueBusy):
            raise
        except QueueError as error:  # before the final dot: the peer has no whole message
            self._sending = None
            await self._parts.queue.claims.set_aside(claim, str(error))
            self._settled(claim)
            return _Sent(Verdict.STANDS, Outcome.transient(str(error)), str(error))
        outcomes = self._outcomes
        found = verdict(
            outcomes,
            is_over=not session.usable,
            was_idle=was_idle,
            has_delivered=self.has_delivered,
            is_first=not self.done,
            may_go_on=opening.may_go_on(),
        )
        if session.pipelining_failed and found is not Verdict.SLEPT_IN:
            self._parts.pipelining.note(self.host)
        if found is Verdict.BETWEEN and not self._parts.free_tries.is_free(claim.message, claim.destination):
            found = Verdict.STANDS  # it happens to this one again and again, may itself be the cause, and must end
        if found is Verdict.STANDS:
            self._unsaid = None
            await self._conclude(claim, outcomes)
        elif found is Verdict.ELSEWHERE:
            self._unsaid = claim, outcomes
        self._sending = None
        return _Sent(found, outcomes[-1])

    async def _conclude(self, claim: Claim, outcomes: list[Outcome]) -> None:
        """Record what became of a message, and tell whom its delivery concerns."""
        has_delivered = any(outcome.kind == "delivered" for outcome in outcomes)
        if has_delivered and not self.has_delivered:
            self.has_delivered = True
            self._parts.mx.delivered(self.host)
        # What the peer has taken is recorded before anything else is asked of the store, which may refuse that.
        await self._report(claim, outcomes)
        self._sending = None
        if has_delivered:
            await self.site.delivered(self)

    async def _within_bounds(self, session: Session, mail: Mail) -> list[Outcome]:
        """Every phase has its time-out; a peer that drips just within each of them has this one."""
        bound = self._parts.delivery.timeouts.attempt
        try:
            async with self.hurry.bound(bound):
                return await session.deliver(mail)
        except TimeoutError as error:
            if session.in_hand is not None:
                return session.in_hand
            session.close()
            text = WHY if isinstance(error, Hurried) else f"the message was not done within {bound:.0f} s"
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
            cause="lost",
        )

    async def _report(self, claim: Claim, outcomes: list[Outcome]) -> None:
        await self._parts.attempts.report(claim, outcomes)
        self._settled(claim)

    def _settled(self, claim: Claim) -> None:
        self.answers_for.pop((claim.message, claim.destination), None)
        self.done += 1

    def _claims_of(self, destination: str | None) -> list[Claim]:
        return [claim for claim in self.answers_for.values() if destination in (None, claim.destination)]

    def _take(self, claims: list[Claim]) -> None:
        for claim in claims:
            self.answers_for[claim.message, claim.destination] = claim
            if claim.destination not in self.domains and len(self.domains) < _DOMAINS_SHOWN:
                self.domains.append(claim.destination)
        self.taken += len(claims)

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
                await self._settle_what_was_sent(fault)
                if fault is not None:
                    await self.site.faulted(self, fault.outcome)
                await self._put_back(self.result or "connection lost")
        except (QueueError, TimeoutError) as error:
            log.warning("relayer %d could not give back %d messages: %s", self.id, len(self.answers_for), error)
            self._manager.stranded(list(self.answers_for.values()))
        except asyncio.CancelledError:  # in the middle of it: what it was about to give back is given back later
            self._manager.stranded(list(self.answers_for.values()))
            raise

    async def _settle_what_was_sent(self, fault: _Fault | None) -> None:
        """A result in hand is recorded; one that is missing after the final dot may be a duplicate, and says so.

        What the store does not take in time is kept with its result, and reported again at each check: putting it
        back would strike from the record that the peer may have it.
        """
        sending, session, outcomes = self._sending, self._session, self._outcomes
        if fault is not None and fault.may_repeat:
            for claim in self._claims_of(self.destination):
                await self._report(claim, [fault.outcome] * len(claim.entries))
        if sending is None or session is None:
            return
        outcomes = outcomes or session.in_hand
        if outcomes is None and session.dotted:
            stopped = f"closed by {self._closed_by}" if self._closed_by else "stopped"
            outcomes = [self._cut_off(session, f"{stopped} while waiting for the reply to the final dot")]
        elif outcomes is None and fault is not None:
            outcomes = [fault.outcome]
        if outcomes is None:
            return  # not a byte of it counts yet: it goes back untried
        outcomes = outcomes if len(outcomes) == len(sending.entries) else outcomes * len(sending.entries)
        self.answers_for.pop((sending.message, sending.destination), None)
        try:
            await self._parts.attempts.report(sending, outcomes)
        except BaseException:
            self._parts.attempts.keep(sending, outcomes)
            raise
        self.done += 1

    async def _put_back(self, why: str, destination: str | None = None) -> None:
        """Give back untried what is left, of one destination or of all."""
        claims = self._claims_of(destination)
        if claims:
            await self._give_back(claims, why)

    async def _give_back(self, claims: list[Claim], why: str) -> None:
        await self._parts.queue.claims.put_back(claims, why)
        self.site.returned(len(claims))
        for claim in claims:
            del self.answers_for[claim.message, claim.destination]
        self.taken -= len(claims)
