"""What twisted.mail.relaymanager.MXCalculator is documented to do, ours does: against a real name server."""

import dns.asyncresolver
import pytest

from engine.dns.mx import (
    CanonicalNameChainTooLong,
    CanonicalNameLoop,
    DomainNotFound,
    Exchange,
    LookupFailed,
    MXCalculator,
    NoExchange,
)
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from tests.clock import FakeClock
from tests.scenarios.marks import MarksInMemory

ONE_HOUR = 3600.0


@pytest.fixture
def mx(resolver: dns.asyncresolver.Resolver, clock: FakeClock) -> MXCalculator:
    return MXCalculator(resolver, clock=clock, marks=MarksInMemory())


def two_exchanges(internet: Internet) -> None:
    internet.dns.add("example.org", "MX", "20 second.example.org.", "10 first.example.org.")


async def test_get_mx_gives_the_host_and_preference_of_an_mx_record(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "0 the.email.example.org.")
    assert await mx.get_mx("example.org") == Exchange(host="the.email.example.org", preference=0)


async def test_the_lowest_preference_is_given(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "MX", "1 b.example.org.", "0 a.example.org.", "2 c.example.org.")
    assert (await mx.get_mx("example.org")).host == "a.example.org"


async def test_a_host_marked_bad_is_passed_over(internet: Internet, mx: MXCalculator) -> None:
    two_exchanges(internet)
    await mx.mark_bad("first.example.org", note="refused")
    assert (await mx.get_mx("example.org")).host == "second.example.org"


async def test_when_all_are_bad_the_lowest_preference_is_given(internet: Internet, mx: MXCalculator) -> None:
    two_exchanges(internet)
    await mx.mark_bad("first.example.org", note="refused")
    mark = await mx.mark_bad("second.example.org", note="refused")
    found = await mx.get_mx("example.org")
    assert found.host == "first.example.org"
    assert found.mark is not None
    assert found.mark.until == mark.until


async def test_a_bad_host_is_left_out_for_an_hour_and_no_longer(
    internet: Internet, mx: MXCalculator, clock: FakeClock
) -> None:
    two_exchanges(internet)
    await mx.mark_bad("first.example.org", note="refused")
    await clock.advance(ONE_HOUR - 1)
    assert (await mx.get_mx("example.org")).host == "second.example.org"
    await clock.advance(1)
    assert await mx.get_mx("example.org") == Exchange(host="first.example.org", preference=10)


async def test_how_long_a_host_is_bad_can_be_set(
    internet: Internet, resolver: dns.asyncresolver.Resolver, clock: FakeClock
) -> None:
    two_exchanges(internet)
    mx = MXCalculator(resolver, clock=clock, marks=MarksInMemory(), bad_mx_timeout=60.0)
    await mx.mark_bad("first.example.org", note="refused")
    await clock.advance(60)
    assert (await mx.get_mx("example.org")).host == "first.example.org"


async def test_marking_bad_again_begins_the_time_anew(internet: Internet, mx: MXCalculator, clock: FakeClock) -> None:
    two_exchanges(internet)
    await mx.mark_bad("first.example.org", note="refused")
    await clock.advance(ONE_HOUR / 2)
    await mx.mark_bad("first.example.org", note="refused")
    await clock.advance(ONE_HOUR / 2)
    assert (await mx.get_mx("example.org")).host == "second.example.org"


async def test_a_host_marked_good_is_used_again(internet: Internet, mx: MXCalculator) -> None:
    two_exchanges(internet)
    await mx.mark_bad("first.example.org", note="refused")
    await mx.mark_good("first.example.org")
    assert (await mx.get_mx("example.org")).host == "first.example.org"


async def test_marking_good_what_is_not_bad_is_no_error(internet: Internet, mx: MXCalculator) -> None:
    assert await mx.mark_good("first.example.org") is None


