"""How long a phase usually takes, and how long it may where others wait for the connection."""

from typing import get_args

import pytest

from engine.delivery.stall import patience, usual
from engine.settings.settings import Timeouts
from engine.smtpclient.initiation import Phase


@pytest.mark.parametrize("phase", get_args(Phase))
def test_patience_under_pressure_is_never_longer_than_what_is_granted_otherwise(phase: Phase) -> None:
    granted = Timeouts()
    if phase in ("idle", "ended", "lookup", "QUIT", "reply"):
        assert patience(phase, granted) == float("inf")  # not ended for others' sake
    elif phase == "body":
        assert usual(phase, granted) < patience(phase, granted) < granted.attempt
    else:
        assert patience(phase, granted) == usual(phase, granted) <= 20.0


def test_what_is_granted_less_is_waited_for_less() -> None:
    short = Timeouts(connect=1.0, greeting=2.0)
    phases: tuple[Phase, Phase] = ("connecting", "greeting")
    assert [patience(phase, short) for phase in phases] == [0.5, 1.0]
