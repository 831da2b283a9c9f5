"""A real terminal: tmux on a server of its own, whose screen a test reads and whose keys it presses."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.interop.needs import program


class Screen:
    """One tmux window of a fixed size."""

    def __init__(self, socket: Path) -> None:
        self._tmux = [program("tmux"), "-S", str(socket), "-f", "/dev/null"]

    def tmux(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], capture_output=True, text=True, check=True, timeout=10).stdout

    def text(self) -> str:
        """What stands on the screen now."""
        return self.tmux("capture-pane", "-p")

    async def press(self, *keys: str) -> None:
        """Press keys, by tmux's names for them."""
        await asyncio.to_thread(self.tmux, "send-keys", *keys)

    async def type(self, text: str) -> None:
        """Type text as it is."""
        await asyncio.to_thread(self.tmux, "send-keys", "-l", text)

    async def shows(self, *texts: str, seconds: float = 20) -> str:
        """Wait until all these texts stand on the screen; give the screen."""
        return await self.until(lambda screen: all(text in screen for text in texts), " and ".join(texts), seconds)

    async def until(self, so: Callable[[str], bool], what: str, seconds: float = 20) -> str:
        """Wait until the screen is so."""
        screen = ""
        try:
            async with asyncio.timeout(seconds):
                while not so(screen):
                    await asyncio.sleep(0.1)
                    screen = await asyncio.to_thread(self.text)
        except TimeoutError:
            raise AssertionError(f"the screen does not show {what}:\n{screen}") from None
        return screen


@asynccontextmanager
async def screen(folder: Path, command: Sequence[str], columns: int, lines: int) -> AsyncIterator[Screen]:
    """Run a command in a terminal of this size."""
    shown = Screen(folder / "tmux.sock")
    size = ("-x", str(columns), "-y", str(lines))
    await asyncio.to_thread(shown.tmux, "new-session", "-d", *size, *command)
    try:
        yield shown
    finally:
        subprocess.run([*shown._tmux, "kill-server"], capture_output=True, check=False, timeout=10)
