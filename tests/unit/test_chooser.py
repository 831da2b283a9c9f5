"""Which sites are served next: those that have proved themselves and those that have not, side by side."""

from collections.abc import Collection
from typing import cast

from engine.delivery.capacity import Capacity
from engine.delivery.chooser import Chooser, Chosen
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.sites import Sites
from engine.model.claim import NONE_TAKEN, DueSite, Shares
from engine.queue.contract import Queue
from tests.clock import FakeClock
from tests.sites import sites_of
from tests.unit.test_turns import due, lives

PROVED = [DueSite(site=f"mx{number}.example", destination=f"p{number}.example") for number in range(5)]
DOUBTFUL = [due(f"n{number}.example", number, f"s{number}@example.net") for number in range(5)]


class Store:
    """What is due, as the queue tells it."""

    def __init__(self) -> None:
        self.claims = self
        self.taken = NONE_TAKEN

    async def due_sites(
        self, limit: int, without: Collection[str] = (), *, with_doubtful: bool = True
    ) -> list[DueSite]:
        assert not with_doubtful
        return [one for one in PROVED if one.site not in without][:limit]

    async def doubtful_sites(self, without: Collection[str] = (), taken: Shares = NONE_TAKEN) -> list[DueSite]:
        self.taken = taken
        return [one for one in DOUBTFUL if one.site not in without]


def choosing(most: int = 100) -> tuple[Chooser, Sites, Store]:
    clock, store = FakeClock(), Store()
    capacity = Capacity(clock, max_connections=most, max_lookups=100)
    sites = sites_of(clock, capacity=capacity)
    return Chooser(cast(Queue, store), sites, capacity), sites, store


async def names(
    one: Chooser, limit: int, live: Collection[ManagedRelayer] = (), *, busy: Collection[str] = ()
) -> list[str]:
    return [chosen.due.destination for chosen in await one.next(limit, set(), set(busy), live)]


async def test_the_proved_and_the_others_are_served_side_by_side() -> None:
    chooser, _, _ = choosing()
    assert await names(chooser, 5) == ["p0.example", "n0.example", "p1.example", "n1.example", "p2.example"]


async def test_of_single_connections_each_has_every_other_one() -> None:
    chooser, _, _ = choosing()
    first = []
    for _ in range(4):
        (chosen,) = await chooser.next(1, set(), set(), ())
        chooser.served(chosen)
        first.append(chosen.due.destination)
    assert first == ["p0.example", "n0.example"] * 2


async def test_where_their_half_is_in_use_those_in_doubt_are_left_out_and_so_is_a_site_that_fails() -> None:
    chooser, sites, _ = choosing(most=4)
    sites.get("mx1.example").leave_alone(0.0, "refused")
    assert "p1.example" in await names(chooser, 9)
    assert await names(chooser, 9, lives(2)) == ["p0.example", "p2.example", "p3.example", "p4.example"]
    sites.get("mx1.example").proved()
    assert "p1.example" in await names(chooser, 9, lives(2))


async def test_a_site_that_fails_counts_as_one_that_has_not_proved_itself() -> None:
    chooser, sites, _ = choosing()
    sites.get("mx1.example").leave_alone(0.0, "refused")
    chosen: list[Chosen] = await chooser.next(20, set(), set(), ())
    in_doubt = {one.due.destination for one in chosen if one.due.is_in_doubt}
    assert in_doubt == {"p1.example", *(one.destination for one in DOUBTFUL)}


async def test_who_gave_up_a_connection_and_who_has_one_come_last() -> None:
    chooser, _, _ = choosing()
    chooser.yielded("mx0.example")
    assert (await names(chooser, 3, busy=["mx1.example"]))[::2] == ["p2.example", "p3.example"]
    assert set(await names(chooser, 20)) == {f"{kind}{number}.example" for kind in "pn" for number in range(5)}


async def test_the_store_is_told_who_has_his_share_already() -> None:
    chooser, _, store = choosing(most=8)
    live = lives(3)
    for one in live[1:]:
        one.flow = live[0].flow
    await names(chooser, 9, live)
    assert live[0].flow is not None
    assert store.taken == Shares(
        messages=frozenset({live[0].flow.message}),
        senders=frozenset({live[0].flow.sender}),
        domains=frozenset({live[0].flow.domain}),
    )
