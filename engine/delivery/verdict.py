"""What a transaction came to: for its message, and, where it ended the session, for those that wait behind it."""

from collections.abc import Sequence
from enum import Enum, auto

from engine.delivery.egress import is_for_want_of_a_name
from engine.model.outcome import Outcome


class Verdict(Enum):
    """What becomes of the message."""

    STANDS = auto()  # what was said of it is its result
    SLEPT_IN = auto()  # the peer had closed the idle connection: that is no attempt
    BETWEEN = auto()  # the session was ended between two messages: no attempt at the second, but for a few times
    OTHER_FAMILY = auto()  # our IPv6 address has no name: over IPv4 the same host may take it
    ELSEWHERE = auto()  # it concerns the session alone, and another host may do better: its result only if none does


class Rest(Enum):
    """What becomes of the messages that were to go over a session that was ended."""

    NEXT_HOST = auto()  # they are tried with another host of the site
    AT_ONCE = auto()  # they go back, and nothing keeps the next session from beginning
    CUT_SHORT = auto()  # the same: the host takes so many a session, or has too many of ours
    LATER = auto()  # they go back, and the site is left alone for a while


def verdict(
    outcomes: Sequence[Outcome],
    *,
    is_over: bool,
    was_idle: bool,
    has_delivered: bool,
    is_first: bool,
    may_go_on: bool,
    may_go_over_ipv4: bool = False,
) -> Verdict:
    """Judge a transaction by what was said to each of its recipients, in their order.

    `is_over`: it ended the session, which `was_idle` before. `has_delivered`: the host has taken a message on this
    attempt before; `is_first`: there was none before it; `may_go_on`: another host of the site may be tried;
    `may_go_over_ipv4`: this was over IPv6, and there are addresses of the other family.
    """
    if may_go_over_ipv4 and all(map(is_for_want_of_a_name, outcomes)):
        return Verdict.OTHER_FAMILY
    if not is_over or not all(outcome.kind == "transient" and not outcome.may_duplicate for outcome in outcomes):
        return Verdict.STANDS
    if outcomes[-1].phase == "MAIL":  # which the peer never judged
        if was_idle:
            return Verdict.SLEPT_IN
        if has_delivered:
            return Verdict.BETWEEN
    if is_first and may_go_on and not has_delivered:
        return Verdict.ELSEWHERE
    return Verdict.STANDS


def rest(verdict: Verdict, last: Outcome, taken: int) -> Rest:
    """What becomes of those behind it, given what was said `last` in a session that has `taken` so many messages.

    A host that takes some and then closes is in order: no loop comes of it, since each session takes one more. Else
    what is left is not pressed upon it at once, or we would be listed for it.
    """
    if verdict is Verdict.ELSEWHERE:
        return Rest.NEXT_HOST
    if verdict is Verdict.SLEPT_IN:
        return Rest.AT_ONCE
    if taken and (verdict is Verdict.BETWEEN or last.is_reply_to_mail):
        return Rest.CUT_SHORT
    return Rest.LATER
