"""Destinations: how they fare, and how much of their mail is due.

Counts come from the destinations' own rows, which triggers keep; entries are counted only for how many are due.
"""

import time
from collections.abc import Sequence

from msgspec.structs import asdict, replace

from engine.base.registrable import registrable
from engine.model.claim import NONE_TAKEN, Room
from engine.model.destination import Destination, Suspension, Totals
from engine.queue.bounds import BIG, NEIGHBOURS, RESTS
from engine.queue.filtering import like
from engine.queue.postgres import bearings
from engine.queue.postgres.answers import CostlyAnswers
from engine.queue.postgres.database import Database
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Row, Snapshot
from engine.queue.postgres.where import numbered
from engine.queue.rows import BEARING_WIDTH, destination_of
from engine.queue.windows import destination_sort

_PAGE = 1000  # names looked at at once
# How many entries are due of each destination of which any is: each is counted by itself, so that what waits for later
# is never read, whatever the server believes of how much there is.
_DUE = (
    "(SELECT f.name, e.count FROM destination f CROSS JOIN LATERAL (SELECT count(*) AS count FROM entry "
    "WHERE destination = f.name AND state = 'waiting' AND due <= {now}) e WHERE f.edge <= {now})"
)
_OLDEST = "(SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry WHERE destination = d.name))"
# Whether the first mail of a destination is of a message, or from a sender, that has its share. What can be said by
# names alone is not here: by whom a domain is registered only Python knows.
TAKEN = "{message} = ANY({messages}::bigint[]) OR {sender} = ANY({senders}::text[])"
_DETAILS = f"{bearings.COLUMNS}, d.waiting, d.held, d.relaying, {_OLDEST}, d.last, d.last_at, w.last"


