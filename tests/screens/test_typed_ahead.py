"""Keys that come in one read, or before their screen has its rows: each is for what was there when it was pressed."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from textual.events import Key, Paste
from textual.keys import _character_to_key
from textual.widgets import Input

from console import keyboard
from console.screens.answers import ExplainScreen, ProbeScreen
from console.screens.dialogs import Choose, Dialog
from console.screens.queue import DestinationScreen, QueueScreen
from console.widgets.note import Note
from engine.control import views
from engine.model.message import Selection, Window
from engine.model.probe import Probed
from engine.model.verbs import Ask, Bounce, Check, DryAsk, MailAsk, MarkBad, MarkGood, Resume, Retry, Suspend
from tests.screens import canned
from tests.screens.canned import CannedClient
from tests.screens.conftest import Console_, Hand


class Slow(CannedClient):
    """An engine that answers what is in `waits` only once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: dict[str, asyncio.Event] = {}

    def hold(self, name: str) -> asyncio.Event:
        self.waits[name] = asyncio.Event()
        return self.waits[name]

    async def _answer(self, name: str) -> None:
        if name in self.waits:
            await self.waits[name].wait()

    async def would(self, ask: DryAsk) -> Selection:
        await self._answer("preview")
        return await super().would(ask)

    async def queue(self, filter: str = "", sort: str = "id", offset: int = 0, limit: int = 100) -> Window:
        await self._answer("queue")
        return await super().queue(filter, sort, offset, limit)

    async def probe(self, host: str, node: str = "") -> Probed:
        await self._answer("probe")
        return await super().probe(host, node)

    async def explain(self, subject: str, node: str = "") -> views.ExplainView:
        await self._answer("explain")
        return await super().explain(subject, node)


def send(hand: Hand, *keys: str) -> None:
    """Keys in one read, nothing waited for between or after."""
    for key in keys:
        name = _character_to_key(key) if len(key) == 1 else key
        hand.app.post_message(Key(name, key if len(key) == 1 else None))


def said(hand: Hand, where: str) -> str:
    front = hand.app.front
    assert front is not None
    text: str = front.query_one(where).said  # type: ignore[attr-defined]
    return text


def asked(hand: Hand) -> bool:
    """Whether the prompt is open."""
    front = hand.app.front
    return front is not None and front.has_class("asking")


def value(hand: Hand, field: str = "#typed") -> str:
    return hand.app.screen.query_one(field, Input).value


# -- a verb acts on what was pointed at when its key was pressed ------------------------------------------------------


async def test_a_verb_acts_on_the_row_its_key_was_pressed_on_though_the_cursor_moves_in_the_same_read(
    at_the_console: Console_,
) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down")
        await hand.burst("r", "down", "r", "down", "down")
        assert [action.filter for action in hand.client.did(MailAsk)] == ["id=48202.1", "id=48203.1"]


