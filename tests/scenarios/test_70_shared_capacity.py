"""70. What one sender, one domain or one fault takes, the mail of others does not miss (promise 35).

Time is real here: what is measured is how long mail to hosts that take it takes, beside what only keeps us waiting.
"""

import asyncio
import math
import socket
import statistics
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import cast

import pytest
from msgspec.structs import replace

from engine.base.clock import SystemClock
from engine.delivery import stall
from engine.model.message import NewMessage
from engine.sandbox.exchanges import Action
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import BlackHole, Healthy, Script, Slow, Tarpit
from engine.settings.settings import Timeouts
from tests import store
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.waiting import until

HEALTHY = 4  # domains that have taken mail before
MESSAGES = 40  # to these, measured
EVERY = 0.05  # seconds
P95 = 2.0  # seconds
# As RFC 5321 4.5.3.2 has them: longer than any of these tests.
PATIENT = Timeouts()
REAL = cast(FakeClock, SystemClock())  # which no test here moves


@pytest.fixture
async def internet() -> AsyncIterator[Internet]:
    """An internet by the machine's clock."""
    async with Internet(clock=SystemClock()) as internet:
        yield internet


@asynccontextmanager
async def crowded(internet: Internet) -> AsyncIterator[Relay]:
    """A relay of twenty connections and twenty look-ups that delivers to a few hosts, as it did before."""
    few = partial(relaying, max_connections=20, max_lookups=20, idle=0.5)
    async with few(internet, clock=REAL, timeouts=PATIENT) as relay:
        for number in range(HEALTHY):
            await internet.add(f"good{number}.example", mx=[(10, f"mx.good{number}.example", Healthy())])
            await enqueue(relay, f"warm@good{number}.example")
        await internet.wait_for(HEALTHY)
        yield relay


async def enqueue(relay: Relay, *recipients: str, sender: str = "ann@example.com") -> None:
    await relay.enqueue(NewMessage(sender=sender, recipients=recipients, content=LETTER, origin="test"))


async def healthy_p95(relay: Relay) -> float:
    """Seconds in which 95 of 100 messages to the healthy hosts arrive, a message every so often."""
    exchanges = [relay.internet.exchange(f"mx.good{number}.example") for number in range(HEALTHY)]
    clock, sent = SystemClock(), {}
    for number in range(MESSAGES):
        recipient = f"u{number}@good{number % HEALTHY}.example"
        sent[recipient] = clock.now()
        await enqueue(relay, recipient, sender="bob@example.net")
        await asyncio.sleep(EVERY)
    with suppress(TimeoutError):
        await until(lambda: sum(one.messages for one in exchanges) >= HEALTHY + MESSAGES, 2 * P95)
    arrived = {to: one.at for each in exchanges for one in each.delivered for to in one.recipients}
    took = [arrived.get(to, clock.now()) - at for to, at in sent.items()]
    return statistics.quantiles(took, n=20)[-1]


def silent(internet: Internet, names: Sequence[str]) -> None:
    for name in names:
        internet.dns.behave(name, Fault.SILENT)


@pytest.mark.parametrize("costly", [math.inf, -1.0], ids=["each is looked for anew", "what is found is kept a while"])
async def test_one_message_to_600_names_whose_name_server_is_silent_keeps_no_mail_of_others(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, costly: float
) -> None:
    monkeypatch.setattr(f"engine.queue.{store.chosen}.schedule.COSTLY", costly)
    async with crowded(internet) as relay:
        names = [f"d{number}.evil.example" for number in range(600)]
        silent(internet, names)
        await enqueue(relay, *(f"u@{name}" for name in names))
        await until(lambda: len(relay.engine.smarthost.managed) > 1)
        assert await healthy_p95(relay) < P95
        assert relay.engine.smarthost.connections <= HEALTHY  # look-ups hold none
        looking = sum(not one.is_admitted for one in relay.engine.smarthost.managed)
        assert 1 <= looking <= 3  # a quarter of the half
        waiting = [one for one in (await relay.client.queue(limit=1000)).rows if one.state == "waiting"]
        assert {one.condition for one in waiting} == {"limited"}
        said = "has its share of the look-ups for destinations that have not proved themselves"
        assert {one.condition_why for one in waiting} == {f"delivery.max_lookups: message {waiting[0].message} {said}"}
        assert (await relay.client.health()).ready == 0


