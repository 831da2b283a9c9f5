"""What all nodes may have together, and which part of it is each one's."""

import pytest

from engine.base.clock import FollowingClock
from engine.delivery.limits import Rule
from engine.model.node import ALL_OF_IT, Share
from engine.settings.settings import Limit
from tests.clock import FakeClock


@pytest.mark.parametrize("nodes", [1, 2, 3, 7])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 20, 100])
def test_the_parts_of_all_nodes_are_the_whole_and_as_good_as_alike(nodes: int, number: int) -> None:
    parts = [Share(nodes, place).of(number, "example.org") for place in range(nodes)]
    assert sum(parts) == number
    assert max(parts) - min(parts) <= 1


def test_what_is_fewer_than_nodes_is_not_all_one_nodes() -> None:
    who = {next(place for place in range(3) if Share(3, place).of(1, f"d{number}.example")) for number in range(50)}
    assert who == {0, 1, 2}


async def test_a_limit_follows_how_many_share_it_and_says_so() -> None:
    clock = FakeClock()
    shares = [ALL_OF_IT]
    setting = Limit(destination="example.org", messages_per_minute=600, connections=2)
    rule = Rule(setting, clock, lambda: shares[0])
    assert rule.messages is not None
    assert rule.messages.available == 60
    shares[0] = Share(3, 0)
    assert rule.messages.available == 20
    parts = {Rule(setting, clock, lambda place=place: Share(3, place)).most for place in range(3)}  # type: ignore[misc]
    assert parts == {0, 1}
    rule.messages.take(20)
    limiting = rule.on_messages()
    assert limiting is not None
    assert limiting.text == "no more than 200 a minute from this node, of 600 from all"
    shares[0] = ALL_OF_IT
    assert rule.messages.available == 0  # it fills up at its pace
    await clock.advance(6)
    assert rule.messages.available >= 50


def test_a_limit_that_is_all_other_nodes_ends_at_no_time() -> None:
    none_of_it = next(share for share in (Share(3, place) for place in range(3)) if not share.of(1, "example.org"))
    rule = Rule(Limit(destination="example.org", messages_per_minute=1), FakeClock(), lambda: none_of_it)
    limiting = rule.on_messages()
    assert limiting is not None
    assert limiting.until is None
    assert limiting.text == "no more than 0 a minute from this node, of 1 from all"


def test_a_clock_that_follows_another_goes_by_that_and_not_by_what_is_within_its_error() -> None:
    clock = FollowingClock()
    clock.follow(5000.0, 0.01)
    first = clock.now()
    assert 5000.0 <= first < 5010.0
    clock.follow(first - 0.005, 0.01)
    assert clock.now() >= first
    clock.follow(1000.0, 0.01)
    assert clock.now() < 1010.0
