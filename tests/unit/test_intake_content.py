"""Line ends are made right once, header fields are found where they stand, and nothing else changes."""

import encodings
import re
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.text import clean
from engine.intake import content as content_module
from engine.intake.content import (
    MAX_FIELDS,
    MAX_HEADER,
    HeaderTooBig,
    canonical,
    has_long_line,
    read_header,
    received,
    unstuffed,
    with_field,
)
from engine.model.message import NewMessage

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


@given(HOSTILE, st.integers(1, 7))
def test_a_line_end_on_the_edge_of_a_slice_is_one_line_end(content: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_module, "SLICE", size)
        made = canonical(content)
    plain = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    assert made == (plain if plain.endswith(b"\r\n") else plain + b"\r\n")


@pytest.mark.parametrize("line", [b"\n", b"\r", b"\r\n", b"\r\r\n", b"x\n"])
def test_four_mebibytes_of_line_ends_are_made_right_in_a_moment(line: bytes) -> None:
    content = line * (4 * 2**20 // len(line))
    assert seconds(lambda: canonical(content)) < 0.4


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@given(HOSTILE.map(lambda content: content.replace(b":", b"\r\n..")), st.lists(st.integers(0, 300), max_size=9))
def test_dots_are_unstuffed_wherever_the_chunks_end(content: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    chunks = [content[start:end] for start, end in pairwise(edges)]
    assert unstuffed(chunks) == content.replace(b"\r\n..", b"\r\n.")


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
        (b"=?KOI8-R?q?=C1?= =?windows-1251?q?=E0?= =?koi8-u?q?=A4?=", "аає"),
        (b"=?hex?q?00?=", "=?hex?q?00?="),
        (b"=?utf-8?b?////?=", "=?utf-8?b?////?="),
        (b"=?utf-8?q?=1B=5B2J?=", "\\x1b[2J"),
        (b"\xfc raw", "\\xfc raw"),
        (b"x" * 500, "x" * 199 + "…"),
    ],
)
def test_a_subject_is_decoded_cleaned_and_cut(subject: bytes, shown: str) -> None:
    assert read_header(b"Subject: " + subject + b"\r\n\r\n").shown(b"subject") == shown


def test_a_header_may_have_ten_thousand_fields_and_no_more() -> None:
    assert len(read_header(b"a:\r\n" * MAX_FIELDS + b"\r\nbody: x\r\n").fields) == 10_000
    with pytest.raises(HeaderTooBig, match="more than 10000 fields"):
        read_header(b"a:\r\n" * (MAX_FIELDS + 1))


@pytest.mark.parametrize("line", [b"X-Long: " + b"y" * 990 + b"\r\n", b" folded" * 100 + b"\r\n"])
def test_a_header_may_have_a_mebibyte_and_no_more(line: bytes) -> None:
    header = b"A: x\r\n" + line * (MAX_HEADER // len(line) - 1)
    assert read_header(header + b"\r\n" + b"body\r\n" * 2**18).end == len(header) <= 2**20
    with pytest.raises(HeaderTooBig, match="more than 1048576 octets"):
        read_header(header + line * 2)


@pytest.mark.parametrize("line", [b"a:\r\n", b" \r\n", b"a:" + b"b" * 60_000 + b"\r\n"])
def test_a_hostile_header_costs_neither_memory_nor_time(line: bytes) -> None:
    content = b"a: b\r\n" + line * (24 * 2**20 // len(line))
    tracemalloc.start()
    with pytest.raises(HeaderTooBig):
        read_header(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20

    def read() -> None:
        with pytest.raises(HeaderTooBig):
            read_header(content)

    assert seconds(read) < 0.5


CHARSETS = ["utf-8", "us-ascii", "utf-7", "utf-16", "idna", "punycode", "unicode_escape", "raw_unicode_escape",
            "undefined", "hex", "rot13", "zip", "bz2", "uu", "base64", "mbcs", "oem", "aliases", "unknown-8bit",
            "koi8-u", "../x", "os.path", "\0", "", "x" * 300, "ü", "utf-8*en", " ", "UTF-----8"]  # fmt: skip
WORDS = st.builds(
    "=?{}?{}?{}?={}".format,
    st.sampled_from(CHARSETS) | st.text(max_size=8),
    st.sampled_from(["q", "b", "Q", "B", "x", ""]),
    st.text(max_size=20)
    | st.sampled_from(["=", "====", "A", "AAA", "=FF=FE", "=ED=A0=80", "xn--", "?", "=?", "+2AA-"]),
    st.sampled_from(["", " ", "\t", "\r\n ", "=?", "?="]),
)


@given(st.lists(WORDS | st.text(max_size=20), max_size=8).map(lambda words: "".join(words).encode("utf-8", "replace")))
def test_whatever_stands_in_a_subject_can_be_shown(subject: bytes) -> None:
    content = canonical(b"Subject: " + subject)
    shown = read_header(content).shown(b"subject")
    assert clean(shown, 200) == shown
    shown.encode()


@pytest.mark.parametrize(
    "junk", [b"=?", b"=?utf-8?q?", b"=?utf-8?q?x?= ", b"=?a?b?", b"?=", b"(", b" \r\n ", b"\xff", b"=?idna?q?.?=", b'"']
)
def test_a_subject_of_a_mebibyte_is_shown_in_a_moment(junk: bytes) -> None:
    header = read_header(canonical(b"Subject: " + junk * (1_000_000 // len(junk))))
    assert seconds(lambda: header.shown(b"subject")) < 0.2


def test_charsets_that_nobody_knows_leave_no_trace_in_memory() -> None:
    known: dict[str, object] = vars(encodings)["_cache"]
    read_header(b"Subject: =?utf-8?q?x?=\r\n").shown(b"subject")
    before = len(known)
    for number in range(50):
        for name in (b"no-such-%d" % number, b"utf" + b"-" * number + b"8"):
            read_header(b"Subject: =?" + name + b"?q?x?=\r\n").shown(b"subject")
    assert len(known) <= before + 1


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
    assert one.field == (
        b"Received: from c (x)\r\n\tby relay.example (smarthost) with ESMTP\r\n\tfor <a@b>;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )
    two = received(sent_by="", by="r", protocol="local (drop)", at=0.0, recipients=("a@b", "c@d"))
    assert b"for" not in two.field


def test_the_trace_has_a_place_for_the_id_of_the_queue_and_says_how_it_was_secured() -> None:
    trace = received(sent_by="c", by="r", protocol="ESMTPSA", at=0.0, secured="TLSv1.3, TLS_AES", recipients=("a@b",))
    message = NewMessage(
        sender="",
        recipients=("a@b",),
        content=with_field(trace.field, b"From: x\r\n\r\n"),
        origin="",
        id_at=trace.id_at,
    )
    assert message.named(48213) == (
        b"Received: from c\r\n\tby r (smarthost) with ESMTPSA\r\n\t(TLSv1.3, TLS_AES)\r\n\tid 48213\r\n\tfor <a@b>;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 +0000\r\nFrom: x\r\n\r\n"
    )