async def test_without_mx_the_domain_stands_for_itself(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    assert await mx.get_mx("example.org") == Exchange(host="example.org", preference=0)
    assert await mx.addresses("example.org") == ["127.0.0.9"]


async def test_without_mx_and_without_fallback_there_is_no_exchange(
    internet: Internet, resolver: dns.asyncresolver.Resolver, clock: FakeClock
) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    mx = MXCalculator(resolver, clock=clock, marks=MarksInMemory(), fallback_to_domain=False)
    with pytest.raises(NoExchange):
        await mx.get_mx("example.org")


async def test_a_domain_without_mx_and_without_address_cannot_be_reached(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "TXT", '"nothing here"')
    found = await mx.get_mx("example.org")
    with pytest.raises(NoExchange):
        await mx.addresses(found.host)


@pytest.mark.parametrize("fallback", [True, False])
async def test_a_domain_that_does_not_exist_is_an_error_with_fallback_and_without(
    internet: Internet, resolver: dns.asyncresolver.Resolver, clock: FakeClock, fallback: bool
) -> None:
    mx = MXCalculator(resolver, clock=clock, marks=MarksInMemory(), fallback_to_domain=fallback)
    with pytest.raises(DomainNotFound):
        await mx.get_mx("nobody.example")


async def test_an_error_other_than_no_mx_does_not_fall_back(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("example.org", "A", "127.0.0.9")
    internet.dns.behave("example.org", Fault.SERVFAIL, "MX")
    with pytest.raises(LookupFailed):
        await mx.get_mx("example.org")


async def test_a_canonical_name_alone_is_asked_for_in_turn(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("alias.example", "CNAME", "canonical.example.")
    internet.dns.behave("alias.example", Fault.ONE_ALIAS)
    internet.dns.add("canonical.example", "MX", "0 mail.example.")
    assert (await mx.get_mx("alias.example")).host == "mail.example"
    assert internet.dns.asked("canonical.example", "MX") == 1


async def test_a_canonical_name_that_comes_with_its_mx_needs_no_second_question(
    internet: Internet, mx: MXCalculator
) -> None:
    internet.dns.add("alias.example", "CNAME", "canonical.example.")
    internet.dns.add("canonical.example", "MX", "0 mail.example.")
    assert (await mx.get_mx("alias.example")).host == "mail.example"
    assert internet.dns.asked("canonical.example", "MX") == 0


async def test_a_canonical_name_without_mx_stands_for_itself(internet: Internet, mx: MXCalculator) -> None:
    internet.dns.add("alias.example", "CNAME", "canonical.example.")
    internet.dns.add("canonical.example", "A", "127.0.0.9")
    assert (await mx.get_mx("alias.example")).host == "canonical.example"


def chain(internet: Internet, length: int, *, one_by_one: bool) -> None:
    """x0.example leads through `length` canonical names to one that has an exchange."""
    for number in range(length):
        internet.dns.add(f"x{number}.example", "CNAME", f"x{number + 1}.example.")
        if one_by_one:
            internet.dns.behave(f"x{number}.example", Fault.ONE_ALIAS)
    internet.dns.add(f"x{length}.example", "MX", "0 mail.example.")


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("maximum", [0, 1, 3])
async def test_a_chain_of_the_maximum_length_is_followed(
    internet: Internet, mx: MXCalculator, maximum: int, one_by_one: bool
) -> None:
    chain(internet, maximum, one_by_one=one_by_one)
    assert (await mx.get_mx("x0.example", maximum)).host == "mail.example"


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("maximum", [0, 1, 3])
async def test_a_chain_longer_than_the_maximum_is_an_error(
    internet: Internet, mx: MXCalculator, maximum: int, one_by_one: bool
) -> None:
    chain(internet, maximum + 1, one_by_one=one_by_one)
    with pytest.raises(CanonicalNameChainTooLong, match=f"x{maximum + 1}.example"):
        await mx.get_mx("x0.example", maximum)


async def test_a_chain_of_three_is_followed_unless_told_otherwise(internet: Internet, mx: MXCalculator) -> None:
    chain(internet, 4, one_by_one=True)
    assert (await mx.get_mx("x1.example")).host == "mail.example"
    with pytest.raises(CanonicalNameChainTooLong):
        await mx.get_mx("x0.example")
    assert (await mx.get_mx("x0.example", maximum_canonical_chain_length=4)).host == "mail.example"


async def test_a_chain_without_end_is_given_up_after_one_question_more_than_the_maximum(
    internet: Internet, mx: MXCalculator
) -> None:
    chain(internet, 50, one_by_one=True)
    with pytest.raises(CanonicalNameChainTooLong):
        await mx.get_mx("x0.example", 3)
    assert sum(internet.dns.queries.values()) == 4


@pytest.mark.parametrize("length", [1, 2, 3, 9])
async def test_canonical_names_that_form_a_loop_in_one_answer_are_an_error(
    internet: Internet, mx: MXCalculator, length: int
) -> None:
    for number in range(length):
        internet.dns.add(f"x{number}.example", "CNAME", f"x{(number + 1) % length}.example.")
    with pytest.raises(CanonicalNameLoop):
        await mx.get_mx("x0.example", 9)
    assert sum(internet.dns.queries.values()) == 1


@pytest.mark.parametrize("length", [1, 2, 3])
async def test_canonical_names_that_form_a_loop_when_asked_for_one_by_one_are_an_error(
    internet: Internet, mx: MXCalculator, length: int
) -> None:
    for number in range(length):
        internet.dns.add(f"x{number}.example", "CNAME", f"x{(number + 1) % length}.example.")
        internet.dns.behave(f"x{number}.example", Fault.ONE_ALIAS)
    with pytest.raises(CanonicalNameLoop):
        await mx.get_mx("x0.example")


async def test_a_chain_too_long_for_one_answer_is_too_long_and_no_loop(internet: Internet, mx: MXCalculator) -> None:
    chain(internet, 30, one_by_one=False)
    with pytest.raises(CanonicalNameChainTooLong):
        await mx.get_mx("x0.example")


@pytest.mark.parametrize("error", [CanonicalNameLoop, CanonicalNameChainTooLong])
async def test_loops_and_long_chains_are_transient_to_the_message(
    error: type[CanonicalNameLoop] | type[CanonicalNameChainTooLong],
) -> None:
    assert error("x").outcome.kind == "transient"
