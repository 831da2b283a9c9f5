"""Overrides in the store: the destinations whose mail goes to a host that an operator named."""

import sqlite3

from engine.base.duration import format_duration
from engine.base.text import clean
from engine.model.destination import Override, unknown_site
from engine.model.event import ENGINE, Event
from engine.queue.columns import storable
from engine.queue.rows import struct_of
from engine.queue.sqlite.exchanges import note_destination, unblock
from engine.queue.sqlite.writer import Transaction

_COLUMNS = 'destination, host, port, since, until, "by", note'


def set_override(tx: Transaction, override: Override) -> None:
    """Keep an override, in place of any the destination had; connections to it may be opened at once."""
    name, host = storable(override.destination).lower(), storable(override.host).lower()
    by, note = storable(override.by), storable(override.note)
    tx.execute(
        f"INSERT OR REPLACE INTO override ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (name, host, override.port, override.since, override.until, by, note),
    )
    _goes_anew(tx, name, host)
    why = f" ({note})" if note else ""
    text = clean(f"goes to {override.to} for {format_duration(override.until - tx.now)}{why}")
    tx.record(Event(at=tx.now, kind="overridden", by=by, destination=name, host=host, text=text))


def end_override(tx: Transaction, destination: str, by: str) -> Override | None:
    """End an override; None where none was in force."""
    found = override(tx.connection, destination, tx.now)
    if found is not None:
        _end(tx, found, storable(by), "")
    return found


def end_overrides(tx: Transaction) -> tuple[str, ...]:
    """End the overrides whose time is over, and say so; give the destinations."""
    rows = tx.execute(f"SELECT {_COLUMNS} FROM override WHERE until <= ?", (tx.now,)).fetchall()
    ended = [struct_of(Override, row) for row in rows]
    for override in ended:
        _end(tx, override, ENGINE, "its time was over")
    return tuple(override.destination for override in ended)


def override(connection: sqlite3.Connection, destination: str, now: float) -> Override | None:
    """The override in force for a destination."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM override WHERE destination = ? AND until > ?", (storable(destination).lower(), now)
    ).fetchone()
    return struct_of(Override, row) if row else None


def overrides(connection: sqlite3.Connection, now: float) -> tuple[Override, ...]:
    """Those in force, by destination."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM override WHERE until > ? ORDER BY destination", (now,))
    return tuple(struct_of(Override, row) for row in rows)


def _end(tx: Transaction, override: Override, by: str, text: str) -> None:
    tx.execute("DELETE FROM override WHERE destination = ?", (override.destination,))
    _goes_anew(tx, override.destination)
    tx.record(Event(at=tx.now, kind="ended", by=by, destination=override.destination, host=override.host, text=text))


def _goes_anew(tx: Transaction, destination: str, *hosts: str) -> None:
    """Nothing that was known of the way to a destination counts any more; `hosts` are what is known now."""
    unblock(tx, [destination])
    note_destination(tx, destination, hosts, None)
    tx.execute("UPDATE destination SET site = ? WHERE name = ?", (unknown_site(destination), destination))
