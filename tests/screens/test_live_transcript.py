"""A live transcript follows its end, unless one has scrolled away from it."""

import asyncio
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from console.widgets.document import Document
from engine.control import views
from engine.model.transcript import Line
from tests.screens import canned
from tests.screens.canned import NOW, CannedClient
from tests.screens.conftest import Console_, Hand

LONG = 60  # lines: more than a screen


def _talk(client: CannedClient, lines: int, others: int = 0) -> None:
    """The conversation has so many lines, and its connection has served so many other domains."""
    said = tuple(Line(at=NOW, side="<", text=f"250 line {number}") for number in range(lines))
    names = tuple(f"a-rather-long-name-{number}.example" for number in range(others))
    client.transcript_view = views.TranscriptView(
        relayer=replace(canned.RELAYERS[0], domains=("example.org", *names)), lines=said
    )


def _document(hand: Hand) -> Document:
    front: Any = hand.app.front
    document: Document = front.query_one(Document)
    return document


def _last_seen(hand: Hand) -> str:
    document = _document(hand)
    lines = [document.render_line(y).text.strip() for y in range(document.size.height)]
    return next((line for line in reversed(lines) if line), "")


async def _ends(hand: Hand, text: str) -> bool:
    """Whether that is the last line one sees, once the layout is done."""
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            while not _last_seen(hand).endswith(text):
                await hand.pilot.pause()
    return _last_seen(hand).endswith(text)


async def _open(hand: Hand) -> None:
    await hand.press("3", "enter")
    await hand.rest()


async def test_a_long_conversation_is_opened_at_its_end(at_the_console: Console_) -> None:
    client = CannedClient()
    _talk(client, LONG)
    async with at_the_console(client, size=(80, 24)) as hand:
        await _open(hand)
        assert await _ends(hand, f"line {LONG - 1}")


async def test_lines_that_arrive_while_the_note_above_changes_its_height_are_followed(at_the_console: Console_) -> None:
    client = CannedClient()
    _talk(client, 1)
    async with at_the_console(client, size=(80, 24)) as hand:
        await _open(hand)
        for turn in range(1, 12):
            _talk(client, turn * 11, others=(turn * 5) % 8)
            await hand.after(1)
            assert await _ends(hand, f"line {turn * 11 - 1}"), turn


async def test_the_end_is_followed_when_the_terminal_changes_its_size(at_the_console: Console_) -> None:
    client = CannedClient()
    _talk(client, LONG)
    async with at_the_console(client, size=(120, 40)) as hand:
        await _open(hand)
        for size in ((80, 24), (120, 40), (70, 18)):
            await hand.pilot.resize_terminal(*size)
            await hand.rest()
            assert await _ends(hand, f"line {LONG - 1}")


async def test_who_has_scrolled_up_stays_where_he_reads(at_the_console: Console_) -> None:
    client = CannedClient()
    _talk(client, LONG)
    async with at_the_console(client, size=(80, 24)) as hand:
        await _open(hand)
        await hand.press("pageup", "up")
        top = _document(hand).render_line(0).text
        for turn in range(1, 9):
            _talk(client, LONG + turn * 3, others=(turn * 5) % 8)
            await hand.after(1)
            assert _document(hand).render_line(0).text == top
        await hand.press("end")
        _talk(client, LONG * 2)
        await hand.after(1)
        assert await _ends(hand, f"line {LONG * 2 - 1}")
