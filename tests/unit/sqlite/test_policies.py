"""MTA-STS policies in the store: kept over a restart, forgotten at their end, never too many."""

from pathlib import Path

import pytest

from engine.queue.contract import KeptPolicy
from engine.queue.sqlite import standing
from engine.queue.sqlite.store import SqliteQueue
from tests.clock import FakeClock


async def test_a_policy_is_kept_until_its_end(tmp_path: Path) -> None:
    clock = FakeClock()
    policy = KeptPolicy(domain="example.org", expires=clock.now() + 100, policy="{}")
    queue = SqliteQueue(tmp_path, clock)
    await queue.open()
    await queue.standing.save_sts_policy(policy)
    await queue.close()
    again = SqliteQueue(tmp_path, clock)
    await again.open()
    assert await again.standing.sts_policy("Example.org") == policy
    assert await again.standing.sts_policy("example.com") is None
    await clock.advance(100)
    assert await again.standing.sts_policy("example.org") is None
    await again.close()


async def test_of_very_many_those_that_end_first_are_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "POLICIES_KEPT", 3)
    clock = FakeClock()
    queue = SqliteQueue(tmp_path, clock)
    await queue.open()
    for number in (5, 1, 4, 2, 3):
        await queue.standing.save_sts_policy(KeptPolicy(domain=f"d{number}", expires=clock.now() + number, policy=""))
    left = [number for number in range(1, 6) if await queue.standing.sts_policy(f"d{number}")]
    assert left == [3, 4, 5]
    await queue.close()
