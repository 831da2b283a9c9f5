"""A damaged page of a small table: it is made anew from the rows that can be read, told, and mail goes on."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.model.destination import Mark, Over, Override, Suspension
from engine.model.filter import Filter
from engine.model.suppression import Suppressed
from engine.queue.contract import KeptPolicy
from engine.queue.sqlite import renewal
from engine.queue.sqlite.connection import connect_writer
from engine.queue.sqlite.store import FILE
from tests.unit.sqlite.pages import damage, leaves
from tests.unit.sqlite.support import SqliteSpool, begun_with, opened
from tests.unit.sqlite.test_damage import MESSAGES, filled, relay_all

ROWS = 100  # in each of the small tables, over several pages
HOUR = 3600.0
WHY = "a note that somebody gave at some length, " * 12

ORDERS = {"hold_rule": "hold rules", "suspension": "suspensions", "override": "overrides"}
SMALL = (*ORDERS, "mark", "sts_policy", "known_login", "suppressed")


async def filled_with_all(directory: Path) -> dict[str, set[tuple[Any, ...]]]:
    """A closed store with mail, and rows in every small table: none of them is about that mail."""
    return await begun_with(directory, _fill_with_all)


async def _fill_with_all(directory: Path) -> dict[str, set[tuple[Any, ...]]]:
    await filled(directory)
    async with opened(directory) as spool:
        queue, now = spool.queue, spool.clock.now()
        soon = now + HOUR
        for n in range(ROWS):
            name = f"other{n:03}.example"
            await queue.standing.add_rule(Filter.parse(f"domain={name}"), soon, "oncall", WHY)
            await asyncio.gather(
                queue.standing.suspend(Suspension(destination=name, since=now, until=soon, by="oncall", note=WHY)),
                queue.standing.set_override(
                    Override(destination=name, host="mx", port=0, since=now, until=soon, by="oncall", note=WHY)
                ),
                queue.marks.save(Mark(host=f"mx{n:03}.example", since=now, until=soon, by="engine", note=WHY)),
                queue.standing.save_sts_policy(KeptPolicy(domain=name, expires=soon, policy=WHY)),
                queue.arrivals.remember_login(f"ann{n:03}" + "n" * 200, "192.0.2.7"),
                queue.suppression.enter(
                    [Suppressed(address=f"bob@{name}", since=now, until=soon, by="oncall", note=WHY)],
                    "oncall",
                    "",
                    ROWS,
                ),
            )
        return rows(spool)


def rows(spool: SqliteSpool) -> dict[str, set[tuple[Any, ...]]]:
    return {table: set(spool.sql(f"SELECT * FROM {table}")) for table in SMALL}


def all_of(table: str, connection: sqlite3.Connection) -> list[Any]:
    return connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # by the table itself


async def looked_through(spool: SqliteSpool) -> None:
    """Ask all that the engine asks when it starts and at its checks. Nothing of it may be refused."""
    await spool.queue.marks.all()
    for table in ("sts_policy", "known_login", "suppressed"):  # of these the engine asks row by row
        await spool.queue._database.readers.ask(partial(all_of, table))
    await spool.queue.arrivals.known_logins()
    await spool.queue.standing.overrides()
    await spool.queue.standing.suspensions()
    await spool.queue.standing.rules()
    await spool.queue.standing.sts_policy("other050.example")
    await spool.queue.standing.save_sts_policy(
        KeptPolicy(domain="x.example", expires=spool.clock.now() + HOUR, policy="{}")
    )
    await spool.queue.arrivals.remember_login("bob", "192.0.2.8")
    assert await spool.queue.claims.overdue(100) == []
    await spool.queue.claims.late(10)
    assert await spool.add("new@new.example") > MESSAGES
    assert len(await relay_all(spool)) == MESSAGES + 1


@pytest.mark.parametrize("which", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("table", SMALL)
async def test_the_rows_that_can_be_read_are_kept_and_mail_goes_on(tmp_path: Path, table: str, which: float) -> None:
    there = await filled_with_all(tmp_path)
    assert leaves(tmp_path, table) >= 3
    damage(tmp_path, table, which=which)
    async with opened(tmp_path) as spool:
        await looked_through(spool)
        after = rows(spool)
        for name in SMALL:
            if name != table:
                assert there[name] <= after[name]
        kept = there[table] & after[table]
        assert ROWS * 0.4 < len(kept) < ROWS
        assert len(after[table] - there[table]) <= 1  # what was saved since
        (told,) = [event.text for event in spool.events if event.kind == "damaged"]
        assert f"{len(kept)} " in told
        if table in ORDERS:
            assert "what operators had laid upon mail is to be looked after" in told
            assert f"{ORDERS[table]} were lost" in spool.queue.trouble
        else:
            assert spool.queue.trouble == ""
    async with opened(tmp_path) as spool:
        await looked_at_again(spool, table, kept)


async def looked_at_again(spool: SqliteSpool, table: str, kept: set[tuple[Any, ...]]) -> None:
    assert kept <= rows(spool)[table]
    assert await spool.queue.claims.overdue(100) == []
    assert spool.queue.trouble == ""
    assert [event for event in spool.events if event.kind == "damaged"] == []


@pytest.mark.parametrize("table", SMALL)
async def test_of_a_table_of_one_page_nothing_is_left_and_mail_goes_on(tmp_path: Path, table: str) -> None:
    await filled(tmp_path)
    damage(tmp_path, table)
    async with opened(tmp_path) as spool:
        await looked_through(spool)
        assert [event.kind for event in spool.events].count("damaged") == 1
        rule = await spool.queue.standing.add_rule(
            Filter.parse("domain=a.example"), spool.clock.now() + HOUR, "oncall", ""
        )
        assert rule.id > 0


async def test_no_number_of_a_hold_rule_is_given_twice(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for n in range(3):
            named = Filter.parse(f"domain=d{n}.example")
            before = await spool.queue.standing.add_rule(named, spool.clock.now() + HOUR, "oncall", "")
    damage(tmp_path, "hold_rule")
    async with opened(tmp_path) as spool:
        await spool.queue.claims.overdue(1)
        rule = await spool.queue.standing.add_rule(
            Filter.parse("domain=a.example"), spool.clock.now() + HOUR, "oncall", ""
        )
        assert rule.id > before.id


async def test_beside_damage_in_the_mail_itself_a_small_table_is_made_anew_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.damage.SMALL_EVERY", 0.0)
    await filled_with_all(tmp_path)
    of_a_page = MESSAGES // leaves(tmp_path, "entry") + 2
    damage(tmp_path, "entry", which=0.5)
    damage(tmp_path, "mark")
    async with opened(tmp_path) as spool:
        assert len(await spool.queue.marks.all()) > ROWS * 0.4
        went = await relay_all(spool)
        assert MESSAGES - 3 * of_a_page <= len(went) < MESSAGES
        assert "is damaged" in spool.queue.trouble
        damage(tmp_path, "suspension")  # another page goes bad after that has been looked at
        spool.sql("PRAGMA shrink_memory")
        assert await spool.queue.standing.end_what_is_over() == Over()
        assert "suspensions were lost" in spool.queue.trouble
        assert "is damaged" in spool.queue.trouble  # that of the mail is not forgotten over it


async def test_cut_short_before_it_is_told_the_table_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object) -> None:
        raise sqlite3.OperationalError("the engine is killed here")

    await filled_with_all(tmp_path)
    damage(tmp_path, "hold_rule", which=0.5)
    with closing(connect_writer(tmp_path / FILE)) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(renewal, "insert_event", cut_short)
            with pytest.raises(sqlite3.OperationalError, match="is killed here"):
                renewal.mend_small_tables(connection, 0.0)
        assert not connection.in_transaction
        assert not renewal.is_whole(connection, "hold_rule")
        (told,) = renewal.mend_small_tables(connection, 0.0).events
        assert renewal.is_whole(connection, "hold_rule")
        assert connection.execute("SELECT text FROM event ORDER BY seq DESC").fetchone() == (told.text,)
