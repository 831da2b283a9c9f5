"""What became of the entries that an order let go: looked up for those whose fate is not known yet."""

import json
import sqlite3
from collections.abc import Sequence

from engine.model.destination import RELAY
from engine.model.order import Fate, TouchedEntry
from engine.queue.fates import Stands, fate_of

# In the order of TouchedEntry and of Stands; NULL for what has left the queue.
_STANDS = (
    "WITH asked (message, number, attempts) AS MATERIALIZED "  # so that each is read once
    "(SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(:entries)) "
    "SELECT a.message, a.number, e.state, e.attempts > a.attempts, e.reason_key, "
    "iif(json_valid(e.last), e.last ->> 'cause', ''), e.due > :now, "
    "d.blocked_until > :now, d.blocked_why, d.blocked_cause, "
    "EXISTS (SELECT 1 FROM suspension WHERE destination IN (:relay, e.destination) AND until > :now) FROM asked a "
    "LEFT JOIN entry e ON e.message = a.message AND e.number = a.number "
    "LEFT JOIN destination d ON d.name = e.destination"
)
_LEFT = (
    "SELECT message, entry, kind, outcome FROM event "
    "WHERE message IN (SELECT value FROM json_each(?)) AND message > 0 AND seq > ? "
    "AND kind IN ('delivered', 'returned', 'discarded', 'dropped') ORDER BY seq"
)


def fates(
    connection: sqlite3.Connection, since: int, entries: Sequence[TouchedEntry], *, now: float
) -> tuple[Fate, ...]:
    """The fate of each of these entries, in their order; see Orders.fates."""
    values = {"now": now, "relay": RELAY, "entries": json.dumps(entries)}
    rows = connection.execute(_STANDS, values).fetchall()
    gone = sorted({message for message, _, state, *_ in rows if state is None})
    how = {
        (message, entry): (kind, outcome)
        for message, entry, kind, outcome in connection.execute(_LEFT, (json.dumps(gone), since))
    }
    stands = {(message, number): Stands(*row) for message, number, *row in rows}
    return tuple(
        fate_of(stands[entry.message, entry.number], how.get((entry.message, entry.number))) for entry in entries
    )
