"""71. With as many connections as Postfix has by default, a small host is not hurt, and neither is the mail of others.

Settings are the defaults: a hundred connections, twenty to one destination, beginning with two.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.scenarios.test_70_shared_capacity import HEALTHY, P95, PATIENT, REAL, enqueue, healthy_p95
from tests.waiting import until

MESSAGES = 300


class Small(Healthy):
    """Takes four connections, and turns away who comes beyond that."""

    def __init__(self) -> None:
        self.turned_away = 0

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "connect" and session.exchange.open > 4:
            self.turned_away += 1
            return "421 4.7.0 mx.small.example too many connections from you"
        await asyncio.sleep(0.005)
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


class OneAtATime(Healthy):
    """Has one thread for all: while it thinks about one command, the others wait. `longest` is how long one waited."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.longest = seconds, 0.0
        self._thread = asyncio.Lock()

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        begin = asyncio.get_running_loop().time()
        async with self._thread:
            await asyncio.sleep(self.seconds)
        self.longest = max(self.longest, asyncio.get_running_loop().time() - begin)
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    """An internet by the machine's clock."""
    async with Internet(clock=SystemClock()) as internet:
        yield internet


async def backlog(relay: Relay) -> float:
    """Mail for the small host, and the p95 of mail to others beside it."""
    for number in range(HEALTHY):
        await relay.internet.add(f"good{number}.example", mx=[(10, f"mx.good{number}.example", Healthy())])
        await enqueue(relay, f"warm@good{number}.example")
    await relay.internet.wait_for(HEALTHY)
    for number in range(MESSAGES):
        await enqueue(relay, f"u{number}@small.example", sender=f"s{number % 7}@example.com")
    return await healthy_p95(relay)


async def all_came_once(relay: Relay) -> None:
    exchange = relay.internet.exchange("mx.small.example")
    await until(lambda: exchange.messages >= MESSAGES)
    arrived = [one.recipients for one in exchange.delivered]
    assert len(arrived) == len(set(arrived)) == MESSAGES
    assert await relay.events("deferred", "unreachable", "marked bad") == []
    assert all(one.content.endswith(LETTER[-20:]) for one in exchange.delivered)


async def test_a_host_that_takes_four_connections_is_asked_for_few_more_and_gets_its_mail(internet: Internet) -> None:
    small = Small()
    await internet.add("small.example", mx=[(10, "mx.small.example", small)])
    async with relaying(internet, clock=REAL, timeouts=PATIENT, idle=0.5) as relay:
        assert await backlog(relay) < P95
        await all_came_once(relay)
        assert internet.exchange("mx.small.example").most_open <= 4 + 4  # 2, 4, then 8
        assert small.turned_away <= 4


async def test_a_slow_host_with_one_thread_gets_its_mail_and_is_not_kept_waiting_long(internet: Internet) -> None:
    slow = OneAtATime(0.002)
    await internet.add("small.example", mx=[(10, "mx.small.example", slow)])
    async with relaying(internet, clock=REAL, timeouts=PATIENT, idle=0.5) as relay:
        assert await backlog(relay) < P95
        await all_came_once(relay)
        assert internet.exchange("mx.small.example").most_open <= 20
        assert slow.longest < 2.0  # a command waits for those of nineteen others at the most
