"""The row pointed at stands in full below its list, whatever its list had to cut."""

from typing import Any

import pytest
from msgspec.structs import replace

from console.format import Moment
from console.widgets.pointed import in_full
from engine.model.destination import Destination
from engine.model.outcome import Outcome
from tests.screens import canned
from tests.screens.canned import ENTRIES, NOW, OVERVIEW, CannedClient, entry
from tests.screens.conftest import SIZES, Console_, Hand


def _line(hand: Hand) -> str:
    front: Any = hand.app.front
    line: str = front.query_one("#pointed").said
    return line


def _seen(hand: Hand) -> str:
    front: Any = hand.app.front
    pointed = front.query_one("#pointed")
    return " ".join(pointed.render_line(y).text.strip() for y in range(pointed.size.height))


def _say(row: object) -> str:
    return "".join(text for text, _ in in_full(row, Moment(NOW)))


@pytest.mark.parametrize("size", SIZES)
async def test_name_and_reply_of_the_destination_pointed_at_stand_in_full(size: str, at_the_console: Console_) -> None:
    async with at_the_console(size=SIZES[size]) as hand:
        await hand.press("end")
        assert "a-very-long-name-that-nobody-can-read.subdomain.example.com" in _seen(hand)
        await hand.press("home")
        assert "421 4.7.28 Our system has detected an unusual rate" in _seen(hand)


async def test_the_line_goes_with_the_cursor_and_with_the_focus(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        assert _line(hand).startswith("gmail.example")
        await hand.press("down")
        assert _line(hand).startswith("dead.example")
        assert "connect: connection refused" in _line(hand), "the reply beside the status"
        await hand.press("tab")
        assert _line(hand).startswith("mx1.dead.example  connect: connection refused (3 times in a row)")
        await hand.press("2", "down")
        assert _line(hand).startswith(f"{ENTRIES[1].recipient}  452 4.2.2 The recipient's inbox is over quota")


async def test_nothing_is_said_of_a_row_that_has_left(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "down", "down")
        hand.client.entries = ENTRIES[:2] + ENTRIES[3:]
        await hand.rest()
        assert _line(hand) == ""


async def test_a_text_has_no_such_line_and_a_short_terminal_neither(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        front: Any = hand.app.front
        assert front.query_one("#pointed").display
        await hand.press("2", "enter")
        front = hand.app.front
        assert not front.query_one("#pointed").display
    async with at_the_console(size=(60, 15)) as hand:
        front = hand.app.front
        assert not front.query_one("#pointed").display


def test_every_kind_of_row_says_what_its_list_may_cut() -> None:
    held = entry(7, state="held", by="oncall", note="their quota")
    assert "‖ held by oncall: their quota" in _say(held)
    assert _say(canned.DESTINATIONS[3]).startswith("lists.example.net  ‖ suspended 41m their list server loops")
    assert "(by oncall)" in _say(canned.DESTINATIONS[3])
    assert _say(canned.DESTINATIONS[5]).count("over quota") == 1, "what is said and was replied, once"
    assert "3 times in a row" in _say(canned.HOSTS[0])
    assert "used instead: mx.uni.example, mx2.uni.example" in _say(canned.HOSTS[2])
    assert "and hotmail.example" not in _say(canned.RELAYERS[1])
    assert "for live.example and outlook.example, hotmail.example" in _say(canned.RELAYERS[5])
    assert _say(canned.REASONS[1]).endswith("example.org, example.net, example.com and 45 others")
    assert "250 2.0.0 OK queued as 4RzK1t6JbQz" in _say(canned.EVENTS[-1])
    assert in_full(None, Moment(NOW)) == []


async def test_what_has_no_room_ends_in_an_ellipsis(at_the_console: Console_) -> None:
    said = Outcome.of_reply(450, "4.2.0 " + "very " * 200 + "slow", host="mx.example.org", phase="RCPT")
    row: Destination = replace(canned.DESTINATIONS[0], last=said)
    async with at_the_console(CannedClient(replace(OVERVIEW, destinations=(row,)))) as hand:
        assert _seen(hand).endswith("very …")
