"""Acting: what is pointed at is what is acted upon, after a question where one is called for, and told exactly."""

import asyncio

import pytest
from msgspec.structs import replace

from console.screens.answers import ExplainScreen
from console.screens.dialogs import Dialog, Press
from console.widgets.note import Note
from engine.control import views
from engine.model.message import Selection
from engine.model.verbs import Check, Drop, Hold, MailAsk, MarkBad, MarkGood, Postpone, Resume, Retry, Suspend, Undo
from tests.screens import canned
from tests.screens.canned import NOW, CannedClient
from tests.screens.conftest import Console_, Hand


def _dialog(hand: Hand) -> Dialog:
    assert isinstance(hand.app.screen, Dialog)
    return hand.app.screen


async def test_check_asks_the_engine_at_once_and_says_what_came_of_it(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("c")
        assert hand.client.did(Check)
        assert "checked: 3 connections opened" in hand.status


async def test_a_single_message_is_retried_without_a_question(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down", "r")
        [action] = hand.client.did(MailAsk)
        assert (type(action), action.filter) == (Retry, "id=48202.1")
        assert not hand.client.previewed(MailAsk)


async def test_a_destination_is_retried_only_after_a_question(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("r")
        [action] = hand.client.previewed(MailAsk)
        assert (type(action), action.filter) == (Retry, "domain=gmail.example")
        assert not hand.client.did(MailAsk)


async def test_cancel_has_the_focus_so_that_enter_does_nothing(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "B")
        focused = _dialog(hand).focused
        assert isinstance(focused, Press)
        assert focused.id == "cancel"
        await hand.press("enter")
        assert not hand.client.did(MailAsk)
        assert "left as it was" in hand.status


async def test_an_example_with_long_names_stands_on_one_line(at_the_console: Console_) -> None:
    long = replace(canned.ENTRIES[0], recipient=f"{'r' * 40}@example.org", sender=f"{'s' * 40}@example.net")
    client = CannedClient()
    client.selection = replace(client.selection, examples=(long,))
    async with at_the_console(client=client) as hand:
        await hand.press("B")
        text = _dialog(hand).query_one(Note)
        lines = [text.render_line(y).text.strip() for y in range(text.size.height)]
        [example] = [line for line in lines if "rrr" in line]
        assert "from sss" in example
        assert not any(line.startswith("sss") for line in lines)


async def test_what_was_confirmed_is_what_is_done_up_to_the_newest_message_of_the_preview(
    at_the_console: Console_,
) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "D", "right", "enter")
        [action] = hand.client.did(MailAsk)
        assert (type(action), action.filter, action.newest) == (Drop, "id=48201.1", 48_311)


async def test_the_reason_typed_goes_with_the_action(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "h")
        await hand.type("loops")
        await hand.press("enter")
        [action] = hand.client.did(Hold)
        assert action.note == "loops"


async def test_for_how_long_mail_is_postponed_is_asked_with_what_it_touches(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("t")
        [preview] = hand.client.previewed(Postpone)
        assert preview.filter == "domain=gmail.example"
        assert _dialog(hand)._title.startswith("Postpone ")
        await hand.press("escape")
        assert not hand.client.did(Postpone)
        await hand.press("t")
        await hand.type("2h")
        await hand.press("enter")
        [action] = hand.client.did(Postpone)
        assert (action.filter, action.seconds, action.newest) == ("domain=gmail.example", 7200, 48_311)


@pytest.mark.parametrize(
    ("key", "focused"),
    [("t", "field-seconds"), ("h", "field-note"), ("s", "field-seconds"), ("v", "field-to"),
     ("B", "cancel"), ("D", "cancel"), ("r", "cancel"), ("l", "cancel")],
)  # fmt: skip
async def test_what_is_to_be_filled_in_has_the_focus_but_for_what_gives_mail_up(
    key: str, focused: str, at_the_console: Console_
) -> None:
    async with at_the_console() as hand:
        await hand.press(key)
        found = _dialog(hand).focused
        assert found is not None
        assert found.id == focused


async def test_where_another_time_moves_the_end_of_mail_that_is_said_before_it_is_done(
    at_the_console: Console_,
) -> None:
    client = CannedClient()
    async with at_the_console(client) as hand:
        await hand.press("t")
        assert "given up" not in _dialog(hand).query_one(Note).text
        client.selection = replace(client.selection, outlasting=3)
        await hand.type("6d")
        await hand.press("enter")
        assert not client.did(Postpone)
        assert [one.seconds for one in client.previewed(Postpone)] == [3600, 6 * 86_400]
        said = " ".join(_dialog(hand).query_one(Note).text.split())
        assert "3 recipients would be given up within 6d: they are given up after that, unless they can" in said
        await hand.press("enter")
        [action] = client.did(Postpone)
        assert (action.seconds, action.newest) == (6 * 86_400, 48_311)


async def test_a_question_of_one_message_does_not_speak_of_many(at_the_console: Console_) -> None:
    client = CannedClient()
    client.selection = Selection(messages=1, recipients=1, newest=9, outlasting=1, examples=canned.ENTRIES[:1])
    async with at_the_console(client) as hand:
        await hand.press("2", "t")
        text = " ".join(_dialog(hand).query_one(Note).text.split())
        assert "This mail is not tried meanwhile, and then goes by itself." in text
        assert "1 recipient would be given up within 1h: it is given up after that, unless it can be sent." in text


async def test_a_single_message_is_asked_for_its_time_and_behind_a_filter_it_can_be_typed(
    at_the_console: Console_,
) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "t", "enter")
        await hand.burst(*":postpone domain=example.org 2h", "enter")
        await hand.press("enter")
        assert [(one.filter, one.seconds) for one in hand.client.did(Postpone)] == [
            ("id=48201.1", 3600),
            ("domain=example.org", 7200),
        ]


async def test_over_the_limit_the_number_must_be_typed(at_the_console: Console_) -> None:
    client = CannedClient()
    client.selection = Selection(messages=2_204, recipients=2_310, newest=9, examples=canned.ENTRIES[:3])
    async with at_the_console(client) as hand:
        await hand.press("down", "D", "right", "enter")
        assert not client.did(MailAsk), "not without the number"
        await hand.type("2203")
        await hand.press("enter", "enter")
        assert not client.did(MailAsk), "not with another number"
        for _ in range(4):
            await hand.press("backspace")
        await hand.type("2,204")
        await hand.press("enter", "enter")
        [action] = client.did(MailAsk)
        assert (type(action), action.filter, action.newest) == (Drop, "domain=dead.example", 9)


async def test_what_is_typed_at_once_with_the_colon_is_the_command_and_no_keys(at_the_console: Console_) -> None:
    """A line that was held up gives all keys in one go; each of these letters is a key of its own as well."""
    async with at_the_console() as hand:
        await hand.press("4")
        await hand.burst(*":good mx9.example.org", "enter", "right", "enter")
        assert hand.client.did(MarkGood) == [MarkGood(host="mx9.example.org")]
        assert hand.app.frozen_at is None
        await hand.press("2")
        await hand.burst(*"/to~bob", "enter")
        assert hand.client.asks("queue")[-1][1] == "to~bob"
        await hand.press("p")
        assert hand.app.frozen_at is not None, "what is pressed after it is a key again"


async def _answers(hand: Hand, turns: int) -> None:
    """Three answers, each so many turns of the loop after the one before."""
    for _ in range(3):
        hand.app.open_answer(ExplainScreen(canned.EXPLAINED))
        for _ in range(turns):
            await asyncio.sleep(0)
    await hand.rest()


async def test_an_answer_that_comes_while_another_is_being_drawn_takes_its_place(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        for turns in range(12):
            await _answers(hand, turns)
            assert isinstance(hand.app.screen, ExplainScreen)
            await hand.press("escape")
            assert not isinstance(hand.app.screen, ExplainScreen), f"one answer at a time, {turns} turns apart"


@pytest.mark.parametrize("turns", [0, 5, 11])
async def test_answers_asked_for_and_closed_in_one_burst_end_nothing(at_the_console: Console_, turns: int) -> None:
    async with at_the_console() as hand:
        await _answers(hand, turns)
        await hand.burst("e", "e", "e", "down", "e", "escape", "e", "e", "enter", "e", "escape", "escape")
        assert hand.app.is_running
        assert hand.app.return_code is None


async def test_marks_are_acted_on_before_the_row_pointed_at(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "space", "down", "space", "B")
        [action] = hand.client.previewed(MailAsk)
        assert action.filter == "id=48201.1,48203.1"


async def test_all_that_match_are_named_by_the_filter_and_not_by_the_rows_one_sees(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "slash")
        await hand.type("state=held")
        await hand.press("enter", "a", "B")
        [action] = hand.client.previewed(MailAsk)
        assert action.filter == "state=held"


async def test_nothing_is_asked_when_nothing_matches(at_the_console: Console_) -> None:
    client = CannedClient()
    client.selection = Selection(messages=0, recipients=0, newest=0)
    async with at_the_console(client) as hand:
        await hand.press("2", "B")
        assert "nothing matches id=48201.1" in hand.status
        assert not client.did(MailAsk)


async def test_a_bounce_can_be_undone_while_there_is_time(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "B", "right", "enter")
        assert "12 messages (14 recipients) will be bounced in 10 s, u undoes" in hand.status
        await hand.after(4)
        assert "in 6 s, u undoes" in hand.status
        await hand.press("u")
        assert hand.client.did(Undo) == [Undo(operation=77)]
        assert "12 messages wait again" in hand.status


async def test_after_its_time_nothing_can_be_undone(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "B", "right", "enter")
        await hand.after(11)
        await hand.press("u")
        assert not hand.client.did(Undo)
        assert "nothing that could be taken back" in hand.status


async def test_a_refusal_is_told_calmly_with_what_is_allowed(at_the_console: Console_) -> None:
    client = CannedClient()
    async with at_the_console(client) as hand:
        client.refusal = views.Refusal(what="not now", where="check", allowed="once a second")
        await hand.press("c")
        assert "check: not now (allowed: once a second)" in hand.status
        client.refusal = None
        await hand.press("c")
        assert "3 connections" in hand.status


async def test_suspend_asks_how_long_and_why(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("s")
        await hand.type("90s")
        await hand.press("enter")
        await hand.type("loops")
        await hand.press("enter")
        [ask] = hand.client.did(Suspend)
        assert ask == Suspend(destination="gmail.example", seconds=90, note="loops")


async def test_what_is_no_duration_is_refused_in_the_question(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("s")
        await hand.type("soon")
        await hand.press("enter", "enter")
        assert "write it like 10m, 1h30m or 2d" in _dialog(hand).query_one("#wrong").said  # type: ignore[attr-defined]
        assert not hand.client.did(Suspend)


async def test_mark_bad_offers_the_exchanges_of_a_destination_best_first(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("b", "down", "enter")
        await hand.type("10m")
        await hand.press("enter")
        await hand.type("slow")
        await hand.press("enter")
        [ask] = hand.client.did(MarkBad)
        assert ask == MarkBad(host="mx2.gmail.example", seconds=600, note="slow")


async def test_mark_good_says_what_it_let_go(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("4", "g", "right", "enter")
        assert hand.client.did(MarkGood) == [MarkGood(host="mx1.dead.example")]
        assert "2,204 messages are due now" in hand.status


async def test_resume_ends_the_suspension_of_the_destination_pointed_at(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("down", "down", "down", "S", "right", "enter")
        assert hand.client.did(Resume) == [Resume(destination="lists.example.net")]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("check", ("ask", Check())),
        ("suspend example.org 1h maintenance",
         ("ask", Suspend(destination="example.org", seconds=3_600, note="maintenance"))),
        ("suspend all 10m racks", ("ask", Suspend(destination="*", seconds=600, note="racks"))),
        ("resume all", ("would", Resume(destination="*"))),
        ("bad mx1.example.org 30m maintenance at night",
         ("ask", MarkBad(host="mx1.example.org", seconds=1_800, note="maintenance at night"))),
        ("good mx1.example.org", ("would", MarkGood(host="mx1.example.org"))),
        ("mark-good mx1.example.org", ("would", MarkGood(host="mx1.example.org"))),
        ("retry domain=example.org state=held", ("would", Retry(filter="domain=example.org state=held"))),
        ("open 48213.2", ("message", 48_213)),
    ],
)  # fmt: skip
async def test_what_a_key_does_can_be_typed(line: str, asked: tuple[object, ...], at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("colon")
        await hand.type(line)
        await hand.press("enter")
        assert asked in hand.client.asked


async def test_a_command_that_is_none_can_be_mended(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("colon")
        await hand.type("flush")
        await hand.press("enter")
        front = hand.app.front
        assert front is not None
        assert front.has_class("asking")
        assert "no such command" in front.query_one("#hint").said  # type: ignore[attr-defined]
        await hand.press("escape")
        assert not front.has_class("asking")


async def test_quit_leaves_at_once_where_the_engine_is_elsewhere(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.pilot.press("q")
        await hand.pilot.pause()
        assert not hand.app.is_running


async def test_quit_asks_where_it_would_stop_the_relay(at_the_console: Console_) -> None:
    async with at_the_console(engine_inside=True) as hand:
        await hand.press("q")
        assert hand.app.is_running
        await hand.press("enter")
        assert hand.app.is_running, "Cancel has the focus"
        await hand.press("ctrl+q")
        await hand.pilot.press("right", "enter")
        await hand.pilot.pause()
        assert not hand.app.is_running


async def test_ctrl_c_says_how_to_leave_and_does_not(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("ctrl+c")
        assert "q leaves the console" in hand.status
        assert hand.app.is_running


async def test_the_time_of_an_action_is_not_shown_for_ever(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("c")
        await hand.after(31)
        assert "checked" not in hand.status
        assert hand.app.moment.now == NOW + 31


@pytest.mark.parametrize(("is_demo", "said"), [(True, "nothing of a demo is kept"), (False, "stays in the spool")])
async def test_quitting_says_what_becomes_of_the_mail(is_demo: bool, said: str, at_the_console: Console_) -> None:
    async with at_the_console(engine_inside=True, is_demo=is_demo) as hand:
        await hand.press("q")
        text = hand.app.screen.query_one(Note).text
        assert said in " ".join(text.split())
        assert ("stays" in text) != is_demo
