"""What the answers of the DNS mean for mail: promises 7 to 11, against a real name server."""

import asyncio
import random
import time
from collections import Counter

import dns.asyncresolver
import pytest

from engine.dns.lookups import resolver_for
from engine.dns.mx import (
    DomainNotFound,
    LookupFailed,
    MXCalculator,
    MXError,
    NoExchange,
    NullMX,
    OwnName,
)
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from tests.clock import FakeClock
from tests.scenarios.marks import MarksInMemory


@pytest.fixture
def mx(resolver: dns.asyncresolver.Resolver, clock: FakeClock) -> MXCalculator:
    return MXCalculator(
        resolver, clock=clock, marks=MarksInMemory(), own_names=["Relay.Example.NET."], draw=random.Random(11)
    )


async def hosts(mx: MXCalculator, domain: str) -> list[str]:
    return [exchange.host for exchange in await mx.exchanges(domain)]


async def error(mx: MXCalculator, domain: str) -> MXError:
    with pytest.raises(MXError) as caught:
        await mx.exchanges(domain)
    return caught.value


# -- 7: what is no answer is transient --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.SILENT, Fault.GARBAGE, Fault.TRUNCATED_ALWAYS], ids=lambda f: f.name
)
async def test_no_answer_is_transient_for_the_domain_and_for_the_host(
    internet: Internet, clock: FakeClock, fault: Fault
) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.org.")
    internet.dns.behave("example.org", fault)
    impatient = resolver_for([internet.nameserver], timeout=0.2, lifetime=0.4)
    mx = MXCalculator(impatient, clock=clock, marks=MarksInMemory())
    for found in (await error(mx, "example.org"), await _address_error(mx, "example.org")):
        assert isinstance(found, LookupFailed)
        assert (found.outcome.kind, found.outcome.enhanced) == ("transient", "4.4.3")
        assert "example.org" in found.outcome.text


async def test_a_name_server_that_is_not_there_is_transient(clock: FakeClock, internet: Internet) -> None:
    nobody = resolver_for([internet.nameserver], timeout=0.2, lifetime=0.4)
    await internet.dns.stop()
    found = await error(MXCalculator(nobody, clock=clock, marks=MarksInMemory()), "example.org")
    assert isinstance(found, LookupFailed)


async def test_the_next_name_server_is_asked_when_one_fails(clock: FakeClock, internet: Internet) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.org.")
    two = resolver_for(["127.0.0.1:1", internet.nameserver], timeout=2.0, lifetime=5.0)
    assert await hosts(MXCalculator(two, clock=clock, marks=MarksInMemory()), "example.org") == ["mx.example.org"]


