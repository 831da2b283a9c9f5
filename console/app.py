"""The console: a client of the control socket, drawn on a terminal."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any, TypeVar

from rich.traceback import Traceback
from textual import events
from textual.binding import Binding
from textual.screen import Screen

from console import exits, faults, navigation, prompts, questions, terminal, verbs
from console.actions import Registry, Target
from console.follow_up import FollowUp
from console.format import Moment, count, safe
from console.frame import SparingApp
from console.keyboard import Hold, KeyedApp, Stroke
from console.layer import Layer
from console.preferences import Preferences
from console.screens.answers import Answer, OverridesScreen
from console.screens.details import HostScreen, MessageScreen, RelayerScreen
from console.screens.front import Front
from console.screens.lists import TOP, Overview
from console.screens.palette import Help
from console.screens.queue import DestinationScreen, QueueScreen, ReasonScreen
from console.widgets.foot import ONLY_LOOKS, Kind, Prompt
from console.widgets.line import Piece
from console.widgets.panes import bad_hosts
from engine.base.plural import plural
from engine.control.client import Client, EngineUnreachable, Refused
from engine.control.views import OverviewView
from engine.model.verbs import VERBS, Result

WIDE = (110, 30)  # columns and rows from which the four panes stand side by side
HEAD = 100  # destinations and events asked for with each snapshot
PATIENCE = 8.0  # seconds a look at the engine may take before it counts as lost
SENDING = frozenset({"MAIL", "RCPT", "DATA", "body", "reply"})  # phases of a connection that carries a message
SAID_FOR = 30.0  # seconds the result of an action stays in the status line

R = TypeVar("R")
Doing = Coroutine[Any, Any, None]
Handler = Callable[[str, Target | None], Doing | None]

_HOLD: ContextVar[Hold] = ContextVar("hold")  # of the keys, by what a worker does


class Console(KeyedApp[None], SparingApp[None]):
    """The operator's console.

    `client` is opened and closed here; whether it may only look the engine says. `engine_inside`: the engine runs in
    this process, so that leaving stops it; `is_demo`: and its spool is deleted then.
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
        engine_inside: bool = False,
        is_demo: bool = False,
        preferences: Preferences | None = None,
        clock: Callable[[], float] = time.time,
        tz: tzinfo | None = None,
        poll_seconds: float | None = 1.0,
    ) -> None:
        # The terminal's own sixteen colours on its own background; said here, NO_COLOR takes them away cleanly.
        super().__init__(ansi_color=True)
        self.client = client
        self.engine_inside = engine_inside
        self.is_demo = is_demo
        self.preferences = preferences or Preferences()
        self.registry = Registry()
        self.overview: OverviewView | None = None
        self.lost_since: float | None = None
        self.seen_at = 0.0  # when the engine answered last
        self.frozen_at: float | None = None
        self.undoable: Result | None = None
        self.following = FollowUp()
        self._clock = clock
        self._tz = tz or datetime.now(UTC).astimezone().tzinfo or UTC
        self._poll_seconds = poll_seconds
        self._polling = asyncio.Lock()
        self._again = False
        self._said: Piece = ("", "")
        self._said_until = 0.0
        self._answer: Callable[[], Front] | None = None
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
        self.begin_typing()
        if not self.is_headless:
            terminal.answer_stops(self)
        self.app_resume_signal.subscribe(self, lambda _: self.redraw())  # after fg the terminal is empty

    async def on_unmount(self) -> None:
        self.end_typing()
        await self._open.aclose()

    def leave(self, status: int = 0) -> None:
        """Leave the console, from its own loop; whoever handles signals calls this through `call_soon_threadsafe`."""
        self.exit(return_code=status)

    def _fatal_error(self) -> None:
        """What is broken beyond help: without the values of variables, which may be passwords and addresses."""
        if (error := sys.exception()) is not None:
            faults.note(error)
        trace = Traceback(show_locals=False, width=None)
        self.panic(trace)

    @property
    def read_only(self) -> bool:
        """Whether this console may only look, as the engine says."""
        return self.registry.read_only

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
            self.stumble(error)
        self.poll_soon()

    def tick(self) -> None:
        """A second has passed: countdowns go on, but for those of an engine that is lost: nobody knows of them."""
        front = self.front
        if front is not None and front.is_mounted and self.frozen_at is None and self.lost_since is None:
            front.tick(self.moment)
        self.freshen()

    def being_sent(self) -> int:
        """How many messages were being sent when the engine was seen last: each connection sends one at a time."""
        relayers = self.overview.relayers if self.overview is not None else ()
        return sum(row.phase in SENDING for row in relayers)

    def poll_soon(self) -> None:
        """Ask the engine how things are, unless that is under way."""
        if self.is_running and not self._polling.locked():
            self._work(self.poll())

    def reload_soon(self) -> None:
        """Fetch anew what the screen shows: it was opened, or scrolled."""
        if not self._again:
            self._again = True
            self._work(self.reload())

    async def reload(self) -> None:
        """Fetch anew what the screen shows, also of a view that is frozen."""
        if self.lost_since is not None:
            self._again = False
            self._miss()
        else:
            await self._reload_front(anyway=True)

    async def poll(self) -> None:
        """Take one snapshot and show it. Never raises: a lost engine is shown as lost, and asked again."""
        async with self._polling:
            try:
                async with asyncio.timeout(PATIENCE):
                    overview = await self.client.overview(destinations=HEAD, hosts=HEAD, events=HEAD)
            except (EngineUnreachable, TimeoutError):
                if self.lost_since is None:
                    self.lost_since = self.moment.now
            except Refused as error:
                self.tell(f"✗ {verbs.refused(error)}", "bad")
            else:
                before, self.overview = self.overview, overview
                self.lost_since, self.seen_at = None, self.moment.now
                self._tell_new(before, overview)
                if overview.health.read_only != self.registry.read_only:
                    self.registry.become(overview.health.read_only)
        if self.lost_since is None and self.overview is not None:
            await self._reload_front()
            await self._follow()
        elif self.lost_since is not None:
            self._miss()
        self.freshen()

    def _tell_new(self, before: OverviewView | None, now: OverviewView) -> None:
        """Say what of the engine's notes was not among them before: that a bound is reached, say."""
        is_free = self.moment.now >= self._said_until or not self._said[0]
        new = [note for note in now.health.notes if before is not None and note not in before.health.notes]
        if new and is_free:
            self.tell(f"▲ {safe(new[0])}", "warn")

    def _miss(self) -> None:
        if self.front is not None and self.front.is_mounted:
            self.front.miss("not looked up: no engine answers")
            self._loaded(self.front)

    async def _follow(self) -> None:
        """Say what has become of the last order, unless something else is being said."""
        said = await self.following.look(self.client, self.moment.now)
        is_free = self.moment.now >= self._said_until or self._said[0] in ("", self.following.text)
        if said is not None and is_free:
            self.following.text = said[0]
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
        trouble = ""
        try:
            async with asyncio.timeout(PATIENCE):
                await front.reload(self.client)
        except TimeoutError:
            trouble = f"the engine has not answered within {PATIENCE:.0f} s; it is asked again"
        except EngineUnreachable:
            if self.lost_since is None:
                self.lost_since = self.moment.now
        except Refused as error:
            trouble = verbs.refused(error)
        if front not in self.screen_stack:
            return  # it was left meanwhile, and its parts are being taken away
        if trouble:
            front.fail(trouble)
        elif self.lost_since is None:
            front.show(self.moment)
        self._loaded(front)
        front.freshen()

    def _loaded(self, front: Front) -> None:
        """What a screen shows is there, or it was said why not: keys that waited for it go on."""
        front.is_loaded, front.is_given_up = True, False
        self.keyboard.changed()

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
            numbers = [destinations, waiting, str(len(seen.relayers)), count(bad_hosts(seen)), "", ""]
        first = "Overview" if self.wide else "Destinations"
        names = [("1", first), ("2", "Queue"), ("3", "Relayers"), ("4", "Bad MX"), ("5", "Reasons"), ("6", "Events")]
        if self.wide:
            numbers[0] = ""
        tabs = [(key, name, number) for (key, name), number in zip(names, numbers, strict=True)]
        nodes = seen.health.nodes if seen is not None else 0
        front = self.front
        if nodes or (front is not None and front.tab == "8"):
            tabs.append(("8", "Nodes", str(nodes or "")))
        return tabs

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

    def report(self, result: Result) -> None:
        """Say exactly what an action did, and see what it changed."""
        can_undo = result.operation and result.undo_until is not None
        if can_undo or result.verb == "undo":
            self.undoable = result if can_undo else None
        skipped = f", {plural(result.skipped, 'was', 'were')} skipped" if result.skipped else ""
        said = f"✓ {verbs.summary(result)}{'' if 'skipped' in result.text else skipped}"
        self.following.begin(result, said, self.moment.now)
        self.tell(said, "good")
        self.poll_soon()

    # -- the keyboard ---------------------------------------------------------------------------------------------

    def is_ready(self, stroke: Stroke) -> bool:
        """Whether the screen in front can take it: what is for a row waits for the first rows."""
        screen = self.screen
        if not screen.is_mounted or not isinstance(screen, Front):
            return screen.is_mounted
        if not isinstance(stroke, events.Key):
            return screen.is_settled
        if screen.is_asking:  # a command may be for the row that is pointed at when it is entered
            return stroke.key != "enter" or screen.is_settled
        action = self.registry.keyed(stroke.key)
        return screen.is_settled or (action is not None and not action.waits)

    def not_taken(self, strokes: int) -> None:
        """Say that keys were dropped; those that follow do not wait for the same thing again."""
        if self.front is not None:
            self.front.is_given_up = True
        keys = "the key pressed was" if strokes == 1 else f"{strokes:,} keys pressed were"
        self.tell(f"✗ the engine is slow: {keys} not taken", "warn")

    def go_on(self) -> None:
        """What is being done asks nothing: the keys behind it need not wait."""
        _HOLD.get().release()

    # -- what is done ---------------------------------------------------------------------------------------------

    def action_run(self, name: str, argument: str = "") -> None:
        """Do what the registry calls `name`, to what is pointed at now: by the time it is done the cursor may move."""
        self.run_on(self.pointed(), name, argument)

    def run_on(self, target: Target | None, name: str, argument: str = "") -> None:
        """Do what the registry calls `name`, to this."""
        handler = self._handlers.get(name) if name in self.registry else None
        if handler is None:
            if (withheld := self.registry.withheld(name)) is not None:
                self.tell(f"✗ {withheld.label}: {ONLY_LOOKS}", "warn")
            return
        try:
            doing = handler(argument, target)
        except Exception as error:  # noqa: BLE001 (a key's exception would end the app)
            self.stumble(error)
            return
        if doing is not None:
            self.hold_keys(doing)

    def hold_keys(self, doing: Doing) -> None:
        """Do something that may open a screen or ask: keys that are pressed from now on wait for that."""
        self._work(doing, self.keyboard.hold())

    def _work(self, doing: Doing, hold: Hold | None = None) -> None:
        self.run_worker(self._guarded(doing, hold), exit_on_error=False)

    async def _guarded(self, doing: Doing, hold: Hold | None) -> None:
        """Whatever goes wrong is said in the status line; it must not take the console away."""
        if hold is not None:
            _HOLD.set(hold)
        try:
            await doing
        except Refused as error:
            self.tell(f"✗ {verbs.refused(error)}", "bad")
        except EngineUnreachable:
            self.tell("✗ not done: no engine answers", "bad")
        except (verbs.Mistyped, verbs.TooLate) as error:
            self.tell(f"✗ {error}", "bad")
        except Exception as error:  # noqa: BLE001 (a worker's exception would end the app, and the view of the mail)
            self.stumble(error)
        finally:
            if hold is not None:
                hold.release()

    def stumble(self, error: Exception) -> None:
        """Say that something of ours broke, and go on."""
        # The error's text may hold an address or worse: its name will do here.
        self.tell(f"✗ the console stumbled ({type(error).__name__}); it goes on{faults.note(error)}", "bad")

    def _handled(self) -> dict[str, Handler]:
        return {
            **{verb.word: partial(verbs.do, self, verb) for verb in VERBS},
            "explain": partial(questions.explain, self),
            "probe": partial(questions.probe, self),
            "mark": lambda _, __: navigation.mark(self),
            "all": lambda _, __: navigation.mark_all(self),
            "filter": lambda text, _: prompts.filter_by(self, text),
            "sort": lambda text, _: navigation.sort(self, text),
            "freeze": lambda _, __: navigation.freeze(self),
            "answer": lambda _, __: self._show_answer(),
            "open": lambda text, _: navigation.open_named(self, text),
            "back": lambda _, __: navigation.back(self),
            "next": lambda _, __: navigation.step(self, 1),
            "previous": lambda _, __: navigation.step(self, -1),
            "overview": lambda _, __: navigation.go(self, "overview"),
            "queue": lambda text, _: navigation.go(self, "queue", text),
            "relayers": lambda text, _: navigation.go(self, "relayers", text),
            "hosts": lambda text, _: navigation.go(self, "hosts", text),
            "reasons": lambda text, _: navigation.go(self, "reasons", text),
            "events": lambda text, _: navigation.go(self, "events", text),
            "nodes": lambda text, _: navigation.go(self, "nodes", text),
            "overrides": lambda _, __: self.open_answer(OverridesScreen()),
            "command": lambda _, __: prompts.prompt(self, "command"),
            "palette": lambda _, __: prompts.palette(self),
            "help": lambda _, __: self._help(),
            "redraw": lambda _, __: self.redraw(),
            "background": lambda _, __: exits.background(self),
            "quit": lambda _, __: exits.leave(self),
        }

    def pointed(self) -> Target | None:
        """What verbs act on."""
        return self.front.target() if self.front is not None else None

    async def ask(self, dialog: Layer[dict[str, str] | None]) -> dict[str, str] | None:
        """Put a question; None when it was answered with Cancel. Raises TooLate."""
        return await self._put(dialog)

    async def choose(self, choice: Layer[str | None]) -> str | None:
        """Let one be chosen; None when none was. Raises TooLate."""
        return await self._put(choice)

    async def _put(self, layer: Layer[R]) -> R | None:
        """Put a question. Keys wait until it is there, and when it is answered until it is known whether more is asked.

        Raises TooLate when the operator has gone on meanwhile.
        """
        hold = _HOLD.get()
        if hold.is_late or isinstance(self.screen, Layer) or (self.front is not None and self.front.is_asking):
            raise verbs.TooLate
        layer.answered = hold.take
        answer = self.push_screen(layer, wait_for_dismiss=True)
        hold.release()
        try:
            return await asyncio.shield(answer)
        finally:
            asyncio.get_running_loop().call_soon(hold.release)

    # -- drilling in ---------------------------------------------------------------------------------------------

    def open_destination(self, name: str) -> None:
        """Drill into a destination."""
        self._enter(DestinationScreen(name))

    def open_message(self, number: int) -> None:
        """Drill into a message."""
        front = self.front
        way = (front.crumbs() or [self._name_of(front)]) if front is not None else []
        self._enter(MessageScreen(number, way))

    def open_relayer(self, number: int, host: str, node: str = "") -> None:
        """Drill into a connection, of the node named."""
        self._enter(RelayerScreen(number, host, node))

    def open_reason(self, why: str) -> None:
        """Drill into the mail that waits for one reason."""
        self._enter(ReasonScreen(why))

    def open_host(self, host: str) -> None:
        """Drill into a mail exchange."""
        self._enter(HostScreen(host))

    def answer(self, what: str, make: Callable[[], Front], asked_at: Front | None, target: Target | None) -> None:
        """Show an answer where it was asked for. Whoever types, or has gone on meanwhile, is told that it is there."""
        self._answer = make
        front = self.front
        is_still_there = front is asked_at and not isinstance(self.screen, Layer)
        if is_still_there and front is not None and not front.is_asking and _same(self.pointed(), target):
            self.tell("")
            self.open_answer(make())
        else:
            self.tell(f"✓ {what} is done: o shows it", "good")

    def _show_answer(self) -> None:
        if self._answer is None:
            self.tell("there is no answer yet: e explains what is pointed at, i probes a host", "dim")
        else:
            self.open_answer(self._answer())

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

    async def filter_front(self, text: str) -> None:
        """Filter the screen one looks at. Raises Refused."""
        if self.front is not None:
            await self.front.set_filter(text)

    def entered(self, kind: Kind, text: str) -> None:
        """A filter or a command was typed and entered."""
        prompts.entered(self, kind, text)

    def complete(self, line: Prompt) -> None:
        """Complete what is being typed."""
        self.hold_keys(prompts.complete(self, line))

    def _help(self) -> None:
        self.push_screen(Help(self.registry))

    def action_help_quit(self) -> None:
        """ctrl+c is pressed by habit: it says how to leave, and does nothing."""
        self.tell("q leaves the console", "dim")

    async def action_quit(self) -> None:
        """ctrl+q does as q does."""
        self.action_run("quit")


def _same(one: Target | None, other: Target | None) -> bool:
    return (one and one.what) == (other and other.what)
