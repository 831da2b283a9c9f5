"""What an attempt may try is looked up before it has a connection; one host's silence keeps no mail from another."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from engine.delivery.addresses import find
from engine.delivery.hurry import Hurried, Hurry
from engine.delivery.routes import Router, Way
from engine.dns.mx import Exchange, LookupFailed
from engine.smtpclient.target import Target
from tests.waiting import PATIENCE


class Names:
    """Addresses by host: a list, an error, or None for a name server that does not answer."""

    def __init__(self, **hosts: list[str] | LookupFailed | None) -> None:
        self.hosts = hosts
        self.asked: list[str] = []

    async def targets(self, way: Way, exchange: Exchange) -> AsyncIterator[Target]:
        self.asked.append(exchange.host)
        found = self.hosts[exchange.host]
        if found is None:
            await asyncio.sleep(3600)
        if isinstance(found, LookupFailed):
            raise found
        for address in found or []:
            yield Target(host=exchange.host, address=address, port=25)


def way(*hosts: str) -> Way:
    exchanges = tuple(Exchange(host=host, preference=number) for number, host in enumerate(hosts))
    return Way(destination="example.org", exchanges=exchanges, hosts=hosts, site=" ".join(hosts))


async def found_of(names: Names, *, seconds: float = 5.0, put_off: tuple[str, ...] = ()) -> dict[str, int | str]:
    """How many addresses each host has, or what was said of it."""
    found = await find(
        cast(Router, names), way(*names.hosts), most=5, seconds=seconds, put_off=lambda host: host in put_off
    )
    told: dict[str, int | str] = {}
    for exchange in way(*names.hosts).exchanges:
        try:
            told[exchange.host] = len(found.of(exchange))
        except LookupFailed as error:
            told[exchange.host] = error.outcome.text
    return told


async def test_all_hosts_are_looked_up_until_there_is_enough_of_either_family() -> None:
    both = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
    names = Names(a=["2001:db8::9"] * 8, b=both, c=["192.0.2.9"])
    assert (await found_of(names))["b"] == 6
    assert names.asked == ["a", "b"]


async def test_hosts_that_are_put_off_are_not_counted_on() -> None:
    both = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
    names = Names(a=both, b=["192.0.2.9"])
    assert await found_of(names, put_off=("a",)) == {"a": 6, "b": 1}


async def test_a_host_without_address_is_passed_over() -> None:
    names = Names(a=LookupFailed("no answer"), b=["192.0.2.1"])
    assert await found_of(names) == {"a": "no answer", "b": 1}


async def test_once_there_is_an_address_the_other_hosts_are_not_waited_for() -> None:
    names = Names(a=["192.0.2.1"], b=None, c=["192.0.2.2"])
    async with asyncio.timeout(PATIENCE):
        told = await found_of(names, seconds=10 * PATIENCE)
    assert told == {name: 1 if name == "a" else f"the addresses of {name} were not found in time" for name in "abc"}


async def test_it_ends_in_time_where_nobody_answers() -> None:
    assert await found_of(Names(a=None), seconds=0.05) == {"a": "the addresses of a were not found in time"}


async def test_a_step_ends_when_it_is_hurried_and_says_so() -> None:
    hurry = Hurry()
    assert not hurry.now()  # nothing is under way

    async def step(seconds: float | None) -> None:
        async with hurry.bound(seconds):
            await asyncio.sleep(3600)

    running = asyncio.create_task(step(None))
    await asyncio.sleep(0)
    assert hurry.now()
    assert not hurry.now()
    with pytest.raises(Hurried, match="kept us waiting"):
        await running
    with pytest.raises(TimeoutError) as ended:
        await step(0.01)
    assert not isinstance(ended.value, Hurried)