async def test_one_message_to_200_names_at_one_slow_address_keeps_no_mail_of_others(internet: Internet) -> None:
    async with crowded(internet) as relay:
        exchange = await internet.host("mx.evil.example", Slow(60.0))
        names = [f"d{number}.evil.example" for number in range(200)]
        for number, name in enumerate(names):
            internet.dns.add(name, "MX", f"10 mx{number}.evil.example.")
            internet.dns.add(f"mx{number}.evil.example", "A", exchange.address)
        await enqueue(relay, *(f"u@{name}" for name in names))
        await until(lambda: relay.engine.smarthost.connections >= 2)
        assert await healthy_p95(relay) < P95
        assert sum(one.site.host.endswith("evil.example") for one in relay.engine.smarthost.managed) <= 3


async def test_forty_tarpits_of_as_many_domains_and_senders_keep_no_mail_of_others(internet: Internet) -> None:
    async with crowded(internet) as relay:
        for number in range(40):
            await internet.add(f"tar{number}.example", mx=[(10, f"mx.tar{number}.example", Tarpit(10.0))])
            await enqueue(relay, f"u@tar{number}.example", sender=f"s{number}@example.com")
        await until(lambda: relay.engine.smarthost.connections >= 10)
        assert await healthy_p95(relay) < P95
        in_use = "the 10 of 20 connections for destinations that have not proved themselves are in use, and others wait"
        assert await relay.bounds() == [in_use]
        (waiting,) = (await relay.client.explain("tar39.example")).explanations
        assert waiting.cause == "limit"
        assert "delivery.max_connections" in waiting.text


