"""What came of an order to bounce or drop: told once, when it is whole, with exact counts."""

from pathlib import Path

from engine.model.filter import Filter
from engine.model.outcome import Outcome
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool

GIVEN_UP = Outcome.permanent("bounced", enhanced="5.7.0")


def told(spool: Spool) -> list[tuple[str, str]]:
    return [(event.by, event.text) for event in spool.events if event.kind == "carried out"]


async def return_all(spool: Spool) -> None:
    for claim in await spool.queue.claims.overdue(100):
        await spool.settle(claim, GIVEN_UP)


async def test_a_drop_is_told_of_once_with_what_was_released_meanwhile(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(11):
            await spool.add()
        await spool.add("a@example.org", "b@example.com", "c@example.net")
        await spool.add("late@example.org")
        changed = await spool.queue.orders.give_up("drop", ALL, "ann", "runaway", 10)
        await spool.queue.orders.release(Filter.parse("to=late@*"), "bob")
        await spool.clock.advance(9)
        await spool.queue.claims.overdue(9)
        assert told(spool) == []
        await spool.clock.advance(1)
        await spool.queue.claims.overdue(9)
        text = "drop: 12 messages (14 recipients) dropped; 1 was released meanwhile; operation 1: everything"
        assert told(spool) == [("ann", text)]
        await spool.queue.claims.overdue(9)
        assert len(told(spool)) == 1
        operation = await spool.queue.orders.operation(changed.operation)
        assert operation is not None
        assert (operation.left, operation.due) == (0, None)
        assert f"drop: {operation.result}; operation 1: everything" == text


async def test_a_message_is_counted_once_in_whatever_order_its_recipients_go(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@one.example", "b@two.example")
        await spool.add("c@one.example", "d@two.example")
        await spool.queue.orders.give_up("bounce", ALL, "ann", "", 0)
        claims = {(claim.message, claim.destination): claim for claim in await spool.queue.claims.overdue(9)}
        for which in ((1, "one.example"), (2, "one.example"), (1, "two.example"), (2, "two.example")):
            await spool.settle(claims[which], GIVEN_UP)
        assert told(spool)[0][1].startswith("bounce: 2 messages (4 recipients) bounced;")


async def test_what_a_killed_engine_had_begun_is_counted_on_by_the_next_and_told_once(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.com")
        await spool.queue.orders.give_up("bounce", ALL, "ann", "", 0)
        first, _ = await spool.queue.claims.overdue(9)
        await spool.settle(first, GIVEN_UP)
    async with opened(tmp_path, spool.clock) as spool:  # the other claim was never settled
        assert told(spool) == []
        await return_all(spool)
        assert told(spool) == [("ann", "bounce: 1 message (2 recipients) bounced; operation 1: everything")]
    async with opened(tmp_path, spool.clock) as spool:
        await spool.queue.claims.overdue(9)
        assert told(spool) == []


async def test_what_went_another_way_is_told_as_that(tmp_path: Path, opened: Opened) -> None:
    """What was on its way when the order came is sent, if it is taken: it was not dropped."""
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org")
        await spool.add("b@example.com")
        (claim,) = await spool.claim()
        await spool.queue.orders.give_up("drop", ALL, "ann", "", 0)
        await spool.queue.claims.overdue(9)
        assert told(spool) == []
        operation = await spool.queue.orders.operation(1)
        assert operation is not None
        assert operation.result == "1 message dropped; 1 recipient still to go"
        await spool.settle(claim, DELIVERED)
        text = "1 message dropped; 1 went another way meanwhile: held, undone, ordered anew or sent"
        assert told(spool) == [("ann", f"drop: {text}; operation 1: everything")]


async def test_an_order_undone_whole_is_told_of_by_its_undoing_alone(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        changed = await spool.queue.orders.give_up("drop", ALL, "ann", "", 10)
        await spool.queue.orders.undo(changed.operation, "ann")
        await spool.clock.advance(20)
        await spool.queue.claims.overdue(9)
        assert told(spool) == []


async def test_an_order_of_which_all_was_released_says_that_nothing_was_done(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("a@example.org", "b@example.org")
        await spool.queue.orders.give_up("bounce", ALL, "ann", "", 10)
        await spool.queue.orders.release(ALL, "bob")
        await spool.clock.advance(20)
        await spool.queue.claims.overdue(9)
        text = "bounce: nothing was bounced; 2 were released meanwhile; operation 1: everything"
        assert told(spool) == [("ann", text)]


async def test_only_orders_to_bounce_or_drop_are_told_of(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, LATER, after=60)
        await spool.queue.orders.retry(ALL, "ann")
        await spool.clock.advance(20)
        await spool.queue.claims.overdue(9)
        assert told(spool) == []
        assert await spool.queue.orders.operation(1) is None
