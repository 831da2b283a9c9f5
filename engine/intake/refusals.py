"""What was refused at the door, told in the events without letting a flood of it fill them."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from engine.base.clock import Clock
from engine.base.text import clean
from engine.model.event import Event
from engine.model.refusal import Refusal
from engine.queue.contract import Arrivals
from engine.queue.errors import QueueError

log = logging.getLogger(__name__)

EACH = 60.0  # seconds for which the same refusal of the same peer is told once
MOST = 20  # refusals told in that time, of all peers together


class Refusals:
    """Records `refused` events: each kind of refusal once a minute for each peer, twenty a minute in all.

    What was left out is counted and told with the next one; `on_each` is told of all.
    """

    def __init__(self, arrivals: Arrivals, clock: Clock, on_each: Callable[[Refusal], None] = lambda _: None) -> None:
        self._on_each = on_each
        self._arrivals = arrivals
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._left_out = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, refusal: Refusal) -> None:
        """Tell that mail was refused."""
        self._on_each(refusal)
        now = self._clock.now()
        peer, why, detail = refusal.peer, refusal.why, refusal.detail
        while self._told and not now - EACH < next(iter(self._told.values())) <= now:  # later: the clock was set back
            self._told.popitem(last=False)
        # A store that is stuck must not make what waits for it pile up.
        if (peer, why) in self._told or len(self._told) >= MOST or len(self._tasks) >= MOST:
            self._left_out += 1
            return
        self._told[peer, why] = now
        more = f" ({self._left_out} more were refused before)" if self._left_out else ""
        self._left_out = 0
        event = Event(
            at=now,
            kind="refused",
            sender=clean(refusal.sender, 320),
            recipient=clean(refusal.recipient, 320),
            text=clean(f"{peer}: {why}{': ' if detail else ''}{clean(detail, 300)}{more}"),
        )
        task = asyncio.get_running_loop().create_task(self._record(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait until what was noted is recorded, at most `seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def _record(self, event: Event) -> None:
        try:
            await self._arrivals.record(event)
        except QueueError as error:
            log.warning("a refusal could not be recorded: %s", clean(str(error)))
        except Exception:
            log.exception("a refusal could not be recorded")
