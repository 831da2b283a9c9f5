"""Hosts that say they can do something and cannot: remembered for a while, and done without."""

from engine.base.clock import Clock
from engine.base.kept import Kept

_SECONDS = 3600.0
_MOST = 1000


class Stumbles:
    """Remembers, for an hour, the hosts with which one thing that they offer went wrong on the wire.

    PIPELINING: replies that do not match, a time-out or a loss in the middle. CHUNKING: a BDAT that is not understood,
    or that nothing comes of. Behind some firewalls and old servers it never works, and the mail must get there all the
    same. In memory only: after a restart one attempt finds out again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = Kept[str, float](_MOST)

    def note(self, host: str) -> None:
        """Do without it with this host from now on."""
        self._until[host] = self._clock.now() + _SECONDS

    def has_none(self, host: str) -> bool:
        """Whether nothing went wrong with this host lately."""
        until = self._until.get(host)
        if until is not None and not 0 < until - self._clock.now() < _SECONDS + 1:  # its time is over, or was set back
            del self._until[host]
            until = None
        return until is None
