"""When the disk is full, broken, or holds what this version does not know."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from engine.model.claim import EntryResult, Settlement
from engine.model.destination import Suspension
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from engine.queue.errors import QueueBroken, QueueError, QueueFull
from engine.queue.sqlite import checkspool
from engine.queue.sqlite.connection import VERSION
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, DELIVERED, LATER, new_message
from tests.unit.sqlite.support import SqliteSpool, opened
from tests.waiting import until


async def limit_pages(spool: SqliteSpool, more: int) -> None:
    """Let the file grow by so many pages and no further."""
    await spool.writer.do(
        lambda tx: tx.execute(
            f"PRAGMA max_page_count = {tx.execute('PRAGMA page_count').fetchone()[0] + more}"
        ).fetchone()
    )


async def test_a_full_disk_refuses_and_works_again_once_freed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first = await spool.add()
        await limit_pages(spool, 4)
        big = new_message(content=b"x" * 100_000)
        with pytest.raises(QueueFull, match="no room"):
            await spool.queue.arrivals.enqueue(big)
        assert [entry.message for entry in await spool.entries()] == [first]
        assert spool.queue.broken == ""
        await limit_pages(spool, 1000)
        assert await spool.queue.arrivals.enqueue(big) > first


@pytest.mark.parametrize("room", range(0, 12, 2))
async def test_a_disk_that_fills_anywhere_leaves_no_half_message(tmp_path: Path, room: int) -> None:
    async with opened(tmp_path) as spool:
        await limit_pages(spool, room)
        names = [f"user-{n}@{'d' * 50}{n}.example" for n in range(60)]
        results = await asyncio.gather(
            *(spool.add(*names, content=b"x" * 9000, key=f"key-{n}") for n in range(3)), return_exceptions=True
        )
        kept = [result for result in results if isinstance(result, int)]
        assert all(isinstance(result, int | QueueFull) for result in results)
        assert {entry.message for entry in await spool.entries()} == set(kept)
        assert spool.sql("SELECT count(*) FROM body") == spool.sql("SELECT count(*) FROM message") == [(len(kept),)]
        assert spool.sql("SELECT count(*) FROM entry") == [(60 * len(kept),)]
        assert spool.sql("SELECT count(*) FROM taken_key") == [(len(kept),)]


async def test_what_frees_room_is_done_though_its_group_found_the_disk_full(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add(content=b"x" * 50_000)
        (claim,) = await spool.claim()
        await limit_pages(spool, 0)
        full, done = await asyncio.gather(
            spool.add(content=b"x" * 100_000), spool.settle(claim, DELIVERED), return_exceptions=True
        )
        assert isinstance(full, QueueFull)
        assert done is None
        assert await spool.entries() == ()


class Failing:
    """A connection that fails at the statements that begin with `statement`."""

    def __init__(self, connection: sqlite3.Connection, statement: str, message: str) -> None:
        self._connection = connection
        self._statement = statement
        self._message = message
        self.tried = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, *values: Any) -> Any:
        if query.startswith(self._statement):
            self.tried += 1
            raise sqlite3.OperationalError(self._message)
        return self._connection.execute(query, *values)


def fail_at(spool: SqliteSpool, statement: str, message: str = "disk I/O error") -> Failing:
    writer = spool.writer
    failing = Failing(writer._connection, statement, message)
    writer._connection = writer._upkeep._connection = cast(sqlite3.Connection, failing)
    return failing


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "INSERT INTO body"])
async def test_after_a_failed_write_nothing_more_is_written(tmp_path: Path, statement: str) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        failing = fail_at(spool, statement)
        results = await asyncio.gather(spool.add(), spool.add(), return_exceptions=True)
        assert [type(result) for result in results] == [QueueBroken, QueueBroken]
        assert "disk I/O error" in spool.queue.broken
        with pytest.raises(QueueBroken, match="start the engine anew"):
            await spool.queue.arrivals.record()
        assert failing.tried == 1
        assert await spool.queue.claims.content(number)  # what is there can still be read


async def test_a_commit_that_finds_the_disk_full_is_undone_and_later_ones_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        whole = spool.writer._connection
        fail_at(spool, "COMMIT", "database or disk is full")
        results = await asyncio.gather(spool.add(), spool.add(), return_exceptions=True)
        assert [type(result) for result in results] == [QueueFull, QueueFull]
        spool.writer._connection = whole
        assert await spool.add()
        assert len(await spool.entries()) == 1


async def test_a_failed_sync_while_the_log_is_copied_counts_as_a_failed_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.upkeep.CHECKPOINT_GROUPS", 1)
    monkeypatch.setattr("engine.queue.sqlite.writer.IDLE", 60.0)  # it is not copied for want of anything to do
    async with opened(tmp_path) as spool:
        fail_at(spool, "PRAGMA wal_checkpoint")
        with suppress(QueueBroken):  # what was done before may be copied, and fail, before this is taken
            await spool.add()
        await until(lambda: bool(spool.queue.broken))
        with pytest.raises(QueueBroken):
            await spool.add()


class Silent:
    """A connection whose log tells nothing of how far it is copied."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: str, *values: Any) -> Any:
        if query.startswith("PRAGMA wal_checkpoint"):
            self.asked += 1
            return self._connection.execute("SELECT 1 WHERE 0")
        return self._connection.execute(query, *values)


