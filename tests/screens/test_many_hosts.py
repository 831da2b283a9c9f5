"""Bad MX by the window: a console shows, counts, sorts, filters and acts on hosts that no snapshot holds."""

import pytest
from msgspec.structs import replace

from engine.model.destination import BadHost
from engine.model.verbs import Check, MailAsk, MarkGood
from tests.screens import canned
from tests.screens.canned import NOW, CannedClient
from tests.screens.conftest import Console_, Hand

MANY = 5_000
HEAD = 100


def crowded() -> CannedClient:
    """An engine with many bad hosts, of which the snapshot has the first to be back."""
    client = CannedClient()
    client.more_hosts = tuple(
        BadHost(
            host=f"mx{n:04}.example", since=NOW - 60, until=NOW + 60 + n, by="engine" if n % 10 else "oncall",
            note="refused", waiting=n % 7,
        )
        for n in range(MANY)
    )  # fmt: skip
    health = replace(client.seen.health, bad_hosts=MANY)
    client.seen = replace(client.seen, health=health, hosts=client.more_hosts[:HEAD])
    return client


def frame(hand: Hand) -> str:
    """All that is on the screen."""
    strips = hand.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def shown(hand: Hand) -> list[str]:
    """The names in the rows of the table in front."""
    front = hand.app.front
    assert front is not None
    table = front.table()
    assert table is not None
    return [row.host for row in table.rows]


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_the_count_is_exact_and_the_head_is_enough_at_first(
    at_the_console: Console_, size: tuple[int, int]
) -> None:
    async with at_the_console(crowded(), size=size) as hand:
        await hand.press("4")
        assert not hand.client.asks("hosts")
        assert ("4", "Bad MX", "5,000") in hand.app.tabs()
        front = hand.app.front
        assert front is not None
        assert "1 of 5,000" in front.place()


async def test_who_goes_down_sees_what_the_snapshot_has_not(at_the_console: Console_) -> None:
    async with at_the_console(crowded()) as hand:
        await hand.press("4", "end")
        await hand.rest()
        assert shown(hand)[-1] == "mx4999.example"
        assert hand.client.asks("hosts")
        await hand.press("g")
        assert hand.client.previewed(MarkGood)[-1] == MarkGood(host="mx4999.example")


async def test_the_engine_sorts_and_filters(at_the_console: Console_) -> None:
    async with at_the_console(crowded()) as hand:
        await hand.press("4", "O", "O")
        assert hand.client.asks("hosts")[-1][2] == "-host"
        assert shown(hand)[0] == "mx4999.example"
        await hand.press("slash")
        await hand.type("oncall")
        await hand.press("enter")
        assert hand.client.asks("hosts")[-1][1] == "oncall"
        front = hand.app.front
        assert front is not None
        assert "of 500" in front.place()


async def test_a_host_is_opened_and_told_of_though_no_snapshot_has_it(at_the_console: Console_) -> None:
    async with at_the_console(crowded()) as hand:
        await hand.press("4", "end")
        await hand.rest()
        await hand.press("enter")
        assert hand.client.asks("host")[-1] == ("host", "mx4999.example")
        assert "mx4999.example" in frame(hand)
        hand.client.more_hosts = hand.client.more_hosts[:-1]
        await hand.rest()
        assert "is not marked bad" in frame(hand)


async def test_a_destinations_bad_exchanges_are_known_by_the_destination(at_the_console: Console_) -> None:
    client = CannedClient()
    client.seen = replace(client.seen, hosts=())
    marked = next(row for row in canned.MARKED if row.marked)
    async with at_the_console(client) as hand:
        await hand.press("slash")
        await hand.type(marked.name)
        await hand.press("enter", "enter")
        assert f"▼ {marked.marked[0].host}" in frame(hand)


async def test_the_overview_counts_them_in_the_title_of_the_pane(at_the_console: Console_) -> None:
    async with at_the_console(crowded()) as hand:
        assert "5,000 hosts" in frame(hand)


async def test_a_name_is_completed_that_no_snapshot_has(at_the_console: Console_) -> None:
    async with at_the_console(crowded()) as hand:
        await hand.press("colon")
        await hand.type("mark-good mx4321")
        await hand.press("tab")
        assert "mx4321.example" in hand.app.screen.focused.value  # type: ignore[union-attr]


async def test_a_note_of_the_engine_is_said_when_it_is_new_and_counted(at_the_console: Console_) -> None:
    client = CannedClient()
    async with at_the_console(client, size=(200, 40)) as hand:
        note = "10,000 hosts are marked bad by the engine, as many as it remembers\x1b[2J"
        client.seen = replace(client.seen, health=replace(client.seen.health, notes=(note,)))
        await hand.rest()
        assert (
            hand.status.split("   ")[0]
            == " ▲ 10,000 hosts are marked bad by the engine, as many as it remembers\\x1b[2J"
        )
        front = hand.app.front
        assert front is not None
        assert "notes 1" in front.query_one("#health").said  # type: ignore[attr-defined]
        hand.app.tell("")
        await hand.rest()
        assert "▲" not in hand.status, "once"


async def test_a_command_that_acts_is_refused_with_a_word_where_one_may_only_look(at_the_console: Console_) -> None:
    async with at_the_console(read_only=True) as hand:
        await hand.press("colon")
        await hand.type("drop id=7")
        await hand.press("enter")
        assert "this console may only look" in frame(hand)
        assert not hand.client.previewed(MailAsk)


async def test_a_console_that_may_act_again_has_its_keys_back(at_the_console: Console_) -> None:
    async with at_the_console(read_only=True) as hand:
        seen = hand.client.seen
        hand.client.seen = replace(seen, health=replace(seen.health, read_only=False))
        await hand.rest()
        await hand.press("c")
        assert hand.client.did(Check)