class DueCounts:
    """Counts what is due, by destination or in all, and remembers the counts that were costly."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[float, int]] = {}
        self._in_all = CostlyAnswers()

    async def of(self, s: Snapshot, destinations: Sequence[str]) -> dict[str, int]:
        """Entries due of each of some destinations that have any, in one question."""
        started = time.monotonic()
        found = {name: self._kept[name][1] for name in destinations if self._kept.get(name, (0.0, 0))[0] > started}
        if not (sought := [name for name in destinations if name not in found]):
            return found
        rows = await s.fetch(
            "SELECT destination, count(*) FROM entry WHERE destination = ANY($1::text[]) AND state = 'waiting' "
            "AND due <= $2::float8 GROUP BY destination",
            sought,
            s.now,
        )
        ended = time.monotonic()
        for name, count in rows:
            found[name] = count
            self._kept.pop(name, None)
            if count >= BIG:
                self._kept[name] = (ended + RESTS * (ended - started), count)
        return found

    async def in_all(self, database: Database, room: Room) -> tuple[int, int]:
        """Entries due, and those of them that may be sent now where there is `room`."""
        return await self._in_all.of(None, lambda: database.ask(lambda s: _due_in_all(s, room)))


async def _due_in_all(s: Snapshot, room: Room) -> tuple[int, int]:
    conditions = [
        "d.blocked_until <= ?::float8 AND (d.took_at > 0 OR ?::boolean)",
        "d.site NOT IN (SELECT unnest(?::text[]))",
        "d.name NOT IN (SELECT destination FROM suspension WHERE until > ?::float8)",
        f"d.name NOT IN ({bearings.LEFT_OUT.format(now='?::float8')})",
    ]
    values: list[object] = [s.now, room.with_doubtful, sorted(room.closed), s.now, s.now, s.now]
    if room.only is not None:
        conditions.append("d.site IN (SELECT unnest(?::text[]))")
        values.append(sorted(room.only))
    if room.taken != NONE_TAKEN:
        taken = TAKEN.format(message=bearings.FIRST, sender=bearings.FIRST_SENDER, messages="?", senders="?")
        conditions.append(f"(d.took_at > 0 OR NOT (d.name IN (SELECT unnest(?::text[])) OR {taken}))")
        values += [await _below(s, room.taken.domains), sorted(room.taken.messages), sorted(room.taken.senders)]
    row = await s.row(
        numbered(
            "SELECT coalesce(sum(c.count), 0)::bigint, "
            f"coalesce(sum(c.count) FILTER (WHERE {' AND '.join(conditions)}), 0)::bigint "
            f"FROM {_DUE.format(now='?::float8')} c JOIN destination d ON d.name = c.name"
        ),
        *values,
        s.now,
        s.now,
    )
    assert row is not None
    return row[0], row[1]


async def _below(s: Snapshot, domains: frozenset[str]) -> list[str]:
    """The destinations in doubt, with something due, that are at or below one of these registered domains."""
    found: list[str] = []
    after: str | None = "" if domains else None
    patterns = [like(f".{domain}", contains=False) for domain in sorted(domains)]
    while after is not None:
        rows = await s.fetch(
            "SELECT name FROM destination WHERE name > $1::text AND edge <= $2::float8 AND took_at = 0 "
            "AND (name = ANY($3::text[]) OR name LIKE ANY($4::text[])) ORDER BY name LIMIT $5",
            after,
            s.now,
            sorted(domains),
            [f"%{pattern}" for pattern in patterns],
            _PAGE,
        )
        # Of what is below a name that somebody has registered others may have registered parts.
        found += [name for (name,) in rows if registrable(name) in domains]
        after = rows[-1][0] if len(rows) == _PAGE else None
    return found


async def totals(database: Database, counts: DueCounts, room: Room) -> Totals:
    """Counts over the whole queue."""
    due, ready = await counts.in_all(database, room)
    return await database.ask(lambda s: _totals(s, due, ready))


async def _totals(s: Snapshot, due: int, ready: int) -> Totals:
    row = await s.row(
        "SELECT coalesce(sum(waiting), 0)::bigint, coalesce(sum(held), 0)::bigint, coalesce(sum(relaying), 0)::bigint, "
        "count(*) FILTER (WHERE waiting + held + relaying > 0), count(*), "
        "(SELECT arrived FROM message WHERE number = (SELECT min(message) FROM entry)) FROM destination"
    )
    assert row is not None
    waiting, held, relaying, destinations, known, oldest = row
    due = min(waiting, due)
    return Totals(
        waiting=waiting,
        due=due,
        ready=0 if await bearings.of_relay(s, s.now) else min(due, ready),
        held=held,
        relaying=relaying,
        destinations=destinations,
        known=known,
        oldest=oldest,
    )


async def destinations(
    s: Snapshot, match: str, sort: str, offset: int, limit: int, counts: DueCounts
) -> tuple[int, tuple[Destination, ...]]:
    """How many destinations have `match` in their name, and a window of them. Raises QueueError for a wrong sort."""
    field, direction = destination_sort(sort)
    condition, values = "TRUE", []
    if match:
        condition, values = "strpos(d.name, ?::text) > 0", [storable(match).lower()]
    total = await s.value(numbered(f"SELECT count(*) FROM destination d WHERE {condition}"), *values)
    order, join, times = f"d.{field} {direction}", "", []
    if field == "due":
        order = f"coalesce(c.count, 0) {direction}"
        join, times = f" LEFT JOIN {_DUE.format(now='?::float8')} c ON c.name = d.name", [s.now, s.now]
    elif field == "oldest":
        order = f"{_OLDEST} {direction} NULLS LAST"
    rows = await s.fetch(
        numbered(f"SELECT d.name FROM destination d{join} WHERE {condition} ORDER BY {order}, d.name LIMIT ? OFFSET ?"),
        *times,
        *values,
        max(0, limit),
        max(0, offset),
    )
    return total, await _details(s, [name for (name,) in rows], counts)


async def destination(s: Snapshot, name: str, counts: DueCounts) -> Destination:
    """One destination; all zero when nothing is known of it."""
    name = storable(name).lower()
    for found in await _details(s, [name], counts):
        others = await s.fetch(
            "SELECT name FROM destination WHERE site = $1::text AND ready IS NOT NULL AND name <> $2::text "
            "ORDER BY waiting DESC, name LIMIT $3",
            found.site,
            name,
            NEIGHBOURS,
        )
        return replace(found, neighbours=tuple(other for (other,) in others))
    return Destination(**asdict(await bearings.of_unknown(s, name, s.now)))


async def _details(s: Snapshot, names: Sequence[str], counts: DueCounts) -> tuple[Destination, ...]:
    """How each of these destinations fares, in their order; those that are not known are left out."""
    relay = await bearings.of_relay(s, s.now)
    rows = await s.fetch(
        f"SELECT {_DETAILS} FROM {bearings.JOINED.format(now='$2::float8')} WHERE d.name = ANY($1::text[])",
        names,
        s.now,
    )
    found = {row[0]: _destination(row, relay, s.now) for row in rows}
    some_due = [name for name, known in found.items() if known.next_due is not None and known.next_due <= s.now]
    due = await counts.of(s, some_due)
    return tuple(
        replace(found[name], due=min(due.get(name, 0), found[name].waiting)) for name in names if name in found
    )


def _destination(row: Row, relay: Suspension | None, now: float) -> Destination:
    """A destination of a row of _DETAILS, without how much of it is due."""
    return destination_of(bearings.fields_of(row, relay, now), row[BEARING_WIDTH:])