async def test_a_log_that_does_not_say_how_far_it_is_copied_keeps_no_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.upkeep.CHECKPOINT_GROUPS", 1)
    async with opened(tmp_path) as spool:
        silent = Silent(spool.writer._connection)
        spool.writer._connection = spool.writer._upkeep._connection = cast(sqlite3.Connection, silent)
        await spool.add()
        await spool.add()
        assert silent.asked
        assert spool.queue.broken == ""


async def test_a_broken_store_closes_without_writing(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        before = (tmp_path / "queue.db").read_bytes()
        fail_at(spool, "COMMIT")
        with pytest.raises(QueueBroken):
            await spool.add()
    assert (tmp_path / "queue.db").read_bytes() == before
    async with opened(tmp_path) as spool:
        assert len(await spool.entries()) >= 1


async def test_a_surrogate_in_any_text_fails_no_settlement(tmp_path: Path) -> None:
    bad = "caf\udce9"
    async with opened(tmp_path) as spool:
        number = await spool.add(subject=bad, message_id=bad, origin=bad, key=bad)
        (claim,) = await spool.claim()
        outcome = Outcome(kind="transient", code=451, text=bad, host=bad, enhanced=bad, phase=bad)
        results = (EntryResult(number=1, attempt=claim.entries[0].attempt, outcome=outcome, due=spool.clock.now()),)
        told = Event(at=0, kind="deferred", text=bad, host=bad, recipient=bad, by=bad, outcome=outcome)
        await spool.queue.claims.settle(Settlement(message=number, results=results, events=(told,)))
        entry = await spool.entry(number)
        assert entry.subject == "caf\\xe9"
        assert entry.last is not None
        assert entry.last.text == "caf\\xe9"
        assert spool.events[-1].text == "caf\\xe9"
        await spool.queue.standing.block("example.org", 0, bad)
        await spool.queue.standing.note_destination("example.org", [bad])
        await spool.queue.standing.suspend(Suspension(destination=bad, since=0, until=9e9, by=bad, note=bad))
        await spool.queue.orders.hold(ALL, bad, bad)
        await spool.queue.orders.give_up("bounce", ALL, bad, bad, 0)
        assert await spool.queue.listing.events(match=bad)
        assert await spool.queue.listing.destinations(bad, "name", 0, 9) == (0, ())
        assert (await spool.queue.listing.destination(bad)).waiting == 0
        await spool.queue.arrivals.forget_key(bad)


async def test_a_damaged_row_hides_no_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=0)
        await spool.add()
        spool.sql("UPDATE entry SET last = '{' WHERE last IS NOT NULL")
        first = (await spool.entries())[0]
        assert first.last is not None
        assert "damaged" in first.last.text
        assert len(await spool.claim()) == 2


async def test_a_queue_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        spool.sql("PRAGMA user_version = 99")
    with pytest.raises(QueueError, match="version 99"):
        await SqliteSpool(tmp_path, spool.clock).queue.open()


