"""The console on a real pseudo-terminal: one that stalls does not stop mail, one that goes away ends cleanly."""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Session, Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Said
from tests.serving import SMARTHOST, Served
from tests.smtp import smtp_client
from tests.terminals import on_a_terminal
from tests.waiting import until

LEAVES_WITHIN = 25.0  # seconds; draining has ten
OTHER_SCREEN_ON, OTHER_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"  # xterm's second screen, which the console draws on


class Terminal:
    """The console with the engine inside it, on a pty of ours that reads or does not."""

    def __init__(self, relay: Served) -> None:
        self.relay = relay
        self.seen = b""
        home = {"HOME": str(relay.settings.parent)}
        self.process, self._master = on_a_terminal([SMARTHOST, "--config", relay.settings], env=home)

    async def read_until(self, text: bytes, seconds: float = 20) -> bytes:
        """Read what the console draws until `text` is among it; give all that was read since `seen` was emptied."""
        await until(lambda: text in self._read(), seconds)
        return self.seen

    async def ended(self, seconds: float = LEAVES_WITHIN) -> int:
        """Wait for the process to end; give its status."""
        await until(lambda: self.process.poll() is not None, seconds)
        return self.process.wait()

    @property
    def is_stopped(self) -> bool:
        """Whether the process is stopped, as by ctrl+z (proc(5), stat: its state follows its name)."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def _read(self) -> bytes:
        with suppress(BlockingIOError):
            self.seen += os.read(self._master, 65536)
        return self.seen

    def hang_up(self) -> None:
        """The line drops: the kernel sends SIGHUP."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master >= 0:
            os.close(self._master)


class Thinking(Healthy):
    """Thinks for some seconds before it takes a message."""

    async def reply(self, session: Session, verb: str, argument: str) -> Said:
        if verb == "MAIL":
            await asyncio.sleep(3)
        return await super().reply(session, verb, argument)


@asynccontextmanager
async def console(internet: Internet, temper: Temper | None = None) -> AsyncIterator[Terminal]:
    await internet.add("example.org", mx=[(10, "mx.example.org", temper or Healthy())])
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        terminal = Terminal(Served(Path(folder), internet.nameserver, internet.port))
        try:
            await terminal.read_until(b"relaying")
            yield terminal
        finally:
            terminal.close()


async def send(relay: Served, messages: int) -> None:
    async with smtp_client(relay.port) as smtp:
        for number in range(messages):
            await smtp.sendmail("ann@example.com", [f"n{number}@example.org"], b"Subject: hi\r\n\r\nhi\r\n")


async def test_a_terminal_that_stops_reading_does_not_stop_the_mail() -> None:
    async with Internet(clock=SystemClock()) as internet, console(internet) as terminal:
        for _ in range(6):  # many frames, none of them read: far more than the terminal and the writer can hold
            terminal.press(b"?\x1b1234" * 20)
            await send(terminal.relay, 50)
        await internet.wait_for(300, seconds=30)
        terminal.process.send_signal(signal.SIGTERM)
        assert await terminal.ended() == 0


async def everything_arrives(relay: Served, internet: Internet, messages: int) -> None:
    """What was not sent before the end is in the spool: the next engine sends it."""
    await relay.start()
    try:
        await internet.wait_for(messages)
    finally:
        assert relay.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_drains_and_ends_the_console(number: signal.Signals) -> None:
    async with Internet(clock=SystemClock()) as internet, console(internet) as terminal:
        await send(terminal.relay, 20)
        terminal.process.send_signal(number)
        assert await terminal.ended() == 0
        assert not terminal.relay.control_socket.exists()
        await everything_arrives(terminal.relay, internet, 20)


async def test_a_dropped_line_drains_and_ends_the_console() -> None:
    async with Internet(clock=SystemClock()) as internet, console(internet) as terminal:
        await send(terminal.relay, 20)
        terminal.hang_up()
        assert await terminal.ended() == 0
        await everything_arrives(terminal.relay, internet, 20)


async def test_a_console_that_was_stopped_is_drawn_anew_when_it_goes_on() -> None:
    async with Internet(clock=SystemClock()) as internet, console(internet) as terminal:
        await terminal.read_until(b"no mail waits")
        terminal.process.send_signal(signal.SIGTSTP)
        left = await terminal.read_until(OTHER_SCREEN_OFF)
        assert left.index(b"no mail waits") < left.index(OTHER_SCREEN_OFF), "it gives the terminal back as it was"
        await until(lambda: terminal.is_stopped)
        terminal.seen = b""
        terminal.process.send_signal(signal.SIGCONT)
        await terminal.read_until(OTHER_SCREEN_ON)
        drawn = await terminal.read_until(b"no mail waits")
        assert drawn.index(OTHER_SCREEN_ON) < drawn.index(b"no mail waits")
        assert not terminal.is_stopped


async def test_going_on_without_having_been_stopped_is_nothing() -> None:
    """So it is told when a line drops; a second reader of the terminal would never end, and take all of a core."""
    async with Internet(clock=SystemClock()) as internet, console(internet) as terminal:
        await terminal.read_until(b"no mail waits")
        tasks = Path(f"/proc/{terminal.process.pid}/task")
        before = len(list(tasks.iterdir()))
        for key, shown in (b"2", b"the queue is empty"), (b"1", b"no mail waits"), (b"2", b"the queue is empty"):
            terminal.process.send_signal(signal.SIGCONT)
            terminal.seen = b""
            terminal.press(key)
            assert shown in await terminal.read_until(shown)  # by then it has been told
            assert len(list(tasks.iterdir())) == before, "threads"


@pytest.mark.parametrize(
    ("messages", "said"),
    [(0, b"stopping: nothing is being sent"), (1, b"draining: 1 message is being sent, at most 10 s")],
)
async def test_after_quitting_the_terminal_says_that_it_drains(messages: int, said: bytes) -> None:
    async with Internet(clock=SystemClock()) as internet, console(internet, Thinking()) as terminal:
        await send(terminal.relay, messages)
        if messages:
            terminal.press(b"3")
            await terminal.read_until(b"MAIL")
        terminal.press(b"q")
        await terminal.read_until(b"goes on at the next start")
        terminal.press(b"\x1b[C\r")
        await terminal.read_until(said)
        assert terminal.process.poll() is None, "and is seen while it does"
        assert await terminal.ended() == 0


async def test_a_console_without_a_terminal_says_what_to_do() -> None:
    command = [str(SMARTHOST), "demo"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 2
    assert "smarthost serve" in result.stderr
