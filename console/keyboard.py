"""The keyboard: keys are done one after the other, each for what stands on the screen once the one before is done.

Textual hands each key to the widget that has the focus and lets it bubble from queue to queue, so that of keys that
come in one read (a line that was held up, a macro) a later one may be done before an earlier one. Here a key is done
at once and whole, and while something is about to open (a screen without its first rows, a question behind a preview)
the keys that follow wait for it: the operator pressed them for what was to come.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from textual import events
from textual.app import App, ReturnType
from textual.errors import NoWidget
from textual.events import InputEvent, Paste

from console.widgets.field import Field

HOLD = 5.0  # seconds that keys wait for what is opening; those that waited are then dropped, and done for nothing else
MOST = 1_000  # keys that wait; a person types no more ahead
POINTED_WITHIN = 1.0  # seconds a widget may take to do what the mouse asked of it, before the next key is done

Stroke = InputEvent | Paste
"""What an operator does: a key, something pasted, the mouse."""


class Hold:
    """While taken, keys wait. `is_late`: they waited in vain, and what they waited for is not to come up any more."""

    def __init__(self, taken: "set[Hold]", changed: Callable[[], None]) -> None:
        self.is_late = False
        self._taken = taken
        self._changed = changed

    def take(self) -> None:
        """Have the keys wait, again or for the first time."""
        self._taken.add(self)

    def release(self) -> None:
        """Let the keys go on."""
        self._taken.discard(self)
        self._changed()


class Keyboard:
    """Does what was pressed, in order. `do` does one stroke; `is_ready` says whether the screen in front can take one.

    `give_up` is told how many strokes were dropped because what they were for did not open within HOLD seconds. What
    bears on `is_ready` is told by `changed`.
    """

    def __init__(
        self,
        do: Callable[[Stroke], Awaitable[None]],
        is_ready: Callable[[Stroke], bool],
        give_up: Callable[[int], None],
    ) -> None:
        self._do = do
        self._is_ready = is_ready
        self._give_up = give_up
        self._strokes: deque[Stroke] = deque()
        self._holds: set[Hold] = set()
        self._changed = asyncio.Event()

    def put(self, stroke: Stroke) -> None:
        """Take what was pressed."""
        if len(self._strokes) < MOST:
            self._strokes.append(stroke)
            self._changed.set()

    def changed(self) -> None:
        """Something may be ready that was not."""
        self._changed.set()

    def hold(self) -> Hold:
        """Have the keys wait until this is released."""
        hold = Hold(self._holds, self.changed)
        hold.take()
        return hold

    async def run(self) -> None:
        """Do what is pressed, until cancelled."""
        while True:
            while not self._strokes:
                await self._change()
            if await self._steady():
                await self._do(self._strokes.popleft())
                await asyncio.sleep(0)  # keys that repeat must leave the screen time to be drawn
            else:
                dropped = len(self._strokes)
                self._strokes.clear()
                self._give_up(dropped)

    async def _steady(self) -> bool:
        """Wait until nothing is opening; False when that took too long."""
        try:
            async with asyncio.timeout(HOLD):
                while not self._is_steady():
                    await self._change()
        except TimeoutError:
            for hold in self._holds:
                hold.is_late = True
            self._holds.clear()
            return False
        return True

    def _is_steady(self) -> bool:
        return not self._holds and self._is_ready(self._strokes[0])

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class KeyedApp(App[ReturnType]):
    """An app whose keys are done in order. It says what `is_ready`, and what comes of `not_taken` and `stumble`."""

    def __init__(self, *, ansi_color: bool = False) -> None:
        super().__init__(ansi_color=ansi_color)
        self.keyboard = Keyboard(self._do, self._can_take, self.not_taken)
        self._typing: asyncio.Task[None] | None = None

    def is_ready(self, stroke: Stroke) -> bool:  # noqa: ARG002 (for those who know what it is for)
        """Whether the screen in front can take this."""
        return self.screen.is_mounted

    def not_taken(self, strokes: int) -> None:
        """So many were dropped."""

    def stumble(self, error: Exception) -> None:
        """What a key did has raised this."""
        raise error

    def begin_typing(self) -> None:
        """From now on what is pressed is done; what was pressed before is done first."""
        self._typing = asyncio.create_task(self.keyboard.run(), name="keyboard")

    def end_typing(self) -> None:
        """Nothing more is done."""
        if self._typing is not None:
            self._typing.cancel()

    async def on_event(self, event: events.Event) -> None:
        """Keys and what the mouse does go by the keyboard, in order; all else as ever."""
        is_stroke = isinstance(event, events.Key | events.MouseEvent) and not isinstance(event, events.MouseMove)
        if (is_stroke or isinstance(event, events.Paste)) and not event.is_forwarded:
            self.keyboard.put(event)  # type: ignore[arg-type]
        else:
            await super().on_event(event)

    def _can_take(self, stroke: Stroke) -> bool:
        """Whether the screen in front can take this; a fault of ours in that must not make the keyboard deaf."""
        try:
            return self.is_ready(stroke)
        except Exception as error:  # noqa: BLE001 (it would end the keyboard)
            self.stumble(error)
            return False

    async def _do(self, stroke: Stroke) -> None:
        """Do what was pressed, whole."""
        try:
            if isinstance(stroke, events.Key):
                await self._press(stroke)
            elif isinstance(stroke, events.Paste):
                if isinstance(self.focused, Field):
                    self.focused.paste(stroke.text)
            elif isinstance(stroke, events.MouseEvent):
                await self._point(stroke)
        except Exception as error:  # noqa: BLE001 (a key's exception would end the keyboard)
            self.stumble(error)

    async def _press(self, key: events.Key) -> None:
        """Type it into the field that has the focus, or do what it is bound to."""
        self.app_focus = True  # as Textual has it: who types is there
        field = self.focused
        if isinstance(field, Field) and field.take(key):
            return
        bound = self.screen.active_bindings.get(key.key)
        if bound is not None and bound.enabled:
            await self.run_action(bound.binding.action, bound.node)

    async def _point(self, mouse: events.MouseEvent) -> None:
        """Hand it to the widget under the mouse, and wait until that has done it: the next key is for what is then."""
        await super().on_event(mouse)
        try:
            widget, _ = self.get_widget_at(mouse.x, mouse.y)
        except NoWidget:
            return
        done = asyncio.Event()
        if widget.call_later(done.set):
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), POINTED_WITHIN)
