"""One damaged page: what it holds is left out or held, and told; the store opens, and all other mail goes."""

import asyncio
import sqlite3
import threading
from pathlib import Path

import pytest

from engine.model.claim import Claim, Shares
from engine.model.filter import Filter
from engine.queue.errors import QueueDamaged, QueueError
from engine.queue.sqlite.damage import Damage
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, DELIVERED, LATER
from tests.unit.sqlite.pages import damage, leaves
from tests.unit.sqlite.support import SqliteSpool, begun_with, opened

MESSAGES = 400


async def filled(directory: Path, destinations: int = 40) -> None:
    """A closed store with many messages, some of them tried, and some being relayed when the engine was killed."""
    await begun_with(directory, _fill, destinations)


async def _fill(directory: Path, destinations: int) -> None:
    spool = SqliteSpool(directory, FakeClock())
    await spool.queue.open()
    await asyncio.gather(
        *(
            spool.add(
                f"user{number}@d{number % destinations}.example", content=b"Subject: hi\r\n\r\n" + b"x" * 900 + b"\r\n"
            )
            for number in range(MESSAGES)
        )
    )
    for claim in await spool.claim("d1.example"):
        await spool.settle(claim, LATER, after=0)
    await asyncio.gather(*(spool.queue.claims.claim(f"d{name}.example", 2, 7) for name in range(40)))
    await spool.queue.close()


async def relay_all(spool: SqliteSpool) -> set[tuple[int, str]]:
    """Carry everything that can be claimed and read, as a relayer does; give the messages that went, and where to."""
    went: set[tuple[int, str]] = set()
    for _ in range(200):
        claims: list[Claim] = []
        due = await spool.queue.claims.due_sites(1000)
        for found in await asyncio.gather(*(spool.queue.claims.claim_site(one.site, 10, 1) for one in due)):
            claims += found
        if not claims:
            return went
        for went_now in await asyncio.gather(*(carry(spool, claim) for claim in claims)):
            assert not went_now & went
            went |= went_now
    raise AssertionError("there is no end to it")


async def carry(spool: SqliteSpool, claim: Claim) -> set[tuple[int, str]]:
    try:
        await spool.queue.claims.content(claim.message)
    except QueueError as error:
        await spool.queue.claims.set_aside(claim, str(error))
        return set()
    await spool.settle(claim, DELIVERED)
    return {(claim.message, claim.destination)}


