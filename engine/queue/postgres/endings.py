"""What would go if a mark, a suspension, an override or a hold rule were ended: counted before anybody ends it."""

from engine.model.destination import RELAY
from engine.model.message import Selection
from engine.model.order import Ending
from engine.queue.postgres import rules
from engine.queue.postgres.rows import storable
from engine.queue.postgres.selection import chosen
from engine.queue.postgres.transaction import Snapshot
from engine.queue.postgres.where import Where

# Destinations that have this host and else only bad ones.
_STUCK = (
    "SELECT b.destination FROM exchange b WHERE b.host = ?::text AND NOT EXISTS ("
    "SELECT 1 FROM exchange x WHERE x.destination = b.destination AND x.host <> b.host "
    "AND x.host NOT IN (SELECT host FROM mark WHERE until > ?::float8))"
)


def waits_for(host: str, now: float) -> Where:
    """What waits for one host: its destinations have no other that is not bad."""
    return Where(f"e.destination IN ({_STUCK}) AND e.state = 'waiting'", (storable(host).lower(), now))


async def lets_go(s: Snapshot, ending: Ending, name: str) -> Selection:
    """What would go if this ended; see Listing.lets_go."""
    if ending == "mark":
        return await chosen(s, waits_for(name, s.now))
    if ending == "suspension":
        return await chosen(s, _suspended(storable(name).lower(), s.now))
    if ending == "override":
        waiting = Where("e.destination = ?::text AND e.state = 'waiting'", (storable(name).lower(),))
        return await chosen(s, waiting)
    return await chosen(s, await rules.held_by_it_alone(s, int(name), s.now))


def _suspended(name: str, now: float) -> Where:
    """What this suspension alone keeps: that of the relay not what is suspended by itself, and the other way round."""
    if name == RELAY:
        own = "SELECT destination FROM suspension WHERE until > ?::float8"
        return Where(f"e.state = 'waiting' AND e.destination NOT IN ({own})", (now,))
    whole = "SELECT 1 FROM suspension WHERE destination = ?::text AND until > ?::float8"
    return Where(f"e.destination = ?::text AND e.state = 'waiting' AND NOT EXISTS ({whole})", (name, RELAY, now))
