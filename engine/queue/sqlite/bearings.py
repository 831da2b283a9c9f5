"""What bears on when mail of a destination is tried, as the store knows it: blocks, suspensions, exchanges."""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from engine.model.destination import RELAY, Bearing, Override, Suspension
from engine.queue.rows import BEARING_WIDTH, Row, bearing_of, struct_of

# The message of a destination that is due first: for whom its turn is taken.
FIRST = (
    "(SELECT f.message FROM entry f INDEXED BY entry_due WHERE f.destination = d.name AND f.state = 'waiting' "
    "ORDER BY f.due, f.message, f.number LIMIT 1)"
)
FIRST_SENDER = f"(SELECT sender FROM message WHERE number = {FIRST})"
# Of JOINED, in the order `fields_of` takes them.
COLUMNS = (
    "d.name, d.edge, d.blocked_until, d.blocked_why, d.blocked_cause, d.site, d.took_at, d.unreached_at, "
    f"{FIRST}, {FIRST_SENDER}, "
    's.since, s.until, s."by", s.note, o.host, o.port, o.since, o.until, o."by", o.note, '
    "(SELECT json_group_object(preference, host) FROM exchange WHERE destination = d.name)"
)
# Its two parameters are both the time.
JOINED = (
    "destination d LEFT JOIN suspension s ON s.destination = d.name AND s.until > ? "
    "LEFT JOIN override o ON o.destination = d.name AND o.until > ?"
)
# Destinations all of whose exchanges operators have marked bad: of these nothing is tried, see MXCalculator.allowed.
# It looks at the marks' destinations alone. Its two parameters are both the time.
_LEFT_OUT = "SELECT host FROM mark WHERE until > ? AND \"by\" <> 'engine'"
LEFT_OUT = (
    f"SELECT b.destination FROM exchange b WHERE b.host IN ({_LEFT_OUT}) AND NOT EXISTS "
    f"(SELECT 1 FROM exchange x WHERE x.destination = b.destination AND x.host NOT IN ({_LEFT_OUT}))"
)


def names(connection: sqlite3.Connection) -> Iterator[str]:
    """The destinations that have mail, by an index of that: their own rows may be on a damaged page."""
    query = "SELECT min(destination) FROM entry INDEXED BY entry_destination WHERE destination > ?"
    (name,) = connection.execute(query, ("",)).fetchone()
    while name is not None:
        yield name
        (name,) = connection.execute(query, (name,)).fetchone()


def suspensions(connection: sqlite3.Connection, now: float) -> tuple[Suspension, ...]:
    """Suspensions in force, the relay's own first."""
    rows = connection.execute(
        'SELECT destination, since, until, "by", note FROM suspension WHERE until > ? '
        "ORDER BY destination <> ?, destination",
        (now, RELAY),
    )
    return tuple(struct_of(Suspension, row) for row in rows)


def of_relay(connection: sqlite3.Connection, now: float) -> Suspension | None:
    """The suspension of the whole relay, if there is one."""
    row = connection.execute(
        'SELECT destination, since, until, "by", note FROM suspension WHERE destination = ? AND until > ?', (RELAY, now)
    ).fetchone()
    return struct_of(Suspension, row) if row else None


def bearings(connection: sqlite3.Connection, names: Iterable[str], now: float) -> dict[str, Bearing]:
    """What bears on each of these destinations, in two questions."""
    relay = of_relay(connection, now)
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM json_each(?) CROSS JOIN {JOINED} WHERE d.name = json_each.value",
        (json.dumps(sorted(set(names))), now, now),
    )
    return {row[0]: Bearing(**fields_of(row, relay, now)) for row in rows}


def of_unknown(connection: sqlite3.Connection, name: str, now: float) -> Bearing:
    """What bears on a destination of which nothing is known: operators may have steered it all the same."""
    row = connection.execute(
        'SELECT destination, host, port, since, until, "by", note FROM override WHERE destination = ? AND until > ?',
        (name, now),
    ).fetchone()
    return Bearing(
        name=name,
        relay=of_relay(connection, now),
        suspended=next(
            (suspension for suspension in suspensions(connection, now) if suspension.destination == name), None
        ),
        is_in_doubt=True,
        override=struct_of(Override, row) if row else None,
    )


def fields_of(row: Row, relay: Suspension | None, now: float) -> dict[str, Any]:
    """The fields of a Bearing from a row that begins with COLUMNS."""
    exchanges = sorted(json.loads(row[BEARING_WIDTH - 1]).items(), key=lambda one: int(one[0]))
    return bearing_of(row, (host for _, host in exchanges), relay, now)
