"""Sites in the store: whose turn it is, claims over all their destinations, and blocks of them all."""

from pathlib import Path

from engine.queue.queue import DueSite, Suspension, unknown_site
from tests.unit.queue_support import DELIVERED, LATER, Spool, opened

FARM = "mx1.farm.example mx2.farm.example"


async def on_the_farm(spool: Spool, *names: str) -> None:
    for name in names:
        await spool.add(f"x@{name}")
        await spool.queue.note_destination(name, ["mx1.farm.example", "mx2.farm.example"], FARM)


async def test_a_new_destination_is_its_own_site_until_its_exchanges_are_known(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await spool.add("x@a.example")
        assert await spool.queue.due_sites(9) == [DueSite(site=unknown_site("a.example"), destination="a.example")]
        await spool.queue.note_destination("a.example", ["mx1.farm.example"], FARM)
        assert await spool.queue.due_sites(9) == [DueSite(site=FARM, destination="a.example")]
        await spool.queue.note_destination("a.example", ["mx1.farm.example"])
        assert (await spool.queue.destination("a.example")).site == FARM


async def test_a_site_is_named_once_and_not_where_it_is_left_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        assert [one.destination for one in await spool.queue.due_sites(9)] == ["a.example", "own.example"]
        assert [one.destination for one in await spool.queue.due_sites(9, without=[FARM])] == ["own.example"]
        assert [one.destination for one in await spool.queue.due_sites(1)] == ["a.example"]


async def test_a_claim_takes_from_all_destinations_of_a_site_in_turn(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        for _ in range(3):
            await on_the_farm(spool, "a.example", "b.example", "c.example")
        await spool.add("x@own.example")
        first = await spool.queue.claim_site(FARM, 4, 1)
        assert [claim.destination for claim in first] == ["a.example"] * 3 + ["b.example"]
        second = await spool.queue.claim_site(FARM, 9, 2)
        assert [claim.destination for claim in second] == ["c.example"] * 3 + ["b.example"] * 2
        assert await spool.queue.claim_site(FARM, 9, 3) == []
        await spool.queue.put_back([*first, *second], "test")
        assert len(await spool.queue.claim_site(FARM, 99, 4)) == 9


async def test_suspended_and_blocked_destinations_of_a_site_are_passed_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example", "c.example")
        now = spool.clock.now()
        await spool.queue.suspend(
            Suspension(destination="a.example", since=now, until=now + 60, by="oncall", reason="test")
        )
        await spool.queue.block("b.example", now + 60, "no way")
        (claim,) = await spool.queue.claim_site(FARM, 1, 1)
        assert claim.destination == "c.example"
        await spool.queue.suspend(Suspension(destination="*", since=now, until=now + 60, by="oncall", reason="test"))
        await spool.settle(claim, LATER, after=0)
        assert await spool.queue.claim_site(FARM, 9, 1) == []
        assert await spool.queue.due_sites(9) == []


async def test_a_site_is_blocked_and_unblocked_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        now = spool.clock.now()
        await spool.queue.block_site(FARM, now + 600, "connect: refused")
        assert [one.destination for one in await spool.queue.due_sites(9)] == ["own.example"]
        for name in ("a.example", "b.example"):
            assert (await spool.queue.destination(name)).blocked_why == "connect: refused"
        await spool.queue.unblock_site(FARM)
        assert [one.destination for one in await spool.queue.due_sites(9)] == ["a.example", "own.example"]


async def test_a_destination_names_others_of_its_site_that_have_mail(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example", "c.example", "c.example")
        await spool.add("x@own.example")
        assert (await spool.queue.destination("a.example")).neighbours == ("c.example", "b.example")
        assert (await spool.queue.destination("own.example")).neighbours == ()
        for claim in await spool.queue.claim_site(FARM, 9, 1):
            await spool.settle(claim, DELIVERED)
        assert (await spool.queue.destination("a.example")).neighbours == ()


async def test_a_site_is_in_doubt_from_a_block_until_it_has_taken_mail(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        await on_the_farm(spool, "a.example", "b.example")
        await spool.add("x@own.example")
        now = spool.clock.now()
        await spool.queue.block_site(FARM, now + 60, "refused")
        await spool.clock.advance(61)
        farm = DueSite(site=FARM, destination="a.example", is_in_doubt=True)
        own = DueSite(site=unknown_site("own.example"), destination="own.example")
        assert await spool.queue.due_sites(9) == [farm, own]
        assert await spool.queue.due_sites(9, with_doubtful=False) == [own]
        await spool.queue.unblock_site(FARM)
        assert len(await spool.queue.due_sites(9, with_doubtful=False)) == 2
