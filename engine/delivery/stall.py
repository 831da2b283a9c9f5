"""What is usual: how long a phase of a session takes where all is well, and so from when on it stalls."""

from typing import Literal

from engine.base.clock import Clock
from engine.settings.settings import Timeouts
from engine.smtpclient.initiation import Phase

_LONGEST = 20.0  # seconds in one phase; an exchange that is well answers in a few


def usual(phase: Phase, timeouts: Timeouts) -> float:
    """Seconds that are usual in a phase: half its time-out, but no more than an operator should wait to see.

    RFC 5321 4.5.3.2 grants minutes where a peer that is well takes seconds. A body takes the time of its blocks; what
    waits for us, as an idle connection does, does not stall.
    """
    match phase:
        case "idle" | "ended":
            return float("inf")
        case "body":
            return timeouts.block / 2
        case "lookup":
            return _LONGEST
        case "connecting":
            granted = timeouts.connect
        case "hello" | "AUTH":
            granted = timeouts.hello
        case _:
            granted = getattr(timeouts, phase.lower())
    return min(granted / 2, _LONGEST)


# Seconds for what comes before the message itself, where others wait for the connection and it has proved nothing.
PATIENCE = 60.0
_LONGEST_BODY = 300.0  # seconds for the message, where others wait: 25 MiB at 700 kbit/s


def patience(phase: Phase, timeouts: Timeouts) -> float:
    """Seconds that a phase may take where others wait for the connection, and it has proved nothing.

    The reply to the final dot is waited for all the same: impatience duplicates mail (RFC 1047). So is what is short
    by itself.
    """
    match phase:
        case "idle" | "ended" | "lookup" | "QUIT" | "reply":
            return float("inf")
        case "body":
            return _LONGEST_BODY
        case _:
            return usual(phase, timeouts)


class Pace:
    """Where a relayer is, since when, and whether that is unusually long. Times are the clock's.

    It is in a `phase`, and but for while it waits for mail, at an attempt: to have a session, or to send a message. It
    stalls at `stalls_at`, if it is in its phase still.
    """

    def __init__(self, clock: Clock, timeouts: Timeouts) -> None:
        self._clock = clock
        self._timeouts = timeouts
        self._attempt_since: float | None = clock.now()
        self.enter("lookup")

    def enter(self, phase: Phase) -> None:
        """Be in another phase from now on."""
        self.phase: Phase = phase
        self.since = self._clock.now()
        self.stalls_at = self.since + usual(phase, self._timeouts)

    def attempt(self) -> None:
        """Begin an attempt."""
        self._attempt_since = self._clock.now()

    def rest(self, phase: Literal["idle", "ended"]) -> None:
        """Be at no attempt."""
        self._attempt_since = None
        self.enter(phase)

    @property
    def is_stalling(self) -> bool:
        """Whether it has been in its phase, or at its attempt, for longer than is usual."""
        now = self._clock.now()
        if self._attempt_since is not None and now - self._attempt_since > self._timeouts.attempt / 2:
            return True
        return now > self.stalls_at

    @property
    def patience_ends(self) -> float:
        """When it has kept us waiting for long enough, if it is doubtful and others wait for its connection."""
        ends = self.since + patience(self.phase, self._timeouts)
        if ends < float("inf") and self._attempt_since is not None and self.phase != "body":
            return min(ends, self._attempt_since + PATIENCE)
        return ends
