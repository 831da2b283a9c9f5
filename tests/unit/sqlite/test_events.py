"""Events are found by words: all of them, each anywhere in what is said of the event, `!` leaves out."""

from pathlib import Path

from tests.unit.queue.test_events import HAPPENED, found
from tests.unit.sqlite.support import opened


async def test_a_damaged_outcome_hides_no_event(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.arrivals.record(*HAPPENED)
        spool.sql("UPDATE event SET outcome = '{' WHERE seq = 2")
        assert await found(spool, "returned") == [2, 3]
