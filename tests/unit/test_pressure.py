"""Who keeps us waiting while others wait is looked at when it has done so for long enough, and not later."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from engine.delivery.capacity import Capacity
from engine.delivery.hurry import Hurry
from engine.delivery.pressure import Pressure
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.sites import Sites
from engine.delivery.turns import Flow
from engine.model.claim import DueSite, Shares
from engine.queue.contract import Queue
from tests.clock import FakeClock

WAITING = DueSite(site="@new.example", destination="new.example", is_in_doubt=True)


class Counting(Hurry):
    """Counts how often it was called."""

    count = 0

    def now(self) -> bool:
        self.count += 1
        return True


@dataclass
class Keeping:
    """The pace of who keeps us waiting."""

    patience_ends: float
    stalls_at: float = 0.0


@dataclass(eq=False)
class Slow:
    """A relayer that has a connection, and waits for its host."""

    pace: Keeping
    is_doubtful: bool = True
    is_in_doubt: bool = True
    is_admitted: bool = True
    started: float = 0.0
    flow: Flow | None = None
    hurry: Counting = field(default_factory=Counting)


class Store:
    """One destination waits."""

    def __init__(self) -> None:
        self.claims = self

    async def due_sites(self, *_: object, with_doubtful: bool = True) -> list[DueSite]:
        return [WAITING] if with_doubtful else []

    async def doubtful_sites(self, without: Collection[str], shares: Shares) -> list[DueSite]:
        return [WAITING]


class Open:
    """No site is closed."""

    def closed(self, live: Collection[ManagedRelayer]) -> set[str]:
        return set()


async def test_patience_that_ended_while_the_queue_was_asked_is_looked_at_at_once() -> None:
    clock = FakeClock()
    slow = Slow(Keeping(clock.now() + 5))
    live = cast(Collection[ManagedRelayer], [slow])
    capacity = Capacity(clock, max_connections=2, max_lookups=2)
    pressure = Pressure(cast(Queue, Store()), cast(Sites, Open()), capacity, clock)
    await pressure.look(live)
    assert slow.hurry.count == 0
    await clock.advance(6)  # so long it took until somebody asked when to look again
    assert pressure.times(live) == [slow.pace.patience_ends]
    assert pressure.times(live) == []  # where the next look fails, none follows on its heels
    await pressure.look(live)
    assert slow.hurry.count == 1
    assert pressure.times(live) == []


async def test_patience_that_is_to_end_is_looked_at_then() -> None:
    clock = FakeClock()
    slow = Slow(Keeping(clock.now() + 5))
    live = cast(Collection[ManagedRelayer], [slow])
    capacity = Capacity(clock, max_connections=2, max_lookups=2)
    pressure = Pressure(cast(Queue, Store()), cast(Sites, Open()), capacity, clock)
    await pressure.look(live)
    assert pressure.times(live) == pressure.times(live) == [slow.pace.patience_ends]
    await clock.advance(5)
    await pressure.look(live)
    assert slow.hurry.count == 1
