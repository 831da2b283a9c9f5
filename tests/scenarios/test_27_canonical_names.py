"""27. get_mx counts canonical names as its ancestor does; mail's own way follows as many as others do."""

from itertools import pairwise

import dns.asyncresolver
import pytest

from engine.dns.lookups import MOST_ALIASES
from engine.dns.mx import CanonicalNameChainTooLong, MXCalculator
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import Encrypted, Healthy
from tests.clock import FakeClock
from tests.scenarios.marks import MarksInMemory
from tests.scenarios.relaying import Relay, relaying


def chain(internet: Internet, name: str, length: int, last: str, *, one_by_one: bool = False) -> None:
    """`name` leads through so many canonical names, the last of which is `last`."""
    names = [name, *(f"x{number}.{name}" for number in range(1, length)), last]
    for alias, canonical in pairwise(names):
        internet.dns.add(alias, "CNAME", f"{canonical}.")
        if one_by_one:
            internet.dns.behave(alias, Fault.ONE_ALIAS)


@pytest.fixture
def mx(resolver: dns.asyncresolver.Resolver, clock: FakeClock) -> MXCalculator:
    return MXCalculator(resolver, clock=clock, marks=MarksInMemory())


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_of_a_domain_ten_are_followed_and_get_mx_follows_three(
    internet: Internet, mx: MXCalculator, one_by_one: bool
) -> None:
    internet.dns.add("end.example", "MX", "10 mail.example.")
    chain(internet, "ten.example", 10, "end.example", one_by_one=one_by_one)
    chain(internet, "three.example", 3, "end.example", one_by_one=one_by_one)
    assert [one.host for one in await mx.candidates("ten.example")] == ["mail.example"]
    assert [one.host for one in await mx.exchanges("ten.example")] == ["mail.example"]
    assert (await mx.get_mx("three.example")).host == "mail.example"
    with pytest.raises(CanonicalNameChainTooLong, match="more than 3 canonical names"):
        await mx.get_mx("ten.example")
    assert (await mx.get_mx("ten.example", 10)).host == "mail.example"


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_an_eleventh_is_not_followed(internet: Internet, mx: MXCalculator, one_by_one: bool) -> None:
    internet.dns.add("end.example", "MX", "10 mail.example.")
    internet.dns.add("end.example", "A", "127.0.0.9")
    chain(internet, "eleven.example", MOST_ALIASES + 1, "end.example", one_by_one=one_by_one)
    for asked in (mx.candidates, mx.addresses):
        with pytest.raises(CanonicalNameChainTooLong, match="more than 10 canonical names"):
            await asked("eleven.example")


@pytest.mark.parametrize("one_by_one", [True, False])
async def test_of_a_host_ten_are_followed_to_its_addresses(
    internet: Internet, mx: MXCalculator, one_by_one: bool
) -> None:
    internet.dns.add("end.example", "A", "127.0.0.9")
    chain(internet, "host.example", 10, "end.example", one_by_one=one_by_one)
    assert await mx.addresses("host.example") == ["127.0.0.9"]


async def test_mail_to_a_domain_behind_six_aliases_is_delivered(internet: Internet, relay: Relay) -> None:
    await internet.add("end.example", mx=[(10, "mail.example", Healthy())])
    chain(internet, "six.example", 6, "end.example")
    await relay.send("bob@six.example")
    await relay.settled()
    assert [one.host for one in internet.delivered] == ["mail.example"]


async def test_the_tls_records_of_a_host_behind_six_aliases_are_found(internet: Internet, clock: FakeClock) -> None:
    """Else a resolver that validates would make a host unreachable that is reached without."""
    await internet.add("example.org", mx=[(10, "real.example", Encrypted("self-signed"))])
    chain(internet, "mx.example.org", 6, "real.example")
    internet.dns.sign("mx.example.org", *(f"x{number}.mx.example.org" for number in range(1, 6)))
    internet.dns.replace("example.org", "MX", "10 mx.example.org.")
    internet.tlsa("real.example", internet.certificates.tlsa("real.example", "self-signed"))
    async with relaying(internet, clock=clock, validating=True) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        assert internet.messages == 1
