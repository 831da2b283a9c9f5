"""A transaction: one message that a relayer sends over one session, from being read until its result is recorded."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from engine.delivery.hurry import WHY, Hurried, Hurry
from engine.delivery.mailbag import Mailbag
from engine.delivery.parts import Parts
from engine.delivery.site import Connection, Site
from engine.delivery.verdict import Verdict, verdict
from engine.model.claim import Claim
from engine.model.outcome import Outcome
from engine.queue.errors import NotHeld, QueueBroken, QueueBusy, QueueError
from engine.smtpclient.mail import Mail, mail_of
from engine.smtpclient.session import Session
from engine.smtpclient.transcript import Transcript


class Sent(NamedTuple):
    """What sending a message came to, for each recipient; `why` it could not be read, where that is so."""

    verdict: Verdict
    outcomes: Sequence[Outcome]
    why: str = ""

    @property
    def last(self) -> Outcome:
        """What was said last."""
        return self.outcomes[-1]


class Sending(Connection, Protocol):
    """What a transaction needs to know of the relayer that it is for, and shows at it."""

    address: str
    port: int
    hurry: Hurry
    transcript: Transcript
    has_delivered: bool

    @property
    def site(self) -> Site: ...
    def sends(self, claim: Claim) -> None: ...
    def connected_in(self) -> float: ...


class Transaction:
    """One claim over one session (RFC 5321 3.3). Wherever it is broken off, it sees to it that no result is lost."""

    def __init__(self, relayer: Sending, claim: Claim, session: Session, bag: Mailbag, parts: Parts) -> None:
        self._relayer = relayer
        self._claim = claim
        self._session = session
        self._bag = bag
        self._parts = parts
        self._is_under_way = False  # the peer may have something of it that is not recorded
        self._outcomes: list[Outcome] | None = None

    async def run(self, *, was_idle: bool, may_go_on: bool, may_go_over_ipv4: bool) -> Sent:
        """Send the message and record what came of it, or leave it for another session. Raises QueueError.

        NotHeld: it may be another node's to send; the peer has no whole message.

        `was_idle`: the session, just before; `may_go_on`: another host of the site may be tried;
        `may_go_over_ipv4`: this host, or another, may be over that.
        """
        try:
            self._see_that_it_is_held()
            content = await self._parts.queue.claims.open_content(self._claim.message)
            mail = mail_of(self._claim, content, before_its_end=self._see_that_it_is_held)
            self._relayer.sends(self._claim)
            self._is_under_way = True
            outcomes = self._outcomes = await self._within_bounds(mail)
        except (QueueBroken, QueueBusy, NotHeld):
            raise
        except QueueError as error:  # before the final dot: the peer has no whole message
            self._is_under_way = False
            await self._bag.set_aside(self._claim, str(error))
            return Sent(Verdict.STANDS, [Outcome.transient(str(error))], str(error))
        found = self._judged(outcomes, was_idle=was_idle, may_go_on=may_go_on, may_go_over_ipv4=may_go_over_ipv4)
        if found is Verdict.STANDS:
            await self._conclude(outcomes)
        self._is_under_way = False
        return Sent(found, outcomes)

    async def break_off(self, why: str, fault: Outcome | None) -> None:
        """Record what came of it as far as it had come; not a byte of it counts where nothing did. Raises QueueError.

        A result in hand is the result; one that is missing after the final dot may be a duplicate, and says `why`. Else
        it is the `fault` that broke it off, if there was one.
        """
        if not self._is_under_way:
            return
        outcomes = self._outcomes or self._session.in_hand
        if outcomes is None and self._session.dotted:
            outcomes = [self._cut_off(f"{why} while waiting for the reply to {self._session.ending}")]
        elif outcomes is None and fault is not None:
            outcomes = [fault]
        if outcomes is None:
            return  # it goes back untried
        count = len(self._claim.entries)
        await self._bag.report_or_keep(self._claim, outcomes if len(outcomes) == count else outcomes * count)

    def _see_that_it_is_held(self) -> None:
        if not self._parts.queue.claims.holds(self._claim):
            raise NotHeld("the lease of this node has ended: its mail is for others to send")

    async def _within_bounds(self, mail: Mail) -> list[Outcome]:
        """Every phase has its time-out; a peer that drips just within each of them has this one."""
        session, bound = self._session, self._parts.delivery.timeouts.attempt
        connecting, began = self._relayer.connected_in(), self._parts.clock.monotonic()
        try:
            async with self._relayer.hurry.bound(bound):
                outcomes = await session.deliver(mail)
        except TimeoutError as error:
            if session.in_hand is not None:
                outcomes = session.in_hand
            else:
                session.close()
                text = WHY if isinstance(error, Hurried) else f"the message was not done within {bound:.0f} s"
                outcomes = [self._cut_off(text)] * len(mail.recipients)
        address = f"{self._relayer.address}:{self._relayer.port}"
        took = (round(connecting, 3), round(self._parts.clock.monotonic() - began, 3))
        return [replace(outcome, address=address, took=took) for outcome in outcomes]

    def _cut_off(self, text: str) -> Outcome:
        self._relayer.transcript.add("=", text)
        return Outcome(
            kind="transient",
            enhanced="4.4.2",
            text=text,
            host=self._relayer.host,
            phase=self._session.phase,
            may_duplicate=self._session.dotted,
            cause="lost",
        )

    def _judged(
        self, outcomes: Sequence[Outcome], *, was_idle: bool, may_go_on: bool, may_go_over_ipv4: bool
    ) -> Verdict:
        found = verdict(
            outcomes,
            is_over=not self._session.usable,
            was_idle=was_idle,
            has_delivered=self._relayer.has_delivered,
            is_first=not self._bag.done,
            may_go_on=may_go_on,
            may_go_over_ipv4=may_go_over_ipv4,
        )
        if self._session.pipelining_failed and found is not Verdict.SLEPT_IN:
            self._parts.pipelining.note(self._relayer.host)
        if self._session.chunking_failed:
            self._parts.chunking.note(self._relayer.host)
        if found is Verdict.BETWEEN and not self._parts.free_tries.is_free(
            self._claim.message, self._claim.destination
        ):
            return Verdict.STANDS  # it happens to this one again and again, may itself be the cause, and must end
        return found

    async def _conclude(self, outcomes: Sequence[Outcome]) -> None:
        """Record what became of the message, and tell whom its delivery concerns."""
        relayer = self._relayer
        has_delivered = any(outcome.kind == "delivered" for outcome in outcomes)
        if has_delivered and not relayer.has_delivered:
            relayer.has_delivered = True
            self._parts.mx.delivered(relayer.host)
        # What the peer has taken is recorded before anything else is asked of the store, which may refuse that.
        await self._bag.report(self._claim, outcomes)
        self._is_under_way = False
        if has_delivered:
            await relayer.site.delivered(relayer)
