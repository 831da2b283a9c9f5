"""Bounces: readable by people, parsed by programs, and safe whatever the message and the reply were."""

import email
import email.policy
import re
from email.message import EmailMessage, Message

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.delivery.dsn import WHOLE_RETURNED, Action, Original, Recipient, notification, status
from engine.model.message import NewMessage, Ret
from engine.model.outcome import Outcome

REFUSED = Outcome.of_reply(550, "5.1.1 no such user", host="mx1.example.org", phase="RCPT")


def original(sender: str = "ann@example.com", content: bytes = b"Subject: hi\r\nTo: bob\r\n\r\nbody\r\n") -> Original:
    return Original(message=12, sender=sender, arrived=1_800_000_000.0, content=content)


def returned(about: Original, *failed: Recipient) -> NewMessage:
    new = notification(
        about, failed or [Recipient(recipient="bob@example.org", outcome=REFUSED)], hostname="relay", now=1.8e9
    )
    assert new is not None
    return new


def parts_of(new: NewMessage) -> tuple[EmailMessage, list[Message]]:
    message = email.message_from_bytes(new.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message, list(message.iter_parts())


def test_a_bounce_has_the_null_sender_and_goes_to_the_sender() -> None:
    new = returned(original())
    assert (new.sender, new.recipients, new.origin) == ("", ("ann@example.com",), "bounce of 12")


def test_a_bounce_that_bounces_is_answered_with_nothing() -> None:
    assert (
        notification(original(sender=""), [Recipient(recipient="x@y.example", outcome=REFUSED)], hostname="r", now=0)
        is None
    )


def test_programs_can_parse_the_status_of_each_recipient() -> None:
    late = Outcome(kind="permanent", enhanced="5.4.7", text="delivery time expired")
    new = returned(
        original(),
        Recipient(recipient="bob@example.org", outcome=REFUSED),
        Recipient(recipient="eve@example.org", outcome=late),
    )
    message, parts = parts_of(new)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert [part.get_content_type() for part in parts] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]
    groups = parts[1].get_payload()
    assert isinstance(groups, list)
    about, bob, eve = (group for group in groups if isinstance(group, Message))
    assert about["Reporting-MTA"] == "dns; relay"
    assert bob["Final-Recipient"] == "rfc822; bob@example.org"
    assert (bob["Action"], bob["Status"]) == ("failed", "5.1.1")
    assert bob["Remote-MTA"] == "dns; mx1.example.org"
    assert bob["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert (eve["Status"], eve["Remote-MTA"]) == ("5.4.7", None)


def test_people_can_read_who_was_not_reached_and_why() -> None:
    _, parts = parts_of(returned(original()))
    text = parts[0].get_content()  # type: ignore[attr-defined]
    assert "<bob@example.org>" in text
    assert "550 5.1.1 no such user (mx1.example.org said)" in text


def test_it_says_that_a_program_wrote_it() -> None:
    message, _ = parts_of(returned(original()))
    assert message["Auto-Submitted"] == "auto-replied"


def test_only_the_headers_of_the_message_go_back() -> None:
    new = returned(original(content=b"Subject: secret plans\r\n\r\nthe plans\r\n"))
    assert b"secret plans" in new.content
    assert b"the plans" not in new.content


def test_hostile_headers_and_replies_cannot_break_the_bounce() -> None:
    nasty = Outcome.of_reply(550, "\x1b]52;c;AAAA\x07\udcff\nBcc: eve@example.org", host="mx", phase="DATA")
    content = b"Subject: \x1b[2J\xff\xfe\r\nX: " + b"y" * 5000 + b"\r\n\r\nbody"
    new = returned(original(content=content), Recipient(recipient="bob@example.org", outcome=nasty))
    assert b"\x1b" not in new.content
    assert max(map(len, new.content.split(b"\r\n"))) <= 998
    message, _ = parts_of(new)
    assert message["Bcc"] is None


def test_every_line_ends_in_crlf() -> None:
    content = returned(original()).content
    assert content.count(b"\n") == content.count(b"\r\n")
    assert content.endswith(b"\r\n")


def test_a_sender_with_a_utf8_local_part_is_told_too() -> None:
    new = returned(original(sender="jürgen@example.com"))
    assert new.smtputf8
    assert "jürgen@example.com".encode() in new.content


def test_a_message_that_cannot_be_read_is_returned_without_its_headers() -> None:
    assert returned(original(content=b"")).recipients == ("ann@example.com",)


def test_a_transient_code_becomes_its_permanent_one_when_we_give_up() -> None:
    assert status(Outcome(kind="permanent", enhanced="4.2.2", text="")) == "5.2.2"
    assert status(Outcome(kind="permanent", text="")) == "5.0.0"


def test_an_internationalised_recipient_can_be_told_to_an_ascii_sender() -> None:
    new = returned(original(), Recipient(recipient="клиент@example.org", outcome=REFUSED))
    assert rb"Final-Recipient: utf-8; \x{43A}\x{43B}" in new.content
    assert new.content.isascii() or b"base64" in new.content
    assert not new.smtputf8


def test_nothing_a_peer_says_can_break_the_fields_for_programs() -> None:
    odd = Outcome(kind="permanent", code=550, enhanced="5.1.1", text="ошибка" * 50, host="mx.пример", phase="RCPT")
    assert b"Remote-MTA: dns; mx." in returned(original(), Recipient(recipient="bob@example.org", outcome=odd)).content


FORGED = "=?utf-8?q?no=0D=0A=0D=0AFinal-Recipient:_rfc822;_victim@list.example=0D=0AAction:_failed=0D=0AX:?="


@pytest.mark.parametrize("said", [f"5.1.1 {FORGED} user unknown here", f"5.1.1 {'x' * 90} {FORGED}"])
def test_what_a_peer_encodes_is_not_decoded_into_fields_of_its_own(said: str) -> None:
    new = returned(original(), Recipient(recipient="bob@example.org", outcome=Outcome.of_reply(550, said, host="mx")))
    assert [name for group in groups_of(new)[1:] for name in group] == [
        "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
    ]  # fmt: skip


def test_long_fields_are_folded_at_blanks_and_say_the_same() -> None:
    address = f"{'l' * 64}@{'.'.join(['d' * 60] * 4)}"
    said = Outcome.of_reply(550, "5.1.1 " + " ".join(f"word{number}" for number in range(100)), host="mx")
    _, bob = groups_of(returned(original(sender=address), Recipient(recipient=address, outcome=said)))
    assert re.sub(r"\s+", "", bob["Final-Recipient"]) == f"rfc822;{address}"
    assert re.sub(r"\s+", " ", bob["Diagnostic-Code"]) == f"smtp; {said.line}"


@pytest.mark.parametrize(
    "sender",
    [
        "=?utf-8?q?=0D=0A?=@example.com", "=?utf-8?q?x=0D=0ABcc:_eve=40example.org?=@example.com",
        '"a, b; c:(d"@example.com', "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", f"{'l' * 64}@{'.'.join(['d' * 60] * 4)}",
        "=?utf-8?q?=0D=0A?=jürgen@example.com",
    ],
)  # fmt: skip
def test_whatever_a_sender_is_called_it_is_told_under_that_name(sender: str) -> None:
    new = returned(original(sender=sender))
    head = new.content.partition(b"\r\n\r\n")[0].decode()
    assert new.recipients == (sender,)
    assert re.findall(r"(?m)^To:\s+(.*)\r$", head) == [sender]
    assert "\r\nBcc" not in head


# -- more than failure, and what was asked for ------------------------------------------------------------------------

LATER = Outcome.of_reply(450, "4.2.1 mailbox busy", host="mx1.example.org", phase="RCPT")
TAKEN = Outcome.of_reply(250, "2.6.0 taken", host="mx1.example.org", phase="reply")


def groups_of(new: NewMessage) -> list[Message]:
    payload = parts_of(new)[1][1].get_payload()
    assert isinstance(payload, list)
    return [group for group in payload if isinstance(group, Message)]


def test_one_notification_may_tell_of_failure_and_of_success() -> None:
    new = returned(
        original(),
        Recipient(recipient="eve@example.org", outcome=TAKEN, action="relayed"),
        Recipient(recipient="bob@example.org", outcome=REFUSED),
    )
    assert new.subject == "Your message could not be delivered"
    _, eve, bob = groups_of(new)
    assert (eve["Action"], eve["Status"], eve["Diagnostic-Code"]) == ("relayed", "2.6.0", None)
    assert (bob["Action"], bob["Status"]) == ("failed", "5.1.1")
    assert b"could not be delivered to the" in new.content
    assert b"was handed to the mail systems" in new.content


def test_a_delay_says_until_when_it_will_be_tried() -> None:
    new = returned(
        original(), Recipient(recipient="bob@example.org", outcome=LATER, action="delayed", until=1.8e9 + 86_400)
    )
    _, bob = groups_of(new)
    assert (bob["Action"], bob["Status"], bob["Last-Attempt-Date"]) == ("delayed", "4.2.1", None)
    assert bob["Will-Retry-Until"] == "Sat, 16 Jan 2027 08:00:00 +0000"
    assert (new.subject, new.origin) == ("Your message is delayed", "delay notice of 12")


def test_what_never_was_tried_has_a_status_of_its_class() -> None:
    assert status(Outcome.transient("no attempt"), "delayed") == "4.0.0"
    assert status(Outcome.of_reply(250, "ok"), "relayed") == "2.0.0"


def test_the_senders_own_names_come_back_decoded() -> None:
    about = replace(original(), envid="QQ+2B1")
    new = returned(about, Recipient(recipient="b@example.org", outcome=REFUSED, orcpt="rfc822;Bob+2Bx@old.example"))
    message, bob = groups_of(new)
    assert message["Original-Envelope-Id"] == "QQ+1"
    assert bob["Original-Recipient"] == "rfc822; Bob+x@old.example"


def test_a_message_asked_back_whole_is_there_byte_for_byte() -> None:
    content = b"Subject: hi\r\nX: \xff\r\n\r\n--=_x\r\n.\r\n\r\nlast\r\n"
    new = returned(replace(original(content=content), ret="FULL"))
    message, parts = parts_of(new)
    assert [part.get_content_type() for part in parts][2] == "message/rfc822"
    assert content in new.content
    assert message["Content-Transfer-Encoding"] == "8bit"
    assert new.content.endswith(b"--\r\n")


def test_a_message_comes_back_whole_only_where_it_failed_and_fits() -> None:
    whole = replace(original(content=b"Subject: hi\r\n\r\nsecret\r\n"), ret="FULL")
    assert b"secret" in returned(whole).content
    delayed = Recipient(recipient="bob@example.org", outcome=LATER, action="delayed")
    assert b"secret" not in returned(whole, delayed).content
    assert b"secret" not in returned(replace(whole, smtputf8=True)).content
    assert b"secret" not in returned(replace(whole, content=whole.content + b"x" * WHOLE_RETURNED)).content


@settings(max_examples=60)
@given(
    st.text(max_size=300),
    st.binary(max_size=400),
    st.text(max_size=60),
    st.sampled_from(["failed", "delayed", "relayed"]),
    st.sampled_from(["", "FULL", "HDRS"]),
    st.sampled_from([0, 250, 421, 450, 550]),
)
@example("", b"", "\r0:", "failed", "", 250)
def test_whatever_was_said_every_notification_parses(
    said: str, content: bytes, name: str, action: Action, ret: Ret, code: int
) -> None:
    outcome = Outcome.of_reply(code, said, host=name) if code else Outcome.transient(said, host=name)
    body = content.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    new = returned(
        replace(original(content=body), ret=ret, envid=name),
        Recipient(recipient=f"{name}@example.org", outcome=outcome, action=action, orcpt=f"rfc822;{name}", until=1.9e9),
    )
    message, parts = parts_of(new)
    assert (len(parts), message.get_content_type()) == (3, "multipart/report")
    about, one = groups_of(new)
    assert about["Reporting-MTA"] == "dns; relay"
    assert (one["Action"], one["Status"][0]) == (action, {"failed": "5", "delayed": "4", "relayed": "2"}[action])
    assert set(one.keys()) <= {
        "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code",
        "Last-Attempt-Date", "Will-Retry-Until",
    }  # fmt: skip
    assert new.content.count(b"\n") == new.content.count(b"\r\n")
    assert max(map(len, new.content.removesuffix(body).split(b"\r\n"))) <= 998
