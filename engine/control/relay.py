"""What the control server stands before: the parts of a running engine, as far as an operator sees or asks them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from engine.base.clock import Clock
from engine.control.colleagues import Colleagues
from engine.control.feed import EventLog
from engine.delivery.explain import Explainer
from engine.delivery.routes import Router
from engine.delivery.smarthost import SmartHost
from engine.dns.mx import MXCalculator
from engine.intake.http.counter import Counter
from engine.queue.contract import Queue
from engine.settings.settings import Settings
from engine.smtpclient.probe import Prober

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A running engine's parts. `started` is in seconds since 1970; `trouble` says why the engine is sick, or "".

    `notes` say what is no trouble, and should be known. What is posted here is taken at the `counter`.
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
    counter: Counter | None = None

    @cached_property
    def colleagues(self) -> Colleagues:
        """The other engines that share the queue."""
        return Colleagues(self.queue)


async def afterwards(work: Coroutine[Any, Any, T], then: Callable[[], None]) -> T:
    """Carry something out, and then do what follows from it, also where whoever asked has gone meanwhile.

    Nothing follows where it fails, or gives None or False: there was nothing to do.
    """

    async def both() -> T:
        done = await work
        if done is not None and done is not False:
            then()
        return done

    task = asyncio.create_task(both())
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    return await asyncio.shield(task)


_under_way: set[asyncio.Task[Any]] = set()  # the loop itself keeps no task alive
