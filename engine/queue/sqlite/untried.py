"""Mail that was never tried, and why: its destination is suspended, left out or blocked, or somebody holds it.

What somebody has postponed waits for that where nothing keeps its destination.

Each has words that stand for a reason, as a reply does for mail that was tried; `group="..."` names it by them.
"""

import sqlite3
from collections.abc import Mapping

from engine.model.reason import reason_of_line
from engine.queue.sqlite import bearings

NOT_TRIED = "not tried yet"
HOSTS_BAD = "all exchanges are marked bad"
_SUSPENDED = "suspended by "
_RELAY_SUSPENDED = "the whole relay is suspended by "
_POSTPONED = "postponed by "
_HELD = ("held by ", "to be bounced by ", "to be dropped by ")

# Why a held entry is: who ordered it, or which rule.
HELD = (
    "CASE WHEN e.ordered = 'bounce' THEN 'to be bounced by ' || e.ordered_by "
    "WHEN e.ordered = 'drop' THEN 'to be dropped by ' || e.ordered_by "
    "WHEN e.rule IS NOT NULL THEN 'held by hold rule ' || e.rule || ' of ' || e.ordered_by "
    "ELSE 'held by ' || e.ordered_by END"
)
POSTPONED = "e.postponed_by <> '' AND e.due > ?"  # the time; where nothing keeps its destination, that is why it waits
_POSTPONERS = "SELECT DISTINCT postponed_by FROM entry INDEXED BY entry_postponed WHERE postponed_by <> ''"
# The destinations of which something waits, in the order in which their mail would meet what keeps it.
_WAITING = (
    'SELECT d.name, s."by", d.blocked_until > :now, d.blocked_why, '
    f"d.name IN ({bearings.LEFT_OUT.replace('?', ':now')}) "
    "FROM destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > :now WHERE d.waiting > 0"
)

Untried = Mapping[str, list[str]]


def waiting(connection: sqlite3.Connection, now: float) -> dict[str, list[str]]:
    """The destinations of which something waits, by the words for why what was never tried does."""
    relay = bearings.of_relay(connection, now)
    found: dict[str, list[str]] = {}
    for name, suspended_by, is_blocked, blocked_why, is_left_out in connection.execute(_WAITING, {"now": now}):
        if relay is not None:
            why = f"{_RELAY_SUSPENDED}{relay.by}"
        elif suspended_by is not None:
            why = f"{_SUSPENDED}{suspended_by}"
        elif is_left_out:
            why = HOSTS_BAD
        elif is_blocked:
            why = reason_of_line(blocked_why)
        else:
            why = NOT_TRIED
        found.setdefault(why, []).append(name)
    return found


def postponed(connection: sqlite3.Connection) -> list[str]:
    """The words for what somebody has postponed, of each who has."""
    return [f"{_POSTPONED}{by}" for (by,) in connection.execute(_POSTPONERS)]


def postponed_by(why: str) -> str:
    """Who has postponed mail that waits for this reason; "" where it is another."""
    return why.removeprefix(_POSTPONED) if why.startswith(_POSTPONED) else ""


def is_of_held(why: str) -> bool:
    """Whether these words are for mail that is held."""
    return why.startswith(_HELD)


def is_reply(why: str) -> bool:
    """Whether these words may be a reply, which mail that was tried has as well."""
    return why not in (NOT_TRIED, HOSTS_BAD) and not why.startswith((_SUSPENDED, _RELAY_SUSPENDED, _POSTPONED, *_HELD))
