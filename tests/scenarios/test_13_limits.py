"""13. Each site has as many connections as it bears; what the settings limit is never passed, and can be asked for."""

import asyncio
from collections import Counter
from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.delivery.limits import Bucket
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.site import CEILING
from engine.delivery.sites import KEPT
from engine.model.verbs import Suspend
from engine.sandbox.exchanges import Session as Peer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Healthy, Script, Slow
from engine.settings.settings import Limit
from tests.clock import FakeClock
from tests.scenarios.relaying import QUICK, Relay, relaying
from tests.scenarios.test_11_sites import one_each
from tests.scenarios.test_12_coming_back import fill
from tests.sites import sites_of
from tests.waiting import until


class Full(Slow):
    """Takes no more than so many connections at a time."""

    def __init__(self, most: int) -> None:
        super().__init__(0.003)
        self.most = most
        self.refused = 0

    async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
        if verb == "connect" and session.exchange.open > self.most:
            self.refused += 1
            return "421 4.7.0 Too many connections from your address"
        return await super().reply(session, verb, argument)  # type: ignore[return-value]


def names(relay: Relay, destination: str) -> list[str]:
    return [one.name for one in relay.engine.smarthost.limits_on(destination)]


# -- adaptive ---------------------------------------------------------------------------------------------------------


async def test_a_site_begins_with_two_connections_and_grows_with_success(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections_per_destination=8) as relay:
        (exchange,) = await internet.add("big.example", mx=[(10, "mx.big.example", Slow(0.003))])
        await fill(relay, "big.example", 300)
        await internet.wait_for(300, seconds=30)
        assert exchange.most_open == 8


async def test_initial_connections_is_all_it_gets_while_it_has_not_delivered(
    internet: Internet, clock: FakeClock
) -> None:
    looked = asyncio.Event()

    class LateForMail(Healthy):
        async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
            if verb == "MAIL":
                await looked.wait()
            return await super().reply(session, verb, argument)  # type: ignore[return-value]

    patient = replace(QUICK, mail=60, attempt=60)
    async with relaying(
        internet, clock=clock, timeouts=patient, initial_connections=3, max_connections_per_destination=8
    ) as relay:
        (exchange,) = await internet.add("late.example", mx=[(10, "mx.late.example", LateForMail())])
        await fill(relay, "late.example", 100)
        await until(lambda: exchange.open >= 3)
        await relay.engine.smarthost.check_state()
        assert exchange.most_open == 3
        assert names(relay, "late.example") == ["delivery.initial_connections"]
        looked.set()


async def test_too_many_connections_makes_it_fewer_and_costs_no_attempt(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections_per_destination=16) as relay:
        full = Full(3)
        (exchange,) = await internet.add("full.example", mx=[(10, "mx.full.example", full)])
        await fill(relay, "full.example", 400)
        await internet.wait_for(200)  # at 300 each of the three has carried its hundred, and makes room for a new one
        assert names(relay, "full.example") == ["adaptive concurrency"]
        (limiting,) = relay.engine.smarthost.limits_on("full.example")
        assert limiting.until is not None
        assert clock.now() < limiting.until <= clock.now() + CEILING
        assert "3 connections" in limiting.text
        assert "Too many" in limiting.text
        await internet.wait_for(400)
        await relay.settled()
        assert full.refused <= 3
        assert exchange.messages == 400
        assert await relay.events("deferred") == []
        assert relay.engine.mx.marks == ()


async def test_after_a_while_more_are_tried_again(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections_per_destination=6) as relay:
        full = Full(2)
        (exchange,) = await internet.add("full.example", mx=[(10, "mx.full.example", full)])
        await fill(relay, "full.example", 100)
        await internet.wait_for(100)
        await relay.settled()
        assert full.refused
        full.most = 50
        await clock.advance(CEILING + 1)
        await fill(relay, "full.example", 200)
        await internet.wait_for(300)
        assert exchange.most_open == 6


async def test_a_connection_that_is_cut_halves_them(internet: Internet, clock: FakeClock) -> None:
    class Cutting(Slow):
        cut = False

        async def reply(self, session: Peer, verb: str, argument: str) -> str | None:
            if verb == "MAIL" and session.exchange.messages > 100 and not self.cut:
                self.cut = True
                return "421 4.7.28 unusual rate"
            return await super().reply(session, verb, argument)  # type: ignore[return-value]

    async with relaying(internet, clock=clock, max_connections_per_destination=8) as relay:
        await internet.add("cut.example", mx=[(10, "mx.cut.example", Cutting(0.004))])
        await fill(relay, "cut.example", 400)
        await internet.wait_for(180)
        assert 1 <= len(relay.engine.smarthost.managed) <= 4
        assert names(relay, "cut.example") == ["adaptive concurrency"]
        await internet.wait_for(400)
        await relay.settled()
        assert await relay.entries() == ()  # nor has the 421, said between two messages, cost one an attempt