@contextmanager
def never_answering(port: int) -> Iterator[str]:
    """An address at which no SYN is answered, since nobody takes the connections that wait there already."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.250.0.1", port))
        listening.listen(0)
        for _ in range(3):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.250.0.1", port))
        yield "127.250.0.1"


@pytest.mark.parametrize("kind", ["no SYN is answered", "nothing is said", "DNS is slow"])
async def test_300_new_dead_hosts_keep_no_mail_of_others(internet: Internet, kind: str) -> None:
    async with crowded(internet) as relay:
        hole = await internet.host("mx.hole.example", BlackHole())
        with never_answering(internet.port) as void:
            await _send_to_dead(relay, kind, void if kind == "no SYN is answered" else hole.address)
            assert await healthy_p95(relay) < P95


async def _send_to_dead(relay: Relay, kind: str, address: str) -> None:
    for number in range(300):
        name = f"dead{number}.example"
        if kind == "DNS is slow":
            relay.internet.dns.behave(name, Fault.SILENT)
        else:
            relay.internet.dns.add(name, "MX", f"10 mx.{name}.")
            relay.internet.dns.add(f"mx.{name}", "A", address)
        await enqueue(relay, f"u@{name}", sender=f"s{number}@example.com")


@pytest.mark.parametrize("costly", [math.inf, -1.0], ids=["each is looked for anew", "what is found is kept a while"])
async def test_new_mail_of_another_sender_has_its_turn_beside_a_message_to_600_names(
    internet: Internet, monkeypatch: pytest.MonkeyPatch, costly: float
) -> None:
    """Among those that have proved nothing it is not behind 600 others."""
    monkeypatch.setattr(f"engine.queue.{store.chosen}.schedule.COSTLY", costly)
    async with crowded(internet) as relay:
        exchange = await internet.host("mx.evil.example", Slow(60.0))
        for number in range(600):
            internet.dns.add(f"d{number}.evil.example", "MX", f"10 mx{number}.evil.example.")
            internet.dns.add(f"mx{number}.evil.example", "A", exchange.address)
        await enqueue(relay, *(f"u@d{number}.evil.example" for number in range(600)))
        await until(lambda: relay.engine.smarthost.connections >= 2)
        (new,) = await internet.add("new.example", mx=[(10, "mx.new.example", Healthy())])
        await enqueue(relay, "a@new.example", sender="bob@example.net")
        await until(lambda: new.messages > 0, P95)
        assert (new.messages, exchange.messages) == (1, 0), "and not once the others were through"


async def test_under_pressure_those_that_keep_us_waiting_give_way_to_others(internet: Internet) -> None:
    """Without it they may take five minutes for each step (RFC 5321 4.5.3.2)."""
    timeouts = replace(PATIENT, greeting=2.0)  # what is usual is half of that
    async with relaying(internet, clock=REAL, timeouts=timeouts, max_connections=4) as relay:
        for number in range(2):
            await internet.add(f"hole{number}.example", mx=[(10, f"mx.hole{number}.example", BlackHole())])
            await enqueue(relay, f"u@hole{number}.example", sender=f"s{number}@example.com")
        await until(lambda: relay.engine.smarthost.connections == 2)
        (new,) = await internet.add("new.example", mx=[(10, "mx.new.example", Healthy())])
        begin = SystemClock().now()
        await enqueue(relay, "a@new.example", sender="bob@example.net")
        await until(lambda: new.messages == 1)
        assert SystemClock().now() - begin < 1.9
        assert relay.engine.mx.marks == ()  # that others wait is no fault of theirs
        (deferred, *_) = await relay.events("deferred")
        assert deferred.outcome is not None
        assert deferred.outcome.text == "it kept us waiting while others waited for the connection"


async def test_a_customer_whose_name_server_falls_silent_keeps_no_mail_of_its_provider(internet: Internet) -> None:
    """The provider's host is known from before, and so the mail of both is claimed for the same connection."""
    async with crowded(internet) as relay:
        farm = await internet.host("mx.farm.example", Healthy())
        for count, name in enumerate(("evil.example", "fair.example"), 1):
            internet.dns.add(name, "MX", "10 mx.farm.example.", ttl=0)
            await enqueue(relay, f"a@{name}")
            await until(lambda most=count: farm.messages == most)  # type: ignore[misc]
        await until(lambda: not relay.engine.smarthost.managed)
        silent(internet, ["evil.example"])
        await enqueue(relay, "b@evil.example", "b@fair.example")
        begin = SystemClock().now()
        await until(lambda: farm.messages == 3)
        assert SystemClock().now() - begin < 2 + P95  # and not the ten in which the DNS gives up


