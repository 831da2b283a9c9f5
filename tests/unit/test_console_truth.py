"""Rows, pages and commands say of mail what the engine says it is."""

from datetime import UTC
from typing import Any

import pytest
from msgspec.structs import replace

from console import words
from console.actions import Registry
from console.commands import listings
from console.commands.answers import explain_lines
from console.format import Moment
from console.screens.answers import ExplainScreen
from console.screens.details import MessageScreen
from console.screens.queue import about
from console.widgets.document import Para
from console.widgets.health import _parts, arrange
from console.widgets.rows import destination_status, entry_next, entry_says
from engine.control import views
from engine.model.destination import Destination, Override
from engine.model.event import Event, Kind
from engine.model.explanation import Cause, Explanation
from engine.model.message import Message
from tests.screens import canned
from tests.screens.canned import FULL, HEALTH, NOW, OK, PAUSE

MOMENT = Moment(NOW, UTC)


def said(paras: list[Para]) -> str:
    """What stands in a text, a line each."""
    return "\n".join("".join(text for text, _ in one.pieces) for one in paras)


def destination(condition: str, **more: Any) -> Destination:
    fields: dict[str, Any] = {"waiting": 17, "due": 0, "held": 0, "relaying": 0, "last": OK, "condition": condition}
    return Destination(name="x.example", **fields | more)


DEFERRED = destination("not due", next_try=NOW + 270, condition_why=FULL.line)


def test_there_is_no_green_reply_beside_mail_that_was_deferred() -> None:
    text, style = destination_status(DEFERRED, MOMENT)
    assert (text, style) == (f"◷ deferred 4:30 {FULL.line}", "warn")
    assert listings.destination_state(DEFERRED, MOMENT) == f"deferred, next try in 4:30: {FULL.line}"
    assert f"◷ deferred, next try in 4:30: {FULL.line}" in said(about(DEFERRED, MOMENT))


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        (destination("blocked", next_try=NOW + 90, condition_why="421 busy"), "✗ blocked 1:30 421 busy"),
        (destination("hosts bad", next_try=NOW + 90, condition_why="its only host"), "▼ hosts bad 1:30 its only host"),
        (destination("suspended", suspended=PAUSE), "‖ suspended 41m their list server loops"),
        (
            destination("suspended", condition_why="the whole relay is suspended by ann: racks"),
            "‖ the whole relay is suspended by ann: racks",
        ),
        (
            destination("limited", condition_why="limit[x].connections: 1 of 1"),
            "◷ limited limit[x].connections: 1 of 1",
        ),
        (destination("ready", next_try=NOW), "◷ ready"),
        (destination("idle", waiting=0), OK.line),
        (destination("of tomorrow"), OK.line),
    ],
)
def test_a_destination_says_what_its_mail_is(row: Destination, shown: str) -> None:
    assert destination_status(row, MOMENT)[0] == shown


def test_an_override_stands_in_the_row_on_the_page_and_in_the_command() -> None:
    override = Override(
        destination=DEFERRED.name, host="10.0.0.5", port=25, since=NOW, until=NOW + 60, by="oncall", note=""
    )
    row = replace(DEFERRED, override=override)
    assert destination_status(row, MOMENT)[0].startswith("✎ to 10.0.0.5:25; ◷ deferred")
    assert listings.destination_state(row, MOMENT).startswith("to 10.0.0.5:25; deferred")
    assert "✎ to 10.0.0.5:25 instead of its own exchanges" in said(about(row, MOMENT))


def test_no_time_is_named_where_none_leads_to_a_try() -> None:
    limited = canned.entry(7, due=NOW - 5, condition="limited", next_try=None, condition_why="all 20 are in use")
    suspended = canned.entry(7, due=NOW - 5, condition="suspended", next_try=NOW + 3600)
    draining = canned.entry(7, due=NOW - 5, condition="draining", next_try=None)
    assert [entry_next(one, MOMENT)[0] for one in (limited, suspended, draining)] == ["due", "1h00m", "-"]
    assert [words.next_step(one, MOMENT) for one in (limited, suspended, draining)] == [
        "", "next try 11:02:11 (in 1h00m)", "",
    ]  # fmt: skip


