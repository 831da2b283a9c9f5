"""Whatever is done in whatever order, and however often the queue is opened anew, it keeps what it was given.

What is in it is what was put in and has not been settled or dropped; its counts are those of its rows.
"""

import random
from collections import Counter
from pathlib import Path

import pytest

from engine.model.claim import Claim
from engine.model.destination import Destination
from engine.model.filter import Filter
from engine.model.message import Entry
from engine.model.outcome import Outcome
from engine.queue.errors import NoSuchMessage
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, CONTENT, DELIVERED, LATER, Opened, Spool

DOMAINS = [f"d{n}.example" for n in range(4)]


class Random:
    """Does one random thing after the other to a queue, as a relay and its operators would."""

    def __init__(self, spool: Spool, seed: int) -> None:
        self.spool = spool
        self.random = random.Random(seed)
        self.claims: list[Claim] = []
        self.operations: list[int] = []
        self.tried: dict[tuple[int, int], int] = {}  # how often each entry that is there was tried

    def begin_anew(self, spool: Spool) -> None:
        """The engine has ended and started: nobody has claims any more."""
        self.spool = spool
        self.claims = []

    async def step(self) -> None:
        often = [self.add, self.claim, self.settle, self.order]
        await self.random.choice([*often, *often, self.put_back, self.give_up, self.undo, self.overdue, self.wait])()

    async def add(self) -> None:
        names = [f"u{n}@{self.random.choice(DOMAINS)}" for n in range(self.random.randint(1, 4))]
        number = await self.spool.add(*names)
        self.tried.update({(number, place): 0 for place in range(1, len(names) + 1)})

    async def claim(self) -> None:
        self.claims += await self.spool.queue.claims.claim(self.random.choice(DOMAINS), 2, 1, recipients=2)

    async def settle(self) -> None:
        if self.claims:
            claim = self.claims.pop(self.random.randrange(len(self.claims)))
            if claim.entries[0].attempt:
                outcome, after = self.random.choice([(DELIVERED, None), (LATER, 50), (LATER, 0), (LATER, 500)])
                await self.spool.settle(claim, outcome, after=after)
                for entry in claim.entries:
                    if after is None:
                        del self.tried[claim.message, entry.number]
                    else:
                        self.tried[claim.message, entry.number] += 1
            else:
                await self.spool.settle(claim, Outcome.permanent("given up", enhanced="5.0.0"))
                for entry in claim.entries:
                    del self.tried[claim.message, entry.number]

    async def put_back(self) -> None:
        if self.claims:
            claim = self.claims.pop()
            if self.random.random() < 0.2:
                await self.spool.queue.claims.set_aside(claim, "damaged")
            else:
                await self.spool.queue.claims.put_back([claim], "closed")

    def filter(self) -> Filter:
        return self.random.choice([ALL, Filter.parse(f"domain={self.random.choice(DOMAINS)}"), Filter.parse("to=u1@*")])

    async def order(self) -> None:
        queue = self.spool.queue
        match self.random.randrange(4):
            case 3:
                until = self.spool.clock.now() + self.random.choice([60, 300, 2000])
                await queue.orders.postpone(self.filter(), "oncall", until)
            case 0:
                await queue.orders.retry(self.filter(), "oncall")
            case 1:
                await queue.orders.hold(self.filter(), "oncall", "")
            case _:
                await queue.orders.release(self.filter(), "oncall")

    async def give_up(self) -> None:
        wait = self.random.choice([0, 30])
        if self.random.random() < 0.5:
            changed = await self.spool.queue.orders.give_up("bounce", self.filter(), "oncall", "", wait)
        else:
            changed = await self.spool.queue.orders.give_up("drop", self.filter(), "oncall", "", wait)
        self.operations.append(changed.operation)

    async def undo(self) -> None:
        if self.operations:
            await self.spool.queue.orders.undo(self.operations.pop(), "oncall")

    async def overdue(self) -> None:
        before = len(self.spool.events)
        self.claims += await self.spool.queue.claims.overdue(2)
        for event in self.spool.events[before:]:
            if event.kind == "dropped":
                del self.tried[event.message, event.entry]

    async def wait(self) -> None:
        await self.spool.clock.advance(self.random.choice([1, 20, 100]))


async def assert_kept(spool: Spool, relay: Random) -> None:
    """What the queue lists is what it was given, and what it counts is what it lists."""
    now, listing = spool.clock.now(), spool.queue.listing
    rows = (await listing.window(ALL, "id", 0, 10_000)).rows
    assert {(row.message, row.number): row.attempts for row in rows} == relay.tried
    taken = {(claim.message, entry.number) for claim in relay.claims for entry in claim.entries}
    assert {(row.message, row.number) for row in rows if row.state == "relaying"} == taken
    assert all((row.state == "held") <= (row.ordered is not None) for row in rows)
    assert all((row.state == "waiting") <= (row.ordered is None) for row in rows)
    _, destinations = await listing.destinations("", "name", 0, 100)
    assert {one.name for one in destinations} >= {row.destination for row in rows}
    for one in destinations:
        assert counts(one) == recounted([row for row in rows if row.destination == one.name], now)
    totals = await listing.totals()
    in_all = Counter({"waiting": totals.waiting, "held": totals.held, "relaying": totals.relaying})
    assert in_all == Counter(row.state for row in rows)
    assert totals.due == sum(one.due for one in destinations)
    # Where something is due already, what is due later is seen when that has been served.
    coming = [one.next_due for one in destinations if one.next_due is not None and one.next_due > now]
    if coming:
        due = await spool.queue.claims.next_due(now)
        assert due is not None
        assert now < due <= min(coming)


def counts(one: Destination) -> tuple[int, int, int, int, float | None]:
    return one.waiting, one.held, one.relaying, one.due, one.next_due


def recounted(rows: list[Entry], now: float) -> tuple[int, int, int, int, float | None]:
    waiting = [row.due for row in rows if row.state == "waiting"]
    held, relaying = (sum(row.state == state for row in rows) for state in ("held", "relaying"))
    return len(waiting), held, relaying, sum(due <= now for due in waiting), min(waiting, default=None)


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_in_the_queue_is_what_was_put_in_and_has_not_left(
    tmp_path: Path, opened: Opened, seed: int
) -> None:
    clock = FakeClock()
    relay: Random | None = None
    for _ in range(5):
        async with opened(tmp_path, clock, give_up_after=1000) as spool:
            relay = relay or Random(spool, seed)
            relay.begin_anew(spool)
            await assert_kept(spool, relay)
            for _ in range(50):
                await relay.step()
                await assert_kept(spool, relay)
            for message in {message for message, _ in relay.tried}:
                assert await spool.queue.claims.content(message) == CONTENT
            for gone in set(range(1, 10)) - {message for message, _ in relay.tried}:
                with pytest.raises(NoSuchMessage):
                    await spool.queue.listing.message(gone)
