"""55. What fails of one message is told in one notification, with its content once; recipients are limited."""

import email
import email.policy
from collections.abc import Sequence
from email.message import EmailMessage, Message
from pathlib import Path

import pytest

from engine.model.verbs import Bounce, Resume, Suspend
from engine.sandbox.exchanges import Delivery
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Refusing, Script
from engine.settings.settings import Dsn
from tests.clock import FakeClock
from tests.scenarios.relaying import LETTER, Relay, relaying
from tests.waiting import until_told

GATHER = Dsn().gather
LARGE = LETTER + (b"x" * 900 + b"\r\n") * 40
DAY = 86_400.0


@pytest.fixture
async def home(internet: Internet) -> Internet:
    """The sender's own domain takes mail; fort.example refuses all, later.example defers all."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 locked"}))])
    return internet


def told(internet: Internet) -> list[Delivery]:
    return [one for one in internet.delivered if one.host == "mx.example.com"]


def recipients_of(report: Delivery) -> list[str]:
    """The recipients that a notification names to programs."""
    message = email.message_from_bytes(report.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    status = list(message.iter_parts())[1].get_payload()
    assert isinstance(status, list)
    groups = [group for group in status if isinstance(group, Message)][1:]
    return [str(group["Final-Recipient"]).removeprefix("rfc822; ") for group in groups]


def nowhere(count: int) -> Sequence[str]:
    return [f"u@d{number}.nowhere.example" for number in range(count)]


async def test_a_message_that_fails_at_200_destinations_is_told_of_once_with_its_content_once(
    home: Internet, relay: Relay
) -> None:
    await relay.send(*nowhere(200), content=LARGE, mail=["RET=FULL"])
    await relay.settled()
    await relay.later(GATHER)
    reports = told(home)
    assert sum(len(report.content) for report in reports) < 3 * len(LARGE) + 200_000
    assert sum(LARGE in report.content for report in reports) == 1
    assert len(reports) == 1
    assert sorted(name for report in reports for name in recipients_of(report)) == sorted(nowhere(200))
    events = await relay.engine.queue.listing.events(match="returned", limit=1000)
    assert sorted(event.recipient for event in events if event.kind == "returned") == sorted(nowhere(200))
    assert await relay.entries() == ()


async def test_what_fails_within_the_time_is_told_together_though_others_still_wait(
    home: Internet, relay: Relay
) -> None:
    await relay.send("a@fort.example", "b@later.example", "c@nowhere.example", mail=["RET=FULL"])
    await relay.settled()
    assert told(home) == []
    assert len(await relay.events("returned")) == 2
    await relay.later(GATHER)
    (report,) = told(home)
    assert sorted(recipients_of(report)) == ["a@fort.example", "c@nowhere.example"]
    assert LETTER in report.content
    # What fails after that is told of by itself, and the content is not sent back again.
    await home.exchanges["mx.later.example"].become(Refusing())
    await relay.later(400)
    _, last = told(home)
    assert recipients_of(last) == ["b@later.example"]
    assert LETTER not in last.content
    assert b"Subject: hello" in last.content


async def test_the_last_recipient_that_settles_waits_for_no_others(home: Internet, relay: Relay) -> None:
    await relay.send("a@fort.example")
    await relay.settled()
    assert len(told(home)) == 1


async def test_each_further_notification_of_a_message_gathers_for_longer(home: Internet, relay: Relay) -> None:
    replies = {"RCPT": "450 4.2.1 locked"}
    for number in range(4):
        await home.add(f"n{number}.example", mx=[(10, f"mx.n{number}.example", Script(replies))])
    await relay.send("z@later.example", *(f"a@n{number}.example" for number in range(4)))
    await relay.settled()
    waits = []
    for number in range(4):
        await home.exchanges[f"mx.n{number}.example"].become(Refusing())
        for _ in range(200):  # until its next try, in small steps
            if len(await relay.events("returned")) > number:
                break
            await relay.later(60)
        at = (await relay.events("returned"))[-1].at
        due = (await relay.engine.queue.claims.next_due(relay.clock.now() - 1)) or 0.0
        tell_at = relay.sqlite._database.writer._connection.execute("SELECT tell_at FROM message").fetchone()[0]
        assert due <= tell_at
        waits.append(tell_at - at)
        await relay.later(tell_at - relay.clock.now() + 0.001)
        assert [len(recipients_of(report)) for report in told(home) if b"failed" in report.content] == [1] * (
            number + 1
        )
    assert waits == pytest.approx([GATHER, 2 * GATHER, 4 * GATHER, 8 * GATHER], abs=0.01)


async def test_content_over_the_bound_goes_back_as_its_headers(internet: Internet, clock: FakeClock) -> None:
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    async with relaying(internet, clock=clock, dsn=Dsn(content_returned=1000)) as relay:
        await relay.send("a@nowhere.example", content=LETTER, mail=["RET=FULL"])
        await relay.send("a@nowhere.example", content=LARGE, mail=["RET=FULL"])
        await internet.wait_for(2)
        await relay.settled()
    whole = {LETTER in report.content: len(report.content) for report in told(internet)}
    assert set(whole) == {True, False}
    assert whole[False] < 5000


async def test_an_operators_bounce_of_a_message_to_a_thousand_is_told_of_once(home: Internet, relay: Relay) -> None:
    names = [f"u{number}@d{number % 250}.later.example" for number in range(1000)]
    await relay.client.ask(Suspend(destination="*", seconds=3600, note="to have it wait"))
    await relay.send(*names)
    await relay.client.ask(Bounce(filter="id=1", note="wrong list"))
    await relay.later(60)
    await until_told(lambda: relay.entries("id=1"), lambda left: not left)  # some of it goes back in each check
    await relay.client.ask(Resume(destination="*"))
    await home.wait_for(1)
    await relay.settled()
    (report,) = told(home)
    assert sorted(recipients_of(report)) == sorted(names)
    assert b"and 900 more, all of whom the attached status names." in report.content
    assert b"bounced by" in report.content
    assert len(report.content) < 1_000_000


async def test_between_the_failure_and_its_notification_the_engine_may_end_and_the_sender_is_told_once(
    home: Internet, clock: FakeClock, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with relaying(home, clock=clock, spool=spool) as relay:
        await relay.send("a@fort.example", "b@later.example")
        await relay.settled()
        assert told(home) == []
    async with relaying(home, clock=clock, spool=spool) as relay:
        await relay.later(GATHER)
        assert [recipients_of(report) for report in told(home)] == [["a@fort.example"]]
    async with relaying(home, clock=clock, spool=spool) as relay:
        await relay.later(GATHER)
        assert len(told(home)) == 1


async def test_success_and_failure_are_told_together(home: Internet, relay: Relay) -> None:
    await home.add("plain.example", mx=[(10, "mx.plain.example", Healthy())])
    await relay.send("a@plain.example", "b@fort.example", "c@later.example", rcpt=["NOTIFY=SUCCESS,FAILURE"])
    await relay.settled()
    await relay.later(GATHER)
    (report,) = told(home)
    assert sorted(recipients_of(report)) == ["a@plain.example", "b@fort.example"]


async def test_of_a_bounce_to_many_the_postmaster_is_told_once_and_has_it_once(
    internet: Internet, clock: FakeClock
) -> None:
    (ours,) = await internet.add("ours.example", mx=[(10, "mx.ours.example", Healthy())])
    (later,) = await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 locked"}))])
    async with relaying(internet, clock=clock, dsn=Dsn(postmaster="postmaster@ours.example")) as relay:
        await relay.send("z@later.example", *nowhere(30), sender="")
        await relay.settled()
        await relay.later(GATHER)
        (first,) = ours.delivered
        assert sorted(recipients_of(first)) == sorted(nowhere(30))
        assert LETTER in first.content
        await later.become(Refusing())
        await relay.later(400)
        _, second = ours.delivered
        assert recipients_of(second) == ["z@later.example"]
        assert LETTER not in second.content


async def test_a_message_whose_sender_is_yet_to_be_told_is_shown_as_one_that_has_left(
    home: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(type(relay.engine.queue.claims), "untold", nothing)
    await relay.send("a@fort.example")
    await relay.settled()
    view = await relay.client.message(1)
    assert view.entries == ()
    assert [event.kind for event in view.events][-1] == "returned"


async def test_what_cannot_be_told_of_one_message_keeps_nothing_of_others_from_it(
    home: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = type(relay.engine.queue.claims).tell

    async def faulty(queue: object, untold: object, *rest: object, **more: object) -> bool:
        if getattr(untold, "message", 0) == 1:
            raise KeyError("a bug")
        return await tell(queue, untold, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(relay.engine.queue.claims), "tell", faulty)
    await relay.send("a@fort.example")
    await relay.send("b@fort.example")
    await relay.settled()
    assert [recipients_of(report) for report in told(home)] == [["b@fort.example"]]
    monkeypatch.undo()
    await relay.later(601)
    assert [recipients_of(report) for report in told(home)] == [["b@fort.example"], ["a@fort.example"]]
