"""The keyboard: keys are done one after the other, each for what stands on the screen once the one before is done.

Textual hands each key to the widget that has the focus and lets it bubble from queue to queue, so that of keys that
come in one read (a line that was held up, a macro) a later one may be done before an earlier one. Here a key is done
at once and whole, and while something is about to open (a screen without its first rows, a question behind a preview)
the keys that follow wait for it: the operator pressed them for what was to come.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from textual.events import InputEvent, Paste

HOLD = 5.0  # seconds that keys wait for what is opening; those that waited are then dropped, and done for nothing else
MOST = 1_000  # keys that wait; a person types no more ahead

Stroke = InputEvent | Paste
"""What an operator does: a key, something pasted, the mouse."""


class Hold:
    """While held, keys wait. `is_late`: they waited in vain, and what they waited for is not to come up any more."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.is_held = True
        self.is_late = False
        self._changed = changed

    def take(self) -> None:
        """Have the keys wait again."""
        self.is_held = True

    def release(self) -> None:
        """Let the keys go on."""
        self.is_held = False
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
        self._holds: list[Hold] = []
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
        hold = Hold(self.changed)
        self._holds.append(hold)
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
                hold.is_held, hold.is_late = False, True
            return False
        return True

    def _is_steady(self) -> bool:
        self._holds = [hold for hold in self._holds if hold.is_held]
        return not self._holds and self._is_ready(self._strokes[0])

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