# -- set by the settings ----------------------------------------------------------------------------------------------


async def test_a_limit_of_connections_stands_in_place_of_the_default(internet: Internet, clock: FakeClock) -> None:
    limits = (Limit(destination="big.example", connections=7), Limit(destination="small.example", connections=1))
    async with relaying(internet, clock=clock, limit=limits) as relay:
        (big,) = await internet.add("big.example", mx=[(10, "mx.big.example", Slow(0.003))])
        (small,) = await internet.add("small.example", mx=[(10, "mx.small.example", Slow(0.003))])
        await fill(relay, "big.example", 300)
        await fill(relay, "small.example", 40)
        await internet.wait_for(100)
        assert "limit[small.example].connections" in names(relay, "small.example")
        await internet.wait_for(340, seconds=30)
        assert (big.most_open, small.most_open) == (7, 1)


async def test_a_limit_for_hosts_holds_for_all_sites_that_have_one(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="*.big.example", connections=2)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        for number in range(4):
            mx = [(10, f"mx{number}.big.example", Slow(0.003))]
            await internet.add(f"d{number}.example", mx=mx)
            await fill(relay, f"d{number}.example", 20)
        most = 0
        while internet.messages < 80:
            await asyncio.sleep(0.005)
            most = max(most, sum(exchange.open for exchange in internet.exchanges.values()))
            # What was refused as it came waits for the next check, at the latest.
            await clock.advance(1)
        assert most <= 3  # one may be closing while the next is opened
        assert await relay.events("deferred") == []


async def test_a_connection_carries_no_more_than_its_limit(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="few.example", messages_per_connection=3)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        (exchange,) = await internet.add("few.example", mx=[(10, "mx.few.example", Healthy())])
        await fill(relay, "few.example", 20)
        await internet.wait_for(20)
        assert max(Counter(delivery.session for delivery in exchange.delivered).values()) == 3


async def test_no_minute_sees_more_messages_than_set(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="slow.example", messages_per_minute=30)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        (exchange,) = await internet.add("slow.example", mx=[(10, "mx.slow.example", Healthy())])
        await fill(relay, "slow.example", 100)
        await relay.settled()
        (limiting,) = relay.engine.smarthost.limits_on("slow.example")
        assert limiting.name == "limit[slow.example].messages_per_minute"
        assert limiting.until is not None
        while exchange.messages < 100:
            before = exchange.messages
            assert relay.engine.smarthost.next_check is not None
            await relay.later(2)
            assert exchange.messages - before <= 3
        at = sorted(delivery.at for delivery in exchange.delivered)
        busiest = max(sum(start <= one < start + 60 for one in at) for start in at)
        assert 20 <= busiest <= 30
        assert at[-1] - at[0] < 300  # four minutes, and nothing was forgotten


async def test_a_rate_wakes_the_relay_by_itself(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="slow.example", messages_per_minute=30)
    async with relaying(internet, clock=clock, limit=(limit,), check_interval=3600.0) as relay:
        await internet.add("slow.example", mx=[(10, "mx.slow.example", Healthy())])
        await relay.send("a@slow.example", times=9)
        begun = clock.now()
        smarthost = relay.engine.smarthost

        def next_check() -> float:
            """Seconds until the relay looks again by itself; 0: it does so now."""
            return max(0.0, (smarthost.next_check or 0.0) - clock.now())

        while internet.messages < 9:
            await until(lambda: internet.messages == 9 or 0 < next_check() < 10)
            if internet.messages < 9:
                await clock.advance(next_check())  # nobody asks for a check here
        assert clock.now() < begun + 60


