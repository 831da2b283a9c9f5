"""How far one database carries: what nodes cost it is measured here, and many of them are simulated

Each node has one writer, which takes all that waits at a moment into one transaction: some statements, in which nodes
do not meet, and an end (`conclude` and the commit), in which one node is at a time. Both have a cost of their own and
one for each message. These are measured on a PostgreSQL of this machine that syncs; then nodes that share a database
of so many cores, a round trip away, are simulated, and the greatest rate at which a message waits less than a second
for its record is looked for, and what is busiest then.

    uv run python -m tests.bench.scale [--cores C] [--round-trip MS] [--sync MS]
"""

import argparse
import asyncio
import heapq
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import uvloop
from msgspec import Struct

from engine.base.clock import SystemClock
from engine.model.claim import Claim, EntryResult, Settlement
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.bounds import MAX_GROUP
from engine.queue.postgres.store import PostgresQueue
from tests import postgres
from tests.bench.relaying import say

SIZES = (1, 4, 16, 64, 256)  # messages at a moment
ROUNDS = 12
NODES = (1, 3, 10, 30, 100, 300, 1000)
PATIENCE = 1.0  # seconds that a message may wait for its record
STATEMENTS = 12  # exchanges with the database in a transaction before its end
ENDING = 2  # and in its end
NODE_RATE = 500.0  # messages a second that one node carries at most, on a core of its own
SIMULATED = 20.0  # seconds
SYNCS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on"}
DELIVERED = Outcome.of_reply(250, "2.0.0 ok")


class Cost(Struct, frozen=True):
    """Seconds: so many for a transaction, and so many more for each message in it."""

    fixed: float
    each: float

    def of(self, messages: int) -> float:
        return self.fixed + self.each * messages

    def __str__(self) -> str:
        return f"{self.fixed * 1e3:.2f} ms and {self.each * 1e6:.0f} us a message"


class Costs(Struct, frozen=True):
    """What the whole life of messages costs: statements, the end without its sync, and the sync (seconds)."""

    statements: Cost
    end: Cost
    sync: float


# -- measuring --------------------------------------------------------------------------------------------------------


class Timed:
    """Notes how long a writer's transactions take, part by part."""

    def __init__(self, queue: PostgresQueue) -> None:
        self.parts = {"statements": 0.0, "end": 0.0, "commit": 0.0}
        self.transactions = 0
        self._writer: Any = cast("Any", queue._database)._writer
        self._writer._do = self._around("statements", self._writer._do)
        self._writer._conclude = self._around("end", self._writer._conclude)
        execute = self._writer._connection.execute
        commit = self._around("commit", execute)

        async def executed(query: str, *values: object) -> Any:
            if query != "COMMIT":
                return await execute(query, *values)
            self.transactions += 1
            return await commit(query)

        self._connection = Instead(self._writer._connection, executed)
        self._writer._connection = self._connection

    def _around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*values: Any) -> Any:
            begin = time.perf_counter()
            try:
                return await call(*values)
            finally:
                self.parts[part] += time.perf_counter() - begin

        return timed

    def taken(self) -> tuple[int, dict[str, float]]:
        """How many transactions there were since this was asked last, and what they took."""
        found = self.transactions, dict(self.parts)
        self.transactions, self.parts = 0, dict.fromkeys(self.parts, 0.0)
        return found


class Instead:
    """A connection of which one method is another."""

    def __init__(self, connection: Any, execute: Callable[..., Any]) -> None:
        self._connection = connection
        self.execute = execute

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


async def measured() -> Costs:
    """What it costs here, of lives of 4 KiB messages with one recipient each, to destinations drawn among 200."""
    server = await asyncio.to_thread(postgres.Server, SYNCS, on_disk=True)
    try:
        queue = PostgresQueue(server.dsn("postgres"), SystemClock(), node="measured")
        await queue.open()
        try:
            return await _measured(queue)
        finally:
            await queue.close()
    finally:
        await asyncio.to_thread(server.end)


async def _measured(queue: PostgresQueue) -> Costs:
    timed = Timed(queue)
    draw = random.Random(1)
    rows: list[tuple[int, int, dict[str, float]]] = []
    for size in SIZES:
        for number in range(ROUNDS + 1):
            await _lives(queue, size, draw)
            transactions, parts = timed.taken()
            if number:  # the first prepares its statements
                rows.append((size, transactions, parts))
    statements = _fit([(size, count, parts["statements"]) for size, count, parts in rows])
    end = _fit([(size, count, parts["end"]) for size, count, parts in rows])
    sync = statistics.median(parts["commit"] / count for _, count, parts in rows)
    return Costs(statements, end, sync)


async def _lives(queue: PostgresQueue, size: int, draw: random.Random) -> None:
    """Take messages in, claim them, and record that they were delivered."""
    domains = [f"d{draw.randrange(200)}.example" for _ in range(size)]
    await asyncio.gather(*(queue.arrivals.enqueue(_letter(domain)) for domain in domains))
    found = await asyncio.gather(*(queue.claims.claim(domain, 10, 1) for domain in set(domains)))
    await asyncio.gather(*(queue.claims.settle(_delivered(claim)) for claims in found for claim in claims))


