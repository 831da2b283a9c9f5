"""The lines around a list: what is marked and filtered is never hidden, and the counts stay where they fit."""

from typing import Any

import pytest
from msgspec.structs import replace

from console.widgets.foot import StatusLine
from tests.screens import canned
from tests.screens.canned import ENTRIES, OVERVIEW, CannedClient
from tests.screens.conftest import SIZES, Console_, Hand

LONG = "✓ 1,300 messages to 1,311 recipients in 4 domains are held: they are kept from being sent until released"


def _seen(hand: Hand, where: str) -> str:
    front: Any = hand.app.front
    seen: str = front.query_one(where).render_line(0).text
    return seen


@pytest.mark.parametrize("size", SIZES)
async def test_a_long_result_does_not_hide_what_is_marked(size: str, at_the_console: Console_) -> None:
    client = CannedClient(entries=tuple(replace(ENTRIES[0], id=f"{number}.1") for number in range(1_300)))
    async with at_the_console(client, SIZES[size]) as hand:
        await hand.press("2", "a")
        hand.app.tell(LONG, "good")
        await hand.rest()
        assert _seen(hand, "#status").endswith("✱ all 1,300 marked ")
        assert _seen(hand, "#status").startswith(f" {LONG[:20]}")


async def test_a_long_result_does_not_hide_filter_marks_and_place(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press("2")
        await hand.app.filter_front("state=held")
        await hand.press("space", "space")
        hand.app.tell(LONG, "good")
        await hand.rest()
        assert _seen(hand, "#status").endswith("/state=held  ✱ 2 marked  3 of 60 ")


async def test_a_filter_that_is_too_long_does_not_hide_the_marks(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press("2")
        await hand.app.filter_front(" ".join(f"!to=somebody{number}" for number in range(9)))
        await hand.press("space", "space")
        assert _seen(hand, "#status").endswith("…  ✱ 2 marked  3 of 60 ")
        assert "/!to=somebody0 !to=somebody1" in _seen(hand, "#status")


async def test_what_an_operator_sees_of_a_result_is_cut_visibly(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press("2")
        hand.app.tell(LONG, "good")
        await hand.rest()
        line = hand.app.screen.query_one(StatusLine)
        assert "… 1 of 60 " in line.said


@pytest.mark.parametrize("key", "123456")
async def test_the_tabs_keep_their_counts_at_eighty_columns(key: str, at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press(key)
        assert _seen(hand, "#trail") == (
            " 1 Destinations  2 Queue 12,545  3 Relayers 14  4 Bad MX 3  5 Reasons  6 Events "
        )


async def test_of_the_counts_that_of_the_destinations_goes_first(at_the_console: Console_) -> None:
    health = replace(canned.HEALTH, waiting=98_765, connections=20, destinations=12_345)
    async with at_the_console(CannedClient(replace(OVERVIEW, health=health)), (80, 24)) as hand:
        seen = _seen(hand, "#trail")
        assert " 1 Destinations  2" in seen
        assert "2 Queue 98,830  3 Relayers 14  4 Bad MX 3" in seen
