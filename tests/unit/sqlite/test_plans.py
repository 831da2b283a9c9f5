"""However big the queue, what mail needs to move is found by index: no query of it reads a whole table."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from engine.model.claim import EntryResult, Late, LateEntry, Relaying, Settlement, Shares
from engine.model.filter import Filter, Term
from engine.model.outcome import Outcome
from engine.queue.sqlite import reasons, schedule
from engine.queue.sqlite.expiry import EXPIRED
from engine.queue.sqlite.where import where
from engine.queue.untried import NOT_TRIED
from tests.unit.queue.support import ALL, DELIVERED, LATER
from tests.unit.sqlite.support import SqliteSpool, opened

NOW = 1_800_000_000.0
BIG_TABLES = ("e", "entry", "m", "message", "body", "attempt", "event")


LATE = Late(
    message=1,
    sender="ann@example.net",
    arrived=NOW,
    smtputf8=False,
    entries=(LateEntry(number=1, recipient="a@example.org", destination="example.org", expires=NOW),),
)


async def statements(spool: SqliteSpool) -> list[str]:
    """The statements, with their values written out, of a round of what a relay does all the time."""
    async with traced(spool) as seen:
        queue = spool.queue
        await spool.add()
        (claim,) = await spool.claim(limit=1)
        await spool.settle(claim, LATER, after=60)
        (claim,) = await spool.claim(limit=1)
        await spool.settle(claim, DELIVERED)
        await spool.add()
        (claim,) = await spool.claim(limit=1)
        attempt = claim.entries[0].attempt
        failed = EntryResult(number=1, attempt=attempt, outcome=Outcome.of_reply(550, "no"), tell="failed")
        await queue.claims.settle(Settlement(message=claim.message, results=(failed,)))
        (untold,) = await queue.claims.untold(10)
        await queue.claims.tell_later(untold.message, 0)
        await queue.claims.tell(untold, None)
        await spool.add()
        orphans = await queue.claims.relaying()
        await queue.claims.put_back_orphans(orphans or [Relaying(1, 1)], "nobody")
        await queue.standing.note_destination("example.org", ["mx.example.org"], "mx.example.org")
        await queue.claims.claim_site("mx.example.org", 1, 1)
        await queue.standing.block_site("mx.example.org", NOW + 60, "refused")
        await queue.standing.unblock_site("mx.example.org")
        await queue.claims.overdue(10)
        await queue.claims.notify(LATE, None)
        await queue.claims.due_destinations(10)
        await queue.claims.due_sites(10, ["mx.example.com"])
        await queue.claims.due_sites(10, ["mx.example.com"], with_doubtful=False)
        await queue.claims.doubtful_sites(["mx.example.com"], Shares(senders=frozenset({"a@b.example"})))
        await queue.claims.next_due(NOW)
        await queue.claims.late(10)
        await queue.claims.content(1)
        await queue.listing.destination("example.org")
        await queue.listing.window(ALL, "-id", 0, 50)
        await queue.listing.window(Filter.parse("domain=example.org"), "id", 0, 50)
        await queue.listing.message(1)
        await queue.orders.retry(Filter.parse("to=bob@example.org"), "oncall", newest=99)
        await queue.orders.retry(Filter.parse('group="450 later"'), "oncall", newest=99)
    return [one for one in seen if one.startswith(("SELECT", "UPDATE", "DELETE"))]


@asynccontextmanager
async def traced(spool: SqliteSpool) -> AsyncIterator[list[str]]:
    """What every connection of the store is asked meanwhile."""
    seen: list[str] = []
    readers = spool.queue._database.readers

    async def trace(listener: Callable[[str], None] | None) -> None:
        await spool.writer.do(
            lambda tx: tx.connection.set_trace_callback(listener)
        )  # itself: beside it both could wait
        for console, order in ((False, False), (True, False), (False, True)):
            await readers.ask(lambda connection: connection.set_trace_callback(listener), console=console, order=order)

    await trace(seen.append)
    yield seen
    await trace(None)


async def test_what_bad_hosts_hold_back_is_found_by_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        async with traced(spool) as seen:
            await spool.queue.listing.held_back(["mx1.example", "mx2.example"])
        plans = {one: [row[-1] for row in spool.sql(f"EXPLAIN QUERY PLAN {one}")] for one in seen}
        assert plans
        scans = {detail for plan in plans.values() for detail in plan if detail.startswith("SCAN ")}
        assert {scan.split()[1] for scan in scans} <= {"json_each"}


async def test_nothing_that_moves_mail_reads_or_sorts_a_whole_table(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.com")
        await spool.add()
        seen = await statements(spool)
        assert len(set(seen)) > 20
        costly = set()
        for statement in seen:
            for *_, detail in spool.sql(f"EXPLAIN QUERY PLAN {statement}"):
                scanned = detail.split()[1] if detail.startswith("SCAN ") else ""
                # A listing by id may walk along the table, since it stops; few rows may be sorted. The index of what is
                # being relayed holds nothing else.
                walks = scanned == "e" and "ORDER BY e.message" in statement
                walks = walks or "INDEX entry_relaying" in detail
                sorts = detail.startswith("USE TEMP B-TREE") and not any(
                    few in statement for few in ("suspension", "LIMIT")
                )
                if (scanned in BIG_TABLES and not walks) or sorts:
                    costly.add(f"{detail}: {statement}")
        assert costly == set()


async def test_reasons_are_counted_in_their_index_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for query in (reasons._GROUPS, reasons._DESTINATIONS):
            plan = [row[-1] for row in spool.sql(f"EXPLAIN QUERY PLAN {query}", *[1] * query.count("?"))]
            assert any("USING COVERING INDEX entry_reason" in detail for detail in plan)
            assert not any(detail.startswith("SCAN entry ") and "INDEX" not in detail for detail in plan)


async def test_what_was_never_tried_is_named_and_counted_by_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for why in ("450 later", NOT_TRIED, "held by ann"):
            named = where(Filter(terms=(Term(field="group", op="=", value=why),)), NOW, untried={why: ["example.org"]})
            query = f"SELECT count(*), count(DISTINCT e.message) FROM entry e WHERE {named.sql}"
            plan = [row[-1] for row in spool.sql(f"EXPLAIN QUERY PLAN {query}", *named.values)]
            assert any(detail.startswith("SEARCH e USING INDEX") for detail in plan)
            assert not any(detail.startswith("SCAN e") for detail in plan)
        for query in (reasons._TRIED, reasons._RELAYING, reasons._HELD):
            plan = [row[-1] for row in spool.sql(f"EXPLAIN QUERY PLAN {query}")]
            assert not any(detail.startswith("SCAN e") and "INDEX" not in detail for detail in plan)


async def test_what_waits_for_later_is_not_walked_through_to_find_what_is_due(tmp_path: Path) -> None:
    """Counted in steps of the store's own machine, so that it is the same however busy this one is."""
    async with opened(tmp_path) as spool:
        await spool.add(*(f"a@due{number}.example" for number in range(20)))
        connection = spool.writer._connection
        few = steps(connection)
        connection.execute("BEGIN")
        template = "SELECT 1, 1000 + value, 'x', 'later' || value || '.example', 'waiting', ?, ? FROM json_each(?)"
        connection.execute(
            "INSERT INTO destination (name, site, turn, touched) "
            "SELECT 'later' || value || '.example', '@later' || value || '.example', 0, ? FROM json_each(?)",
            (NOW, json.dumps(list(range(5000)))),
        )
        connection.execute(
            f"INSERT INTO entry (message, number, recipient, destination, state, due, expires) {template}",
            (NOW + 86400, NOW + 2 * 86400, json.dumps(list(range(5000)))),
        )
        connection.execute("UPDATE destination SET took_at = ? WHERE name LIKE '%1.example'", (NOW,))
        connection.execute("COMMIT")
        assert steps(connection) < 2 * few


def steps(connection: sqlite3.Connection) -> int:
    """How many hundreds of steps it takes to find what is due."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(step, 100)
    try:
        assert len(schedule.due_sites(connection, 100, (), now=NOW + 1)) == 20
        assert len(schedule.doubtful_sites(connection, (), now=NOW + 1)) >= 18
    finally:
        connection.set_progress_handler(None, 0)
    return count


async def test_a_pass_over_what_has_expired_goes_on_by_index_where_it_stood(tmp_path: Path) -> None:
    """However many have the same time: as the recipients of one message have."""
    async with opened(tmp_path) as spool:
        values = {"now": NOW, "expires": NOW, "message": 7, "number": 1, "limit": 500}
        plan = [row[-1] for row in spool.writer._connection.execute(f"EXPLAIN QUERY PLAN {EXPIRED}", values)]
        assert any("((expires,message,number)>(?,?,?) AND expires<?)" in detail for detail in plan)
        assert not any("TEMP B-TREE" in detail for detail in plan)
