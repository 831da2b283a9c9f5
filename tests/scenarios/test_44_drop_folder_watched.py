"""44. The drop folder is watched whatever lies in it, and costs nothing while nothing comes."""

import asyncio
import os
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from selectors import DefaultSelector, SelectorKey

import pytest

from engine.base.clock import SystemClock
from engine.intake.drop import folder as drop
from engine.intake.drop.folder import DropIntake
from engine.intake.drop.watch import CannotWatch
from engine.settings.settings import Settings
from tests.clock import FakeClock
from tests.scenarios.test_intake_drop import (
    MAIL,
    PATIENCE,
    Looks,
    before,
    eventually,
    in_time,
    is_watched,
    moved,
    reason,
    watched,
    watching,
)
from tests.unit.fake_arrivals import FakeArrivals

ODD = os.fsdecode(b"caf\xe9\xff.eml")


async def test_a_name_that_is_no_utf8_ends_no_watch_and_its_file_is_taken(tmp_path: Path) -> None:
    queue = FakeArrivals()
    async with watching(queue, tmp_path) as intake:  # whose clock stands still: only the watch can find what comes
        await watched(tmp_path)
        for number, name in enumerate((ODD, "plain.eml", os.fsdecode(b"\xc3.eml"), "last.eml"), 1):
            moved(tmp_path, name)
            await eventually(lambda n=number: len(queue.forgotten) == n)  # type: ignore[misc]
            assert len(queue.messages) == number
        moved(tmp_path, os.fsdecode(b"bad\xff.eml"), b"no header")
        await eventually(lambda: len(list((tmp_path / "drop" / "failed").iterdir())) == 2)
        assert intake.trouble == ""
    assert {os.fsencode(path.name) for path in (tmp_path / "drop" / "failed").iterdir()} == {
        b"bad\xff.eml",
        b"bad\xff.eml.reason",
    }


async def test_a_watch_that_ends_is_trouble_and_begins_anew_and_the_folder_is_read_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    tried: list[float] = []

    async def broken(*_: object) -> None:
        tried.append(clock.now())
        raise CannotWatch("No space left on device (fs.inotify.max_user_watches)")

    with monkeypatch.context() as patch:
        patch.setattr(drop, "watch", broken)
        intake = DropIntake(queue, tmp_path / "drop", Settings(hostname="relay.example"), clock)
        await intake.start()
        await eventually(lambda: "the drop folder is not watched (No space left" in intake.trouble)
        for number in range(1, 4):
            moved(tmp_path, f"{number}.eml")
            await in_time(clock, lambda n=number: len(queue.forgotten) == n, by=1)  # type: ignore[misc]
        await in_time(clock, lambda: len(tried) >= 8, by=1)
        # After 1, 2, 4, 8, 16 seconds and then every 30.
        assert all(later - one >= min(30, 2**number) for number, (one, later) in enumerate(pairwise(tried)))
        assert clock.now() < tried[0] + 3600
    await in_time(clock, lambda: intake.trouble == "")
    moved(tmp_path, "new.eml")
    await eventually(lambda: len(queue.forgotten) == 4)  # without the clock having moved
    await intake.stop(1.0)
    assert len(queue.messages) == 4


async def test_a_system_that_watches_no_folders_is_noted_and_the_folder_is_read_every_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise AttributeError("inotify_init1")

    queue, clock = FakeArrivals(), FakeClock()
    monkeypatch.setattr("engine.intake.drop.watch.INotify", missing)
    async with watching(queue, tmp_path, clock) as intake:
        await eventually(lambda: bool(intake.notes))
        assert intake.trouble == ""
        assert intake.notes == (
            "the drop folder is not watched (this system has no inotify); it is read every 1 s instead",
        )
        moved(tmp_path, "a.eml")
        began = clock.now()
        await in_time(clock, lambda: len(queue.forgotten) == 1, by=1)
        assert clock.now() - began < drop.RESCAN
    assert len(queue.messages) == 1


async def test_folders_that_were_cleared_away_are_made_anew_and_watched(tmp_path: Path) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    async with watching(queue, tmp_path, clock) as intake:
        await watched(tmp_path)
        shutil.rmtree(tmp_path / "drop")
        await eventually(lambda: (tmp_path / "drop" / "failed").is_dir())
        assert (tmp_path / "drop").stat().st_mode & 0o777 == 0o700
        await in_time(clock, lambda: is_watched(tmp_path) and intake.trouble == "", by=1)
        moved(tmp_path, "new.eml")
        await eventually(lambda: len(queue.forgotten) == 1)
    assert len(queue.messages) == 1


async def test_what_cannot_be_taken_is_set_aside_though_the_folder_for_it_is_lost(tmp_path: Path) -> None:
    queue = FakeArrivals()
    failed = tmp_path / "drop" / "failed"
    async with watching(queue, tmp_path) as intake:
        await watched(tmp_path)
        await Looks(intake).done()
        failed.rmdir()
        path = moved(tmp_path, "bad.eml", b"no header")
        await eventually(lambda: not path.exists())
    assert (failed / "bad.eml").read_bytes() == b"no header"
    assert reason(tmp_path, "bad.eml")


