"""The desk: what a verb or a screen may ask of the console. No screen imports the app, and a test may lend its own."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from textual.await_complete import AwaitComplete
from textual.screen import Screen

from console.actions import Registry, Target
from console.format import Moment
from console.keyboard import Keyboard
from console.layer import Layer
from console.preferences import Preferences
from console.widgets.foot import Kind, Prompt
from console.widgets.line import Piece
from engine.control.client import Client
from engine.control.views import OverviewView
from engine.model.verbs import Result

F = TypeVar("F")  # the screens with the health line on top


class Desk(Protocol[F]):
    """The console, as its verbs and screens know it.

    `overview` is the last snapshot, None before the first; `lost_since` and `frozen_at` are in seconds since 1970,
    None while an engine answers and while the view moves; `seen_at` is when an engine answered last.
    """

    client: Client
    registry: Registry
    preferences: Preferences
    engine_inside: bool
    is_demo: bool
    overview: OverviewView | None
    lost_since: float | None
    seen_at: float
    frozen_at: float | None
    undoable: Result | None

    # -- what is so -----------------------------------------------------------------------------------------------

    @property
    def keyboard(self) -> Keyboard:
        """Who has keys wait for what they are for."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether this console may only look."""
        ...

    @property
    def moment(self) -> Moment:
        """Now, in the zone shown."""
        ...

    @property
    def wide(self) -> bool:
        """Whether the four panes have room side by side."""
        ...

    @property
    def is_headless(self) -> bool:
        """Whether there is no terminal."""
        ...

    @property
    def front(self) -> F | None:
        """The screen one looks at, also when a question stands before it."""
        ...

    @property
    def screen(self) -> Screen[Any]:
        """What is on top."""
        ...

    @property
    def screen_stack(self) -> list[Screen[Any]]:
        """All that lies upon one another."""
        ...

    def pointed(self) -> Target | None:
        """What verbs act on."""
        ...

    def tabs(self) -> list[tuple[str, str, str]]:
        """The screens of the top level: key, name, count."""
        ...

    def status(self) -> Piece:
        """What the status line says on its left."""
        ...

    # -- what is said and asked -----------------------------------------------------------------------------------

    def tell(self, text: str, style: str = "") -> None:
        """Say something in the status line."""
        ...

    def report(self, result: Result) -> None:
        """Say exactly what an action did, and see what it changed."""
        ...

    async def ask(self, dialog: Layer[dict[str, str] | None]) -> dict[str, str] | None:
        """Put a question; None when it was answered with Cancel. Raises TooLate."""
        ...

    async def choose(self, choice: Layer[str | None]) -> str | None:
        """Let one be chosen; None when none was. Raises TooLate."""
        ...

    def answer(self, what: str, make: Callable[[], F], asked_at: F | None, target: Target | None) -> None:
        """Show an answer where it was asked for."""
        ...

    def entered(self, kind: Kind, text: str) -> None:
        """A filter or a command was typed and entered."""
        ...

    def complete(self, line: Prompt) -> None:
        """Complete what is being typed."""
        ...

    # -- what is done ---------------------------------------------------------------------------------------------

    def action_run(self, name: str, argument: str = "") -> None:
        """Do what the registry calls `name`, to what is pointed at now."""
        ...

    def run_on(self, target: Target | None, name: str, argument: str = "") -> None:
        """Do what the registry calls `name`, to this."""
        ...

    def go_on(self) -> None:
        """What is being done asks nothing: the keys behind it need not wait."""
        ...

    def hold_keys(self, doing: Coroutine[Any, Any, None]) -> None:
        """Do something that may open a screen or ask: keys that are pressed from now on wait for that."""
        ...

    async def filter_front(self, text: str) -> None:
        """Filter the screen one looks at. Raises Refused."""
        ...

    def tick(self) -> None:
        """Tell countdowns anew."""
        ...

    def freshen(self) -> None:
        """Tell health line, tabs, status and keys anew."""
        ...

    def poll_soon(self) -> None:
        """Ask the engine how things are."""
        ...

    def reload_soon(self) -> None:
        """Fetch anew what the screen shows."""
        ...

    async def reload(self) -> None:
        """Fetch anew what the screen shows, also of a view that is frozen."""
        ...

    def exit(self) -> None:
        """Leave the console."""
        ...

    # -- where one goes -------------------------------------------------------------------------------------------

    def push_screen(self, screen: str) -> Awaitable[None]:
        """Go to a screen of the top level."""
        ...

    def pop_screen(self) -> AwaitComplete:
        """Go back by one."""
        ...

    def open_destination(self, name: str) -> None:
        """Drill into a destination."""
        ...

    def open_message(self, number: int) -> None:
        """Drill into a message."""
        ...

    def open_relayer(self, number: int, host: str, node: str = "") -> None:
        """Drill into a connection, of the node named."""
        ...

    def open_reason(self, why: str) -> None:
        """Drill into the mail that waits for one reason."""
        ...

    def open_host(self, host: str) -> None:
        """Drill into a mail exchange."""
        ...
