"""Overrides in the store: the destinations whose mail goes to a host that an operator named."""

from collections.abc import Sequence
from functools import partial

from engine.base.duration import format_duration
from engine.base.text import clean
from engine.model.destination import Override, unknown_site
from engine.model.event import ENGINE, Event
from engine.queue.postgres.exchanges import note_destination, unblock
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Row, Snapshot, Transaction
from engine.queue.rows import struct_of

_COLUMNS = "destination, host, port, since, until, by, note"


async def set_override(tx: Transaction, override: Override) -> None:
    """Keep an override, in place of any the destination had; connections to it may be opened at once."""
    name, host = storable(override.destination).lower(), storable(override.host).lower()
    by, note = storable(override.by), storable(override.note)
    await tx.execute(
        f"INSERT INTO override ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7) "
        "ON CONFLICT (destination) DO UPDATE SET host = excluded.host, port = excluded.port, "
        "since = excluded.since, until = excluded.until, by = excluded.by, note = excluded.note",
        name,
        host,
        override.port,
        override.since,
        override.until,
        by,
        note,
    )
    await _go_anew(tx, [name], host)
    why = f" ({note})" if note else ""
    text = clean(f"goes to {override.to} for {format_duration(override.until - tx.now)}{why}")
    tx.record(Event(at=tx.now, kind="overridden", by=by, destination=name, host=host, text=text))


async def end_override(tx: Transaction, destination: str, by: str) -> Override | None:
    """End an override; None where none was in force."""
    rows = await tx.fetch(
        f"DELETE FROM override WHERE destination = $1 AND until > $2 RETURNING {_COLUMNS}",
        storable(destination).lower(),
        tx.now,
    )
    ended = await _ended(tx, rows, by, "")
    return ended[0] if ended else None


async def end_overrides(tx: Transaction) -> tuple[str, ...]:
    """End the overrides whose time is over, and say so; give the destinations, the first to end first."""
    rows = await tx.fetch(f"DELETE FROM override WHERE until <= $1 RETURNING {_COLUMNS}", tx.now)
    return tuple(override.destination for override in await _ended(tx, rows, ENGINE, "its time was over"))


async def override(s: Snapshot, destination: str) -> Override | None:
    """The override in force for a destination."""
    row = await s.row(
        f"SELECT {_COLUMNS} FROM override WHERE destination = $1 AND until > $2", storable(destination).lower(), s.now
    )
    return struct_of(Override, row) if row is not None else None


async def overrides(s: Snapshot) -> tuple[Override, ...]:
    """Those in force, by destination."""
    rows = await s.fetch(f"SELECT {_COLUMNS} FROM override WHERE until > $1 ORDER BY destination", s.now)
    return tuple(struct_of(Override, row) for row in rows)


async def _ended(tx: Transaction, rows: Sequence[Row], by: str, text: str) -> list[Override]:
    """What follows of overrides that have just been removed."""
    ended = sorted(
        (struct_of(Override, row) for row in rows), key=lambda override: (override.until, override.destination)
    )
    if not ended:
        return []
    await _go_anew(tx, [override.destination for override in ended])
    for override in ended:
        name, host = override.destination, override.host
        tx.record(Event(at=tx.now, kind="ended", by=by, destination=name, host=host, text=text))
    return ended


async def _go_anew(tx: Transaction, destinations: Sequence[str], *hosts: str) -> None:
    """Nothing that was known of the way to destinations counts any more; `hosts` are what is known now."""
    tx.in_the_end(partial(_forget_ways, tx, destinations, *hosts))


async def _forget_ways(tx: Transaction, destinations: Sequence[str], *hosts: str) -> None:
    await unblock(tx, destinations)
    for destination in destinations:
        await note_destination(tx, destination, hosts, None)
    await tx.execute(
        "UPDATE destination d SET site = k.site FROM unnest($1::text[], $2::text[]) AS k (name, site) "
        "WHERE d.name = k.name",
        list(destinations),
        [unknown_site(name) for name in destinations],
    )
