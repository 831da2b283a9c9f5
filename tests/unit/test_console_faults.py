"""What breaks in the console is written down: with its traceback, for its owner alone, bounded."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from console import faults
from tests.logs import logging_as_before


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    with logging_as_before():
        yield


def broken(secret: str = "hunter2") -> BaseException:
    try:
        raise ValueError("no such\x1b[2Jthing")
    except ValueError as error:
        return error


def test_a_traceback_is_written_without_the_values_of_variables_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "console.log"
    faults.keep_in(path)
    assert faults.note(broken()) == f"; see {path}"
    written = path.read_text()
    assert "Traceback (most recent call last)" in written
    assert "in broken" in written
    assert "ValueError: no such" in written
    assert "hunter2" not in written
    assert "\x1b" not in written
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_log_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.touch(mode=0o644)
    faults.keep_in(path)
    logging.getLogger("engine.test").info("hello")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / "precious").chmod(0o644)
    (tmp_path / "engine.log").symlink_to(tmp_path / "precious")
    faults.keep_in(tmp_path / "engine.log")
    logging.getLogger("engine.test").info("hello")
    assert (tmp_path / "precious").read_text() == "as it was"
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o644


def test_what_happens_each_second_is_not_written_each_second(tmp_path: Path) -> None:
    faults.keep_in(tmp_path / "console.log")
    for _ in range(250):
        faults.note(broken())
    written = (tmp_path / "console.log").read_text()
    assert written.count("Traceback") == 1
    assert [line.partition("stumbled ")[2][:9] for line in written.splitlines() if "times" in line] == [
        "10 times:",
        "100 times",
    ]


def test_the_log_is_bounded(tmp_path: Path) -> None:
    faults.keep_in(tmp_path / "console.log")
    for _ in range(60):
        logging.getLogger("engine.test").warning("x" * 100_000)
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["console.log", "console.log.1", "console.log.2"]
    assert all(path.stat().st_size <= faults.LARGEST for path in files)
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_without_a_place_for_it_nothing_fails_and_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    faults.keep_in(tmp_path / "file" / "console.log")
    assert faults.note(broken()) == ""


def test_the_level_debug_is_for_our_own_alone(tmp_path: Path) -> None:
    faults.keep_in(tmp_path / "engine.log", "debug")
    logging.getLogger("engine.test").debug("ours")
    logging.getLogger("aiosmtplib").debug("AUTH PLAIN secret")
    written = (tmp_path / "engine.log").read_text()
    assert ("ours" in written, "secret" in written) == (True, False)


@pytest.mark.parametrize(("level", "said"), [("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_of_the_settings_counts(tmp_path: Path, level: str, said: int) -> None:
    faults.keep_in(tmp_path / "engine.log", level)
    for name in ("info", "warning", "error"):
        getattr(logging.getLogger("engine.test"), name)("said")
    assert (tmp_path / "engine.log").read_text().count("said") == said
