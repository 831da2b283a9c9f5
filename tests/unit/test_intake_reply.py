"""A reply is a value, and becomes octets in one place."""

import pytest

from engine.intake.reply import MAX_REPLY, Reply, goodbye, too_big


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply(250, "", "OK"), b"250 OK\r\n"),
        (Reply(250, "2.1.0", "Ok"), b"250 2.1.0 Ok\r\n"),
        (Reply(334, "", ""), b"334 \r\n"),
        (Reply(250, "", "relay", more=("SIZE 5", "HELP")), b"250-relay\r\n250-SIZE 5\r\n250 HELP\r\n"),
        (Reply(500, "", "a\r\n250 b"), b"500 a 250 b\r\n"),
        (Reply(500, "", "gr\u00fc\x1b[2J\x7f\x00\u202e"), b"500 gr?\\x1b[2J\\x7f\\x00\\u202e\r\n"),
        (Reply(500, "", "a", more=("b\nc",)), b"500-a\r\n500 b c\r\n"),
        (too_big(7), b"552 5.3.4 Message too big; at most 7 octets are taken\r\n"),
        (goodbye("4.7.0", "relay.example", "Why"), b"421 4.7.0 relay.example Why\r\n"),
    ],
)
def test_a_reply_is_one_line_or_several_of_plain_ascii(reply: Reply, octets: bytes) -> None:
    assert reply.encoded() == octets


def test_a_line_is_cut_where_it_is_too_long() -> None:
    long = "x" * 10_000
    for line in Reply(500, "5.5.2", long, more=(long, long)).encoded().split(b"\r\n")[:-1]:
        assert len(line) == MAX_REPLY
        assert line.endswith(b"x?")


def test_what_a_reply_means_is_asked_of_its_code() -> None:
    assert [Reply(code, "", "").is_permanent for code in (250, 354, 421, 452, 499, 500, 554)] == [False] * 5 + [
        True
    ] * 2
    assert goodbye("4.3.2", "relay.example", "Why").closes
    assert not Reply(421, "", "").closes
