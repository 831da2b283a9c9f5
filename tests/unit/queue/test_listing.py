"""What is seen of the queue: every field of a filter, every sort, windows, and how destinations fare."""

from pathlib import Path
from typing import Any

import pytest

from engine.model.destination import Totals
from engine.model.filter import Filter
from engine.model.message import Entry
from engine.model.outcome import Outcome
from engine.queue.contract import DESTINATION_SORTS, SORTS
from engine.queue.errors import QueueError
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool


async def fill(spool: Spool) -> None:
    """Five entries in four messages: 1.1, 1.2, 2.1, 3.1, 4.1, an hour between each message and the next."""
    await spool.add("bob@example.org", "Carol@Sub.Example.org", subject="Invoice 100% _due_")
    await spool.clock.advance(3600)
    await spool.add("dan@example.com", sender="", subject="Zoë grüßt", content=b"x" * 5000)
    (claim,) = await spool.claim("example.com")
    await spool.settle(claim, Outcome.of_reply(550, "5.7.1 Over Quota"), after=1200)
    await spool.clock.advance(3600)
    await spool.add("erin@example.net", sender="list@other.example")
    await spool.claim("example.net")
    await spool.clock.advance(3600)
    await spool.add("frank@example.org", sender="list@other.example")
    await spool.queue.orders.hold(Filter.parse("to=frank@*"), "oncall", "asleep")


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ("", ["1.1", "1.2", "2.1", "3.1", "4.1"]),
        ("domain=example.org", ["1.1", "4.1"]),
        ("domain=Sub.EXAMPLE.org", ["1.2"]),
        ("domain=*example.org", ["1.1", "1.2", "4.1"]),
        ("domain~sub", ["1.2"]),
        ("!domain~example.org", ["2.1", "3.1"]),
        ("to=carol@sub.example.org", ["1.2"]),
        ("to=*@example.org", ["1.1", "4.1"]),
        ("!to=bob@example.org", ["1.2", "2.1", "3.1", "4.1"]),
        ("to~FRANK", ["4.1"]),
        ("from=<>", ["2.1"]),
        ("!from=<>", ["1.1", "1.2", "3.1", "4.1"]),
        ("from=LIST@*", ["3.1", "4.1"]),
        ("subject~100%", ["1.1", "1.2"]),
        ("subject~_due_", ["1.1", "1.2"]),
        ("subject=invoice*", ["1.1", "1.2"]),
        ("subject~invoice_100", []),
        ("subject~ZOË", ["2.1"]),
        ('subject="ZOË GRÜSST"', ["2.1"]),
        ("subject=*GRÜ*", ["2.1"]),
        ("reply~quota", ["2.1"]),
        ("reply=550*", ["2.1"]),
        ('reply="550 5.7.1 over quota"', ["2.1"]),
        ("!reply~quota", ["1.1", "1.2", "3.1", "4.1"]),
        ("quota", ["2.1"]),
        ("list@other", ["3.1", "4.1"]),
        ("!list@other dan", ["2.1"]),
        ("state=held", ["4.1"]),
        ("state=relaying", ["3.1"]),
        ("state=waiting", ["1.1", "1.2", "2.1"]),
        ("state=due", ["1.1", "1.2", "2.1"]),
        ("id=1", ["1.1", "1.2"]),
        ("id=1.2,4", ["1.2", "4.1"]),
        ("!id=1,2.1", ["3.1", "4.1"]),
        ("id=99", []),
        ("tries>0", ["2.1"]),
        ("tries=0 state=waiting", ["1.1", "1.2"]),
        ("age>2h", ["1.1", "1.2"]),
        ("age<1h30m", ["3.1", "4.1"]),
        ("size>4KiB", ["2.1"]),
        ("size<1KiB domain=example.org", ["1.1", "4.1"]),
    ],
)
async def test_a_filter_selects(tmp_path: Path, filter: str, ids: list[str], opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fill(spool)
        window = await spool.queue.listing.window(Filter.parse(filter), "id", 0, 100)
        assert [f"{entry.message}.{entry.number}" for entry in window.rows] == ids
        assert window.total == len(ids)
        selection = await spool.queue.listing.select(Filter.parse(filter))
        assert selection.recipients == len(ids)
        assert selection.messages == len({one.split(".")[0] for one in ids})
        assert selection.examples == window.rows[:3]
        assert selection.newest == 4


@pytest.mark.parametrize("sort", SORTS)
async def test_windows_put_together_are_the_whole_list_in_order_both_ways(
    tmp_path: Path, sort: str, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await fill(spool)

        def key(entry: Entry) -> Any:
            return (entry.message, entry.number) if sort == "id" else getattr(entry, sort)

        for direction in ("", "-"):
            whole = await spool.entries(sort=direction + sort)
            assert [key(entry) for entry in whole] == sorted(map(key, whole), reverse=bool(direction))
            for limit in (1, 2, 3, 5, 7):
                parts = [await spool.queue.listing.window(ALL, direction + sort, n, limit) for n in range(0, 8, limit)]
                assert tuple(entry for part in parts for entry in part.rows) == whole
                assert {part.total for part in parts} == {5}


async def test_an_unknown_sort_is_refused(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        with pytest.raises(QueueError, match="only by id, due"):
            await spool.queue.listing.window(ALL, "colour; DROP TABLE entry", 0, 1)
        with pytest.raises(QueueError, match="only by name, waiting"):
            await spool.queue.listing.destinations("", "colour", 0, 1)


async def test_totals_count_by_state(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        assert await spool.queue.listing.totals() == Totals(waiting=0, due=0, held=0, relaying=0, destinations=0)
        start = spool.clock.now()
        await fill(spool)
        expected = Totals(waiting=3, due=3, held=1, relaying=1, destinations=4, oldest=start, ready=3, known=4)
        assert await spool.queue.listing.totals() == expected


async def test_a_destination_tells_how_it_fares(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        start = spool.clock.now()
        await fill(spool)
        destination = await spool.queue.listing.destination("Example.com")
        assert (destination.waiting, destination.due, destination.held, destination.relaying) == (1, 1, 0, 0)
        assert (destination.oldest, destination.next_due) == (start + 3600, start + 3600 + 1200)
        assert destination.last is not None
        assert (destination.last.code, destination.last_at) == (550, start + 3600)
        nothing = await spool.queue.listing.destination("nobody.example")
        assert (nothing.name, nothing.waiting, nothing.oldest) == ("nobody.example", 0, None)


@pytest.mark.parametrize("sort", DESTINATION_SORTS)
async def test_destinations_are_listed_by_window_sort_and_name(tmp_path: Path, sort: str, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await fill(spool)
        for _ in range(3):
            await spool.add("x@example.com")
        await spool.clock.advance(1)
        for direction in ("", "-"):
            total, rows = await spool.queue.listing.destinations("", direction + sort, 0, 9)
            values = [getattr(row, sort) for row in rows]
            assert values == sorted(values, reverse=bool(direction))
            assert total == len(rows) == 4
            assert (await spool.queue.listing.destinations("", direction + sort, 1, 2))[1] == rows[1:3]
        total, rows = await spool.queue.listing.destinations("EXAMPLE.O", "name", 0, 9)
        assert [row.name for row in rows] == ["example.org", "sub.example.org"]


async def test_a_message_shows_its_open_entries_and_every_attempt(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        number = await spool.add("a@example.org", "b@example.com")
        for outcome, after in ((LATER, 0.0), (DELIVERED, None)):
            (claim,) = await spool.claim()
            await spool.clock.advance(5)
            await spool.settle(claim, outcome, after=after)
        message = await spool.queue.listing.message(number)
        assert [entry.number for entry in message.entries] == [2]
        assert [attempt.outcome for attempt in message.attempts] == [LATER, DELIVERED]
        assert [attempt.ended - attempt.started for attempt in message.attempts if attempt.ended] == [5, 5]


async def test_a_destination_whose_name_cannot_be_stored_is_found_as_it_was_stored(
    tmp_path: Path, opened: Opened
) -> None:
    odd = "b\udc80.example"
    async with opened(tmp_path) as spool:
        await spool.queue.standing.note_destination(odd, ["mx.example"], "mx.example")
        assert (await spool.queue.listing.destination(odd)).site == "mx.example"
        assert (await spool.queue.listing.destinations(odd, "name", 0, 10))[0] == 1