async def test_a_failure_is_not_remembered(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.org.")
    internet.dns.behave("example.org", Fault.SERVFAIL)
    await error(mx, "example.org")
    internet.dns.behave("example.org", None)
    assert await hosts(mx, "example.org") == ["mx.example.org"]


async def test_a_lookup_that_overruns_is_cut_off(internet: Internet, clock: FakeClock) -> None:
    class Stuck(dns.asyncresolver.Resolver):
        async def resolve(self, *args: object, **kwargs: object) -> dns.resolver.Answer:
            await asyncio.Event().wait()
            raise AssertionError

    stuck = Stuck(configure=False)
    stuck.lifetime = -0.95  # the second of grace leaves a twentieth
    assert isinstance(await error(MXCalculator(stuck, clock=clock, marks=MarksInMemory()), "a.example"), LookupFailed)


# -- 8: what is permanent, and what is not ----------------------------------------------------------------------------


async def test_a_domain_that_does_not_exist_is_permanent(internet: Internet, mx: MXCalculator) -> None:
    found = await error(mx, "nobody.example")
    assert isinstance(found, DomainNotFound)
    assert (found.outcome.kind, found.outcome.enhanced) == ("permanent", "5.1.2")


async def test_an_alias_of_a_domain_that_does_not_exist_is_permanent(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("alias.example", "CNAME", "nobody.example.")
    assert isinstance(await error(mx, "alias.example"), DomainNotFound)


@pytest.mark.parametrize("preference", [0, 10])
async def test_a_null_mx_is_permanent_whatever_its_preference(
    internet: Internet, mx: MXCalculator, preference: int
) -> None:
    internet.dns.add("example.org", "MX", f"{preference} .")
    internet.dns.add("example.org", "A", "127.0.0.9")
    found = await error(mx, "example.org")
    assert isinstance(found, NullMX)
    assert (found.outcome.kind, found.outcome.enhanced) == ("permanent", "5.1.10")
    with pytest.raises(NullMX):
        await mx.get_mx("example.org")


async def test_a_null_mx_among_others_is_ignored(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "0 .", "10 mx.example.org.")
    assert await hosts(mx, "example.org") == ["mx.example.org"]


async def test_a_host_without_address_is_permanent(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("mx.example.org", "TXT", '"no address"')
    for host in ("mx.example.org", "nobody.example"):
        found = await _address_error(mx, host)
        assert isinstance(found, NoExchange)
        assert (found.outcome.kind, found.outcome.enhanced) == ("permanent", "5.4.4")


@pytest.mark.parametrize(
    "domain",
    ["", ".", "a..example", ".example", "x" * 64 + ".example", "x." * 130, "a b.example", "a\x1b[2J.example",
     "a\\046b.example", "a@b.example", "xn--\u0301.example", "\udc80.example", "a\u202e.example"],
)  # fmt: skip
async def test_what_is_no_domain_name_is_permanent_and_not_asked_for(
    internet: Internet, mx: MXCalculator, domain: str
) -> None:
    found = await error(mx, domain)
    assert isinstance(found, DomainNotFound)
    assert (found.outcome.kind, found.outcome.enhanced) == ("permanent", "5.1.2")
    assert found.outcome.text.isprintable()
    assert not internet.dns.queries


async def test_an_internationalised_domain_is_asked_for_by_its_a_label(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("xn--bcher-kva.example", "MX", "10 mx.example.org.")
    assert await hosts(mx, "xn--bcher-kva.example") == ["mx.example.org"]
    assert await hosts(mx, "bücher.example") == ["mx.example.org"]


async def test_names_are_given_in_lower_case_without_the_final_dot(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "10 MX.Example.COM.")
    assert await hosts(mx, "EXAMPLE.org.") == ["mx.example.com"]


# -- literals and addresses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("literal", "address"),
    [("[127.0.0.1]", "127.0.0.1"), ("[IPv6:::1]", "::1"), ("[ipv6:2001:DB8::7]", "2001:db8::7")],
)
async def test_an_address_literal_is_its_own_exchange(
    internet: Internet, mx: MXCalculator, literal: str, address: str
) -> None:
    (found,) = await mx.exchanges(literal)
    assert found.host == literal.lower()
    assert await mx.addresses(found.host) == [address]
    assert await mx.get_mx(literal) == found
    assert not internet.dns.queries


@pytest.mark.parametrize("literal", ["[127.0.0.1", "[::1]", "[IPv6:127.0.0.1]", "[300.1.1.1]", "[example.org]", "[]"])
async def test_a_literal_that_is_no_address_is_permanent(internet: Internet, mx: MXCalculator, literal: str) -> None:
    assert isinstance(await error(mx, literal), DomainNotFound)


async def test_an_address_gives_itself(internet: Internet, mx: MXCalculator) -> None:
    assert await mx.addresses("10.0.0.25") == ["10.0.0.25"]
    assert await mx.addresses("::1") == ["::1"]


async def test_addresses_of_both_families_are_mixed_in_turn_ipv6_first(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("mx.example", "A", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    internet.dns.add("mx.example", "AAAA", "::1", "::2")
    found = await mx.addresses("mx.example")
    assert [":" in address for address in found] == [True, False, True, False, False]
    assert sorted(found) == ["127.0.0.1", "127.0.0.2", "127.0.0.3", "::1", "::2"]


async def test_one_family_is_enough_when_the_other_cannot_be_asked_for(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("mx.example", "A", "127.0.0.1")
    internet.dns.behave("mx.example", Fault.SERVFAIL, "AAAA")
    assert await mx.addresses("mx.example") == ["127.0.0.1"]


async def test_no_address_in_one_family_and_no_answer_in_the_other_is_transient(
    internet: Internet, mx: MXCalculator
) -> None:
    internet.dns.add("mx.example", "TXT", '"no address"')
    internet.dns.behave("mx.example", Fault.SERVFAIL, "AAAA")
    assert isinstance(await _address_error(mx, "mx.example"), LookupFailed)


async def test_a_host_that_is_an_alias_gives_the_addresses_of_its_canonical_name(
    internet: Internet, mx: MXCalculator
) -> None:
    internet.dns.add("mx.example", "CNAME", "real.example.")
    internet.dns.behave("mx.example", Fault.ONE_ALIAS, "A")
    internet.dns.add("real.example", "A", "127.0.0.7")
    assert await mx.addresses("mx.example") == ["127.0.0.7"]


async def test_a_host_whose_aliases_form_a_loop_is_transient(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("mx.example", "CNAME", "mx.example.")
    assert (await _address_error(mx, "mx.example")).outcome.kind == "transient"


# -- 10: long answers, and our own name in them -----------------------------------------------------------------------


async def test_a_truncated_answer_is_asked_for_again_over_tcp(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.org.")
    internet.dns.behave("example.org", Fault.TRUNCATED)
    assert await hosts(mx, "example.org") == ["mx.example.org"]
    assert internet.dns.tcp_queries["example.org", "MX"] == 1


async def test_of_a_hundred_exchanges_the_best_twenty_are_tried(internet: Internet, mx: MXCalculator) -> None:
    numbers = list(range(1, 101))
    random.Random(3).shuffle(numbers)
    internet.dns.add("example.org", "MX", *(f"{number} mx{number}.example.org." for number in numbers))
    assert await hosts(mx, "example.org") == [f"mx{number}.example.org" for number in range(1, 21)]
    assert internet.dns.tcp_queries["example.org", "MX"] == 1


async def test_addresses_without_end_are_capped_too(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("mx.example", "A", *(f"127.0.1.{number}" for number in range(1, 60)))
    assert len(await mx.addresses("mx.example")) == 20


async def test_we_and_all_that_is_not_better_than_we_are_left_out(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add(
        "example.org",
        "MX",
        "20 RELAY.example.net.",
        "10 best.example.org.",
        "20 equal.example.org.",
        "30 worse.example.",
    )
    assert await hosts(mx, "example.org") == ["best.example.org"]


async def test_mail_that_would_come_back_to_us_is_permanent(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "10 relay.example.net.", "20 worse.example.org.")
    found = await error(mx, "example.org")
    assert isinstance(found, OwnName)
    assert (found.outcome.kind, found.outcome.enhanced) == ("permanent", "5.4.6")


async def test_our_own_name_without_mx_would_come_back_to_us_too(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("relay.example.net", "A", "127.0.0.1")
    assert isinstance(await error(mx, "relay.example.net"), OwnName)


async def test_a_host_listed_twice_is_tried_once_at_its_best(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "20 a.example.", "30 b.example.", "10 b.example.")
    assert await hosts(mx, "example.org") == ["b.example", "a.example"]


# -- 11: equals -------------------------------------------------------------------------------------------------------


async def test_of_two_equals_each_comes_first_half_the_time_in_ten_thousand_draws(
    internet: Internet, mx: MXCalculator
) -> None:
    internet.dns.add("example.org", "MX", "10 heads.example.", "10 tails.example.", "20 never.example.")
    drawn = Counter([(await mx.get_mx("example.org")).host for _ in range(10_000)])
    assert set(drawn) == {"heads.example", "tails.example"}
    assert 4_800 <= drawn["heads.example"] <= 5_200
    assert internet.dns.asked("example.org", "MX") == 1


async def test_the_whole_order_is_by_preference_with_equals_shuffled(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "20 c.example.", "10 a.example.", "20 b.example.", "30 d.example.")
    orders = {tuple(await hosts(mx, "example.org")) for _ in range(50)}
    assert orders == {
        ("a.example", "b.example", "c.example", "d.example"),
        ("a.example", "c.example", "b.example", "d.example"),
    }


# -- caching ----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_kept_for_its_ttl_and_no_longer(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("long.example", "MX", "10 mx.example.", ttl=300)
    internet.dns.add("short.example", "MX", "10 mx.example.", ttl=0)
    for _ in range(3):
        await hosts(mx, "long.example")
        await hosts(mx, "short.example")
    assert internet.dns.asked("long.example", "MX") == 1
    assert internet.dns.asked("short.example", "MX") == 3


async def test_that_a_name_does_not_exist_or_has_no_mx_is_kept_too(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("bare.example", "A", "127.0.0.1")
    for _ in range(3):
        await error(mx, "nobody.example")
        await hosts(mx, "bare.example")
    assert internet.dns.asked("nobody.example", "MX") == 1
    assert internet.dns.asked("bare.example", "MX") == 1


async def test_an_answer_for_ever_is_kept_for_a_day_at_most(
    internet: Internet, resolver: dns.asyncresolver.Resolver
) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.", ttl=2_000_000_000)
    answer = await resolver.resolve("example.org", "MX")
    assert answer.expiration <= time.time() + 86_400


async def test_those_who_ask_the_same_at_the_same_time_share_one_question(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.", ttl=0)
    found = await asyncio.gather(*(hosts(mx, "example.org") for _ in range(20)))
    assert found == [["mx.example"]] * 20
    assert internet.dns.asked("example.org", "MX") == 1


async def test_one_who_gives_up_waiting_does_not_end_the_question_for_the_others(
    internet: Internet, mx: MXCalculator
) -> None:
    internet.dns.add("example.org", "MX", "10 mx.example.", ttl=0)
    first, second = (asyncio.create_task(hosts(mx, "example.org")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == ["mx.example"]
    assert internet.dns.asked("example.org", "MX") == 1


async def test_each_who_waits_gets_an_error_of_their_own(internet: Internet, mx: MXCalculator) -> None:
    found = await asyncio.gather(*(error(mx, "nobody.example") for _ in range(3)))
    assert len({id(one) for one in found}) == 3


# -- the resolver -----------------------------------------------------------------------------------------------------


async def test_the_resolver_says_that_it_takes_1232_bytes_and_has_no_search_list(
    resolver: dns.asyncresolver.Resolver,
) -> None:
    assert (resolver.edns, resolver.payload, resolver.search) == (0, 1232, [])


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("9.9.9.9", ("9.9.9.9", 53)),
        ("127.0.0.1:5300", ("127.0.0.1", 5300)),
        ("[::1]:5300", ("::1", 5300)),
        ("[::1]", ("::1", 53)),
        ("2620:fe::fe", ("2620:fe::fe", 53)),
    ],
)
async def test_a_name_server_is_written_with_a_port_or_without(text: str, endpoint: tuple[str, int]) -> None:
    (server,) = resolver_for([text]).nameservers
    assert (server.answer_nameserver(), server.answer_port()) == endpoint  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["dns.example", "127.0.0.1:0", "127.0.0.1:x", "[::1]:99999", "", "1.2.3"])
async def test_what_is_no_name_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no name server"):
        resolver_for([text])


async def test_the_systems_name_servers_are_asked_when_none_are_named() -> None:
    assert resolver_for([]).nameservers


async def _address_error(mx: MXCalculator, host: str) -> MXError:
    with pytest.raises(MXError) as caught:
        await mx.addresses(host)
    return caught.value
