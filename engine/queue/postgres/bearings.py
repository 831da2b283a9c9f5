"""What bears on when mail of a destination is tried, as the store knows it: blocks, suspensions, exchanges.

`{now}` in a text of SQL is the place of the time: a parameter, as in `LEFT_OUT.format(now="$1")`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.model.destination import RELAY, Bearing, Override, Suspension
from engine.model.message import Entry
from engine.queue.postgres.transaction import Row, Snapshot
from engine.queue.rows import BEARING_WIDTH, bearing_of, entry_of, struct_of

# Of `destination AS d`: the message that is due first, for whom its turn is taken, and whose that is.
_FIRST = (
    "FROM entry f JOIN message g ON g.number = f.message WHERE f.destination = d.name AND f.state = 'waiting' "
    "ORDER BY f.due, f.message, f.number LIMIT 1"
)
FIRST = (
    "(SELECT f.message FROM entry f WHERE f.destination = d.name AND f.state = 'waiting' "
    "ORDER BY f.due, f.message, f.number LIMIT 1)"
)
FIRST_SENDER = f"(SELECT g.sender {_FIRST})"
# Of JOINED, in the order `fields_of` takes them.
COLUMNS = (
    "d.name, d.edge, d.blocked_until, d.blocked_why, d.blocked_cause, d.site, d.took_at, d.unreached_at, "
    "w.message, w.sender, s.since, s.until, s.by, s.note, o.host, o.port, o.since, o.until, o.by, o.note, "
    "ARRAY(SELECT x.host FROM exchange x WHERE x.destination = d.name ORDER BY x.preference)"
)
# Destinations, with the entry `w` that is due first. For few of them: each has its entry looked up.
JOINED = (
    "destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > {now} "
    "LEFT JOIN override o ON o.destination = d.name AND o.until > {now} "
    f"LEFT JOIN LATERAL (SELECT f.message, g.sender, f.last {_FIRST}) w ON TRUE"
)
# Destinations all of whose exchanges operators have marked bad: of these nothing is tried, see MXCalculator.allowed.
# It looks at the marks' destinations alone.
_LEFT_OUT = "SELECT host FROM mark WHERE until > {now} AND by <> 'engine'"
LEFT_OUT = (
    f"SELECT b.destination FROM exchange b WHERE b.host IN ({_LEFT_OUT}) AND NOT EXISTS "
    f"(SELECT 1 FROM exchange x WHERE x.destination = b.destination AND x.host NOT IN ({_LEFT_OUT}))"
)


async def suspensions(s: Snapshot, now: float) -> tuple[Suspension, ...]:
    """Suspensions in force, the relay's own first."""
    rows = await s.fetch(
        "SELECT destination, since, until, by, note FROM suspension WHERE until > $1::float8 "
        "ORDER BY destination <> $2::text, destination",
        now,
        RELAY,
    )
    return tuple(struct_of(Suspension, row) for row in rows)


async def of_relay(s: Snapshot, now: float) -> Suspension | None:
    """The suspension of the whole relay, if there is one."""
    return await _suspension_of(s, RELAY, now)


async def bearings(s: Snapshot, names: Iterable[str], now: float) -> dict[str, Bearing]:
    """What bears on each of these destinations, in two questions."""
    if not (sought := sorted(set(names))):
        return {}
    relay = await of_relay(s, now)
    rows = await s.fetch(
        f"SELECT {COLUMNS} FROM {JOINED.format(now='$2::float8')} WHERE d.name = ANY($1::text[])", sought, now
    )
    return {row[0]: Bearing(**fields_of(row, relay, now)) for row in rows}


async def entries_of(s: Snapshot, rows: Sequence[Row]) -> tuple[Entry, ...]:
    """Give the entries of rows of ENTRY_COLUMNS, each with what bears on its destination."""
    known = await bearings(s, {row[4] for row in rows}, s.now)
    return tuple(entry_of(row, known[row[4]]) for row in rows)


async def of_unknown(s: Snapshot, name: str, now: float) -> Bearing:
    """What bears on a destination of which nothing is known: operators may have steered it all the same."""
    row = await s.row(
        "SELECT destination, host, port, since, until, by, note FROM override "
        "WHERE destination = $1::text AND until > $2::float8",
        name,
        now,
    )
    return Bearing(
        name=name,
        relay=await of_relay(s, now),
        suspended=await _suspension_of(s, name, now),
        is_in_doubt=True,
        override=struct_of(Override, row) if row else None,
    )


def fields_of(row: Row, relay: Suspension | None, now: float) -> dict[str, Any]:
    """The fields of a Bearing from a row that begins with COLUMNS."""
    return bearing_of(row, row[BEARING_WIDTH - 1], relay, now)


async def _suspension_of(s: Snapshot, name: str, now: float) -> Suspension | None:
    row = await s.row(
        "SELECT destination, since, until, by, note FROM suspension "
        "WHERE destination = $1::text AND until > $2::float8",
        name,
        now,
    )
    return struct_of(Suspension, row) if row else None
