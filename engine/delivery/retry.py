"""When to try again: the schedule of retries, with jitter, and the end of patience, for each destination its own."""

import random
from collections.abc import Sequence

from engine.base.address import pattern_for
from engine.delivery.asked_delay import asked_delay
from engine.model.outcome import Outcome
from engine.settings.settings import Retry

DEFAULT_SCHEDULE = (300.0, 600.0, 1200.0, 2400.0, 3600.0, 7200.0)  # seconds; RFC 5321 4.5.4.1 asks for growing ones
JITTER = 0.1

SHORTEST_ASKED = 60.0  # seconds; a peer that asks for less gets this
LONGEST_ASKED = 3600.0  # seconds; a peer that asks for more gets this, or what the schedule has if that is longer


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

    @property
    def longest(self) -> float:
        """Seconds to wait at the most."""
        return max(*self._schedule, LONGEST_ASKED) * (1 + JITTER)

    def interval(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1 on)."""
        return self._stretched(self._step(failures))

    def next_due(self, now: float, failures: int) -> float:
        """When to try again after a failure at `now`."""
        return now + self.interval(failures)

    def heeding(self, asked: float, failures: int) -> float:
        """Seconds to wait where the peer has asked for so many: within bounds, and no shorter than asked for."""
        longest = max(self._step(failures), LONGEST_ASKED)
        return min(self._stretched(max(asked, SHORTEST_ASKED)), longest)

    def _step(self, failures: int) -> float:
        return self._schedule[min(max(failures, 1), len(self._schedule)) - 1]

    def _stretched(self, seconds: float) -> float:
        return seconds * (1 + self._draw.uniform(0, JITTER))


class RetryPlan:
    """How long and how often each destination is tried, by the settings."""

    def __init__(self, settings: Retry, draw: random.Random | None = None) -> None:
        self._give_up_after = settings.give_up_after
        self._schedule = RetrySchedule(settings.schedule, draw)
        self._schedules: dict[str, RetrySchedule] = {}
        self._patience: dict[str, float] = {}
        for rule in settings.destination:
            self._schedules[rule.domain] = RetrySchedule(rule.schedule, draw) if rule.schedule else self._schedule
            self._patience[rule.domain] = rule.give_up_after or settings.give_up_after

    def give_up_after(self, destination: str) -> float:
        """Seconds from arrival until mail to a destination is given up. Safe to call in any thread."""
        return self._patience.get(pattern_for(destination, self._patience), self._give_up_after)

    def schedule(self, destination: str) -> RetrySchedule:
        """The schedule of a destination."""
        return self._schedules.get(pattern_for(destination, self._patience), self._schedule)

    def longest_wait(self, destination: str) -> float:
        """Seconds that may lie between two tries of one message, at the most. Safe to call in any thread."""
        return self.schedule(destination).longest

    def next_due(self, destination: str, outcome: Outcome, *, now: float, failures: int, expires: float) -> float:
        """When to try again after this outcome at `now`, the `failures`-th failure of an entry that `expires` then.

        A delay that the peer itself names is heeded within bounds, unless there would be no try before the end.
        """
        schedule = self.schedule(destination)
        asked = asked_delay(outcome.text) if outcome.code >= 400 else None
        if asked is not None:
            due = now + schedule.heeding(asked, failures)
            if due < expires:
                return due
        return schedule.next_due(now, failures)
