"""Mail comes in through the drop folder: real files, some of which are not what they seem."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from engine.base.clock import SystemClock
from engine.intake.drop.dropfile import SETTLE
from engine.intake.drop.dropped import Dropped
from engine.intake.drop.folder import DropIntake
from engine.intake.errors import IntakeError
from engine.model.message import NewMessage
from engine.queue.errors import QueueBroken, QueueBusy, QueueDamaged, QueueError, QueueFull
from engine.settings.settings import Intake, Settings, Smtp
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

MAIL = b"From: a@example.org\nTo: b@example.net\nSubject: hello\n\nbody\n"
SETTINGS = Settings(hostname="relay.example", intake=Intake(smtp=Smtp(max_message_size=10_240)))
ROOMY = Settings(hostname="relay.example")
PATIENCE = 60.0


@asynccontextmanager
async def watching(
    queue: FakeArrivals, folder: Path, clock: FakeClock | SystemClock | None = None, *, settings: Settings = SETTINGS
) -> AsyncIterator[DropIntake]:
    intake = DropIntake(queue, folder / "drop", settings, clock or FakeClock())
    await intake.start()
    try:
        yield intake
    finally:
        await intake.stop(1.0)


def before(folder: Path, name: str, content: bytes = MAIL) -> Path:
    """Put a file into the folder before anybody watches it."""
    path = folder / "drop" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def moved(folder: Path, name: str, content: bytes = MAIL) -> Path:
    """Move a file into place, as one should."""
    (folder / name).write_bytes(content)
    return (folder / name).rename(folder / "drop" / name)


async def eventually(holds: Callable[[], bool]) -> None:
    await until(holds, PATIENCE)


async def in_time(clock: FakeClock, holds: Callable[[], bool], by: float = 30) -> None:
    """Move the clock on until something holds: a look that is under way when it moves reckons from then."""
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await clock.advance(by)
            await asyncio.sleep(0.01)


def is_watched(folder: Path) -> bool:
    """Whether this process has the kernel watch the drop folder (proc(5), of fdinfo: inotify)."""
    if not (folder / "drop").is_dir():
        return False
    inode = f" ino:{(folder / 'drop').stat().st_ino:x} "
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it is closed by now
            if str(link.readlink()) == "anon_inode:inotify":
                lines = Path("/proc/self/fdinfo", link.name).read_text().splitlines()
                if any(line.startswith("inotify wd:") and inode in line for line in lines):
                    return True
    return False


async def watched(folder: Path) -> None:
    """Wait until the watch is on."""
    await eventually(lambda: is_watched(folder))


class Looks:
    """Counts the looks of an intake at its folder, from here on: those that have begun, and those that have ended."""

    def __init__(self, intake: DropIntake) -> None:
        self.begun = self.ended = 0
        self._intake = intake
        self._look = intake._look
        intake._look = self._counted  # type: ignore[method-assign]

    async def done(self) -> None:
        """Wait until one more has been made, from its beginning to its end, and nothing calls for another."""
        more = self.begun + 1
        self._intake._wake.set()
        await eventually(lambda: self.ended >= more and self.ended == self.begun and not self._intake._wake.is_set())

    async def _counted(self) -> float:
        self.begun += 1
        try:
            return await self._look()
        finally:
            self.ended += 1


def reason(folder: Path, name: str) -> str:
    return (folder / "drop" / "failed" / f"{name}.reason").read_text()


async def test_files_that_lie_there_at_the_start_are_sent(tmp_path: Path) -> None:
    queue = FakeArrivals()
    paths = [before(tmp_path, f"{number}.eml") for number in range(20)]
    async with watching(queue, tmp_path):
        await eventually(lambda: len(queue.forgotten) == 20)
    assert not any(path.exists() for path in paths)
    message = next(message for message in queue.messages if message.origin == "drop 0.eml")
    assert message.recipients == ("b@example.net",)
    assert message.subject == "hello"
    assert message.content.endswith(b"\r\n\r\nbody\r\n")
    assert set(queue.forgotten) == {message.key for message in queue.messages}
    assert not queue.keys


async def test_a_file_that_is_moved_in_is_sent_at_once(tmp_path: Path) -> None:
    queue = FakeArrivals()
    async with watching(queue, tmp_path):
        await watched(tmp_path)
        path = moved(tmp_path, "new.eml")
        await eventually(lambda: len(queue.forgotten) == 1)
        assert not path.exists()


async def test_a_change_the_watch_missed_is_found_by_the_next_look(tmp_path: Path) -> None:
    queue = FakeArrivals()
    clock = FakeClock()
    intake = DropIntake(queue, tmp_path / "drop", SETTINGS, clock)
    intake._watch = lambda: asyncio.sleep(0)  # type: ignore[method-assign]
    looks = Looks(intake)
    await intake.start()
    await eventually(lambda: looks.ended > 0 and clock.waiting == 1)
    moved(tmp_path, "new.eml")
    looked = looks.begun
    await clock.advance(29)
    for _ in range(5):  # whoever waited for this moment has gone on before those who ask for it only now
        await clock.wait(asyncio.Event(), clock.now())
    assert looks.begun == looked
    assert not queue.messages
    await clock.advance(1)
    await eventually(lambda: len(queue.forgotten) == 1)
    await intake.stop(1.0)


async def test_only_names_that_end_in_eml_are_looked_at(tmp_path: Path) -> None:
    queue = FakeArrivals()
    others = [before(tmp_path, name) for name in ("a.txt", "b.eml.part", ".c.eml", "eml")]
    before(tmp_path, "z.eml")
    async with watching(queue, tmp_path):
        await eventually(lambda: len(queue.forgotten) == 1)
    assert all(path.exists() for path in others)


class Committing(FakeArrivals):
    """Looks at a file at the very end of each commit."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.was_there: list[bool] = []
        self._path = path

    async def enqueue(self, message: NewMessage) -> int:
        number = await super().enqueue(message)
        self.was_there.append(self._path.exists())
        return number


