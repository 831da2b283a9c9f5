"""Senders whom nobody could answer are put right, whichever way their mail comes in, and what it lacks is added."""

import pytest

from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.kinds import Complete
from engine.settings.settings import Rewrite
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying

BARE = b"Subject: cron\r\n\r\nall is well\r\n"
RULES = (
    Rewrite(match="*@*.local", to="web@example.com"),
    Rewrite(match="root", to="ops@other.example", of="recipients"),
)


@pytest.fixture
async def exchange(internet: Internet) -> Exchange:
    (found,) = await internet.add("other.example", mx=[(10, "mx.other.example", Healthy())])
    return found


async def test_mail_over_smtp_comes_from_an_address_that_can_be_answered(
    internet: Internet, clock: FakeClock, exchange: Exchange
) -> None:
    async with relaying(internet, clock=clock, rewrite=RULES) as relay:
        await relay.send(
            "root@relay.example.net", sender="www-data@web1.local", content=b"From: W <www-data@web1.local>\r\n" + BARE
        )
        await relay.settled()
    (delivery,) = exchange.delivered
    assert (delivery.sender, delivery.recipients) == ("web@example.com", ("ops@other.example",))
    head, _, body = delivery.content.partition(b"\r\n\r\n")
    assert head.endswith(b"From: W <web@example.com>\r\nSubject: cron")
    assert b"for <root@relay.example.net>" in head
    assert body == b"all is well\r\n"


async def test_mail_from_the_drop_folder_too(internet: Internet, clock: FakeClock, exchange: Exchange) -> None:
    async with relaying(internet, clock=clock, rewrite=RULES) as relay:
        beside = relay.spool / "letter"
        beside.write_bytes(b"From: www-data@web1.local\r\nTo: root@relay.example.net\r\n" + BARE)
        beside.rename(relay.spool / "drop" / "letter.eml")
        await internet.wait_for(1)
    (delivery,) = exchange.delivered
    assert (delivery.sender, delivery.recipients) == ("web@example.com", ("ops@other.example",))
    assert b"\r\nFrom: web@example.com\r\nTo: root@relay.example.net\r\n" in delivery.content


@pytest.mark.parametrize("complete", ["logins", "all"])
async def test_what_mail_lacks_is_added_where_that_is_set(
    internet: Internet, clock: FakeClock, exchange: Exchange, complete: Complete
) -> None:
    async with relaying(internet, clock=clock, complete=complete) as relay:
        await relay.send("bob@other.example", content=BARE)
        await relay.settled()
    (delivery,) = exchange.delivered
    head = delivery.content.partition(b"\r\n\r\n")[0]
    assert [field in head for field in (b"\nDate: ", b"\nMessage-ID: <", b"\nFrom: ann@example.com\r")] == [
        complete == "all"
    ] * 3


async def test_a_notification_names_the_recipient_that_was_given(
    internet: Internet, clock: FakeClock, exchange: Exchange
) -> None:
    from engine.sandbox.tempers import Script

    await exchange.become(Script({"RCPT": "550 5.1.1 no such user"}))
    (home,) = await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    async with relaying(internet, clock=clock, rewrite=RULES) as relay:
        await relay.send("root@relay.example.net")
        await relay.settled()
        await relay.later(60)
    (bounce,) = home.delivered
    assert b"Original-Recipient: rfc822; root@relay.example.net" in bounce.content
