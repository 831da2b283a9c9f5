"""86. Where outgoing port 25 is blocked no host is marked bad for it, and health says so; who is dead by himself is."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from engine.delivery.way_out import UNRELATED
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from engine.settings.settings import Route
from tests.clock import FakeClock
from tests.scenarios.firewalled import Firewalled
from tests.scenarios.relaying import Relay, relaying

BLOCKED = "seems to be blocked"


def firewalled(relay: Relay, *beginnings: str) -> Firewalled:
    """Have the relay dial so from now on; whatever address it is where none is named."""
    dialler = relay.engine.smarthost._parts.dialler = Firewalled(*(beginnings or ("",)))
    return dialler


def domains(internet: Internet, addresses: Sequence[str], *, rdtype: str = "A") -> list[str]:
    """A domain for each address, whose one exchange has it."""
    names = [f"d{number}-{rdtype.lower()}.example" for number, _ in enumerate(addresses)]
    for name, address in zip(names, addresses, strict=True):
        internet.dns.add(name, "MX", f"10 mx.{name}.")
        internet.dns.add(f"mx.{name}", rdtype, address)
    return names


def unrelated(count: int) -> list[str]:
    return [f"203.{number}.113.1" for number in range(count)]


async def blocked(relay: Relay) -> list[str]:
    return [note for note in await relay.bounds() if BLOCKED in note]


async def marked(relay: Relay) -> list[str]:
    return sorted(mark.host for mark in relay.engine.mx.marks)


async def test_a_block_is_told_and_marks_no_host_and_marks_made_before_it_was_seen_are_taken_back(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    firewalled(relay)
    names = domains(internet, unrelated(UNRELATED + 3))
    for name in names[: UNRELATED - 1]:
        await relay.send(f"a@{name}")
    await relay.settled()
    assert await marked(relay) == [f"mx.{name}" for name in names[: UNRELATED - 1]]
    assert await blocked(relay) == []
    for name in names[UNRELATED - 1 :]:
        await relay.send(f"a@{name}")
    await relay.settled()
    (note,) = await blocked(relay)
    assert note.startswith(f"outgoing port {internet.port} seems to be blocked: ")
    assert await marked(relay) == []
    assert await relay.engine.queue.marks.all() == ()
    taken_back = await relay.events("marked good")
    assert sorted(event.host for event in taken_back) == [f"mx.{name}" for name in names[: UNRELATED - 1]]
    assert {event.by for event in taken_back} == {"engine"}
    health = await relay.client.health()
    assert (health.state, health.waiting) == ("relaying", len(names))  # it waits, and nothing is said to be broken
    await relay.later(1000)
    assert await marked(relay) == []
    assert await blocked(relay) == [note]


@contextmanager
def silent_hosts(addresses: Sequence[str], port: int) -> Iterator[None]:
    """Have nobody answer at these addresses, to real sockets: what listens there has more waiting than it lets in."""
    with ExitStack() as open_sockets:
        for address in addresses:
            listening = open_sockets.enter_context(socket.socket())
            listening.bind((address, port))
            listening.listen(0)
            for _ in range(3):
                waiting = open_sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex((address, port))
        yield


async def test_it_is_so_with_real_connections_that_nobody_answers(internet: Internet, relay: Relay) -> None:
    addresses = [f"127.{number}.0.1" for number in range(1, UNRELATED + 1)]  # networks that no sandbox takes
    with silent_hosts(addresses, internet.port):
        for name in domains(internet, addresses):
            await relay.send(f"a@{name}")
        await relay.settled()
    assert len(await blocked(relay)) == 1
    assert await marked(relay) == []
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.send("a@good.example")
    await relay.settled()
    assert await blocked(relay) == []


async def test_it_is_over_once_a_connection_succeeds_and_then_the_dead_are_marked_again(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    dialler = firewalled(relay)
    names = domains(internet, unrelated(UNRELATED))
    (good,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    for name in (*names, "good.example"):
        await relay.send(f"a@{name}")
    await relay.settled()
    assert len(await blocked(relay)) == 1
    dialler.beginnings = ("203.",)  # all that is left of it are hosts that are dead
    await relay.later(1000)
    assert good.messages == 1
    assert await blocked(relay) == []
    await relay.later(1000)
    assert await marked(relay) == [f"mx.{name}" for name in names]


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["203.0.113.1"], id="one host"),
        pytest.param([f"203.0.113.{number}" for number in range(1, 13)], id="hosts of one network"),
    ],
)
async def test_who_is_dead_by_himself_is_marked(internet: Internet, relay: Relay, addresses: list[str]) -> None:
    firewalled(relay)
    names = domains(internet, addresses)
    for name in names:
        await relay.send(f"a@{name}")
    await relay.settled()
    assert await marked(relay) == sorted(f"mx.{name}" for name in names)
    assert await blocked(relay) == []


async def test_hosts_that_are_silent_while_another_answers_are_dead(internet: Internet, relay: Relay) -> None:
    firewalled(relay, "203.")
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    await relay.send("a@good.example")
    await internet.wait_for(1)
    names = domains(internet, unrelated(UNRELATED + 3))
    for name in names:
        await relay.send(f"a@{name}")
    await relay.settled()
    assert await marked(relay) == sorted(f"mx.{name}" for name in names)
    assert await blocked(relay) == []


async def test_hosts_that_refuse_are_no_sign_of_a_block(internet: Internet, relay: Relay) -> None:
    names = [f"dead{number}.example" for number in range(UNRELATED + 3)]
    for name in names:
        await internet.add(name, mx=[(10, f"mx.{name}", Dead())])
    for name in names:
        await relay.send(f"a@{name}")
    await relay.settled()
    assert await marked(relay) == [f"mx.{name}" for name in names]
    assert await blocked(relay) == []


async def test_ipv6_may_be_blocked_alone_and_a_host_that_ipv4_refuses_is_marked_all_the_same(
    internet: Internet, relay: Relay, clock: FakeClock
) -> None:
    firewalled(relay, "2001:")
    addresses = [f"2001:db{number}::1" for number in range(UNRELATED)]
    names = domains(internet, addresses, rdtype="AAAA")
    good = [await internet.host(f"mx.{name}", Healthy()) for name in names[:-1]]  # these have an address of IPv4, too
    dead = f"mx.{names[-1]}"
    await internet.host(dead, Dead())
    for name in names:
        await relay.send(f"a@{name}")
    await relay.settled()
    assert [exchange.messages for exchange in good] == [1] * (UNRELATED - 1)
    (note,) = await blocked(relay)
    assert note.startswith(f"outgoing port {internet.port} seems to be blocked over IPv6: ")
    assert await marked(relay) == [dead]
    internet.dns.replace("six.example", "MX", "10 mx.six.example.")
    internet.dns.replace("mx.six.example", "AAAA", "2001:db77::1")
    await relay.send("a@six.example")
    await relay.settled()
    assert await marked(relay) == [dead]
    assert len(await relay.entries("domain=six.example")) == 1


async def test_an_upstream_host_at_another_port_is_not_concerned(internet: Internet, clock: FakeClock) -> None:
    addresses = unrelated(UNRELATED + 3)
    routes = tuple(
        Route(domain=f"r{number}.example", host=address, port=587) for number, address in enumerate(addresses)
    )
    async with relaying(internet, clock=clock, route=routes) as relay:
        firewalled(relay)
        for route in routes:
            await relay.send(f"a@{route.domain}")
        await relay.settled()
        assert await blocked(relay) == []
        assert await marked(relay) == sorted(addresses)
        # Nor does such a host's answer say that port 25 is open.
        names = domains(internet, unrelated(UNRELATED))
        for name in names:
            await relay.send(f"a@{name}")
        await relay.settled()
        assert len(await blocked(relay)) == 1
        assert await marked(relay) == sorted(addresses)


async def test_a_probe_that_gets_through_ends_it(internet: Internet, relay: Relay) -> None:
    firewalled(relay)
    for name in domains(internet, unrelated(UNRELATED)):
        await relay.send(f"a@{name}")
    await relay.settled()
    assert len(await blocked(relay)) == 1
    await internet.host("mx.good.example", Healthy())
    await relay.engine.prober.probe("mx.good.example")
    assert await blocked(relay) == []
