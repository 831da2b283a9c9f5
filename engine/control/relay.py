"""What the control server stands before: the parts of a running engine, as far as an operator sees or asks them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.base.clock import Clock
from engine.control.feed import EventLog
from engine.delivery.explain import Explainer
from engine.delivery.routes import Router
from engine.delivery.smarthost import SmartHost
from engine.dns.mx import MXCalculator
from engine.queue.contract import Queue
from engine.settings.settings import Settings
from engine.smtpclient.probe import Prober


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A running engine's parts. `started` is in seconds since 1970; `trouble` says why the engine is sick, or "".

    `notes` say what is no trouble, and should be known.
    """

    queue: Queue
    smarthost: SmartHost
    mx: MXCalculator
    events: EventLog
    explainer: Explainer
    prober: Prober
    router: Router
    settings: Settings
    clock: Clock
    started: float
    version: str
    trouble: Callable[[], str]
    notes: Callable[[], Sequence[str]] = tuple
