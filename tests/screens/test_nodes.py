"""Nodes in the console: those that share a queue are seen as one, and each can be steered."""

import pytest
from msgspec.structs import replace

from console.screens.details import RelayerScreen
from console.screens.dialogs import Dialog
from console.widgets.health import HealthLine
from console.widgets.table import Table
from engine.model.verbs import Close, Drain, Undrain
from tests.screens import canned
from tests.screens.canned import CannedClient
from tests.screens.conftest import Console_, Hand
from tests.screens.test_steering import typed


def of_nodes() -> CannedClient:
    client = CannedClient(canned.OVERVIEW_OF_NODES)
    client.node_states = canned.NODES
    return client


def titles(hand: Hand) -> list[str]:
    """The columns of the list that has the focus, as far as there is room for them."""
    table = hand.app.screen.focused
    assert isinstance(table, Table)
    return [fitted.column.title for fitted in table._fitted]


@pytest.mark.parametrize("key", ["3", "6"])
async def test_a_column_says_which_node_it_is_where_there_are_several_and_only_there(
    at_the_console: Console_, key: str
) -> None:
    async with at_the_console(of_nodes(), size=(80, 24)) as hand:
        await hand.press(key)
        assert "node" in titles(hand)
        hand.client.seen = canned.OVERVIEW  # the others have left
        await hand.rest()
        assert "node" not in titles(hand)
    async with at_the_console() as hand:
        await hand.press(key)
        assert "node" not in titles(hand)


async def test_the_head_names_the_node_one_is_attached_to(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes(), size=(80, 24)) as hand:
        assert "node a of 4, 1 lost" in hand.app.screen.query_one(HealthLine).said


async def test_a_connection_is_shown_and_closed_at_the_node_that_has_it(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await hand.press("3", "down", "x", "right", "enter")
        (row,) = [one for one in canned.OVERVIEW_OF_NODES.relayers if one.id == 902]
        assert hand.client.did(Close) == [Close(relayer=902, node=row.node)]
        await hand.press("enter")
        assert isinstance(hand.app.front, RelayerScreen)
        assert hand.client.asks("transcript")[-1] == ("transcript", 902, row.node)
        assert hand.app.front.crumbs()[-1].endswith(f"#902 of node {row.node}")
        await hand.press("x", "right", "enter")
        assert hand.client.did(Close) == [Close(relayer=902, node=row.node)] * 2
        await typed(hand, "close 7 c")
        await hand.press("right", "enter")
        assert hand.client.did(Close)[-1] == Close(relayer=7, node="c")


async def test_connections_of_the_same_number_are_two_rows(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await hand.press("3")
        table = hand.app.screen.focused
        assert isinstance(table, Table)
        one, other = (replace(canned.RELAYERS[0], node=name) for name in "ab")
        assert table.key(one) != table.key(other)


async def test_a_node_is_drained_after_a_question_and_brought_back_without_one(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await hand.press("8", "d")
        assert isinstance(hand.app.screen, Dialog)
        await hand.press("enter")  # Cancel has the focus
        assert not hand.client.did(Drain)
        await hand.press("d", "right", "enter")
        assert hand.client.did(Drain) == [Drain(node="a")]
        await hand.press("down", "n")
        assert hand.client.did(Undrain) == [Undrain(node="b")]
        assert "node b takes and sends mail again" in hand.status
        await typed(hand, "drain c")
        await hand.press("right", "enter")
        assert hand.client.did(Drain)[-1] == Drain(node="c")


async def test_enter_on_a_node_lists_its_connections(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await hand.press("8", "down", "enter")
        assert hand.app.front is not None
        assert hand.app.front.context == "relayers"
        assert hand.app.front.filter == "b"


async def test_a_host_is_probed_from_the_node_that_is_named(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await typed(hand, "probe mx.example.org:26 b")
        assert hand.client.asks("probe") == [("probe", "mx.example.org:26", "b")]


async def test_the_screens_go_round_by_way_of_the_nodes_only_where_there_are_some(at_the_console: Console_) -> None:
    for client, last in ((of_nodes(), "nodes"), (CannedClient(), "events")):
        async with at_the_console(client, size=(80, 24)) as hand:
            await hand.press("shift+tab")
            assert hand.app.front is not None
            assert hand.app.front.context == last
            await hand.press("tab")
            assert hand.app.front.context == "destinations"


async def test_where_there_are_none_that_is_said(at_the_console: Console_) -> None:
    async with at_the_console(size=(80, 24)) as hand:
        await hand.press("8")
        table = hand.app.screen.focused
        assert isinstance(table, Table)
        assert table.empty == "there are no nodes: the queue is this engine's alone"
        await hand.press("d")
        assert "point at a node first" in hand.status
        await hand.press("tab")
        assert hand.app.front is not None
        assert hand.app.front.context == "destinations"


async def test_names_of_nodes_are_completed(at_the_console: Console_) -> None:
    async with at_the_console(of_nodes()) as hand:
        await hand.press("colon")
        await hand.type("drain rel")
        await hand.press("tab")
        assert hand.app.screen.focused.value == "drain relay4 "  # type: ignore[union-attr]
