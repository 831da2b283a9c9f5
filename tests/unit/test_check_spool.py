"""`smarthost check-spool`: what is damaged is told; a repair keeps all that can be read, and names what cannot."""

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.model.claim import EntryResult, Settlement
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from engine.queue.errors import QueueError
from engine.queue.spool import Spool as OwnedSpool
from engine.queue.sqlite import checkspool
from engine.queue.sqlite import salvage as salvaging
from engine.queue.sqlite.migrations import create
from engine.queue.sqlite.store import FILE
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, DELIVERED, LATER, new_message
from tests.unit.sqlite.pages import damage
from tests.unit.sqlite.support import SqliteSpool, begun_with, opened
from tests.unit.sqlite.test_damage import relay_all

# A leaf of a table or an index, and how far through it that is.
PAGES = [
    *((tree, which) for tree in ("entry", "body", "message") for which in (0.0, 0.5, 0.999)),
    *((tree, 0.5) for tree in ("attempt", "event", "destination", "exchange", "operation", "taken_key", "entry_due",
                               "entry_destination", "destination_turn", "event_message", "attempt_message")),
]  # fmt: skip


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["check-spool", str(folder), *words])


def content_of(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + bytes([97 + number % 26]) * 900 + b"\r\n"


async def filled(directory: Path, messages: int = 200) -> dict[tuple[int, int], str]:
    """A closed store with mail in every state; the recipients in it."""
    return dict(await begun_with(directory, _fill, messages))


async def _fill(directory: Path, messages: int) -> dict[tuple[int, int], str]:
    spool = SqliteSpool(directory, FakeClock())
    await spool.queue.open()
    await asyncio.gather(
        *(
            spool.add(f"a{n}@d{n % 20}.example", f"b{n}@e{n % 10}.example", content=content_of(n), key=f"key {n}")
            for n in range(1, messages + 1)
        )
    )
    for claim in await spool.claim("d1.example"):
        await spool.settle(claim, LATER, after=600)
    for claim in await spool.claim("d2.example"):
        await spool.settle(claim, DELIVERED)
    await asyncio.gather(
        *(spool.queue.standing.note_destination(f"d{n}.example", [f"mx{n}.example"]) for n in range(20))
    )
    await spool.queue.orders.hold(Filter.parse("domain=d3.example"), "oncall", "wait")
    await spool.queue.orders.give_up("drop", Filter.parse("domain=d4.example"), "oncall", "", 3600)
    await spool.claim("d5.example")
    there = {(entry.message, entry.number): entry.recipient for entry in await spool.entries()}
    await spool.queue.close()
    return there


async def found(directory: Path) -> dict[tuple[int, int], tuple[str, str, str, bytes]]:
    """What a store holds: recipient, state, why it is held, and the content, or b"" where it cannot be read."""
    async with opened(directory) as spool:
        held: dict[tuple[int, int], tuple[str, str, str, bytes]] = {}
        for entry in (await spool.queue.listing.window(ALL, "id", 0, 10_000)).rows:
            try:
                content = await spool.queue.claims.content(entry.message)
            except QueueError:
                content = b""
            held[entry.message, entry.number] = (entry.recipient, entry.state, entry.note, content)
        return held


async def test_a_sound_spool_is_told_to_be_so_and_not_touched(tmp_path: Path) -> None:
    await filled(tmp_path, 20)
    before = (tmp_path / FILE).read_bytes()
    for words in ((), ("--repair",)):
        result = await asyncio.to_thread(run, tmp_path, *words)
        assert result.exit_code == 0, result.stderr
        assert f"{tmp_path / FILE}: in order" in result.stdout
    assert len(await found(tmp_path)) == 39
    assert (tmp_path / FILE).stat().st_size == len(before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", FILE]


def test_a_folder_without_a_queue_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path / "none")
    assert (result.exit_code, "there is no queue in it" in result.stderr) == (1, True)
    assert not (tmp_path / "none").exists()


async def test_while_an_engine_owns_the_spool_it_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    with OwnedSpool(tmp_path):
        for words in ((), ("--repair",)):
            result = run(tmp_path, *words)
            assert result.exit_code == 1
            assert result.stderr == f"{tmp_path}: an engine with pid {os.getpid()} owns this spool; stop it first\n"


async def test_while_another_program_has_the_file_open_it_is_not_repaired(tmp_path: Path) -> None:
    await filled(tmp_path, 3)
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("PRAGMA journal_mode = WAL").fetchone()
        other.execute("SELECT count(*) FROM message").fetchone()
        result = run(tmp_path, "--repair")
    assert (result.exit_code, "another program" in result.stderr) == (1, True)


@pytest.mark.parametrize(("tree", "which"), PAGES)
async def test_a_repair_keeps_all_that_can_be_read_and_names_the_rest(tmp_path: Path, tree: str, which: float) -> None:
    there = await filled(tmp_path)
    before = await found(tmp_path)
    damage(tmp_path, tree, which=which)
    as_it_was = (tmp_path / FILE).read_bytes()
    result = await asyncio.to_thread(run, tmp_path)
    assert result.exit_code == 1
    assert "check-spool" in result.stderr
    assert (tmp_path / FILE).read_bytes() == as_it_was
    result = await asyncio.to_thread(run, tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("kept as it was: ") == 1
    (kept,) = tmp_path.glob(f"{FILE}.damaged-*")
    assert kept.read_bytes()[4096:] == as_it_was[4096:]  # on the first page stands that it has no log now
    assert kept.stat().st_mode & 0o777 == (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    after = await found(tmp_path)
    assert set(after) == set(there)  # every recipient is known by the events, or was read
    for key, (recipient, state, _, content) in before.items():
        told = f"message {key[0]}: to " in result.stdout
        now = after[key]
        assert now[0] == recipient
        assert now[3] == content or (told and tree == "body")
        assert now[1] == state or (told and now[1] == "held" and tree in ("entry", "message", "body"))
    held = sum(now[2].startswith("check-spool: ") for now in after.values())
    assert held <= 2 * 110 * (tree in ("entry", "message", "body"))
    assert (await asyncio.to_thread(run, tmp_path)).exit_code == 0
    async with opened(tmp_path) as spool:
        went = await relay_all(spool)
        assert spool.queue.trouble == ""
        assert went
        assert await spool.add() == 201  # no number is given twice
        assert tree == "taken_key" or await spool.queue.arrivals.enqueue(new_message(key="key 7")) == 7


async def test_what_no_event_tells_of_is_named_by_its_number_and_destination(tmp_path: Path) -> None:
    await filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute("DELETE FROM event")
    damage(tmp_path, "entry", which=0.5)
    result = await asyncio.to_thread(run, tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    lost = [line for line in result.stdout.splitlines() if line.startswith("lost: message ")]
    assert lost
    assert all(line.endswith("; no event names it") and (" at d" in line or " at e" in line) for line in lost)
    assert len(await found(tmp_path)) == 390 - len(lost)


async def test_indexes_that_disagree_are_made_anew_in_place(tmp_path: Path) -> None:
    await filled(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        (sql,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'entry_expires'").fetchone()
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, '''waiting''', '''held''') WHERE name = 'entry_expires'"
        )
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("UPDATE entry SET expires = expires + 1 WHERE state = 'waiting'")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'entry_expires'", (sql,))
    inode = (tmp_path / FILE).stat().st_ino
    assert run(tmp_path).exit_code == 1
    result = run(tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    assert "repaired: its indexes have been made anew; nothing is lost" in result.stdout
    assert (tmp_path / FILE).stat().st_ino == inode
    assert run(tmp_path).exit_code == 0


async def test_counts_that_are_wrong_are_counted_anew(tmp_path: Path) -> None:
    await filled(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        connection.execute("UPDATE destination SET waiting = 99, edge = NULL WHERE name = 'd7.example'")
    assert "the counts of d7.example are wrong" in run(tmp_path).stderr
    assert run(tmp_path, "--repair").exit_code == 0
    assert run(tmp_path).exit_code == 0


async def test_a_queue_whose_first_messages_have_left_is_in_order_and_can_be_repaired(tmp_path: Path) -> None:
    await filled(tmp_path, 60)
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:  # as in a queue that has run for some time: the first have left
        await clock.advance(601)
        for number in (1, 2):
            for entry in await spool.entries(f"id={number}"):
                for claim in await spool.claim(entry.destination):
                    await spool.settle(claim, DELIVERED)
        assert spool.sql("SELECT 1 FROM entry WHERE message = number") == []
    assert run(tmp_path).stdout == f"{tmp_path / FILE}: in order\n"
    damage(tmp_path, "event")
    result = await asyncio.to_thread(run, tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    assert run(tmp_path).exit_code == 0


async def owing(directory: Path, messages: int = 60) -> set[tuple[int, int]]:
    """A closed store in which senders are still to be told of what has failed; of which recipients."""
    async with opened(directory, gather=60.0) as spool:
        for n in range(1, messages + 1):
            await spool.add(f"a{n}@one.example", f"b{n}@d{n % 2}.example", content=content_of(n))
        for destination in ("one.example", "d0.example"):  # every second one waits for nothing but to be told
            for claim in await spool.claim(destination, messages):
                told = tuple(
                    EntryResult(
                        number=one.number, attempt=one.attempt, outcome=Outcome.of_reply(550, "no"), tell="failed"
                    )
                    for one in claim.entries
                )
                await spool.queue.claims.settle(Settlement(message=claim.message, results=told))
        await spool.queue.arrivals.remember_login("ann", "192.0.2.7")
        return {(message, number) for message, number in spool.sql("SELECT message, number FROM untold")}


async def test_a_repair_keeps_what_senders_are_still_to_be_told(tmp_path: Path) -> None:
    owed = await owing(tmp_path)
    assert len(owed) == 90
    assert run(tmp_path).stdout == f"{tmp_path / FILE}: in order\n"  # what waits only to be told is no leftover
    damage(tmp_path, "event")
    result = await asyncio.to_thread(run, tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        assert set(spool.sql("SELECT message, number FROM untold")) == owed
        assert [one.login for one in await spool.queue.arrivals.known_logins()] == ["ann"]
        await clock.advance(61)
        found = await spool.queue.claims.untold(100)
        assert {(one.message, entry.number) for one in found for entry in one.entries} == owed
        assert await spool.queue.claims.content(2) == content_of(2)
    assert run(tmp_path).exit_code == 0


@pytest.mark.parametrize("tree", ["untold", "message", "body"])
async def test_what_cannot_be_told_any_more_is_named_and_the_rest_is_told(tmp_path: Path, tree: str) -> None:
    owed = await owing(tmp_path)
    damage(tmp_path, tree, which=0.4)
    result = await asyncio.to_thread(run, tmp_path, "--repair")
    assert result.exit_code == 0, result.stderr
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        left = set(spool.sql("SELECT message, number FROM untold"))
        assert left == owed if tree != "untold" else left < owed
        for message in {message for message, _ in owed} - {message for message, _ in left}:
            assert f"lost: message {message}: what its sender was to be told" in result.stdout
        await clock.advance(61)
        found = await spool.queue.claims.untold(100)
        assert {(one.message, entry.number) for one in found for entry in one.entries} == left
        assert {one.sender for one in found} == {"ann@example.net"}
        assert all(one.entries for one in found)
    assert run(tmp_path).exit_code == 0


def test_every_table_is_copied_by_a_repair_or_left_on_purpose() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        create(connection)
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        there = {name for (name,) in connection.execute(tables)}
    assert {"message", "untold", "known_login"} < there
    copied = {*salvaging.NUMBERED, *salvaging.NAMED}
    assert copied | salvaging.LEFT == there
    assert not copied & salvaging.LEFT


async def test_a_queue_of_version_3_has_nothing_untold_and_is_checked_all_the_same(tmp_path: Path) -> None:
    await filled(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as connection:
        for statement in ("DROP TABLE untold", "DROP TABLE known_login", "PRAGMA user_version = 3"):
            connection.execute(statement)
    assert run(tmp_path).stdout == f"{tmp_path / FILE}: in order\n"


async def test_without_room_for_a_copy_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(tmp_path)
    damage(tmp_path, "entry")
    monkeypatch.setattr(checkspool, "BESIDE", 2**60)
    result = run(tmp_path, "--repair")
    assert (result.exit_code, "there is no room to copy it" in result.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", FILE]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_what_root_repairs_still_belongs_to_the_user_of_the_engine(tmp_path: Path) -> None:
    await filled(tmp_path, 20)
    damage(tmp_path, "entry_due")
    for path in tmp_path.iterdir():
        os.chown(path, 4711, 4712)
    assert run(tmp_path, "--repair").exit_code == 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.iterdir()} == {(4711, 4712)}


async def test_killed_at_any_line_the_queue_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    await filled(tmp_path, 60)
    damage(tmp_path, "entry", which=0.4)
    begun = (tmp_path / FILE).read_bytes()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        readable = {number for (number,) in connection.execute("SELECT number FROM message")}
    died = 0
    seen: set[int] = set()
    while (line := await asyncio.to_thread(repair_until_a_new_line, tmp_path, seen)) is not None:
        seen.add(line)
        died += 1
        async with opened(tmp_path) as spool:  # as the engine does at its next start
            assert {row[0] for row in spool.sql("SELECT number FROM message")} == readable
            for number in readable:
                assert (await spool.queue.claims.content(number)).endswith(b"\r\n")
        for path in tmp_path.iterdir():  # from the beginning again
            path.unlink()
        (tmp_path / FILE).write_bytes(begun)
    assert died > 40
    assert len(await found(tmp_path)) == 117


def repair_until_a_new_line(folder: Path, seen: set[int]) -> int | None:
    """Repair in a process that is killed before the first line it comes to that is not among those seen."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            source = checkspool.__file__

            def step(frame: FrameType, event: str, _: object) -> Any:
                if frame.f_code.co_filename != source:
                    return None
                if event == "line" and frame.f_lineno not in seen:
                    os.write(writing, str(frame.f_lineno).encode())
                    os._exit(9)
                return step

            sys.settrace(step)
            checkspool.repair(folder)
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as said:
        line = said.read()
    return int(line) if line else None
