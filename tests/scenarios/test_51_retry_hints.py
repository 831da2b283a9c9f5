"""51. When it is tried again: as the peer asks, within bounds, and by the schedule of its destination."""

import pytest

from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Greylisting, Healthy, Script
from engine.settings.settings import Dsn, Retry, RetryOf
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

HOUR, DAY = 3600.0, 86_400.0


async def wait_after(internet: Internet, relay: Relay, reply: str, domain: str = "later.example") -> float:
    """How long the relay waits after this reply to its first try."""
    await internet.add(domain, mx=[(10, f"mx.{domain}", Script({"RCPT": reply}))])
    await relay.send(f"bob@{domain}")
    await relay.settled()
    (entry,) = await relay.entries(f"domain={domain}")
    return entry.due - relay.clock.now()


@pytest.mark.parametrize(
    ("reply", "least", "most"),
    [
        ("450 4.7.1 Greylisted, try again in 120 seconds", 120, 132),
        ("451 4.7.1 Greylisting in action, please come back in 00:14:59", 899, 990),
        ("450 4.7.1 try again in 3 seconds", 60, 66),
        ("450 4.7.1 please wait 1 hour", 3600, 3600),
        ("450 4.7.1 retry in 2 days", 3600, 3600),
        ("450 4.7.1 300 messages in 60 seconds are too many, try again later", 300, 330),
        ("450 4.7.1 try again later", 300, 330),
    ],
)  # fmt: skip
async def test_a_delay_that_the_peer_names_is_heeded_within_bounds(
    internet: Internet, relay: Relay, reply: str, least: float, most: float
) -> None:
    assert least <= await wait_after(internet, relay, reply) <= most


async def test_greylisting_costs_as_long_as_the_greylist_says_and_no_longer(internet: Internet, relay: Relay) -> None:
    await internet.add("grey.example", mx=[(10, "mx.grey.example", Greylisting(90))])
    await relay.send("bob@grey.example")
    await relay.settled()
    await relay.later(100)
    assert internet.messages == 1


async def test_where_the_schedule_has_longer_intervals_a_peer_may_ask_for_as_much(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock, retry=Retry(schedule=(4 * HOUR,))) as relay:
        assert 3 * HOUR <= await wait_after(internet, relay, "450 wait 3 hours") <= 3.3 * HOUR
        assert await wait_after(internet, relay, "450 wait 9 hours", "x.example") == 4 * HOUR


async def test_what_a_peer_asks_for_never_outlasts_the_message(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, retry=Retry(schedule=(60.0,), give_up_after=600.0)) as relay:
        assert 60 <= await wait_after(internet, relay, "450 try again in 30 minutes") <= 66


async def test_a_destination_has_a_schedule_and_an_end_of_its_own(internet: Internet, clock: FakeClock) -> None:
    retry = Retry(
        destination=(
            RetryOf(domain="gmail.example", schedule=(1800.0,), give_up_after=2 * DAY),
            RetryOf(domain="*.slow.example", schedule=(7200.0,)),
        )
    )
    async with relaying(internet, clock=clock, retry=retry) as relay:
        assert 1800 <= await wait_after(internet, relay, "450 later", "gmail.example") <= 1980
        assert 7200 <= await wait_after(internet, relay, "450 later", "a.b.slow.example") <= 7920
        assert 300 <= await wait_after(internet, relay, "450 later", "slow.example") <= 330
        ends = {entry.destination: entry.expires - clock.now() for entry in await relay.entries()}
        assert ends == {"gmail.example": 2 * DAY, "a.b.slow.example": 5 * DAY, "slow.example": 5 * DAY}


async def test_one_message_to_two_destinations_ends_at_each_in_its_own_time(
    internet: Internet, clock: FakeClock
) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    for domain in ("short.example", "long.example"):
        await internet.add(domain, mx=[(10, f"mx.{domain}", Script({"RCPT": "450 later"}))])
    retry = Retry(destination=(RetryOf(domain="short.example", give_up_after=HOUR),))
    async with relaying(internet, clock=clock, retry=retry) as relay:
        await relay.send("a@short.example", "b@long.example")
        await relay.settled()
        await relay.later(HOUR + 1)
        await relay.later(Dsn().gather)
        await internet.wait_for(1)
        assert b"a@short.example" in internet.delivered[0].content
        assert b"b@long.example" not in internet.delivered[0].content
        assert [entry.recipient for entry in await relay.entries()] == ["b@long.example"]
