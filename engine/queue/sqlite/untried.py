"""Mail that was never tried, found by the destinations of which something waits (see engine.queue.untried)."""

import sqlite3

from engine.queue.sqlite import bearings
from engine.queue.untried import POSTPONED_BY, why_waiting

POSTPONED = "e.postponed_by <> '' AND e.due > ?"  # the time; where nothing keeps its destination, that is why it waits
_POSTPONERS = "SELECT DISTINCT postponed_by FROM entry INDEXED BY entry_postponed WHERE postponed_by <> ''"
# The destinations of which something waits, in the order in which their mail would meet what keeps it.
_WAITING = (
    'SELECT d.name, s."by", d.blocked_until > :now, d.blocked_why, '
    f"d.name IN ({bearings.LEFT_OUT.replace('?', ':now')}) "
    "FROM destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > :now WHERE d.waiting > 0"
)


def waiting(connection: sqlite3.Connection, now: float) -> dict[str, list[str]]:
    """The destinations of which something waits, by the words for why what was never tried does."""
    relay = bearings.of_relay(connection, now)
    found: dict[str, list[str]] = {}
    for name, suspended_by, is_blocked, blocked_why, is_left_out in connection.execute(_WAITING, {"now": now}):
        why = why_waiting(relay, suspended_by, blocked_why, is_left_out=bool(is_left_out), is_blocked=bool(is_blocked))
        found.setdefault(why, []).append(name)
    return found


def postponed(connection: sqlite3.Connection) -> list[str]:
    """The words for what somebody has postponed, of each who has."""
    return [f"{POSTPONED_BY}{by}" for (by,) in connection.execute(_POSTPONERS)]
