"""Line ends are made right once, header fields are found where they stand, and nothing else changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.content import canonical, has_long_line, read_header, received, with_field
from engine.text import clean

PIECES = [b"\r", b"\n", b"\r\n", b".", b"Subject: x", b" ", b"\t", b":", b"Bcc: a@b", b"\x1b[2J", b"=?utf-8?q?"]
HOSTILE = st.binary(max_size=300) | st.lists(st.sampled_from(PIECES)).map(b"".join)


@pytest.mark.parametrize(
    ("given_", "made"),
    [
        (b"a\r\nb\r\n", b"a\r\nb\r\n"),
        (b"a\nb", b"a\r\nb\r\n"),
        (b"a\rb\r", b"a\r\nb\r\n"),
        (b"a\n\rb", b"a\r\n\r\nb\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n"),
        (b"\n.\n", b"\r\n.\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_every_line_ends_in_crlf(given_: bytes, made: bytes) -> None:
    assert canonical(given_) == made


@given(HOSTILE)
def test_made_right_once_it_stays_so(content: bytes) -> None:
    made = canonical(content)
    assert canonical(made) is made
    assert made.endswith(b"\r\n")
    assert not {*made.replace(b"\r\n", b"")} & {10, 13}


def test_a_line_is_too_long_when_it_passes_the_limit() -> None:
    assert not has_long_line(b"x" * 8 + b"\r\n" + b"y" * 8 + b"\r\n", limit=10)
    assert has_long_line(b"x" * 8 + b"\r\n" + b"y" * 9 + b"\r\n", limit=10)
    assert has_long_line(b"x" * 9 + b"\r\n" + b"y\r\n", limit=10)


def test_fields_are_found_with_their_folded_lines() -> None:
    header = read_header(b"To: a@b,\r\n c@d\r\nSUBJECT : one\r\nto:e@f\r\n\r\nSubject: body\r\n")
    assert header.all(b"to") == [b"a@b, c@d", b"e@f"]
    assert header.count(b"subject") == 1
    assert header.shown(b"subject") == "one"
    assert header.without(b"to") == b"SUBJECT : one\r\n\r\nSubject: body\r\n"
    assert header.without(b"subject", b"to") == b"\r\nSubject: body\r\n"


def test_a_line_that_is_no_field_ends_the_header() -> None:
    header = read_header(b"Subject: one\r\nnot a field\r\nBcc: kept@example.org\r\n")
    assert header.count(b"bcc") == 0
    assert read_header(b" folded: from nothing\r\n\r\n").fields == ()


@pytest.mark.parametrize(
    ("subject", "shown"),
    [
        (b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße"),
        (b"=?iso-8859-1?q?=FC?=\r\n =?iso-8859-1?q?=FC?=", "üü"),
        (b"=?no-such?q?x?=", "=?no-such?q?x?="),
        (b"=?utf-8?b?////?=", "=?utf-8?b?////?="),
        (b"=?utf-8?q?=1B=5B2J?=", "\\x1b[2J"),
        (b"\xfc raw", "\\xfc raw"),
        (b"x" * 500, "x" * 199 + "…"),
    ],
)
def test_a_subject_is_decoded_cleaned_and_cut(subject: bytes, shown: str) -> None:
    assert read_header(b"Subject: " + subject + b"\r\n\r\n").shown(b"subject") == shown


@given(HOSTILE)
def test_any_content_has_a_header_that_can_be_read(content: bytes) -> None:
    made = canonical(content)
    header = read_header(made)
    assert header.without(b"none") == made
    assert b"".join(made[field.start : field.end] for field in header.fields) == made[: header.end]
    assert clean(header.shown(b"subject")) == header.shown(b"subject")
    assert read_header(header.without(b"bcc")).count(b"bcc") == 0


@given(HOSTILE)
def test_what_is_put_on_top_stays_a_field_of_its_own(content: bytes) -> None:
    made = canonical(content)
    whole = with_field(b"Received: x\r\n", made)
    first = read_header(whole).fields[0]
    assert whole[first.start : first.end] == b"Received: x\r\n"
    assert whole.endswith(made)


def test_the_trace_names_a_single_recipient_only() -> None:
    one = received(sent_by="c (x)", by="relay.example", protocol="ESMTP", at=0.0, recipients=("a@b",))
    assert one == (
        b"Received: from c (x)\r\n\tby relay.example (smarthost) with ESMTP\r\n\tfor <a@b>;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )
    assert b"for" not in received(sent_by="", by="r", protocol="local (drop)", at=0.0, recipients=("a@b", "c@d"))
