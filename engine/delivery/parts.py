"""What every relayer of a smart host works with."""

from collections.abc import Callable

from engine.base.clock import Clock
from engine.delivery.attempt import AttemptManager
from engine.delivery.free_tries import FreeTries
from engine.delivery.routes import Router
from engine.delivery.session_lengths import SessionLengths
from engine.delivery.stumbles import Stumbles
from engine.delivery.way_out import WayOut
from engine.dns.mx import MXCalculator
from engine.queue.contract import Queue
from engine.settings.settings import Delivery
from engine.smtpclient.blame import Blame, of_error
from engine.smtpclient.dialler import Dialler


class Parts:
    """The queue, the ways, the clock, and what is remembered of hosts; one for all relayers."""

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
        delivery: Delivery,
        blame: Callable[[OSError, str], Blame] = of_error,
    ) -> None:
        self.queue = queue
        self.mx = mx
        self.router = router
        self.attempts = attempts
        self.dialler = dialler
        self.clock = clock
        self.hostname = hostname
        self.delivery = delivery
        self.blame = blame
        self.pipelining = Stumbles(clock)
        self.chunking = Stumbles(clock)
        self.session_lengths = SessionLengths(clock)
        self.free_tries = FreeTries()
        # In a sandbox the internet is on loopback.
        self.way_out = WayOut(clock, delivery.port, outside=_anywhere if delivery.loopback_exchanges else None)


def _anywhere(_: str) -> bool:
    return True
