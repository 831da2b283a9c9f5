"""What the scenarios stand on: a clock moved by hand, and an internet on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import dns.asyncresolver
import pytest
import uvloop

from engine.dns.lookups import resolver_for
from engine.sandbox.internet import Internet
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

BOTH_LOOPS = ("test_30_submission.py", "test_31_intake_limits.py", "test_84_behind_a_proxy.py")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the engine has; where transports are handled by hand, Python's own as well."""
    if item.path.name in BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def internet(clock: FakeClock) -> AsyncIterator[Internet]:
    """A running internet with nobody in it yet; its exchanges go by `clock`."""
    async with Internet(clock=clock) as internet:
        yield internet


@pytest.fixture
def resolver(internet: Internet) -> dns.asyncresolver.Resolver:
    """A resolver that asks the sandbox's name server."""
    return resolver_for([internet.nameserver], timeout=2.0, lifetime=5.0)


@pytest.fixture
async def relay(internet: Internet, clock: FakeClock) -> AsyncIterator[Relay]:
    """A running relay with the default settings, in the middle of `internet`."""
    async with relaying(internet, clock=clock) as relay:
        yield relay