async def test_a_file_is_deleted_only_when_it_is_committed(tmp_path: Path) -> None:
    path = before(tmp_path, "a.eml")
    queue = Committing(path)
    async with watching(queue, tmp_path):
        await eventually(lambda: not path.exists())
    assert queue.was_there == [True]


async def test_a_file_committed_before_a_crash_is_not_sent_twice(tmp_path: Path) -> None:
    queue = FakeArrivals()
    path = before(tmp_path, "a.eml")
    found = path.stat()
    queue.keys[f"drop:a.eml:{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"] = 1
    async with watching(queue, tmp_path):
        await eventually(lambda: len(queue.forgotten) == 1)
    assert not queue.messages
    assert not path.exists()


async def test_another_file_under_the_same_name_is_not_deleted_for_the_first(tmp_path: Path) -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    before(tmp_path, "a.eml")
    async with watching(queue, tmp_path):
        await queue.started.wait()
        moved(tmp_path, "a.eml", MAIL.replace(b"hello", b"second"))
        queue.open_gate.set()
        await eventually(lambda: len(queue.messages) == 2)
    assert [message.subject for message in queue.messages] == ["hello", "second"]


@pytest.mark.parametrize("error", [QueueFull("disk full"), QueueBroken("fsync")])
async def test_a_queue_that_takes_nothing_leaves_the_file_where_it_is(tmp_path: Path, error: Exception) -> None:
    queue = FakeArrivals()
    queue.fail = error
    path = before(tmp_path, "a.eml")
    clock = FakeClock()
    async with watching(queue, tmp_path, clock) as intake:
        await Looks(intake).done()
        assert queue.started.is_set()
        assert path.exists()
        assert not list((tmp_path / "drop" / "failed").iterdir())
        queue.fail = None
        await in_time(clock, lambda: len(queue.forgotten) == 1)


class Picky(FakeArrivals):
    """Takes nothing for one recipient, for whom it raises this."""

    def __init__(self, error: QueueError) -> None:
        super().__init__()
        self.error = error
        self.tried = 0

    async def enqueue(self, message: NewMessage) -> int:
        if message.recipients == ("b@bad.example",):
            self.tried += 1
            raise self.error
        return await super().enqueue(message)


