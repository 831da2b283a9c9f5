"""One engine on a database, and several: what befalls them loses nothing that was answered with 250."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests import postgres
from tests.nodes import faults
from tests.nodes.books import Verdict
from tests.nodes.fleet import Fleet, Terms, fleet
from tests.nodes.load import Load
from tests.nodes.node import HAS_NODES, faketime

RATE = 30.0  # messages a second
BETWEEN = 1.5  # seconds from one fault to the next, for the load to be itself again
AFTER = 4.0  # seconds after the last, in which every node is to take mail again

pytestmark = [
    pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there"),
    pytest.mark.skipif(faketime() is None, reason="not installed: libfaketime"),
    pytest.mark.timeout(240),
]


async def befall(all_of: Fleet, *befalls: Callable[[], Awaitable[None]]) -> Verdict:
    """Let one fault after the other befall the nodes under load; give how the books stand in the end, and say it."""
    async with Load(all_of.nodes, all_of.books, RATE, with_source=True):
        for fault in befalls:
            await asyncio.sleep(BETWEEN)
            await fault()
        await asyncio.sleep(AFTER)
    found = await all_of.settle()
    print("\n".join(found.figures))
    return found


async def test_what_befalls_one_engine_and_its_database_loses_nothing() -> None:
    async with fleet(Terms(nodes=1, has_clocks=True)) as all_of:
        (node,) = all_of.nodes
        found = await befall(
            all_of,
            partial(faults.killed, all_of, node, 1.0),
            partial(faults.frozen, all_of, node, 4.0),
            partial(faults.parted, all_of, node, 4.0),
            partial(faults.cut_off, all_of, node, 3.0),
            partial(faults.database_restarted, all_of, 1.0),
            partial(faults.database_restarted, all_of, 1.0, at_once=True),
            partial(faults.clock_set, all_of, node, 3.0),
        )
    assert found.objections == []


@pytest.mark.skipif(not HAS_NODES, reason="an engine shares its database with no other yet")
async def test_what_befalls_three_nodes_and_their_database_loses_nothing() -> None:
    async with fleet(Terms(nodes=3, has_clocks=True)) as all_of:
        a, b, c = all_of.nodes
        gone = all_of.terms.bound + 1.0
        found = await befall(
            all_of,
            partial(faults.killed, all_of, a, gone),
            partial(faults.frozen, all_of, b, gone),
            partial(faults.parted, all_of, c, gone),
            partial(faults.database_restarted, all_of, 1.0, at_once=True),
            partial(faults.clock_set, all_of, a, 3.0),
        )
    assert found.objections == []
    assert len(found.takeovers) == 3
    assert any(takeover.claims for takeover in found.takeovers)  # else nothing was taken over


async def test_a_database_that_crashes_again_and_again_loses_nothing() -> None:
    """Each time what was being committed may be done, or may not: who asked must learn which."""
    async with fleet(Terms(nodes=2)) as all_of:
        found = await befall(all_of, *[partial(faults.database_restarted, all_of, 0.3, at_once=True)] * 8)
    assert found.objections == []
