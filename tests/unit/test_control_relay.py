"""What follows from what an operator asked is done, whoever has gone meanwhile; and nothing follows from nothing."""

import asyncio
from contextlib import suppress

import pytest

from engine.control.relay import afterwards
from tests.waiting import PATIENCE


@pytest.mark.parametrize(("gives", "told"), [(True, 1), (0, 1), ((), 1), (False, 0), (None, 0)])
async def test_it_follows_where_something_was_done(gives: object, told: int) -> None:
    async def work() -> object:
        return gives

    calls: list[None] = []
    assert await afterwards(work(), lambda: calls.append(None)) == gives
    assert len(calls) == told


async def test_nothing_follows_from_what_failed() -> None:
    async def work() -> object:
        raise ValueError("no")

    calls: list[None] = []
    with pytest.raises(ValueError, match="no"):
        await afterwards(work(), lambda: calls.append(None))
    assert calls == []


async def test_it_follows_also_where_whoever_asked_has_gone() -> None:
    goes_on, calls = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        await goes_on.wait()
        return 1

    asked = asyncio.create_task(afterwards(work(), calls.set))
    await asyncio.sleep(0)
    asked.cancel()
    with suppress(asyncio.CancelledError):
        await asked
    assert asked.cancelled()
    assert not calls.is_set()
    goes_on.set()
    async with asyncio.timeout(PATIENCE):
        await calls.wait()
