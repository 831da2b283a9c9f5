"""Faults of this machine: how long no connection is opened for them, and what is said of it meanwhile.

What is wanting here is no host's fault, and is soon there again or is not: so nothing is tried for a moment, a longer
one each time, until a connection can be opened.
"""

import logging
from collections.abc import Callable

from engine.base.clock import Clock
from engine.delivery.limits import Limiting
from engine.smtpclient import blame

FIRST = 1.0  # seconds of the first pause; each that follows without a connection between lasts twice as long
LONGEST = 60.0  # seconds
SITES = 3  # so many, one after the other with no connection between, and a fault of one address is one of all
QUIET = 60.0  # seconds after a connection was opened, in which a fault of one address is not one of all
SAID = 300.0  # seconds for which a fault that keeps one address or one family alone is told of

log = logging.getLogger(__name__)


class Pause:
    """Whether new connections may be opened at all.

    A stranger chooses the addresses that his domain names, so what one address meets must not stop all others: it
    takes faults of several sites in a row, while nothing can be connected to, until it counts as the machine's.

    It goes by the clock that nobody sets: a machine that boots without a network often has its time set just then.
    """

    def __init__(self, clock: Clock, *, has_family: Callable[[str], bool] = blame.has_family) -> None:
        self._clock = clock
        self._has_family = has_family
        self._until = float("-inf")
        self._why = ""
        self._lasts = FIRST
        self._worked_at = float("-inf")
        self._sites: set[str] = set()  # each with a fault of one address since a connection was last opened
        self._said_at = float("-inf")
        self._said = ""

    def met(self, blamed: blame.Blame, why: str, site: str) -> bool:
        """Note a fault of ours that kept us from a site. True: nothing is opened for a moment, its mail waits untried.

        False: it is about this site's addresses alone, as far as can be known.
        """
        now = self._clock.monotonic()
        is_of_all = blamed == "machine"
        if blamed == "family":
            is_of_all = not any(map(self._has_family, ("IPv4", "IPv6")))
        elif blamed == "address" and now - self._worked_at > QUIET:
            self._sites.add(site)
            is_of_all = len(self._sites) >= SITES
        if is_of_all:
            self._begin(why, now)
        else:
            self.tell(why)
        return is_of_all

    def tell(self, why: str) -> None:
        """Have it said for a while of a fault of ours that it is one, and no host's; it stops nothing."""
        self._said_at, self._said = self._clock.monotonic(), why

    def works(self) -> None:
        """A host could be reached, or has turned us away: nothing is wanting here any more."""
        self._worked_at = self._clock.monotonic()
        self._sites.clear()
        if self._why:
            log.info("connections can be opened again")
        self._until, self._why, self._lasts = float("-inf"), "", FIRST

    @property
    def limiting(self) -> Limiting | None:
        """The pause that is on, for whoever asks why mail does not go; until when by the clock that can be set."""
        left = self._until - self._clock.monotonic()
        return Limiting("paused", self._clock.now() + left, self._why) if left > 0 else None

    @property
    def trouble(self) -> str:
        """What keeps every connection from being opened, until one could be or it was long not tried; or ""."""
        if not self._why or self._clock.monotonic() > self._until + LONGEST:
            return ""
        return f"no connection can be opened, no host is marked bad for it: {self._why}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What keeps some connections from being opened, and is this machine's doing."""
        is_new = self._said and self._clock.monotonic() - self._said_at < SAID
        return (f"no host is marked bad for a fault of this machine: {self._said}",) if is_new else ()

    def _begin(self, why: str, now: float) -> None:
        if self._until > now:  # several were under way together: the first counts
            return
        if not self._why:
            log.error("no connection can be opened, the relay pauses: %s", why)
        self._until, self._why = now + self._lasts, why
        self._lasts = min(2 * self._lasts, LONGEST)
