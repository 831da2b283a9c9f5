"""What became of the entries that an order let go: looked up for those whose fate is not known yet."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from engine.model.destination import RELAY
from engine.model.order import Fate, TouchedEntry
from engine.model.outcome import Outcome
from engine.model.reason import reason_of
from engine.queue.columns import outcome_of

# In the order of TouchedEntry and of `_fate`; () for what has left the queue.
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
    stands = {(message, number): row for message, number, *row in rows}
    return tuple(
        _fate(stands[entry.message, entry.number], how.get((entry.message, entry.number))) for entry in entries
    )


def _fate(row: Sequence[Any], left: tuple[str, str | None] | None) -> Fate:
    state, is_tried, reason, cause, is_later, is_blocked, blocked_why, blocked_cause, is_suspended = row
    if state is None:
        kind, outcome = left or ("", None)
        why = outcome_of(outcome) if kind in ("returned", "discarded") else None
        if kind == "delivered":
            return Fate("delivered")
        if kind in ("returned", "discarded"):
            return Fate("returned", reason_of(why), why.cause) if why is not None else Fate("returned")
        return Fate("dropped" if kind == "dropped" else "gone")
    if is_tried:
        return Fate("deferred", reason or "", cause or "")
    if state == "relaying":
        return Fate("relaying")
    if state == "held":
        return Fate("held")
    if is_suspended:
        return Fate("suspended")
    if is_blocked:
        return Fate("blocked", reason_of(Outcome.transient(blocked_why)) if blocked_why else "", blocked_cause)
    return Fate("later" if is_later else "waiting")