async def test_hosts_that_took_mail_and_now_keep_us_waiting_give_way_once_they_stall(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have proved themselves, and so may have every connection; not for longer than is usual."""
    monkeypatch.setattr(stall, "_LONGEST", 0.5)
    async with crowded(internet) as relay:
        provider = [
            (await internet.add(f"d{number}.example", mx=[(10, f"mx.d{number}.example", Healthy())]))[0]
            for number in range(24)
        ]
        for number in range(24):
            await enqueue(relay, f"a@d{number}.example", sender=f"s{number}@example.com")
        await until(lambda: sum(exchange.messages for exchange in provider) == 24)
        await until(lambda: not relay.engine.smarthost.managed)
        for exchange in provider:
            await exchange.become(BlackHole())
        for number in range(24):
            await enqueue(relay, f"b@d{number}.example", sender=f"s{number}@example.com")
        await until(lambda: relay.engine.smarthost.connections == 20)
        assert await healthy_p95(relay) < P95
        assert relay.engine.mx.marks == ()


async def test_who_has_the_message_is_waited_for_though_others_wait_for_the_connection(
    internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To give up on the reply to the final dot would send the message twice (RFC 1047)."""
    monkeypatch.setattr(stall, "_LONGEST", 0.5)
    few = partial(relaying, max_connections=4)
    async with few(internet, clock=REAL, timeouts=PATIENT) as relay:
        for name, point in (("thinks", "content"), ("hangs", "RCPT")):
            await internet.add(f"{name}.example", mx=[(10, f"mx.{name}.example", Script({point: Action.SILENCE}))])
            await enqueue(relay, f"u@{name}.example", sender=f"{name}@example.com")
        await until(lambda: sorted(one.pace.phase for one in relay.engine.smarthost.managed) == ["RCPT", "reply"])
        (new,) = await internet.add("new.example", mx=[(10, "mx.new.example", Healthy())])
        await enqueue(relay, "a@new.example", sender="bob@example.net")
        await until(lambda: new.messages == 1)
        assert [event.destination for event in await relay.events("deferred")] == ["hangs.example"]
        live = relay.engine.smarthost.managed
        assert [one.pace.phase for one in live if one.destination == "thinks.example"] == ["reply"]


async def waiting_at_holes(relay: Relay, names: Sequence[str], *, sender: str) -> None:
    """A message for each of these domains, whose hosts never say a word; the relay has looked what is to be done."""
    for name in names:
        await relay.internet.add(name, mx=[(10, f"mx.{name}", BlackHole())])
        await enqueue(relay, f"u@{name}", sender=sender)
    await relay.engine.smarthost.check_state()


async def test_who_has_his_share_is_nobody_for_whom_the_slow_hosts_of_others_give_way(
    internet: Internet, clock: FakeClock
) -> None:
    """Of the ten for what is in doubt he has eight, and somebody with slow hosts two: his own give way to his own."""
    async with relaying(internet, clock=clock, timeouts=PATIENT, max_connections=20, max_lookups=40) as relay:
        smarthost = relay.engine.smarthost
        await waiting_at_holes(relay, ["slow0.example", "slow1.example"], sender="slow@example.net")
        await until(lambda: smarthost.connections == 2)
        await waiting_at_holes(relay, [f"flood{number}.example" for number in range(40)], sender="flood@example.com")
        await until(lambda: smarthost.connections == 10)
        await smarthost.check_state()
        assert await relay.bounds() == []
        begun = clock.now()
        await clock.advance(stall.PATIENCE)
        await smarthost.check_state()
        await until(
            lambda: (
                smarthost.connections == 10
                and all("slow" in one.destination or one.started > begun for one in smarthost.managed)
            )
        )
        assert sum("slow" in one.destination for one in smarthost.managed) == 2
        await enqueue(relay, "u@new.example", sender="bob@example.net")  # who has no share yet
        await until(lambda: not any("slow" in one.destination for one in smarthost.managed))


async def test_a_connection_in_doubt_is_kept_where_those_that_have_proved_themselves_have_places_left(
    internet: Internet, clock: FakeClock
) -> None:
    async with relaying(internet, clock=clock, timeouts=PATIENT, max_connections=4) as relay:
        smarthost = relay.engine.smarthost
        await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
        await enqueue(relay, "a@good.example")
        await internet.wait_for(1)
        await relay.settled()
        for number in range(2):
            await waiting_at_holes(relay, [f"hole{number}.example"], sender=f"s{number}@example.com")
        await until(lambda: smarthost.connections == 2)
        one = next(iter(smarthost.managed))
        async with smarthost._checking:  # so that nothing is served meanwhile
            await enqueue(relay, "b@good.example", sender="bob@example.net")
            assert not await smarthost._do_others_wait(one)
            await enqueue(relay, "u@other.example", sender=one.flow.sender if one.flow else "")
            assert await smarthost._do_others_wait(one)  # his share would be free again
            await enqueue(relay, "u@new.example", sender="bob@example.net")
            assert await smarthost._do_others_wait(one)
