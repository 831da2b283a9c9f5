"""What a console costs: the bytes a second that each screen sends, and the processor time it takes

    idle        nothing comes in; much mail waits, for hosts that are dead or put it off, and some connections hang
    busy        the sandbox internet sends letters as fast as it is told to

The console is attached to an engine in a process of its own, in a pseudo-terminal that reads all and can draw a frame
at once. Budgets are 200 B/s for an idle screen and 8,192 B/s under load at 120x40.

    uv run python -m tests.bench.console wire [SECONDS [LETTERS_A_SECOND [WAITING]]]
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Script
from engine.sandbox.traffic import Traffic
from tests.serving import SMARTHOST, Served
from tests.terminals import on_a_terminal

SIZES = ((80, 24), (120, 40))
SCREENS: dict[str, tuple[str, ...]] = {
    "1 overview": ("1",),
    "2 queue": ("2",),
    "3 relayers": ("3",),
    "4 bad MX": ("4",),
    "5 reasons": ("5",),
    "6 events": ("6",),
    "destination": ("1", "\r"),
    "message": ("2", "\r"),
    "relayer": ("3", "\r"),
}
_QUIET = 75.0  # seconds until what was under way has ended, and rates are back at nothing
_SETTLED = 3.0  # seconds from the key on until a screen counts as idle
_ASKED = b"\x1b[?2026$p"  # "can you draw a frame at once?"
_CAN = b"\x1b[?2026;2$y"
_TICKS = os.sysconf("SC_CLK_TCK")

Figures = dict[tuple[str, str], tuple[float, float]]
"""Of each screen and size: bytes a second, and the share of a processor."""


class Terminal:
    """A console on a pseudo-terminal whose bytes are counted."""

    def __init__(self, relay: Served, columns: int, lines: int) -> None:
        self.size = f"{columns}x{lines}"
        self.taken = 0
        command: list[str | Path] = [SMARTHOST, "--config", relay.settings, "attach"]
        home = {"HOME": str(relay.settings.parent)}
        self._process, self._master = on_a_terminal(command, columns, lines, env=home)
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            data = os.read(self._master, 1 << 16)
            self.taken += len(data)
            if _ASKED in data:
                os.write(self._master, _CAN)

    async def press(self, *keys: str) -> None:
        """Press keys, one after the other, as a person does."""
        for key in keys:
            os.write(self._master, key.encode())
            await asyncio.sleep(0.7)

    def seconds_worked(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    async def measured(self, seconds: float) -> tuple[float, float]:
        """Bytes a second that come while nobody does anything, and the share of a processor that takes."""
        begin, before, worked = time.monotonic(), self.taken, self.seconds_worked()
        await asyncio.sleep(seconds)
        took = time.monotonic() - begin
        return (self.taken - before) / took, (self.seconds_worked() - worked) / took

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@asynccontextmanager
async def terminals(relay: Served) -> AsyncIterator[list[Terminal]]:
    """A console of each size on this relay."""
    opened = [Terminal(relay, columns, lines) for columns, lines in SIZES]
    try:
        await asyncio.sleep(_SETTLED)
        yield opened
    finally:
        for terminal in opened:
            terminal.close()


async def each_screen(relay: Served, seconds: float) -> Figures:
    """The figures of each screen in each size."""
    figures: Figures = {}
    async with terminals(relay) as opened:
        for name, keys in SCREENS.items():
            await asyncio.gather(*(terminal.press("\x1b", "\x1b", *keys) for terminal in opened))
            await asyncio.sleep(_SETTLED)
            measured = await asyncio.gather(*(terminal.measured(seconds) for terminal in opened))
            for terminal, figure in zip(opened, measured, strict=True):
                figures[name, terminal.size] = figure
    return figures


async def waits(relay: Served) -> int:
    """How many messages wait."""
    async with relay.client() as client:
        return (await client.health()).waiting


async def idle(seconds: float, waiting: int) -> Figures:
    """An engine with much mail that it can do nothing about for an hour."""
    async with Internet(clock=SystemClock()) as internet:
        for number in range(40):
            temper = (Dead(), Script({"MAIL": "451 4.7.1 come back later"}), Script({"MAIL": "421 4.7.0 too many"}))
            await internet.add(f"d{number}.example", mx=[(10, f"mx.d{number}.example", temper[number % 3])])
        for number in range(3):
            await internet.add(f"hole{number}.example", mx=[(10, f"mx.hole{number}.example", BlackHole())])
        async with relaying(internet, '[retry]\nschedule = ["1h"]') as relay:
            async with Traffic("127.0.0.1", relay.port, internet.weights, rate=300.0):
                while await waits(relay) < waiting:
                    await asyncio.sleep(0.5)
            await asyncio.sleep(_QUIET)
            figures = await each_screen(relay, seconds)
            say(f"idle: {await waits(relay):,} wait")
    return figures


async def busy(seconds: float, rate: float) -> Figures:
    """An engine in the sandbox internet, with as much mail as the machine and the rate allow."""
    async with Internet(clock=SystemClock()) as internet:
        await internet.populate()
        async with (
            relaying(internet) as relay,
            Traffic("127.0.0.1", relay.port, internet.weights, rate=rate) as traffic,
        ):
            await asyncio.sleep(10)
            begin, sent = time.monotonic(), traffic.sent
            figures = await each_screen(relay, seconds)
            taken = (traffic.sent - sent) / (time.monotonic() - begin)
            say(f"busy: {taken:.0f} letters a second were taken, {await waits(relay):,} wait at the end")
    return figures


@asynccontextmanager
async def relaying(internet: Internet, extra: str = "") -> AsyncIterator[Served]:
    """Serve in this internet, with what is usual but for `extra`."""
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        relay = Served(Path(folder), internet.nameserver, internet.port, extra)
        usual = relay.settings.read_text().replace('check_interval = "1s"\n', "")
        relay.settings.write_text(usual)
        await relay.start()
        try:
            yield relay
        finally:
            relay.kill()


async def wire(seconds: float, rate: float, waiting: int) -> None:
    """Measure, and say what came out."""
    both = await idle(seconds, waiting), await busy(seconds, rate)
    sizes = [f"{columns}x{lines}" for columns, lines in SIZES]
    say(f"{'B/s (CPU)':12}" + "".join(f"{state + ' ' + size:>18}" for state in ("idle", "busy") for size in sizes))
    for name in SCREENS:
        cells = [figures[name, size] for figures in both for size in sizes]
        say(f"{name:12}" + "".join(f"{octets:10,.0f} ({share:4.0%})" for octets, share in cells))


def say(line: str) -> None:
    """Write a line of the result."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] != ["wire"]:
        sys.exit(__doc__)
    arguments = [float(word) for word in sys.argv[2:]]
    seconds, rate, waiting = arguments + [20.0, 100.0, 1_300.0][len(arguments) :]
    asyncio.run(wire(seconds, rate, int(waiting)))
