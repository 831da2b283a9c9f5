"""52. A sender is told once that a message is delayed, and told nothing where there is nobody to tell."""

import email
import email.policy
from email.message import Message
from pathlib import Path

import pytest

from engine.delivery.notices import Notices
from engine.model.verbs import Hold, Release, Suspend
from engine.queue.errors import QueueFull
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Script
from engine.settings.settings import Dsn
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

HOUR, DAY = 3600.0, 86_400.0


async def stuck(internet: Internet, relay: Relay, *recipients: str, sender: str = "ann@example.com") -> None:
    """Mail for later.example waits; example.com takes what senders are told."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 mailbox locked"}))])
    await relay.send(*(recipients or ("bob@later.example",)), sender=sender)
    await relay.settled()


def groups(content: bytes) -> list[Message]:
    """The groups of fields of a report's status, that of the message first."""
    report = email.message_from_bytes(content, policy=email.policy.default)
    (status,) = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    payload = status.get_payload()
    assert isinstance(payload, list)
    return [group for group in payload if isinstance(group, Message)]


async def test_after_four_hours_the_sender_is_told_once(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay, "bob@later.example", "eve@later.example")
    begin = relay.clock.now()
    await relay.later(4 * HOUR - 60)
    assert internet.delivered == []
    await relay.later(61)
    await internet.wait_for(1)
    (notice,) = internet.delivered
    assert (notice.sender, notice.recipients) == ("", ("ann@example.com",))
    about, bob, eve = groups(notice.content)
    assert about["Reporting-MTA"] == "dns; relay.example.net"
    assert [each["Action"] for each in (bob, eve)] == ["delayed", "delayed"]
    assert bob["Final-Recipient"] == "rfc822; bob@later.example"
    assert bob["Status"] == "4.2.1"
    assert "mailbox locked" in bob["Diagnostic-Code"]
    until = email.utils.parsedate_to_datetime(bob["Will-Retry-Until"])
    assert until.timestamp() == begin + 5 * DAY
    await relay.later(2 * DAY)
    assert len(internet.delivered) == 1
    assert len(await relay.entries()) == 2
    assert [event.entry for event in await relay.events("notified")] == [1, 2]


async def test_mail_that_arrives_in_time_tells_nobody(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay)
    await internet.exchanges["mx.later.example"].become(Healthy())
    await relay.later(HOUR)
    await relay.later(5 * HOUR)
    assert [delivery.recipients for delivery in internet.delivered] == [("bob@later.example",)]


async def test_of_mail_with_the_null_sender_nobody_is_told(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay, sender="")
    await relay.later(5 * HOUR)
    assert internet.delivered == []


async def test_a_notice_that_waits_itself_is_told_of_to_nobody(internet: Internet, relay: Relay) -> None:
    await stuck(internet, relay, sender="ann@later.example")
    await relay.later(5 * HOUR)
    await relay.later(5 * HOUR)
    assert [entry.sender for entry in await relay.entries()] == ["ann@later.example", ""]


@pytest.mark.parametrize("after", [0.0, HOUR])
async def test_the_time_is_a_setting_and_so_is_never(internet: Internet, clock: FakeClock, after: float) -> None:
    async with relaying(internet, clock=clock, dsn=Dsn(delay_notice=after)) as relay:
        await stuck(internet, relay)
        await relay.later(HOUR + 1)
        await relay.later(5 * HOUR)
        assert len(internet.delivered) == (1 if after else 0)


async def test_mail_that_is_not_tried_is_delayed_too(internet: Internet, relay: Relay) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await relay.client.ask(Suspend(destination="later.example", seconds=DAY, note="test"))
    await relay.send("bob@later.example")
    await relay.later(4 * HOUR + 1)
    await internet.wait_for(1)
    assert b"no attempt could be made yet" in internet.delivered[0].content


async def test_of_what_an_operator_holds_the_sender_is_told_when_it_is_released(
    internet: Internet, relay: Relay
) -> None:
    await stuck(internet, relay)
    await relay.client.ask(Hold(filter="id=1", note="test"))
    await relay.later(5 * HOUR)
    assert internet.delivered == []
    await relay.client.ask(Release(filter="id=1"))
    await relay.settled()
    await internet.wait_for(1)
    assert len(internet.delivered) == 1


async def test_a_full_disk_delays_the_notice_and_nothing_else(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stuck(internet, relay)

    async def full(*_: object) -> None:
        raise QueueFull("no room")

    monkeypatch.setattr(type(relay.engine.queue.claims), "notify", full)
    await relay.later(5 * HOUR)
    await relay.send("c@example.com")
    await internet.wait_for(1)
    assert "no room" in (await relay.client.health()).trouble
    monkeypatch.undo()
    await relay.later(60)
    await internet.wait_for(2)
    assert b"Action: delayed" in internet.delivered[1].content


async def test_a_notice_that_cannot_be_written_is_not_tried_for_ever(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stuck(internet, relay)

    def faulty(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Notices, "_to_sender", faulty)
    await relay.later(5 * HOUR)
    monkeypatch.undo()
    await relay.later(HOUR)
    assert internet.delivered == []
    assert len(await relay.entries()) == 1


async def test_more_delayed_mail_than_one_check_tells_of_is_told_of_all_the_same(
    internet: Internet, relay: Relay
) -> None:
    await stuck(internet, relay)
    await relay.client.ask(Suspend(destination="example.com", seconds=DAY, note="test"))
    await relay.send("bob@later.example", times=119)
    await relay.later(4 * HOUR + 1)
    await relay.settled()
    await relay.settled()
    assert len(await relay.entries("from=<>")) == 120
    assert len(await relay.events("notified")) == 120


async def test_a_restart_neither_loses_nor_repeats_the_notice(
    internet: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await stuck(internet, relay)
    await clock.advance(5 * HOUR)
    for _ in range(2):
        async with relaying(internet, clock=clock, spool=spool) as relay:
            await relay.settled()
            await relay.later(HOUR)
    assert len(internet.delivered) == 1
