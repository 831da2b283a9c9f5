"""Hosts that say they can pipeline and cannot: remembered for a while, and asked one thing at a time."""

from engine.base.clock import Clock
from engine.base.kept import Kept

_SECONDS = 3600.0
_MOST = 1000


class Pipelining:
    """Remembers, for an hour, the hosts with which a flight of commands went wrong on the wire.

    Replies that do not match, a time-out or a loss in the middle: behind some firewalls and old servers pipelining
    never works, and the mail must get there all the same. In memory only: after a restart one attempt finds out again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = Kept[str, float](_MOST)

    def note(self, host: str) -> None:
        """Ask this host one thing at a time from now on."""
        self._until[host] = self._clock.now() + _SECONDS

    def may_pipeline(self, host: str) -> bool:
        """Whether several commands may go to this host in one flight."""
        until = self._until.get(host)
        if until is not None and not 0 < until - self._clock.now() < _SECONDS + 1:  # its time is over, or was set back
            del self._until[host]
            until = None
        return until is None
