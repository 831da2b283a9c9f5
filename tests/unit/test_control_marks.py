"""Marks by the window: however many hosts are bad, what a console asks each second stays small, and counts exact."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.client import Refused
from engine.dns.bad_hosts import Countdowns
from engine.model.destination import Mark
from engine.model.event import ENGINE
from tests.unit.fake_relay import NOW, FakeEngine, short_folder
from tests.unit.sqlite.support import opened

MANY = 100_000


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


def marks(count: int, by: str = ENGINE) -> list[Mark]:
    """So many, the first to end first."""
    why = "connect: connection refused"
    return [
        Mark(host=f"mx{n:06}.example", since=NOW, until=NOW + 60 + n, by=by if n % 10 else "oncall", note=why)
        for n in range(count)
    ]


async def test_a_hundred_thousand_marks_leave_the_overview_small_and_their_count_exact(engine: FakeEngine) -> None:
    engine.mx.marks = marks(MANY)
    async with engine.serving() as client:
        began = time.monotonic()
        overview = await client.overview(hosts=50)
        took = time.monotonic() - began
        async with client._open.get("overview?hosts=100") as response:
            octets = len(await response.read())
        metrics = client._open.get("/metrics")
        async with metrics as response:
            assert f"smarthost_bad_hosts {MANY:.1f}" in await response.text()
    assert octets < 64 * 1024
    assert (overview.health.bad_hosts, len(overview.hosts)) == (MANY, 50)
    assert [one.host for one in overview.hosts[:2]] == ["mx000000.example", "mx000001.example"]
    assert took < 5, "it is made of what is shown, not of what there is"


async def test_hosts_come_by_the_window_as_other_lists_do(engine: FakeEngine) -> None:
    engine.mx.marks = marks(30)
    engine.queue.counts = {"mx000007.example": 9, "mx000003.example": 4}
    async with engine.serving() as client:
        window = await client.hosts(offset=10, limit=5)
        assert (window.total, window.offset) == (30, 10)
        assert [one.host for one in window.rows] == [f"mx0000{n}.example" for n in range(10, 15)]
        assert (await client.hosts(offset=28)).rows == (await client.hosts(sort="-host", limit=2)).rows[::-1]
        assert [one.host for one in (await client.hosts(sort="-waiting", limit=2)).rows] == [
            "mx000007.example",
            "mx000003.example",
        ]
        found = await client.hosts("oncall !mx000020", limit=1)
        assert (found.total, found.rows[0].host) == (2, "mx000000.example")
        assert (await client.hosts("refused")).total == 30
        assert (await client.hosts("nothing of the kind")).total == 0
        assert (await client.hosts(offset=99)).rows == ()
        with pytest.raises(Refused, match="sort"):
            await client.hosts(sort="colour")


async def test_one_host_is_asked_for_by_its_name(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        assert (await client.host("MX1.dead.example")).by == ENGINE
        with pytest.raises(Refused) as refused:
            await client.host("mx.back.example")
    assert refused.value.refusal.not_found


async def test_what_stands_comes_by_the_window(engine: FakeEngine) -> None:
    engine.mx.marks = marks(2500)
    async with engine.serving() as client:
        first, second, third = [await client.overrides(offset=n) for n in (0, 1000, 2000)]
    assert [len(one) for one in (first, second, third)] == [1000, 1000, 500]
    assert len({one.name for one in (*first, *second, *third)}) == 2500


async def test_a_destination_says_which_of_its_exchanges_are_bad(engine: FakeEngine) -> None:
    engine.mx.marks = [Mark(host="mx2.example.org", since=NOW, until=NOW + 90, by=ENGINE, note="refused")]
    async with engine.serving() as client:
        (marked,) = (await client.destination("example.org")).marked
        assert (marked.host, marked.until) == ("mx2.example.org", NOW + 90)
        assert (await client.destinations()).rows[0].marked == (marked,)


async def test_what_every_bad_host_holds_back_is_counted_in_one_go(tmp_path: Path) -> None:
    async with opened(tmp_path) as spool:
        now = spool.clock.now()
        for name, recipients, hosts in (
            ("a.example", 3, ("mx1.example",)),
            ("b.example", 2, ("mx1.example", "mx2.example")),
            ("c.example", 4, ("mx1.example", "good.example")),
            ("d.example", 5, ("mx2.example", "over.example")),
        ):
            await spool.add(*(f"x{n}@{name}" for n in range(recipients)))
            await spool.queue.standing.note_destination(name, hosts)
        for host, seconds in (("mx1.example", 60), ("mx2.example", 60), ("over.example", -1)):
            await spool.queue.marks.save(Mark(host=host, since=now, until=now + seconds, by=ENGINE, note=""))
        counts = await spool.queue.listing.held_back_counts()
        assert counts == {"mx1.example": 5, "mx2.example": 2}
        held = await spool.queue.listing.held_back(["mx1.example"])
        assert {one.host: one.waiting for one in held} == {"mx1.example": 5}, "others that are marked are bad, too"
        await spool.queue.marks.forget(["mx2.example"])
        assert await spool.queue.listing.held_back_counts() == {"mx1.example": 3}
        assert "marked good" not in spool.kinds()


_HOSTS = st.sampled_from([f"mx{n}.example" for n in range(8)])


@given(st.lists(st.tuples(_HOSTS, st.integers(0, 5), st.booleans(), st.booleans()), max_size=40))
def test_countdowns_are_always_in_order_and_count_the_engines_own(
    steps: list[tuple[str, int, bool, bool]],
) -> None:
    kept, known = Countdowns(), dict[str, Mark]()
    for host, until, of_engine, goes in steps:
        if goes:
            assert kept.pop(host, None) == known.pop(host, None)
        else:
            mark = Mark(host=host, since=0, until=until, by=ENGINE if of_engine else "oncall", note="")
            kept[host] = known[host] = mark
        ends = sorted((mark.until, mark.host) for mark in known.values())
        own = sorted((mark.until, mark.host) for mark in known.values() if mark.by == ENGINE)
        assert list(kept) == [host for _, host in ends]
        assert dict(kept) == known
        assert (len(kept), kept.of_engine) == (len(known), len(own))
        assert kept.ended(3) == [host for end, host in ends if end <= 3]
        assert kept.too_many(2) == [host for _, host in own[: max(0, len(own) - 2)]]
