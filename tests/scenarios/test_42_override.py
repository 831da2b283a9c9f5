"""42. An operator sends a destination's mail to a host of their choice, for a time."""

import getpass
from pathlib import Path

import pytest

from engine.control.client import Refused
from engine.model.verbs import EndOverride, MarkBad, MarkGood, Override, Resume, Suspend
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Authenticating, Dead, Encrypted, Healthy, Script
from engine.settings.settings import Route
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

HOUR = 3600.0


def to(host: str, seconds: float = HOUR, destination: str = "broken.example") -> Override:
    return Override(destination=destination, to=host, seconds=seconds, note="their MX is wrong")


@pytest.fixture
async def broken(internet: Internet, relay: Relay) -> Internet:
    """The exchange of broken.example is dead; another host would take its mail."""
    await internet.add("broken.example", mx=[(10, "mx.broken.example", Dead())])
    await internet.host("spare.example", Healthy())
    return internet


async def test_mail_goes_to_the_named_host_until_the_override_ends_by_itself(broken: Internet, relay: Relay) -> None:
    await relay.send("a@broken.example", times=3)
    await relay.settled()
    assert broken.messages == 0
    result = await relay.client.ask(to("spare.example"))
    assert "3 recipients that wait are due now" in result.text
    await broken.wait_for(3)
    assert {one.host for one in broken.delivered} == {"spare.example"}
    await broken.exchange("mx.broken.example").become(Healthy())
    await relay.later(HOUR + 1)
    await relay.send("b@broken.example")
    await relay.settled()
    assert broken.delivered[-1].host == "mx.broken.example"
    set_, ended = await relay.events("overridden", "ended")
    assert (set_.by, set_.destination, set_.host) == (getpass.getuser(), "broken.example", "spare.example")
    assert "their MX is wrong" in set_.text
    assert (ended.by, ended.text) == ("engine", "its time was over")


async def test_a_port_may_be_named(broken: Internet, relay: Relay) -> None:
    await relay.client.ask(to(f"spare.example:{broken.port}"))
    await relay.send("a@broken.example")
    await broken.wait_for(1)
    address = broken.exchange("spare.example").address
    await relay.client.ask(to(f"{address}:{broken.port}"))
    await relay.send("a@broken.example")
    await broken.wait_for(2)
    assert [delivery.host for delivery in broken.delivered] == ["spare.example"] * 2


async def test_a_slip_in_the_name_returns_no_mail_and_is_mended_by_ending_it(broken: Internet, relay: Relay) -> None:
    await relay.client.ask(to("nowhere.example"))
    await relay.send("a@broken.example")
    await relay.settled()
    assert broken.messages == 0
    await broken.exchange("mx.broken.example").become(Healthy())
    (explained,) = (await relay.client.explain("a@broken.example")).explanations
    assert "overridden to nowhere.example" in explained.text
    await relay.client.ask(EndOverride(destination="broken.example"))
    await broken.wait_for(1)


async def test_an_override_to_a_host_that_is_down_defers_and_its_end_makes_the_mail_due(
    broken: Internet, relay: Relay
) -> None:
    await broken.exchange("mx.broken.example").become(Healthy())
    await broken.exchange("spare.example").become(Dead())
    await relay.client.ask(to("spare.example"))
    await relay.send("a@broken.example")
    await relay.settled()
    assert len(await relay.entries("state=waiting")) == 1
    await relay.client.ask(EndOverride(destination="broken.example"))
    await broken.wait_for(1)
    assert broken.delivered[0].host == "mx.broken.example"


async def test_connections_to_the_old_host_take_no_more_mail(internet: Internet, relay: Relay) -> None:
    """A relayer in the middle of a backlog ends after the message it is sending."""
    await internet.add("two.example", mx=[(10, "mx.two.example", Script({"RCPT": "450 4.2.1 not now"}))])
    await internet.host("spare.example", Healthy())
    await relay.client.ask(Suspend(destination="two.example", seconds=HOUR, note=""))
    await relay.send("a@two.example", times=30)
    await internet.exchange("mx.two.example").become(Healthy())
    first = internet.exchange("mx.two.example")
    await relay.client.ask(Resume(destination="two.example"))
    await internet.wait_for(1)
    before = first.messages
    await relay.client.ask(to("spare.example", destination="two.example"))
    await internet.wait_for(30)
    assert first.messages <= before + 10


