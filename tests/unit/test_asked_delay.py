"""A peer that says how long to wait is understood, and one that says something else is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.delivery.asked_delay import asked_delay


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Greylisted, please try again in 300 seconds", 300),
        ("retry in 5 minutes", 300),
        ("Please RETRY AFTER 5 min.", 300),
        ("please wait 1 hour", 3600),
        ("wait at least 1 hour and 30 minutes", 5400),
        ("greylisted for 00:04:59", 299),
        ("Greylisting in action, please come back in 00:04:59", 299),
        ("try again (in 60 secs)", 60),
        ("try again in 5-10 minutes", 600),
        ("try again in an hour", 3600),
        ("retry time: 300s", 300),
        ("deferred for 1 day", 86_400),
        ("do not try again for 2h", 7200),
        ("delayed for 1h30m, sorry", None),  # no unit stands by itself here: better nothing than half of it
    ],
)
def test_a_delay_is_understood(text: str, seconds: float | None) -> None:
    assert asked_delay(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "try again later",
        "300 messages in 60 seconds, try again later",
        "try again after 10:30:00",
        "rate limit: 20 mails in 5 minutes exceeded",
        "wait for it",
        "again 300",
        "message 12 of 300 seconds",
        "you sent this in the last 60 seconds",
        "try again in a few minutes",
    ],
)
def test_what_is_no_delay_is_not_taken_for_one(text: str) -> None:
    assert asked_delay(text) is None


WORDS = [
    "again",
    "retry",
    "wait",
    "in",
    "for",
    "at",
    "least",
    "5",
    "300",
    "an",
    "hour",
    "s",
    "-",
    "to",
    "04:59:59",
    "(",
    ",",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)))
def test_any_words_are_read_and_bounded(text: str) -> None:
    asked = asked_delay(text)
    assert asked is None or 0 <= asked <= 86_400 * 365


@pytest.mark.parametrize("part", ["again ", "again in ", "wait 1 ", "again for 1 to ", "retry :=,( ", "1 hour and "])
def test_no_words_make_it_slow(part: str) -> None:
    begin = time.thread_time()
    asked_delay(part * 20_000)
    assert time.thread_time() - begin < 0.1
