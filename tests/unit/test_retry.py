import random

import pytest

from engine.retry import DEFAULT_SCHEDULE, RetrySchedule


def schedule(seed: int = 1) -> RetrySchedule:
    return RetrySchedule(draw=random.Random(seed))


def test_intervals_grow_and_the_last_repeats() -> None:
    for seed in range(200):
        intervals = [schedule(seed).interval(failures) for failures in range(1, 7)]
        assert intervals == sorted(intervals)
    assert 7200 <= schedule().interval(40) <= 7200 * 1.1


def test_jitter_only_ever_stretches_an_interval() -> None:
    drawn = [schedule(seed).interval(1) for seed in range(500)]
    assert 300 <= min(drawn) < max(drawn) <= 330


def test_messages_deferred_in_one_moment_do_not_come_back_in_one_moment() -> None:
    one = schedule()
    assert len({one.next_due(1000.0, 1) for _ in range(50)}) == 50


def test_the_default_schedule_is_the_one_the_settings_document() -> None:
    assert DEFAULT_SCHEDULE == (300, 600, 1200, 2400, 3600, 7200)


def test_a_schedule_without_intervals_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        RetrySchedule([])
