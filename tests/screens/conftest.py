"""What the screen tests share: the app on a canned client at a fixed time, and the comparison of screens."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC

import pytest
from msgspec.structs import replace
from syrupy.assertion import SnapshotAssertion
from textual import _wait
from textual._styles_cache import StylesCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet
from textual.css.types import CSSLocation
from textual.events import Key
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Input

from console.app import Console
from console.preferences import Preferences
from tests.screens.canned import NOW, CannedClient
from tests.screens.svg import ScreenshotExtension

# The pilot waits until the process is at rest, and looks every 20 ms; there are some thousand key presses here.
_wait.SLEEP_GRANULARITY = 1 / 250
_wait.SLEEP_IDLE = 1 / 1000

_parse = Stylesheet._parse_rules
_parsed: dict[tuple[object, ...], list[RuleSet]] = {}


def _parsed_once(
    sheet: Stylesheet,
    css: str,
    read_from: CSSLocation,
    is_default_rules: bool = False,
    tie_breaker: int = 0,
    scope: str = "",
) -> list[RuleSet]:
    """The rules of a style sheet, which are the same in all consoles; one keeps those it has parsed to itself."""
    parts = (css, read_from, is_default_rules, tie_breaker, scope)
    key = (*parts, *sheet._variables.items())
    if key not in _parsed:
        _parsed[key] = _parse(sheet, *parts)
    return _parsed[key]


Stylesheet._parse_rules = _parsed_once  # type: ignore[method-assign, assignment]

SIZES = {"80x24": (80, 24), "120x40": (120, 40)}


class Hand:
    """An operator at the console: presses keys, and sees what there is when all came to rest."""

    def __init__(self, app: Console, client: CannedClient, pilot: Pilot[None], clock: list[float]) -> None:
        self.app = app
        self.client = client
        self.pilot = pilot
        self._clock = clock

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other; the console looks at the engine after each."""
        for key in keys:
            await self.pilot.press(key)
            await self.rest()

    async def burst(self, *keys: str) -> None:
        """Keys that arrive all at once, as over a line that was held up."""
        for key in keys:
            name = _character_to_key(key) if len(key) == 1 else key
            self.app.post_message(Key(name, key if len(key) == 1 else None))
        for _ in range(3):  # a key may open what the next is meant for
            await self.rest()

    async def type(self, text: str) -> None:
        """Type a text into the field that has the focus."""
        field = self.app.screen.focused
        assert isinstance(field, Input)
        if not field.selection.is_empty:
            field.delete_selection()
        field.insert_text_at_cursor(text)
        await self.rest()

    async def rest(self) -> None:
        """Look at the engine once, and let everything be drawn."""
        await self.app.poll()
        await self.pilot.pause()

    async def after(self, seconds: float) -> None:
        """Let time pass."""
        self._clock[0] += seconds
        self.app.tick()
        await self.rest()

    @property
    def status(self) -> str:
        """What the status line says."""
        front = self.app.front
        assert front is not None
        return front.query_one("#status").said  # type: ignore[attr-defined, no-any-return]


@asynccontextmanager
async def _at_the_console(
    client: CannedClient | None = None,
    size: tuple[int, int] = (120, 40),
    read_only: bool = False,
    engine_inside: bool = False,
    is_demo: bool = False,
    preferences: Preferences | None = None,
) -> AsyncIterator[Hand]:
    clock = [NOW]
    client = client or CannedClient()
    if read_only:
        client.seen = replace(client.seen, health=replace(client.seen.health, read_only=True))
    app = Console(
        client,
        engine_inside=engine_inside,
        is_demo=is_demo,
        preferences=preferences,
        clock=lambda: clock[0],
        tz=UTC,
        poll_seconds=None,
    )
    async with app.run_test(size=size) as pilot:
        hand = Hand(app, client, pilot, clock)
        await hand.rest()
        yield hand


Console_ = Callable[..., AbstractAsyncContextManager[Hand]]
Do = Callable[[Hand], Awaitable[None]]


@pytest.fixture(autouse=True)
def _what_was_drawn_is_forgotten() -> Iterator[None]:
    """Textual keeps all lines of the last thousand widgets, and the collector of garbage goes through them."""
    yield
    StylesCache.get_inner_outer.cache_clear()


@pytest.fixture
def at_the_console() -> Console_:
    """Open the console on a canned client."""
    return _at_the_console


@pytest.fixture
def screenshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Compare with the SVG of that name in screenshots/; a missing one fails."""
    return snapshot.use_extension(ScreenshotExtension)
