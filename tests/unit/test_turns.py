"""Whose turn it is among destinations that have not proved themselves, and how much of the relay one may have."""

from dataclasses import dataclass
from typing import cast

import pytest

from engine.base.registrable import registrable
from engine.delivery.capacity import PLACE_KEPT, Capacity
from engine.delivery.limits import Limiting
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.turns import Flow, flow_of, in_fair_turn
from engine.model.claim import DueSite
from tests.clock import FakeClock

ALL, LOOKUPS = "delivery.max_connections", "delivery.max_lookups"


@pytest.mark.parametrize(
    ("domain", "registered"),
    [
        ("example.com", "example.com"),
        ("a.b.example.com", "example.com"),
        ("mail.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("d17.evil.example", "evil.example"),
        ("xn--bcher-kva.example.de", "example.de"),
        ("localhost", "localhost"),
        ("[192.0.2.1]", "[192.0.2.1]"),
    ],
)
def test_a_domain_counts_for_whoever_registered_it(domain: str, registered: str) -> None:
    assert registrable(domain) == registered


# -- turns ------------------------------------------------------------------------------------------------------------


def due(name: str, message: int, sender: str = "ann@example.net", *, has_failed: bool = False) -> DueSite:
    return DueSite(
        site=f"@{name}", destination=name, is_in_doubt=True, has_failed=has_failed, message=message, sender=sender
    )


def order(sites: list[DueSite], served: list[Flow] | None = None) -> list[str]:
    return [one.destination for one, _ in in_fair_turn(sites, served or [])]


def test_one_message_to_600_destinations_takes_one_messages_turn() -> None:
    many = [due(f"d{number}.example", 1) for number in range(600)]
    assert order([*many, due("other.example", 2)])[:3] == ["d0.example", "other.example", "d1.example"]


def test_one_sender_of_600_messages_takes_one_senders_turn() -> None:
    many = [due(f"d{number}.example", number) for number in range(600)]
    assert order([*many, due("other.example", 700, "bob@example.net")])[:2] == ["d0.example", "other.example"]


def test_600_messages_to_names_below_one_domain_take_one_domains_turn() -> None:
    many = [due(f"d{number}.evil.example", number) for number in range(600)]
    assert order([*many, due("other.example", 700)])[:2] == ["d0.evil.example", "other.example"]


def test_who_is_served_already_comes_after_who_is_not() -> None:
    served = [flow_of(1, "ann@example.net", "d.example"), flow_of(2, "ann@example.net", "e.example")]
    sites = [due("f.example", 1), due("g.example", 3, "bob@example.net"), due("h.example", 4)]
    assert order(sites, served) == ["g.example", "h.example", "f.example"]


def test_what_was_never_tried_and_what_has_failed_take_turns() -> None:
    failed = [due(f"f{number}.example", number, has_failed=True) for number in range(3)]
    new = [due(f"n{number}.example", 10 + number) for number in range(2)]
    assert order([*failed, *new]) == ["f0.example", "n0.example", "f1.example", "n1.example", "f2.example"]


def test_each_is_named_once_with_its_flow() -> None:
    sites = [due(f"d{number}.example", number % 4, f"s{number % 3}@example.net") for number in range(50)]
    found = in_fair_turn(sites, [])
    assert {one.destination for one, _ in found} == {one.destination for one in sites}
    assert all(flow == flow_of(one.message, one.sender, one.destination) for one, flow in found)


# -- how much one may have --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Live:
    """A relayer, as far as capacity goes."""

    is_admitted: bool = True
    is_in_doubt: bool = True
    stalling: bool = False
    started: float = 0.0
    flow: Flow | None = None

    @property
    def is_doubtful(self) -> bool:
        return self.is_in_doubt or self.stalling


def lives(count: int, **fields: object) -> list[ManagedRelayer]:
    flows = [Flow(number, f"s{number}@example.net", f"d{number}.example") for number in range(count)]
    return [cast("ManagedRelayer", Live(**{"flow": flow, **fields})) for flow in flows]  # type: ignore[arg-type]


def capacity(most: int = 100, lookups: int = 100) -> tuple[Capacity, FakeClock]:
    clock = FakeClock()
    return Capacity(clock, max_connections=most, max_lookups=lookups), clock


def name(limiting: Limiting | None) -> str:
    return limiting.name if limiting is not None else ""


def test_what_has_not_proved_itself_has_half_of_the_connections() -> None:
    full, _ = capacity()
    assert full.on_doubt(lives(49)) is None
    found = full.on_beginning(lives(50), is_in_doubt=True)
    assert found == Limiting(
        ALL, None, "the 50 of 100 connections for destinations that have not proved themselves are in use"
    )
    assert full.on_beginning(lives(50), is_in_doubt=False) is None
    assert full.on_beginning(lives(99), is_in_doubt=False) is None
    assert name(full.on_beginning(lives(100), is_in_doubt=False)) == ALL


def test_who_keeps_us_waiting_counts_among_them_whatever_it_has_proved() -> None:
    full, _ = capacity()
    live = lives(30) + lives(20, is_in_doubt=False, stalling=True)
    assert name(full.on_doubt(live)) == ALL
    assert full.on_doubt(lives(30) + lives(20, is_in_doubt=False)) is None


def test_look_ups_that_take_long_cost_no_connections_and_half_of_the_look_ups_at_most() -> None:
    full, clock = capacity(most=10, lookups=40)
    slow = lives(19, is_admitted=False, started=clock.now() - PLACE_KEPT)
    assert full.places(slow) == 10
    assert full.on_beginning(slow, is_in_doubt=True) is None
    slow += lives(1, is_admitted=False, is_in_doubt=False, started=clock.now() - PLACE_KEPT)
    assert name(full.on_beginning(slow, is_in_doubt=True)) == LOOKUPS
    assert full.on_beginning(slow, is_in_doubt=False) is None
    slow += lives(20, is_admitted=False, is_in_doubt=False, started=clock.now() - PLACE_KEPT)
    found = full.on_beginning(slow, is_in_doubt=False)
    assert found == Limiting(LOOKUPS, None, "all 40 look-ups are under way")


def test_a_quick_look_up_finds_the_connection_that_was_kept_for_it() -> None:
    full, clock = capacity(most=10)
    (quick,) = lives(1, is_admitted=False, is_in_doubt=False, started=clock.now())
    live = [*lives(9, is_in_doubt=False), quick]
    assert name(full.on_beginning(live, is_in_doubt=False)) == ALL
    assert full.on_admission(quick, live) is None


def test_a_slow_one_takes_no_connection_that_is_kept_for_another() -> None:
    full, clock = capacity(most=10)
    (slow,) = lives(1, is_admitted=False, is_in_doubt=False, started=clock.now() - PLACE_KEPT)
    (quick,) = lives(1, is_admitted=False, is_in_doubt=False, started=clock.now())
    live = [*lives(9, is_in_doubt=False), slow, quick]
    assert name(full.on_admission(slow, live)) == ALL
    assert full.on_admission(quick, live) is None
    assert full.on_admission(slow, [*lives(9, is_in_doubt=False), slow]) is None


@pytest.mark.parametrize(("share", "fields"), [(13, (1, "s", "d.example")), (38, (0, "s@example.net", "d"))])
def test_no_message_domain_or_sender_has_all_of_that_half(share: int, fields: tuple[int, str, str]) -> None:
    full, _ = capacity()
    message, sender, domain = fields
    flows = [Flow(message or number, sender, domain if message else f"d{number}.example") for number in range(1, 51)]
    live = [cast("ManagedRelayer", Live(flow=flow)) for flow in flows]
    assert full.on_doubt(live[: share - 1], flows[-1]) is None
    found = full.on_doubt(live[:share], flows[-1])
    who = "message 1" if message else "s@example.net"
    said = f"{who} has its share of the connections for destinations that have not proved themselves"
    assert found == Limiting(ALL, None, said)
    other = Flow(99, "other@example.net", "other.example")
    assert full.on_doubt(live[:share], other) is None
    assert full.on_doubt(live[:share]) is None


def test_health_names_the_bounds_that_are_reached() -> None:
    full, clock = capacity(most=10, lookups=4)
    assert full.in_use(lives(4)) == []
    assert full.in_use(lives(5)) == [
        "the 5 of 10 connections for destinations that have not proved themselves are in use"
    ]
    held = lives(5) + lives(5, is_in_doubt=False, stalling=True)
    assert full.in_use(held) == ["all 10 connections are held by destinations that have not proved themselves"]
    assert full.in_use(lives(9) + lives(1, is_in_doubt=False)) == ["all 10 connections are in use"]
    looking = lives(4, is_admitted=False, started=clock.now() - PLACE_KEPT)
    assert full.in_use(looking) == ["all 4 look-ups are held by destinations that have not proved themselves"]
