"""What takes long is done a part at a time: a check stays short, a stop ends, and what was begun is finished later."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.delivery.attempt import AttemptManager
from engine.delivery.housekeeping import Housekeeping
from engine.delivery.retry import RetryPlan
from engine.model.filter import Filter
from engine.queue.errors import QueueError
from engine.queue.sqlite import bulk, claims, overdue, rules
from engine.queue.sqlite.writer import Writer
from engine.settings.settings import Retry
from tests.unit.queue.support import ALL, DELIVERED
from tests.unit.sqlite.support import opened
from tests.waiting import until


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (claims, overdue):
        monkeypatch.setattr(module, "DROPS_AT_ONCE", 5)
    monkeypatch.setattr(rules, "CHUNK", 5)
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 5)


def counting(monkeypatch: pytest.MonkeyPatch, counted: Callable[[Any], bool]) -> list[object]:
    """The operations of the store that are `counted`, as they are asked for."""
    seen: list[object] = []
    do = Writer.do

    async def noted(self: Writer, operation: Any, weight: int = 0) -> Any:
        if counted(operation):
            seen.append(operation)
        return await do(self, operation, weight)

    monkeypatch.setattr(Writer, "do", noted)
    return seen


async def test_a_check_carries_out_a_bounded_part_of_a_drop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(43)))
        ordered = await spool.queue.orders.give_up("drop", ALL, "oncall", "", 0)
        await spool.queue.orders.retry(ALL, "oncall")
        steps = counting(monkeypatch, lambda operation: operation is overdue.carry_out_drops)
        woken: list[bool] = []
        attempts = AttemptManager(spool.queue, RetryPlan(Retry(), None), spool.clock, hostname="relay.example")
        housekeeping = Housekeeping(
            spool.queue, attempts, spool.clock, wake=lambda: woken.append(True), is_over=lambda _: None
        )
        for check in range(1, 9):
            assert await housekeeping.tidy(()) == ""
            assert len(steps) == len(woken) == check  # one part, and then the next check at once
            operation = await spool.queue.orders.operation(ordered.operation)
            assert operation is not None
            assert (operation.gone_recipients, operation.left) == (5 * check, 43 - 5 * check)  # how far it has come
        assert await housekeeping.tidy(()) == ""
        assert (await spool.queue.listing.totals()).held == 0
        assert len(woken) == 8
        assert [event.text for event in spool.events if event.kind == "carried out"] == [
            f"drop: 1 message (43 recipients) dropped; operation {ordered.operation}: everything"
        ]


async def test_a_check_lets_go_a_bounded_part_of_what_a_rule_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(23)))
        await spool.queue.standing.add_rule(Filter.parse("domain=example.org"), spool.clock.now() + 60, "oncall", "")
        await spool.clock.advance(61)
        steps = counting(monkeypatch, lambda operation: operation is rules.step)
        held = []
        while True:
            await spool.queue.claims.overdue(9)
            held.append((await spool.queue.listing.totals()).held)
            if not spool.queue.claims.has_more_to_do:
                break
        assert held[:5] == [18, 13, 8, 3, 0]
        assert len(steps) == len(held)
        assert [event.text for event in spool.events if event.kind == "released"] == [
            "hold rule 1 (domain=example.org) has ended: its time was over; 23 recipients let go"
        ]


async def test_mail_goes_between_the_parts_of_a_drop(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(20)))
        await spool.queue.orders.give_up("drop", ALL, "oncall", "", 0)
        await spool.add("healthy@example.com")
        await spool.queue.claims.overdue(9)
        (claim,) = await spool.claim("example.com")
        await spool.settle(claim, DELIVERED)
        assert (await spool.queue.listing.totals()).held == 15


async def test_a_drop_cut_short_by_a_stop_is_finished_after_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(20)))
        ordered = await spool.queue.orders.give_up("drop", ALL, "oncall", "", 0)
        await spool.queue.claims.overdue(9)
    async with opened(tmp_path, spool.clock) as spool:
        assert (await spool.queue.listing.totals()).held == 15
        await spool.carry_out()
        assert (await spool.queue.listing.totals()).held == 0
        operation = await spool.queue.orders.operation(ordered.operation)
        assert operation is not None
        assert (operation.gone_recipients, operation.left) == (20, 0)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Each transaction of an operator's order lets the store be closed before the next; those that were done."""
    monkeypatch.setattr("engine.queue.sqlite.database.STOP_SECONDS", 0.05)
    steps: list[object] = []
    do = Writer.do

    async def slowly(self: Writer, operation: Any, weight: int = 0) -> Any:
        if operation is rules.let_go or operation is rules.step or getattr(operation, "func", None) is bulk._do:
            steps.append(operation)
            await asyncio.sleep(0.02)
        return await do(self, operation, weight)

    monkeypatch.setattr(Writer, "do", slowly)
    return steps


async def begun(steps: list[object], count: int) -> None:
    await until(lambda: len(steps) >= count)


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "drop"])
async def test_an_order_on_very_many_is_cut_short_by_a_stop_and_told(
    tmp_path: Path, slow: list[object], verb: str
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(2000)))
        if verb == "release":
            spool.sql("UPDATE entry SET state = 'held', ordered = 'hold'")
        if verb == "retry":
            spool.sql("UPDATE entry SET due = due + 9999")
        orders_of = {
            "hold": lambda: spool.queue.orders.hold(ALL, "oncall", ""),
            "release": lambda: spool.queue.orders.release(ALL, "oncall"),
            "retry": lambda: spool.queue.orders.retry(ALL, "oncall"),
            "drop": lambda: spool.queue.orders.give_up("drop", ALL, "oncall", "", 0),
        }
        asked = asyncio.ensure_future(orders_of[verb]())
        await begun(slow, 3)
        async with asyncio.timeout(10):
            await spool.queue.close()
        with pytest.raises(QueueError, match=r"the engine stops; .* so far"):
            await asked
        assert len(slow) < 100  # of 400
    async with opened(tmp_path, spool.clock) as spool:
        await spool.carry_out()
        totals = await spool.queue.listing.totals()
        assert totals.waiting + totals.held == 2000  # of a drop that is not whole nothing is carried out
        (told,) = [one.text for one in await spool.queue.listing.events(limit=9999) if "cut short" in one.text]
        assert told.startswith(f"{verb} ")


async def test_the_end_of_a_rule_that_held_very_much_is_cut_short_by_a_stop_and_goes_on_after_the_next_start(
    tmp_path: Path, slow: list[object]
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(900)))
        (made,) = await asyncio.gather(
            spool.queue.standing.add_rule(Filter.parse("domain=example.org"), spool.clock.now() + 60, "oncall", "")
        )
        slow.clear()
        asked = asyncio.ensure_future(spool.queue.standing.end_rule(made.id, "oncall"))
        await begun(slow, 3)
        async with asyncio.timeout(10):
            await spool.queue.close()
        with pytest.raises(QueueError, match="the engine stops"):
            await asked
    async with opened(tmp_path, spool.clock) as spool:
        assert (await spool.queue.listing.totals()).held > 0
        await spool.carry_out()
        assert (await spool.queue.listing.totals()).held == 0
        (told,) = [one for one in await spool.queue.listing.events(limit=9999) if one.kind == "released"]
        assert (told.by, told.text) == ("oncall", "hold rule 1 (domain=example.org) has ended; 900 recipients let go")


async def test_a_short_order_is_finished_before_the_store_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(100)))
        asked = asyncio.ensure_future(spool.queue.orders.hold(ALL, "oncall", ""))
        await asyncio.sleep(0)
        await spool.queue.close()
        assert (await asked).recipients == 100