# What version 8 has more than version 7.
_BACK_TO_7 = (
    "DROP TABLE suppressed",
    "PRAGMA user_version = 7",
)


async def test_a_queue_of_the_seventh_version_is_brought_to_this_one_with_nobody_suppressed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org")
        for statement in _BACK_TO_7:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        assert (await spool.entry(number)).recipient == "a@example.org"
        assert (await spool.queue.suppression.window("", "", 9)).total == 0
        fresh = SqliteSpool(tmp_path / "new", spool.clock)
        await fresh.queue.open()
        about = "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name"
        assert spool.sql(about) == fresh.sql(about)
        await fresh.queue.close()


# What version 7 has more than version 6.
_BACK_TO_6 = (
    *_BACK_TO_7,
    "DROP TABLE leaving",
    "DROP TABLE coming",
    "PRAGMA user_version = 6",
)


async def test_a_queue_of_the_sixth_version_is_brought_to_this_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org")
        for statement in _BACK_TO_6:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        assert (await spool.entry(number)).recipient == "a@example.org"
        assert spool.sql("SELECT count(*) FROM leaving") == spool.sql("SELECT count(*) FROM coming") == [(0,)]


# Where version 6 has another name than version 5.
_BACK_TO_5 = (
    *_BACK_TO_6,
    *(
        f"ALTER TABLE {table} RENAME COLUMN note TO reason"
        for table in ("entry", "suspension", "hold_rule", "override", "mark", "operation")
    ),
    "ALTER TABLE entry RENAME COLUMN prior_note TO prior_reason",
    "PRAGMA user_version = 5",
)


