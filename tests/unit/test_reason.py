"""Reasons: what a reply says without what differs from message to message."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.outcome import Outcome
from engine.model.reason import LONGEST, reason_of


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (451, "4.7.1 <bob@a.example>: Grey, see http://pg.example/a?id=7", "451 4.7.1 <address>: Grey, see <url>"),
        (450, "4.2.1 <bob>: mailbox busy", "450 4.2.1 <address>: mailbox busy"),
        (550, "5.1.1 bob.o'neil+x@example.org unknown", "550 5.1.1 bob.o'<address> unknown"),
        (452, "4.2.2 over quota; 25MB used of 1,000 MB", "452 4.2.2 over quota; <n>MB used of <n> MB"),
        (421, "4.7.28 [192.0.2.1] too much d2e1a72fcca58-7a2a1b - gsmtp", "421 4.7.28 [<ip>] too much <id> - gsmtp"),
        (421, "mx1.example.org closing. Try mx2.example.org.", "421 <host> closing. Try <host>."),
        (451, "from 2001:db8::1 at 2026-11-20T10:11:12.5Z", "451 from <ip> at <time>"),
        (451, "come back at 12:30:05 or Fri, 20 Nov 2026 00:00:00 +0000", "451 come back at <time> or <time>"),
        (451, "4.7.500 busy (S3150) 421 4.7.28 and 5.1.1 again", "451 4.7.500 busy (S3150) 421 4.7.28 and 5.1.1 again"),
        (451, "UTF-8 and 8BITMIME over TLSv1", "451 UTF-8 and 8BITMIME over TLSv1"),
        (451, "try again in 300s, at most 5 times", "451 try again in <n>s, at most <n> times"),
        (450, "", "450"),
    ],
)  # fmt: skip
def test_what_varies_is_replaced_and_the_codes_stay(code: int, said: str, reason: str) -> None:
    assert reason_of(Outcome.of_reply(code, said)) == reason


def test_what_was_no_reply_has_a_reason_too() -> None:
    outcome = Outcome.transient("connect to [192.0.2.1]:25: no answer within 30 s", enhanced="4.4.1")
    assert reason_of(outcome) == "4.4.1 connect to [<ip>]:<n>: no answer within <n> s"


@given(st.from_regex(r"[a-z]{1,9}[0-9]{1,9}@[a-z]{2,9}\.example", fullmatch=True), st.integers(0, 10**9))
def test_two_replies_that_differ_in_address_and_number_have_one_reason(address: str, number: int) -> None:
    said = Outcome.of_reply(450, f"4.2.1 <{address}>: try {number} of {number + 7} in {number}")
    assert reason_of(said) == "450 4.2.1 <address>: try <n> of <n> in <n>"


def test_a_reason_is_bounded() -> None:
    assert len(reason_of(Outcome.of_reply(450, "4.2.1 " + "so sorry " * 400))) == LONGEST


TEXTS = st.one_of(
    st.text(),
    st.lists(st.sampled_from([*"aZ09.:-_@<>[],/ +é\x1b\udc80", "://", "::", "5.1.1", "12:30"]), max_size=300).map(
        "".join
    ),
)


@given(TEXTS, st.sampled_from([0, 250, 421, 450, 550]))
def test_any_words_have_a_reason_and_always_the_same(text: str, code: int) -> None:
    outcome = Outcome.of_reply(code, text) if code else Outcome.transient(text)
    reason = reason_of(outcome)
    assert reason == reason_of(outcome)
    assert len(reason) <= LONGEST
    assert reason.isprintable()
    assert "\n" not in reason


@pytest.mark.parametrize(
    "part", ["a", "1", "a.", "1.", ":1", "<", "a@", "-", "1-", "http:/", "2026-", "é", "5.1.1.", "_"]
)
def test_no_words_make_it_slow(part: str) -> None:
    outcome = Outcome(kind="transient", text=part * (100_000 // len(part)))
    begin = time.thread_time()
    reason_of(outcome)
    assert time.thread_time() - begin < 0.1
