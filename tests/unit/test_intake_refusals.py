"""Refusals are told, but a flood of them fills neither the events nor the memory."""

import asyncio
import logging

import pytest

from engine.intake.refusals import MOST, Refusals
from engine.model.event import Event
from engine.model.refusal import Refusal
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals


class Stuck(FakeArrivals):
    """Arrivals that record nothing until it is let, and fails then if it was told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.events: list[Event] = []

    async def record(self, *events: Event) -> None:
        await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        self.events.extend(events)


async def test_a_flood_from_everywhere_is_told_twenty_times_a_minute() -> None:
    queue, clock = Stuck(), FakeClock()
    queue.gate.set()
    refusals = Refusals(queue, clock)
    for number in range(10_000):
        refusals.note(Refusal(peer=f"smtp 192.0.2.{number}", why="relaying denied", detail="x" * 10_000))
    await refusals.finish(1.0)
    assert len(queue.events) == MOST
    await clock.advance(61)
    refusals.note(Refusal(peer="smtp ::1", why="relaying denied"))
    await refusals.finish(1.0)
    assert "(9980 more were refused before)" in queue.events[-1].text
    assert all(len(event.text) <= 1000 for event in queue.events)


async def test_a_store_that_is_stuck_makes_nothing_pile_up() -> None:
    queue, clock = Stuck(), FakeClock()
    refusals = Refusals(queue, clock)
    before = len(asyncio.all_tasks())
    for minute in range(50):
        for number in range(MOST):
            refusals.note(Refusal(peer=f"smtp 192.0.2.{number}", why=f"relaying denied {minute}"))
        await clock.advance(61)
    assert len(asyncio.all_tasks()) - before <= MOST
    queue.gate.set()
    await refusals.finish(1.0)
    assert len(queue.events) == MOST


async def test_a_refusal_that_cannot_be_recorded_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    queue = Stuck()
    queue.gate.set()
    queue.fail = RuntimeError("odd")
    refusals = Refusals(queue, FakeClock())
    with caplog.at_level(logging.WARNING):
        refusals.note(Refusal(peer="smtp 192.0.2.1", why="relaying denied"))
        await refusals.finish(1.0)
    assert "a refusal could not be recorded" in caplog.text
