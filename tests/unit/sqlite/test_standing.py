"""What stands until its time is over: suspensions, blocks and bad hosts, over restarts too."""

from pathlib import Path

import pytest

from engine.model.outcome import Outcome
from engine.queue.sqlite import idle
from tests.unit.queue.support import ALL, DELIVERED
from tests.unit.queue.test_standing import mark, stuck
from tests.unit.sqlite.support import opened


async def test_a_mark_that_is_made_shorter_unblocks_what_was_blocked_for_longer(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        now = spool.clock.now()
        await spool.queue.marks.save(mark(spool.clock, "MX1.example", 30 * 86400))
        blocks = {"long.example": 30 * 86400, "short.example": 60, "other.example": 30 * 86400}
        for name, seconds in blocks.items():
            await spool.add(f"x@{name}")
            await spool.queue.standing.note_destination(
                name, ["mx9.example" if name == "other.example" else "mx1.example"]
            )
            await spool.queue.standing.block(name, now + seconds, "every exchange is marked bad")
        groups = spool.writer.groups
        await spool.queue.marks.save(mark(spool.clock, "mx1.EXAMPLE", 600))
        assert spool.writer.groups == groups + 1
        assert await spool.queue.claims.due_destinations(9) == ["long.example"]
        freed = await spool.queue.listing.destination("long.example")
        assert (freed.blocked_until, freed.blocked_why) == (None, "")
        assert (await spool.queue.listing.destination("short.example")).blocked_until == now + 60
        assert (await spool.queue.listing.destination("other.example")).blocked_until == now + 30 * 86400


async def test_an_answer_that_was_costly_is_given_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        (first,) = await spool.queue.listing.held_back(["mx1.example"])
        await spool.add("z@a.example")
        (second,) = await spool.queue.listing.held_back(["mx1.example"])
        assert (first.waiting, second.waiting) == (2, 3)
        monkeypatch.setattr("engine.queue.sqlite.held_back.COSTLY", 0.0)
        monkeypatch.setattr("engine.queue.sqlite.held_back.RESTS", 1e9)
        (before,) = await spool.queue.listing.held_back(["mx1.example"])
        await spool.add("z@a.example")
        assert await spool.queue.listing.held_back(["mx1.example"]) == (before,)
        assert [held.waiting for held in await spool.queue.listing.held_back(["mx1.example", "mx3.example"])] == [4, 0]


async def test_a_destination_of_which_nothing_is_heard_for_a_day_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@idle.example")
        (claim,) = await spool.claim("idle.example")
        await spool.settle(claim, Outcome.permanent("no such user", enhanced="5.1.1"))
        await spool.queue.standing.note_destination("idle.example", ["mx.example"])
        await spool.add("x@busy.example")
        await spool.queue.claims.overdue(1)
        assert (await spool.queue.listing.destinations("", "name", 0, 9))[0] == 2
        await spool.clock.advance(86401)
        await spool.queue.claims.overdue(1)
        total, (left,) = await spool.queue.listing.destinations("", "name", 0, 9)
        assert (total, left.name) == (1, "busy.example")
        assert spool.sql("SELECT count(*) FROM exchange") == [(0,)]


async def test_more_idle_destinations_than_one_transaction_forgets_are_gone_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.idle.FORGET_AT_ONCE", 3)
    async with opened(tmp_path) as spool:
        for n in range(8):
            await spool.queue.standing.note_destination(f"idle{n}.example", ["mx.example"])
        await spool.clock.advance(86401)
        left = []
        for _ in range(4):
            await spool.queue.claims.overdue(1)
            left.append((await spool.queue.listing.destinations("", "name", 0, 0))[0])
        assert left == [5, 2, 0, 0]
        await spool.queue.standing.note_destination("late.example", ["mx.example"])
        spool.sql("UPDATE destination SET touched = 0")
        await spool.queue.claims.overdue(1)  # there was no more: the next look is in an hour
        assert (await spool.queue.listing.destinations("", "name", 0, 0))[0] == 1
        await spool.clock.advance(3600)
        await spool.queue.claims.overdue(1)
        assert (await spool.queue.listing.destinations("", "name", 0, 0))[0] == 0


async def test_a_mark_that_ended_a_day_ago_is_forgotten_though_nobody_asks_for_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.sqlite.idle.FORGET_AT_ONCE", 3)
    async with opened(tmp_path) as spool:
        for n in range(5):
            await spool.queue.marks.save(mark(spool.clock, f"mx{n}.example", 60 + n))
        lasting = mark(spool.clock, "lasting.example", 30 * 86400)
        await spool.queue.marks.save(lasting)
        await spool.clock.advance(120)
        await spool.queue.claims.overdue(1)
        assert len(await spool.queue.marks.all()) == 6  # a host that answers now is still news
        await spool.clock.advance(86400)
        await spool.queue.claims.overdue(1)
        assert len(await spool.queue.marks.all()) == 3
        await spool.queue.claims.overdue(1)
        assert await spool.queue.marks.all() == (lasting,)
        assert "marked good" not in spool.kinds()


async def test_only_the_newest_events_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, events_kept=50) as spool:
        for _ in range(3):
            await spool.add(*(f"u{n}@example.org" for n in range(600)))
        await spool.queue.arrivals.record()
        await spool.queue.listing.select(ALL)
        (count,) = spool.sql("SELECT count(*) FROM event")[0]
        assert count <= 50 + 1000
        assert (await spool.queue.listing.events(limit=1))[0].seq == 1800


async def test_of_destinations_that_took_mail_lately_so_many_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "PROVED_KEPT", 2)
    async with opened(tmp_path) as spool:
        for number in range(4):
            await spool.add(f"x@d{number}.example")
            (claim,) = await spool.claim(f"d{number}.example")
            await spool.settle(claim, DELIVERED)
            await spool.clock.advance(10)
        await spool.clock.advance(86401)
        await spool.queue.claims.overdue(1)
        _, rows = await spool.queue.listing.destinations("", "name", 0, 9)
        assert [row.name for row in rows] == ["d2.example", "d3.example"]
