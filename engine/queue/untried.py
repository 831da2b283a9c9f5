"""Why mail was never tried, in words that stand for a reason as a reply does: in every store the same.

Its destination is suspended, left out or blocked, or somebody holds it; what somebody has postponed waits for that
where nothing keeps its destination. `group="..."` names it by these words.
"""

from collections.abc import Mapping

from engine.model.destination import Suspension
from engine.model.reason import reason_of_line

NOT_TRIED = "not tried yet"
HOSTS_BAD = "all exchanges are marked bad"
_SUSPENDED = "suspended by "
_RELAY_SUSPENDED = "the whole relay is suspended by "
POSTPONED_BY = "postponed by "
_HELD = ("held by ", "to be bounced by ", "to be dropped by ")

# Why an entry `e` is held, in SQL: who ordered it, or which rule.
HELD = (
    "CASE WHEN e.ordered = 'bounce' THEN 'to be bounced by ' || e.ordered_by "
    "WHEN e.ordered = 'drop' THEN 'to be dropped by ' || e.ordered_by "
    "WHEN e.rule IS NOT NULL THEN 'held by hold rule ' || e.rule || ' of ' || e.ordered_by "
    "ELSE 'held by ' || e.ordered_by END"
)

Untried = Mapping[str, list[str]]  # destinations of which something waits, by why what was never tried does


def why_waiting(
    relay: Suspension | None, suspended_by: str | None, blocked_why: str, *, is_left_out: bool, is_blocked: bool
) -> str:
    """Why mail of a destination waits that was never tried: the first that its mail would meet."""
    if relay is not None:
        return f"{_RELAY_SUSPENDED}{relay.by}"
    if suspended_by is not None:
        return f"{_SUSPENDED}{suspended_by}"
    if is_left_out:
        return HOSTS_BAD
    return reason_of_line(blocked_why) if is_blocked else NOT_TRIED


def postponed_by(why: str) -> str:
    """Who has postponed mail that waits for this reason; "" where it is another."""
    return why.removeprefix(POSTPONED_BY) if why.startswith(POSTPONED_BY) else ""


def is_of_held(why: str) -> bool:
    """Whether these words are for mail that is held."""
    return why.startswith(_HELD)


def is_reply(why: str) -> bool:
    """Whether these words may be a reply, which mail that was tried has as well."""
    return why not in (NOT_TRIED, HOSTS_BAD) and not why.startswith(
        (_SUSPENDED, _RELAY_SUSPENDED, POSTPONED_BY, *_HELD)
    )
