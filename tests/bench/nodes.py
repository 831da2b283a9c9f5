"""Three nodes on one database for five minutes, and every ten seconds something befalls one of them, or the database

    killed      kill -9; it is started again after a while
    frozen      SIGSTOP for forty seconds
    parted      nothing comes through between it and the database, and nobody is told; or its connections are cut
    restarted   the database ends, in order or at once, and is there again
    clock       the clock of a node is an hour ahead or back for a while

drawn by the seed, under steady load, half of it from smtp-source where that is installed. A node is left alone while
something befalls it, and for a moment after; so is the last one, since somebody is to take over. In the end what was
answered with 250, what arrived and what is on record are compared; where something is wrong the exit status is 1. With
one node (`--nodes 1`) nobody takes over.

    uv run python -m tests.bench.nodes [--minutes M] [--nodes N] [--rate R] [--seed S] [--takeover T]
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import uvloop

from tests import postgres
from tests.bench.relaying import say
from tests.bench.soak.vitals import measured
from tests.nodes import faults
from tests.nodes.fleet import Fleet, Terms, fleet
from tests.nodes.load import Load
from tests.nodes.node import HAS_NODES, Node, faketime

EVERY = 10.0  # seconds from one fault to the next
FROZEN = 40.0  # seconds
DOWN = (1.0, 30.0)  # seconds that a node is gone or cut off: from, to
DATABASE_DOWN = (0.5, 5.0)
WRONG = (2.0, 20.0)  # seconds that a clock is wrong
REST = 8.0  # seconds that a node is left alone after what befell it, to be itself again
AFTER = 20.0  # seconds of load after the last fault
TAKEOVER = 10.0  # seconds; shorter than usual, so that there is more of it in five minutes


class Misfortune:
    """Draws what befalls whom, and lets it."""

    def __init__(self, those: Fleet, seed: int) -> None:
        self._fleet = those
        self._draw = random.Random(seed)
        self._befallen: set[str] = set()  # names of nodes, and "" for the database
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin = time.monotonic()

    async def run(self, seconds: float) -> None:
        """One fault after the other for so long; then all of them come to their ends. Raises what went wrong."""
        try:
            while time.monotonic() < self._begin + seconds:
                await asyncio.sleep(EVERY)
                self._next()
                for task in [task for task in self._tasks if task.done()]:
                    self._tasks.discard(task)
                    task.result()
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _next(self) -> None:
        draw = self._draw
        kind = draw.choice(["killed", "frozen", "parted", "restarted", "clock"])
        free = [node for node in self._fleet.nodes if node.name not in self._befallen]
        if kind == "restarted":
            if "" not in self._befallen:
                seconds, at_once = draw.uniform(*DATABASE_DOWN), draw.random() < 0.5
                self._let("", kind, seconds, partial(faults.database_restarted, at_once=at_once))
        elif len(free) > 1 or len(self._fleet.nodes) == 1 == len(free):  # one is left to take over
            node = draw.choice(free)
            if kind == "killed":
                self._let(node.name, kind, draw.uniform(*DOWN), _of(node, faults.killed))
            elif kind == "frozen":
                self._let(node.name, kind, FROZEN, _of(node, faults.frozen))
            elif kind == "parted":
                way = draw.choice([faults.parted, faults.cut_off])
                self._let(node.name, way.__name__, draw.uniform(*DOWN), _of(node, way))
            else:
                by = draw.choice([faults.HOUR, -faults.HOUR])
                self._let(node.name, kind, draw.uniform(*WRONG), _of(node, partial(faults.clock_set, by=by)))

    def _let(self, whom: str, kind: str, seconds: float, fault: Callable[[Fleet, float], Awaitable[None]]) -> None:
        gone = time.monotonic() - self._begin
        say(f"{gone:6.1f} s   {whom or 'the database'} {kind}, {seconds:.1f} s")

        async def befall() -> None:
            self._befallen.add(whom)
            try:
                await fault(self._fleet, seconds)
                await asyncio.sleep(REST)
            finally:
                self._befallen.discard(whom)

        self._tasks.add(asyncio.create_task(befall()))


def _of(
    node: Node, fault: Callable[[Fleet, Node, float], Awaitable[None]]
) -> Callable[[Fleet, float], Awaitable[None]]:
    async def befall(those: Fleet, seconds: float) -> None:
        await fault(those, node, seconds)

    return befall


async def main(minutes: float, nodes: int, rate: float, seed: int, takeover: float) -> bool:
    """Run it; whether nothing is wrong."""
    say(f"{minutes:g} minutes, {nodes} nodes, {rate:g} messages a second, seed {seed}")
    terms = Terms(
        nodes=nodes, heartbeat=takeover / 3, takeover=takeover, has_clocks=True, on_disk=True,
        database={"fsync": "on", "full_page_writes": "on", "autovacuum": "on"},
    )  # fmt: skip
    async with fleet(terms) as those:
        before = _memory(those)
        async with Load(those.nodes, those.books, rate, with_source=True):
            await Misfortune(those, seed).run(minutes * 60)
            await asyncio.sleep(AFTER)
        found = await those.settle()
        for line in found.figures:
            say(line)
        say(f"memory of the nodes: {before} MiB at the beginning, {_memory(those)} at the end")
    for objection in found.objections:
        say(f"WRONG   {objection}")
    return not found.objections


def _memory(those: Fleet) -> str:
    found = (measured(node.pid, 0.0) for node in those.nodes)
    return ", ".join(f"{one.memory:.0f}" if one else "gone" for one in found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench nodes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second, of all together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--takeover", type=float, default=TAKEOVER, help="seconds; three heartbeats")
    given = parser.parse_args()
    if why := postgres.why_not() or ("" if faketime() else "not installed: libfaketime"):
        parser.error(why)
    if given.nodes > 1 and not HAS_NODES:
        parser.error("an engine shares its database with no other yet: --nodes 1")
    sys.exit(0 if uvloop.run(main(given.minutes, given.nodes, given.rate, given.seed, given.takeover)) else 1)
