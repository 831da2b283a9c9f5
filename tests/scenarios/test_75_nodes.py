"""75. Several nodes on one queue are one relay: what is limited is so for all together, and each does its part."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.sandbox.exchanges import Session
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Slow
from engine.settings.settings import Limit, QueueStore
from tests import postgres
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.waiting import until, until_told

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")


@asynccontextmanager
async def nodes(
    internet: Internet, clock: FakeClock, folder: Path, names: str = "ab", **settings: Any
) -> AsyncIterator[list[Relay]]:
    """Engines that share a queue, each knowing of the others."""
    server = await asyncio.to_thread(postgres.cluster)
    store = QueueStore(store=await server.database(folder), heartbeat=0.5, takeover=1.5)
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(
                relaying(internet, clock=clock, queue=replace(store, node=name), hostname=f"{name}.example", **settings)
            )
            for name in names
        ]
        await until(lambda: all(relay.engine.queue.share.nodes == len(names) for relay in found))
        yield found


class Counting(Slow):
    """Notes whose sessions it had, and how many at a time."""

    def __init__(self) -> None:
        super().__init__(0.003)
        self.whose: set[str] = set()

    async def reply(self, session: Session, verb: str, argument: str) -> Any:
        if verb == "EHLO":
            self.whose.add(argument)
        return await super().reply(session, verb, argument)


async def fill(relay: Relay, domain: str, count: int) -> None:
    await relay.send(f"x@{domain}", times=count)


async def test_nodes_together_open_no_more_connections_to_a_site_than_one_may(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    counting = Counting()
    (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", counting)])
    async with nodes(internet, clock, tmp_path, max_connections_per_destination=4) as (a, b):
        await asyncio.gather(fill(a, "big.example", 150), fill(b, "big.example", 150))
        await internet.wait_for(300, seconds=60)
        assert exchange.most_open <= 4
        assert counting.whose == {"a.example", "b.example"}
        await until_told(a.entries, lambda entries: not entries)
    assert internet.messages == 300


async def test_a_rate_is_for_all_nodes_together(internet: Internet, clock: FakeClock, tmp_path: Path) -> None:
    await internet.add("slow.example", mx=[(10, "mx.slow.example", Healthy())])
    limit = (Limit(destination="slow.example", messages_per_minute=200),)
    async with nodes(internet, clock, tmp_path, limit=limit) as (a, b):
        await fill(a, "slow.example", 60)
        await internet.wait_for(20)
        for relay in (a, b):
            await relay.settled()
        assert internet.messages == 20  # a tenth of a minute's may go at once
        share = a.engine.queue.share
        (limiting,) = a.engine.smarthost.limits_on("slow.example")
        assert limiting.text == "no more than 100 a minute from this node, of 200 from all"
        assert share.nodes == 2


async def test_the_part_of_a_node_that_leaves_is_the_others(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    async with nodes(internet, clock, tmp_path) as (a, b):
        await b.engine.stop(drain=0.3)
        await until(lambda: a.engine.queue.share.nodes == 1)
        assert a.engine.queue.share.of(7, "example.org") == 7


async def test_a_site_that_one_node_cannot_reach_is_left_alone_by_the_others(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    async with nodes(internet, clock, tmp_path) as (a, b):
        await fill(a, "dead.example", 1)
        await until_told(lambda: a.events("unreachable"))
        tried = len(await a.events("unreachable"))
        await fill(b, "dead.example", 5)
        for relay in (a, b):
            await relay.settled()
        assert len(await a.events("unreachable")) == tried
        assert exchange.messages == 0
