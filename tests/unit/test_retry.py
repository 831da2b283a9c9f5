import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.delivery.retry import DEFAULT_SCHEDULE, RetryPlan, RetrySchedule
from engine.model.outcome import Outcome
from engine.settings.settings import Retry, RetryOf


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


# -- by destination, and as the peer asks -----------------------------------------------------------------------------

LATER = Outcome.of_reply(450, "4.2.1 later")
PLAN = RetryPlan(
    Retry(
        schedule=(300.0,),
        give_up_after=5000.0,
        destination=(
            RetryOf(domain="gmail.example", schedule=(60.0, 120.0), give_up_after=1000.0),
            RetryOf(domain="*.example.org", give_up_after=2000.0),
            RetryOf(domain="*.deep.example.org", schedule=(7200.0,)),
        ),
    ),
    random.Random(1),
)


@pytest.mark.parametrize(
    ("destination", "patience", "first"),
    [
        ("gmail.example", 1000, 60),
        ("mail.gmail.example", 5000, 300),
        ("example.org", 5000, 300),
        ("a.example.org", 2000, 300),
        ("a.deep.example.org", 5000, 7200),
        ("deep.example.org", 2000, 300),
        ("[192.0.2.1]", 5000, 300),
        ("org", 5000, 300),
    ],
)
def test_a_destination_goes_by_what_names_it_best(destination: str, patience: float, first: float) -> None:
    assert PLAN.give_up_after(destination) == patience
    due = PLAN.next_due(destination, LATER, now=0, failures=1, expires=1e9)
    assert first <= due <= first * 1.1


def test_a_reply_of_no_reply_asks_for_nothing() -> None:
    ours = Outcome.transient("try again in 900 seconds")
    assert 300 <= PLAN.next_due("x.example", ours, now=0, failures=1, expires=1e9) <= 330


def test_what_is_asked_for_is_not_heeded_beyond_the_end() -> None:
    asked = Outcome.of_reply(450, "try again in 50 minutes")
    assert 3000 <= PLAN.next_due("x.example", asked, now=0, failures=1, expires=1e9) <= 3300
    assert 300 <= PLAN.next_due("x.example", asked, now=0, failures=1, expires=3000) <= 330


@given(st.text(), st.integers(0, 10**7), st.integers(1, 40))
def test_whatever_a_peer_asks_the_wait_is_within_bounds(words: str, number: int, failures: int) -> None:
    said = Outcome.of_reply(451, f"try again in {number} seconds {words}")
    assert 60 <= PLAN.next_due("x.example", said, now=0, failures=failures, expires=1e9) <= 3600