def test_what_was_never_tried_says_why_where_its_last_reply_would_stand() -> None:
    row = canned.entry(8, due=NOW - 5, last=None, condition="blocked", next_try=NOW + 60, condition_why="421 busy")
    assert entry_says(row, MOMENT)[0] == words.says(row) == "not tried, blocked: 421 busy"
    assert entry_says(replace(row, condition="ready"), MOMENT)[0] == "not tried yet"


def test_due_and_ready_are_two_numbers() -> None:
    line = "".join(text for text, _ in arrange(_parts(HEALTH, MOMENT, False), 200))
    assert "12,480 waiting · 310 due · 24 held   296 ready" in line


def finished(*kinds: Kind) -> MessageScreen:
    screen = MessageScreen(7, [])
    events = tuple(Event(seq=one, at=NOW, kind=kind, by="engine") for one, kind in enumerate(kinds))
    screen._view = Message(number=7, finished=True, events=events)
    return screen


def test_mail_that_was_returned_is_no_green_tick_and_can_not_be_retried() -> None:
    screen = finished("accepted", "deferred", "returned")
    first = screen.paras(MOMENT)[0]
    assert first.pieces[0] == ("  ↩ returned to its sender", "bad")
    assert "✓" not in said(screen.paras(MOMENT)).splitlines()[0]
    offered = {action.name for action in Registry().footer(screen.context)}
    assert offered & {"back", "help"}
    assert not offered & {"retry", "hold", "release", "bounce", "drop", "undo", "explain"}
    assert next(iter(listings.message_lines(screen._view or canned.FINISHED, MOMENT))) == (
        "message 7, which has left the queue: returned to its sender"
    )


def test_a_message_of_several_recipients_says_what_became_of_each() -> None:
    pieces = finished("delivered", "dropped", "delivered").paras(MOMENT)[0].pieces
    assert pieces[:2] == (("  ✗ 1 dropped", "bad"), (", ✓ 2 delivered", "good"))
    assert finished("accepted").paras(MOMENT)[0].pieces[0] == ("  has left the queue", "")


def test_what_is_still_to_come_does_not_read_like_the_past() -> None:
    screen = MessageScreen(7, [])
    screen._view = canned.MESSAGE
    assert "will be given up 2027-01-20" in said(screen.paras(MOMENT))
    over = [replace(one, state="held") for one in canned.MESSAGE.entries]
    screen._view = replace(canned.MESSAGE, expires=NOW - 60, entries=tuple(over))
    assert "its time was over" in said(screen.paras(MOMENT))
    assert "what may go when it is released is tried once more" in said(screen.paras(MOMENT))


def explained(cause: Cause, text: str, when: float | None) -> views.ExplainView:
    one = Explanation(subject="x", destination="x.example", cause=cause, text=text, earliest=when)
    return views.ExplainView(subject="x", now=NOW, explanations=(one,))


def test_a_null_mx_is_never_sent_to_and_looks_so() -> None:
    view = explained("refused by DNS", "the domain x takes no mail (null MX)", None)
    assert words.earliest(view.explanations[0], MOMENT) == "never: it will be returned"
    paras = ExplainScreen(view).paras(MOMENT)
    assert ("✗ refused by DNS", "bad") in [piece for one in paras for piece in one.pieces]
    assert "never: it will be returned" in said(paras)


def test_a_tick_does_not_stand_beside_the_word_nothing() -> None:
    view = explained("nothing", "it is on its way at the next check: nothing holds it back", NOW)
    assert "✓ it is on its way at the next check" in said(ExplainScreen(view).paras(MOMENT))
    assert "✓ nothing" not in said(ExplainScreen(view).paras(MOMENT))
    assert next(iter(explain_lines(view, MOMENT))) == "x: nothing holds it back"
