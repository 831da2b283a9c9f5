"""Claim and settle: what a relayer answers for, what becomes of it, and what a killed engine leaves behind."""

import shutil
from pathlib import Path

import pytest

from engine.model.claim import EntryResult, Settlement
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from engine.queue import expiry
from engine.queue.errors import NoSuchMessage, QueueError
from engine.queue.expiry import PASS_EVERY
from engine.queue.sqlite import idle
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, CONTENT, DELIVERED, LATER, new_message
from tests.unit.queue.test_claims import tried
from tests.unit.sqlite.support import SqliteSpool, opened


async def test_a_delivered_message_leaves_with_its_body_and_attempts(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, DELIVERED)
        with pytest.raises(NoSuchMessage):
            await spool.queue.listing.message(number)
        with pytest.raises(NoSuchMessage):
            await spool.queue.claims.content(number)
        assert spool.sql("SELECT (SELECT count(*) FROM body), (SELECT count(*) FROM attempt)") == [(0, 0)]


async def test_the_bounce_is_queued_in_the_transaction_that_removes_the_message(tmp_path: Path) -> None:
    async with opened(tmp_path, gather=15.0) as spool:
        number = await spool.add()
        (claim,) = await spool.claim()
        no = Outcome.of_reply(550, "5.1.1 no such user")
        result = EntryResult(number=1, attempt=claim.entries[0].attempt, outcome=no, tell="failed")
        await spool.queue.claims.settle(Settlement(message=number, results=(result,)))
        assert await spool.entries() == ()
        assert await spool.queue.claims.content(number) == CONTENT
        (untold,) = await spool.queue.claims.untold(9)
        before = spool.writer.groups
        bounce = new_message("ann@example.net", sender="", origin=f"bounce of {number}")
        assert await spool.queue.claims.tell(untold, bounce)
        assert spool.writer.groups == before + 1
        (entry,) = await spool.entries()
        assert (entry.sender, entry.recipient) == ("", "ann@example.net")
        with pytest.raises(NoSuchMessage):
            await spool.queue.claims.content(number)