async def test_it_comes_before_a_route_and_gives_no_password_away(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    smart = await internet.host("smart.example", Healthy())
    asking = await internet.host("asking.example", Authenticating({"relay": "s3cret"}, certificate="good"))
    spare = await internet.host("spare.example", Encrypted("good"))  # what the route asks of TLS still holds
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "authority.pem").write_bytes(internet.certificates.authority_pem)
    route = Route(
        domain="broken.example", host="smart.example", port=internet.port, tls="required", username="relay",
        password_file=tmp_path / "password", ca_file=tmp_path / "authority.pem",
    )  # fmt: skip
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.client.ask(to("asking.example"))
        await relay.send("a@broken.example")
        await relay.settled()
        assert asking.sessions > 0
        assert [line for _, line in asking.commands if line.startswith("AUTH")] == []
        await relay.client.ask(to("spare.example"))
        await relay.send("a@broken.example")
        await relay.settled()
        assert (smart.sessions, spare.messages) == (0, 1)
        assert [line for _, line in spare.commands if line.startswith("AUTH")] == []


async def test_a_route_that_requires_tls_still_requires_it(internet: Internet, clock: FakeClock) -> None:
    await internet.host("spare.example", Healthy())
    route = Route(domain="broken.example", host="smart.example", tls="required")
    async with relaying(internet, clock=clock, route=(route,)) as relay:
        await relay.client.ask(to("spare.example"))
        await relay.send("a@broken.example")
        await relay.settled()
        assert internet.messages == 0
        (entry,) = await relay.entries()
        assert entry.last is not None
        assert entry.last.enhanced == "4.7.4"


async def test_a_named_host_that_an_operator_marked_bad_is_not_tried(broken: Internet, relay: Relay) -> None:
    await relay.client.ask(MarkBad(host="spare.example", seconds=HOUR, note="maintenance"))
    await relay.client.ask(to("spare.example", 2 * HOUR))
    await relay.send("a@broken.example")
    await relay.settled()
    assert broken.exchange("spare.example").sessions == 0
    await relay.client.ask(MarkGood(host="spare.example"))
    await broken.wait_for(1)


async def test_it_outlives_a_restart_and_stands_in_the_one_list(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    await internet.add("broken.example", mx=[(10, "mx.broken.example", Dead())])
    await internet.host("spare.example", Healthy())
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.client.ask(to("spare.example", 3 * HOUR))
        await relay.client.ask(Suspend(destination="shut.example", seconds=HOUR, note="storm"))
        await relay.client.ask(MarkBad(host="mx.bad.example", seconds=2 * HOUR, note="slow"))
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        found = await relay.client.overrides()
        assert [(one.kind, one.name, one.note) for one in found] == [
            ("suspension", "shut.example", "storm"),
            ("host mark", "mx.bad.example", "slow"),
            ("override", "broken.example", "their MX is wrong"),
        ]
        assert {one.by for one in found} == {getpass.getuser()}
        assert found[-1].until == pytest.approx(clock.now() + 3 * HOUR)
        await relay.send("a@broken.example")
        await internet.wait_for(1)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("", "letters"), ("two words", "letters"), ("mx.example:0", "1 to 65535"), ("[::1]25", "HOST:PORT")],
)
async def test_a_host_that_is_none_is_refused(relay: Relay, host: str, allowed: str) -> None:
    with pytest.raises(Refused) as refused:
        await relay.client.ask(to(host))
    assert allowed in refused.value.refusal.allowed


async def test_mail_is_not_sent_to_ourselves_and_the_whole_relay_is_not_overridden(relay: Relay) -> None:
    with pytest.raises(Refused, match="this relay itself"):
        await relay.client.ask(to("relay.example.net"))
    with pytest.raises(Refused, match="whole relay"):
        await relay.client.ask(to("spare.example", destination="*"))
    with pytest.raises(Refused) as refused:
        await relay.client.ask(EndOverride(destination="broken.example"))
    assert refused.value.refusal.not_found
