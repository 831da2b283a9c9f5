"""What is not for the readers of a message does not go out, whichever way the message came; signatures stay good."""

import pytest

from engine.base.address import parse_path
from engine.intake.content import UNSENT, outgoing, read_header
from engine.intake.drop.dropped import Dropped
from engine.intake.preparation import Preparation
from engine.intake.sendmail.letter import Hand, compose
from engine.intake.smtp.submitted import Submitted
from engine.settings.settings import Smtp

AS_GIVEN = Preparation("relay.example")

SECRET = (
    b"Return-Path: <r@x.example>\r\nBcc: one@x.example,\r\n two@x.example\r\nResent-Bcc: three@x.example\r\n"
    b"Content-Length: 17\r\nbcc: four@x.example\r\n"
)
OPEN = b"From: ann@x.example\r\nTo: bob@y.example\r\nSubject: hi\r\n  folded\r\n\r\nBcc: in the body\r\n"


def by_smtp(content: bytes, login: str = "") -> bytes:
    submitted = Submitted(
        chunks=(b"\r\n" + content + b".\r\n",),
        sender=parse_path("a@x.example"),
        recipients=(parse_path("b@y.example"), parse_path("c@y.example")),
        protocol="ESMTP",
        greeted="client.example",
        peer="192.0.2.1",
        login=login,
    )
    return submitted.message(AS_GIVEN, Smtp(), 0.0).content


def by_submission(content: bytes) -> bytes:
    return by_smtp(b"Date: x\r\nMessage-ID: <1@x>\r\n" + content, "ann").replace(
        b"Date: x\r\nMessage-ID: <1@x>\r\n", b""
    )


def by_drop(content: bytes) -> bytes:
    dropped = Dropped(content=content, origin="drop a.eml", key="k")
    return dropped.message(AS_GIVEN, Smtp(), 0.0).content


def by_sendmail(content: bytes) -> bytes:
    hand = Hand(recipients=("b@y.example",), user="ann")
    letter = compose(
        b"Date: x\r\nMessage-ID: <1@x>\r\n" + content, hand, hostname="relay.example", rules=Smtp(), at=0.0
    )
    return by_drop(letter.as_dropped()).replace(b"Date: x\r\nMessage-ID: <1@x>\r\n", b"")


@pytest.mark.parametrize("way", [by_smtp, by_submission, by_drop, by_sendmail])
def test_it_is_left_out_whichever_way_the_message_came(way: type) -> None:
    for content in (SECRET + OPEN, OPEN.replace(b"Subject", SECRET + b"Subject")):
        assert way(content).endswith(b"+0000\r\n" + OPEN)


SIGNED = b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=k;\r\n\th=from:to:\r\n\t Bcc :return-path; bh=h; b=x\r\n"


def test_what_a_signature_covers_stays_in_relayed_mail_and_the_rest_goes() -> None:
    content = SIGNED + SECRET + OPEN
    assert by_smtp(content).endswith(
        SIGNED
        + b"Return-Path: <r@x.example>\r\nBcc: one@x.example,\r\n two@x.example\r\nbcc: four@x.example\r\n"
        + OPEN
    )
    sealed = SIGNED.replace(b"DKIM-Signature", b"ARC-Message-Signature").replace(b" Bcc :return-path", b"resent-bcc")
    assert b"Resent-Bcc: three" in by_smtp(sealed + SECRET + OPEN)


@pytest.mark.parametrize("way", [by_drop, by_sendmail])
def test_where_bcc_is_the_envelope_it_never_goes_out(way: type) -> None:
    found = way(SIGNED + SECRET + OPEN)
    assert read_header(found).count(b"bcc") == read_header(found).count(b"resent-bcc") == 0
    assert read_header(found).count(b"return-path") == 1  # which is signed


@pytest.mark.parametrize("tags", [b"", b"h", b"h=", b"h=;", b"=;h=::", b"v=1;H=bcc", b"bh=bcc", b"x" * 100_000])
def test_a_signature_that_covers_none_of_it_keeps_none(tags: bytes) -> None:
    header = read_header(b"DKIM-Signature: " + tags + b"\r\n" + SECRET + OPEN)
    left = read_header(outgoing(header))
    assert not any(left.count(name) for name in UNSENT)


def test_nothing_is_changed_where_there_is_nothing_of_the_kind() -> None:
    assert outgoing(read_header(SIGNED + OPEN)) == SIGNED + OPEN
