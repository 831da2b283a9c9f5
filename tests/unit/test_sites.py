"""To which sites mail may go now: the one answer for all of them is that for each by itself."""

import itertools
import random
from dataclasses import dataclass
from typing import cast

import pytest

from engine.delivery.capacity import PLACE_KEPT, Capacity, who_of
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.site import Site
from engine.delivery.turns import Flow, flow_of
from engine.settings.settings import Limit
from tests.clock import FakeClock
from tests.sites import sites_of


@dataclass(eq=False)
class Live:
    """A connection, as far as limits go."""

    site: Site
    is_idle: bool
    is_established: bool = True
    has_delivered: bool = True
    is_in_doubt: bool = False
    is_called: bool = False
    is_admitted: bool = True
    stalling: bool = False
    started: float = 0.0
    flow: Flow | None = None

    @property
    def is_doubtful(self) -> bool:
        return self.is_in_doubt or self.stalling


@pytest.mark.parametrize("seed", range(60))
def test_there_is_room_for_a_site_exactly_when_nothing_keeps_its_mail(seed: int) -> None:
    draw, clock = random.Random(seed), FakeClock()
    settings = (
        Limit(destination="d1.example", connections=1),
        Limit(destination="*.big.example", connections=2, messages_per_minute=1),
        Limit(destination="d3.example", connections_per_minute=1),
    )
    most = draw.choice([3, 6, 20])
    capacity = Capacity(clock, max_connections=most, max_lookups=draw.choice([2, 8, 100]))
    sites = sites_of(clock, capacity=capacity, limits=settings, most=3)
    names = [f"site{number}" for number in range(6)]
    live: list[ManagedRelayer] = []
    flows = [flow_of(number % 3, f"{number % 2}@example.net", f"d{number % 4}.example") for number in range(12)]
    for number, name in enumerate(names):
        site = sites.get(name, f"d{number}.example", draw.choice([(), ("mx.big.example",)]))
        for rule in site.rules:
            for bucket in (rule.messages, rule.connections):
                if bucket is not None and draw.random() < 0.5:
                    bucket.take(1)
        if draw.random() < 0.2:
            site.leave_alone(clock.now() + draw.choice([-1, 60]), "refused", failed=draw.random() < 0.5)
        for _ in range(draw.randint(0, 3)):
            if len(live) < most:
                one = Live(
                    site,
                    draw.random() < 0.2,
                    draw.random() < 0.8,
                    is_in_doubt=draw.random() < 0.3,
                    is_admitted=draw.random() < 0.7,
                    stalling=draw.random() < 0.2,
                    started=clock.now() - draw.choice([0, 2 * PLACE_KEPT]),
                    flow=draw.choice(flows),
                )
                site.join(cast("ManagedRelayer", one))
                live.append(cast("ManagedRelayer", one))
    room = sites.room(live)
    for name in [*names, "elsewhere"]:
        for doubtful, flow in itertools.product((False, True), flows):
            site = sites.get(name)
            has_room = name not in room.closed and (room.only is None or name in room.only)
            is_shared = bool(who_of(flow, room.taken))
            has_room = has_room and (not doubtful or (room.with_doubtful and not is_shared))
            assert has_room == (not sites.on_mail(site, live, is_in_doubt=doubtful, flow=flow))


@pytest.mark.parametrize("seed", range(10))
def test_a_limit_counts_the_connections_to_all_its_sites_whatever_comes_and_goes(seed: int) -> None:
    draw, clock = random.Random(seed), FakeClock()
    settings = (
        Limit(destination="*.big.example", connections=2),
        Limit(destination="*.mx.big.example", connections=1),
        Limit(destination="d1.example", connections=1),
    )
    sites = sites_of(clock, limits=settings)
    names = [f"site{number}" for number in range(5)]
    hosts = [(), ("a.big.example",), ("a.mx.big.example", "b.example"), ("other.example",)]
    joined: list[tuple[Live, str]] = []
    for _ in range(200):
        match draw.randrange(4):
            case 0:
                sites.get(draw.choice(names), draw.choice(["", "d1.example"]), draw.choice(hosts))
            case 1:
                site = sites.get(draw.choice(names))
                joined.append((Live(site, is_idle=False), site.name))
                site.join(cast("ManagedRelayer", joined[-1][0]))
            case 2 if joined:
                one, name = joined.pop(draw.randrange(len(joined)))
                sites.get(name).leave(cast("ManagedRelayer", one))
            case _:
                sites.forget(draw.choice(names))
        known = [site for site in map(sites.known, names) if site is not None]
        for rule in {rule for site in known for rule in site.rules}:
            there = [one for site in known if rule in site.rules for one in site.connections]
            assert rule.open_but(None) == len(there)
            assert all(rule.open_but(one) == len(there) - 1 for one in there)


def test_a_host_that_is_back_may_have_mail_of_any_site() -> None:
    clock, woken = FakeClock(), []
    sites = sites_of(clock, wake=lambda: woken.append(True))
    first, other = sites.get("mx.example"), sites.get("mx.example mx.other.example")
    for site in (first, other):
        site.leave_alone(clock.now() + 600, "no host answers")
    first.host_is_back()
    assert list(sites.blocked()) == []
    assert not first.is_blocked
    assert not other.is_blocked
    assert woken == [True]
