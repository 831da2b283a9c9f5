"""What is followed is bounded in entries, in orders and in time, and says so."""

from typing import cast

import pytest

from engine.control import followups
from engine.control.followups import FollowUps
from engine.control.requests import Missing
from engine.model.order import Fate, Touched, TouchedEntry
from engine.queue.contract import Queue
from engine.queue.errors import QueueError
from tests.clock import FakeClock
from tests.unit.fake_relay import FakeQueue

SHUT = Fate("blocked", "4.4.1 connection refused", "connect")


class Followed:
    """Follow-ups on a queue made by hand."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queue = FakeQueue(self.clock)
        self.followups = FollowUps(cast(Queue, self.queue), self.clock)

    def begin(self, number: int, recipients: int) -> None:
        touched = Touched()
        touched.add(number, 0, [TouchedEntry(index, 1, 0) for index in range(recipients)])
        assert self.followups.begin("retry", "ann", touched) == (number if recipients else 0)

    async def text(self, number: int = 1) -> str:
        return (await self.followups.view(number)).text


@pytest.fixture
def followed() -> Followed:
    return Followed()


async def test_of_more_than_are_followed_it_says_so(followed: Followed) -> None:
    followed.begin(1, 25_000)
    followed.queue.came_to = [Fate("delivered")] * 20_000
    assert await followed.text() == "25,000 retried; of the first 10,000: 10,000 delivered"


@pytest.mark.parametrize(
    ("fates", "text"),
    [
        ([Fate("delivered")] * 3 + [SHUT] * 2, "5 retried: 3 delivered, 2 not reached again: 4.4.1 connection refused"),
        ([Fate("deferred", "450 4.2.1 busy", "reply")] * 2, "2 retried: 2 refused again: 450 4.2.1 busy"),
        (
            [Fate("deferred", "no greeting within 300 s", "greeting")],
            "1 retried: 1 not reached again: no greeting within 300 s",
        ),
        (
            [Fate("deferred", "550 is what the peer calls it", "lost")],
            "1 retried: 1 deferred again: 550 is what the peer calls it",
        ),
        ([Fate("blocked")], "1 retried: 1 deferred again: no reason was given"),
        (
            [SHUT, SHUT, Fate("deferred", "450 4.2.1 busy", "reply")],
            "3 retried: 3 not reached again, 2 of them: 4.4.1 connection refused",
        ),
        (
            [Fate("returned", "5.1.1"), Fate("dropped"), Fate("held"), Fate("suspended"), Fate("later"), Fate("gone")],
            "6 retried: 1 returned, 1 dropped, 1 gone (no event says how), 1 held, 1 suspended, 1 not due yet",
        ),
        ([SHUT._replace(why="\x1b[31mred\n")], "1 retried: 1 not reached again: \\x1b[31mred "),
    ],
)
async def test_it_is_told_in_one_line(followed: Followed, fates: list[Fate], text: str) -> None:
    followed.begin(1, len(fates))
    followed.queue.came_to = fates
    assert await followed.text() == text
    assert (await followed.followups.view(1)).over


async def test_what_is_settled_is_not_asked_for_again_and_stays(followed: Followed) -> None:
    followed.begin(1, 3)
    followed.queue.came_to = [Fate("delivered"), Fate("relaying"), Fate("waiting")]
    assert await followed.text() == "3 retried: 1 delivered, 1 being sent, 1 still waiting"
    followed.queue.came_to = [Fate("delivered"), Fate("delivered")]
    seen = await followed.followups.view(1)
    assert (seen.text, seen.over) == ("3 retried: 3 delivered", True)
    followed.queue.came_to = []
    assert await followed.followups.view(1) == seen


async def test_it_ends_with_its_time(followed: Followed) -> None:
    followed.begin(1, 2)
    followed.queue.came_to = [Fate("delivered"), Fate("waiting")]
    assert not (await followed.followups.view(1)).over
    await followed.clock.advance(followups.FOLLOWED_FOR + 1)
    followed.queue.came_to = [Fate("waiting")]
    seen = await followed.followups.view(1)
    assert (seen.over, seen.text) == (True, "2 retried: 1 delivered, 1 still waiting; it is followed no further")


async def test_only_the_last_orders_are_kept(followed: Followed) -> None:
    for number in range(1, followups.ORDERS_KEPT + 2):
        followed.begin(number, 1)
    with pytest.raises(Missing):
        await followed.followups.view(1)
    followed.queue.came_to = [Fate("delivered")]
    assert (await followed.followups.view(2)).delivered == 1


async def test_an_order_that_touched_nothing_is_not_followed(followed: Followed) -> None:
    followed.begin(1, 0)
    with pytest.raises(Missing):
        await followed.followups.view(1)


async def test_an_answer_that_took_long_is_given_again_for_a_while(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followups, "COSTLY", -1.0)
    monkeypatch.setattr(followups, "RESTS", 1e9)
    followed.begin(1, 1)
    followed.queue.came_to = [Fate("waiting")]
    await followed.followups.view(1)
    followed.queue.came_to = [Fate("delivered")]
    assert await followed.text() == "1 retried: 1 still waiting"


async def test_a_store_that_cannot_be_read_loses_nothing_of_what_is_known(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed.begin(1, 1)

    async def busy(*_: object) -> None:
        raise QueueError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(followed.queue.orders, "fates", busy)
        with pytest.raises(QueueError):
            await followed.followups.view(1)
    followed.queue.came_to = [Fate("delivered")]
    assert await followed.text() == "1 retried: 1 delivered"
