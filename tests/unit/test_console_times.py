"""How times are said: to the second where one looks closely and soon, else in steps, and never more than it is."""

import pytest

from console.format import Moment, countdown, stepped
from tests.screens.canned import NOW


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "now"), (0, "now"), (0.2, "0:01"), (59, "0:59"), (61, "1:01"), (599, "9:59"), (600, "10m"), (659, "10m"),
     (761, "12m"), (3_600, "1h00m"), (8_050, "2h14m"), (86_400, "1d00h"), (183_600, "2d03h")],
)  # fmt: skip
def test_a_countdown_over_ten_minutes_ticks_in_minutes(seconds: float, said: str) -> None:
    assert countdown(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0s"), (9.9, "9s"), (10, "10s"), (49, "40s"), (60, "1m"), (299, "4m"), (8_050, "2h14m")],
)
def test_a_span_that_is_not_looked_at_closely_is_said_in_steps(seconds: float, said: str) -> None:
    assert stepped(seconds) == said


def test_what_is_over_is_over_also_where_nobody_looks_closely() -> None:
    moment = Moment(NOW)
    assert (moment.left(NOW), moment.coarse.left(NOW), moment.coarse.left(NOW - 5)) == ("now", "now", "now")
    assert (moment.left(NOW + 0.5), moment.coarse.left(NOW + 0.5)) == ("0:01", "<10s")
    assert (moment.left(NOW + 300), moment.coarse.left(NOW + 300)) == ("5:00", "5m")


def test_a_countdown_and_its_steps_never_contradict_each_other() -> None:
    """Whoever points at a row sees the seconds of the very minute that stood there."""
    moment = Moment(NOW)
    for tenth in range(10, 36_000, 7):
        exact, about = moment.left(NOW + tenth / 10), moment.coarse.left(NOW + tenth / 10)
        minutes, _, seconds = exact.partition(":")
        if not seconds:
            assert exact == about
        elif minutes != "0":
            assert about == f"{minutes}m"
        else:
            assert about == ("<10s" if int(seconds) < 10 else f"{seconds[0]}0s")
