"""MTA-STS records and policies: read as RFC 8461 writes them, and whatever bytes come, nothing but PolicyError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.text import clean
from engine.tls.mta_sts import LARGEST, LONGEST_AGE, Policy, PolicyError, announced_id, parse_policy

POLICY = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 86400\r\n"


def test_the_policy_of_the_rfc_is_read() -> None:
    written = parse_policy(POLICY)
    assert (written.mode, written.mx, written.max_age) == ("enforce", ("mail.example.com", "*.example.net"), 86400)


@pytest.mark.parametrize(
    "body",
    [
        POLICY.replace(b"\r\n", b"\n"),
        POLICY.rstrip(),
        POLICY.replace(b": ", b":").replace(b"\r\n", b" \t\r\n"),
        POLICY + b"mode: none\r\nmax_age: 1\r\nversion: STSv2\r\n",  # of a repeated key the first counts
        POLICY + b"x-new.key_1: anything: at all\r\n\r\n",
        POLICY.replace(b"mail.example.com", b"Mail.Example.COM."),
    ],
)
def test_a_policy_may_be_written_in_several_ways(body: bytes) -> None:
    assert parse_policy(body) == parse_policy(POLICY)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "version"),
        (POLICY.replace(b"STSv1", b"STSv2"), "version"),
        (POLICY.replace(b"enforce", b"strict"), "mode"),
        (POLICY.replace(b"enforce", b"Enforce"), "mode"),
        (POLICY.replace(b"86400", b"1d"), "max_age"),
        (POLICY.replace(b"86400", b"-1"), "max_age"),
        (POLICY.replace(b"86400", "٣".encode()), "max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "names no mx"),
        (POLICY.replace(b"*.example.net", b"*.*.net"), "names a host"),
        (POLICY.replace(b"*.example.net", b"mx.*.net"), "names a host"),
        (POLICY.replace(b"*.example.net", b"*"), "names a host"),
        (POLICY + b"<html>", "no 'key: value'"),
        (POLICY + b"\xff", "UTF-8"),
        (POLICY + b" " * LARGEST, "bytes"),
        (POLICY + b"mx: a.example\n" * 1001, "1000 hosts"),
    ],
)
def test_what_is_no_policy_is_refused_with_a_reason(body: bytes, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        parse_policy(body)


def test_a_policy_lasts_a_year_at_the_most_and_none_needs_no_host() -> None:
    written = parse_policy(b"version: STSv1\nmode: none\nmax_age: 9999999999")
    assert (written.mode, written.mx, written.max_age) == ("none", (), LONGEST_AGE)


@given(st.binary(max_size=300) | st.text().map(lambda text: POLICY + text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_policy_or_an_error_that_can_be_shown(body: bytes) -> None:
    said = ""
    try:
        parse_policy(body)
    except PolicyError as error:
        said = str(error)
    assert said == clean(said)


@given(st.lists(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: b"v=STSv1;" + tail), max_size=3))
def test_any_records_announce_an_id_or_none(texts: list[bytes]) -> None:
    found = announced_id(texts)
    assert found is None or (found.isascii() and found.isalnum() and 0 < len(found) <= 32)


@pytest.mark.parametrize(
    ("texts", "id"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=a1"], "a1"),
        ([b"v=STSv1 ; id=a1 ; x=1;"], "a1"),
        ([b"v=STSv1; id=a1; id=b2"], "a1"),
        ([b"v=spf1 -all", b"v=STSv1; id=a1"], "a1"),
        ([b"v=STSv1; id=a1", b"v=STSv1; id=b2"], None),
        ([b"v=STSv1; id="], None),
        ([b"v=STSv1;"], None),
        ([b"v=STSv1; id=a-1"], None),
        ([b"v=STSv1; id=" + b"a" * 33], None),
        ([b"v=STSv10; id=a1"], None),
        ([b"id=a1; v=STSv1"], None),
        ([b"v=STSv1; id=a1; nonsense"], None),
        ([], None),
    ],
)
def test_exactly_one_right_record_announces_a_policy(texts: list[bytes], id: str | None) -> None:
    assert announced_id(texts) == id


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("a.mail.example.com", False),
        ("example.com", False),
        ("mx.example.net", True),
        ("a.mx.example.net", False),
        ("example.net", False),
        (".example.net", False),
    ],
)
def test_a_wildcard_stands_for_one_label(host: str, named: bool) -> None:
    policy = Policy(
        domain="example.com", id="1", mode="enforce", mx=("mail.example.com", "*.example.net"), fetched=0, expires=1
    )
    assert policy.names(host) == named
