"""What bad MX hosts hold back: how much mail waits for each, in which destinations, and which host is tried instead."""

from collections.abc import Sequence

from engine.model.destination import HeldBack
from engine.queue.bounds import ALTERNATES_NAMED, NAMED, TRIED_FIRST
from engine.queue.postgres.bearings import bearings
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot

_COUNTS = (
    "SELECT b.host, sum(d.waiting)::bigint FROM destination d JOIN exchange b ON b.destination = d.name "
    "WHERE d.waiting > 0 AND NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name "
    "AND NOT EXISTS (SELECT 1 FROM mark m WHERE m.host = x.host AND m.until > $1::float8)) GROUP BY b.host"
)
# A host that is good: it is none of those asked for ($1), and has no mark in force ($2 is now).
_GOOD = "x.host <> ALL($1::text[]) AND NOT EXISTS (SELECT 1 FROM mark m WHERE m.host = x.host AND m.until > $2::float8)"
_STUCK = f"NOT EXISTS (SELECT 1 FROM exchange x WHERE x.destination = d.name AND {_GOOD})"
_AFFECTED = "FROM exchange b JOIN destination d ON d.name = b.destination WHERE b.host = h.host"
# Of each host: how much is stuck, and when the first of it is due; the destinations with most waiting; the hosts that
# are used instead; and the stuck destinations that are tried first, by schedule, block and suspension.
_HELD_BACK = (
    "SELECT h.host, k.waiting, k.edge, "
    f"ARRAY(SELECT d.name {_AFFECTED} ORDER BY d.waiting DESC, d.name LIMIT {NAMED}), "
    f"ARRAY(SELECT DISTINCT x.host FROM exchange x WHERE {_GOOD} AND x.destination IN (SELECT d.name {_AFFECTED}) "
    f"ORDER BY x.host LIMIT {ALTERNATES_NAMED}), "
    "ARRAY(SELECT d.name FROM exchange b JOIN destination d ON d.name = b.destination "
    "LEFT JOIN suspension s ON s.destination = d.name AND s.until > $2::float8 "
    f"WHERE b.host = h.host AND d.waiting > 0 AND {_STUCK} "
    f"ORDER BY greatest(d.ready, coalesce(s.until, 0)), d.name LIMIT {TRIED_FIRST}) "
    "FROM unnest($1::text[]) AS h (host), LATERAL "
    f"(SELECT coalesce(sum(d.waiting), 0)::bigint AS waiting, min(d.edge) AS edge {_AFFECTED} AND {_STUCK}) k"
)


async def held_back_counts(s: Snapshot) -> dict[str, int]:
    """How many wait because of each host with a mark: one walk over the destinations in which something waits."""
    rows = await s.fetch(_COUNTS, s.now)
    return {row[0]: row[1] for row in rows}


async def held_back(s: Snapshot, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
    """What waits because of each of these hosts, which are bad as are all that have a mark; see Listing.held_back."""
    names = [storable(host).lower() for host in hosts]
    found = {host: tuple(row) for host, *row in await s.fetch(_HELD_BACK, sorted(set(names)), s.now)}
    known = await bearings(s, {name for *_, first in found.values() for name in first}, s.now)
    return tuple(
        HeldBack(
            host=host,
            waiting=waiting,
            destinations=tuple(destinations),
            alternates=tuple(alternates),
            next_due=edge,
            first=tuple(known[name] for name in first),
        )
        for host, (waiting, edge, destinations, alternates, first) in zip(
            hosts, (found[name] for name in names), strict=True
        )
    )
