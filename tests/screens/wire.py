"""What a console sends: a driver that keeps it, and a terminal that draws it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC

from rich.cells import cell_len
from textual.drivers.headless_driver import HeadlessDriver

from console.app import Console
from console.frame import Cell, Frame
from tests.screens.canned import NOW, CannedClient
from tests.screens.conftest import Hand

_PART = re.compile(
    r"\x1b\[(?P<what>[?\d;]*)(?P<verb>[A-Za-z])|\x1b\](?P<title>[^\x07]*)\x07|(?P<char>[^\x1b])", re.DOTALL
)


class Recorder(HeadlessDriver):
    """A driver of no terminal that keeps what it was given to send."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.sent = ""

    @property
    def is_headless(self) -> bool:
        return False

    def write(self, data: str) -> None:
        self.sent += data


class Drawn:
    """A terminal: what stands on it after all that was sent. It knows the sequences that the console uses."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.lines: list[list[Cell]] = [[(" ", "")] * width for _ in range(height)]
        self._x = self._y = 0
        self._codes = ""

    def take(self, sent: str) -> None:
        at = 0
        for part in _PART.finditer(sent):
            assert part.start() == at, f"a sequence nobody knows: {sent[at : at + 20]!r}"
            at = part.end()
            if part["verb"] is not None:
                self._obey(part["verb"], part["what"])
            elif part["char"] is not None:
                self._draw(part["char"])
        assert at == len(sent)

    def _obey(self, verb: str, what: str) -> None:
        if verb == "H":
            self._y, self._x = (int(number) - 1 for number in (what or "1;1").split(";"))
        elif verb == "m":
            self._codes = what.removeprefix("0;")
        elif verb == "K":
            self.lines[self._y][self._x :] = [(" ", "")] * (self.width - self._x)
        else:
            assert what.startswith("?") or verb in "ht", (what, verb)

    def _draw(self, char: str) -> None:
        line = self.lines[self._y]
        width = cell_len(char)
        if not width:
            at = self._x - 1 if line[self._x - 1][0] else self._x - 2
            line[at] = (line[at][0] + char, line[at][1])
            return
        line[self._x : self._x + width] = [(char, self._codes), *[("", self._codes)] * (width - 1)]
        self._x += width


def picture(app: Console) -> list[list[Cell]]:
    """What ought to stand on the terminal."""
    drawn = Drawn(*app.size)
    update = app.screen._compositor.render_full_update()
    drawn.take(Frame().changes(update, app.console))
    return drawn.lines


class WiredHand(Hand):
    """An operator whose console sends what it draws."""

    @property
    def driver(self) -> Recorder:
        assert isinstance(self.app._driver, Recorder)
        return self.app._driver

    async def second(self) -> int:
        """Let a second pass, and the console look at the engine; give how many bytes that took."""
        before = len(self.driver.sent.encode())
        await self.after(1)
        return len(self.driver.sent.encode()) - before


@asynccontextmanager
async def wired(client: CannedClient | None = None, size: tuple[int, int] = (120, 40)) -> AsyncIterator[WiredHand]:
    """The console on a canned client, with a terminal that can draw a frame at once."""
    clock = [NOW]
    client = client or CannedClient()
    app = Console(client, clock=lambda: clock[0], tz=UTC, poll_seconds=None)
    app.driver_class = Recorder
    async with app.run_test(size=size, headless=False) as pilot:
        app._sync_available = True
        hand = WiredHand(app, client, pilot, clock)
        await hand.rest()
        yield hand
