"""Every screen in both sizes, compared with its picture in screenshots/."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace
from syrupy.assertion import SnapshotAssertion

from engine.control import views
from engine.model.message import Selection
from tests.screens import canned
from tests.screens.canned import NOW, OVERVIEW, CannedClient
from tests.screens.conftest import SIZES, Console_, Hand
from tests.screens.hostile import hostile_client
from tests.screens.svg import FOLDER, export
from tests.screens.test_running_engine import PICTURES

# Pictures are named for what they show and not for the test that draws them, which syrupy thinks odd.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*Can not relate snapshot:UserWarning")


@dataclass(frozen=True)
class Scene:
    """How to come to a screen: the client's answers, the keys, and what is typed after them."""

    name: str
    keys: tuple[str, ...] = ()
    client: Callable[[], CannedClient] = CannedClient
    typed: str = ""
    then: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def _empty() -> CannedClient:
    return CannedClient(views.OverviewView(health=canned.CALM), entries=())


def _suspended() -> CannedClient:
    health = replace(canned.HEALTH, state="suspended", suspended=canned.WHOLE, rate_out=0.0, connections=0)
    return CannedClient(replace(OVERVIEW, health=health, relayers=()))


def _finished() -> CannedClient:
    client = CannedClient()
    client.view = canned.FINISHED
    return client


def _many() -> CannedClient:
    client = CannedClient()
    client.selection = Selection(messages=2_204, recipients=2_310, newest=9, examples=canned.ENTRIES[:3])
    return client


def _outlasting() -> CannedClient:
    client = CannedClient()
    client.selection = replace(client.selection, outlasting=3)
    return client


def _nodes() -> CannedClient:
    client = CannedClient(canned.OVERVIEW_OF_NODES)
    client.node_states = canned.NODES
    return client


SCENES = (
    Scene("overview"),
    Scene("overview-empty", client=_empty),
    Scene("overview-suspended", client=_suspended),
    Scene("overview-read-only", options={"read_only": True}),
    Scene("overview-hostile", client=hostile_client),
    Scene("queue", ("2", "down", "down", "space", "space")),
    Scene("queue-filter", ("2", "slash"), typed="state=held"),
    Scene("queue-empty", ("2",), client=_empty),
    Scene("queue-hostile", ("2",), client=hostile_client),
    Scene("message", ("2", "enter")),
    Scene("message-finished", ("6", "enter"), client=_finished),
    Scene("message-hostile", ("2", "enter"), client=hostile_client),
    Scene("destination", ("enter",)),
    Scene("destination-blocked", ("down", "enter")),
    Scene("destination-suspended", ("down", "down", "down", "enter")),
    Scene("relayers", ("3",)),
    Scene("relayer", ("3", "enter")),
    Scene("overview-nodes", client=_nodes),
    Scene("relayers-nodes", ("3",), client=_nodes),
    Scene("nodes", ("8", "down"), client=_nodes),
    Scene("nodes-drain", ("8", "d"), client=_nodes),
    Scene("hosts", ("4",)),
    Scene("host", ("4", "enter")),
    Scene("reasons", ("5",)),
    Scene("reason", ("5", "down", "enter")),
    Scene("events", ("6",)),
    Scene("help", ("question_mark",)),
    Scene("palette", ("ctrl+p",), typed="mark"),
    Scene("command", ("colon",), typed="suspend"),
    Scene("confirm", ("2", "space", "space", "B")),
    Scene("confirm-typed", ("down", "D"), client=_many),
    Scene("bounced", ("2", "end", "B", "right", "enter")),
    Scene("postpone", ("t",), client=_outlasting),
    Scene("suspend", ("s",)),
    Scene("mark-bad", ("4", "b")),
    Scene("mark-bad-choose", ("b",)),
    Scene("quit", ("q",), options={"engine_inside": True}),
    Scene("quit-demo", ("q",), options={"engine_inside": True, "is_demo": True}),
    Scene("engine-lost", then="lost"),
    Scene("frozen", ("2", "p")),
    Scene("explain", ("2", "down", "e")),
    Scene("probe", ("4", "down", "i")),
    Scene("overrides", ("7",)),
    Scene("override", ("down", "v")),
    Scene("close", ("3", "x")),
)


async def _arrive(hand: Hand, scene: Scene) -> None:
    await hand.press(*scene.keys)
    if scene.typed:
        await hand.type(scene.typed)
    if scene.then == "lost":
        hand.client.lost = True
        await hand.rest()
        await hand.after(72)
    await hand.pilot.pause(0.05)  # a busy machine may need it


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
async def test_the_screen_looks_as_in_its_picture(
    scene: Scene, size: str, at_the_console: Console_, screenshot: SnapshotAssertion
) -> None:
    async with at_the_console(scene.client(), SIZES[size], **scene.options) as hand:
        await _arrive(hand, scene)
        assert export(hand.app) == screenshot(name=f"{scene.name}-{size}")


async def test_a_wide_terminal_gets_more_columns(at_the_console: Console_, screenshot: SnapshotAssertion) -> None:
    async with at_the_console(size=(200, 50)) as hand:
        assert export(hand.app) == screenshot(name="overview-200x50")


def test_every_picture_belongs_to_a_screen() -> None:
    drawn = {f"{scene.name}-{size}" for scene in SCENES for size in SIZES} | {"overview-200x50"} | PICTURES
    assert {picture.stem for picture in FOLDER.glob("*.svg")} == drawn


async def test_the_same_screen_drawn_twice_is_the_same_to_the_byte(at_the_console: Console_) -> None:
    drawn = []
    for _ in range(2):
        async with at_the_console() as hand:
            drawn.append(export(hand.app))
    assert drawn[0] == drawn[1]
    assert str(NOW) not in drawn[0]
