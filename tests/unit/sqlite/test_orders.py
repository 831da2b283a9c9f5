"""The operator's orders: exactly what was named, exactly what is reported, and the way back."""

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any, Literal

import pytest

from engine.model.filter import Filter
from engine.model.order import Changed
from engine.queue.errors import QueueBusy
from engine.queue.sqlite import bulk, overdue
from engine.queue.sqlite.where import Where
from engine.queue.sqlite.writer import Transaction
from tests.unit.queue.support import ALL
from tests.unit.sqlite.support import opened
from tests.waiting import PATIENCE, until


async def test_an_order_on_many_goes_in_chunks_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 7)
    async with opened(tmp_path) as spool:
        for _ in range(7):
            await spool.add("a@example.org", "b@example.com", "c@example.org")
        spool.events.clear()
        before = spool.writer.groups
        assert await spool.queue.orders.hold(ALL, "oncall", "many") == Changed(messages=7, recipients=21)
        assert spool.writer.groups - before == 4
        assert [(e.kind, e.text) for e in spool.events] == [
            ("held", "hold 21 recipients in 7 messages: everything (many)")
        ]
        changed = await spool.queue.orders.give_up("drop", Filter.parse("domain=example.org"), "oncall", "", 0)
        assert (changed.messages, changed.recipients) == (7, 14)
        assert await spool.queue.orders.undo(changed.operation, "oncall") == Changed(messages=7, recipients=14)


async def test_in_how_many_chunks_it_may_be_all_that_is_postponed_beyond_its_time_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 7)
    async with opened(tmp_path, give_up_after=1000.0) as spool:
        await spool.add(*(f"a{n}@example.org" for n in range(20)))
        await spool.clock.advance(100)
        await spool.add(*(f"b{n}@example.org" for n in range(20)))
        changed = await spool.queue.orders.postpone(ALL, "oncall", spool.clock.now() + 950)
        assert changed == Changed(messages=2, recipients=40, outlasting=20)
        assert spool.events[-1].text == (
            "postpone 40 recipients in 2 messages: everything; for 15m50s, 20 of them beyond their time"
        )


async def test_an_order_is_carried_out_to_its_end_though_who_gave_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 5)
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(40)))
        task = asyncio.create_task(spool.queue.orders.hold(ALL, "oncall", ""))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with opened(tmp_path) as spool:
        assert (await spool.queue.listing.totals()).held == 40


async def test_the_time_to_undo_begins_when_all_is_ordered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 5)
    async with opened(tmp_path) as spool:
        find = bulk.Bulk.find

        async def slowly(self: bulk.Bulk, *sought: Any) -> list[tuple[int, int]]:
            await spool.clock.advance(20)
            assert await spool.queue.claims.overdue(9) == []
            return await find(self, *sought)

        await spool.add(*(f"u{n}@example.org" for n in range(40)))
        monkeypatch.setattr(bulk.Bulk, "find", slowly)
        changed = await spool.queue.orders.give_up("drop", ALL, "oncall", "runaway", 10)
        assert changed.due == await spool.queue.claims.next_due() == spool.clock.now() + 10
        await spool.queue.claims.overdue(9)
        assert (await spool.queue.listing.totals()).held == 40
        await spool.clock.advance(10)
        await spool.queue.claims.overdue(9)
        assert (await spool.queue.listing.totals()).held == 0


async def test_while_an_order_is_undone_no_more_of_it_is_carried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 5)
    async with opened(tmp_path) as spool:
        find = bulk.Bulk.find

        async def slowly(self: bulk.Bulk, *sought: Any) -> list[tuple[int, int]]:
            await spool.clock.advance(20)
            await spool.queue.claims.overdue(9)
            return await find(self, *sought)

        await spool.add(*(f"u{n}@example.org" for n in range(40)))
        changed = await spool.queue.orders.give_up("drop", ALL, "oncall", "runaway", 10)
        monkeypatch.setattr(bulk.Bulk, "find", slowly)
        assert (await spool.queue.orders.undo(changed.operation, "oncall")).recipients == 40