async def test_files_that_can_only_be_left_hide_no_other_and_are_not_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    tried: list[Path] = []  # by several threads at a time

    def refused(path: Path, *_: object) -> None:
        tried.append(path)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(drop, "set_aside", refused)
    for number in range(2500):
        before(tmp_path, f"{number:04d}.eml", b"no header")
    before(tmp_path, "zzzz.eml")
    async with watching(queue, tmp_path, clock) as intake:
        await eventually(lambda: len(queue.forgotten) == 1 and len(tried) == 2500)
        await eventually(lambda: "cannot be set aside either: Operation not permitted" in intake.trouble)
        moved(tmp_path, "new.eml")
        await eventually(lambda: len(queue.forgotten) == 2)
        assert len(tried) == 2500
        assert "cannot be set aside either" in intake.trouble
        assert intake.notes == ()
        await Looks(intake).done()  # the look that took the last one has ended when the clock moves
        assert len(tried) == 2500
        await clock.advance(drop.RESCAN)
        await eventually(lambda: len(tried) >= 5000)
        assert set(Counter(tried).values()) == {2}
    assert len(caplog.records) < 100  # of very many only some are told


async def test_very_many_files_that_can_only_be_left_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drop, "LEFT", 5)
    monkeypatch.setattr(drop, "set_aside", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    for number in range(8):
        before(tmp_path, f"{number}.eml", b"no header")
    async with watching(FakeArrivals(), tmp_path) as intake:
        await eventually(lambda: bool(intake.notes))
        assert intake.notes == ("8 files lie in the drop folder that cannot be taken, nor set aside",)


async def test_a_file_that_is_put_right_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = FakeArrivals()
    monkeypatch.setattr(drop, "set_aside", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    before(tmp_path, "a.eml", b"no header")
    async with watching(queue, tmp_path) as intake:
        await eventually(lambda: bool(intake.trouble))
        moved(tmp_path, "a.eml", MAIL)  # another file under the same name
        await eventually(lambda: len(queue.forgotten) == 1)
        await eventually(lambda: intake.trouble == "")
    assert [message.content.endswith(b"\r\n\r\nbody\r\n") for message in queue.messages] == [True]


class Sleepy(DefaultSelector):
    """Tells a loop when it would sleep until something comes from without, or for `seconds`: it does not then."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.asleep: asyncio.Event | None = None
        self._seconds = seconds

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if self.asleep is not None and (timeout is None or timeout >= self._seconds):
            self.asleep.set()
            timeout = 0
        return super().select(timeout)


def threads() -> set[int]:
    """Those of this process, whoever has begun them: Python does not know of all."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def test_nobody_wakes_up_while_nothing_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is about to sleep until the next look, and no thread is at work that could wake by itself."""
    monkeypatch.setattr(drop, "RESCAN", 10 * PATIENCE)
    queue, others, selector, workers = FakeArrivals(), threads(), Sleepy(PATIENCE), ThreadPoolExecutor(4)

    async def nothing_comes() -> None:
        asyncio.get_running_loop().set_default_executor(workers)
        async with watching(queue, tmp_path, SystemClock()) as intake:
            await watched(tmp_path)
            await Looks(intake).done()
            selector.asleep = asyncio.Event()
            async with asyncio.timeout(2 * PATIENCE):  # which is more than it is asked for
                await selector.asleep.wait()
            selector.asleep = None
            at_work = threads() - others - {one.native_id for one in workers._threads}
            assert at_work == set()
            await eventually(lambda: workers._idle_semaphore._value == len(workers._threads))  # all wait for work
            moved(tmp_path, "new.eml")
            await eventually(lambda: len(queue.forgotten) == 1)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(nothing_comes())
    assert len(queue.messages) == 1


async def test_a_file_that_is_only_touched_has_nobody_look_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop, "set_aside", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no")))
    path = before(tmp_path, "a.eml", b"no header")
    loop = asyncio.get_running_loop()
    async with watching(FakeArrivals(), tmp_path) as intake, asyncio.timeout(PATIENCE):
        await watched(tmp_path)
        looks = Looks(intake)
        await looks.done()
        first, began = looks.begun, loop.time()
        while looks.begun < first + 10:
            with path.open("ab"):
                await asyncio.sleep(0)
        # One in fifty milliseconds, however long that took; the first of them may have waited for most of its time.
        assert loop.time() - began >= 9 * drop.GAP * 0.9


async def test_very_many_files_that_are_still_written_are_not_all_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop, "SETTLING", 10)
    queue, clock = FakeArrivals(), FakeClock()
    for number in range(50):
        os.utime(before(tmp_path, f"{number}.eml"), (clock.now(), clock.now()))
    async with watching(queue, tmp_path, clock) as intake:
        await Looks(intake).done()
        assert len(intake._settling) == 10
        assert not queue.messages
        await in_time(clock, lambda: len(queue.forgotten) == 50, by=1)
    assert len(queue.messages) == 50


async def test_stopping_ends_the_watch_at_once(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    for is_on in (False, True) * 20:
        intake = DropIntake(FakeArrivals(), tmp_path / "drop", Settings(hostname="relay.example"), FakeClock())
        await intake.start()
        if is_on:
            await watched(tmp_path)
        async with asyncio.timeout(PATIENCE):
            await intake.stop(10 * PATIENCE)  # what was waited for would take as long
        assert not is_watched(tmp_path)
        assert asyncio.all_tasks() == tasks
