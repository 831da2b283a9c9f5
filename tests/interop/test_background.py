"""The console among other programs of its terminal: ctrl+z and fg, and ctrl+l where one of them has written on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.base.clock import SystemClock
from engine.sandbox.internet import Internet
from tests.interop.needs import needs
from tests.interop.tmux import screen
from tests.serving import SMARTHOST, Served, serving

SHELL = ["env", "PS1=ready> ", "bash", "--norc", "--noprofile", "-i"]


@asynccontextmanager
async def relay_at_rest() -> AsyncIterator[Served]:
    async with Internet(clock=SystemClock()) as internet, serving(internet.nameserver, internet.port) as relay:
        yield relay


@needs("tmux", "bash")
async def test_ctrl_z_stops_an_attached_console_and_fg_brings_it_back(tmp_path: Path) -> None:
    async with relay_at_rest() as relay, screen(tmp_path, SHELL, 80, 24) as shown:
        await shown.shows("ready>")
        await shown.type(f"{SMARTHOST} --config {relay.settings} attach\n")
        await shown.shows("relaying", "no mail waits")
        await shown.press("C-z")
        stopped = await shown.shows("Stopped", "ready>")
        assert "no mail waits" not in stopped, "the terminal is the shell's again"
        await shown.type("fg\n")
        assert "ready>" not in await shown.shows("relaying", "no mail waits"), "and the console's"
        await shown.press("2")
        assert "the queue is empty" in await shown.shows("the queue is empty")
        await shown.press("q")
        assert "the queue is empty" not in await shown.shows("ready>")
        await shown.type("echo status $?\n")
        assert "status 0" in await shown.shows("status 0")


@needs("tmux")
async def test_where_no_shell_would_bring_it_back_it_does_not_stop(tmp_path: Path) -> None:
    async with relay_at_rest() as relay:
        command = [str(SMARTHOST), "--config", str(relay.settings), "attach"]
        async with screen(tmp_path, command, 80, 24) as shown:
            await shown.shows("relaying")
            await shown.press("C-z")
            said = await shown.shows("no shell here")
            assert "no shell here" in said
            assert "relaying" in said, "and is there"
            await shown.press("2")
            assert "the queue is empty" in await shown.shows("the queue is empty"), "and goes on"


@needs("tmux", "bash")
async def test_with_the_engine_inside_it_says_why_it_does_not_stop(tmp_path: Path) -> None:
    async with screen(tmp_path, SHELL, 80, 24) as shown:
        await shown.shows("ready>")
        settings = tmp_path / "smarthost.toml"
        settings.write_text(f'spool = "{tmp_path}/s"\n[intake.smtp]\nlisten = []\n')
        await shown.type(f"{SMARTHOST} --config {settings}\n")
        await shown.shows("relaying")
        await shown.press("C-z")
        said = await shown.shows("runs inside this console")
        assert "runs inside this console" in said
        assert "ready>" not in said
        await shown.press("2")
        assert "the queue is empty" in await shown.shows("the queue is empty"), "and goes on"


@needs("tmux")
async def test_ctrl_l_draws_over_what_something_else_has_written_on_the_terminal(tmp_path: Path) -> None:
    async with relay_at_rest() as relay:
        command = [str(SMARTHOST), "--config", str(relay.settings), "attach"]
        async with screen(tmp_path, command, 80, 24) as shown:
            before = await shown.shows("relaying", "no mail waits")
            Path(shown.tmux("display-message", "-p", "#{pane_tty}").strip()).write_text("\x1b[5;5HBroadcast message")
            assert "Broadcast message" in (await shown.shows("Broadcast message")).splitlines()[4]
            await shown.press("C-l")
            after = await shown.until(lambda seen: "no mail waits" in seen and "Broadcast" not in seen, "what it was")
            assert after.splitlines()[4] == before.splitlines()[4]
            assert "Broadcast" not in after
