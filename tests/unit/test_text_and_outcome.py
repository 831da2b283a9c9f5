"""Hostile text becomes harmless, and replies are judged by their code."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.text import clean, clean_lines
from engine.model.outcome import Outcome

# All of Unicode, lone surrogates too: what a reply decoded with surrogateescape may hold.
ANY_TEXT = st.text(st.characters(codec=None))
UNSHOWABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _harmless(text: str) -> bool:
    return not any(unicodedata.category(char) in UNSHOWABLE for char in text)


@given(ANY_TEXT, st.integers(1, 50))
def test_a_cleaned_text_has_no_control_format_or_surrogate_and_keeps_its_limit(text: str, limit: int) -> None:
    shown = clean(text, limit)
    assert _harmless(shown)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown) <= limit


@given(st.binary())
def test_any_bytes_from_a_peer_can_be_cleaned(data: bytes) -> None:
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        assert _harmless(clean(text))


@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(ANY_TEXT)
def test_every_line_is_cleaned(text: str) -> None:
    lines = clean_lines(text, lines=5, limit=20)
    assert len(lines) <= 5
    assert all(_harmless(line) and len(line) <= 20 for line in lines)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("250 ok", "250 ok"),
        ("für Ihre Geduld, 会议 🎉", "für Ihre Geduld, 会议 🎉"),
        ("a\tb", "a b"),
        ("a\r\nb\nc\rd", "a b c d"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\udcff\udc80", "\\xff\\x80"),
        ("\ud800", "\\ud800"),
        ("txt\u202eexe", "txt\\u202eexe"),
        ("a\u2028b", "a\\u2028b"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
    ],
)
def test_what_cannot_be_shown_is_written_out(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_what_is_longer_than_the_limit_ends_in_an_ellipsis() -> None:
    assert clean("abcdef", 6) == "abcdef"
    assert clean("abcdefg", 6) == "abcde…"
    assert clean("\x00\x00", 6) == "\\x00\\…"
    assert len(clean("x" * 10_000_000)) == 1000


def test_lines_lose_their_line_ends_and_are_bounded_in_number() -> None:
    assert clean_lines("a\r\nb\nc") == ["a", "b", "c"]
    assert clean_lines("a\nb\nc", lines=2) == ["a", "b"]
    assert clean_lines("") == [""]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (200, "delivered"), (250, "delivered"), (299, "delivered"),
        (354, "transient"), (421, "transient"), (450, "transient"), (499, "transient"),
        (500, "permanent"), (550, "permanent"), (599, "permanent"),
        (0, "transient"), (-1, "transient"), (25, "transient"), (199, "transient"), (600, "transient"),
    ],
)  # fmt: skip
def test_a_reply_is_judged_by_its_code(code: int, kind: str) -> None:
    assert Outcome.of_reply(code, "text").kind == kind


@given(st.integers(-1000, 2000), ANY_TEXT)
def test_any_reply_makes_an_outcome_that_can_be_shown_and_stored(code: int, text: str) -> None:
    outcome = Outcome.of_reply(code, text, host="mx.example", phase="RCPT")
    assert _harmless(outcome.line)
    outcome.line.encode("utf-8")
    assert (outcome.host, outcome.phase, outcome.code) == ("mx.example", "RCPT", code)


@pytest.mark.parametrize(
    ("code", "text", "enhanced", "said"),
    [
        (550, "5.1.1 no such user", "5.1.1", "no such user"),
        (250, "2.0.0", "2.0.0", ""),
        (450, "4.7.28  slow down", "4.7.28", "slow down"),
        (550, "4.1.1 the classes differ", "", "4.1.1 the classes differ"),
        (550, "5.1.1234 is no code", "", "5.1.1234 is no code"),
        (550, "5.1.1no space", "", "5.1.1no space"),
        (550, "3.1.1 no such class", "", "3.1.1 no such class"),
    ],
)
def test_an_enhanced_code_is_taken_when_it_agrees_with_the_reply(
    code: int, text: str, enhanced: str, said: str
) -> None:
    outcome = Outcome.of_reply(code, text)
    assert (outcome.enhanced, outcome.text) == (enhanced, said)


def test_an_outcome_reads_as_a_postmaster_writes_it() -> None:
    assert Outcome.of_reply(550, "5.1.1 no such user").line == "550 5.1.1 no such user"
    assert Outcome.of_reply(250, "ok").line == "250 ok"
    assert Outcome.transient("timed out", enhanced="4.4.2").line == "4.4.2 timed out"


def test_failures_without_a_reply_are_cleaned_and_have_no_code() -> None:
    transient = Outcome.transient("a\x1bb", host="mx.example", phase="connecting")
    assert (transient.kind, transient.code, transient.text) == ("transient", 0, "a\\x1bb")
    permanent = Outcome.permanent("a\nb", enhanced="5.1.2")
    assert (permanent.kind, permanent.text, permanent.may_duplicate) == ("permanent", "a b", False)
