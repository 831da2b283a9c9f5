"""Sites in the store: whose turn it is, claims over all their destinations, and blocks of them all."""

from pathlib import Path

from engine.model.claim import DueSite
from engine.model.destination import Suspension, unknown_site
from tests.unit.queue.support import DELIVERED, LATER, Opened, Spool

FARM = "mx1.farm.example mx2.farm.example"


async def on_the_farm(spool: Spool, *names: str) -> None:
    for name in names:
        await spool.add(f"x@{name}")
        await spool.queue.standing.note_destination(name, ["mx1.farm.example", "mx2.farm.example"], FARM)


async def test_a_new_destination_is_its_own_site_until_its_exchanges_are_known(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example")
        unknown = DueSite(site=unknown_site("a.example"), destination="a.example", is_in_doubt=True)
        assert await spool.queue.claims.due_sites(9) == [unknown]
        await spool.queue.standing.note_destination("a.example", ["mx1.farm.example"], FARM)
        assert await spool.queue.claims.due_sites(9) == [DueSite(site=FARM, destination="a.example", is_in_doubt=True)]
        await spool.queue.standing.note_destination("a.example", ["mx1.farm.example"])
        assert (await spool.queue.listing.destination("a.example")).site == FARM


async def test_a_site_is_named_once_and_not_where_it_is_left_out(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        assert [one.destination for one in await spool.queue.claims.due_sites(9)] == ["a.example", "own.example"]
        assert [one.destination for one in await spool.queue.claims.due_sites(9, without=[FARM])] == ["own.example"]
        assert [one.destination for one in await spool.queue.claims.due_sites(1)] == ["a.example"]


async def test_a_claim_takes_from_all_destinations_of_a_site_in_turn(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(3):
            await on_the_farm(spool, "a.example", "b.example", "c.example")
        await spool.add("x@own.example")
        first = await spool.queue.claims.claim_site(FARM, 4, 1)
        assert [claim.destination for claim in first] == ["a.example"] * 3 + ["b.example"]
        second = await spool.queue.claims.claim_site(FARM, 9, 2)
        assert [claim.destination for claim in second] == ["c.example"] * 3 + ["b.example"] * 2
        assert await spool.queue.claims.claim_site(FARM, 9, 3) == []
        await spool.queue.claims.put_back([*first, *second], "test")
        assert len(await spool.queue.claims.claim_site(FARM, 99, 4)) == 9


async def test_suspended_and_blocked_destinations_of_a_site_are_passed_over(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example", "c.example")
        now = spool.clock.now()
        await spool.queue.standing.suspend(
            Suspension(destination="a.example", since=now, until=now + 60, by="oncall", note="test")
        )
        await spool.queue.standing.block("b.example", now + 60, "no way")
        (claim,) = await spool.queue.claims.claim_site(FARM, 1, 1)
        assert claim.destination == "c.example"
        await spool.queue.standing.suspend(
            Suspension(destination="*", since=now, until=now + 60, by="oncall", note="test")
        )
        await spool.settle(claim, LATER, after=0)
        assert await spool.queue.claims.claim_site(FARM, 9, 1) == []
        assert await spool.queue.claims.due_sites(9) == []


async def test_a_site_is_blocked_and_unblocked_whole(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        now = spool.clock.now()
        await spool.queue.standing.block_site(FARM, now + 600, "connect: refused")
        assert [one.destination for one in await spool.queue.claims.due_sites(9)] == ["own.example"]
        for name in ("a.example", "b.example"):
            assert (await spool.queue.listing.destination(name)).blocked_why == "connect: refused"
        await spool.queue.standing.unblock_site(FARM)
        assert [one.destination for one in await spool.queue.claims.due_sites(9)] == ["a.example", "own.example"]


async def test_a_destination_names_others_of_its_site_that_have_mail(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example", "c.example", "c.example")
        await spool.add("x@own.example")
        assert (await spool.queue.listing.destination("a.example")).neighbours == ("c.example", "b.example")
        assert (await spool.queue.listing.destination("own.example")).neighbours == ()
        for claim in await spool.queue.claims.claim_site(FARM, 9, 1):
            await spool.settle(claim, DELIVERED)
        assert (await spool.queue.listing.destination("a.example")).neighbours == ()


async def taken_by(spool: Spool, *names: str) -> None:
    """Mail to each of these, which it takes."""
    for name in names:
        await spool.add(f"x@{name}")
        (claim,) = await spool.claim(name)
        await spool.settle(claim, DELIVERED)


async def proved(spool: Spool, *names: str) -> list[bool]:
    return [not (await spool.queue.listing.destination(name)).is_in_doubt for name in names]


async def test_a_site_is_in_doubt_from_a_block_until_it_has_taken_mail(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await taken_by(spool, "a.example", "b.example", "own.example")
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        now = spool.clock.now()
        await spool.queue.standing.block_site(FARM, now + 60, "refused")
        await spool.clock.advance(61)
        farm = DueSite(site=FARM, destination="a.example", is_in_doubt=True)
        own = DueSite(site=unknown_site("own.example"), destination="own.example")
        assert await spool.queue.claims.due_sites(9) == [farm, own]
        assert await spool.queue.claims.due_sites(9, with_doubtful=False) == [own]
        await spool.queue.standing.unblock_site(FARM)
        assert await spool.queue.claims.due_sites(9, with_doubtful=False) == [own]
        (claim, _) = await spool.queue.claims.claim_site(FARM, 9, 1)
        await spool.settle(claim, DELIVERED)
        assert await proved(spool, "a.example", "b.example") == [True, False]


async def test_what_has_taken_no_mail_is_in_doubt_and_what_has_is_not_for_a_week_even_after_a_restart(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await taken_by(spool, "old.example")
        await spool.add("x@new.example", "x@old.example")
        for one in await spool.claim("old.example"):
            await spool.settle(one, LATER, after=60)  # a mailbox that is full says nothing of its host
        assert await proved(spool, "new.example", "old.example", "unheard.example") == [False, True, False]
        clock = spool.clock
    await clock.advance(7 * 86400)
    async with opened(tmp_path, clock) as spool:
        await spool.queue.claims.overdue(9)
        assert await proved(spool, "new.example", "old.example") == [False, True]
        await clock.advance(2 * 86400)
        await spool.queue.claims.overdue(9)
        assert await proved(spool, "old.example") == [False]


async def test_a_block_for_a_limit_puts_nothing_in_doubt(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        await taken_by(spool, "a.example", "b.example")
        now = spool.clock.now()
        await spool.queue.standing.block("a.example", now + 60, "no more than 1 a minute", failed=False)
        await spool.queue.standing.block("b.example", now + 60, "connection refused")
        assert await proved(spool, "a.example", "b.example") == [True, False]


async def test_what_turns_out_to_be_of_a_site_that_took_mail_has_proved_itself_with_it(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example")
        assert not await spool.queue.claims.proves(FARM)
        for claim in await spool.claim("a.example"):
            await spool.settle(claim, DELIVERED)
        assert await spool.queue.claims.proves(FARM)
        await spool.add("x@b.example")
        assert await proved(spool, "b.example") == [False]
        await spool.queue.standing.note_destination("b.example", ["mx1.farm.example"], FARM)
        assert await proved(spool, "b.example") == [True]
        await spool.queue.standing.note_destination("b.example", None, unknown_site("b.example"))
        assert (await spool.queue.listing.destination("b.example")).exchanges == ("mx1.farm.example",)


async def test_sites_in_doubt_say_whose_mail_they_have_and_whether_they_have_failed(
    tmp_path: Path, opened: Opened
) -> None:
    async with opened(tmp_path) as spool:
        await taken_by(spool, "good.example")
        await spool.add("x@good.example")
        first = await spool.add("x@new.example", sender="web@example.net")
        await spool.add("x@new.example", sender="ann@example.net")
        second = await spool.add("x@dead.example", sender="")
        await spool.queue.standing.block("dead.example", spool.clock.now() + 60, "refused")
        await spool.clock.advance(61)
        due = await spool.queue.claims.doubtful_sites()
        assert [(one.destination, one.message, one.sender, one.has_failed) for one in due] == [
            ("new.example", first, "web@example.net", False),
            ("dead.example", second, "", True),
        ]
        assert [one.destination for one in await spool.queue.claims.doubtful_sites([due[0].site])] == ["dead.example"]


async def test_a_block_of_a_site_holds_for_what_is_named_besides(tmp_path: Path, opened: Opened) -> None:
    async with opened(tmp_path) as spool:
        for name in ("a.example", "other.example"):
            await spool.add(f"x@{name}")
        await spool.queue.standing.note_destination("a.example", ["mx.farm.example"], FARM)
        until = spool.clock.now() + 60
        await spool.queue.standing.block_site(FARM, until, "refused", ["new.example", "a.example"])
        found = [await spool.queue.listing.destination(f"{name}.example") for name in ("a", "new", "other")]
        assert [(one.blocked_until, one.blocked_why) for one in found] == [(until, "refused")] * 2 + [(None, "")]
