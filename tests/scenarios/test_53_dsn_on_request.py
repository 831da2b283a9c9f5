"""53. Senders are told what they asked to be told, by us or by whoever took it on (RFC 3461)."""

import email
import email.policy
from email.message import EmailMessage, Message

import pytest

from engine.sandbox.exchanges import Delivery
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy, HelloOnly, Notifying, Refusing, Script
from tests.scenarios.relaying import LETTER, Relay
from tests.smtp import smtp_client

HOUR = 3600.0
EIGHT_BIT = LETTER.replace(b"How", "Wie gehts, Jürgen? How".encode())


async def world(internet: Internet) -> None:
    """One who refuses, one who takes mail and no DSN, one who takes both; and the sender's own."""
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("fort.example", mx=[(10, "mx.fort.example", Refusing())])
    await internet.add("plain.example", mx=[(10, "mx.plain.example", Healthy())])
    await internet.add("dsn.example", mx=[(10, "mx.dsn.example", Notifying())])
    await internet.add("later.example", mx=[(10, "mx.later.example", Script({"RCPT": "450 4.2.1 locked"}))])


async def notifications(internet: Internet, relay: Relay, count: int = 1) -> list[Delivery]:
    """What the sender was told, after all has come to rest."""
    await internet.wait_for(count)
    await relay.settled()
    return [delivery for delivery in internet.delivered if delivery.host == "mx.example.com"]


def read(content: bytes) -> tuple[list[EmailMessage], list[Message]]:
    """The parts of a report, and the groups of fields of its status."""
    report = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(report, EmailMessage)
    assert report.get_content_type() == "multipart/report"
    assert not report.defects
    parts = [part for part in report.iter_parts() if isinstance(part, EmailMessage)]
    payload = parts[1].get_payload()
    assert isinstance(payload, list)
    return parts, [group for group in payload if isinstance(group, Message)]


async def test_it_is_offered(relay: Relay) -> None:
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        await smtp.ehlo()
        assert smtp.supports_extension("dsn")