async def test_a_rate_that_allows_more_while_the_relay_looks_is_looked_at_again(
    internet: Internet, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Limit(destination="slow.example", messages_per_minute=30)
    async with relaying(internet, clock=clock, limit=(limit,), check_interval=3600.0) as relay:
        await internet.add("slow.example", mx=[(10, "mx.slow.example", Healthy())])
        await relay.send("a@slow.example", times=6)
        await until(lambda: internet.messages == 3)
        await relay.settled()
        smarthost = relay.engine.smarthost
        look = smarthost._pressure.look

        async def takes_long(live: Collection[ManagedRelayer]) -> None:
            """The last that a check does, after it has found that nothing may go."""
            monkeypatch.undo()
            await clock.advance(7)
            await look(live)

        monkeypatch.setattr(smarthost._pressure, "look", takes_long)
        smarthost.wake()
        await until(lambda: internet.messages == 6)


async def test_no_minute_sees_more_connections_than_set(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="*.door.example", connections_per_minute=2, messages_per_connection=1)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        (exchange,) = await internet.add("door.example", mx=[(10, "mx.door.example", Healthy())])
        await fill(relay, "door.example", 6)
        await relay.settled()
        assert exchange.sessions == 1
        assert names(relay, "door.example") == ["limit[*.door.example].connections_per_minute"]
        for _ in range(8):
            await relay.later(31)
        assert exchange.messages == 6
        at = sorted(delivery.at for delivery in exchange.delivered)
        assert all(later - one >= 30 for one, later in pairwise(at))


async def test_what_was_not_sent_counts_for_no_limit(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="dead.example", messages_per_minute=10)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", BlackHole())])
        await relay.send("a@dead.example")
        await relay.engine.smarthost.check_state()
        await relay.settled()
        await exchange.become(Healthy())
        await relay.later(1000)
        assert exchange.messages == 1


async def test_all_connections_in_use_is_named(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        await internet.add("hole.example", mx=[(10, "mx.hole.example", BlackHole())])
        await relay.send("a@hole.example")
        await relay.engine.smarthost.check_state()
        assert names(relay, "other.example") == ["delivery.max_connections"]
        await relay.settled()


async def test_many_sites_of_one_exhausted_limit_wait_without_a_loop(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="*.farm.example", messages_per_minute=1)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        domains = [f"c{number}.example" for number in range(30)]
        for number, domain in enumerate(domains):
            host = f"mx{number}.farm.example"
            await internet.host("mx0.farm.example", Healthy())
            internet.dns.add(host, "A", internet.exchange("mx0.farm.example").address)
            internet.dns.add(domain, "MX", f"10 {host}.")
        await one_each(relay, domains)
        await relay.settled()
        opened = relay.engine.smarthost._last_id
        for _ in range(20):
            await relay.engine.smarthost.check_state()
        assert relay.engine.smarthost._last_id == opened
        for _ in range(40):
            await relay.later(61)
        assert internet.messages == 30


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_minute", [1, 2, 7, 10, 60, 100, 1000, 60_000])
async def test_a_bucket_never_gives_more_than_its_minute_and_nearly_that(per_minute: int) -> None:
    clock = FakeClock()
    bucket = Bucket(per_minute, clock)
    taken: list[tuple[float, int]] = []
    for _ in range(600):
        count = bucket.available
        if count:
            bucket.take(count)
            taken.append((clock.now(), count))
        await clock.advance(0.5)
    for start, _ in taken:
        assert sum(count for at, count in taken if start <= at < start + 60) <= per_minute
    assert sum(count for _, count in taken) >= 5 * per_minute * 0.85


async def test_a_bucket_is_ready_when_it_says() -> None:
    clock = FakeClock()
    for per_minute in (1, 3, 10, 45, 100, 6000):
        bucket = Bucket(per_minute, clock)
        bucket.take(bucket.available)
        assert bucket.available == 0
        await clock.advance(bucket.ready_at - clock.now())
        assert bucket.available >= 1
        bucket.take(bucket.available)
        bucket.give_back(10 * per_minute)
        assert bucket.available == bucket.size


def test_what_is_remembered_of_sites_is_bounded(clock: FakeClock) -> None:
    sites = sites_of(clock)
    for number in range(KEPT + 500):
        sites.get(f"mx{number}.example").leave_alone(clock.now() + 900, "test")
    assert len(sites) == KEPT
    assert len(list(sites.blocked())) <= KEPT


async def test_a_dead_site_that_lives_is_not_held_to_its_ceiling_for_ever(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock) as relay:
        (exchange,) = await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
        await relay.send("a@dead.example", times=3)
        await relay.settled()
        await exchange.become(Healthy())
        await relay.later(2000)
        assert exchange.messages == 3
        assert names(relay, "dead.example") == []


async def test_a_rate_for_hosts_holds_from_the_first_message_after_a_restart(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    limit, spool = (Limit(destination="*.farm.example", messages_per_minute=5),), tmp_path / "spool"
    (exchange,) = await internet.add("c.example", mx=[(10, "mx.farm.example", Healthy())])
    async with relaying(internet, clock=clock, limit=limit, spool=spool) as relay:
        await relay.send("a@c.example")
        await relay.settled()
        await relay.client.ask(Suspend(destination="c.example", seconds=600, note="test"))
        await fill(relay, "c.example", 30)
    await clock.advance(601)
    async with relaying(internet, clock=clock, limit=limit, spool=spool) as relay:
        await relay.settled()
        assert exchange.messages <= 1 + 1


async def test_every_dial_counts_as_a_connection(internet: Internet, clock: FakeClock) -> None:
    limit = Limit(destination="*.farm.example", connections_per_minute=2)
    async with relaying(internet, clock=clock, limit=(limit,)) as relay:
        turned_away = Script({"connect": "421 4.3.2 no"})
        mx = [(10 * number, f"mx{number}.farm.example", turned_away) for number in range(1, 6)]
        exchanges = await internet.add("k.example", mx=mx)
        await relay.send("x@k.example")
        await relay.settled()
        assert sum(exchange.sessions for exchange in exchanges) == 1
        (entry,) = await relay.entries()
        assert entry.attempts == 1
