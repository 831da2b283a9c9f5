"""A node: a relay's process with its own spool, ports and clock, and a way of its own to the database."""

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

from engine.settings.settings import QueueStore
from tests.nodes.way import Way
from tests.serving import SMARTHOST, Served

HAS_NODES = "node" in QueueStore.__struct_fields__
COMES_BACK = 60.0  # seconds in which one that is started must take mail

_FAKETIME = "faketime/libfaketimeMT.so.1"
CLOCK_SEEN = 2  # seconds until a node has seen that its clock was set


def faketime() -> Path | None:
    """The library that sets a process's clock off; None where it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob(f"*/{_FAKETIME}"))), None)


class Node(Served):
    """`name` is that of the node, and what peers hear in its greeting; `way` is None where it goes straight.

    `has_own_clock`: it can be set off by `set_clock`, as long as it lives and once it is started again.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        nameserver: str,
        delivery_port: int,
        extra: str,
        *,
        way: Way | None = None,
        has_own_clock: bool = False,
    ) -> None:
        self.name = name
        self.way = way
        self._clock = folder / "clock"
        library = faketime() if has_own_clock else None
        under = (
            "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={self._clock}", "FAKETIME_DONT_FAKE_MONOTONIC=1",
            f"FAKETIME_CACHE_DURATION={CLOCK_SEEN - 1}",
        )  # fmt: skip
        super().__init__(folder, nameserver, delivery_port, extra, under if library else ())
        written = self.settings.read_text()
        self.settings.write_text(written.replace('"relay.example.net"', f'"{name}.relay.example.net"'))
        self.set_clock(0)

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def freeze(self) -> None:
        """Stop the process where it is: it keeps its connections, and knows nothing of the time that goes by."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def set_clock(self, seconds: int) -> None:
        """Set its wall clock so far ahead, or back; it sees that within CLOCK_SEEN."""
        written = self._clock.with_suffix(".new")
        written.write_text(f"{seconds:+d}\n")
        written.rename(self._clock)

    async def start_again(self) -> float:
        """Start it, and again where it ends (as a service manager does); give the seconds until it takes mail."""
        begin = time.monotonic()
        async with asyncio.timeout(COMES_BACK):
            while not await self._come_up():
                await asyncio.sleep(0.5)
        return time.monotonic() - begin

    async def _come_up(self) -> bool:
        """Start the process; whether it takes mail, and has not ended."""
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.under, SMARTHOST, "--config", self.settings, "serve"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        while self.runs:
            if await self.answers():
                return True
            await asyncio.sleep(0.1)
        return False

    def end(self) -> None:
        """End the process, whatever state it is in."""
        if self.runs:
            self.kill()
