"""Plans of the server in PostgreSQL: what a filter names is looked for as its values need it, however often it is."""

from pathlib import Path
from typing import Any, cast

import pytest

from engine.model.filter import Filter
from engine.queue.postgres.database import READERS
from engine.queue.postgres.selection import candidates
from engine.queue.postgres.settlements import RUNNING
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.postgres.where import where
from tests import postgres
from tests.unit.postgres.support import opened

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

OFTEN = 8  # times on each connection: from the sixth on the server would use one plan for all values
# Of what this connection has prepared: how often it was planned for its values, and how often a plan for all was used.
_PLANS = (
    "SELECT coalesce(sum(custom_plans), 0)::int, coalesce(sum(generic_plans), 0)::int FROM pg_prepared_statements "
    "WHERE statement LIKE '%FROM entry e%' AND statement NOT LIKE '%pg_prepared_statements%'"
)


async def plans(s: Snapshot) -> tuple[int, int]:
    ((for_values, for_all),) = await s.fetch(_PLANS)
    return for_values, for_all


@pytest.mark.parametrize("asks", ["window", "select", "order"])
async def test_a_filter_that_is_asked_often_is_planned_for_its_values(tmp_path: Path, asks: str) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@x.example", "b@y.example")
        listing, database = spool.queue.listing, cast("Any", spool.queue)._database
        text = 'group="not tried yet" domain=x.example'
        for _ in range(OFTEN * READERS):
            if asks == "window":
                assert (await listing.window(Filter.parse(text), "id", 0, 10)).total == 1
            elif asks == "select":
                assert (await listing.select(Filter.parse(text))).recipients == 1
            else:
                selected = where(Filter.parse("domain=x.example"), 0.0)
                assert await database.ask(lambda s, it=selected: candidates(s, it, (0, 0), 10)) == [(1, 1)]
        found = [await database.ask(plans) for _ in range(READERS)]
        assert all(for_values >= OFTEN and for_all == 0 for for_values, for_all in found), found


async def test_results_are_looked_up_by_their_keys_even_if_nothing_was_under_way_when_that_was_last_looked_at(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{number}@d{number % 50}.example" for number in range(1000)))
        database = cast("Any", spool.queue)._database

        async def plan(tx: Transaction) -> str:
            await tx.execute("ANALYZE entry")
            rows = await tx.fetch(f"EXPLAIN {RUNNING}", [1] * 100, list(range(1, 101)), [1] * 100, [1] * 100)
            return "\n".join(line for (line,) in rows)

        found = await database.do(plan)
        assert "entry_pkey" in found
        assert "entry_relaying" not in found
