"""What became of the entries that an order let go, as the store knows it."""

from pathlib import Path

from msgspec.structs import replace

from engine.model.destination import RELAY, Suspension
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.order import Fate, Touched
from engine.model.outcome import Outcome
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool

NO_USER = Outcome.permanent("no such user", enhanced="5.1.1", cause="policy")
REPLIED = replace(LATER, cause="reply")


async def tried(spool: Spool, *destinations: str) -> None:
    """A message to each of these, tried once in vain."""
    for name in destinations:
        await spool.add(f"x@{name}")
        (claim,) = await spool.claim(name)
        await spool.settle(claim, LATER, after=600)


async def fates(spool: Spool, touched: Touched) -> list[Fate]:
    return list(await spool.queue.orders.fates(touched.since, touched.entries))


async def test_each_entry_comes_to_what_became_of_it_since(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        names = ["sent", "late", "back", "gone", "busy", "kept", "rest", "shut", "wait"]
        await tried(spool, *names)
        touched = Touched()
        await spool.queue.orders.retry(ALL, "ann", touched=touched)
        assert await fates(spool, touched) == [Fate("waiting")] * 9
        now = spool.clock.now()
        for name, outcome, kind, after in (
            ("sent", DELIVERED, "delivered", None),
            ("late", REPLIED, "deferred", 900),
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
        await spool.queue.standing.suspend(Suspension(destination="rest", since=now, until=now + 9, by="bob", note=""))
        await spool.queue.standing.block("shut", now + 60, "4.4.1 connection refused", cause="connect")
        assert await fates(spool, touched) == [
            Fate("delivered"),
            Fate("deferred", "451 4.2.1 try later", "reply"),
            Fate("returned", "5.1.1 no such user", "policy"),
            Fate("dropped"),
            Fate("relaying"),
            Fate("held"),
            Fate("suspended"),
            Fate("blocked", "4.4.1 connection refused", "connect"),
            Fate("waiting"),
        ]
        await spool.queue.standing.suspend(Suspension(destination=RELAY, since=now, until=now + 9, by="bob", note=""))
        assert (await fates(spool, touched))[7:] == [Fate("suspended"), Fate("suspended")]


async def test_what_happened_before_the_order_is_not_of_it(tmp_path: Path, opened: Opened) -> None:
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
