"""2. Destinations take turns, and no limit is ever passed."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.delivery.smarthost import BATCH
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Healthy, Slow
from tests.clock import FakeClock
from tests.scenarios.relaying import QUICK, Relay, relaying


async def backlog(relay: Relay, domain: str, messages: int) -> None:
    """Queue mail that stays until its destination is released."""
    for number in range(messages):
        await relay.send(f"user{number}@{domain}")


async def test_one_destination_with_much_mail_does_not_starve_one_with_little(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        (big,) = await internet.add("big.example", mx=[(10, "mx.big.example", Dead())])
        (small,) = await internet.add("small.example", mx=[(10, "mx.small.example", Dead())])
        await backlog(relay, "big.example", 5 * BATCH)
        await backlog(relay, "small.example", 1)
        await relay.settled()
        await big.become(Healthy())
        await small.become(Healthy())
        await relay.later(2000)
        assert (big.messages, small.messages) == (5 * BATCH, 1)
        before_small = [delivery for delivery in big.delivered if delivery.at <= small.delivered[0].at]
        assert small.messages == 1
        assert len(before_small) <= 5 * BATCH


async def test_max_connections_is_kept(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections=3, max_connections_per_destination=2) as relay:
        for number in range(6):
            await internet.add(f"d{number}.example", mx=[(10, f"mx{number}.example", BlackHole())])
            await relay.send(f"x@d{number}.example")
        check = await relay.engine.smarthost.check_state()
        assert len(relay.engine.smarthost.managed) <= 3
        await check.completed()
        await relay.settled()
        for exchange in internet.exchanges.values():
            assert exchange.most_open <= 2


async def test_a_destination_has_no_more_than_its_connections(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections_per_destination=2) as relay:
        (exchange,) = await internet.add("slow.example", mx=[(10, "mx.slow.example", Slow(0.01))])
        await backlog(relay, "slow.example", 6 * BATCH)
        await internet.wait_for(6 * BATCH, seconds=30)
        assert exchange.most_open == 2


async def test_a_connection_carries_no_more_than_max_messages(internet: Internet, clock: FakeClock) -> None:
    async with relaying(
        internet, clock=clock, max_messages_per_connection=4, max_connections_per_destination=1
    ) as relay:
        (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
        await backlog(relay, "example.org", 10)
        await relay.settled()
        await exchange.become(Healthy())
        await relay.later(2000)
        taken: dict[int, int] = {}
        for delivery in exchange.delivered:
            taken[delivery.session] = taken.get(delivery.session, 0) + 1
        assert max(taken.values()) == 4
        assert exchange.messages == 10


async def test_a_dead_destination_costs_one_connection_at_a_time(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock) as relay:
        await internet.add("hole.example", mx=[(10, "mx.hole.example", BlackHole())])
        await backlog(relay, "hole.example", 3 * BATCH)
        await relay.engine.smarthost.check_state()
        await relay.settled()
        assert [one.has_dialled for one in relay.engine.smarthost.ended].count(True) == 1
        assert internet.exchange("mx.hole.example").most_open == 1


async def test_what_cannot_be_reached_is_left_alone_for_a_while(internet: Internet, relay: Relay) -> None:
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])
    await backlog(relay, "dead.example", 3)
    await relay.settled()
    destination = await relay.engine.queue.listing.destination("dead.example")
    assert destination.blocked_until is not None
    assert destination.blocked_until > relay.clock.now()
    assert "refused" in destination.blocked_why


async def test_the_handle_of_a_check_completes_when_what_it_opened_has_ended(internet: Internet, relay: Relay) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
    await backlog(relay, "example.org", 2)
    await relay.settled()
    await exchange.become(Healthy())
    await relay.clock.advance(2000)
    check = await relay.engine.smarthost.check_state()
    await check.completed()
    await relay.settled()
    assert all(opened.ended is not None for opened in check.relayers)
    assert exchange.messages == 2


async def test_managed_tells_what_each_relayer_answers_for(internet: Internet, clock: FakeClock) -> None:
    async with relaying(internet, clock=clock, max_connections=1) as relay:
        await internet.add("hole.example", mx=[(10, "mx.hole.example", BlackHole())])
        await relay.send("x@hole.example")
        await relay.engine.smarthost.check_state()
        ((relayer, claims),) = relay.engine.smarthost.managed.items()
        assert relayer.destination == "hole.example"
        assert [entry.recipient for claim in claims for entry in claim.entries] == ["x@hole.example"]


@pytest.mark.parametrize("limit", [1, 5])
async def test_everything_arrives_once_whatever_the_limits(internet: Internet, clock: FakeClock, limit: int) -> None:
    async with relaying(internet, clock=clock, max_connections=limit, max_messages_per_connection=limit) as relay:
        await internet.add("a.example", mx=[(10, "mx.a.example", Healthy())])
        await internet.add("b.example", mx=[(10, "mx.b.example", Healthy())])
        for number in range(12):
            await relay.send(f"u{number}@a.example", f"u{number}@b.example")
        await internet.wait_for(24)
        await relay.settled()
        sent = [recipient for delivery in internet.delivered for recipient in delivery.recipients]
        assert len(sent) == len(set(sent)) == 24


async def test_hosts_that_keep_us_waiting_leave_half_of_the_connections_to_the_others(
    internet: Internet, clock: FakeClock
) -> None:
    impatient = replace(QUICK, greeting=0.4)
    async with relaying(internet, clock=clock, max_connections=4, timeouts=impatient) as relay:
        smarthost, queue = relay.engine.smarthost, relay.engine.queue
        domains = [f"hole{number}.example" for number in range(8)]
        for domain in domains:
            await internet.add(domain, mx=[(10, f"mx.{domain}", BlackHole())])
            await relay.send(f"x@{domain}")
        (good,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
        await relay.send("a@good.example")
        await relay.settled()
        assert good.messages == 1
        assert all([(await queue.listing.destination(domain)).is_in_doubt for domain in domains])

        await clock.advance(2000)  # all of them are due again
        await smarthost.check_state()
        assert len(smarthost.managed) == 2
        waiting = set(domains) - {relayer.destination for relayer in smarthost.managed}
        in_use = "the 2 of 4 connections for destinations that have not proved themselves are in use"
        (limiting,) = smarthost.limits_on(min(waiting), is_in_doubt=True)
        assert (limiting.name, limiting.text) == ("delivery.max_connections", in_use)
        await relay.send("a@good.example")
        await internet.wait_for(2)
        assert good.messages == 2
        assert len(smarthost.managed) >= 2  # they are still kept waiting
        await relay.settled()
        for domain in domains:
            assert (await relay.entries(f"domain={domain}"))[0].attempts == 2


async def test_a_destination_that_takes_mail_again_is_not_in_doubt_any_more_even_after_a_restart(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    (exchange,) = await internet.add("back.example", mx=[(10, "mx.back.example", Dead())])
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.send("a@back.example", times=2)
        await relay.settled()
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        assert (await relay.engine.queue.listing.destination("back.example")).is_in_doubt
        await exchange.become(Healthy())
        await relay.later(2000)
        assert exchange.messages == 2
        await relay.send("b@back.example")
        assert not (await relay.engine.queue.listing.destination("back.example")).is_in_doubt
