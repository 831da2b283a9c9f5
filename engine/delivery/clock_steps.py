"""Steps of the clock: they are noticed, told, and nothing stays frozen or is returned untried for them.

All schedules go by the wall clock, which somebody may set: by hand, by NTP at the start, by a virtual machine that is
resumed. It is compared with the monotonic clock, which nobody sets, at each check; and at the first check of a run
with the events, the newest of which cannot be later than now.
"""

import logging

from engine.base.clock import Clock
from engine.base.duration import format_duration
from engine.delivery.retry import RetryPlan
from engine.delivery.sites import Sites
from engine.dns.mx import MXCalculator
from engine.queue.contract import Queue

log = logging.getLogger(__name__)

TOLERANCE = 60.0  # seconds; a difference up to this is no step: clocks are corrected by little all the time


class ClockWatch:
    """Compares the two clocks, from look to look."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall, self._monotonic = clock.now(), clock.monotonic()

    def step(self) -> float:
        """Seconds by which the wall clock was set since the last look, negative if back; 0.0 for TOLERANCE or less."""
        wall, monotonic = self._clock.now(), self._clock.monotonic()
        step = (wall - self._wall) - (monotonic - self._monotonic)
        self._wall, self._monotonic = wall, monotonic
        return step if abs(step) > TOLERANCE else 0.0


class ClockSteps:
    """Puts right what a step of the clock has put wrong. `longest_block`: seconds a destination is left alone at most.

    A step back would have mail wait for as long as the step was: what lies too far off is pulled in, in the store, in
    what is known of sites, and of marks. A step ahead would have mail expire that is not late.
    """

    def __init__(
        self, queue: Queue, sites: Sites, mx: MXCalculator, retries: RetryPlan, clock: Clock, longest_block: float
    ) -> None:
        self._queue = queue
        self._sites = sites
        self._mx = mx
        self._retries = retries
        self._clock = clock
        self._longest_block = longest_block
        self._watch = ClockWatch(clock)
        self._is_first = True
        self._back = 0.0  # seconds the clock was set back by, until that is put right
        self._ahead = 0.0  # seconds it was set ahead by, until that is told

    async def look(self) -> bool:
        """Look for a step and put right what it did; True where the clock was set ahead: expire nothing in this check.

        What is due then has its try before anything else is decided of it. Raises QueueError; what it has not put
        right then it does when it is called again.
        """
        step = self._watch.step()
        self._ahead += max(0.0, step)
        self._back += max(0.0, -step)
        if self._is_first:
            back = await self._queue.standing.newest_event_at() - self._clock.now()
            self._back += back if back > TOLERANCE else 0.0
            self._is_first = False
        if self._back:
            self._sites.clock_was_set_back()
            await self._put_right(f"the clock was set back by {_long(self._back)}")
            await self._mx.load()
            self._back = 0.0
        if not self._ahead:
            return False
        await self._put_right(
            f"the clock was set ahead by {_long(self._ahead)}: what is due is tried before it is returned"
        )
        self._ahead = 0.0
        return True

    async def _put_right(self, text: str) -> None:
        count = await self._queue.standing.clock_was_set(text, self._retries.longest_wait, self._longest_block)
        log.warning("%s; the times of %d recipients were put right", text, count)


def _long(seconds: float) -> str:
    return format_duration(round(seconds))
