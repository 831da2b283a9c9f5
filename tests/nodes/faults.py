"""What befalls nodes and their database. Each takes the seconds it lasts, and ends with all as it was."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.nodes.fleet import Fleet
from tests.nodes.node import CLOCK_SEEN, Node

HOUR = 3600


async def killed(fleet: Fleet, node: Node, seconds: float) -> None:
    """kill -9, and after a while it is started again."""
    with fleet.befalling(node):
        node.kill()
        await _for(seconds, fleet.watch(node, "killed", seconds))
        await node.start_again()
    fleet.over("killed", node)


async def frozen(fleet: Fleet, node: Node, seconds: float) -> None:
    """SIGSTOP, and after a while SIGCONT: it goes on where it was, and does not know that time has gone by."""
    with fleet.befalling(node):
        node.freeze()
        try:
            await _for(seconds, fleet.watch(node, "frozen", seconds))
        finally:
            node.thaw()
    fleet.over("frozen", node)


async def parted(fleet: Fleet, node: Node, seconds: float) -> None:
    """The network between a node and the database is torn: nothing comes through, and nobody is told."""
    assert node.way is not None
    await _unreachable(fleet, node, node.way.part, "parted", seconds)


async def cut_off(fleet: Fleet, node: Node, seconds: float) -> None:
    """The connections of a node to the database are ended, and it gets no others."""
    assert node.way is not None
    await _unreachable(fleet, node, node.way.cut, "cut off", seconds)


async def database_restarted(fleet: Fleet, seconds: float, *, at_once: bool = False) -> None:
    """The database ends, in order or `at_once`, and is there again after a while."""
    fleet.troubles += 1
    await asyncio.to_thread(fleet.database.stop, at_once=at_once)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(fleet.database.start)
    fleet.troubles += 1
    fleet.over(f"without its database{', which was ended at once' if at_once else ''}", *fleet.well)


async def clock_set(fleet: Fleet, node: Node, seconds: float, *, by: int = HOUR) -> None:
    """The clock of a node is wrong by so many seconds, ahead or back, and is right again after a while."""
    node.set_clock(by)
    try:
        await asyncio.sleep(CLOCK_SEEN)
        fleet.over(f"set {by:+d} s", node)  # which should change nothing
        await asyncio.sleep(seconds)
    finally:
        node.set_clock(0)
    await asyncio.sleep(CLOCK_SEEN)
    fleet.over(f"set right by {-by:+d} s", node)


async def _unreachable(fleet: Fleet, node: Node, tear: Callable[[], None], fault: str, seconds: float) -> None:
    """A node that lives and cannot reach the database must send nothing once others may have its claims."""
    assert node.way is not None
    begin = time.time()
    with fleet.befalling(node):
        tear()
        try:
            await _for(seconds, fleet.watch(node, fault, seconds))
        finally:
            node.way.mend()
    fleet.over(fault, node)
    if len(fleet.nodes) > 1 and seconds > fleet.terms.takeover:
        fleet.books.silent(node.name, begin + fleet.terms.takeover, begin + seconds)


async def _for(seconds: float, work: Awaitable[None]) -> None:
    """Do something that takes no longer than that, and wait for the rest of it."""
    end = time.monotonic() + seconds
    await work
    await asyncio.sleep(max(0.0, end - time.monotonic()))
