"""What became of the entries that an order let go, as the store knows it."""

from pathlib import Path

import pytest

from engine.model import order
from engine.model.destination import Mark
from engine.model.order import Changed, Touched, TouchedEntry
from tests.unit.queue.support import ALL
from tests.unit.queue.test_aftermath import tried
from tests.unit.sqlite.support import opened


async def test_an_order_writes_down_what_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 2)
    monkeypatch.setattr(order, "FOLLOWED", 3)
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(5)))
        touched = Touched()
        assert await spool.queue.orders.retry(ALL, "ann", touched=touched) == Changed(messages=1, recipients=5)
        assert (touched.operation, touched.recipients) == (1, 5)
        assert touched.entries == [TouchedEntry(1, number, 0) for number in (1, 2, 3)]
        assert touched.since == len([kind for kind in spool.kinds() if kind == "accepted"])


async def test_a_host_marked_good_says_how_many_it_made_due_and_which(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await tried(spool, "a.example", "b.example")
        now = spool.clock.now()
        await spool.queue.standing.note_destination("a.example", ["mx1.example"])
        await spool.queue.standing.note_destination("b.example", ["mx2.example"])
        for host in ("mx1.example", "mx3.example"):
            await spool.queue.marks.save(Mark(host=host, since=now, until=now + 60, by="engine", note=""))
        touched = Touched()
        assert await spool.queue.marks.remove("mx1.example", "ann", touched) == 1
        assert touched.entries == [TouchedEntry(1, 1, 1)]
        assert touched.operation
        event = spool.events[-1]
        assert (event.kind, event.by, event.text) == ("marked good", "ann", "1 recipient that waited for it made due")
        assert spool.sql("SELECT count(*) FROM operation") == [(0,)]
        assert await spool.queue.marks.remove("mx3.example", "ann") == 0
        assert spool.events[-1].text == "no mail waited for it"


async def test_making_due_that_was_cut_short_by_the_end_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await tried(spool, "a.example")
        await spool.queue.standing.note_destination("a.example", ["mx1.example"])
        now = spool.clock.now()
        await spool.queue.marks.save(Mark(host="mx1.example", since=now, until=now + 60, by="engine", note=""))
        spool.sql("CREATE TRIGGER kept BEFORE DELETE ON operation BEGIN SELECT raise(IGNORE); END")
        await spool.queue.marks.remove("mx1.example", "ann")
        spool.sql("DROP TRIGGER kept")
        spool.sql("UPDATE operation SET finished = 0")  # as it is after the first of several transactions
    async with opened(tmp_path) as spool:
        text = "mark-good 1 recipient in 1 message: mx1.example (cut short: the engine ended)"
        assert [(event.kind, event.by, event.text) for event in spool.events] == [("retried", "ann", text)]