async def test_what_cannot_be_read_is_set_aside_and_shown(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        other = await spool.add()
        spool.sql("UPDATE body SET content = x'00' WHERE message = ?", number)
        damaged, fine = await spool.claim()
        with pytest.raises(QueueError, match="damaged"):
            await spool.queue.claims.content(damaged.message)
        await spool.queue.claims.set_aside(damaged, "the body is damaged")
        await spool.settle(fine, DELIVERED)
        entry = await spool.entry(number)
        assert (entry.state, entry.ordered, entry.by, entry.note) == (
            "held",
            "hold",
            "engine",
            "the body is damaged",
        )
        assert [event.message for event in spool.events if event.kind == "damaged"] == [number]
        assert other not in {one.message for one in await spool.entries()}


async def test_a_missing_body_is_told_from_a_missing_message(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        spool.sql("DELETE FROM body")
        with pytest.raises(QueueError, match="missing"):
            await spool.queue.claims.content(number)
        with pytest.raises(NoSuchMessage):
            await spool.queue.claims.content(number + 1)


async def test_what_has_expired_and_stays_keeps_nothing_from_going_back_and_is_looked_at_in_bounded_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "LOOKED_AT", 3)
    async with opened(tmp_path, give_up_after=10) as spool:
        for number in range(10):  # never tried, so that it stays
            await spool.add(f"u{number}@stays.example")
        await spool.add()
        await tried(spool)
        await spool.clock.advance(11)
        looks = []
        while not (claims := await spool.queue.claims.overdue(9)):
            looks.append(1)
        assert [claim.entries[0].recipient for claim in claims] == ["bob@example.org"]
        assert len(looks) == 3
        await spool.queue.claims.put_back(claims, "no room")
        assert await spool.queue.claims.overdue(9) == []  # a pass over many rests before the next
        await spool.clock.advance(PASS_EVERY)
        assert [len(await spool.queue.claims.overdue(9)) for _ in range(4)] == [0, 0, 0, 1]


async def test_claims_to_give_up_that_are_put_back_are_exactly_as_they_were(tmp_path: Path) -> None:
    async with opened(tmp_path, give_up_after=1000) as spool:
        await spool.add("a@example.org", "b@example.com")
        for destination in ("example.org", "example.com"):
            (claim,) = await spool.claim(destination)
            await spool.settle(claim, LATER, after=5000)
        bounced = await spool.add("c@example.org", "d@example.org")
        await spool.queue.orders.hold(Filter.of_ids([bounced]), "day", "to be looked at")
        await spool.clock.advance(1000)
        changed = await spool.queue.orders.give_up("bounce", Filter.of_ids([bounced]), "oncall", "wrong list", 0)
        before = spool.sql("SELECT * FROM entry"), spool.sql("SELECT * FROM destination"), len(spool.events)
        for _ in range(3):
            claims = await spool.queue.claims.overdue(9)
            told = [(one.message, entry.number, entry.given_up) for one in claims for entry in one.entries]
            assert sorted(told) == [  # each of them once
                (1, 1, ""),
                (1, 2, ""),
                (bounced, 1, "bounced by oncall: wrong list"),
                (bounced, 2, "bounced by oncall: wrong list"),
            ]
            assert await spool.queue.claims.overdue(9) == []
            await spool.queue.claims.put_back(claims, "no room for the bounce")
            assert before == (
                spool.sql("SELECT * FROM entry"),
                spool.sql("SELECT * FROM destination"),
                len(spool.events),
            )
        await spool.queue.orders.undo(changed.operation, "oncall")
        assert [(e.state, e.by, e.note) for e in await spool.entries(f"id={bounced}")] == [
            ("held", "day", "to be looked at")
        ] * 2


async def killed(spool: SqliteSpool, to: Path) -> Path:
    """Copy the files as a killed engine would leave them."""
    await spool.queue.arrivals.record()
    to.mkdir()
    for path in spool.directory.iterdir():
        shutil.copy(path, to)
    return to


async def test_a_killed_engine_finds_its_claims_waiting_and_their_attempts_interrupted(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "one", clock) as spool:
        number = await spool.add("a@example.org", "b@example.org", "c@example.com")
        await spool.claim()
        two = await killed(spool, tmp_path / "two")
    again = SqliteSpool(two, clock)
    assert await again.queue.open() == 2
    message = await again.queue.listing.message(number)
    assert [entry.state for entry in message.entries] == ["waiting"] * 3
    assert [entry.attempts for entry in message.entries] == [0] * 3
    assert [(attempt.interrupted, attempt.ended) for attempt in message.attempts] == [(True, None)] * 2
    assert [(event.kind, event.entry) for event in again.events] == [("interrupted", 1), ("interrupted", 2)]
    (claim,) = await again.claim()
    await again.settle(claim, DELIVERED)
    await again.queue.close()


async def test_an_order_given_while_relaying_outlives_a_killed_engine(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "one", clock) as spool:
        held, bounced = await spool.add(), await spool.add()
        await spool.claim()
        await spool.queue.orders.hold(Filter.of_ids([held]), "oncall", "")
        await spool.queue.orders.give_up("bounce", Filter.of_ids([bounced]), "oncall", "", 0)
        two = await killed(spool, tmp_path / "two")
    async with opened(two, clock) as again:
        assert [(e.state, e.ordered) for e in await again.entries()] == [("held", "hold"), ("held", "bounce")]
        assert [one.message for one in await again.queue.claims.overdue(9)] == [bounced]


async def test_giving_up_that_was_cut_short_is_overdue_again(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path / "one", clock, give_up_after=100) as spool:
        bounced = await spool.add()
        await spool.queue.orders.give_up("bounce", ALL, "oncall", "wrong list", 0)
        await spool.add()
        await tried(spool)
        await clock.advance(100)
        assert len(await spool.queue.claims.overdue(9)) == 2
        two = await killed(spool, tmp_path / "two")
    again = SqliteSpool(two, clock)
    assert await again.queue.open() == 2
    claims = {one.message: one.entries[0].given_up for one in await again.queue.claims.overdue(9)}
    assert claims == {bounced: "bounced by oncall: wrong list", bounced + 1: ""}
    await again.queue.close()


async def test_what_has_expired_is_claimed_though_the_first_claim_of_it_was_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The walk over what has expired goes on only once what it found is claimed for good."""
    monkeypatch.setattr(expiry, "LOOKED_AT", 2)
    async with opened(tmp_path) as spool:
        for _ in range(6):
            await spool.add()
        spool.sql("UPDATE entry SET attempts = 1, due = due + 864000")
        await spool.clock.advance(6 * 86400)
        forget_idle = idle.forget_idle
        monkeypatch.setattr(idle, "forget_idle", lambda tx: 1 / 0)  # in the same transaction
        with pytest.raises(ZeroDivisionError):
            await spool.queue.claims.overdue(10)
        monkeypatch.setattr(idle, "forget_idle", forget_idle)
        assert [claim.message for claim in await spool.queue.claims.overdue(10)] == [1, 2]
        assert [claim.message for claim in await spool.queue.claims.overdue(10)] == [3, 4]
