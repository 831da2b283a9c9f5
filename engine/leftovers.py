"""What is left over: claims the store would not take back, mail whose time is up or that is ordered away, delays."""

import logging
from collections.abc import Callable

from engine.attempt import AttemptManager
from engine.queue.queue import Claim, Queue, QueueBroken, QueueError, QueueFull

log = logging.getLogger(__name__)

OVERDUE_AT_ONCE = 100
NOTICES_AT_ONCE = 50  # messages of whose delay the senders are told in one check


class Leftovers:
    """Gives back what was stranded, up on what is overdue, and tells of delays. `wake` has another check run soon."""

    def __init__(self, queue: Queue, attempts: AttemptManager, wake: Callable[[], None]) -> None:
        self._queue = queue
        self._attempts = attempts
        self._wake = wake
        self._stranded: list[Claim] = []

    def stranded(self, claims: list[Claim]) -> None:
        """Keep claims that the store would not take back, to offer them again."""
        self._stranded += claims

    async def tidy(self) -> str:
        """Give back what was stranded, give up on what is overdue, tell of delays; say what kept us from it, or "".

        A bounce that finds no room must not keep the rest of the mail from going, which is what makes room.
        """
        stranded, self._stranded = self._stranded, []
        overdue: list[Claim] = []
        full = ""
        try:
            if stranded:
                await self._queue.put_back(stranded, "the store would not take it back before")
                stranded = []
            overdue = await self._queue.overdue(OVERDUE_AT_ONCE)
            if self._queue.has_more_to_do:
                self._wake()
            found = len(overdue)
            for claim in list(overdue):
                try:
                    await self._attempts.give_up(claim)
                except QueueFull as error:
                    full = str(error)  # which need not be so for the next
                else:
                    overdue.remove(claim)
            if found == OVERDUE_AT_ONCE and len(overdue) < found:
                self._wake()
            if not full and await self._attempts.tell_delays(NOTICES_AT_ONCE):
                self._wake()
        except QueueBroken:
            raise
        except QueueError as error:
            log.error("what is overdue has to wait: %s", error)
            return str(error)
        finally:
            await self._give_back([*stranded, *overdue])
        if full:
            log.error("what is overdue has to wait: %s", full)
        return full

    async def _give_back(self, claims: list[Claim]) -> None:
        if not claims:
            return
        try:
            await self._queue.put_back(claims, "could not be given up")
        except QueueError:
            self._stranded += claims
