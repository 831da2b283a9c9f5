"""What nodes add: how fast mail passes through one and through three, where the peers take 20 ms for a message

    1 node      smtp-source hands all messages to it
    3 nodes     a third of the messages to each of three, all on one database
    apart       three, each with a database to itself on the same server: what this machine is good for

each in turn, several rounds, every node with few connections, so that the peers are what is waited for, and not the
machine. The database syncs. Absolute figures depend on the machine; the ratios of the medians are what counts.

    uv run python -m tests.bench.side_by_side [MESSAGES] [ROUNDS] [CONNECTIONS]
"""

import asyncio
import itertools
import statistics
import sys
import time

import uvloop

from tests import postgres
from tests.bench.relaying import say
from tests.interop.needs import program
from tests.nodes.fleet import Fleet, Terms, fleet
from tests.nodes.node import HAS_NODES
from tests.nodes.peers import DOMAINS

LONGEST = 300.0  # seconds
TAKES = 0.02  # seconds that a peer takes for a message
WARM = 120  # messages that do not count: until every destination has proved itself

_runs = itertools.count(1)


async def timed(those: Fleet, messages: int) -> float:
    """Seconds from the first message handed in until the peers have the last; a source for each node and domain."""
    arrived = those.books.arrivals
    share = messages // (len(those.nodes) * len(DOMAINS))
    expected = len(arrived) + share * len(those.nodes) * len(DOMAINS)
    begin = time.perf_counter()
    sources = [
        await asyncio.create_subprocess_exec(
            program("smtp-source"), "-N", "-d", "-s", "1", "-m", f"{share}", "-l", "4096",
            "-f", "ann@source.example", "-t", f"r{next(_runs)}@{domain}", f"127.0.0.1:{node.port}",
        )
        for node in those.nodes
        for domain in DOMAINS
    ]  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST):
            assert [await source.wait() for source in sources] == [0] * len(sources)
            while len(arrived) < expected:
                await asyncio.sleep(0.01)
    finally:
        for source in sources:
            if source.returncode is None:
                source.kill()
                await source.wait()
    return time.perf_counter() - begin


async def main(messages: int, rounds: int, connections: int) -> None:
    """Run the rounds and say what came out."""
    ways = {"1 node": (1, False), "3 nodes": (3, False), "apart": (3, True)}
    if not HAS_NODES:
        del ways["3 nodes"]
        say("an engine shares its database with no other yet: without 3 nodes")
    took: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, (nodes, apart) in ways.items():
            terms = Terms(
                nodes=nodes, apart=apart, takes=TAKES, max_connections=connections, heartbeat=10.0, takeover=30.0,
                has_ways=False, on_disk=True, database={"fsync": "on", "full_page_writes": "on", "autovacuum": "on"},
            )  # fmt: skip
            async with fleet(terms) as those:
                await timed(those, WARM)
                took.setdefault(name, []).append(await timed(those, messages))
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    for name, seconds in took.items():
        spread = " ".join(f"{each:.2f}" for each in seconds)
        ratio = medians["1 node"] / medians[name]
        say(f"{name:8} {messages / medians[name]:6.0f} messages/s   {ratio:.2f} x one node   [{spread} s]")


if __name__ == "__main__":
    if why := postgres.why_not() or ("" if program("smtp-source") else "not installed: smtp-source (postfix)"):
        sys.exit(why)
    arguments = [int(word) for word in sys.argv[1:]]
    uvloop.run(main(*(arguments + [900, 3, 1][len(arguments) :])))