async def test_a_bounce_that_is_due_is_not_looked_through_for_drops(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(4):
            await spool.add(*(f"u{n}@example.org" for n in range(500)))
        await spool.queue.orders.give_up("bounce", ALL, "oncall", "", 0)
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        connection = spool.writer._connection
        connection.set_progress_handler(count, 1)
        assert overdue.carry_out_drops(Transaction(connection, spool.clock.now())) == 0
        connection.set_progress_handler(None, 0)
        assert steps < 500


@pytest.mark.parametrize("order", ["bounce", "drop"])
async def test_of_an_order_that_fails_half_way_nothing_is_carried_out_and_it_can_be_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Literal["bounce", "drop"]
) -> None:
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 5)
    async with opened(tmp_path) as spool:
        find = bulk.Bulk.find

        async def busy(self: bulk.Bulk, selected: Where, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
            if after[1] >= 10:
                raise QueueBusy("another program holds the queue")
            return await find(self, selected, after, limit)

        await spool.add(*(f"u{n}@example.org" for n in range(40)))
        before = await spool.entries()
        spool.events.clear()
        with monkeypatch.context() as patched:
            patched.setattr(bulk.Bulk, "find", busy)
            with pytest.raises(QueueBusy, match=r"10 recipients so far held, .*: undo operation 1, or order again"):
                await spool.queue.orders.give_up(order, ALL, "oncall", "runaway", 10)
        (told,) = spool.events
        assert told.text == (
            f"{order} 10 recipients in 1 message: everything (runaway) (cut short: another program holds the queue)"
            "; operation 1"
        )
        await spool.clock.advance(1000)
        assert await spool.queue.claims.overdue(9) == []
        assert (await spool.queue.listing.totals()).held == 10
        assert (await spool.queue.orders.undo(1, "oncall")).recipients == 10
        assert await spool.entries() == before
        assert (await spool.queue.orders.give_up(order, ALL, "oncall", "runaway", 10)).recipients == 40


async def test_an_order_that_was_cut_short_by_the_end_is_not_carried_out_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        changed = await spool.queue.orders.give_up("drop", ALL, "oncall", "", 10)
        spool.sql("UPDATE operation SET finished = 0, due = NULL")
    async with opened(tmp_path) as spool:
        await spool.clock.advance(1000)
        await spool.queue.claims.overdue(9)
        entry = await spool.entry(number)
        assert (entry.state, entry.ordered, entry.order_at) == ("held", "drop", None)
        await spool.queue.orders.undo(changed.operation, "oncall")
        assert (await spool.entry(number)).state == "waiting"


async def test_an_order_cut_short_is_told_of_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.org")
        await spool.queue.orders.hold(Filter.parse("to=a@*"), "oncall", "")
        spool.sql("UPDATE operation SET finished = 0")
    async with opened(tmp_path) as spool:
        text = "hold 1 recipient in 1 message: to=a@* (cut short: the engine ended)"
        assert [(event.kind, event.by, event.text) for event in spool.events] == [("held", "oncall", text)]


async def test_an_order_that_touches_nothing_leaves_no_trace(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        assert await spool.queue.orders.hold(Filter.parse("to=nobody@*"), "oncall", "") == Changed(
            messages=0, recipients=0
        )
        assert await spool.queue.orders.release(ALL, "oncall") == Changed(messages=0, recipients=0, skipped=1)
        assert spool.kinds() == ["accepted"]
        assert spool.sql("SELECT count(*) FROM operation") == [(0,)]


async def test_an_order_waits_for_nobody_who_looks(tmp_path: Path) -> None:
    """A viewer's question may take seconds; an operator who holds mail, or lets it go, cannot wait for that."""
    looking, is_seen = threading.Event(), threading.Event()

    def long(connection: sqlite3.Connection) -> None:
        looking.set()
        is_seen.wait(10 * PATIENCE)

    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org")
        seeing = asyncio.ensure_future(spool.queue._database.readers.ask(long, console=True))
        try:
            await until(looking.is_set)
            async with asyncio.timeout(PATIENCE):
                assert (await spool.queue.orders.hold(ALL, "night", "asleep")).recipients == 1
                assert (await spool.queue.orders.release(Filter.of_ids([number]), "night")).recipients == 1
                dropped = await spool.queue.orders.give_up("drop", ALL, "night", "", 60.0)
                assert (await spool.queue.orders.undo(dropped.operation, "night")).recipients == 1
            assert not seeing.done()
        finally:
            is_seen.set()
            await seeing
        assert [entry.state for entry in await spool.entries()] == ["waiting"]
