"""Whatever is done in whatever order, the counts of the destinations are those of the rows."""

from pathlib import Path

import pytest

from tests.unit.queue.support import ALL
from tests.unit.queue.test_random import Random
from tests.unit.sqlite.support import SqliteSpool, opened


async def assert_consistent(spool: SqliteSpool) -> None:
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
