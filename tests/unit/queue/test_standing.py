"""What stands until its time is over: suspensions, blocks and bad hosts, over restarts too."""

from pathlib import Path

from msgspec.structs import replace

from engine.model.destination import HeldBack, Mark, Over, Override, Suspension
from engine.model.event import Event
from engine.model.outcome import Outcome
from tests.clock import FakeClock
from tests.unit.queue.support import LATER, Opened, Spool


def suspension(clock: FakeClock, destination: str, seconds: float = 60) -> Suspension:
    now = clock.now()
    return Suspension(destination=destination, since=now, until=now + seconds, by="oncall", note="maintenance")


def mark(clock: FakeClock, host: str, seconds: float = 60) -> Mark:
    now = clock.now()
    refused = Outcome.transient("connect: refused", host=host)
    return Mark(host=host, since=now, until=now + seconds, by="engine", note="unreachable", last=refused)


async def test_suspensions_outlive_a_restart_the_relays_own_first(tmp_path: Path, opened: Opened) -> None:
    clock = FakeClock()
    both = suspension(clock, "a.example"), suspension(clock, "*")
    async with opened(tmp_path, clock) as spool:
        for one in both:
            await spool.queue.standing.suspend(one)
    async with opened(tmp_path, clock) as spool:
        assert await spool.queue.standing.suspensions() == both[::-1]
        assert (await spool.queue.listing.destination("a.example")).suspended == both[0]


