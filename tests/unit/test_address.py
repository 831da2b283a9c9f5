"""Paths are read once, and what passes nobody rewrites later."""

import unicodedata

import pytest
from aiosmtplib.email import quote_address
from hypothesis import example, given
from hypothesis import strategies as st

from engine.base.address import Address, AddressError, parse_domain, parse_path
from engine.base.text import clean


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ann@example.org", "ann@example.org"),
        ("<ann@example.org>", "ann@example.org"),
        ("Ann.B@EXAMPLE.org", "Ann.B@example.org"),
        ('"a,b"@example.com', '"a,b"@example.com'),
        ('"a b"@example.com', '"a b"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('"a\\"b"@example.com', '"a\\"b"@example.com'),
        ('"a\\bc"@example.com', '"abc"@example.com'),
        ("bob%example.org@relay.example", "bob%example.org@relay.example"),
        ("user@[127.0.0.1]", "user@[127.0.0.1]"),
        ("user@[ipv6:2001:DB8::1]", "user@[IPv6:2001:db8::1]"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@BÜCHER。example", "ann@xn--bcher-kva.example"),
        ("<@one.example,@two.example:ann@example.org>", "ann@example.org"),
        ("jürgen@example.org", "jürgen@example.org"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_a_path_is_read(text: str, read: str) -> None:
    assert str(parse_path(text)) == read


@pytest.mark.parametrize(
    "text",
    [
        "a,b@example.com",
        "ann",
        "postmaster",
        "ann@",
        "@example.org",
        "ann@example.org>",
        "<ann@example.org",
        "<<ann@example.org>>",
        " ann@example.org",
        "ann@example.org ",
        "ann b@example.org",
        "ann@exam ple.org",
        ".ann@example.org",
        "ann.@example.org",
        "ann..b@example.org",
        "ann@example..org",
        "ann@example.org.",
        "ann@-example.org",
        "ann@exam_ple.org",
        "ann@192.0.2.1",
        "ann@[192.0.2]",
        "ann@[192.0.2.1",
        "ann@[tag:thing]",
        "ann@[IPv6:fe80::1%eth0]",
        '"ann@example.org',
        '"ann"x@example.org',
        "ann@example.org\r\nRCPT TO:<eve@example.org>",
        "ann@example.org\x00",
        "an\x7fn@example.org",
        "an\x1bn@example.org",
        '"an\nn"@example.org',
        "ann\u202e@example.org",
        "ann\u2028@example.org",
        "ann\u00a0b@example.org",
        "ann\udc80@example.org",
        "ann(comment)@example.org",
        "Ann <ann@example.org>",
        "@one.example:",
        "@one.example,two.example:ann@example.org",
        "a" * 65 + "@example.org",
        "ä" * 33 + "@example.org",
        "ann@" + "a" * 64 + ".org",
        "ann@" + ".".join(["a" * 50] * 6),
        "a" * 60 + "@" + ".".join(["a" * 48] * 4),
        "a" * 3000,
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_path(text)
    assert clean(str(refused.value), 300) == str(refused.value)


def test_the_null_path_is_a_senders_alone() -> None:
    assert str(parse_path("<>", sender=True)) == ""
    assert parse_path("", sender=True) == Address("", "")
    with pytest.raises(AddressError):
        parse_path("<>")


def test_a_bare_postmaster_needs_a_domain_to_belong_to() -> None:
    assert str(parse_path("<PostMaster>", qualify="Relay.example")) == "PostMaster@relay.example"
    with pytest.raises(AddressError):
        parse_path("<webmaster>", qualify="relay.example")


def test_smtputf8_is_asked_for_by_the_local_part_alone() -> None:
    assert parse_path("jürgen@example.org").smtputf8
    assert not parse_path("jurgen@bücher.example").smtputf8


def test_limits_are_those_of_the_rfc() -> None:
    assert parse_path("a" * 64 + "@example.org").local == "a" * 64
    assert parse_domain("a" * 63 + ".org")


@given(st.text(max_size=80) | st.from_regex(r'<?("[^"]*"|[a-z.äß]+)@([a-zé.-]+|\[[0-9a-fIPv:.]+\])>?', fullmatch=True))
@example('"\\\\"@example.org')
@example('""@example.org')
@example('" "@example.org')
def test_any_text_is_read_for_good_or_refused(text: str) -> None:
    try:
        address = parse_path(text)
    except AddressError:
        return
    written = str(address)
    assert not any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in written)
    assert parse_path(written) == address
    assert parse_path(f"<{written}>") == address
    assert address.domain.isascii()
    assert address.domain == address.domain.lower() or address.domain.startswith("[IPv6:")
    assert quote_address(written) == f"<{written}>"  # what the sending library would make of it
