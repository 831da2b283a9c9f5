"""The console: a client of the control socket, drawn on a terminal."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, tzinfo
from typing import Any

from rich.traceback import Traceback
from textual import events
from textual.app import App
from textual.binding import Binding
from textual.screen import Screen

from console import moving, steering, verbs
from console.actions import Registry, Target
from console.following import Following
from console.format import Moment, count, plural
from console.preferences import Preferences
from console.screens.answers import Answer, OverridesScreen
from console.screens.details import HostScreen, MessageScreen, RelayerScreen
from console.screens.dialogs import Choose, Dialog
from console.screens.front import Front
from console.screens.lists import TOP, Overview
from console.screens.palette import Help, Palette
from console.screens.queue import DestinationScreen, QueueScreen, ReasonScreen
from console.widgets.document import Para, para
from console.widgets.foot import Prompt
from console.widgets.line import Piece
from engine.control.client import Client, EngineUnreachable, Refused
from engine.control.views import OverviewView, ResultView

WIDE = (110, 30)  # columns and rows from which the four panes stand side by side
HEAD = 100  # destinations and events asked for with each snapshot
PATIENCE = 8.0  # seconds a look at the engine may take before it counts as lost
SAID_FOR = 30.0  # seconds the result of an action stays in the status line


class Console(App[None]):
    """The operator's console.

    `client` is opened and closed here. `engine_inside`: the engine runs in this process, so that leaving stops it.
    `preferences` are the operator's. `clock` gives seconds since 1970, `tz` the zone times are shown in;
    `poll_seconds` None leaves it to the caller to `poll`.
    """

    CSS_PATH = "console.tcss"
    TITLE = "smarthost"
    ALLOW_SELECT = False  # the terminal's own selection, with shift, takes what one sees
    ENABLE_COMMAND_PALETTE = False  # ours reads the registry
    BINDINGS = [Binding("ctrl+q", "quit", show=False, priority=True)]  # noqa: RUF012

    def __init__(
        self,
        client: Client,
        *,
        read_only: bool = False,
        engine_inside: bool = False,
        preferences: Preferences | None = None,
        clock: Callable[[], float] = time.time,
        tz: tzinfo | None = None,
        poll_seconds: float | None = 1.0,
    ) -> None:
        # The terminal's own sixteen colours on its own background; said here, NO_COLOR takes them away cleanly.
        super().__init__(ansi_color=True)
        self.client = client
        self.read_only = read_only
        self.engine_inside = engine_inside
        self.preferences = preferences or Preferences()
        self.registry = Registry(read_only)
        self.overview: OverviewView | None = None
        self.lost_since: float | None = None
        self.frozen_at: float | None = None
        self.undoable: ResultView | None = None
        self.following = Following()
        self._clock = clock
        self._tz = tz or datetime.now(UTC).astimezone().tzinfo or UTC
        self._poll_seconds = poll_seconds
        self._polling = asyncio.Lock()
        self._again = False
        self._said: Piece = ("", "")
        self._said_until = 0.0
        self._asking_since = 0.0
        self._open = AsyncExitStack()
        self._handlers = self._handled()
        self.animation_level = "none"
        for action in self.registry:
            for key in action.keys:
                self.bind(key, f"run('{action.name}', '{key}')" if action.name == "sort" else f"run('{action.name}')",
                          description=action.label, show=False)  # fmt: skip

    # -- life -----------------------------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[None]:
        return Overview()

    async def on_mount(self) -> None:
        self.theme = "ansi-dark"
        await self._open.enter_async_context(self.client)
        self.install_screen(QueueScreen(), "queue")
        for name, (_, make) in TOP.items():
            self.install_screen(make(), name)
        if self._poll_seconds is not None:
            self.set_interval(self._poll_seconds, self._on_tick)
            self.poll_soon()

    async def on_unmount(self) -> None:
        await self._open.aclose()

    def leave(self, status: int = 0) -> None:
        """Leave the console, from its own loop; whoever handles signals calls this through `call_soon_threadsafe`."""
        self.exit(return_code=status)

    def _fatal_error(self) -> None:
        """What is broken beyond help: without the values of variables, which may be passwords and addresses."""
        trace = Traceback(show_locals=False, width=None)
        self.panic(trace)

    @property
    def moment(self) -> Moment:
        """Now, in the zone shown."""
        return Moment(self._clock(), self._tz)

    @property
    def wide(self) -> bool:
        """Whether the four panes have room side by side."""
        return self.size.width >= WIDE[0] and self.size.height >= WIDE[1]

    @property
    def front(self) -> Front | None:
        """The screen one looks at, also when a question stands before it."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, Front)), None)

    # -- what is seen ---------------------------------------------------------------------------------------------

    def _on_tick(self) -> None:
        try:
            self.tick()
        except Exception as error:  # noqa: BLE001 (a timer's exception would end the app)
            self._stumble(error)
        self.poll_soon()

    def tick(self) -> None:
        """A second has passed: countdowns go on, also while the engine does not answer."""
        front = self.front
        if front is not None and self.frozen_at is None:
            front.tick(self.moment)
        self.freshen()

    def poll_soon(self) -> None:
        """Ask the engine how things are, unless that is under way."""
        if self.is_running and not self._polling.locked():
            self._work(self.poll())

    def reload_soon(self) -> None:
        """Fetch anew what the screen shows: it was scrolled, sorted or filtered."""
        if not self._again:
            self._again = True
            self._work(self._reload_front(anyway=True))

    async def poll(self) -> None:
        """Take one snapshot and show it. Never raises: a lost engine is shown as lost, and asked again."""
        async with self._polling:
            try:
                async with asyncio.timeout(PATIENCE):
                    overview = await self.client.overview(destinations=HEAD, events=HEAD)
            except (EngineUnreachable, TimeoutError):
                if self.lost_since is None:
                    self.lost_since = self.moment.now
            except Refused as error:
                self.tell(f"✗ {refused(error)}", "bad")
            else:
                self.overview, self.lost_since = overview, None
        if self.lost_since is None and self.overview is not None:
            await self._reload_front()
            await self._follow()
        elif self.lost_since is not None and self.front is not None and self.front.is_mounted:
            self.front.miss("not looked up: no engine answers")
        self.freshen()

    async def _follow(self) -> None:
        """Say what has become of the last order, unless something else is being said."""
        said = await self.following.look(self.client, self.moment.now)
        is_free = self.moment.now >= self._said_until or self._said[0] in ("", self.following.told)
        if said is not None and is_free:
            self.following.told = said[0]
            self.tell(*said)

    async def _reload_front(self, anyway: bool = False) -> None:
        self._again = False
        front = self.front
        if (
            front is None
            or self.overview is None
            or not front.is_mounted
            or (self.frozen_at is not None and not anyway)
        ):
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await front.reload(self.client)
        except TimeoutError:
            front.fail(f"the engine has not answered within {PATIENCE:.0f} s; it is asked again")
        except EngineUnreachable:
            if self.lost_since is None:
                self.lost_since = self.moment.now
        except Refused as error:
            front.fail(refused(error))
        else:
            if front.is_attached:
                front.show(self.moment)
        front.freshen()

    def freshen(self) -> None:
        """Tell health line, tabs, status and keys anew."""
        if self.front is not None:
            self.front.freshen()

    def tabs(self) -> list[tuple[str, str, str]]:
        """The screens of the top level: key, name, count."""
        seen = self.overview
        if seen is None:
            numbers = ["", "", "", "", "", ""]
        else:
            destinations = count(max(seen.health.destinations, len(seen.destinations)))
            waiting = count(seen.health.waiting + seen.health.held + seen.health.relaying)
            numbers = [destinations, waiting, str(len(seen.relayers)), str(len(seen.hosts)), "", ""]
        first = "Overview" if self.wide else "Destinations"
        names = [("1", first), ("2", "Queue"), ("3", "Relayers"), ("4", "Bad MX"), ("5", "Reasons"), ("6", "Events")]
        if self.wide:
            numbers[0] = ""
        return [(key, name, number) for (key, name), number in zip(names, numbers, strict=True)]

    def status(self) -> Piece:
        """What the status line says on its left."""
        now = self.moment.now
        text, style = self._said if now < self._said_until else ("", "")
        result = self.undoable
        if result is not None and result.undo_until is not None:
            left = result.undo_until - now
            if left > 0:
                return f"✓ {verbs.coming(result)} in {left:.0f} s, u undoes", "warn"
            self.undoable, self._said_until = None, 0.0  # what it said is over
            return "", ""
        return text, style

    def tell(self, text: str, style: str = "") -> None:
        """Say something in the status line."""
        self._said, self._said_until = (text, style), self.moment.now + SAID_FOR
        self.freshen()

    def report(self, result: ResultView) -> None:
        """Say exactly what an action did, and see what it changed."""
        can_undo = result.operation and result.undo_until is not None
        if can_undo or result.verb == "undo":
            self.undoable = result if can_undo else None
        skipped = f", {plural(result.skipped, 'was', 'were')} skipped" if result.skipped else ""
        said = f"✓ {verbs.summary(result)}{'' if 'skipped' in result.text else skipped}"
        self.following.begin(result, said, self.moment.now)
        self.tell(said, "good")
        self.poll_soon()

    # -- what is done ---------------------------------------------------------------------------------------------

    def action_run(self, name: str, argument: str = "") -> None:
        """Do what the registry calls `name`."""
        handler = self._handlers.get(name) if name in self.registry else None
        if handler is None:
            return
        try:
            doing = handler(argument)
        except Exception as error:  # noqa: BLE001 (a key's exception would end the app)
            self._stumble(error)
            return
        if doing is not None:
            self._work(doing)

    def _work(self, doing: Coroutine[Any, Any, None]) -> None:
        self.run_worker(self._guarded(doing), exit_on_error=False)

    async def _guarded(self, doing: Coroutine[Any, Any, None]) -> None:
        """Whatever goes wrong is said in the status line; it must not take the console away."""
        try:
            await doing
        except Refused as error:
            self.tell(f"✗ {refused(error)}", "bad")
        except EngineUnreachable:
            self.tell("✗ not done: no engine answers", "bad")
        except verbs.Mistyped as error:
            self.tell(f"✗ {error}", "bad")
        except Exception as error:  # noqa: BLE001 (a worker's exception would end the app, and the view of the mail)
            self._stumble(error)

    def _stumble(self, error: Exception) -> None:
        # The error's text may hold an address or worse: its name will do here.
        self.tell(f"✗ the console stumbled ({type(error).__name__}); it goes on", "bad")

    def _handled(self) -> dict[str, Callable[[str], Coroutine[Any, Any, None] | None]]:
        return {
            "check": lambda _: verbs.check(self),
            "retry": lambda text: verbs.mail(self, "retry", text),
            "hold": lambda text: verbs.mail(self, "hold", text),
            "release": lambda text: verbs.mail(self, "release", text),
            "bounce": lambda text: verbs.mail(self, "bounce", text),
            "drop": lambda text: verbs.mail(self, "drop", text),
            "suspend": lambda text: verbs.suspend(self, text),
            "resume": lambda text: verbs.resume(self, text),
            "bad": lambda text: verbs.mark_bad(self, text),
            "good": lambda text: verbs.mark_good(self, text),
            "undo": lambda _: verbs.undo(self),
            "explain": lambda text: steering.explain(self, text),
            "probe": lambda text: steering.probe(self, text),
            "close": lambda text: steering.close(self, text),
            "override": lambda text: steering.override(self, text),
            "hold_rule": lambda text: steering.hold_rule(self, text),
            "end": lambda text: steering.end(self, text),
            "mark": lambda _: moving.mark(self),
            "all": lambda _: moving.mark_all(self),
            "filter": self._filter,
            "sort": lambda text: moving.sort(self, text),
            "freeze": lambda _: moving.freeze(self),
            "open": lambda text: moving.open_named(self, text),
            "back": lambda _: moving.back(self),
            "next": lambda _: moving.step(self, 1),
            "previous": lambda _: moving.step(self, -1),
            "overview": lambda _: moving.go(self, "overview"),
            "queue": lambda text: moving.go(self, "queue", text),
            "relayers": lambda text: moving.go(self, "relayers", text),
            "hosts": lambda text: moving.go(self, "hosts", text),
            "reasons": lambda text: moving.go(self, "reasons", text),
            "events": lambda text: moving.go(self, "events", text),
            "overrides": lambda _: self.open_answer(OverridesScreen()),
            "command": lambda _: self._prompt("command"),
            "palette": lambda _: self._palette(),
            "help": lambda _: self._help(),
            "quit": lambda _: self._quit(),
        }

    def pointed(self) -> Target | None:
        """What verbs act on."""
        return self.front.target() if self.front is not None else None

    async def ask(self, dialog: Dialog) -> dict[str, str] | None:
        """Put a question; None when it was answered with Cancel."""
        return await self.push_screen_wait(dialog)

    async def choose(self, choice: Choose) -> str | None:
        """Let one be chosen; None when none was."""
        return await self.push_screen_wait(choice)

    # -- drilling in ---------------------------------------------------------------------------------------------

    def open_destination(self, name: str) -> None:
        """Drill into a destination."""
        self._enter(DestinationScreen(name))

    def open_message(self, number: int) -> None:
        """Drill into a message."""
        front = self.front
        way = (front.crumbs() or [self._name_of(front)]) if front is not None else []
        self._enter(MessageScreen(number, way))

    def open_relayer(self, number: int, host: str) -> None:
        """Drill into a connection."""
        self._enter(RelayerScreen(number, host))

    def open_reason(self, why: str) -> None:
        """Drill into the mail that waits for one reason."""
        self._enter(ReasonScreen(why))

    def open_host(self, host: str) -> None:
        """Drill into a mail exchange."""
        self._enter(HostScreen(host))

    def open_answer(self, screen: Front) -> None:
        """Show an answer, in place of the one that is shown."""
        if isinstance(self.screen, Answer):
            self.pop_screen()
        self._enter(screen)

    def _name_of(self, front: Front) -> str:
        return next((name for key, name, _ in self.tabs() if key == front.tab), "")

    def _enter(self, screen: Front) -> None:
        self.frozen_at = None
        self.push_screen(screen)

    # -- asking ---------------------------------------------------------------------------------------------------

    def _filter(self, text: str) -> Coroutine[Any, Any, None] | None:
        if text:
            return self.filter_front(text)
        self._prompt("filter")
        return None

    async def filter_front(self, text: str) -> None:
        """Filter the screen one looks at. Raises Refused."""
        if self.front is not None:
            await self.front.set_filter(text)

    def on_key(self, event: events.Key) -> None:
        """What was typed at once with the key that opened the prompt went by it: it is typed anew.

        A line that was held up gives many keys in one go, and all but the first would be keys of the list.
        """
        front = self.front
        if front is not None and front.has_class("asking") and event.time < self._asking_since:
            event.prevent_default()
            event.stop()
            self.post_message(events.Key(event.key, event.character))

    def _prompt(self, kind: str) -> None:
        front = self.front
        if front is None:
            return
        prompt = front.query_one(Prompt)
        if kind == "command":
            prompt.open("command")
        elif front.filter_help is None:
            self.tell("there is nothing to filter here", "dim")
            return
        else:
            prompt.filter_help = front.filter_help
            prompt.open("filter", front.filter)
        front.add_class("asking")
        self._asking_since = time.monotonic()  # as the events of the keys have it

    def on_prompt_submitted(self, event: Prompt.Submitted) -> None:
        front = self.front
        if front is None:
            return
        prompt = front.query_one(Prompt)
        if event.kind == "filter":
            self._work(self._try_filter(front, prompt, event.text))
            return
        action, rest = self.registry.command(event.text)
        if action is None and event.text:
            prompt.refuse("no such command; ? lists them all")
            return
        prompt.close()
        if action is not None:
            self.call_after_refresh(self.action_run, action.name, rest)

    async def _try_filter(self, front: Front, prompt: Prompt, text: str) -> None:
        try:
            await front.set_filter(text)
        except Refused as error:
            prompt.refuse(refused(error))
        else:
            prompt.close()

    async def _palette(self) -> None:
        name = await self.push_screen_wait(Palette(self.registry))
        if name is not None:
            self.action_run(name)

    def _help(self) -> None:
        self.push_screen(Help(self.registry))

    def action_help_quit(self) -> None:
        """ctrl+c is pressed by habit: it says how to leave, and does nothing."""
        self.tell("q leaves the console", "dim")

    async def action_quit(self) -> None:
        """ctrl+q does as q does."""
        self.action_run("quit")

    async def _quit(self) -> None:
        if not self.engine_inside:
            self.exit()
            return
        said = (
            "The relay runs inside this console. Quitting drains it: what is being sent is finished, then it stops. "
            "What waits stays in the spool and goes on at the next start."
        )
        body = [
            Para(),
            para((f"  {said}", ""), hang=2),
            Para(),
        ]
        if await self.ask(Dialog("Quit and stop the relay?", body, ok="Quit and stop", danger=True)) is not None:
            self.exit()


def refused(error: Refused) -> str:
    """Why the engine did not do it: what is wrong, where, and what is allowed."""
    refusal = error.refusal
    said = ": ".join(part for part in (refusal.where, refusal.what) if part)
    return f"{said} (allowed: {refusal.allowed})" if refusal.allowed else said