async def test_a_suspension_ends_by_hand_once(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.standing.suspend(suspension(spool.clock, "A.example"))
        assert await spool.queue.standing.resume("a.example", "oncall")
        assert not await spool.queue.standing.resume("a.example", "oncall")
        assert [(e.kind, e.by, e.destination) for e in spool.events] == [
            ("suspended", "oncall", "a.example"),
            ("resumed", "oncall", "a.example"),
        ]


async def test_a_suspension_ends_by_itself_and_that_is_told(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.standing.suspend(suspension(spool.clock, "a.example"))
        assert await spool.queue.claims.next_due() == spool.clock.now() + 60
        await spool.clock.advance(60)
        assert await spool.queue.standing.suspensions() == ()
        assert await spool.queue.claims.next_due() is None
        assert not await spool.queue.standing.resume("a.example", "oncall")
        assert await spool.queue.standing.end_what_is_over() == Over(suspended=("a.example",))
        assert [(event.kind, event.by) for event in spool.events[1:]] == [("resumed", "engine")]
        assert await spool.queue.standing.end_what_is_over() == Over()


async def test_an_override_ends_by_itself_and_that_is_told_once(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        now = spool.clock.now()
        for number, name in enumerate(("a.example", "b.example")):
            until = now + 60 + 60 * number
            override = Override(destination=name, host="h", port=0, since=now, until=until, by="ann", note="")
            await spool.queue.standing.set_override(override)
        assert await spool.queue.standing.end_what_is_over() == Over()
        await spool.clock.advance(60)
        assert await spool.queue.standing.end_what_is_over() == Over(overridden=("a.example",))
        ended = [(one.kind, one.by, one.destination) for one in spool.events if one.kind == "ended"]
        assert ended == [("ended", "engine", "a.example")]
        assert [one.destination for one in await spool.queue.standing.overrides()] == ["b.example"]


async def test_a_block_is_shown_until_it_ends(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example")
        until = spool.clock.now() + 30
        await spool.queue.standing.block("a.example", until, "no host answers")
        destination = await spool.queue.listing.destination("a.example")
        assert (destination.blocked_until, destination.blocked_why) == (until, "no host answers")
        assert destination.blocked_cause == ""
        await spool.queue.standing.unblock(["a.example"])
        assert await spool.queue.claims.due_destinations(1) == ["a.example"]
        await spool.queue.standing.block("a.example", until, "no host answers")
        await spool.clock.advance(30)
        assert (await spool.queue.listing.destination("a.example")).blocked_until is None


async def test_exchanges_are_remembered_best_first(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.queue.standing.note_destination("a.example", ["MX1.a.example", "mx2.a.example"])
        await spool.queue.standing.note_destination("a.example", ["mx2.a.example", "mx3.a.example"])
        assert (await spool.queue.listing.destination("a.example")).exchanges == ("mx2.a.example", "mx3.a.example")


async def test_marks_are_kept_with_what_was_said_until_removed(tmp_path: Path, opened: Opened) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as spool:
        await spool.queue.marks.save(mark(clock, "mx1.example", 10))
        longer = mark(clock, "mx1.example", 99)
        await spool.queue.marks.save(longer)
        await clock.advance(500)
    async with opened(tmp_path, clock) as spool:
        assert await spool.queue.marks.all() == (longer,)
        assert await spool.queue.marks.remove("mx1.example", "engine") == 0
        assert await spool.queue.marks.all() == ()
        assert await spool.queue.marks.remove("mx1.example", "engine") == 0
        assert [(event.kind, event.host) for event in spool.events] == [("marked good", "mx1.example")]


async def test_a_mark_that_was_wrong_is_taken_back_as_it_was_made_and_nothing_goes_for_it(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        wrong, other = mark(spool.clock, "mx1.example"), mark(spool.clock, "mx2.example", 10)
        await spool.queue.marks.save(other)
        spool.events.clear()
        await spool.queue.marks.take_back([wrong, replace(other, until=other.until + 1)], "all are silent")
        assert await spool.queue.marks.all() == (other,)
        told = [(event.kind, event.by, event.host, event.text) for event in spool.events]
        assert told == [("marked good", "engine", "mx1.example", "all are silent")]
        assert (await spool.queue.listing.destination("a.example")).blocked_until is not None


async def stuck(spool: Spool) -> None:
    """Two destinations with one bad host: a.example has no other, b.example has; both wait and are blocked."""
    for name, hosts in (("a.example", ["mx1.example"]), ("b.example", ["mx1.example", "mx2.example"])):
        await spool.add(f"x@{name}", f"y@{name}")
        (claim,) = await spool.claim(name)
        await spool.settle(claim, LATER, after=600)
        await spool.queue.standing.note_destination(name, hosts)
        await spool.queue.standing.block(name, spool.clock.now() + 60, "mx1.example is bad")
    await spool.queue.marks.save(mark(spool.clock, "mx1.example"))


async def test_what_a_bad_host_holds_back_is_what_has_no_other(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        due = spool.clock.now() + 600
        (only,) = await spool.queue.listing.held_back(["mx1.example"])
        assert [one.name for one in only.first] == ["a.example"]
        assert (replace(only, first=()),) == (
            HeldBack(
                host="mx1.example",
                waiting=2,
                destinations=("a.example", "b.example"),
                alternates=("mx2.example",),
                next_due=due,
            ),
        )
        first, second = await spool.queue.listing.held_back(["mx1.example", "mx2.example"])
        assert (first.waiting, first.alternates) == (4, ())
        assert (second.waiting, second.destinations) == (2, ("b.example",))


async def test_a_host_marked_good_by_the_engine_unblocks_its_destinations(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        assert await spool.queue.marks.remove("mx1.example", "engine") == 0
        assert (await spool.queue.listing.destination("a.example")).blocked_until is None
        assert await spool.queue.claims.due_destinations(9) == []


async def test_a_host_marked_good_by_an_operator_makes_due_what_waited_for_it(tmp_path: Path, opened: Opened) -> None:
    """What has another host waits for its own time: greylisted mail of thousands of domains is no backlog of a host."""
    async with opened(tmp_path) as spool:
        await stuck(spool)
        await spool.add("z@c.example")
        (claim,) = await spool.claim("c.example")
        await spool.settle(claim, LATER, after=600)
        assert await spool.queue.marks.remove("mx1.example", "oncall") == 2
        assert await spool.queue.claims.due_destinations(9) == ["a.example"]
        assert (spool.events[-1].kind, spool.events[-1].by) == ("marked good", "oncall")


async def test_what_waited_for_two_bad_hosts_is_due_when_one_of_them_is_good(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        await spool.queue.marks.save(mark(spool.clock, "mx2.example"))
        assert await spool.queue.marks.remove("mx2.example", "oncall") == 2
        assert await spool.queue.claims.due_destinations(9) == ["b.example"]


async def test_a_mark_that_is_made_longer_unblocks_nothing(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await stuck(spool)
        await spool.queue.standing.block("a.example", spool.clock.now() + 900, "mx1.example is bad")
        await spool.queue.marks.save(mark(spool.clock, "mx1.example", 120))
        assert (await spool.queue.listing.destination("a.example")).blocked_until == spool.clock.now() + 900


async def test_events_are_found_by_number_by_message_and_by_text(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        one = await spool.add("bob@example.org")
        two = await spool.add("Zoë@example.com")
        await spool.queue.arrivals.record(Event(at=spool.clock.now(), kind="checked", by="oncall", text="100% sure"))
        seqs = [event.seq for event in spool.events]
        assert seqs == [1, 2, 3]

        async def found(**query: object) -> list[int]:
            return [event.seq for event in await spool.queue.listing.events(**query)]  # type: ignore[arg-type]

        assert await found(limit=2) == [2, 3]
        assert await found(before=3) == [1, 2]
        assert await found(before=3, limit=1) == [2]
        assert await found(after=1, limit=1) == [2]
        assert await found(message=two) == [2]
        assert await found(message=one, match="nobody") == []
        assert await found(match="BOB@") == [1]
        assert await found(match="ZOË") == [2]
        assert await found(match="0% s") == [3]
        assert await found(match="oncall") == [3]


async def test_what_a_block_is_about_is_kept_with_it_over_a_restart(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example")
        clock, until = spool.clock, spool.clock.now() + 30
        await spool.queue.standing.block("a.example", until, "4.4.3 the DNS does not answer", cause="dns")
    async with opened(tmp_path, clock) as spool:
        assert (await spool.queue.listing.destination("a.example")).blocked_cause == "dns"
        await spool.queue.standing.unblock(["a.example"])
        assert (await spool.queue.listing.destination("a.example")).blocked_cause == ""
