"""The store's log: it shrinks once it is copied, and who keeps it from that is told."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from engine.intake.floor import DiskFloor
from engine.queue.errors import QueueFull
from engine.queue.sqlite import who_reads
from engine.queue.sqlite.store import FILE
from engine.queue.sqlite.upkeep import LAST_ROOM
from tests.unit.queue.support import ALL
from tests.unit.sqlite.support import SqliteSpool, opened
from tests.waiting import until

MIB = 2**20


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is 64 MiB otherwise is one, and nobody waits seconds for a log that may shrink later."""
    monkeypatch.setattr("engine.queue.sqlite.upkeep.LOG_KEPT", MIB)
    monkeypatch.setattr("engine.queue.sqlite.connection.LOG_KEPT", MIB)
    monkeypatch.setattr("engine.queue.sqlite.writer.IDLE", 0.01)
    monkeypatch.setattr("engine.queue.sqlite.writer.LOOK_AGAIN", 0.01)


@contextmanager
def read_by_us(directory: Path) -> Iterator[None]:
    """A read transaction of this process, left open."""
    with closing(sqlite3.connect(directory / FILE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        yield
        reader.execute("COMMIT")


@contextmanager
def read_by_another(directory: Path) -> Iterator[int]:
    """A read transaction of another program, left open; its pid."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN'); "
        "c.execute('SELECT count(*) FROM message').fetchone(); print('reads', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(directory / FILE)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"reads\n"
        try:
            yield other.pid
        finally:
            other.stdin.close()
            other.wait(20)


def log_size(directory: Path) -> int:
    return (directory / f"{FILE}-wal").stat().st_size


async def grow(spool: SqliteSpool, mib: int) -> None:
    for _ in range(mib):
        await spool.add(content=b"x" * MIB)


async def until_shrunk(spool: SqliteSpool) -> None:
    await until(lambda: log_size(spool.directory) <= MIB and not spool.queue.trouble)


async def test_a_log_that_has_grown_shrinks_once_nobody_reads_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        with read_by_us(tmp_path):
            await grow(spool, 5)
            assert log_size(tmp_path) > 5 * MIB
        await until_shrunk(spool)
        assert len(await spool.entries()) == 6


async def test_a_log_that_has_grown_shrinks_under_load_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queue.sqlite.writer.IDLE", 60.0)  # there is always something to do
    monkeypatch.setattr("engine.queue.sqlite.writer.LOOK_AGAIN", 60.0)
    monkeypatch.setattr("engine.queue.sqlite.upkeep.CHECKPOINT_GROUPS", 3)
    async with opened(tmp_path) as spool:
        await spool.add()
        with read_by_us(tmp_path):
            await grow(spool, 5)
        for _ in range(8):
            await spool.add()
        assert log_size(tmp_path) <= MIB


async def test_shrinking_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of what is in the log already keeps it from being begun anew: it is tried again, and mail goes on."""
    asked: list[str] = []

    def tried() -> int:
        return sum("TRUNCATE" in one for one in asked)

    async with opened(tmp_path) as spool:
        await spool.add()
        with ExitStack() as later:
            with read_by_us(tmp_path):  # it cannot even be copied whole
                await grow(spool, 2)
                # By the writer itself: beside it, each of the two threads could wait for what the other one has.
                await spool.writer.do(lambda tx: tx.connection.set_trace_callback(asked.append))
                later.enter_context(read_by_us(tmp_path))
                assert tried() == 0
            await until(lambda: tried() >= 3)
            for _ in range(20):
                await spool.add()
            assert log_size(tmp_path) > 2 * MIB
        await spool.writer.do(lambda tx: tx.connection.set_trace_callback(None))
        await until_shrunk(spool)
    waits = [one for one in asked if "busy_timeout" in one or "TRUNCATE" in one]
    truncations = [place for place, one in enumerate(waits) if "TRUNCATE" in one]
    assert len(truncations) >= 3
    # For the time of it nobody is waited for.
    assert all(waits[place - 1].endswith("= 0") and waits[place + 1].endswith("= 5000") for place in truncations)


async def test_another_program_that_reads_is_told_with_its_name_until_it_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        with read_by_another(tmp_path) as pid:
            await grow(spool, 3)
            await until(lambda: bool(spool.queue.trouble))
            told = spool.queue.trouble
            assert told.startswith("another program (")
            assert f"pid {pid})" in told
            assert "reads the queue since 2027-01-15 08:00:00 UTC" in told  # by the clock of the tests
            assert "has grown to " in told
            await spool.add()  # and mail goes on
        await until_shrunk(spool)
        assert spool.queue.trouble == ""


async def test_room_in_the_file_counts_for_nothing_while_only_the_log_can_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The floor (intake.min_free), and the last room for what is queued, hold for what is really free."""
    free = [10 * MIB]

    def of_the_disk(path: Path) -> os.statvfs_result:
        found = list(real(path))
        found[4] = free[0] // found[1]
        return os.statvfs_result(found)

    real = os.statvfs
    async with opened(tmp_path) as spool:
        await grow(spool, 4)
        for claim in await spool.claim():
            await spool.queue.claims.put_back([claim], "")
        await spool.queue.orders.give_up("drop", ALL, "me", "", 0)
        await spool.carry_out()
        assert spool.queue.spare > 3 * MIB
        floor = DiskFloor(tmp_path, 12 * MIB, lambda: spool.queue.spare)
        floor.free = lambda folder: free[0]
        assert floor.why_not() == ""
        with read_by_us(tmp_path):
            await grow(spool, 3)
            await until(lambda: bool(spool.queue.trouble))
            assert spool.queue.spare == 0
            assert "intake stops" in floor.why_not()
            free[0] = LAST_ROOM // 2
            monkeypatch.setattr(os, "statvfs", of_the_disk)
            with pytest.raises(QueueFull):
                await spool.add(content=b"x")
            monkeypatch.undo()


def test_who_reads_is_found_among_the_kernels_locks(tmp_path: Path) -> None:
    index, locks = tmp_path / "queue.db-shm", tmp_path / "locks"
    index.touch()
    inode = index.stat().st_ino
    locks.write_text(
        f"1: POSIX  ADVISORY  READ 4711 08:01:{inode} 124 124\n"
        f"1: -> POSIX  ADVISORY  WRITE 4712 08:01:{inode} 120 127\n"  # waits for one
        f"2: POSIX  ADVISORY  READ 4713 08:01:{inode} 128 128\n"  # has it open, and does not read
        f"3: POSIX  ADVISORY  READ {os.getpid()} 08:01:{inode} 125 125\n"
        f"4: FLOCK  ADVISORY  WRITE 4714 08:01:{inode} 0 EOF\n"
        f"5: POSIX  ADVISORY  READ 4715 08:01:{inode + 1} 124 124\n"
        "nothing that is known\n"
    )
    assert who_reads.others(index, locks) == [4711]
    assert who_reads.others(index, tmp_path / "none") == []


def test_a_question_of_our_own_that_takes_long_is_told_as_that(tmp_path: Path) -> None:
    told = who_reads.trouble((200 * MIB, 0.0), tmp_path / FILE, 61.0, tmp_path / "none")
    assert told.startswith("a question asked of the queue is being answered for 61 s")
    assert "200 MiB" in told
    assert who_reads.trouble(None, tmp_path / FILE, 61.0) == ""
