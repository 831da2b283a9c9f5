"""The suppression list: who is on it, until when, by whom; with the settlement that put him there, and bounded."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.model.claim import EntryResult, Settlement
from engine.model.event import ENGINE
from engine.model.message import DsnRequest
from engine.model.outcome import Outcome
from engine.model.suppression import Entered, Suppressed
from engine.queue.errors import NoSuchMessage, NotRunning, QueueError
from tests.unit.queue.support import DELIVERED, LATER, Opened, Spool

DAY = 86_400.0
KEEP = 30 * DAY
NO_USER = Outcome.of_reply(550, "5.1.1 no such user", host="mx1.example.org", phase="RCPT", cause="reply")
REFUSED = Outcome.permanent("Suppressed: it failed before", enhanced="5.1.1")


async def fails(spool: Spool, recipient: str, seconds: float | None = KEEP, outcome: Outcome = NO_USER) -> None:
    """Queue a message, and settle it for good."""
    await spool.add(recipient)
    (claim,) = await spool.claim(recipient.rpartition("@")[2].lower())
    (entry,) = claim.entries
    result = EntryResult(number=entry.number, attempt=entry.attempt, outcome=outcome, suppress=seconds, tell=None)
    await spool.queue.claims.settle(Settlement(message=claim.message, results=(result,), epoch=claim.epoch))


async def on_it(spool: Spool) -> list[str]:
    return [row.address for row in (await spool.queue.suppression.window("", "", 1000)).rows]


async def enter(spool: Spool, *addresses: str, most: int = 100, **fields: object) -> Entered:
    now = spool.clock.now()
    entries = [replace(Suppressed(address=one, since=now, by="ann"), **fields) for one in addresses]
    return await spool.queue.suppression.enter(entries, "ann", "", most)


async def test_an_address_comes_on_it_with_the_settlement_and_is_found_however_it_is_written(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        now = spool.clock.now()
        await fails(spool, "Bob@Example.ORG")
        entered = Suppressed(
            address="bob@example.org", since=now, until=now + KEEP, by=ENGINE, reply="550 5.1.1 no such user"
        )
        assert await spool.queue.suppression.of(["BOB@example.org", "eve@example.org"]) == {"bob@example.org": entered}
        (event,) = (event for event in spool.events if event.kind == "suppressed")
        assert (event.by, event.recipient, event.destination, event.outcome) == (
            ENGINE, "bob@example.org", "example.org", NO_USER,
        )  # fmt: skip
    async with opened(tmp_path, spool.clock) as spool:
        assert await on_it(spool) == ["bob@example.org"]


async def test_after_its_time_it_is_not_on_it_and_is_forgotten(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fails(spool, "bob@example.org")
        await spool.clock.advance(KEEP - 1)
        assert await on_it(spool) == ["bob@example.org"]
        await spool.clock.advance(1)
        assert await on_it(spool) == []
        assert await spool.queue.suppression.of(["bob@example.org"]) == {}
        assert await spool.queue.suppression.remove("bob@example.org", "ann") is None
        assert await spool.queue.suppression.trim(100) == 1
        assert "unsuppressed" not in spool.kinds()


async def test_what_is_settled_too_late_enters_nobody(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("bob@example.org")
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=60)
        (entry,) = claim.entries
        result = EntryResult(number=1, attempt=entry.attempt, outcome=NO_USER, suppress=KEEP)
        with pytest.raises(NotRunning):
            await spool.queue.claims.settle(Settlement(message=claim.message, results=(result,), epoch=claim.epoch))
        assert await on_it(spool) == []


async def test_a_delivery_takes_off_what_came_by_itself_and_nothing_else(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fails(spool, "bob@example.org")
        await enter(spool, "eve@example.org")
        for recipient in ("Bob@example.org", "eve@example.org", "new@example.org"):
            await fails(spool, recipient, 0.0, DELIVERED)
        assert await on_it(spool) == ["eve@example.org"]
        assert [event.recipient for event in spool.events if event.kind == "unsuppressed"] == ["bob@example.org"]


async def test_a_failure_is_the_newer_one_but_never_in_place_of_an_operators(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fails(spool, "bob@example.org")
        await enter(spool, "eve@example.org", until=spool.clock.now() + DAY, note="asked us not to")
        await spool.clock.advance(60)
        for recipient in ("bob@example.org", "eve@example.org"):
            await fails(spool, recipient)
        found = await spool.queue.suppression.of(["bob@example.org", "eve@example.org"])
        assert found["bob@example.org"].since == spool.clock.now()
        assert (found["eve@example.org"].by, found["eve@example.org"].note) == ("ann", "asked us not to")
        await spool.clock.advance(DAY)  # it stood for as long as it was to
        await fails(spool, "eve@example.org")
        assert (await spool.queue.suppression.of(["eve@example.org"]))["eve@example.org"].by == ENGINE


async def test_operators_enter_and_take_off_and_each_is_an_event_with_who_did_it(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        assert await enter(spool, "a@example.org", note="left us") == Entered(new=1)
        assert await enter(spool, "a@example.org", "b@example.org") == Entered(new=1, changed=1)
        removed = await spool.queue.suppression.remove("A@example.org", "bo")
        assert removed is not None
        assert removed.address == "a@example.org"
        assert await on_it(spool) == ["b@example.org"]
        assert [(event.kind, event.by, event.recipient, event.text) for event in spool.events] == [
            ("suppressed", "ann", "a@example.org", "left us"),
            ("suppressed", "ann", "", "2 addresses, from a@example.org to b@example.org"),
            ("unsuppressed", "bo", "a@example.org", ""),
        ]


async def test_no_more_than_there_may_be_and_operators_own_stay(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for number in range(5):
            await fails(spool, f"u{number}@example.org")
            await spool.clock.advance(1)
        await enter(spool, "z@example.org")
        assert await spool.queue.suppression.trim(3) == 3
        assert await on_it(spool) == ["u3@example.org", "u4@example.org", "z@example.org"]
        assert await enter(spool, "x@example.org", "y@example.org", most=2) == Entered(has_room=False)
        assert await enter(spool, "y@example.org", "z@example.org", most=2) == Entered(new=1, changed=1)
        assert await spool.queue.suppression.trim(2) == 2
        assert await on_it(spool) == ["y@example.org", "z@example.org"]


async def test_it_is_listed_in_parts_and_by_what_stands_in_addresses(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await enter(spool, *(f"u{number}@{name}.example" for number in range(3) for name in ("one", "two", "100%_")))
        first = await spool.queue.suppression.window("@Two.", "", 2)
        assert (first.total, [row.address for row in first.rows]) == (3, ["u0@two.example", "u1@two.example"])
        rest = await spool.queue.suppression.window("@two.", first.rows[-1].address, 2)
        assert (rest.total, [row.address for row in rest.rows]) == (3, ["u2@two.example"])
        assert (await spool.queue.suppression.window("0%_", "", 9)).total == 3
        assert (await spool.queue.suppression.window("%", "", 9)).total == 3


async def test_texts_that_no_store_takes_are_kept_as_they_can_be(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fails(spool, "bob@example.org", outcome=replace(NO_USER, text="no \udc80 \0 such \x1b[31m user"))
        (row,) = (await spool.queue.suppression.window("", "", 9)).rows
        assert row.reply.isprintable()
        assert await spool.queue.suppression.of(["b\udc80b@example.org"]) == {}


async def test_a_clock_that_is_set_back_leaves_it_its_time(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fails(spool, "bob@example.org")
        await enter(spool, "eve@example.org")
        await spool.clock.advance(-10 * DAY)
        now = spool.clock.now()
        await spool.queue.standing.clock_was_set("", lambda _: 60.0, 60.0)
        found = await spool.queue.suppression.of(["bob@example.org", "eve@example.org"])
        assert (found["bob@example.org"].since, found["bob@example.org"].until) == (now, now + KEEP)
        assert found["eve@example.org"].until is None


# -- recipients that are refused as their message comes in ----------------------------------------------------------


async def test_who_is_refused_is_told_of_and_the_others_are_tried(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add(
            "a@example.org", "bob@gone.example", "c@example.org", refused=(None, REFUSED, None), key="drop"
        )
        assert [entry.recipient for entry in await spool.entries()] == ["a@example.org", "c@example.org"]
        (untold,) = await spool.queue.claims.untold(9)
        assert [(one.number, one.recipient, one.action, one.outcome) for one in untold.entries] == [
            (2, "bob@gone.example", "failed", REFUSED)
        ]
        assert spool.kinds() == ["accepted"] * 3 + ["returned"]
        assert await spool.queue.claims.tell(untold, None)
        assert await spool.add("x@example.org", key="drop") == number
        (claim,) = await spool.claim()
        await spool.settle(claim, DELIVERED)
        with pytest.raises(NoSuchMessage):
            await spool.queue.listing.message(number)


async def test_where_all_are_refused_the_message_leaves_with_what_is_told_of_it(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path, gather=15.0) as spool:
        number = await spool.add("bob@gone.example", refused=(REFUSED,))
        (untold,) = await spool.queue.claims.untold(9)  # at once: there is nothing more to be gathered
        assert untold.message == number
        assert (await spool.queue.claims.content(number)).startswith(b"Subject: hi")
        assert await spool.queue.claims.tell(untold, None)
        with pytest.raises(QueueError):
            await spool.queue.claims.content(number)


@pytest.mark.parametrize("fields", [{"dsn": (DsnRequest(notify="NEVER"),)}, {"sender": ""}])
async def test_nobody_is_told_who_does_not_want_it(tmp_path: Path, opened: Opened, fields: dict[str, object]) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("bob@gone.example", refused=(REFUSED,), **fields)
        assert spool.kinds() == ["accepted", "discarded"]
        assert await spool.queue.claims.untold(9) == []
        with pytest.raises(QueueError):
            await spool.queue.claims.content(number)


async def test_as_many_outcomes_as_recipients_or_none(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        with pytest.raises(QueueError, match="as many outcomes"):
            await spool.add("a@example.org", "b@example.org", refused=(REFUSED,))
