"""Mail that was never tried, found by the destinations of which something waits (see engine.queue.untried)."""

from engine.queue.postgres import bearings
from engine.queue.postgres.transaction import Snapshot
from engine.queue.untried import why_waiting

# Its parameter is the time; where nothing keeps its destination, that is why it waits.
POSTPONED = "e.postponed_by <> '' AND e.due > ?::float8"
# The destinations of which something waits, in the order in which their mail would meet what keeps it.
_WAITING = (
    "SELECT d.name, s.by, d.blocked_until > $1::float8, d.blocked_why, "
    f"d.name IN ({bearings.LEFT_OUT.format(now='$1::float8')}) "
    "FROM destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > $1::float8 WHERE d.waiting > 0"
)


async def waiting(s: Snapshot, now: float) -> dict[str, list[str]]:
    """The destinations of which something waits, by the words for why what was never tried does."""
    relay = await bearings.of_relay(s, now)
    found: dict[str, list[str]] = {}
    for name, suspended_by, is_blocked, blocked_why, is_left_out in await s.fetch(_WAITING, now):
        why = why_waiting(relay, suspended_by, blocked_why, is_left_out=is_left_out, is_blocked=is_blocked)
        found.setdefault(why, []).append(name)
    return found
