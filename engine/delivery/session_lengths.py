"""Hosts that take so many messages in a session and then close it: we say QUIT first, and begin the next."""

from msgspec import Struct

from engine.base.clock import Clock
from engine.base.kept import Kept

TRIAL_EVERY = 600.0  # seconds after which one session goes on for as long as the host lets it: it may take more by now
_MOST = 1000  # hosts


class _Known(Struct):
    most: int
    trial_at: float  # by the clock that nobody sets


class SessionLengths:
    """Remembers how many messages a host takes in one session, of the hosts that have ended one between two messages.

    In memory, and bounded: after a restart one session that is ended early finds out again, which costs no attempt.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known = Kept[str, _Known](_MOST)

    def most(self, host: str) -> int | None:
        """How many messages a host is known to take; None: no bound is known."""
        known = self._known.get(host)
        return known.most if known is not None else None

    def begin(self, host: str) -> int | None:
        """How many messages the session that begins now is to send. Now and then there is no bound, on trial."""
        known, now = self._known.get(host), self._clock.monotonic()
        if known is None:
            return None
        if now >= known.trial_at:
            known.trial_at = now + TRIAL_EVERY
            return None
        return known.most

    def ended(self, host: str, taken: int) -> bool:
        """The host has ended a session after this many messages; True where that is what was known of it."""
        known = self._known.get(host)
        self._known[host] = _Known(most=taken, trial_at=self._clock.monotonic() + TRIAL_EVERY)
        return known is not None and known.most == taken

    def outlasted(self, host: str, taken: int) -> None:
        """A session that goes on has brought this many: a bound that it has passed is none."""
        known = self._known.get(host)
        if known is not None and taken > known.most:
            del self._known[host]
