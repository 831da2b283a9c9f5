"""What became of the entries that an order let go, as the store knows it."""

from pathlib import Path

import pytest

from engine.model import order
from engine.model.destination import RELAY, Mark, Suspension
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.order import Changed, Fate, Touched, TouchedEntry
from engine.model.outcome import Outcome
from engine.queue.sqlite import bulk
from tests.unit.queue_support import ALL, DELIVERED, LATER, Spool, opened

NO_USER = Outcome.permanent("no such user", enhanced="5.1.1")


async def tried(spool: Spool, *destinations: str) -> None:
    """A message to each of these, tried once in vain."""
    for name in destinations:
        await spool.add(f"x@{name}")
        (claim,) = await spool.claim(name)
        await spool.settle(claim, LATER, after=600)


async def fates(spool: Spool, touched: Touched) -> list[Fate]:
    return list(await spool.queue.orders.fates(touched.since, touched.entries))


async def test_an_order_writes_down_what_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 2)
    monkeypatch.setattr(order, "FOLLOWED", 3)
    async with opened(tmp_path) as spool:
        await spool.add(*(f"u{n}@example.org" for n in range(5)))
        touched = Touched()
        assert await spool.queue.orders.retry(ALL, "ann", touched=touched) == Changed(messages=1, recipients=5)
        assert (touched.operation, touched.recipients) == (1, 5)
        assert touched.entries == [TouchedEntry(1, number, 0) for number in (1, 2, 3)]
        assert touched.since == len([kind for kind in spool.kinds() if kind == "accepted"])


async def test_each_entry_comes_to_what_became_of_it_since(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        names = ["sent", "late", "back", "gone", "busy", "kept", "rest", "shut", "wait"]
        await tried(spool, *names)
        touched = Touched()
        await spool.queue.orders.retry(ALL, "ann", touched=touched)
        assert await fates(spool, touched) == [Fate("waiting")] * 9
        now = spool.clock.now()
        for name, outcome, kind, after in (
            ("sent", DELIVERED, "delivered", None),
            ("late", LATER, "deferred", 900),
            ("back", NO_USER, "returned", None),
        ):
            (claim,) = await spool.claim(name)
            await spool.settle(claim, outcome, after)
            happened = Event(at=now, kind=kind, message=claim.message, entry=1, outcome=outcome)  # type: ignore[arg-type]
            await spool.queue.arrivals.record(happened)
        await spool.queue.orders.give_up("drop", Filter.parse("domain=gone"), "bob", "", 0)
        await spool.queue.claims.overdue(9)
        await spool.claim("busy")
        await spool.queue.orders.hold(Filter.parse("domain=kept"), "bob", "")
        await spool.queue.standing.suspend(
            Suspension(destination="rest", since=now, until=now + 9, by="bob", reason="")
        )
        await spool.queue.standing.block("shut", now + 60, "4.4.1 connection refused")
        assert await fates(spool, touched) == [
            Fate("delivered"),
            Fate("deferred", "451 4.2.1 try later"),
            Fate("returned", "5.1.1 no such user"),
            Fate("dropped"),
            Fate("relaying"),
            Fate("held"),
            Fate("suspended"),
            Fate("blocked", "4.4.1 connection refused"),
            Fate("waiting"),
        ]
        await spool.queue.standing.suspend(Suspension(destination=RELAY, since=now, until=now + 9, by="bob", reason=""))
        assert (await fates(spool, touched))[7:] == [Fate("suspended"), Fate("suspended")]


async def test_what_happened_before_the_order_is_not_of_it(tmp_path: Path) -> None:
    """The last outcome and the events of earlier tries are there still; only those after the order count."""
    async with opened(tmp_path) as spool:
        await tried(spool, "a.example")
        await spool.queue.arrivals.record(Event(at=0, kind="returned", message=1, entry=1, outcome=NO_USER))
        await spool.queue.orders.hold(ALL, "ann", "")
        touched = Touched()
        await spool.queue.orders.release(ALL, "ann", touched=touched)
        assert await fates(spool, touched) == [Fate("later")]
        (entry,) = touched.entries
        assert entry.attempts == 1
        await spool.queue.orders.retry(ALL, "ann")
        (claim,) = await spool.claim("a.example")
        await spool.settle(claim, DELIVERED)
        assert await fates(spool, touched) == [Fate("gone")]


async def test_a_host_marked_good_says_how_many_it_made_due_and_which(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await tried(spool, "a.example", "b.example")
        now = spool.clock.now()
        await spool.queue.standing.note_destination("a.example", ["mx1.example"])
        await spool.queue.standing.note_destination("b.example", ["mx2.example"])
        for host in ("mx1.example", "mx3.example"):
            await spool.queue.marks.save(Mark(host=host, since=now, until=now + 60, by="engine", reason=""))
        touched = Touched()
        assert await spool.queue.marks.remove("mx1.example", "ann", touched) == 1
        assert touched.entries == [TouchedEntry(1, 1, 1)]
        assert touched.operation
        event = spool.events[-1]
        assert (event.kind, event.by, event.text) == ("marked good", "ann", "1 recipient that waited for it made due")
        assert spool.sql("SELECT count(*) FROM operation") == [(0,)]
        assert await spool.queue.marks.remove("mx3.example", "ann") == 0
        assert spool.events[-1].text == "no mail waited for it"


async def test_making_due_that_was_cut_short_by_the_end_is_told_at_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await tried(spool, "a.example")
        await spool.queue.standing.note_destination("a.example", ["mx1.example"])
        now = spool.clock.now()
        await spool.queue.marks.save(Mark(host="mx1.example", since=now, until=now + 60, by="engine", reason=""))
        spool.sql("CREATE TRIGGER kept BEFORE DELETE ON operation BEGIN SELECT raise(IGNORE); END")
        await spool.queue.marks.remove("mx1.example", "ann")
        spool.sql("DROP TRIGGER kept")
        spool.sql("UPDATE operation SET finished = 0")  # as it is after the first of several transactions
    async with opened(tmp_path) as spool:
        text = "mark-good 1 recipient in 1 message: mx1.example (cut short: the engine ended)"
        assert [(event.kind, event.by, event.text) for event in spool.events] == [("retried", "ann", text)]
