"""Sites in the store: whose turn it is, claims over all their destinations, and blocks of them all."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.model.claim import Shares
from engine.model.destination import unknown_site
from engine.queue import bounds
from engine.queue.sqlite import schedule
from tests.unit.queue.test_sites import taken_by
from tests.unit.sqlite.support import opened


@pytest.mark.parametrize("few", [1, 1000])
async def test_turns_are_the_same_whether_few_are_due_or_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(schedule, "FEW", few)
    async with opened(tmp_path) as spool:
        await taken_by(spool, "c.example", "a.example")
        for name in ("a.example", "b.example", "c.example", "d.example"):
            await spool.add(f"x@{name}")
        names = [one.destination for one in await spool.queue.claims.due_sites(9)]
        assert names == ["c.example", "b.example", "d.example", "a.example"]
        assert [one.destination for one in await spool.queue.claims.due_sites(9, with_doubtful=False)] == [
            "c.example",
            "a.example",
        ]
        assert [one.destination for one in await spool.queue.claims.due_sites(1)] == ["c.example"]
        assert [one.destination for one in await spool.queue.claims.doubtful_sites()] == ["b.example", "d.example"]


async def test_behind_a_message_to_ten_thousand_destinations_that_has_its_share_other_mail_is_seen(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as spool:
        many = await spool.add(*(f"u@d{number}.example" for number in range(10_000)))
        await spool.add("a@new.example", sender="bob@example.net")
        assert len(await spool.queue.claims.doubtful_sites()) == bounds.DOUBTFUL_AT_ONCE
        (due,) = await spool.queue.claims.doubtful_sites(taken=Shares(messages=frozenset({many})))
        assert due.destination == "new.example"
        (due,) = await spool.queue.claims.doubtful_sites(taken=Shares(senders=frozenset({"ann@example.net"})))
        assert due.destination == "new.example"


async def test_sites_in_doubt_that_took_long_to_find_are_given_again_until_they_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of them would else be looked through at each check."""
    monkeypatch.setattr(schedule, "COSTLY", -1.0)
    monkeypatch.setattr(schedule, "RESTS", 1e9)
    async with opened(tmp_path) as spool:
        many = await spool.add("u@one.example", "u@two.example")
        await spool.add("b@other.example", sender="bob@example.net")
        now = spool.clock.now()
        assert await spool.queue.claims.next_due(now) == now + 432_000  # when it expires
        names = [one.destination for one in await spool.queue.claims.doubtful_sites()]
        assert names == ["one.example", "other.example", "two.example"]
        await spool.add("a@new.example")
        has_all = Shares(messages=frozenset({many}))
        assert [one.destination for one in await spool.queue.claims.doubtful_sites(taken=has_all)] == ["other.example"]
        assert [one.destination for one in await spool.queue.claims.doubtful_sites(["@one.example"])] == names[1:]
        assert [one.destination for one in await spool.queue.claims.doubtful_sites()] == names[
            1:
        ]  # that one was served
        shares = Shares(senders=frozenset({"bob@example.net"}), domains=frozenset({"two.example"}))
        assert await spool.queue.claims.doubtful_sites(taken=shares) == []


async def test_they_are_looked_for_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, of_the_processor = 100.0, count(0.0, 1.0)
    time = SimpleNamespace(monotonic=lambda: seconds, thread_time=lambda: next(of_the_processor))
    monkeypatch.setattr(schedule, "time", time)
    monkeypatch.setattr(schedule, "COSTLY", 0.5)
    monkeypatch.setattr(schedule, "RESTS", 10.0)
    async with opened(tmp_path) as spool:
        has_all = Shares(messages=frozenset({await spool.add("u@one.example")}))
        assert await spool.queue.claims.doubtful_sites(taken=has_all) == []
        assert await spool.queue.claims.next_due(spool.clock.now()) == spool.clock.now() + 10.0
        await spool.add("a@new.example")
        seconds += 9.0
        assert await spool.queue.claims.doubtful_sites(taken=has_all) == []
        seconds += 1.0
        assert [one.destination for one in await spool.queue.claims.doubtful_sites(taken=has_all)] == ["new.example"]


async def test_behind_more_than_are_looked_at_together_who_may_go_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one sender of some thousand new destinations, with all he may have, would keep the others out for hours."""
    monkeypatch.setattr(schedule, "DOUBTFUL_SEEN", 3)
    monkeypatch.setattr(schedule, "FEW", 1)
    async with opened(tmp_path) as spool:
        many = await spool.add(*(f"u@d{number}.example" for number in range(10)))
        await spool.add("a@new.example", sender="bob@example.net")
        await spool.add("b@dead.example", sender="bob@example.net")
        await spool.queue.standing.block("dead.example", spool.clock.now() + 60, "refused")
        await spool.clock.advance(61)
        has_all = Shares(messages=frozenset({many}))
        assert [one.destination for one in await spool.queue.claims.doubtful_sites(taken=has_all)] == ["dead.example"]
        found = await spool.queue.claims.doubtful_sites([unknown_site("dead.example")], taken=has_all)
        assert [one.destination for one in found] == ["new.example"]
        assert (
            await spool.queue.claims.doubtful_sites([one.site for one in found] + ["@dead.example"], taken=has_all)
            == []
        )
