"""The attempt manager: what a relayer reports becomes a change of the queue, atomically.

This is where an outcome turns into a decision: finished, due again at a later time, or returned to the sender. What
is to be told of a recipient is written down in the very transaction that settles it, and its notification queued in the
one that forgets that and removes the message: a kill at any line leaves one or the other, never neither, never both.

The way of a message, 7 of 7: here it is settled. From engine.smtpclient.session; on to engine.control, which shows it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.base.clock import Clock
from engine.base.plural import plural
from engine.base.text import clean
from engine.delivery import dsn
from engine.delivery.notices import NOT_WANTED, Notices, OfBounce
from engine.delivery.retry import RetryPlan
from engine.dkim.result import CannotSign, Sign, unsigned
from engine.model.claim import Action, Claim, ClaimedEntry, EntryResult, Settlement
from engine.model.event import ENGINE, Detail, Event, Kind
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from engine.queue.errors import NotRunning, QueueBroken, QueueBusy, QueueError, QueueFull

log = logging.getLogger(__name__)

_STORE_PAUSE = 2.0  # seconds between tries to record a result while the store is full or busy
_TELL_LATER = 600.0  # seconds between tries to tell of a message of which nobody could be told


class AttemptManager:
    """Settles what relayers report.

    The ancestor's notifySuccess and notifyFailure are `report` (recipients of one message may differ),
    notifyNoConnection is `no_connection`; notifyDone, the end of a relayer, is the smart host's own matter.

    `suppress` says what an outcome means for the suppression list, which has `most_suppressed` addresses at the most.
    """

    def __init__(
        self,
        queue: Queue,
        retries: RetryPlan,
        clock: Clock,
        *,
        hostname: str,
        postmaster: str = "",
        content_returned: int = dsn.WHOLE_RETURNED,
        sign: Sign = unsigned,
        suppress: Callable[[Claim, ClaimedEntry, Outcome], float | None] = lambda *_: None,
        most_suppressed: int = 0,
    ) -> None:
        self._queue = queue
        self._retries = retries
        self._clock = clock
        self._notices = Notices(
            queue, hostname=hostname, postmaster=postmaster, content_returned=content_returned, sign=sign
        )
        self.on_untold: Callable[[], None] = lambda: None  # there is something to be told of settled recipients
        self._suppress = suppress
        self._most_suppressed = most_suppressed
        self._may_be_too_many = most_suppressed > 0  # on the suppression list
        self._unrecorded: list[tuple[Claim, tuple[Outcome, ...]]] = []

    async def report(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """Record what became of each recipient of a claim, in the order of its entries.

        Where the peer has taken the message, a store that is full or busy is waited for: a result that is not recorded
        would send it again. If it can be recorded for no other reason, it is held, with a warning for whoever releases
        it; and if the store will not hold it either, it is kept, and reported again at each check. Otherwise nothing
        is lost by trying again later. Raises QueueError, and where the peer has it, QueueBroken alone.
        """
        is_with_peer = _is_with_peer(outcomes)
        while True:
            try:
                return await self._record(claim, outcomes)
            except NotRunning as error:
                log.warning("message %d: its result comes too late: %s", claim.message, error)
                return None
            except QueueBroken:
                raise
            except (QueueFull, QueueBusy) as error:
                if not is_with_peer:
                    raise
                log.error("message %d: its result waits to be recorded: %s", claim.message, error)
                await asyncio.sleep(_STORE_PAUSE)
            except QueueError as error:
                if not is_with_peer:
                    raise
                log.error("message %d: its result is neither recorded nor held: %s", claim.message, error)
                return self.keep(claim, outcomes)

    def keep(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """Keep a result that whoever had it could not record: it is reported again at each check."""
        self._unrecorded.append((claim, tuple(outcomes)))

    @property
    def kept(self) -> tuple[Claim, ...]:
        """The claims whose results are kept."""
        return tuple(claim for claim, _ in self._unrecorded)

    async def report_again(self) -> str:
        """Record what was kept, each once; say what is still to be recorded and why, or "". Raises QueueBroken."""
        waiting, self._unrecorded = self._unrecorded, []
        why = ""
        while waiting:
            claim, outcomes = waiting[0]
            try:
                await self._record(claim, outcomes)
            except NotRunning as error:
                log.warning("message %d: its result comes too late: %s", claim.message, error)
            except QueueError as error:
                why = str(error)
                self._unrecorded.append(waiting[0])
                if isinstance(error, QueueBroken):
                    self._unrecorded += waiting[1:]
                    raise
            except BaseException:  # cancelled: what was in hand is kept as well
                self._unrecorded += waiting
                raise
            waiting.pop(0)
        if not why:
            return ""
        count = len(self._unrecorded)
        return f"{plural(count, 'result')} of attempts not recorded yet: {why}"

    async def trim_suppressed(self) -> None:
        """Keep the suppression list within its bound, once something was entered. Raises QueueError."""
        if not self._may_be_too_many:
            return
        self._may_be_too_many = False
        try:
            await self._queue.suppression.trim(self._most_suppressed)
        except BaseException:
            self._may_be_too_many = True
            raise

    async def no_connection(self, claims: Sequence[Claim], outcome: Outcome) -> None:
        """Record that no exchange could be reached for these claims: one outcome for all."""
        for claim in claims:
            await self.report(claim, [outcome] * len(claim.entries))

    async def give_up(self, claim: Claim) -> None:
        """Return to its sender a claim that has expired or that an operator ordered bounced. Raises QueueError."""
        with suppress(NotRunning):
            await self._record(claim, [self._last_word(entry) for entry in claim.entries])

    async def tell_settled(self, limit: int) -> tuple[bool, str]:
        """Tell of settled recipients of up to `limit` messages; say whether there may be more, and what is in the way.

        A message of which nobody can be told, for a reason of its own, keeps none of the others from that. Raises
        QueueError.
        """
        found = await self._queue.claims.untold(limit)
        full = ""
        for one in found:
            try:
                await self._notices.of_settled(one, self._clock.now())
            except QueueFull as error:
                full = str(error)  # which need not be so for the next
            except (QueueBusy, QueueBroken):
                raise
            except CannotSign as error:
                log.warning("message %d: its notification waits to be signed: %s", one.message, clean(str(error)))
                await self._queue.claims.tell_later(one.message, _TELL_LATER)
            except Exception:
                log.exception("message %d: nobody can be told of its recipients", one.message)
                await self._queue.claims.tell_later(one.message, _TELL_LATER)
        return bool(found) and not full, full

    async def tell_delays(self, limit: int) -> bool:
        """Tell the senders of up to `limit` messages of their delay; True when there may be more. Raises QueueError."""
        late = await self._queue.claims.late(limit)
        notified = [await self._notices.of_delay(one, self._clock.now()) for one in late]
        # What was not told has changed meanwhile, and is looked at again at the next check.
        return len(notified) == limit and all(notified)

    async def _record(self, claim: Claim, outcomes: Sequence[Outcome]) -> None:
        """Settle a claim. A fault of ours in that holds it, for someone to see: it would be the same at each try.

        So does an error of the store that concerns this settlement alone, where the peer may have the message.
        Raises QueueError.
        """
        warning = "; the peer may have taken it" if _is_with_peer(outcomes) else ""
        try:
            settlement = await self._decide(claim, outcomes)
            await self._queue.claims.settle(settlement)
            self._may_be_too_many |= any(result.suppress for result in settlement.results)
            if any(result.tell is not None for result in settlement.results):
                self.on_untold()
        except (NotRunning, QueueFull, QueueBusy, QueueBroken):
            raise
        except QueueError as error:
            if not warning:
                raise
            log.exception("message %d: its result cannot be recorded", claim.message)
            await self._queue.claims.set_aside(
                claim, f"its result cannot be recorded ({clean(str(error), 200)}){warning}"
            )
        except Exception as error:
            log.exception("message %d: its result cannot be recorded", claim.message)
            why = f"fault in the relay: its result cannot be recorded ({type(error).__name__})"
            await self._queue.claims.set_aside(claim, f"{why}{warning}")
        else:
            if claim.sender == dsn.NULL_SENDER:
                _log_bounces(settlement.events)

    async def _decide(self, claim: Claim, outcomes: Sequence[Outcome]) -> Settlement:
        """What an outcome means for each recipient, and what is to be told of it."""
        now = self._clock.now()
        results: list[EntryResult] = []
        events: list[Event] = []
        final = [self._in_the_end(entry, said, now) for entry, said in zip(claim.entries, outcomes, strict=True)]
        every = list(zip(claim.entries, final, strict=True))
        failed = [entry for entry, outcome in every if outcome.kind == "permanent"]
        is_bounce = claim.sender == dsn.NULL_SENDER
        of_bounce = await self._notices.of_bounce(claim, failed) if failed and is_bounce else OfBounce({}, frozenset())
        for entry, outcome in every:
            due = None
            tell: Action | None = None
            if outcome.kind == "transient":
                due = self._retries.next_due(
                    claim.destination, outcome, now=now, failures=entry.attempts + 1, expires=entry.expires
                )
            elif is_bounce:
                tell = "failed" if entry.number in of_bounce.for_postmaster else None
            else:
                tell = self._notices.action(entry, outcome)
            result = EntryResult(
                number=entry.number,
                attempt=entry.attempt,
                outcome=outcome,
                due=due,
                tell=tell,
                suppress=self._suppress(claim, entry, outcome) if due is None else None,
            )
            results.append(result)
            events.append(self._event(claim, entry, outcome, now, of_bounce.said.get(entry.number, "")))
        return Settlement(message=claim.message, results=tuple(results), events=tuple(events), epoch=claim.epoch)

    def _in_the_end(self, entry: ClaimedEntry, outcome: Outcome, now: float) -> Outcome:
        """A transient failure of mail that is out of time is for good (RFC 5321 4.5.4.1)."""
        if outcome.kind != "transient" or now < entry.expires:
            return outcome
        return _expired(outcome)

    @staticmethod
    def _last_word(entry: ClaimedEntry) -> Outcome:
        if entry.given_up:
            return Outcome.permanent(entry.given_up, enhanced="5.7.0")
        return _expired(entry.last or Outcome.transient("no attempt could be made"))

    def _event(self, claim: Claim, entry: ClaimedEntry, outcome: Outcome, now: float, of_bounce: str) -> Event:
        text = ""
        kind: Kind
        if outcome.kind == "delivered":
            kind = "delivered"
            if claim.sender != dsn.NULL_SENDER and self._notices.action(entry, outcome) is not None:
                text = "the sender asked to be told, and is"
        elif outcome.kind == "transient":
            kind = "deferred"
            if outcome.may_duplicate:
                text = "the peer may have taken it: it may arrive twice"
        elif claim.sender == dsn.NULL_SENDER:
            kind = "discarded"
            text = f"a bounce that bounces: {of_bounce}"
        elif self._notices.action(entry, outcome) is None:
            kind = "discarded"
            text = f"{NOT_WANTED} (NOTIFY={entry.dsn.notify})"
        else:
            kind = "returned"
        return Event(
            at=now,
            kind=kind,
            by=ENGINE,
            message=claim.message,
            entry=entry.number,
            sender=claim.sender,
            recipient=entry.recipient,
            destination=claim.destination,
            host=outcome.host,
            outcome=outcome,
            text=text,
            detail=Detail(arrived=claim.arrived),
        )


def _is_with_peer(outcomes: Sequence[Outcome]) -> bool:
    """Whether the peer has taken the message, or may have."""
    return any(outcome.kind == "delivered" or outcome.may_duplicate for outcome in outcomes)


def _log_bounces(events: Sequence[Event]) -> None:
    """Who should have had a bounce that ends here, and why they have not: the log may be all that tells of it."""
    for event in events:
        if event.kind == "discarded":
            line = event.outcome.line if event.outcome is not None else ""
            log.warning("message %d: undeliverable bounce to %s: %s (%s)",
                        event.message, clean(event.recipient, 320), line, event.text)  # fmt: skip


def _expired(last: Outcome) -> Outcome:
    """RFC 3463 X.4.7: delivery time expired. What was said last is the reason a sender can act on."""
    said = f"; the last try: {last.line}" if last.line else ""
    return replace(last, kind="permanent", enhanced="5.4.7", code=0, text=f"delivery time expired{said}")
