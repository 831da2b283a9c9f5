"""A dropped file's envelope is read from its header, and what only it needs is left out of the message."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.text import clean
from engine.intake.drop.dropped import Dropped
from engine.intake.errors import Unfit
from engine.intake.preparation import Preparation
from engine.model.message import NewMessage
from engine.settings.settings import Smtp

RULES = Smtp(max_received=3)


def message(content: bytes) -> NewMessage:
    return Dropped(content=content, origin="drop a.eml", key="k").message(Preparation("relay.example"), RULES, 0.0)


def below_trace(content: bytes) -> bytes:
    return message(content).content.split(b"+0000\r\n", 1)[1]


@pytest.mark.parametrize(
    ("header", "sender", "recipients"),
    [
        ("X-Envelope-From: a@x\nX-Envelope-To: b@x, c@y\nX-Envelope-To: d@y", "a@x", ["b@x", "c@y", "d@y"]),
        ("X-Envelope-From: <a@x>\nX-Envelope-To: <b@x>\nTo: other@x", "a@x", ["b@x"]),
        ("X-Envelope-From: <>\nX-Envelope-To: b@x", "", ["b@x"]),
        ("X-Envelope-From:\nX-Envelope-To: b@x", "", ["b@x"]),
        ('From: Ann <a@X>\nTo: Bob <b@x>,\n\t"C, D" <c@x>\nCc: d@x\nBcc: e@x', "a@x", ["b@x", "c@x", "d@x", "e@x"]),
        ("From: a@x, b@x\nSender: c@x\nTo: d@x", "c@x", ["d@x"]),
        ("From: a@x\nTo: friends: b@x, c@x;\nCc: undisclosed-recipients:;", "a@x", ["b@x", "c@x"]),
        ("From: a@x\nTo: b@x, b@x", "a@x", ["b@x"]),
        ('From: a@x\nX-Envelope-To: "a,b"@x', "a@x", ['"a,b"@x']),
        ("From: a@x\nTo: ann@bücher.example", "a@x", ["ann@xn--bcher-kva.example"]),
        ("From: =?utf-8?q?=C3=A4?= <a@x>\nTo: b@x", "a@x", ["b@x"]),
    ],
)
def test_the_envelope_is_read(header: str, sender: str, recipients: list[str]) -> None:
    read = message(f"{header}\n\nbody\n".encode())
    assert read.sender == sender
    assert list(read.recipients) == recipients


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"From: a@x\n\nno recipient", "recipients: none found in To, Cc, Bcc"),
        (b"To: b@x\n\nno sender", "sender: none found"),
        (b"From: a@x\nTo: a,b@x\n\n", "To: a: no @"),
        (b"From: a@x\nTo: nobody\n\n", "To: nobody: no @"),
        (b"From: a@x\nX-Envelope-To: \nTo: b@x\n\n", "recipients: none found in X-Envelope-To"),
        (b"X-Envelope-From: a@x\nX-Envelope-From: b@x\nTo: c@x\n\n", "stands more than once"),
        (b"X-Envelope-From: a@x, b@x\nTo: c@x\n\n", "2 addresses"),
        (b"From: a@x, b@x\nTo: c@x\n\n", "sender: none found"),
        (b"From: a@x\nTo: b\x7f@x\n\n", "To: "),
        (b"From: a@x\nTo: \xff@x\n\n", "To: "),
        (b"From: a@x\nTo: b@x\n\n\0", "NUL"),
        (b"From: a@x\nTo: b@x\n\n" + b"x" * 70_000, "a line is too long"),
        (b"Received: x\n" * 4 + b"From: a@x\nTo: b@x\n\n", "Received: more than 3"),
        (b"From: " + b"(" * 5000 + b"\nTo: b@x\n\n", "From: cannot be read: a comment has no end"),
        (b"From: a@x\nTo: " + b"a:" * 5000 + b"\n\n", "To: cannot be read: a group inside a group"),
        (b"From: a@x\nTo: " + b"<" * 5000 + b"\n\n", "To: cannot be read: an angle bracket has no end"),
        (b'From: a@x\nTo: "b@x\n\n', "To: cannot be read: a quoted string has no end"),
        (b"From: a@x\nTo: <b@x> c@x\n\n", "To: cannot be read: a comma is missing"),
        (b"From: a@x\nTo: b@x c@x\n\n", "To: x c@x: not a domain"),
        (b"From: a@x\nTo: b@x\n" + b"X: y\n" * 10_000, "header: more than 10000 fields"),
        (b"From: a@x\nTo: b@x\nX: y\n" + b" folded\n" * 200_000, "header: more than 1048576 octets"),
        (b"", "none found"),
        (b"\xef\xbb\xbfFrom: a@x\nTo: b@x\n\n", "none found"),
    ],
)
def test_what_has_no_envelope_is_unfit(content: bytes, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        message(content)


@pytest.mark.parametrize(
    "piece", [b"b@x,", b"b@x ", b'"" ', b"()", b",", b'"\\"",', b"<b@x>,", b".", b"@", b":;", b"(\\)"]
)
def test_a_long_list_is_read_or_refused_in_a_moment(piece: bytes) -> None:
    content = b"From: a@x\nTo: friends:" + b"\n ".join([piece * (60_000 // len(piece))] * 16) + b";\n\nbody"
    began = time.process_time()
    with pytest.raises(Unfit):
        message(content)
    assert time.process_time() - began < 5.0


def test_everything_else_stays_as_it_was() -> None:
    content = (
        b"Return-Path: <r@x>\r\nX-Envelope-From: a@x\r\nX-Envelope-To: b@x,\r\n c@x\r\nBcc: secret@x,\r\n\tother@x\r\n"
        b"Subject: =?utf-8?q?x?=\r\n  folded \r\n\r\nBcc: body\r\n\r\n"
    )
    assert below_trace(content) == b"Subject: =?utf-8?q?x?=\r\n  folded \r\n\r\nBcc: body\r\n\r\n"


def test_the_trace_says_that_it_was_dropped_here() -> None:
    content = message(b"From: a@x\nTo: b@x\nSubject: s\nMessage-Id: <1@x>\n\nbody").content
    assert content.startswith(b"Received: by relay.example (smarthost) with local (drop)\r\n\tfor <b@x>;\r\n\tThu, ")


def test_the_peer_will_see_crlf_only() -> None:
    content = message(b"From: a@x\nTo: b@x\r\n\rone\rtwo\nthree\r\n\n.\n").content
    assert content.endswith(b"To: b@x\r\n\r\none\r\ntwo\r\nthree\r\n\r\n.\r\n")
    assert not {*content.replace(b"\r\n", b"")} & {10, 13}


def test_smtputf8_is_asked_for_by_the_envelope() -> None:
    assert message("From: a@x\nTo: jürgen@x\n\n".encode()).smtputf8
    assert not message("From: a@x\nTo: b@x\nSubject: grüße\n\n".encode()).smtputf8


PIECES = [b"From: a@x\n", b"To: ", b"b@x", b"X-Envelope-To:", b"X-Envelope-From:", b"Bcc: ", b",", b";", b"<", b">",
          b'"', b"(", b")", b":", b"[", b"\\", b"\r", b"\n", b" ", b"\x1b", b"\0", b"\xff", b"@"]  # fmt: skip


@given(st.binary(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join))
def test_any_file_is_a_message_or_unfit(content: bytes) -> None:
    try:
        read = message(content)
    except Unfit as unfit:
        assert_shown(str(unfit))
        return
    assert read.recipients
    assert not {*read.content.replace(b"\r\n", b"")} & {0, 10, 13}
    for address in (read.sender, *read.recipients):
        assert_shown(address)


def assert_shown(text: str) -> None:
    assert clean(text, 5000) == text
