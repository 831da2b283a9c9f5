"""Lists of mailboxes are read in one pass, however deep or long they are."""

from email.utils import formataddr, getaddresses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.mailboxes import ListProblem, mailboxes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" , ,", []),
        ("a@x", ["a@x"]),
        ("<a@x>", ["a@x"]),
        ("< a@x >", ["a@x"]),
        ("<>", [""]),
        ("Ann <a@x>, Bob B. <b@x>", ["a@x", "b@x"]),
        ("a@x (Ann), (Bob) b@x", ["a@x", "b@x"]),
        (r"a@x (Ann \) (Bob, c@x)), b@x", ["a@x", "b@x"]),
        ('"a,b"@x, "C, <D>" <c@x>', ['"a,b"@x', "c@x"]),
        (r'"a\"b"@x', [r'"a\"b"@x']),
        ("a@[IPv6:::1], b@[127.0.0.1]", ["a@[IPv6:::1]", "b@[127.0.0.1]"]),
        ("<@one,@two:a@x>, b@x", ["@one,@two:a@x", "b@x"]),
        ("friends: a@x, B <b@x>; c@x", ["a@x", "b@x", "c@x"]),
        ("undisclosed-recipients:;", []),
        ("one: a@x;, two: b@x;", ["a@x", "b@x"]),
        ("a @ x . y", ["a@x.y"]),
        ("a b", ["a b"]),
        ("a (home)@x", ["a@x"]),
        ("=?utf-8?q?=C3=A4?= <a@x>", ["a@x"]),
        ("jürgen@bücher.example", ["jürgen@bücher.example"]),
        ("(" * 5000 + ")" * 5000 + "a@x", ["a@x"]),
    ],
)
def test_the_mailboxes_of_a_list_are_found(text: str, found: list[str]) -> None:
    assert list(mailboxes(text)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(" * 5000, "a comment has no end"),
        ("a@x)", "a bracket has no beginning"),
        ("a@x>", "a bracket has no beginning"),
        ("a@x]", "a bracket has no beginning"),
        ("<a@x", "an angle bracket has no end"),
        ("<a@x, <b@x>", "an angle bracket has no end"),
        ('"a@x', "a quoted string has no end"),
        ("a@[::1", "a square bracket has no end"),
        ("a:b:c@x;", "a group inside a group"),
        ("<a@x> b@x", "a comma is missing"),
        ("<a@x> <b@x>", "a comma is missing"),
        ("a@x;", "a semicolon ends no group"),
    ],
)
def test_what_is_no_list_is_told(text: str, words: str) -> None:
    with pytest.raises(ListProblem, match=words):
        list(mailboxes(text))


@given(st.text(alphabet='a@x.,;:<>"()[]\\ \t\x00\udcff', max_size=60))
def test_any_text_is_a_list_or_a_problem(text: str) -> None:
    try:
        found = list(mailboxes(text))
    except ListProblem:
        return
    assert all(mailbox == mailbox.strip() for mailbox in found)


NAMES = st.text(alphabet='ab ,;:<>"()[]\\.@', max_size=12)


@given(st.lists(st.tuples(NAMES, st.sampled_from(["a@x", "b.c@y.example", '"a,b"@x'])), max_size=5))
def test_names_that_programs_write_hide_no_mailbox(pairs: list[tuple[str, str]]) -> None:
    text = ", ".join(formataddr(pair) for pair in pairs)
    assert list(mailboxes(text)) == [mailbox for _, mailbox in pairs]
    assert [mailbox for _, mailbox in getaddresses([text]) if mailbox] == list(mailboxes(text))
