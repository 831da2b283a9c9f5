"""`smarthost serve` and the commands beside it, as processes, the way an operator runs them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.fake_relay import short_folder
from tests.waiting import hold_until

_MAIN = [sys.executable, "-c", "from console.cli import main; main()"]

SETTINGS = """
hostname = "relay.example.net"
spool = "{spool}"
[intake.smtp]
listen = ["127.0.0.1:0"]
[dns]
nameservers = ["127.0.0.1:9"]
"""


@contextmanager
def settings() -> Iterator[Path]:
    """A settings file for an engine of its own."""
    with short_folder() as folder:
        file = Path(folder) / "smarthost.toml"
        file.write_text(SETTINGS.format(spool=Path(folder) / "spool"))
        yield file


def run(file: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_MAIN, "--config", str(file), *words], capture_output=True, text=True, timeout=60, check=False
    )


def answers(file: Path) -> bool:
    """Whether somebody takes connections at the control socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(file.parent / "spool" / "control.sock")) == 0


@contextmanager
def serving(file: Path) -> Iterator[subprocess.Popen[str]]:
    """An engine that answers; it is killed if it was not ended."""
    process = subprocess.Popen(
        [*_MAIN, "serve", "--config", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    )
    try:
        hold_until(lambda: answers(file) or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait()


def test_an_engine_is_started_asked_and_ended() -> None:
    with settings() as file, serving(file) as engine:
        status = run(file, "status", "--json")
        assert status.returncode == 0, status.stderr
        health = json.loads(status.stdout)
        assert (health["state"], health["pid"], health["hostname"]) == ("relaying", engine.pid, "relay.example.net")
        assert run(file, "suspend", "example.org", "--for", "5m").returncode == 0
        assert run(file, "mark-bad", "mx.example.org", "--for", "10m", "--note", "a test").returncode == 0
        hosts = [json.loads(line) for line in run(file, "hosts", "--json").stdout.splitlines()]
        assert [(one["host"], one["note"]) for one in hosts] == [("mx.example.org", "a test")]
        assert run(file, "retry", "--all").returncode == 1
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(20) == 0
        assert run(file, "status").returncode == 3


def test_the_log_says_no_more_than_its_level() -> None:
    for level, said in (("info", True), ("error", False)):
        with settings() as file:
            file.write_text(f'{file.read_text()}[log]\nlevel = "{level}"\n')
            engine = subprocess.Popen(
                [*_MAIN, "serve", "--config", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            hold_until(lambda: answers(file))
            engine.send_signal(signal.SIGTERM)
            _, log = engine.communicate(timeout=30)
            assert engine.returncode == 0
            assert ("INFO engine.engine: relaying as relay.example.net" in log) == said


def test_a_second_engine_on_the_spool_is_refused_with_the_first_ones_pid() -> None:
    with settings() as file, serving(file) as engine:
        assert run(file, "status").returncode == 0
        second = run(file, "serve")
        assert second.returncode == 1
        assert str(engine.pid) in second.stderr
        assert "smarthost attach" in second.stderr
        assert "Traceback" not in second.stderr
        assert run(file, "status").returncode == 0


def test_a_port_that_is_taken_is_said_and_nothing_is_left_behind() -> None:
    with settings() as file:
        file.write_text(file.read_text().replace("127.0.0.1:0", "192.0.2.1:2525"))
        refused = run(file, "serve")
        assert refused.returncode == 1
        assert "192.0.2.1:2525" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert not (file.parent / "spool" / "control.sock").exists()
        assert os.access(file.parent / "spool", os.W_OK)
