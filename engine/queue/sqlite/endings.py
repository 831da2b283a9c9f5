"""What would go if a mark, a suspension, an override or a hold rule were ended: counted before anybody ends it."""

import sqlite3

from engine.model.destination import RELAY
from engine.model.message import Selection
from engine.model.order import Ending
from engine.queue.columns import storable
from engine.queue.sqlite import rules
from engine.queue.sqlite.selection import chosen
from engine.queue.sqlite.where import Where

# Destinations that have this host and else only bad ones.
_STUCK = (
    "SELECT b.destination FROM exchange b WHERE b.host = ? AND NOT EXISTS ("
    "SELECT 1 FROM exchange x WHERE x.destination = b.destination AND x.host <> b.host "
    "AND x.host NOT IN (SELECT host FROM mark WHERE until > ?))"
)


def waits_for(host: str, now: float) -> Where:
    """What waits for one host: its destinations have no other that is not bad."""
    return Where(f"e.destination IN ({_STUCK}) AND e.state = 'waiting'", (storable(host).lower(), now))


def lets_go(connection: sqlite3.Connection, ending: Ending, name: str, *, now: float) -> Selection:
    """What would go if this ended; see Listing.lets_go."""
    if ending == "mark":
        return chosen(connection, waits_for(name, now), now=now)
    if ending == "suspension":
        return chosen(connection, _suspended(storable(name).lower(), now), now=now)
    if ending == "override":
        return chosen(
            connection, Where("e.destination = ? AND e.state = 'waiting'", (storable(name).lower(),)), now=now
        )
    return chosen(connection, rules.held_by_it_alone(connection, int(name), now), now=now)


def _suspended(name: str, now: float) -> Where:
    """What this suspension alone keeps: that of the relay not what is suspended by itself, and the other way round."""
    if name == RELAY:
        own = "SELECT destination FROM suspension WHERE until > ?"
        return Where(f"e.state = 'waiting' AND e.destination NOT IN ({own})", (now,))
    whole = "SELECT 1 FROM suspension WHERE destination = ? AND until > ?"
    return Where(f"e.destination = ? AND e.state = 'waiting' AND NOT EXISTS ({whole})", (name, RELAY, now))
