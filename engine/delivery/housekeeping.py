"""What is left over: results and claims the store would not take, what nobody answers for, what is overdue, notices."""

import logging
from collections.abc import Callable, Collection
from functools import partial

from engine.base.clock import Clock
from engine.delivery.attempt import AttemptManager
from engine.model.claim import Claim, Relaying
from engine.model.destination import Over
from engine.queue.contract import Queue
from engine.queue.errors import QueueBroken, QueueError, QueueFull

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100
NOTICES_AT_ONCE = 50  # messages of which, and of whose delay, somebody is told in one check
# Seconds between two looks for what is being relayed by nobody. What is found twice is put back: what was claimed, or
# is being recorded, at the moment of one look is not so at the next.
SWEEP_EVERY = 30.0
_ORPHANED = "nobody answered for it any more: the peer may have taken it, and it may arrive twice"


class Housekeeping:
    """Sees to what is left over, at each check. `wake` has another check run soon; `is_over` is told what has ended."""

    def __init__(
        self,
        queue: Queue,
        attempts: AttemptManager,
        clock: Clock,
        *,
        wake: Callable[[], None],
        is_over: Callable[[Over], None],
    ) -> None:
        self._queue = queue
        self._attempts = attempts
        self._clock = clock
        self._wake = wake
        self._is_over = is_over
        self._stranded: list[Claim] = []
        self._suspected: frozenset[Relaying] = frozenset()
        self._swept = clock.now()

    def stranded(self, claims: list[Claim]) -> None:
        """Keep claims that the store would not take back, to offer them again."""
        self._stranded += claims

    async def tidy(self, live: Collection[int], *, expire: bool = True) -> str:
        """Do what is left to do; say what kept us from it, or "". `live` are the relayers there are, by number.

        `expire`: give up what has had its time.

        Results that were kept are recorded, what was stranded or has nobody is given back, what is overdue is given
        up, and senders are told. Notices that find no room must not keep the rest of the mail from going, which is
        what makes room.
        """
        troubles = [await self._attempts.report_again()]
        for step in (
            self._give_back_stranded,
            self._end_what_is_over,
            self._trim_suppressed,
            partial(self._sweep, live),
            partial(self._give_up_overdue, expire=expire),
            self._tell_settled,
        ):
            try:
                troubles.append(await step())
            except QueueBroken:
                raise
            except QueueError as error:  # which may concern a damaged page alone: the others are done all the same
                troubles.append(str(error))
        trouble = next(filter(None, reversed(troubles)), "")
        if not trouble:
            trouble = await self._tell_delays()
        if trouble:
            log.error("what is left over has to wait: %s", trouble)
        return trouble

    async def end(self) -> None:
        """Record what can be recorded before the engine ends: what is not is told as interrupted at the next start."""
        if trouble := await self._attempts.report_again():
            log.error("%s", trouble)

    async def _tell_settled(self) -> str:
        more, full = await self._attempts.tell_settled(NOTICES_AT_ONCE)
        if more:
            self._wake()
        return full

    async def _tell_delays(self) -> str:
        try:
            if await self._attempts.tell_delays(NOTICES_AT_ONCE):
                self._wake()
        except QueueBroken:
            raise
        except QueueError as error:
            return str(error)
        return ""

    async def _give_back_stranded(self) -> str:
        stranded, self._stranded = self._stranded, []
        await self._give_back(stranded, "the store would not take it back before")
        return ""

    async def _end_what_is_over(self) -> str:
        over = await self._queue.standing.end_what_is_over()
        if over.suspended or over.overridden:
            self._is_over(over)
        return ""

    async def _trim_suppressed(self) -> str:
        await self._attempts.trim_suppressed()
        return ""

    async def _sweep(self, live: Collection[int]) -> str:
        """Put back what is being relayed, by the store's record, and has nobody: without that it would be for ever."""
        now = self._clock.now()
        if self._swept <= now < self._swept + SWEEP_EVERY:
            return ""
        self._swept = now
        claims = (*self._stranded, *self._attempts.kept)
        kept = {(claim.message, entry.number) for claim in claims for entry in claim.entries}
        found = frozenset(
            relaying
            for relaying in await self._queue.claims.relaying()
            if relaying.relayer not in live and (relaying.message, relaying.entry) not in kept
        )
        orphans, self._suspected = sorted(found & self._suspected), found
        if orphans:
            count = await self._queue.claims.put_back_orphans(orphans, _ORPHANED)
            if count:
                log.error("%d recipients were being relayed by nobody, and are put back", count)
            self._suspected -= frozenset(orphans)
        return ""

    async def _give_up_overdue(self, *, expire: bool) -> str:
        full = ""
        overdue = await self._queue.claims.overdue(OVERDUE_AT_ONCE, expire=expire)
        if self._queue.claims.has_more_to_do:
            self._wake()
        found = len(overdue)
        try:
            for claim in list(overdue):
                try:
                    await self._attempts.give_up(claim)
                except QueueFull as error:
                    full = str(error)  # which need not be so for the next
                else:
                    overdue.remove(claim)
        finally:
            left = len(overdue)
            await self._try_to_give_back(overdue, "could not be given up")
        if found == OVERDUE_AT_ONCE and left < found:
            self._wake()
        return full

    async def _try_to_give_back(self, claims: list[Claim], why: str) -> None:
        try:
            await self._give_back(claims, why)
        except QueueError as error:
            log.warning("%d messages %s, nor given back: %s", len(claims), why, error)

    async def _give_back(self, claims: list[Claim], why: str) -> None:
        """Give claims back, or keep them to do so later. Raises QueueError."""
        if not claims:
            return
        try:
            await self._queue.claims.put_back(claims, why)
        except BaseException:
            self._stranded += claims
            raise