@pytest.mark.parametrize("error", [QueueDamaged("a page cannot be read"), QueueError("no such table")])
async def test_a_file_that_meets_damage_in_the_queue_holds_up_none_behind_it(
    tmp_path: Path, error: QueueError, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Picky(error)
    meets = MAIL.replace(b"b@example.net", b"b@bad.example")
    bad = [before(tmp_path, f"{number:03}.eml", meets) for number in range(9)]
    for number in range(9, 30):
        before(tmp_path, f"{number:03}.eml")
    clock = FakeClock()
    async with watching(queue, tmp_path, clock) as intake:
        await eventually(lambda: len(queue.messages) == 21)
        await eventually(lambda: str(error) in intake.trouble)
        assert all(path.exists() for path in bad)
        assert not list((tmp_path / "drop" / "failed").iterdir())
        assert queue.tried == 9
        assert f"008.eml in the drop folder cannot be queued for now: {error}" in caplog.text
        moved(tmp_path, "late.eml")  # those that were left are not tried again before their time
        await eventually(lambda: len(queue.messages) == 22)
        assert queue.tried == 9
        queue.error = QueueBusy("somebody else has it")  # as long as nothing is taken, nothing else is tried
        looks = Looks(intake)
        await in_time(clock, lambda: queue.tried > 9)
        await looks.done()
        assert queue.tried - 9 <= 8 * looks.begun


async def test_a_file_that_is_still_written_is_left_until_it_is_whole(tmp_path: Path) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    path = before(tmp_path, "a.eml", MAIL[:30])
    os.utime(path, (clock.now(), clock.now()))
    async with watching(queue, tmp_path, clock) as intake:
        looks = Looks(intake)
        for end in (40, 50, len(MAIL)):
            await clock.advance(SETTLE * 0.9)
            await looks.done()
            assert not queue.messages
            with path.open("ab") as file:
                file.write(MAIL[path.stat().st_size : end])
            os.utime(path, (clock.now(), clock.now()))  # no look comes between: this loop does not turn meanwhile
        await in_time(clock, lambda: len(queue.forgotten) == 1, by=SETTLE)
    assert queue.messages[0].content.endswith(b"\r\n\r\nbody\r\n")


async def test_a_file_from_the_future_is_taken_once_it_is_still(tmp_path: Path) -> None:
    queue = FakeArrivals()
    clock = FakeClock()
    path = before(tmp_path, "a.eml")
    os.utime(path, (clock.now() + 9999, clock.now() + 9999))
    async with watching(queue, tmp_path, clock) as intake:
        await Looks(intake).done()
        assert not queue.messages
        await in_time(clock, lambda: len(queue.forgotten) == 1, by=SETTLE)
    assert len(queue.messages) == 1


def symlink(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_bytes(MAIL)
    path.symlink_to(target)


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def hard_link(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_bytes(MAIL)
    path.hardlink_to(target)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def too_large(path: Path) -> None:
    path.write_bytes(MAIL + b"x" * 10_240)


def no_recipient(path: Path) -> None:
    path.write_bytes(b"From: a@example.org\n\nbody\n")


def nul(path: Path) -> None:
    path.write_bytes(MAIL + b"\0")


def anothers(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_bytes(MAIL)
    os.chown(path, 12345, 12345)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (symlink, "it is a symbolic link; only regular files"),
        (dangling, "it is a symbolic link; only regular files"),
        (hard_link, "it has 2 hard links"),
        (fifo, "it is a FIFO; only regular files"),
        (folder, "it is a folder; only regular files"),
        (too_large, "intake.smtp.max_message_size allows 10240"),
        (no_recipient, "recipients: none found"),
        (nul, "content: holds NUL"),
        (anothers, "it belongs to user 12345; files of user 0 and of root are taken"),
    ],
)
async def test_what_cannot_be_taken_is_set_aside_with_the_reason(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    queue = FakeArrivals()
    path = tmp_path / "drop" / "odd.eml"
    path.parent.mkdir()
    make(path)
    async with watching(queue, tmp_path):
        await eventually(lambda: not os.path.lexists(path))
        await eventually(lambda: bool(queue.events_recorded))
    assert not queue.messages
    assert os.path.lexists(tmp_path / "drop" / "failed" / "odd.eml")
    assert why in reason(tmp_path, "odd.eml")
    assert why in queue.events_recorded[0].text
    assert (tmp_path / "drop" / "failed" / "odd.eml.reason").stat().st_mode & 0o777 == 0o600


async def test_a_header_made_to_break_its_reader_stops_nobody(tmp_path: Path) -> None:
    queue = FakeArrivals()
    path = before(tmp_path, "a.eml", b"From: " + b"(" * 20_000 + b"\nTo: b@example.net\n\nx")
    before(tmp_path, "b.eml")
    async with watching(queue, tmp_path, settings=ROOMY) as intake:
        await eventually(lambda: len(queue.forgotten) == 1 and not path.exists())
        await eventually(lambda: bool(queue.events_recorded))
        moved(tmp_path, "c.eml")
        await eventually(lambda: len(queue.forgotten) == 2)
        assert intake.trouble == ""
    assert "cannot be read: a comment has no end" in reason(tmp_path, "a.eml")


@pytest.mark.parametrize(
    "error", [RecursionError("deep"), AssertionError("\x1b[2J\udcff"), IndexError(), ValueError("v")]
)
async def test_whatever_goes_wrong_with_one_file_sets_that_file_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def judged(self: Dropped, *rest: object) -> object:
        if b"odd" in self.content:
            raise error
        return message(self, *rest)

    message: Callable[..., object] = Dropped.message
    monkeypatch.setattr(Dropped, "message", judged)
    queue = FakeArrivals()
    path = before(tmp_path, "a.eml", MAIL + b"odd")
    before(tmp_path, "b.eml")
    async with watching(queue, tmp_path) as intake:
        await eventually(lambda: len(queue.forgotten) == 1 and not path.exists())
        await eventually(lambda: bool(queue.events_recorded))
        assert intake.trouble == ""
    assert (tmp_path / "drop" / "failed" / "a.eml").read_bytes() == MAIL + b"odd"
    assert f"cannot be read: {type(error).__name__}" in reason(tmp_path, "a.eml")
    assert "\x1b" not in reason(tmp_path, "a.eml")
    assert "Traceback" in caplog.text


async def test_a_look_that_fails_is_trouble_until_the_next_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: DropIntake) -> object:
        raise RuntimeError("odd\x1b")

    queue, clock = FakeArrivals(), FakeClock()
    before(tmp_path, "a.eml")
    with monkeypatch.context() as patch:
        patch.setattr(DropIntake, "_entries", broken)
        intake = DropIntake(queue, tmp_path / "drop", SETTINGS, clock)
        assert intake.trouble == ""
        await intake.start()
        await eventually(lambda: bool(intake.trouble))
    assert intake.trouble == "fault in the drop folder's intake: RuntimeError: odd\\x1b"
    assert "Traceback" in caplog.text
    await in_time(clock, lambda: len(queue.forgotten) == 1)
    await eventually(lambda: intake.trouble == "")
    await intake.stop(1.0)


async def test_a_folder_that_cannot_be_read_is_trouble_until_it_can(tmp_path: Path) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    async with watching(queue, tmp_path, clock) as intake:
        await watched(tmp_path)
        (tmp_path / "drop").rename(tmp_path / "away")
        (tmp_path / "drop").write_bytes(b"no folder")
        await in_time(clock, lambda: intake.trouble.startswith("the drop folder cannot be read: File exists"))
        (tmp_path / "drop").unlink()
        (tmp_path / "away").rename(tmp_path / "drop")
        before(tmp_path, "a.eml")
        await in_time(clock, lambda: len(queue.forgotten) == 1)
        await eventually(lambda: intake.trouble == "")
        assert len(queue.messages) == 1
        assert not (tmp_path / "drop" / "a.eml").exists()


async def test_a_fault_of_the_queue_leaves_the_file_and_is_trouble(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue, clock = FakeArrivals(), FakeClock()
    queue.fail = RuntimeError("odd")
    paths = [before(tmp_path, f"{number}.eml") for number in range(3)]
    async with watching(queue, tmp_path, clock) as intake:
        await eventually(lambda: "RuntimeError: odd" in intake.trouble)
        assert all(path.exists() for path in paths)
        queue.fail = None
        await in_time(clock, lambda: len(queue.forgotten) == 3)
        await eventually(lambda: intake.trouble == "")
    assert "Traceback" in caplog.text


async def test_a_full_disk_leaves_no_reasons_without_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    queue, clock = FakeArrivals(), FakeClock()
    path = before(tmp_path, "a.eml", b"no header")
    monkeypatch.setattr("engine.intake.drop.dropfile.clean", lambda text, limit: full(path, path))
    async with watching(queue, tmp_path, clock) as intake:
        await Looks(intake).done()
    assert path.exists()
    assert not list((tmp_path / "drop" / "failed").iterdir())


async def test_large_files_are_sent_as_well(tmp_path: Path) -> None:
    queue = FakeArrivals()
    for number in range(6):
        before(tmp_path, f"{number}.eml", MAIL + b"line\n" * 200_000)
    before(tmp_path, "long.eml", b"a:\n" * 200_000 + MAIL)
    async with watching(queue, tmp_path, settings=ROOMY):
        await eventually(lambda: len(queue.forgotten) == 6 and bool(queue.events_recorded))
    assert "header: more than 10000 fields" in reason(tmp_path, "long.eml")


async def test_what_is_set_aside_overwrites_nothing(tmp_path: Path) -> None:
    queue = FakeArrivals()
    failed = tmp_path / "drop" / "failed"
    failed.mkdir(parents=True)
    (failed / "a.eml").write_bytes(b"the first")
    (failed / "a-2.eml.reason").write_bytes(b"the second's reason")
    path = before(tmp_path, "a.eml", b"no header")
    async with watching(queue, tmp_path):
        await eventually(lambda: not path.exists())
    assert (failed / "a.eml").read_bytes() == b"the first"
    assert (failed / "a-2.eml.reason").read_bytes() == b"the second's reason"
    assert (failed / "a-3.eml").read_bytes() == b"no header"
    assert sorted(entry.name for entry in failed.iterdir()) == ["a-2.eml.reason", "a-3.eml", "a-3.eml.reason", "a.eml"]


async def test_a_hostile_name_harms_nobody(tmp_path: Path) -> None:
    queue = FakeArrivals()
    bad = os.fsdecode(b"\x1b]0;x\x07\xff" + b"n" * 230 + b".eml")
    good = os.fsdecode(b"\x1b[2J\xff.eml")
    before(tmp_path, bad, b"no header")
    before(tmp_path, good)
    async with watching(queue, tmp_path):
        await eventually(lambda: len(queue.forgotten) == 1 and not (tmp_path / "drop" / bad).exists())
        await eventually(lambda: bool(queue.events_recorded))
    for text in (queue.messages[0].origin, queue.messages[0].key or "", queue.events_recorded[0].text):
        assert text.isprintable()
        text.encode()


async def test_the_folders_are_for_the_owner_alone(tmp_path: Path) -> None:
    async with watching(FakeArrivals(), tmp_path):
        for made in (tmp_path / "drop", tmp_path / "drop" / "failed"):
            assert made.stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "drop").write_bytes(b"")
    with pytest.raises(IntakeError, match="cannot use the drop folder"):
        async with watching(FakeArrivals(), tmp_path):
            pass


async def test_stopping_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    queue = FakeArrivals()
    queue.open_gate.clear()
    path = before(tmp_path, "a.eml")
    intake = DropIntake(queue, tmp_path / "drop", SETTINGS, FakeClock())
    await intake.start()
    await queue.started.wait()
    async with asyncio.timeout(PATIENCE):  # for the commit one would wait for ever
        await intake.stop(0.2)
    assert path.exists()
