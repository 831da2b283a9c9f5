"""How mail comes into the store: durable, whole or not at all, once for each key, many to a sync."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.queue.errors import QueueError
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, CONTENT, DELIVERED, Opened, new_message


async def test_a_message_waits_due_at_once_with_an_entry_for_each_recipient(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("bob@Example.ORG", "eve@example.com", subject="hi", message_id="<1@x>")
        message = await spool.queue.listing.message(number)
        now = spool.clock.now()
        assert [(e.number, e.recipient, e.destination, e.state, e.due) for e in message.entries] == [
            (1, "bob@Example.ORG", "example.org", "waiting", now),
            (2, "eve@example.com", "example.com", "waiting", now),
        ]
        assert (message.subject, message.message_id, message.origin) == ("hi", "<1@x>", "test")
        assert message.expires == now + 5 * 86400
        assert await spool.queue.claims.content(number) == CONTENT


async def test_the_null_sender_and_eight_bit_content_are_kept(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("x@example.org", sender="", content=b"\xff\r\n", smtputf8=True)
        message = await spool.queue.listing.message(number)
        assert (message.sender, message.eight_bit, message.smtputf8) == ("", True, True)


async def test_each_recipient_accepted_is_an_event(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("bob@example.org", "eve@example.com")
        assert [(e.kind, e.message, e.entry, e.recipient, e.destination, e.sender) for e in spool.events] == [
            ("accepted", number, 1, "bob@example.org", "example.org", "ann@example.net"),
            ("accepted", number, 2, "eve@example.com", "example.com", "ann@example.net"),
        ]
        # What is known as it happens is not kept with it.
        assert await spool.queue.listing.events() == tuple(replace(event, detail=None) for event in spool.events)


async def test_a_key_that_is_taken_gives_the_number_it_had(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        first = await spool.add(key="drop/a.eml")
        (claim,) = await spool.claim()
        await spool.settle(claim, DELIVERED)
        assert await spool.add(key="drop/a.eml") == first  # even when the message has left
        await spool.queue.arrivals.forget_key("drop/a.eml")
        assert await spool.add(key="drop/a.eml") > first


async def test_keys_of_a_kind_are_forgotten_up_to_a_message(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        kept, old, new = [await spool.add(key=key) for key in ("drop:a", "http:a", "http:b")]
        await spool.queue.arrivals.forget_keys("http:", new)
        assert [await spool.add(key=key) for key in ("drop:a", "http:b")] == [kept, new]
        assert await spool.add(key="http:a") > new > old


async def test_a_number_is_never_given_twice(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        first = await spool.add()
        (claim,) = await spool.claim()
        await spool.settle(claim, DELIVERED)
    async with opened(tmp_path) as spool:
        assert await spool.add() == first + 1


async def test_a_message_without_recipients_or_with_a_broken_address_is_refused_whole(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        with pytest.raises(QueueError, match="without recipients"):
            await spool.queue.arrivals.enqueue(new_message(recipients=()))
        with pytest.raises(QueueError, match="not valid Unicode"):
            await spool.add("bob@example.org", "b\udc80b@example.org")
        assert (await spool.queue.listing.totals()).waiting == 0


async def test_one_that_fails_in_a_group_undoes_nothing_of_the_others(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        results = await asyncio.gather(
            spool.add(), spool.queue.arrivals.enqueue(new_message(recipients=())), spool.add(), return_exceptions=True
        )
        assert [type(result) for result in results] == [int, QueueError, int]
        assert (await spool.queue.listing.totals()).waiting == 2


async def test_events_come_in_commit_order_before_the_caller_goes_on(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add()
        assert spool.events[-1].message == number
        await asyncio.gather(*(spool.add() for _ in range(20)))
        assert [event.seq for event in spool.events] == list(range(1, 22))


async def test_a_follower_that_fails_does_not_fail_the_message(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        told: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def fail(_: object) -> None:
            raise ValueError("a follower's own trouble")

        spool.queue.on_events = fail
        assert await spool.add()
        assert len(told) == 1


async def test_what_was_queued_is_there_after_closing(tmp_path: Path, opened: Opened) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        number = await spool.add()
    async with opened(tmp_path, clock) as spool:
        assert await spool.queue.claims.content(number) == CONTENT


async def test_nothing_may_be_asked_of_a_closed_queue(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        pass
    await spool.queue.close()
    with pytest.raises(QueueError, match="not open"):
        await spool.add()
    with pytest.raises(QueueError, match="not open"):
        await spool.queue.listing.window(ALL, "id", 0, 1)
