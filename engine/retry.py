"""When to try again: the schedule of retries, with jitter, and the end of patience."""

import random
from collections.abc import Sequence

DEFAULT_SCHEDULE = (300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0)  # seconds; RFC 5321 4.5.4.1 asks for growing ones
JITTER = 0.1


class RetrySchedule:
    """Gives the time of the next try.

    `schedule` holds the intervals in seconds, the last of them repeats. Each is stretched by up to a tenth, at random,
    so that mail deferred in one moment does not come back in one moment; stretched only, never shortened, so that the
    intervals keep growing.
    """

    def __init__(self, schedule: Sequence[float] = DEFAULT_SCHEDULE, draw: random.Random | None = None) -> None:
        if not schedule:
            raise ValueError("a retry schedule needs at least one interval")
        self._schedule = tuple(schedule)
        self._draw = draw or random.Random()

    def interval(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1 on)."""
        step = self._schedule[min(max(failures, 1), len(self._schedule)) - 1]
        return step * (1 + self._draw.uniform(0, JITTER))

    def next_due(self, now: float, failures: int) -> float:
        """When to try again after a failure at `now`."""
        return now + self.interval(failures)
