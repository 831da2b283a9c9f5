"""Whatever is done in whatever order, the counts of the destinations are those of the rows."""

import random
from pathlib import Path

import pytest

from engine.model.claim import Claim
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from tests.unit.queue_support import ALL, DELIVERED, LATER, Spool, opened

DOMAINS = [f"d{n}.example" for n in range(4)]


class Random:
    """Does one random thing after the other to a queue, as a relay and its operators would."""

    def __init__(self, spool: Spool, seed: int) -> None:
        self.spool = spool
        self.random = random.Random(seed)
        self.claims: list[Claim] = []
        self.operations: list[int] = []

    async def step(self) -> None:
        often = [self.add, self.claim, self.settle, self.order]
        await self.random.choice([*often, *often, self.put_back, self.give_up, self.undo, self.overdue, self.wait])()

    async def add(self) -> None:
        names = [f"u{n}@{self.random.choice(DOMAINS)}" for n in range(self.random.randint(1, 4))]
        await self.spool.add(*names)

    async def claim(self) -> None:
        self.claims += await self.spool.queue.claims.claim(self.random.choice(DOMAINS), 2, 1, recipients=2)

    async def settle(self) -> None:
        if self.claims:
            claim = self.claims.pop(self.random.randrange(len(self.claims)))
            if claim.entries[0].attempt:
                outcome, after = self.random.choice([(DELIVERED, None), (LATER, 50), (LATER, 0), (LATER, 500)])
                await self.spool.settle(claim, outcome, after=after)
            else:
                await self.spool.settle(claim, Outcome.permanent("given up", enhanced="5.0.0"))

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
        match self.random.randrange(3):
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
        self.claims += await self.spool.queue.claims.overdue(2)

    async def wait(self) -> None:
        await self.spool.clock.advance(self.random.choice([1, 20, 100]))


async def assert_consistent(spool: Spool) -> None:
    rows = spool.sql(
        "SELECT d.name, d.waiting, d.held, d.relaying, d.edge, count(*) FILTER (WHERE e.state = 'waiting'), "
        "count(*) FILTER (WHERE e.state = 'held'), count(*) FILTER (WHERE e.state = 'relaying'), "
        "min(e.due) FILTER (WHERE e.state = 'waiting') "
        "FROM destination d LEFT JOIN entry e ON e.destination = d.name GROUP BY d.name"
    )
    for name, *values in rows:
        assert values[:4] == values[4:], name
    assert spool.sql("SELECT count(*) FROM message WHERE number NOT IN (SELECT message FROM entry)") == [(0,)]
    assert spool.sql("SELECT count(*) FROM entry WHERE (state = 'held') > (ordered IS NOT NULL)") == [(0,)]
    assert spool.sql("SELECT count(*) FROM entry WHERE (state = 'waiting') AND ordered IS NOT NULL") == [(0,)]
    assert spool.sql("PRAGMA foreign_key_check") == []
    totals = await spool.queue.listing.totals()
    window = await spool.queue.listing.window(ALL, "id", 0, 10_000)
    assert window.total == len(window.rows) == totals.waiting + totals.held + totals.relaying
    due = sum(entry.state == "waiting" and entry.due <= spool.clock.now() for entry in window.rows)
    assert totals.due == due
    assert totals.relaying == len([e for e in window.rows if e.state == "relaying"])


@pytest.mark.parametrize("seed", range(4))
async def test_the_counts_are_those_of_the_rows_whatever_is_done(tmp_path: Path, seed: int) -> None:
    async with opened(tmp_path, give_up_after=1000) as spool:
        relay = Random(spool, seed)
        for _ in range(250):
            await relay.step()
            await assert_consistent(spool)
        assert {len(claim.entries) > 0 for claim in relay.claims} <= {True}
        left = sum(len(claim.entries) for claim in relay.claims)
        assert (await spool.queue.listing.totals()).relaying == left
    async with opened(tmp_path, spool.clock) as again:
        await assert_consistent(again)
        assert (await again.queue.listing.totals()).relaying == 0