@pytest.mark.parametrize("which", [0.0, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("tree", ["entry", "body", "message"])
async def test_what_is_not_on_a_damaged_page_goes(tmp_path: Path, tree: str, which: float) -> None:
    await filled(tmp_path)
    of_a_page = MESSAGES // leaves(tmp_path, tree) + 2
    assert 3 * of_a_page < MESSAGES
    damage(tmp_path, tree, which=which)
    async with opened(tmp_path) as spool:
        went = await relay_all(spool)
        assert MESSAGES - 3 * of_a_page <= len(went) <= MESSAGES
        assert "is damaged" in spool.queue.trouble
        assert "smarthost check-spool --repair" in spool.queue.trouble
        assert spool.queue.broken == ""
    async with opened(tmp_path) as spool:
        assert not await relay_all(spool) & went  # nothing twice


@pytest.mark.parametrize(
    "tree",
    ["entry_due", "entry_fresh", "entry_destination", "entry_expires", "entry_relaying", "destination_turn",
     "destination_ready", "destination_doubtful", "destination_site", "attempt_message", "event_message"],
)  # fmt: skip
async def test_a_damaged_index_is_made_anew_and_nothing_is_left_out(tmp_path: Path, tree: str) -> None:
    await filled(tmp_path)
    damage(tmp_path, tree)
    async with opened(tmp_path) as spool:
        assert len(await relay_all(spool)) == MESSAGES
        assert await spool.add("later@d1.example") == MESSAGES + 1
        assert await spool.entries("to=later@d1.example")
        assert spool.queue.trouble == ""


async def test_the_index_of_what_is_to_be_told_is_made_anew(tmp_path: Path) -> None:
    await filled(tmp_path)
    damage(tmp_path, "message_tell_at")
    async with opened(tmp_path) as spool:
        assert await spool.queue.claims.untold(10) == []
        assert spool.queue.trouble == ""


@pytest.mark.parametrize("which", [0.0, 0.5, 0.999])
async def test_without_the_record_of_attempts_mail_goes(tmp_path: Path, which: float) -> None:
    await filled(tmp_path)
    before = await last_attempt(tmp_path)
    damage(tmp_path, "attempt", which=which)
    async with opened(tmp_path) as spool:
        assert len(await relay_all(spool)) == MESSAGES
        await spool.add()
        (claim,) = await spool.claim()
        assert claim.entries[0].attempt > before  # no number is given twice
        assert spool.queue.trouble == ""


async def last_attempt(directory: Path) -> int:
    async with opened(directory) as spool:
        (row,) = spool.sql("SELECT seq FROM sqlite_sequence WHERE name = 'attempt'")
        await asyncio.gather(*(spool.queue.claims.claim(f"d{name}.example", 2, 7) for name in range(40)))
        return int(row[0])


@pytest.mark.parametrize("which", [0.0, 0.5, 0.999])
async def test_without_the_record_of_events_mail_goes(tmp_path: Path, which: float) -> None:
    await filled(tmp_path)
    damage(tmp_path, "event", which=which)
    async with opened(tmp_path, events_kept=100) as spool:
        assert len(await relay_all(spool)) == MESSAGES
        await spool.add()
        for _ in range(3):
            await spool.queue.arrivals.record()
        numbers = [event.seq for event in await spool.queue.listing.events(limit=10)]
        assert numbers == sorted(numbers)
        assert numbers[0] > MESSAGES  # they go on from where they were
        assert spool.queue.trouble == ""
        assert any(event.kind == "damaged" for event in spool.events)


@pytest.mark.parametrize("tree", ["entry", "message"])
async def test_what_has_expired_is_given_up_but_for_what_cannot_be_read(tmp_path: Path, tree: str) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as spool:  # what was never tried has a try to come, and is not given up
        spool.sql("UPDATE entry SET attempts = 1, due = due + 7 * 86400")
    of_a_page = MESSAGES // leaves(tmp_path, tree) + 2
    damage(tmp_path, tree, which=0.5)
    async with opened(tmp_path) as spool:
        await spool.clock.advance(6 * 86400)
        gone: set[int] = set()
        while claims := await spool.queue.claims.overdue(50):
            assert not gone & {claim.message for claim in claims}
            gone |= {claim.message for claim in claims}
        assert MESSAGES - 3 * of_a_page < len(gone) < MESSAGES
        assert "is damaged" in spool.queue.trouble


@pytest.mark.parametrize("which", [0.0, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("tree", ["entry", "message", "destination"])
async def test_what_is_due_is_found_beside_a_damaged_page(tmp_path: Path, tree: str, which: float) -> None:
    await filled(tmp_path, 400)
    async with opened(tmp_path) as spool:
        for name in ("d2.example", "d3.example", "d20.example"):  # these have proved themselves
            for claim in await spool.claim(name):
                await spool.settle(claim, DELIVERED)
            await spool.add(f"more@{name}")
    damage(tmp_path, tree, which=which)
    async with opened(tmp_path) as spool:
        proved = await spool.queue.claims.due_sites(1000, with_doubtful=False)
        doubtful = await spool.queue.claims.doubtful_sites()
        assert 0 < len(proved) <= 3
        assert 200 < len(doubtful) <= 397
        taken = Shares(messages=frozenset(one.message for one in doubtful[:5]))
        assert len(await spool.queue.claims.doubtful_sites(taken=taken)) == len(doubtful) - 5
        await spool.queue.claims.next_due(spool.clock.now())


@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize("tree", ["entry", "message", "destination", "body"])
async def test_a_step_of_the_clock_is_put_right_beside_a_damaged_page(tmp_path: Path, tree: str, hours: int) -> None:
    await filled(tmp_path, 400)
    async with opened(tmp_path) as spool:
        spool.sql("UPDATE entry SET attempts = 1, due = due + 3600, last_at = due")
    damage(tmp_path, tree, which=0.5)
    async with opened(tmp_path) as spool:
        await spool.clock.set_by(hours * 3600)
        changed = await spool.queue.standing.clock_was_set("set", lambda _: 600.0, 600.0)
        if hours < 0:
            assert changed > MESSAGES / 2
            assert await spool.queue.claims.next_due(spool.clock.now()) is not None
        assert [event.text for event in spool.events if event.kind == "clock set"]


async def test_what_nobody_relays_is_put_back_beside_a_damaged_page(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as spool:
        claims = [claim for number in range(40) for claim in await spool.claim(f"d{number}.example")]
        damage(tmp_path, "entry", which=0.5)
        relaying = await spool.queue.claims.relaying()
        assert len(relaying) == sum(len(claim.entries) for claim in claims)
        count = await spool.queue.claims.put_back_orphans(relaying, "nobody answers for it")
        assert MESSAGES / 2 < count < len(relaying)
        assert "is damaged" in spool.queue.trouble


async def test_claims_are_given_back_though_one_is_on_a_damaged_page(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as spool:
        claims = [claim for number in range(40) for claim in await spool.claim(f"d{number}.example")]
        damage(tmp_path, "entry", which=0.5)
        await spool.queue.claims.put_back(claims, "the engine stops")
        left = await spool.queue.claims.relaying()
        assert 0 < len(left) < MESSAGES / 2


async def test_beside_a_damaged_page_a_check_looks_at_so_many_and_a_pass_begins_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.expiry.LOOKED_AT", 50)
    await filled(tmp_path)
    damage(tmp_path, "entry", which=0.5)
    async with opened(tmp_path) as spool:
        await spool.clock.advance(6 * 86400)  # all has expired, and has one more try to come
        looked: list[int] = []

        def count(statement: str) -> None:
            looked[-1] += "e.expires <= " in statement

        await spool.writer.do(
            lambda tx: tx.connection.set_trace_callback(count)
        )  # the writer itself: beside it both could wait
        for _ in range(MESSAGES // 50 + 8):
            looked.append(0)
            assert await spool.queue.claims.overdue(100) == []
        assert max(looked) <= 2 * 50 + 2  # a check that finds one that cannot be read begins again, knowing it
        assert sum(looked[1:]) > MESSAGES / 2
        assert looked[-3:] == [0, 0, 0]  # it is through, and does not begin again before its time
        await spool.clock.advance(10)
        looked.append(0)
        await spool.queue.claims.overdue(100)
        assert 40 < looked[-1] <= 2 * 50 + 2


@pytest.mark.parametrize("tree", ["entry", "message"])
@pytest.mark.parametrize("verb", ["drop", "bounce"])
async def test_orders_are_carried_out_but_for_what_cannot_be_read(tmp_path: Path, verb: str, tree: str) -> None:
    await filled(tmp_path)
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        await spool.queue.orders.hold(ALL, "oncall", "")
        for number in range(40):
            which = Filter.parse(f"domain=d{number}.example")
            await spool.queue.orders.give_up("drop" if verb == "drop" else "bounce", which, "oncall", "", 60)
    of_a_page = MESSAGES // leaves(tmp_path, tree) + 2
    damage(tmp_path, tree, which=0.5)  # after the orders were given
    async with opened(tmp_path, clock) as spool:
        await clock.advance(61)
        gone: set[int] = set()
        for _ in range(30):
            claims = await spool.queue.claims.overdue(50)
            assert not gone & {claim.message for claim in claims}
            gone |= {claim.message for claim in claims}
        if verb == "drop":
            gone = {event.message for event in spool.events if event.kind == "dropped"}
        assert MESSAGES - 3 * of_a_page < len(gone) < MESSAGES
        assert "is damaged" in spool.queue.trouble


async def test_what_expires_goes_beside_a_bounce_that_cannot_be_read(tmp_path: Path) -> None:
    await filled(tmp_path)
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        await spool.queue.orders.give_up("bounce", Filter.parse("domain=d7.example"), "oncall", "", 60)
        spool.sql("UPDATE entry SET attempts = 1, due = due + 7 * 86400 WHERE state = 'waiting'")
    damage(tmp_path, "entry", which=0.5)
    async with opened(tmp_path, clock) as spool:
        await clock.advance(6 * 86400)
        found = 0
        while claims := await spool.queue.claims.overdue(50):
            found += len(claims)
        assert found > MESSAGES / 2


async def test_damage_that_only_a_question_meets_is_told(tmp_path: Path) -> None:
    await filled(tmp_path)
    damage(tmp_path, "entry", which=0.5)
    async with opened(tmp_path) as spool:
        with pytest.raises(QueueError, match="could not be read"):
            await spool.queue.listing.window(ALL, "size", 0, 1000)
        await spool.queue.arrivals.record()
        assert "is damaged" in spool.queue.trouble


async def test_what_is_known_of_damage_is_forgotten_in_the_thread_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    forget = Damage.forget

    def noting(known: Damage) -> None:
        threads.append(threading.current_thread().name)
        forget(known)

    monkeypatch.setattr(Damage, "forget", noting)
    await filled(tmp_path)
    damage(tmp_path, "entry", which=0.5)
    async with opened(tmp_path) as spool:
        await relay_all(spool)
        assert spool.writer.damage.known
        await spool.queue.claims.overdue(100)
        await spool.queue.claims.overdue(100)
        assert threads == ["queue-writer"]
        await spool.queue.claims.overdue(100)
        assert threads == ["queue-writer"]


async def test_an_operation_that_meets_damage_undoes_nothing_of_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:

        def meets(tx: object) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

        first, hurt, second = await asyncio.gather(
            spool.add(), spool.writer.do(meets), spool.add(), return_exceptions=True
        )
        assert (first, second) == (1, 2)
        assert type(hurt) is QueueDamaged
        assert "is damaged" in spool.queue.trouble


async def test_damage_that_was_mended_while_a_question_met_it_is_not_told_again(tmp_path: Path) -> None:
    """The question had begun before, and saw what had been there."""
    async with opened(tmp_path) as spool:
        asked: list[object] = []

        def meets(connection: object) -> int:
            asked.append(connection)
            if len(asked) == 1:
                spool.writer.damage.mended += 1
                raise sqlite3.DatabaseError("database disk image is malformed")
            return 7

        assert await spool.queue._database.readers.ask(meets) == 7
        assert spool.queue.trouble == ""