async def test_mark_good_is_for_the_host_its_key_was_pressed_on(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        hand.client.selection = Selection(messages=1, recipients=1, newest=1)
        await hand.press("4")
        await hand.burst("g", "down")
        assert hand.client.did(MarkGood) == [MarkGood(host="mx1.dead.example")]


async def test_a_verb_before_enter_is_not_for_the_screen_that_enter_opens(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("r", "right", "enter")
        [action] = hand.client.did(MailAsk)
        assert (type(action), action.filter) == (Retry, "domain=gmail.example")
        assert not isinstance(hand.app.front, DestinationScreen), "right and enter were for the question"


async def test_a_typed_command_acts_on_what_was_pointed_at_when_it_was_entered(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2")
        await hand.burst(*":retry", "enter", "down", "down")
        assert [action.filter for action in hand.client.did(MailAsk)] == ["id=48201.1"]


# -- fields -----------------------------------------------------------------------------------------------------------


async def test_after_enter_a_field_takes_nothing_more(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst(*":explain 20", "enter", "1")
        assert hand.client.asks("explain") == [("explain", "20")]
        await hand.press("2")
        await hand.burst(*"/domain=ghost-town.example", "enter", "1")
        assert hand.client.asks("queue")[-1][1] == "domain=ghost-town.example"


async def test_keys_that_edit_keep_their_order_with_what_is_typed(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst(*":retry id=21", "backspace", "0")
        assert value(hand) == "retry id=20"
        await hand.burst("ctrl+u", *"ghost", "left", "left", "X", "home", "Y", "end", "Z")
        assert value(hand) == "YghoXstZ"


async def test_a_question_typed_in_one_go_is_answered_as_typed(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("s", *["backspace"] * 4, *"90m", "enter", *"their list loops", "enter", "down")
        ask = Suspend(destination="gmail.example", seconds=5_400, note="their list loops")
        assert hand.client.did(Suspend) == [ask]


async def test_the_palette_takes_what_is_typed_with_the_key_that_opens_it(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("ctrl+p", *"events", "enter")
        assert hand.app.front is not None
        assert hand.app.front.tab == "6"
        assert not hand.client.did(MailAsk)
        assert not hand.client.asks("explain")


async def test_a_verb_of_the_palette_is_not_for_the_row_that_a_key_behind_it_moves_to(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "ctrl+p")
        await hand.type("explain")
        await hand.burst("enter", "down")
        assert hand.client.asks("explain") == [("explain", "48201.1")]


async def test_a_verb_of_the_palette_acts_on_what_was_pointed_at_when_it_was_opened(at_the_console: Console_) -> None:
    """Behind it the first row makes room for another: it was never moved to."""
    async with at_the_console() as hand:
        await hand.press("ctrl+p")
        await hand.type("retry")
        hand.client.seen = replace(canned.OVERVIEW, destinations=canned.DESTINATIONS[1:])
        await hand.rest()
        await hand.press("enter")
        assert [ask.filter for ask in hand.client.previewed(Retry)] == ["domain=gmail.example"]


async def test_keys_behind_an_answer_are_for_the_question_that_follows_it(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("b")
        assert isinstance(hand.app.screen, Choose)
        await hand.press("down", "up")
        await hand.burst("enter", *["backspace"] * 4, *"30m", "enter", *"slow", "enter", "down")
        [ask] = hand.client.did(MarkBad)
        assert (ask.host, ask.seconds, ask.note) == ("mx1.gmail.example", 1_800, "slow")


async def test_the_arrows_lead_through_the_palette_and_out_of_a_field(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("ctrl+p", *"bad", "down", "enter")
        assert isinstance(hand.app.screen, Choose), "the second that fits: Mark bad"
        await hand.press("escape")
        await hand.burst("ctrl+p", *"bad", "down", "up", "enter")
        assert hand.app.front is not None
        assert hand.app.front.tab == "4", "the first: Bad MX"
        await hand.press("1", "s", "down")
        await hand.type("storm")
        await hand.press("down", "down", "enter")
        [ask] = hand.client.did(Suspend)
        assert ask.note == "storm"


async def test_what_is_pasted_keeps_its_place_among_the_keys_and_enters_nothing_by_itself(
    at_the_console: Console_,
) -> None:
    async with at_the_console() as hand:
        send(hand, ":")
        hand.app.post_message(Paste("explain bob\x1b@example.org\nretry state=held\n"))
        send(hand, "X", "backspace")
        await hand.rest()
        assert value(hand) == "explain bob@example.org"
        assert asked(hand), "the end of a pasted line is no Enter"
        await hand.press("escape")
        hand.app.post_message(Paste("D\nrr"))
        await hand.rest()
        assert not hand.client.previewed(MailAsk), "what is pasted into a list is no key"


# -- the filter closes at once ----------------------------------------------------------------------------------------


async def test_a_filter_closes_at_once_and_what_is_pressed_meanwhile_is_for_its_rows(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        await hand.press("2")
        answer = client.hold("queue")
        send(hand, *"/to~bob", "enter", "down", "r")
        await hand.pilot.pause()
        assert not asked(hand)
        assert not client.did(MailAsk), "the rows are not there yet"
        client.waits.clear()
        answer.set()
        await hand.rest()
        await hand.rest()
        assert [action.filter for action in client.did(MailAsk)] == ["id=48202.1"]


# -- tab completes ----------------------------------------------------------------------------------------------------


async def test_tab_completes_and_never_leaves_the_line(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst(*":susp", "tab", *"gmail", "tab", *"1h storm")
        assert asked(hand)
        assert hand.app.front is not None
        assert hand.app.front.tab == "1", "it is still the same screen"
        assert value(hand) == "suspend gmail.example 1h storm"
        await hand.burst("ctrl+u", *"bad mx1.d", "tab")
        assert value(hand).split() == ["bad", "mx1.dead.example"]
        await hand.burst("ctrl+u", "shift+tab", "tab", "escape")
        assert not asked(hand)
        await hand.press("2", "slash")
        await hand.burst(*"dom", "tab", *"dead", "tab", *"st", "tab", *"hel", "tab")
        assert value(hand).split() == ["domain=dead.example", "state=held"]


async def test_where_several_fit_tab_completes_what_they_share_and_the_hint_names_them(
    at_the_console: Console_,
) -> None:
    async with at_the_console() as hand:
        await hand.burst(*":suspend ", *"s", "tab")
        assert value(hand) == "suspend slow.example "
        await hand.burst("ctrl+u", *"re", "tab")
        assert value(hand) == "re"
        assert "retry" in said(hand, "#hint")
        assert "release" in said(hand, "#hint")


# -- answers that come late -------------------------------------------------------------------------------------------


async def test_a_late_answer_does_not_cover_a_line_that_is_typed(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        answer = client.hold("probe")
        await hand.press("4", "i", "2")
        await hand.burst(*"/from=b")
        answer.set()
        await hand.burst(*"illing@example.org")
        assert isinstance(hand.app.screen, QueueScreen)
        assert value(hand) == "from=billing@example.org"
        assert not client.did(MarkGood)
        await hand.press("escape")
        assert "Probe of mx1.dead.example is done: o shows it" in hand.status
        await hand.press("o")
        assert isinstance(hand.app.front, ProbeScreen)


async def test_a_late_answer_does_not_come_up_where_it_was_not_asked_for(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        answer = client.hold("explain")
        await hand.press("e", "3")
        answer.set()
        await hand.rest()
        assert hand.app.front is not None
        assert hand.app.front.tab == "3"
        assert "Explain of gmail.example is done: o shows it" in hand.status
        await hand.press("o")
        assert isinstance(hand.app.front, ExplainScreen)


async def test_a_late_answer_does_not_cover_a_question(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        answer = client.hold("explain")
        await hand.press("e", "s")
        answer.set()
        await hand.rest()
        assert isinstance(hand.app.screen, Dialog)
        await hand.press("escape")
        assert not isinstance(hand.app.front, ExplainScreen)


async def test_o_without_an_answer_says_so(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("o")
        assert "no answer" in hand.status


# -- what is opening --------------------------------------------------------------------------------------------------


async def test_keys_wait_for_the_first_rows_of_the_screen_they_open(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("2", "down", "down", "r")
        assert [action.filter for action in hand.client.did(MailAsk)] == ["id=48203.1"]
        await hand.press("1")
        await hand.burst("enter", "down", "down", "enter")
        assert hand.app.front is not None
        assert hand.app.front.crumbs()[-1] == "message 48203", "the downs were for the rows that were to come"


async def test_keys_wait_for_rows_that_the_engine_is_slow_to_give(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        answer = client.hold("queue")
        send(hand, "enter", "B")
        await hand.pilot.pause()
        assert not client.previewed(MailAsk)
        client.waits.clear()
        answer.set()
        await hand.rest()
        await hand.rest()
        [action] = client.previewed(MailAsk)
        assert (type(action), action.filter) == (Bounce, "id=48201.1")


@pytest.mark.parametrize("line", ["events returned", "hosts dead", "queue state=held", "reasons quota"])
async def test_a_screen_is_gone_to_and_filtered_at_once(at_the_console: Console_, line: str) -> None:
    async with at_the_console() as hand:
        hand.app.action_run(line.partition(" ")[0], line.partition(" ")[2])
        await hand.rest()
        assert hand.app.front is not None
        assert hand.app.front.filter == line.partition(" ")[2]
        assert "stumbled" not in hand.status


async def test_a_page_knows_its_subject_before_anything_is_loaded(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.burst("enter", "s")
        assert isinstance(hand.app.screen, Dialog)
        await hand.press("escape", "escape")
        await hand.press("colon")
        await hand.burst(*"open 48213.2", "enter", "B")
        assert hand.client.previewed(MailAsk)[-1].filter == "id=48213"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyboard, "HOLD", 0.05)


async def test_keys_are_held_no_longer_than_is_said_and_then_not_taken_for_something_else(
    at_the_console: Console_, impatient: None
) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        await hand.press("2")
        answer = client.hold("preview")
        send(hand, "B", "right", "enter")
        async with asyncio.timeout(30):
            while "not taken" not in hand.status:
                await hand.pilot.pause()
        assert isinstance(hand.app.front, QueueScreen)
        answer.set()
        await hand.rest()
        assert not isinstance(hand.app.screen, Dialog), "a question that comes too late is not put"
        assert not client.did(MailAsk)
        assert "came too late" in hand.status
        await hand.press("down", "r")
        assert [action.filter for action in client.did(MailAsk)] == ["id=48202.1"]


async def test_one_may_leave_a_screen_whose_rows_do_not_come(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        client.hold("queue")
        send(hand, "2", "c", "colon", *"hel", "escape", "4")
        async with asyncio.timeout(30):
            while hand.app.front is None or hand.app.front.tab != "4":
                await hand.pilot.pause()
        assert client.did(Check)


async def test_a_fault_in_what_is_ready_does_not_make_the_keyboard_deaf(
    at_the_console: Console_, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_the_console() as hand:

        def fall(stroke: object) -> bool:
            raise ZeroDivisionError

        monkeypatch.setattr(hand.app, "is_ready", fall)
        send(hand, "2")
        async with asyncio.timeout(30):
            while "not taken" not in hand.status:
                await hand.pilot.pause()
        monkeypatch.undo()
        await hand.press("4")
        assert hand.app.front is not None
        assert hand.app.front.tab == "4"


# -- never something larger than was chosen ---------------------------------------------------------------------------


async def test_s_does_not_resume_the_relay_where_a_destination_is_pointed_at(at_the_console: Console_) -> None:
    client = CannedClient()
    client.seen = canned.SUSPENDED
    async with at_the_console(client) as hand:
        client.refusal = views.Refusal(what="gmail.example is not suspended", not_found=True)
        await hand.press("S")
        assert not client.did(Resume)
        assert "gmail.example is not suspended" in hand.status
        assert ":resume all" in hand.status


async def test_the_whole_relay_is_resumed_after_a_question_that_says_how_much_it_lets_go(
    at_the_console: Console_,
) -> None:
    client = CannedClient()
    client.seen = canned.SUSPENDED
    async with at_the_console(client) as hand:
        await hand.burst(*":resume all", "enter")
        assert isinstance(hand.app.screen, Dialog)
        assert not client.did(Resume)
        await hand.press("right", "enter")
        assert client.did(Resume) == [Resume(destination="*")]


async def test_d_offers_nothing_where_the_message_pointed_at_has_left(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("enter", "down", "down")
        hand.client.entries = canned.ENTRIES[:2] + canned.ENTRIES[3:]
        await hand.rest()
        await hand.press("D")
        assert not hand.client.previewed(MailAsk)
        assert "point at a message first" in hand.status
        await hand.press("s")
        assert isinstance(hand.app.screen, Dialog), "the destination is what the page is about"


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        (("4", "g"), "Mark mx1.dead.example good?"),
        (("down", "down", "down", "S"), "Resume lists.example.net?"),
        (("X",), "End the override of gmail.example?"),
        ((*":release-rule", "space", "3", "enter"), "Release rule 3?"),
    ],
)
async def test_what_lets_go_many_messages_says_how_many_first(
    at_the_console: Console_, keys: tuple[str, ...], title: str
) -> None:
    async with at_the_console() as hand:
        await hand.press(*keys)
        assert isinstance(hand.app.screen, Dialog)
        assert title in hand.app.screen.query_one("#title").said  # type: ignore[attr-defined]
        assert "12 messages, 14 recipients" in hand.app.screen.query_one(Note).text
        assert not hand.client.did(Ask)
        await hand.press("enter")
        assert not hand.client.did(Ask), "Cancel has the focus"


async def test_what_lets_go_one_message_asks_nothing(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        hand.client.selection = Selection(messages=1, recipients=1, newest=1)
        await hand.press("4", "g")
        assert hand.client.did(MarkGood) == [MarkGood(host="mx1.dead.example")]


# -- rows of another filter -------------------------------------------------------------------------------------------


async def test_rows_that_were_asked_for_with_another_filter_are_not_shown(at_the_console: Console_) -> None:
    client = Slow()
    async with at_the_console(client) as hand:
        await hand.press("2")
        old = client.hold("queue")
        polled = asyncio.create_task(hand.app.poll())
        await asyncio.sleep(0)
        await hand.pilot.pause()
        del client.waits["queue"]
        client.entries = canned.ENTRIES[5:]
        send(hand, *"/state=held", "enter")
        async with asyncio.timeout(20):
            while not any(call[:2] == ("queue", "state=held") for call in client.asked):
                await hand.pilot.pause()
        client.entries = canned.ENTRIES
        old.set()
        await polled
        front: Any = hand.app.front
        assert front.table().rows[0].id == canned.ENTRIES[5].id
