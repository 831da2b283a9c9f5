"""What a row says of itself, in the console and on the command line."""

from datetime import UTC
from typing import Any

import pytest

from console import words
from console.commands.listings import host_row
from console.format import Moment
from console.widgets.panes import HostsPane
from console.widgets.rows import destination_status, entry_next, entry_state
from engine.model.destination import BadHost, Destination
from engine.model.message import Entry
from engine.model.outcome import Outcome
from tests.screens import canned
from tests.screens.canned import NOW, OVERVIEW

MOMENT = Moment(NOW, UTC)


def waiting(**more: Any) -> Entry:
    return canned.entry(7, **{"state": "waiting", "due": NOW - 5, **more})


def test_what_is_due_is_not_tried_before_its_destination_is_blocked_no_more() -> None:
    assert entry_next(waiting(), MOMENT)[0] == "due"
    assert entry_next(waiting(blocked_until=NOW + 90), MOMENT)[0] == "1:30"
    assert words.next_try(waiting(blocked_until=NOW + 90), MOMENT) != words.next_try(waiting(), MOMENT)


def test_what_is_to_be_dropped_says_when_in_the_column_for_what_comes_next() -> None:
    row = waiting(state="held", ordered="drop", order_at=NOW + 9)
    assert (entry_state(row, MOMENT)[0], entry_next(row, MOMENT)[0]) == ("✗ drop", "0:09")


def test_what_an_order_that_is_not_whole_has_reached_is_held() -> None:
    row = waiting(state="held", ordered="drop")
    assert (entry_state(row, MOMENT)[0], entry_next(row, MOMENT)[0]) == ("‖ held", "-")


def test_a_destination_of_which_all_is_held_says_so() -> None:
    row = Destination(name="x.example", waiting=0, due=0, held=12, relaying=0)
    assert destination_status(row, MOMENT)[0] == "‖ 12 held"


def test_mail_that_waits_for_two_bad_hosts_is_not_counted_twice() -> None:
    assert HostsPane().title(OVERVIEW) == "3 hosts"


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("connection refused", "4.4.1 connection refused"),
        ("maintenance", "maintenance: 4.4.1 connection refused"),
        ("", "4.4.1 connection refused"),
    ],
)
def test_why_a_host_is_bad_is_said_once(note: str, said: str) -> None:
    last = Outcome.transient("connection refused", enhanced="4.4.1")
    row = BadHost(host="mx", since=NOW, until=NOW + 60, by="engine", note=note, last=last)
    assert host_row(row, MOMENT, wide=False)[-1] == said
