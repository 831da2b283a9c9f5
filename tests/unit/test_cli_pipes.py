"""The commands as processes: pipes that break, interrupts, and events followed live."""

import json
import signal
import subprocess
from collections.abc import Iterator
from threading import Timer
from typing import IO

import pytest

from engine.model.event import Event
from tests.unit.fake_line import FakeLine, serving_line
from tests.unit.fake_relay import NOW, entry
from tests.waiting import hold_until


@pytest.fixture
def line() -> Iterator[FakeLine]:
    with serving_line() as line:
        yield line


def reads(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, the rest of the output and the errors; a process that hangs is ended."""
    timer = Timer(30, process.kill)
    timer.start()
    try:
        stdout, stderr = process.communicate()
    finally:
        timer.cancel()
    return process.returncode, stdout, stderr


def test_events_are_followed_until_interrupted_and_that_is_no_failure(line: FakeLine) -> None:
    process = line.start("events", "--follow", "--json", "--limit", "1")
    assert json.loads(reads(process.stdout))["seq"] == 3
    line.happens(Event(seq=4, at=NOW, kind="held", by="ann", message=7), Event(seq=5, at=NOW, kind="checked", by="bob"))
    # The stream may not have begun yet: the next event brings what came before it along.
    line.happens(Event(seq=6, at=NOW, kind="checked", by="eve"))
    wait_for_follower(line)
    line.happens(Event(seq=7, at=NOW, kind="checked", by="dan"))
    assert [json.loads(reads(process.stdout))["seq"] for _ in range(4)] == [4, 5, 6, 7]
    process.send_signal(signal.SIGINT)
    assert ended(process) == (0, "", "")


def test_what_is_followed_can_be_narrowed(line: FakeLine) -> None:
    process = line.start("events", "-f", "--match", "ANN", "--limit", "1")
    wait_for_follower(line)
    line.happens(Event(seq=4, at=NOW, kind="checked", by="bob"), Event(seq=5, at=NOW, kind="held", by="ann", message=9))
    lines = iter(lambda: reads(process.stdout), "")
    assert next(text for text in lines if "held" in text).rstrip().endswith("held         9  by ann")
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 0


def test_followed_events_end_with_the_engine(line: FakeLine) -> None:
    process = line.start("events", "--follow")
    wait_for_follower(line)
    line.thread.stop(10)
    status, _, stderr = ended(process)
    assert (status, stderr) == (3, "the engine has ended\n")


def test_a_reader_that_has_had_enough_is_no_failure(line: FakeLine) -> None:
    line.engine.queue.entries = [entry(number) for number in range(1, 5000)]
    process = line.start("queue", "--limit", "0")
    assert reads(process.stdout).startswith("ID")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert ended(process)[::2] == (0, "")


def wait_for_follower(line: FakeLine) -> None:
    hold_until(lambda: bool(line.engine.events._followers))
