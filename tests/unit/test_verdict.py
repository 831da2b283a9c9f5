"""What a transaction came to, and what becomes of those that were to follow it: the whole table."""

import itertools

import pytest

from engine.delivery.verdict import Rest, Verdict, rest, verdict
from engine.model.outcome import Outcome

TAKEN = Outcome.of_reply(250, "2.0.0 ok", phase="DATA", cause="reply")
BUSY_USER = Outcome.of_reply(450, "4.2.1 busy", phase="RCPT", cause="reply")
NO_USER = Outcome.of_reply(550, "5.1.1 no such user", phase="RCPT", cause="reply")
LEAVE_AT_MAIL = Outcome.of_reply(421, "4.7.0 enough for now", phase="MAIL", cause="reply")
LEAVE_AT_RCPT = Outcome.of_reply(421, "4.7.0 enough for now", phase="RCPT", cause="reply")
LOST_AT_MAIL = Outcome.transient("connection lost", phase="MAIL", cause="lost")
LOST_AFTER_DOT = Outcome(kind="transient", text="connection lost", phase="body", may_duplicate=True, cause="lost")

NAMELESS = Outcome.of_reply(550, "5.7.25 no PTR record", phase="MAIL", cause="reply")
NAMELESS_NOW = Outcome.of_reply(421, "4.7.0 reverse DNS lookup failed", phase="RCPT", cause="reply")

STANDS, SLEPT_IN, BETWEEN, OTHER_FAMILY, ELSEWHERE = Verdict


@pytest.mark.parametrize(
    ("outcomes", "was_idle", "has_delivered", "is_first", "may_go_on", "found"),
    [
        # what the peer has judged, or may have taken, stands whatever else there is
        ([TAKEN], True, True, False, True, STANDS),
        ([NO_USER], False, False, True, True, STANDS),
        ([NO_USER, LEAVE_AT_MAIL], True, True, False, True, STANDS),
        ([TAKEN, BUSY_USER], False, False, True, True, STANDS),
        ([LOST_AFTER_DOT], False, False, True, True, STANDS),
        ([LOST_AFTER_DOT, LOST_AFTER_DOT], True, True, False, True, STANDS),
        # it had closed while nothing was said
        ([LOST_AT_MAIL], True, True, False, True, SLEPT_IN),
        ([LEAVE_AT_MAIL, LEAVE_AT_MAIL], True, False, True, True, SLEPT_IN),
        ([LEAVE_AT_RCPT], True, True, False, True, STANDS),
        # it closed between two messages
        ([LEAVE_AT_MAIL], False, True, False, True, BETWEEN),
        ([LOST_AT_MAIL], False, True, False, False, BETWEEN),
        ([LEAVE_AT_RCPT], False, True, False, True, STANDS),
        # it was of no use from the first
        ([LEAVE_AT_MAIL], False, False, True, True, ELSEWHERE),
        ([LOST_AT_MAIL], False, False, True, True, ELSEWHERE),
        ([LEAVE_AT_RCPT], False, False, True, True, ELSEWHERE),
        ([BUSY_USER], False, False, True, True, ELSEWHERE),
        ([LEAVE_AT_MAIL], False, False, True, False, STANDS),
        ([LEAVE_AT_MAIL], False, False, False, True, STANDS),
    ],
)
def test_a_transaction_that_ended_its_session_is_judged_by_what_it_says_of_the_message(
    outcomes: list[Outcome], was_idle: bool, has_delivered: bool, is_first: bool, may_go_on: bool, found: Verdict
) -> None:
    facts = {"was_idle": was_idle, "has_delivered": has_delivered, "is_first": is_first, "may_go_on": may_go_on}
    assert verdict(outcomes, is_over=True, **facts) is found


@pytest.mark.parametrize("outcome", [TAKEN, BUSY_USER, NO_USER, LEAVE_AT_MAIL, LOST_AT_MAIL, LOST_AFTER_DOT])
def test_where_the_session_goes_on_every_result_stands(outcome: Outcome) -> None:
    for was_idle, has_delivered, is_first, may_go_on in itertools.product((False, True), repeat=4):
        facts = {"was_idle": was_idle, "has_delivered": has_delivered, "is_first": is_first, "may_go_on": may_go_on}
        assert verdict([outcome], is_over=False, **facts) is STANDS


@pytest.mark.parametrize(
    ("outcomes", "may_go_over_ipv4", "found"),
    [
        ([NAMELESS, NAMELESS], True, OTHER_FAMILY),
        ([NAMELESS_NOW], True, OTHER_FAMILY),
        ([NAMELESS, NAMELESS], False, STANDS),
        ([NAMELESS, TAKEN], True, STANDS),  # to others it has been delivered: another session would deliver it again
        ([NAMELESS, NO_USER], True, STANDS),
        ([NO_USER], True, STANDS),
    ],
)
def test_what_our_nameless_address_is_refused_for_may_go_over_the_other_family(
    outcomes: list[Outcome], may_go_over_ipv4: bool, found: Verdict
) -> None:
    for facts in itertools.product((False, True), repeat=4):
        given = dict(zip(("was_idle", "has_delivered", "is_first", "may_go_on"), facts, strict=True))
        assert verdict(outcomes, is_over=False, may_go_over_ipv4=may_go_over_ipv4, **given) is found


@pytest.mark.parametrize(
    ("found", "last", "taken", "becomes"),
    [
        (ELSEWHERE, LEAVE_AT_MAIL, 0, Rest.NEXT_HOST),
        (SLEPT_IN, LOST_AT_MAIL, 5, Rest.AT_ONCE),
        (SLEPT_IN, LOST_AT_MAIL, 0, Rest.AT_ONCE),
        (BETWEEN, LEAVE_AT_MAIL, 5, Rest.CUT_SHORT),
        (BETWEEN, LOST_AT_MAIL, 5, Rest.CUT_SHORT),
        (BETWEEN, LEAVE_AT_MAIL, 0, Rest.LATER),  # it took mail on an earlier session of ours, and none on this one
        (STANDS, TAKEN, 1, Rest.CUT_SHORT),  # it closed behind its 250
        (STANDS, NO_USER, 1, Rest.CUT_SHORT),
        (STANDS, NO_USER, 0, Rest.LATER),
        (STANDS, LEAVE_AT_RCPT, 5, Rest.LATER),  # its leave, in the middle of a message
        (STANDS, LOST_AFTER_DOT, 5, Rest.LATER),
    ],
)
def test_those_that_were_to_follow_are_pressed_upon_no_host_that_broke_off(
    found: Verdict, last: Outcome, taken: int, becomes: Rest
) -> None:
    assert rest(found, last, taken) is becomes
