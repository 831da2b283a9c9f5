"""Whence mail goes out: over which family, from which address, by which name; and hosts that refuse nameless IPv6."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.sandbox.exchanges import Exchange, Temper
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy, Script
from engine.settings.settings import Route
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying

GUIDELINES = "550 5.7.1 [::1] does not meet IPv6 sending guidelines regarding PTR records"


class Both:
    """A host with an address of either family, and a server at each."""

    def __init__(self, six: Exchange, four: Exchange) -> None:
        self.six = six
        self.four = four

    @property
    def messages(self) -> tuple[int, int]:
        return self.six.messages, self.four.messages


@pytest.fixture
async def both(internet: Internet, clock: FakeClock) -> AsyncIterator[Both]:
    (four,) = await internet.add("both.example", mx=[(10, "mx.both.example", Healthy())])
    six = Exchange(
        "mx.both.example", Healthy(), clock=clock, certificates=internet.certificates, address="::1", port=internet.port
    )
    internet.dns.add("mx.both.example", "AAAA", "::1")
    await six.start()
    yield Both(six, four)
    await six.stop()


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ({}, (1, 0)),
        ({"prefer": "ipv4"}, (0, 1)),
        ({"family": "ipv4"}, (0, 1)),
        ({"family": "ipv6", "prefer": "ipv4"}, (1, 0)),
    ],
)
async def test_connections_go_over_the_family_that_is_set(
    internet: Internet, clock: FakeClock, both: Both, settings: dict[str, Any], messages: tuple[int, int]
) -> None:
    async with relaying(internet, clock=clock, **settings) as relay:
        await relay.send("bob@both.example")
        await relay.settled()
    assert both.messages == messages


async def test_mail_for_hosts_of_the_other_family_alone_waits(internet: Internet, clock: FakeClock) -> None:
    await internet.add("four.example", mx=[(10, "mx.four.example", Healthy())])
    async with relaying(internet, clock=clock, family="ipv6") as relay:
        await relay.send("bob@four.example")
        await relay.settled()
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert entry.last.line.startswith("4.4.4 mx.four.example has no address of the family that mail goes over here")


async def test_connections_come_from_the_address_and_under_the_name_that_are_set(
    internet: Internet, clock: FakeClock
) -> None:
    (plain,) = await internet.add("a.example", mx=[(10, "mx.a.example", Healthy())])
    upstream = await internet.host("up.example")
    route = Route(
        domain="b.example", host="up.example", port=upstream.port, source_address=("127.0.0.78",), hello="b.example.net"
    )
    async with relaying(
        internet, clock=clock, route=(route,), source_address=("127.0.0.77",), hello="a.example.net"
    ) as relay:
        await relay.send("bob@a.example", "bob@b.example")
        await relay.settled()
    assert [(delivery.peer, delivery.hello) for delivery in (*plain.delivered, *upstream.delivered)] == [
        ("127.0.0.77", "a.example.net"),
        ("127.0.0.78", "b.example.net"),
    ]


async def test_an_address_that_is_not_ours_marks_no_host_bad(internet: Internet, clock: FakeClock) -> None:
    await internet.add("a.example", mx=[(10, "mx.a.example", Healthy())])
    async with relaying(internet, clock=clock, source_address=("192.0.2.1",)) as relay:
        await relay.send("bob@a.example")
        await relay.settled()
        assert (await relay.client.hosts()).total == 0
        (entry,) = await relay.entries()
        assert entry.last is None or "here, for" in entry.last.text
        assert internet.messages == 0


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "content"])
async def test_a_host_that_refuses_a_nameless_ipv6_has_the_mail_over_ipv4_before_anything_bounces(
    internet: Internet, clock: FakeClock, both: Both, verb: str
) -> None:
    await both.six.become(Script({verb: GUIDELINES}))
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@both.example", "ann@both.example")
        await relay.settled()
        assert both.messages == (0, 1)
        assert [event.recipient for event in await relay.events("returned", "deferred")] == []
        (note,) = await relay.bounds()
        assert note.startswith("mx.both.example took no mail over IPv6, for want of a PTR record")
        (explained,) = (await relay.client.explain("both.example")).explanations
        (host,) = [fact.text for fact in explained.facts if fact.name == "host mx.both.example"]
        assert "; over IPv4 alone, since it took no mail over IPv6" in host
        await relay.send("bob@both.example")
        await relay.settled()
        assert both.messages == (0, 2)
    assert both.six.sessions == 1  # the second went over IPv4 at once


@pytest.mark.parametrize("over_ipv4", [Dead(), Script({"RCPT": "550 5.1.1 no such user"})])
async def test_what_was_refused_over_ipv6_waits_for_what_is_said_over_ipv4(
    internet: Internet, clock: FakeClock, both: Both, over_ipv4: Temper
) -> None:
    await both.six.become(Script({"RCPT": GUIDELINES}))
    await both.four.become(over_ipv4)
    async with relaying(internet, clock=clock) as relay:
        await relay.send("bob@both.example")
        await relay.settled()
        returned = await relay.events("returned")
        if isinstance(over_ipv4, Dead):
            assert returned == []
            assert len(await relay.entries()) == 1
            await both.four.become(Healthy())
            await relay.later(2 * 3600)
            assert both.messages == (0, 1)
        else:
            (event,) = returned
            assert event.outcome is not None
            assert event.outcome.enhanced == "5.1.1"


async def test_a_host_that_has_but_ipv6_refuses_for_good(internet: Internet, clock: FakeClock, both: Both) -> None:
    await both.six.become(Script({"RCPT": GUIDELINES}))
    async with relaying(internet, clock=clock, family="ipv6") as relay:
        await relay.send("bob@both.example")
        await relay.settled()
        (event,) = await relay.events("returned")
        assert event.outcome is not None
        assert "sending guidelines" in event.outcome.text
