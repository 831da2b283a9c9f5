"""The writer's thread: whatever goes wrong in it, who waits is answered, it is told, and the store can be closed."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from engine.queue.errors import QueueBroken, QueueError
from engine.queue.sqlite import writer as writing
from engine.queue.sqlite.upkeep import Upkeep
from engine.queue.sqlite.writer import Transaction, Writer
from tests.clock import FakeClock
from tests.unit.queue.support import ALL
from tests.unit.sqlite.support import SqliteSpool, opened
from tests.waiting import until, until_told


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fails(*_: Any, **__: Any) -> NoReturn:
        raise error

    return fails


async def until_trouble(spool: SqliteSpool) -> str:
    async def told() -> str:
        return spool.queue.broken or spool.queue.trouble

    return await until_told(told)


@pytest.mark.parametrize("task", ["tend", "committed", "give_back"])
@pytest.mark.parametrize("error", [MemoryError("no memory"), KeyError("a bug")])
async def test_a_fault_in_the_upkeep_is_told_and_mail_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, error: Exception
) -> None:
    async with asyncio.timeout(20), opened(tmp_path) as spool:
        monkeypatch.setattr(Upkeep, task, raising(error))
        await spool.add()
        assert type(error).__name__ in await until_trouble(spool)
        assert spool.queue.broken == ""
        await spool.add()
        assert len(await spool.entries()) == 2
        monkeypatch.undo()
        await spool.add()
        await spool.add()
        assert spool.queue.trouble == ""


async def test_a_fault_that_comes_once_costs_nobody_more_than_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the thread is at fault between taking what waits and its transaction."""
    async with asyncio.timeout(20), opened(tmp_path) as spool:
        right = Writer._commit
        faults = [KeyError("a bug")]

        def faulty(self: Writer, *args: Any, **keywords: Any) -> None:
            if faults:
                raise faults.pop()
            right(self, *args, **keywords)

        monkeypatch.setattr(Writer, "_commit", faulty)
        with pytest.raises(QueueError, match="KeyError"):
            await spool.add()
        assert spool.queue.broken == ""
        assert await spool.add() == 1
        assert len(await spool.entries()) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyError("each time")])
async def test_whatever_ends_the_thread_is_told_and_those_who_wait_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async with asyncio.timeout(20):
        spool = SqliteSpool(tmp_path, FakeClock())
        await spool.queue.open()
        monkeypatch.setattr(Writer, "_commit", raising(error))
        answers = await asyncio.gather(*(spool.add() for _ in range(40)), return_exceptions=True)
        assert all(isinstance(answer, QueueError) for answer in answers)
        for _ in range(20):
            with pytest.raises(QueueError):
                await spool.add()
        assert "its writer has ended" in spool.queue.broken
        with pytest.raises(QueueBroken, match="start the engine anew"):
            await spool.add()
        await spool.queue.close()
    monkeypatch.undo()
    async with opened(tmp_path) as spool:
        assert await spool.entries() == ()  # nothing of what was answered with an error is there
        await spool.add()


async def test_after_a_commit_of_which_nobody_knows_nothing_is_written_through_the_same_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out after the pages have been written, and before SQLite says so."""
    from tests.unit.sqlite.test_faults import Failing, fail_at

    async with opened(tmp_path) as spool:
        failing: Failing = fail_at(spool, "COMMIT")
        monkeypatch.setattr(failing, "execute", _out_of_memory_at_commit(failing))
        with pytest.raises(QueueBroken):
            await spool.add()
        with pytest.raises(QueueBroken):
            await spool.add()


def _out_of_memory_at_commit(failing: Any) -> Callable[..., Any]:
    def execute(query: str, *values: Any) -> Any:
        if query == "COMMIT":
            raise MemoryError
        return failing._connection.execute(query, *values)

    return execute


async def test_a_thread_that_hangs_does_not_keep_the_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a sync on a disk that answers no more. What it had in hand is answered with an error."""
    monkeypatch.setattr(writing, "END_SECONDS", 0.1)
    monkeypatch.setattr(writing, "GIVE_UP_SECONDS", 0.1)
    begun, hangs = threading.Event(), threading.Event()
    spool = SqliteSpool(tmp_path, FakeClock())
    await spool.queue.open()
    await spool.add()

    def hang(_: Transaction) -> None:
        begun.set()
        hangs.wait(20)

    waiting = asyncio.ensure_future(spool.writer.do(hang))
    await until(begun.is_set)
    behind = asyncio.ensure_future(spool.add())
    await until(lambda: not spool.writer._jobs.empty())
    thread = spool.writer._thread
    async with asyncio.timeout(10):
        await spool.queue.close()
        assert [type(one) for one in await asyncio.gather(waiting, behind, return_exceptions=True)] == [QueueBroken] * 2
    hangs.set()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    async with opened(tmp_path) as spool:
        assert len(await spool.entries()) == 1


async def test_a_statement_without_end_is_cut_short_when_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "END_SECONDS", 0.1)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    spool = SqliteSpool(tmp_path, FakeClock())
    await spool.queue.open()
    begun = threading.Event()

    def long(tx: Transaction) -> None:
        tx.connection.set_progress_handler(begun.set, 1000)  # while it is in the middle of it
        tx.execute(endless).fetchone()

    writing_long = asyncio.ensure_future(spool.writer.do(long))
    await until(begun.is_set)
    async with asyncio.timeout(10):
        await spool.queue.close()
        with pytest.raises(QueueError):
            await writing_long


async def test_a_question_without_end_is_cut_short_when_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.readers.END_SECONDS", 0.1)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    spool, is_read = SqliteSpool(tmp_path, FakeClock()), threading.Event()

    def ask(connection: sqlite3.Connection) -> object:
        connection.set_progress_handler(is_read.set, 1000)  # while it is in the middle of it
        return connection.execute(endless).fetchone()

    await spool.queue.open()
    asked = asyncio.ensure_future(spool.queue._database.readers.ask(ask, console=True))
    behind = asyncio.ensure_future(spool.queue.listing.window(ALL, "id", 0, 9))
    await until(is_read.is_set)
    async with asyncio.timeout(10):
        await spool.queue.close()
        for one in (asked, behind):
            with pytest.raises(QueueError):
                await one
