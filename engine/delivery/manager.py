"""What a relayer works with: the parts it shares with all others, and what it asks of the smart host."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from engine.base.clock import Clock
from engine.delivery.attempt import AttemptManager
from engine.delivery.routes import Router, Way
from engine.delivery.spared import Spared
from engine.delivery.stints import Stints
from engine.delivery.stumbles import Stumbles
from engine.dns.mx import MXCalculator
from engine.model.claim import Claim
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from engine.settings.settings import Timeouts
from engine.smtpclient.blame import Blame, of_error
from engine.smtpclient.dialler import Dialler

if TYPE_CHECKING:
    from engine.delivery.relayer import ManagedRelayer


class Manager(Protocol):
    """What a relayer asks of the smart host that manages it."""

    async def more(self, relayer: "ManagedRelayer") -> list[Claim]:
        """Further messages for a relayer that has carried all it had; [] ends it."""
        ...

    def site_of(self, way: Way) -> str:
        """The name of the site a way leads to."""
        ...

    async def admit(self, relayer: "ManagedRelayer", way: Way) -> str:
        """Let a relayer that has found its way connect, as one of its site's; or say why not, or why not now."""
        ...

    def may_dial(self, relayer: "ManagedRelayer") -> bool:
        """Whether a relayer may open one more connection than the one it was admitted for."""
        ...

    def dials(self, relayer: "ManagedRelayer") -> None:
        """Count such a connection."""
        ...

    def idle_until(self, relayer: "ManagedRelayer") -> float | None:
        """How long a relayer that has run dry may keep its connection; None: it is to end at once."""
        ...

    def is_served(self, relayer: "ManagedRelayer") -> bool:
        """Whether other connections to the relayer's site deliver."""
        ...

    def is_on_trial(self, relayer: "ManagedRelayer", host: str) -> bool:
        """Whether a host comes back from being bad, and another relayer is the one that finds out how it is."""
        ...

    def established(self) -> None:
        """A relayer's exchange has answered."""
        ...

    async def delivered(self, relayer: "ManagedRelayer") -> None:
        """The relayer's exchange has taken a message."""
        ...

    async def unreachable(
        self, relayer: "ManagedRelayer", outcome: Outcome, *, until: float | None = None, pause: bool = False
    ) -> None:
        """No session could be had with the relayer's site, or it broke: leave it alone for a while.

        `until`: not before then, where that is known; `pause`: only briefly, since it did take mail.
        """
        ...

    async def faulted(self, relayer: "ManagedRelayer", outcome: Outcome) -> None:
        """A fault of ours, or of the store, has ended a relayer: its site rests for a moment, charged with nothing."""
        ...

    def cut_short(self, relayer: "ManagedRelayer", outcome: Outcome, *, is_usual: bool) -> None:
        """The host has ended a session between two messages; `is_usual`: after as many as it is known to take."""
        ...

    def works(self) -> None:
        """A host was reached, or turned us away: nothing is wanting on this machine."""
        ...

    def is_ours(self, relayer: "ManagedRelayer", blamed: Blame, outcome: Outcome) -> bool:
        """Note a fault of this machine. Whether no connection is opened for a moment, and the mail waits untried."""
        ...

    async def lost(self, destination: str, outcome: Outcome, *, until: float | None = None) -> None:
        """No way to one destination is to be had, whatever its site: leave it alone for a while."""
        ...

    def returned(self, relayer: "ManagedRelayer", count: int) -> None:
        """So many messages that the relayer took were given back untried."""
        ...

    def stranded(self, claims: list[Claim]) -> None:
        """These could neither be settled nor put back, because the store would not."""
        ...


class Parts:
    """What every relayer of a smart host works with."""

    def __init__(
        self,
        *,
        queue: Queue,
        mx: MXCalculator,
        router: Router,
        attempts: AttemptManager,
        dialler: Dialler,
        clock: Clock,
        hostname: str,
        timeouts: Timeouts,
        max_addresses: int = 5,
        max_sessions: int = 2,
        blame: Callable[[OSError, str], Blame] = of_error,
    ) -> None:
        self.queue = queue
        self.mx = mx
        self.router = router
        self.attempts = attempts
        self.dialler = dialler
        self.clock = clock
        self.hostname = hostname
        self.timeouts = timeouts
        self.max_addresses = max_addresses
        self.max_sessions = max_sessions
        self.blame = blame
        self.stumbles = Stumbles(clock)
        self.stints = Stints(clock)
        self.spared = Spared()
