"""The console endures: a lost engine, a view that fails, a hostile text, a small terminal."""

import asyncio
import unicodedata
from typing import Any

import pytest
from rich.console import Console as RichConsole
from textual.geometry import Region

from console.format import safe
from engine.control import views
from engine.model.message import Selection
from tests.screens import canned
from tests.screens.canned import CannedClient
from tests.screens.conftest import SIZES, Console_, Hand
from tests.screens.hostile import HOSTILE_REFUSAL, POISON, hostile_client
from tests.waiting import until


def _said(hand: Hand, where: str) -> str:
    front = hand.app.front
    assert front is not None
    said: str = front.query_one(where).said  # type: ignore[attr-defined]
    return said


def _frame(hand: Hand) -> str:
    """All characters that go to the terminal, without the styles we chose ourselves."""
    width, height = hand.app.size
    strips = hand.app.screen._compositor.render_strips()
    assert Region(0, 0, width, height).area
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def test_a_lost_engine_is_shown_with_since_when_and_comes_back_by_itself(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        hand.client.lost = True
        await hand.after(2)
        await hand.after(70)
        assert "engine lost since 10:02:13 (1m)" in _said(hand, "#health")
        await hand.press("c")
        assert "no engine answers" in hand.status
        hand.client.lost = False
        await hand.after(1)
        assert "relaying" in _said(hand, "#health")


async def test_an_engine_that_never_answered_is_lost_too(at_the_console: Console_) -> None:
    client = CannedClient()
    client.lost = True
    async with at_the_console(client) as hand:
        assert "engine lost since" in _said(hand, "#health")
        await hand.press("2", "3", "4", "6", "1", "enter", "r", "s", "b", "question_mark", "escape")
        client.lost = False
        await hand.rest()
        assert "relaying" in _said(hand, "#health")


@pytest.mark.parametrize(
    ("key", "never"),
    [
        ("2", "the queue is empty"), ("3", "no connections are open"), ("4", "no bad hosts"),
        ("5", "no mail waits"), ("6", "nothing happened yet"), ("7", "nothing"),
    ],
)  # fmt: skip
async def test_what_was_never_looked_up_is_not_said_to_be_nothing(
    at_the_console: Console_, key: str, never: str
) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        hand.client.lost = True
        await hand.after(2)
        await hand.press(key)
        await hand.after(2)
        seen = _frame(hand)
        assert "not looked up: no engine answers" in seen
        assert never not in seen


async def test_fields_and_answers_of_a_question_are_seen_on_the_smallest_terminal(at_the_console: Console_) -> None:
    client = CannedClient()
    client.selection = Selection(messages=2_204, recipients=2_310, newest=9, examples=canned.ENTRIES[:3])
    async with at_the_console(client, size=(60, 15)) as hand:
        await hand.press("down", "D", "right", "enter")
        seen = _frame(hand)
        assert "Drop 2,204 messages?" in seen
        assert "type 2,204" in seen
        assert "[ Cancel ]" in seen
        assert "so many messages are touched" in seen, "why it was not done"


async def test_an_error_of_our_own_is_told_and_the_console_goes_on(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        hand.client.broken = ValueError("secret in the message")
        hand.app.poll_soon()
        await hand.pilot.pause()
        assert "the console stumbled (ValueError); it goes on" in hand.status
        assert "secret" not in hand.status
        hand.client.broken = None
        await hand.press("2")
        assert hand.app.is_running


async def test_an_error_in_a_key_or_a_timer_does_not_end_the_console(
    at_the_console: Console_, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_the_console() as hand:

        def fall() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(hand.app, "tick", fall)
        hand.app._on_tick()
        await hand.press("p")
        assert "stumbled (ZeroDivisionError)" in hand.status
        assert hand.app.is_running


class _Slow(CannedClient):
    async def overview(self, destinations: int = 50, hosts: int = 50, events: int = 50) -> views.OverviewView:
        await asyncio.sleep(60)
        return await super().overview(destinations, hosts, events)


async def test_an_engine_that_does_not_answer_in_time_is_lost(
    at_the_console: Console_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("console.app.PATIENCE", 0.01)
    async with at_the_console(_Slow()) as hand:
        assert "engine lost since" in _said(hand, "#health")


async def test_a_view_that_cannot_load_says_why_and_what_was_there_stays(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("2", "enter")
        hand.client.refusal = views.Refusal(what="the store is being repaired", where="message 48201")
        await hand.rest()
        assert "the store is being repaired" in _frame(hand)
        assert "Your order 48213" in _frame(hand)
        hand.client.refusal = None
        await hand.rest()
        assert "repaired" not in _frame(hand)


async def test_a_crash_report_shows_no_values(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        password = "".join(reversed("2retnuh"))
        try:
            raise ValueError("broken")
        except ValueError:
            hand.app._fatal_error()
        console = RichConsole(width=200)
        with console.capture() as captured:
            for part in hand.app._exit_renderables:
                console.print(part)
        assert "ValueError" in captured.get()
        assert password not in captured.get()


WAYS = {
    "overview": (),
    "queue": ("2", "space"),
    "message": ("2", "enter"),
    "destination": ("enter",),
    "relayers": ("3",),
    "relayer": ("3", "enter"),
    "hosts": ("4",),
    "host": ("4", "enter"),
    "reasons": ("5",),
    "reason": ("5", "enter"),
    "events": ("6",),
    "confirm": ("2", "space", "space", "B"),
    "suspend": ("s",),
    "choose": ("b",),
    "palette": ("ctrl+p",),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", WAYS)
async def test_no_byte_of_a_stranger_steers_the_terminal(way: str, size: str, at_the_console: Console_) -> None:
    async with at_the_console(hostile_client(), SIZES[size]) as hand:
        await hand.press(*WAYS[way])
        hand.client.refusal = HOSTILE_REFUSAL
        frames = [_frame(hand)]
        await hand.rest()
        frames.append(_frame(hand))
        for char in set("".join(frames)) - {"\n"}:
            assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, hex(ord(char))
        assert hand.app.is_running


def test_the_last_line_of_defence_shows_what_it_takes_out() -> None:
    assert safe("a\x1b]0;x\x07b") == "a\\x1b]0;x\\x07b"
    assert safe("\u202e\x9b\ud800") == "\\u202e\\x9b\\ud800"
    assert safe("bücher 界 ok") == "bücher 界 ok"
    assert safe(POISON).encode("utf-8")


@pytest.mark.parametrize("size", [(60, 15), (60, 20), (79, 23), (100, 30), (109, 50), (40, 10), (20, 5), (250, 70)])
async def test_no_size_of_the_terminal_is_too_odd(size: tuple[int, int], at_the_console: Console_) -> None:
    async with at_the_console(size=size) as hand:
        for key in (
            "2",
            "enter",
            "escape",
            "3",
            "4",
            "5",
            "enter",
            "escape",
            "6",
            "1",
            "tab",
            "tab",
            "s",
            "escape",
            "question_mark",
            "escape",
        ):
            await hand.press(key)
        assert ("too small" in _frame(hand)) == (size[0] < 60 or size[1] < 15)


async def test_the_terminal_may_change_its_size(at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press("tab", "tab")
        for size in ((80, 24), (50, 10), (80, 24), (120, 40)):
            await hand.pilot.resize_terminal(*size)
            await until(lambda size=size: hand.app.front is not None and hand.app.front.size == size)  # type: ignore[misc]
            await hand.rest()
            front: Any = hand.app.front
            if size[0] > 60:
                assert front.focused is not None
                assert front.focused.is_on_screen


async def test_without_colour_state_and_cursor_can_still_be_read(
    at_the_console: Console_, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with at_the_console() as hand:
        assert hand.app.no_color
        frame = _frame(hand)
        assert "▸ gmail.example" in frame
        assert "✗ blocked" in frame
        assert "▲ RCPT" in frame
        styles = [segment.style for strip in hand.app.screen._compositor.render_strips() for segment in strip]
        assert not any(style.color and not style.color.is_default for style in styles if style)
        assert any(style.reverse for style in styles if style), "the cursor stands out by reversal"


STOPPED = {"overview": (), "queue": ("2",), "relayers": ("3",), "hosts": ("4",), "destination": ("down", "enter"),
           "message": ("2", "enter"), "host": ("4", "enter"), "relayer": ("3", "enter")}  # fmt: skip


@pytest.mark.parametrize("way", STOPPED)
async def test_what_is_seen_of_a_lost_engine_stands_still_and_says_from_when_it_is(
    way: str, at_the_console: Console_
) -> None:
    async with at_the_console() as hand:
        await hand.press(*STOPPED[way])
        await hand.after(3)
        hand.client.lost = True
        await hand.after(1)
        await hand.after(1)
        before = _frame(hand).split("\n")
        await hand.after(45)
        after = _frame(hand).split("\n")
        assert after[1:] == before[1:], "the health line alone lives on"
        assert "engine lost since 10:02:15 (46s)" in after[0]
        assert "as of 10:02:14" in after[1]
        await hand.press("down", "up")
        assert _frame(hand).split("\n")[1:] == before[1:], "who moves over them sees no other time"
        hand.client.lost = False
        await hand.after(1)
        assert "as of" not in _said(hand, "#trail")


@pytest.mark.parametrize("way", STOPPED)
async def test_what_is_seen_of_a_lost_engine_has_no_colour(way: str, at_the_console: Console_) -> None:
    async with at_the_console() as hand:
        await hand.press(*STOPPED[way])
        hand.client.lost = True
        await hand.after(2)
        body = hand.app.screen._compositor.render_strips()[2:34]
        styles = [
            segment.style for strip in body for segment in strip if segment.style and segment.text.strip(" ─━│▁▂▃▄▅▆▇")
        ]
        said = [style for style in styles if not style.reverse]
        assert said
        assert all(style.dim or style.bold for style in said), {str(s) for s in said if not (s.dim or s.bold)}
        assert not any(style.color and style.color.name in ("green", "yellow", "red") for style in said)
