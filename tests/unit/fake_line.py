"""The command line run against a hand-made engine, for tests of the commands."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from console.cli import app
from engine.base.threads import LoopThread
from engine.model.event import Event
from tests.unit.fake_relay import FakeEngine, short_folder


class FakeLine:
    """A command line and the engine it reaches, which runs in a thread of its own."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.engine = FakeEngine(spool)
        self._processes: list[subprocess.Popen[str]] = []
        self.thread = LoopThread(self.engine.serving, name="fake engine")

    def happens(self, *events: Event) -> None:
        """Keep and publish events, as the engine does with those it has committed."""
        loop = self.thread._loop
        assert loop is not None
        self.engine.queue.happened.extend(events)
        loop.call_soon_threadsafe(self.engine.events.publish, events)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start one command as a process of its own."""
        command = [sys.executable, "-c", "from console.cli import main; main()", "--spool", str(self.spool), *words]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CONFIG_HOME": str(self.spool)},
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """End what was started and is still running, and the engine."""
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self.thread.stop(10)

    def run(self, *words: str, input: str | None = None, env: dict[str, str] | None = None) -> Result:
        """Run one command; an error that is no exit is raised."""
        without = {"SMARTHOST_CONFIG": None, "COLUMNS": None, "XDG_CONFIG_HOME": str(self.spool)}
        result = CliRunner(env=without | (env or {})).invoke(app, ["--spool", str(self.spool), *words], input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Run one command with --json and read each line."""
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


@contextmanager
def serving_line() -> Iterator[FakeLine]:
    """A command line whose engine answers."""
    with short_folder() as folder:
        line = FakeLine(Path(folder))
        line.thread.start()
        try:
            yield line
        finally:
            line.end()