async def test_a_queue_of_the_fifth_version_keeps_what_was_noted(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org")
        await spool.queue.orders.hold(ALL, "oncall", "looped this morning")
        for statement in _BACK_TO_5:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        assert (await spool.entry(number)).note == "looped this morning"
        fresh = SqliteSpool(tmp_path / "new", spool.clock)
        await fresh.queue.open()
        about = "SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name"
        assert spool.sql(about) == fresh.sql(about)
        for table in ("entry", "suspension", "hold_rule", "override", "mark", "operation"):
            columns = f"SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('{table}') ORDER BY name"
            assert spool.sql(columns) == fresh.sql(columns)
        await fresh.queue.close()


# What version 5 has more than version 4.
BACK_TO_4 = (
    *_BACK_TO_5,
    "DROP INDEX entry_postponed",
    "ALTER TABLE entry DROP COLUMN postponed_at",
    "ALTER TABLE entry DROP COLUMN postponed_by",
    "ALTER TABLE destination DROP COLUMN blocked_cause",
    "PRAGMA user_version = 4",
)


async def test_a_queue_of_the_fourth_version_is_brought_to_this_one_with_nothing_postponed(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@blocked.example")
        until = spool.clock.now() + 60
        await spool.queue.standing.block("blocked.example", until, "4.4.3 the DNS does not answer", cause="dns")
        for statement in BACK_TO_4:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        found = await spool.queue.listing.destination("blocked.example")
        assert (found.blocked_until, found.blocked_why) == (until, "4.4.3 the DNS does not answer")
        assert found.blocked_cause == "", "nobody kept it"
        assert (await spool.entry(number)).postponed_by == ""
        assert (await spool.queue.orders.postpone(ALL, "oncall", spool.clock.now() + 60)).recipients == 1


# What version 4 has more than version 3.
BACK_TO_3 = (
    *BACK_TO_4,
    "DROP TABLE known_login",
    "DROP TABLE untold",
    "DROP INDEX message_tell_at",
    "ALTER TABLE message DROP COLUMN tell_at",
    "ALTER TABLE message DROP COLUMN tellings",
    "ALTER TABLE message DROP COLUMN given_back",
    "ALTER TABLE destination DROP COLUMN unreached_at",
    "DROP INDEX entry_fresh",
    "DROP INDEX entry_relaying",
    "CREATE INDEX entry_relaying ON entry (destination) WHERE state = 'relaying'",
    "DROP INDEX destination_took",
    "DROP INDEX destination_doubtful",
    "DROP INDEX destination_proved",
    "ALTER TABLE destination DROP COLUMN took_at",
    "PRAGMA user_version = 3",
)


async def test_a_queue_of_the_third_version_knows_who_took_mail_last(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@took.example", "b@late.example", "c@new.example")
        for name, outcome in (("took.example", DELIVERED), ("late.example", LATER)):
            (claim,) = await spool.claim(name)
            await spool.settle(claim, outcome, after=60)
        for statement in BACK_TO_3:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        proved = {
            name: not (await spool.queue.listing.destination(name)).is_in_doubt
            for name in ("took.example", "late.example", "new.example")
        }
        assert proved == {"took.example": True, "late.example": False, "new.example": False}
        fresh = SqliteSpool(tmp_path / "new", spool.clock)
        await fresh.queue.open()
        for about in (
            "SELECT s.name, group_concat(i.name) FROM sqlite_schema s, pragma_index_info(s.name) i GROUP BY 1",
            "SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('destination') ORDER BY name",
        ):
            assert spool.sql(about) == fresh.sql(about)
        await fresh.queue.close()


# What version 3 has more than version 2.
_BACK_TO_2 = (
    *BACK_TO_3,
    "ALTER TABLE entry DROP COLUMN counted",
    "ALTER TABLE operation DROP COLUMN released",
    "ALTER TABLE operation DROP COLUMN gone_recipients",
    "ALTER TABLE operation DROP COLUMN gone_messages",
    "PRAGMA user_version = 2",
)


async def test_a_queue_of_the_second_version_is_brought_to_this_one(tmp_path: Path) -> None:
    """An order that was carried out before is told of no more; one under way is counted from here on."""
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.org", "c@example.org")
        await spool.queue.orders.give_up("drop", Filter.parse("to=a@*"), "oncall", "", 0)
        await spool.queue.claims.overdue(9)
        after = await spool.queue.orders.give_up("drop", Filter.parse("domain=example.org"), "oncall", "", 10)
        await spool.queue.orders.release(Filter.parse("to=b@*"), "oncall")
        spool.sql("UPDATE operation SET due = at WHERE id = 1")  # as version 2 left it
        for statement in _BACK_TO_2:
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        await spool.clock.advance(10)
        await spool.queue.claims.overdue(9)
        told = [event.text for event in spool.events if event.kind == "carried out"]
        assert told == [f"drop: 1 message dropped; operation {after.operation}: domain=example.org"]
        fresh = SqliteSpool(tmp_path / "new", spool.clock)
        await fresh.queue.open()
        for table in ("entry", "operation", "message", "destination", "untold"):
            columns = f"SELECT name, type, \"notnull\", dflt_value FROM pragma_table_info('{table}') ORDER BY name"
            assert spool.sql(columns) == fresh.sql(columns)
        await fresh.queue.close()


async def test_a_queue_of_the_first_version_is_brought_to_this_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.org")
        changed = await spool.queue.orders.give_up("drop", Filter.parse("to=a@*"), "oncall", "", 10)
        for statement in (
            *_BACK_TO_2,
            "DROP INDEX operation_due",
            "ALTER TABLE entry ADD COLUMN order_at REAL",
            "UPDATE entry SET order_at = (SELECT due FROM operation WHERE id = operation)",
            "ALTER TABLE operation DROP COLUMN due",
            "CREATE INDEX entry_order ON entry (ordered, order_at) WHERE state = 'held' AND order_at IS NOT NULL",
            "PRAGMA user_version = 1",
        ):
            spool.sql(statement)
    async with opened(tmp_path) as spool:
        assert spool.sql("PRAGMA user_version") == [(VERSION,)]
        dropped, other = await spool.entries()
        assert (dropped.ordered, dropped.order_at) == ("drop", changed.due)
        assert (other.ordered, other.order_at) == (None, None)
        await spool.clock.advance(10)
        await spool.queue.claims.overdue(9)
        assert [entry.recipient for entry in await spool.entries()] == ["b@example.org"]


async def test_before_the_file_is_changed_a_copy_of_it_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with opened(tmp_path) as spool:
        number = await spool.add()
        for statement in _BACK_TO_2:
            spool.sql(statement)
    kept = tmp_path / "queue.db.version-2"
    kept.with_name(f"{kept.name}.part").write_bytes(b"of one that was killed")
    async with opened(tmp_path) as spool:
        assert (await spool.entry(number)).recipient == "bob@example.org"
    assert f"as it was in version 2 it is kept in {kept}" in caplog.text
    assert kept.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["queue.db", kept.name]
    kept.rename(tmp_path / "queue.db")  # as whoever goes back would, and forth again
    async with opened(tmp_path) as spool:
        assert (await spool.entry(number)).recipient == "bob@example.org"


async def test_without_room_for_the_copy_the_file_is_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        for statement in _BACK_TO_2:
            spool.sql(statement)
    monkeypatch.setattr("engine.queue.sqlite.migrations._BESIDE", 2**60)
    with pytest.raises(QueueError, match="there is no room to keep a copy of it before it is changed"):
        await SqliteSpool(tmp_path, FakeClock()).queue.open()
    monkeypatch.undo()
    assert list(tmp_path.glob("*version-2*")) == []
    async with opened(tmp_path) as spool:
        assert len(await spool.entries()) == 1


def _as_it_was_first(spool: SqliteSpool) -> None:
    """Version 1 as the first smarthosts made it, of which none was released: without sites, DSN requests and rules."""
    for statement in (
        *_BACK_TO_2,
        "DROP INDEX operation_due",
        "ALTER TABLE operation DROP COLUMN due",
        "ALTER TABLE entry ADD COLUMN order_at REAL",
        "DROP INDEX entry_rule",
        "DROP INDEX entry_reason",
        "DROP INDEX entry_notice",
        *(f"ALTER TABLE entry DROP COLUMN {name}" for name in ("rule", "reason_key", "notify", "orcpt", "notice_at")),
        "DROP INDEX destination_turn",
        "DROP INDEX destination_site",
        "ALTER TABLE destination DROP COLUMN site",
        "ALTER TABLE message DROP COLUMN ret",
        "ALTER TABLE message DROP COLUMN envid",
        "ALTER TABLE mark DROP COLUMN times",
        *(f"DROP TABLE {name}" for name in ("hold_rule", "override", "sts_policy")),
        "PRAGMA user_version = 1",
    ):
        spool.sql(statement)


async def test_an_early_first_version_is_refused_unchanged_and_its_mail_can_be_brought_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        first = await spool.add("a@example.org", "b@example.com", content=b"Subject: old\r\n\r\nhello\r\n")
        await spool.queue.orders.hold(Filter.parse("to=b@*"), "oncall", "why")
        spool.sql("PRAGMA wal_checkpoint(TRUNCATE)")
        _as_it_was_first(spool)
    before = (tmp_path / "queue.db").read_bytes()
    with pytest.raises(QueueError, match=r"version 1, but has no .*never released.*check-spool --repair"):
        await SqliteSpool(tmp_path, FakeClock()).queue.open()
    assert (tmp_path / "queue.db").read_bytes() == before
    assert not checkspool.check(tmp_path).is_sound
    assert checkspool.repair(tmp_path).is_sound
    async with opened(tmp_path) as spool:
        assert [(one.recipient, one.state, one.note) for one in await spool.entries()] == [
            ("a@example.org", "waiting", ""),
            ("b@example.com", "held", "why"),
        ]
        assert b"hello" in await spool.queue.claims.content(first)
        assert await spool.claim("example.org")


async def test_what_is_no_queue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.db").write_bytes(b"this is no database" * 100)
    spool = SqliteSpool(tmp_path, FakeClock())
    with pytest.raises(QueueError, match="cannot open the queue"):
        await spool.queue.open()
    assert spool.queue.broken == ""


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "queue.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QueueError, match="cannot open the queue"):
        await SqliteSpool(tmp_path, FakeClock()).queue.open()
    assert not (tmp_path / "elsewhere").exists()


async def test_hostile_filter_text_is_only_ever_a_value(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        for text in ('"\' OR 1=1 --"', "to~%", "to~_", r"to~\\", "to=%", "subject~'", "to~;DROP"):
            assert await spool.entries(text) == (), text
        assert len(await spool.entries("to~bob")) == 1
        assert str(Filter.parse("to~%")) == "to~%"
