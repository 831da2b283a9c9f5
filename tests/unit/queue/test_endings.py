"""What would go if a mark, a suspension, an override or a hold rule were ended, and that it is what goes then."""

from pathlib import Path

from engine.model.destination import RELAY, Mark, Override, Suspension
from engine.model.filter import Filter
from engine.model.order import Ending
from tests.unit.queue.support import ALL, LATER, Opened, Spool


async def counted(spool: Spool, ending: Ending, name: str) -> tuple[int, int]:
    found = await spool.queue.listing.lets_go(ending, name)
    assert len(found.examples) == min(3, found.recipients)
    return found.messages, found.recipients


async def waiting(spool: Spool, *destinations: str) -> None:
    """One message to two recipients of each of these, tried once and due again in ten minutes."""
    for name in destinations:
        await spool.add(f"x@{name}", f"y@{name}")
        (claim,) = await spool.claim(name)
        await spool.settle(claim, LATER, after=600)


def suspension(spool: Spool, name: str) -> Suspension:
    now = spool.clock.now()
    return Suspension(destination=name, since=now, until=now + 3600, by="ann", note="")


async def test_a_mark_lets_go_what_has_no_other_host_that_is_not_bad(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await waiting(spool, "a.example", "b.example", "c.example")
        await spool.queue.standing.note_destination("a.example", ["mx1.example"])
        await spool.queue.standing.note_destination("b.example", ["mx1.example", "mx2.example"])
        await spool.queue.standing.note_destination("c.example", ["mx9.example"])
        now = spool.clock.now()
        for host in ("mx1.example", "mx9.example"):
            await spool.queue.marks.save(Mark(host=host, since=now, until=now + 60, by="ann", note=""))
        assert await counted(spool, "mark", "MX1.example") == (1, 2)
        assert await spool.queue.marks.remove("mx1.example", "ann") == 2
        assert [entry.destination for entry in await spool.entries("state=due")] == ["a.example"] * 2


async def test_a_suspension_lets_go_what_no_other_suspension_keeps(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await waiting(spool, "a.example", "b.example")
        await spool.queue.orders.hold(Filter.parse("to=y@b.example"), "ann", "")
        await spool.queue.standing.suspend(suspension(spool, "a.example"))
        assert await counted(spool, "suspension", "a.example") == (1, 2)
        await spool.queue.standing.suspend(suspension(spool, RELAY))
        assert await counted(spool, "suspension", "a.example") == (0, 0)
        assert await counted(spool, "suspension", RELAY) == (1, 1)


async def test_an_override_makes_due_what_waits_in_its_destination(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        now = spool.clock.now()
        await waiting(spool, "a.example", "b.example")
        await spool.queue.standing.set_override(
            Override(destination="a.example", host="h", port=0, since=now, until=now + 60, by="ann", note="")
        )
        assert await counted(spool, "override", "a.example") == (1, 2)


async def test_a_rule_lets_go_what_it_holds_and_no_other_rule_names(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example", "y@a.example")
        await spool.add("x@a.example", sender="runaway@example.net")
        await spool.add("z@a.example")
        until = spool.clock.now() + 3600
        rule = await spool.queue.standing.add_rule(Filter.parse("domain=a.example"), until, "ann", "")
        other = await spool.queue.standing.add_rule(Filter.parse("from=runaway@example.net"), until, "ann", "")
        await spool.queue.orders.give_up("drop", Filter.parse("to=z@a.example"), "ann", "", 60)
        assert await counted(spool, "rule", str(rule.id)) == (1, 2)
        assert await counted(spool, "rule", str(other.id)) == (0, 0)
        before = await spool.entries()
        assert await spool.queue.standing.end_rule(rule.id, "ann") == 2
        assert len(before) == len(await spool.entries()) == 4


async def test_to_look_changes_nothing(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await waiting(spool, "a.example")
        rule = await spool.queue.standing.add_rule(Filter.parse("domain=a.example"), spool.clock.now() + 60, "ann", "")
        before, told = await spool.queue.listing.window(ALL, "id", 0, 10), spool.kinds()
        for ending, name in (("mark", "h"), ("suspension", "a.example"), ("override", "a.example")):
            await spool.queue.listing.lets_go(ending, name)  # type: ignore[arg-type]
        await spool.queue.listing.lets_go("rule", str(rule.id))
        assert await spool.queue.listing.window(ALL, "id", 0, 10) == before
        assert spool.kinds() == told
