"""When somebody else holds the store: a shell inside BEGIN, a tool that copies it. Nothing is lost, and it goes on."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from engine.queue.errors import NotRunning, QueueBusy, QueueError
from tests.unit.queue.support import DELIVERED, LATER
from tests.unit.sqlite.support import opened
from tests.unit.sqlite.test_faults import fail_at
from tests.waiting import until


@contextmanager
def shell_inside_begin(directory: Path, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Hold the store as an operator's sqlite3 shell does that has not committed yet."""
    with closing(sqlite3.connect(directory / "queue.db", isolation_level=None)) as shell:
        shell.execute(begin)
        yield
        shell.execute("ROLLBACK")


async def test_while_a_shell_holds_the_store_it_is_busy_and_afterwards_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.connection.BUSY_SECONDS", 0.05)
    async with opened(tmp_path) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        told = len(spool.events)
        with shell_inside_begin(tmp_path):
            results = await asyncio.gather(
                spool.add(), spool.settle(claim, DELIVERED), spool.queue.claims.overdue(9), return_exceptions=True
            )
            assert [type(result) for result in results] == [QueueBusy] * 3
            assert "locked" in str(results[0])
            assert (await spool.entry(number)).state == "relaying"  # it can still be read
        assert len(spool.events) == told
        assert spool.queue.broken == ""
        await spool.settle(claim, DELIVERED)
        again = await spool.add()
        assert [entry.message for entry in await spool.entries()] == [again]


async def test_a_shell_that_is_done_in_time_is_not_noticed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        with shell_inside_begin(tmp_path):
            waiting = asyncio.ensure_future(spool.add())
            await until(lambda: bool(spool.writer._group))
            assert not waiting.done()
        assert await waiting == 1


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "INSERT INTO body"])
@pytest.mark.parametrize("said", ["database is locked", "database table is locked"])
async def test_a_group_that_finds_the_store_held_is_undone_whole(tmp_path: Path, statement: str, said: str) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("kept@example.org")
        (claim,) = await spool.claim()
        whole = spool.writer._connection
        fail_at(spool, statement, said)
        results = await asyncio.gather(
            spool.settle(claim, LATER, after=60), spool.add(), spool.queue.arrivals.record(), return_exceptions=True
        )
        assert [type(result) for result in results] == [QueueBusy] * 3
        spool.writer._connection = whole
        (entry,) = await spool.entries()
        assert (entry.recipient, entry.state, entry.attempts) == ("kept@example.org", "relaying", 0)
        await spool.settle(claim, LATER, after=60)
        await spool.add()
        assert len(await spool.entries()) == 2


async def test_a_reader_that_finds_the_store_held_says_so_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:

        def held(connection: sqlite3.Connection) -> None:
            raise sqlite3.OperationalError("database is locked")

        with pytest.raises(QueueBusy, match="locked"):
            await spool.queue._database.readers.ask(held)


async def test_an_attempt_that_runs_no_more_is_told_from_a_store_that_failed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=0)
        with pytest.raises(NotRunning, match="is not running"):
            await spool.settle(claim, DELIVERED)
        assert issubclass(NotRunning, QueueError)
        assert not issubclass(NotRunning, QueueBusy)


async def test_the_hourly_tidying_that_found_the_store_held_is_made_up_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.standing.note_destination("idle.example", ["mx.example"])
        await spool.clock.advance(2 * 86400)
        assert (await spool.queue.listing.destinations("", "name", 0, 9))[0] == 1
        whole = spool.writer._connection
        fail_at(spool, "DELETE FROM mark", "database is locked")
        with pytest.raises(QueueBusy):
            await spool.queue.claims.overdue(1)
        spool.writer._connection = whole
        await spool.queue.claims.overdue(1)
        assert (await spool.queue.listing.destinations("", "name", 0, 9))[0] == 0