async def test_a_failure_is_told_with_the_names_the_sender_gave(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@fort.example", mail=["ENVID=QQ+2B314159"], rcpt=["ORCPT=rfc822;Bob+2Bx@old.example"])
    (report,) = await notifications(internet, relay)
    parts, (about, bob) = read(report.content)
    assert about["Original-Envelope-Id"] == "QQ+314159"
    assert bob["Original-Recipient"] == "rfc822; Bob+x@old.example"
    assert bob["Final-Recipient"] == "rfc822; bob@fort.example"
    assert bob["Action"] == "failed"
    assert parts[2].get_content_type() == "text/rfc822-headers"


@pytest.mark.parametrize("notify", ["NEVER", "SUCCESS", "DELAY,SUCCESS"])
async def test_who_does_not_want_to_be_told_of_failure_is_not_and_the_event_says_so(
    internet: Internet, relay: Relay, notify: str
) -> None:
    await world(internet)
    await relay.send("bob@fort.example", rcpt=[f"NOTIFY={notify}"])
    await relay.settled()
    assert internet.delivered == []
    assert await relay.entries() == ()
    (event,) = await relay.events("discarded", "returned")
    assert event.kind == "discarded"
    assert f"NOTIFY={notify}" in event.text


@pytest.mark.parametrize(
    ("notify", "count"), [("DELAY", 1), ("FAILURE,DELAY", 1), ("FAILURE", 0), ("NEVER", 0), ("SUCCESS", 0)]
)
async def test_who_asked_is_told_of_a_delay_and_nobody_else(
    internet: Internet, relay: Relay, notify: str, count: int
) -> None:
    await world(internet)
    await relay.send("bob@later.example", mail=["ENVID=e1"], rcpt=[f"NOTIFY={notify}", "ORCPT=rfc822;b@x.example"])
    await relay.settled()
    await relay.later(5 * HOUR)
    reports = await notifications(internet, relay, count)
    assert len(reports) == count
    for report in reports:
        _, (about, bob) = read(report.content)
        assert (about["Original-Envelope-Id"], bob["Action"]) == ("e1", "delayed")
        assert bob["Original-Recipient"] == "rfc822; b@x.example"


async def test_success_is_told_as_relayed_where_the_peer_offers_no_dsn(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@plain.example", mail=["RET=FULL"], rcpt=["NOTIFY=SUCCESS,FAILURE"])
    (report,) = await notifications(internet, relay, 2)
    parts, (_, bob) = read(report.content)
    assert (bob["Action"], bob["Status"]) == ("relayed", "2.0.0")
    assert bob["Remote-MTA"] == "dns; mx.plain.example"
    assert bob["Diagnostic-Code"] is None
    # RFC 3461 4.3: RET is about failures.
    assert parts[2].get_content_type() == "text/rfc822-headers"
    assert report.sender == ""
    (event,) = [one for one in await relay.events("delivered") if one.message == 1]
    assert "asked to be told" in event.text


async def test_who_asked_for_nothing_is_told_nothing_of_success(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@plain.example")
    await relay.send("bob@plain.example", sender="", rcpt=["NOTIFY=SUCCESS"])
    assert await notifications(internet, relay, 2) == []


async def test_a_peer_that_offers_dsn_is_told_what_the_sender_asked_and_answers_for_it(
    internet: Internet, relay: Relay
) -> None:
    await world(internet)
    asked = ["NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;Bob+2Bx@old.example"]
    await relay.send("bob@dsn.example", mail=["RET=HDRS", "ENVID=QQ+2B1"], rcpt=asked)
    assert await notifications(internet, relay) == []
    (delivery,) = internet.delivered
    assert {"RET=HDRS", "ENVID=QQ+2B1"} <= set(delivery.parameters.split())
    assert delivery.recipient_parameters == ("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2Bx@old.example",)


async def test_who_asked_for_nothing_has_nothing_passed_on(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@dsn.example")
    await relay.settled()
    assert internet.delivered[0].recipient_parameters == ("",)
    assert "RET" not in internet.delivered[0].parameters


async def test_a_peer_that_knows_helo_only_hears_of_no_parameters(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await internet.add("old.example", mx=[(10, "mx.old.example", HelloOnly())])
    await relay.send("bob@old.example", mail=["ENVID=e1"], rcpt=["NOTIFY=SUCCESS"])
    (report,) = await notifications(internet, relay, 2)
    _, (about, bob) = read(report.content)
    assert (about["Original-Envelope-Id"], bob["Action"]) == ("e1", "relayed")


async def test_each_recipient_has_wishes_of_its_own(internet: Internet, relay: Relay) -> None:
    await world(internet)
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        await smtp.mail("ann@example.com")
        await smtp.rcpt("a@plain.example", options=["NOTIFY=SUCCESS"])
        await smtp.rcpt("b@plain.example", options=["NOTIFY=NEVER"])
        await smtp.rcpt("c@plain.example")
        await smtp.data(LETTER)
    (report,) = await notifications(internet, relay, 2)
    _, (_, *recipients) = read(report.content)
    assert [each["Final-Recipient"] for each in recipients] == ["rfc822; a@plain.example"]


@pytest.mark.parametrize("content", [LETTER, EIGHT_BIT])
async def test_a_message_that_is_asked_back_whole_comes_back_byte_for_byte(
    internet: Internet, relay: Relay, content: bytes
) -> None:
    await world(internet)
    await relay.send("bob@fort.example", mail=["RET=FULL", "BODY=8BITMIME"], content=content)
    (report,) = await notifications(internet, relay)
    parts, _ = read(report.content)
    assert parts[2].get_content_type() == "message/rfc822"
    assert content in report.content
    assert ("BODY=8BITMIME" in report.parameters) == (not content.isascii())


async def test_a_message_too_large_to_go_back_whole_goes_back_as_its_headers(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@fort.example", mail=["RET=FULL"], content=LETTER + (b"x" * 900 + b"\r\n") * 1200)
    (report,) = await notifications(internet, relay)
    parts, _ = read(report.content)
    assert parts[2].get_content_type() == "text/rfc822-headers"
    assert len(report.content) < 10_000


@pytest.mark.parametrize(
    ("mail", "rcpt"),
    [
        ("RET=ALL", ""),
        ("RET", ""),
        ("ENVID=", ""),
        ("ENVID", ""),
        ("ENVID=a+0", ""),
        ("ENVID=a+0A", ""),
        ("ENVID=" + "x" * 101, ""),
        ("", "NOTIFY="),
        ("", "NOTIFY=NEVER,FAILURE"),
        ("", "NOTIFY=ALWAYS"),
        ("", "NOTIFY=DELAY,DELAY"),
        ("", "ORCPT=bob@example.org"),
        ("", "ORCPT=rfc822;"),
        ("", "ORCPT=rfc822;a+00b"),
        ("", "ORCPT=rf c822;a"),
        ("", "ORCPT=rfc822;ä@example.org"),
        ("", "ORCPT=rfc822;" + "x" * 501),
    ],
)  # fmt: skip
async def test_what_is_no_such_parameter_is_refused_with_501(relay: Relay, mail: str, rcpt: str) -> None:
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        await smtp.ehlo()
        said = await smtp.execute_command(f"MAIL FROM:<a@example.com> SMTPUTF8 {mail}".encode())
        if rcpt:
            assert said.code == 250
            said = await smtp.execute_command(f"RCPT TO:<b@example.org> {rcpt}".encode())
        assert said.code == 501
        assert said.message.startswith("5.5.4")
        assert (await smtp.noop()).code == 250


async def test_an_original_recipient_in_utf8_is_kept_in_ascii(internet: Internet, relay: Relay) -> None:
    await world(internet)
    door = relay.engine.smtp.addresses[0]
    async with smtp_client(door.port, door.host) as smtp:
        await smtp.ehlo()
        await smtp.execute_command(b"MAIL FROM:<ann@example.com> SMTPUTF8")
        await smtp.execute_command("RCPT TO:<b@fort.example> ORCPT=utf-8;клиент@old.example".encode())
        await smtp.data(LETTER)
    (report,) = await notifications(internet, relay)
    _, (_, bob) = read(report.content)
    assert bob["Original-Recipient"].strip().startswith(r"utf-8; \x{43A}\x{43B}")


async def test_the_wishes_outlive_a_delay(internet: Internet, relay: Relay) -> None:
    await world(internet)
    await relay.send("bob@later.example", mail=["ENVID=e1"], rcpt=["NOTIFY=SUCCESS"])
    await relay.settled()
    await internet.exchanges["mx.later.example"].become(Notifying())
    await relay.later(400)
    (delivery,) = internet.delivered
    assert delivery.recipient_parameters == ("NOTIFY=SUCCESS",)
