"""The header with which a proxy says whom it brings: read in whatever pieces, and nothing else is taken for one."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.smtp.proxy import MAX_BLOCK, MAX_LINE, Header, NoHeader, read_header
from tests.scenarios.proxying import LOCAL, SIGNATURE, block, line, tlv

GOOD = [
    (line("192.0.2.10"), "192.0.2.10"),
    (line("2001:db8::10"), "2001:db8::10"),
    (b"PROXY TCP6 2001:DB8:0:0:0:0:0:10 ::1 0 65535\r\n", "2001:db8::10"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", ""),
    (b"PROXY UNKNOWN what ever this is\r\n", ""),
    (block("192.0.2.10"), "192.0.2.10"),
    (block("2001:db8::10"), "2001:db8::10"),
    (block("192.0.2.10", more=tlv(0x04, b"\0" * 600) + tlv(0x05, b"an id")), "192.0.2.10"),
    (block("192.0.2.10", more=b"\xff"), "192.0.2.10"),  # what no TLV is, is skipped as well
    (block("192.0.2.10", more=b"x" * (MAX_BLOCK - 12)), "192.0.2.10"),
    (block(command=LOCAL), ""),
    (block("192.0.2.10", command=LOCAL), ""),
    (block(command=LOCAL, family=0x99), ""),
    (block(), ""),
    (block(more=b"x" * 216, family=0x31), ""),
]

BAD = [
    b"EHLO client.example\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # a handshake
    b"PROXZ ",
    b"proxy TCP4 192.0.2.10 198.51.100.1 1 25\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UDP4 192.0.2.10 198.51.100.1 1 25\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 1\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 1 25 \r\n",
    b"PROXY TCP4  192.0.2.10 198.51.100.1 1 25\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 -1 25\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 \xb2 25\r\n",
    b"PROXY TCP4 192.0.2.300 198.51.100.1 1 25\r\n",
    b"PROXY TCP4 192.0.2.010 198.51.100.1 1 25\r\n",
    b"PROXY TCP4 2001:db8::10 2001:db8::1 1 25\r\n",
    b"PROXY TCP6 192.0.2.10 198.51.100.1 1 25\r\n",
    b"PROXY TCP6 fe80::1%eth0 2001:db8::1 1 25\r\n",
    b"PROXY TCP4 client.example 198.51.100.1 1 25\r\n",
    b"PROXY TCP4 192.0.2.10\0 198.51.100.1 1 25\r\n",
    b"PROXY UNKNOWN " + b"x" * MAX_LINE + b"\r\n",
    b"PROXY TCP4 192.0.2.10 198.51.100.1 1 25\n" + b" " * MAX_LINE,
    SIGNATURE[:11] + b"\r",
    SIGNATURE + b"\x11\x11\0\x0c" + b"x" * 12,
    SIGNATURE + b"\x22\x11\0\x0c" + b"x" * 12,
    SIGNATURE + b"\x21\x11\0\x0b" + b"x" * 11,
    SIGNATURE + b"\x21\x21\0\x23" + b"x" * 35,
    SIGNATURE + b"\x21\x11\xff\xff",
    SIGNATURE + b"\x20\x00\xff\xff",
    block("192.0.2.10", more=b"x" * (MAX_BLOCK - 11)),
    block("192.0.2.10", family=0x12),
    block("192.0.2.10", family=0x41),
]


@pytest.mark.parametrize(("header", "client"), GOOD)
def test_a_header_names_its_client_in_whatever_pieces_it_comes(header: bytes, client: str) -> None:
    for end in range(len(header)):
        assert read_header(header[:end]) is None, end
    assert read_header(header) == Header(client, len(header))
    assert read_header(bytearray(header + b"EHLO client.example\r\n")) == Header(client, len(header))


@pytest.mark.parametrize("wrong", BAD)
def test_what_is_none_is_refused_as_soon_as_that_is_seen_and_never_waited_for(wrong: bytes) -> None:
    with pytest.raises(NoHeader):
        read_header(wrong)
    found = None
    with suppress(NoHeader):
        for end in range(len(wrong)):
            found = read_header(wrong[:end])
            assert found is None


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 192.0.2.1 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary())
def test_whatever_comes_is_a_header_or_none_or_to_be_waited_for_and_that_for_no_more_than_its_bound(
    begins: bytes, rest: bytes
) -> None:
    come = begins + rest
    try:
        header = read_header(come)
    except NoHeader:
        return
    if header is None:
        assert len(come) < 16 + MAX_BLOCK
    else:
        assert header.size <= len(come)
        assert read_header(come[: header.size]) == header
        assert read_header(come[: header.size - 1]) is None
