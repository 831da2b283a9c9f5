"""What every test stands on: the same surroundings on every machine, for whoever runs it."""

import gc
import math
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from argon2 import PasswordHasher

from tests import postgres, store

# What a process needs to run at all; the rest of the environment says who runs it, and where. A wish that no bytecode
# be written is left out as well: the program is started some 150 times, and would be compiled anew each time, as the
# tests would by each worker.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH")
_KEPT_PREFIXES = ("PYTEST_", "HYPOTHESIS_", "COV_", "COVERAGE_")
_NEW_OBJECTS = 50_000  # after so many more the collector looks for garbage: it was a fourth of a screen test's time
_SHORT = 24  # characters; a Unix socket's path may have 107 bytes, and a spool lies some folders down


def _same_signals() -> None:
    """A shell that runs its jobs in the background has them ignore SIGINT, and so would all that the tests start."""
    with suppress(ValueError):  # not the main thread: who reports for the workers starts nothing
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _same_surroundings() -> None:
    """Forget who runs the tests, and where: their settings, home, locale, terminal, time zone and umask."""
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del os.environ[name]
    if len(tempfile.gettempdir()) > _SHORT and os.access("/tmp", os.W_OK | os.X_OK):
        os.environ.pop("TMPDIR", None)
        tempfile.tempdir = "/tmp"
    sys.dont_write_bytecode = False
    os.environ.update(HOME=os.devnull, LANG="C.UTF-8", TERM="xterm-256color", TZ="UTC")
    os.environ.update(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull)  # what a machine trusts is its own affair
    time.tzset()
    os.umask(0o022)


_same_surroundings()
_same_signals()

# How long an example takes says something of the machine alone.
hypothesis.settings.register_profile(
    "smarthost", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("smarthost")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--store", choices=store.STORES, default="sqlite", help="the store that the scenarios run on")


def pytest_configure(config: pytest.Config) -> None:
    store.chosen = config.getoption("--store")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if store.chosen == "postgres" and (why := postgres.why_not()):
        for item in items:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    postgres.forget()


def pytest_sessionfinish() -> None:
    postgres.end()


@pytest.fixture(scope="session", autouse=True)
def _the_default_port_is_taken() -> Iterator[None]:
    """Nobody may count on the port that a relay has by default: one may be running here."""
    with socket.socket() as taken:
        with suppress(OSError):  # it is so already
            taken.bind(("127.0.0.1", 2525))
            taken.listen()
        yield


@pytest.fixture(autouse=True)
def _the_name_servers_of_the_machine_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be far away, or silent for minutes; clients of SMTP ask them unless they are told their name."""

    def refused(*_: object) -> str:
        raise AssertionError("this would ask the machine's name servers for its own name")

    monkeypatch.setattr(socket, "getfqdn", refused)


@pytest.fixture(autouse=True)
def _no_answer_is_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long here says that the machine is busy; the queue would give the same answer again for a while."""
    for module in (
        *(f"queue.sqlite.{name}" for name in ("destinations", "schedule", "reasons", "held_back")),
        *(f"queue.postgres.{name}" for name in ("answers", "schedule")),
        "control.followups",
    ):
        monkeypatch.setattr(f"engine.{module}.COSTLY", math.inf)


@pytest.fixture(autouse=True)
def _passwords_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a guess costs 19 MiB and a moment is meant for those who guess; the tests log in some hundred times."""
    monkeypatch.setattr("engine.intake.smtp.users._HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short path that goes with its test, since a Unix socket's path is bounded."""
    with tempfile.TemporaryDirectory(prefix="sh-", ignore_cleanup_errors=True) as folder:
        yield Path(folder).resolve()


def pytest_collection(session: pytest.Session) -> None:
    """Have each worker begin with tests of its own, and find compiled what the others began with.

    Side by side they would all compile the same file at the same moment; in a fresh clone that is a tenth of the time
    that the tests take.
    """
    config = session.config
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if not worker or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    first = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in files[first:] + files[:first]:
        with suppress(Exception):  # who collects it will meet that again, and tell
            import_module(".".join(path.relative_to(config.rootpath).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the collector of garbage need not go through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, Any]:
    """Write out what a worker cannot hand on: mail has bytes that are no characters, and they come into the log."""
    return _writable((yield))


def _writable(data: object) -> object:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_writable(key): _writable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_writable, data))
    return data
