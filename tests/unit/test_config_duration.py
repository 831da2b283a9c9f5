"""Durations are read as people write them, and written as they are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.duration import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h", 3600), ("5d", 432_000), ("1h30m", 5400), ("1h 30m", 5400), ("0.5s", 0.5),
     ("250ms", 0.25), (" 2m ", 120), ("1d2h3m4s", 93_784)],
)  # fmt: skip
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 minutes", "-5m", "5m1h", "5m5m", "1e3s", "٣s", "5mm", "99999d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|order|ten years"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (-3, "0s"), (0.25, "250ms"), (1.5, "1s500ms"), (42, "42s"), (60, "1m"), (90, "1m30s"), (3600, "1h"),
     (5400, "1h30m"), (3601, "1h"), (432_000, "5d"), (93_784, "1d2h")],
)  # fmt: skip
def test_a_duration_is_written_in_two_units_at_most(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=300_000_000))
def test_what_is_written_is_read_again_to_within_the_smaller_unit(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.001)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= 3_650 * 86_400
