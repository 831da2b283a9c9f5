"""54. A bounce that cannot be delivered reaches the postmaster, once, and is in the log; nothing goes round in that."""

import email
import email.policy
from collections.abc import AsyncIterator

import pytest

from engine.delivery import dsn
from engine.model.claim import Untold
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.model.verbs import Bounce, Suspend
from engine.queue.errors import NoSuchMessage
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, Refusing
from engine.settings.settings import Dsn
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying

POSTMASTER = "postmaster@ours.example"
NAMED = Dsn(postmaster=POSTMASTER)


@pytest.fixture
async def refusing(internet: Internet) -> Internet:
    """The sender's domain and the recipient's both refuse all mail for good: what is sent comes back, and cannot."""
    for domain in ("example.com", "fort.example"):
        await internet.add(domain, mx=[(10, f"mx.{domain}", Refusing())])
    return internet


@pytest.fixture
async def ours(internet: Internet) -> Exchange:
    """The exchange of the postmaster's domain."""
    (exchange,) = await internet.add("ours.example", mx=[(10, "mx.ours.example", Healthy())])
    return exchange


@pytest.fixture
async def relay(refusing: Internet, clock: FakeClock) -> AsyncIterator[Relay]:
    async with relaying(refusing, clock=clock, dsn=NAMED) as relay:
        yield relay


async def at_rest(relay: Relay) -> None:
    for _ in range(4):  # the mail, its bounce, what the postmaster is told, and what must not come of that
        await relay.settled()
    assert await relay.entries() == ()


async def test_an_undeliverable_bounce_reaches_the_postmaster_once_with_both_causes(
    relay: Relay, ours: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    await relay.send("bob@fort.example")
    await at_rest(relay)
    (notice,) = ours.delivered
    assert (notice.sender, notice.recipients) == ("", (POSTMASTER,))
    report = email.message_from_bytes(notice.content, policy=email.policy.default)
    assert (report.get_content_type(), report["To"]) == ("multipart/report", POSTMASTER)
    assert report["Subject"] == "A bounce could not be delivered"
    text, status, bounce = report.iter_parts()
    assert "<ann@example.com>" in text.get_content()
    assert "Final-Recipient: rfc822; ann@example.com" in status.as_string()
    assert "Final-Recipient: rfc822; bob@fort.example" in bounce.as_string()  # the bounce itself, whole
    (event,) = await relay.events("discarded")
    assert event.text == f"a bounce that bounces: {POSTMASTER} is told"
    (line,) = [record.getMessage() for record in caplog.records if "undeliverable bounce" in record.getMessage()]
    assert "ann@example.com" in line
    assert "554 5.7.1" in line


async def test_what_was_to_be_told_to_the_postmaster_and_cannot_be_is_only_logged(
    relay: Relay, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    await internet.add("ours.example", mx=[(10, "mx.ours.example", Refusing())])
    await relay.send("bob@fort.example")
    await at_rest(relay)
    assert internet.delivered == []
    first, second = (event.text for event in await relay.events("discarded"))
    assert first == f"a bounce that bounces: {POSTMASTER} is told"
    assert second == f"a bounce that bounces: it was to the postmaster {POSTMASTER}, and nobody else is told"
    assert sum("undeliverable bounce" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_notice_that_the_postmasters_host_sends_on_through_us_does_not_go_round(
    relay: Relay, ours: Exchange, wrapped: bool
) -> None:
    await relay.send("bob@fort.example")
    await at_rest(relay)
    (notice,) = ours.delivered
    content = b"Received: from mx.ours.example\r\n" + notice.content
    if wrapped:
        content = b"Subject: Undelivered mail\r\n\r\nIt said:\r\n\r\n" + notice.content
    await relay.send("ops@fort.example", sender="", content=content)
    await at_rest(relay)
    assert len(ours.delivered) == 1
    assert (await relay.events("discarded"))[-1].text == (
        "a bounce that bounces: it tells of another one already, and nobody else is told"
    )


async def test_with_no_postmaster_it_is_in_the_log_and_among_the_events(
    refusing: Internet, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with relaying(refusing, clock=clock) as relay:
        await relay.send("bob@fort.example")
        await at_rest(relay)
        assert refusing.delivered == []
        (event,) = await relay.events("discarded")
    assert event.text == "a bounce that bounces: dsn.postmaster is not set, so nobody is told"
    assert sum("undeliverable bounce" in record.getMessage() for record in caplog.records) == 1


async def test_the_notice_is_queued_in_the_transaction_that_removes_the_bounce(
    relay: Relay, ours: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, NewMessage]] = []
    tell = relay.engine.queue.claims.tell

    async def watched(untold: Untold, notice: NewMessage | None, *, gives_back: bool = False) -> bool:
        assert notice is not None
        assert await relay.engine.queue.claims.content(untold.message)  # it has no entry any more, and is still there
        assert await tell(untold, notice, gives_back=gives_back)
        with pytest.raises(NoSuchMessage):
            await relay.engine.queue.claims.content(untold.message)
        sent.append((untold.message, notice))
        return True

    monkeypatch.setattr(relay.engine.queue.claims, "tell", watched)
    await relay.send("bob@fort.example")
    await at_rest(relay)
    assert [(message, notice.recipients) for message, notice in sent] == [
        (1, ("ann@example.com",)),
        (2, (POSTMASTER,)),
    ]


async def test_what_an_operator_gives_up_is_no_news_to_the_postmaster(
    relay: Relay, ours: Exchange, clock: FakeClock
) -> None:
    await relay.client.ask(Suspend(destination="fort.example", seconds=3600, note="to have it wait"))
    await relay.send("bob@fort.example", sender="")
    await relay.client.ask(Bounce(filter="from=<>", note="backscatter"))
    await relay.later(60)
    await at_rest(relay)
    assert not ours.delivered
    (event,) = await relay.events("discarded")
    assert event.text == "a bounce that bounces: it was given up by order, and nobody is told"


def test_what_the_postmaster_is_told_is_bounded() -> None:
    recipients = [dsn.Recipient(recipient="ann@example.com", outcome=Outcome.permanent("no", enhanced="5.1.1"))]
    big = b"Subject: bounce\r\n\r\n" + b"x" * 10_000_000
    original = dsn.Original(message=1, sender="", arrived=0, content=big)
    notice = dsn.double_bounce(original, recipients, postmaster=POSTMASTER, hostname="relay.example.net", now=0)
    assert len(notice.content) < 2 * dsn.BOUNCE_RETURNED
    assert b"Subject: bounce" in notice.content
