"""Rewriting: which rule counts for an address, and that of a message nothing else is touched."""

import pytest

from engine.base.address import parse_path
from engine.intake.content import read_header
from engine.intake.rewriting import Rewriter
from engine.model.message import DsnRequest
from engine.settings.settings import Rewrite

RULES = (
    Rewrite(match="www-data@web1.local", to="web@example.com"),
    Rewrite(match="root", to="ops@example.com"),
    Rewrite(match="*@web2.local", to="*@example.com"),
    Rewrite(match="*@*.local", to="machines@example.com", keep_original=True),
    Rewrite(match="root", to="admin@example.com", of="recipients"),
    Rewrite(match="postmaster", to="admin@example.com", of="recipients"),
)
REWRITER = Rewriter(RULES, "relay.example.com")


@pytest.mark.parametrize(
    ("given", "put"),
    [
        ("www-data@web1.local", "web@example.com"),
        ("WWW-Data@WEB1.local", "web@example.com"),
        ("root@relay.example.com", "ops@example.com"),
        ("root@elsewhere.example", "root@elsewhere.example"),
        ("ann@web2.local", "ann@example.com"),
        ("ann@web3.local", "machines@example.com"),
        ("ann@deep.web3.local", "machines@example.com"),
        ("ann@local", "ann@local"),
        ("ann@example.com", "ann@example.com"),
    ],
)
def test_the_most_particular_rule_counts(given: str, put: str) -> None:
    assert str(REWRITER.sender(parse_path(given))) == put


def test_one_address_for_all_leaves_the_null_sender_alone() -> None:
    rewriter = Rewriter((Rewrite(match="*", to="noreply@example.com"),), "relay.example.com")
    assert str(rewriter.sender(parse_path("ann@example.org"))) == "noreply@example.com"
    assert str(rewriter.sender(parse_path("<>", sender=True))) == ""


def test_a_rule_counts_once() -> None:
    circle = Rewriter(
        (Rewrite(match="a@x.example", to="b@x.example"), Rewrite(match="b@x.example", to="a@x.example")), "r.example"
    )
    assert str(circle.sender(parse_path("a@x.example"))) == "b@x.example"


def test_recipients_come_once_and_what_was_given_goes_along_for_notifications() -> None:
    given = tuple(map(parse_path, ("root@relay.example.com", "bob@example.org", "postmaster@relay.example.com")))
    recipients, dsn = REWRITER.recipients(given, ())
    assert [str(each) for each in recipients] == ["admin@example.com", "bob@example.org"]
    assert dsn == (DsnRequest(orcpt="rfc822;root@relay.example.com"), DsnRequest())
    asked = (DsnRequest(notify="NEVER", orcpt="rfc822;x@y"), DsnRequest(), DsnRequest())
    assert REWRITER.recipients(given, asked)[1][0] == asked[0]
    assert REWRITER.recipients(given[1:2], ()) == (given[1:2], ())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: www-data@web1.local", b"From: web@example.com"),
        (b"from:   Web <www-data@web1.local> (cron)", b"from:   Web <web@example.com> (cron)"),
        (
            b'From: =?utf-8?q?J=C3=B6rg?= <www-data@web1.local>,\r\n\t"x, y" <ann@web2.local>',
            b'From: =?utf-8?q?J=C3=B6rg?= <web@example.com>,\r\n\t"x, y" <ann@example.com>',
        ),
        (
            b"Sender: www-data@web1.local\r\nReply-To: ann@web2.local",
            b"Sender: web@example.com\r\nReply-To: ann@example.com",
        ),
        (b"From: group: www-data@web1.local, ann@example.org;", b"From: group: web@example.com, ann@example.org;"),
        (b"To: www-data@web1.local\r\nSubject: www-data@web1.local", None),
        (b"From: www-data@web1.local, <broken", None),
        (b"From: not an address", None),
        (b"From: caf\xe9 <ann@example.org>", None),
    ],
)
def test_of_a_message_the_senders_alone_are_touched(before: bytes, after: bytes | None) -> None:
    body = b"\r\n\r\nFrom: www-data@web1.local\r\n"
    content = before + body
    assert REWRITER.content(read_header(content)) == (before if after is None else after) + body


def test_the_original_is_kept_where_the_rule_says_so() -> None:
    content = b"Subject: x\r\nFrom: Ann <ann@web3.local>\r\n\r\nbody\r\n"
    assert REWRITER.content(read_header(content)) == (
        b"X-Original-From: Ann <ann@web3.local>\r\nSubject: x\r\nFrom: Ann <machines@example.com>\r\n\r\nbody\r\n"
    )
