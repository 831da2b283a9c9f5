"""Whence mail goes out: what routes leave to all mail, the families in turn, and what a reply says of our address."""

import pytest

from engine.delivery.egress import REFUSED_SECONDS, Egress, Ipv6Refusals, is_for_want_of_a_name
from engine.model.outcome import Outcome
from engine.settings.settings import Delivery, Route
from tests.clock import FakeClock

SIX, FOUR = ["2001:db8::1", "2001:db8::2", "2001:db8::3"], ["192.0.2.1"]
MIXED = [SIX[0], FOUR[0], SIX[1], SIX[2]]


def test_what_a_route_does_not_say_is_as_for_all_mail() -> None:
    delivery = Delivery(family="ipv4", prefer="ipv4", source_address=("192.0.2.9", "2001:db8::9"), hello="out.example")
    assert Egress.of(delivery) == Egress(
        family="ipv4", prefer="ipv4", ipv4="192.0.2.9", ipv6="2001:db8::9", hello="out.example"
    )
    route = Route(domain="*", host="up.example", family="both", source_address=("192.0.2.10",))
    assert Egress.of(delivery, route) == Egress(family="both", prefer="ipv4", ipv4="192.0.2.10", hello="out.example")
    assert Egress.of(Delivery()) == Egress()


@pytest.mark.parametrize(
    ("egress", "without_ipv6", "order"),
    [
        (Egress(), False, MIXED),
        (Egress(prefer="ipv4"), False, [FOUR[0], *SIX]),
        (Egress(family="ipv4"), False, FOUR),
        (Egress(family="ipv6"), False, SIX),
        (Egress(), True, FOUR),
        (Egress(family="ipv6"), True, SIX),
    ],
)
def test_the_families_are_in_turn_or_one_alone(egress: Egress, without_ipv6: bool, order: list[str]) -> None:
    assert egress.in_order(MIXED, without_ipv6=without_ipv6) == order


def test_a_host_that_has_but_ipv6_is_spoken_to_over_that_whatever_it_refused() -> None:
    assert Egress().in_order(SIX, without_ipv6=True) == SIX


def test_each_family_has_its_source() -> None:
    egress = Egress(ipv4="192.0.2.9")
    assert (egress.source("192.0.2.1"), egress.source("2001:db8::1")) == ("192.0.2.9", "")


@pytest.mark.parametrize(
    ("code", "text", "so"),
    [
        (550, "5.7.25 The IP address sending this message does not have a PTR record", True),
        (
            550,
            "5.7.1 [2001:db8::9] Our system has detected that this message does not meet IPv6 sending guidelines",
            True,
        ),
        (421, "4.7.0 reverse DNS lookup failed for your address", True),
        (450, "4.7.25 Client host rejected: cannot find your hostname", True),
        (554, "no rDNS, no mail", True),
        (550, "5.1.1 no such user PTR", False),
        (550, "5.7.1 message refused as spam", False),
        (250, "2.0.0 reverse DNS is fine", False),
    ],
)
def test_what_a_reply_says_of_our_address(code: int, text: str, so: bool) -> None:
    assert is_for_want_of_a_name(Outcome.of_reply(code, text)) is so


def test_that_nobody_was_reached_says_nothing_of_our_address() -> None:
    assert not is_for_want_of_a_name(Outcome.transient("PTR", enhanced="4.7.25"))


async def test_a_refusal_is_remembered_for_a_day_and_told_with_what_to_do() -> None:
    clock = FakeClock()
    refusals = Ipv6Refusals(clock)
    assert not refusals.notes
    refusals.note("mx.example.org")
    refusals.note("mx.example.net")
    (note,) = refusals.notes
    assert note.startswith("mx.example.net and 1 more took no mail over IPv6, for want of a PTR record")
    assert 'delivery.family = "ipv4"' in note
    await clock.advance(REFUSED_SECONDS - 1)
    assert refusals.is_refused("mx.example.org")
    await clock.advance(2)
    assert not refusals.is_refused("mx.example.org")
    assert not refusals.notes
