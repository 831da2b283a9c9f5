"""Reasons: why mail waits, all of it, in groups: by what was said last, or why it was never tried.

Each is what `group="..."` names: see engine.queue.postgres.where.
"""

from engine.model.reason import Reason
from engine.queue.bounds import BUSIEST
from engine.queue.columns import outcome_of
from engine.queue.postgres.transaction import Row, Snapshot
from engine.queue.postgres.untried import POSTPONED, waiting
from engine.queue.untried import HELD, NOT_TRIED, POSTPONED_BY

# Every entry that waits for something, and why; $1 and $2 are the destinations of which something waits, and why what
# was never tried of each does. What is under way waits for nothing.
_WAITS = (
    "SELECT e.reason_key AS why, e.destination, e.message, TRUE AS tried "
    "FROM entry e WHERE e.reason_key IS NOT NULL AND e.state <> 'relaying' "
    f"UNION ALL SELECT CASE WHEN u.why = '{NOT_TRIED}' AND {POSTPONED.replace('?', '$3')} "
    f"THEN '{POSTPONED_BY}' || e.postponed_by ELSE u.why END, e.destination, e.message, FALSE "
    "FROM unnest($1::text[], $2::text[]) AS u (name, why) JOIN entry e ON e.destination = u.name "
    "WHERE e.state = 'waiting' AND e.reason_key IS NULL "
    f"UNION ALL SELECT {HELD}, e.destination, e.message, FALSE "
    "FROM entry e WHERE e.state = 'held' AND e.reason_key IS NULL"
)
# The example is the last outcome of the newest message: there are many that say the same.
_REASONS = (
    f"WITH waits AS NOT MATERIALIZED ({_WAITS}), "
    "parts AS (SELECT why, destination, count(*) AS entries, min(message) AS first, "
    "max(message) FILTER (WHERE tried) AS newest FROM waits GROUP BY why, destination), "
    "whole AS (SELECT why, sum(entries)::bigint AS entries, count(*) AS destinations, "
    f"(array_agg(destination ORDER BY entries DESC, destination))[1:{BUSIEST}] AS busiest, "
    "min(first) AS first, max(newest) AS newest FROM parts "
    'GROUP BY why ORDER BY 2 DESC, why COLLATE "C" LIMIT $4), '
    "messages AS (SELECT why, count(DISTINCT message) AS messages FROM waits "
    "WHERE why IN (SELECT why FROM whole) GROUP BY why) "
    "SELECT w.why, w.entries, n.messages, w.destinations, w.busiest, "
    "(SELECT arrived FROM message WHERE number = w.first), "
    "(SELECT e.last FROM entry e WHERE e.message = w.newest AND e.reason_key = w.why ORDER BY e.number LIMIT 1) "
    'FROM whole w JOIN messages n ON n.why = w.why ORDER BY w.entries DESC, w.why COLLATE "C"'
)


async def reasons(s: Snapshot, limit: int) -> tuple[Reason, ...]:
    """The `limit` reasons with most entries, that with most first."""
    by_name = [(name, why) for why, names in (await waiting(s, s.now)).items() for name in names]
    names, whys = [name for name, _ in by_name], [why for _, why in by_name]
    return tuple(map(_reason, await s.fetch(_REASONS, names, whys, s.now, max(0, limit))))


def _reason(row: Row) -> Reason:
    group, entries, messages, destinations, busiest, oldest, last = row
    return Reason(
        group=group,
        entries=entries,
        messages=messages,
        destinations=destinations,
        busiest=tuple(busiest),
        oldest=oldest,
        example=outcome_of(last),
    )
