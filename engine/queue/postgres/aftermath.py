"""What became of the entries that an order let go: looked up for those whose fate is not known yet."""

from collections.abc import Sequence

from engine.model.destination import RELAY
from engine.model.order import Fate, TouchedEntry
from engine.queue.columns import outcome_of
from engine.queue.fates import Stands, fate_of
from engine.queue.postgres.transaction import Row, Snapshot

# NULL for what has left the queue.
_STANDS = (
    "SELECT a.message, a.number, e.state, e.attempts > a.attempts, e.reason_key, e.last, e.due > $4::float8, "
    "d.blocked_until > $4::float8, d.blocked_why, d.blocked_cause, "
    "EXISTS (SELECT 1 FROM suspension s WHERE s.destination IN ($5::text, e.destination) AND s.until > $4::float8) "
    "FROM unnest($1::bigint[], $2::int[], $3::int[]) AS a (message, number, attempts) "
    "LEFT JOIN entry e ON e.message = a.message AND e.number = a.number "
    "LEFT JOIN destination d ON d.name = e.destination"
)
_LEFT = (
    "SELECT message, entry, kind, outcome FROM event WHERE message = ANY($1::bigint[]) AND message > 0 "
    "AND seq > $2::bigint AND kind IN ('delivered', 'returned', 'discarded', 'dropped') ORDER BY seq"
)


async def fates(s: Snapshot, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
    """The fate of each of these entries, in their order; see Orders.fates."""
    messages = [entry.message for entry in entries]
    numbers = [entry.number for entry in entries]
    rows = await s.fetch(_STANDS, messages, numbers, [entry.attempts for entry in entries], s.now, RELAY)
    gone = sorted({message for message, _, state, *_ in rows if state is None})
    left = await s.fetch(_LEFT, gone, since) if gone else []
    how = {(message, entry): (kind, outcome) for message, entry, kind, outcome in left}
    stands = {(row[0], row[1]): _stands(row) for row in rows}
    return tuple(
        fate_of(stands[entry.message, entry.number], how.get((entry.message, entry.number))) for entry in entries
    )


def _stands(row: Row) -> Stands:
    _, _, state, is_tried, reason, last, *rest = row
    outcome = outcome_of(last) if is_tried else None
    return Stands(state, is_tried, reason, outcome.cause if outcome is not None else None, *rest)