def _letter(domain: str) -> NewMessage:
    content = b"Subject: hello\r\n\r\n" + b"x" * 4000 + b"\r\n"
    return NewMessage(sender="ann@example.net", recipients=(f"bob@{domain}",), content=content, origin="bench")


def _delivered(claim: Claim) -> Settlement:
    results = tuple(
        EntryResult(number=entry.number, attempt=entry.attempt, outcome=DELIVERED) for entry in claim.entries
    )
    return Settlement(message=claim.message, results=results, epoch=claim.epoch)


def _fit(rows: Sequence[tuple[int, int, float]]) -> Cost:
    """The cost of a transaction and of a message that make the least of the squares, of (messages, transactions, s)."""
    mm = sum(m * m for m, _, _ in rows)
    tt = sum(t * t for _, t, _ in rows)
    mt = sum(m * t for m, t, _ in rows)
    ms = sum(m * s for m, _, s in rows)
    ts = sum(t * s for _, t, s in rows)
    determinant = mm * tt - mt * mt
    each, fixed = (ms * tt - ts * mt) / determinant, (ts * mm - ms * mt) / determinant
    return Cost(max(0.0, fixed), max(0.0, each))


# -- simulating -------------------------------------------------------------------------------------------------------


class Site(Struct, frozen=True):
    """The database's machine: its cores, how far away it is and how long it takes to sync (seconds)."""

    cores: int
    round_trip: float
    sync: float


class Run(Struct, frozen=True):
    """How a simulation went: how long messages waited for their record (95 of 100, in seconds), and what was busy."""

    wait: float
    cores: float
    end: float
    group: float


def simulated(costs: Costs, site: Site, nodes: int, rate: float, seconds: float = SIMULATED) -> Run:
    """Nodes that together take in and send so many messages a second, evenly."""
    draw = random.Random(nodes)
    per_node = rate / nodes
    cores = [0.0] * site.cores  # when each is free
    end_free = busy_cores = busy_end = 0.0
    waits: list[float] = []
    groups: list[int] = []
    # Each writer begins when it is free and something waits: since when, of how many a group is made.
    queue = [(draw.random() / per_node, node) for node in range(nodes)]
    since = [0.0] * nodes
    heapq.heapify(queue)
    while queue and queue[0][0] < seconds:
        begin, node = heapq.heappop(queue)
        group = max(1, min(MAX_GROUP, round((begin - since[node]) * per_node)))
        since[node] = begin
        work = costs.statements.of(group)
        core = heapq.heappop(cores)
        started = max(begin, core)
        heapq.heappush(cores, started + work)
        ready = started + work + STATEMENTS * site.round_trip
        ending = costs.end.of(group)
        alone = max(ready, end_free)
        end_free = alone + ending + ENDING * site.round_trip + site.sync
        busy_cores += work + ending
        busy_end += end_free - alone
        waits.append(end_free - begin + group / per_node / 2)
        groups.append(group)
        heapq.heappush(queue, (max(end_free, begin + 1 / per_node), node))
    waits.sort()
    return Run(
        wait=waits[int(len(waits) * 0.95)],
        cores=min(1.0, busy_cores / (seconds * site.cores)),
        end=min(1.0, busy_end / seconds),
        group=statistics.mean(groups),
    )


def greatest(costs: Costs, site: Site, nodes: int) -> tuple[float, Run]:
    """The greatest rate at which messages wait less than PATIENCE for their record, and how that goes."""
    low, high = 1.0, nodes * NODE_RATE
    if simulated(costs, site, nodes, high).wait < PATIENCE:
        return high, simulated(costs, site, nodes, high)
    for _ in range(12):
        middle = (low + high) / 2
        if simulated(costs, site, nodes, middle).wait < PATIENCE:
            low = middle
        else:
            high = middle
    return low, simulated(costs, site, nodes, low)


async def main(cores: int, round_trip: float, sync: float | None) -> None:
    """Measure, simulate, and say what came out."""
    costs = await measured()
    say(f"statements {costs.statements}; end {costs.end}; commit {costs.sync * 1e3:.2f} ms")
    site = Site(cores, round_trip, costs.sync if sync is None else sync)
    say(f"a database of {cores} cores, {round_trip * 1e3:.2f} ms away, that syncs in {site.sync * 1e3:.2f} ms:")
    for nodes in NODES:
        rate, run = greatest(costs, site, nodes)
        if run.wait >= PATIENCE:
            say(f"{nodes:5} nodes   wait for each other for {run.wait:.0f} s and more, however little there is to do")
            continue
        is_all = rate >= nodes * NODE_RATE
        bound = "the nodes" if is_all else "the end of transactions" if run.end > run.cores else "cores"
        say(
            f"{nodes:5} nodes {rate:8.0f} messages/s   cores {run.cores:4.0%}, end {run.end:4.0%}, "
            f"{run.group:5.1f} a transaction, recorded within {run.wait:.2f} s   bound by {bound}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--round-trip", type=float, default=0.3, help="milliseconds")
    parser.add_argument("--sync", type=float, default=None, help="milliseconds; as measured here")
    given = parser.parse_args()
    if why := postgres.why_not():
        sys.exit(why)
    uvloop.run(main(given.cores, given.round_trip / 1e3, None if given.sync is None else given.sync / 1e3))
