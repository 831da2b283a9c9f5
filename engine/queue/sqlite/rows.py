"""Rows and the data they stand for: what goes into the store's columns, and how it comes out."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.model.destination import Bearing
from engine.model.event import Event
from engine.model.message import Entry
from engine.queue.columns import outcome_json, outcome_of, storable
from engine.queue.sqlite.bearings import bearings

# Of `entry AS e JOIN message AS m`, in the order of the fields of Entry up to that with what bears on it.
ENTRY_COLUMNS = (
    "e.message, e.number, m.sender, e.recipient, e.destination, e.state, m.arrived, e.due, e.expires, e.attempts, "
    "m.size, m.subject, e.last, e.last_at, e.ordered, (SELECT due FROM operation WHERE id = e.operation), "
    "e.ordered_by, e.note, coalesce(e.reason_key, ''), e.rule, (SELECT until FROM hold_rule WHERE id = e.rule), "
    "e.postponed_by"
)
_INSERT_EVENT = (
    'INSERT INTO event (at, kind, "by", message, entry, sender, recipient, destination, host, outcome, text) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
EVENT_COLUMNS = 'seq, at, kind, "by", message, entry, sender, recipient, destination, host, outcome, text'


def entries_of(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]], now: float) -> tuple[Entry, ...]:
    """Give the entries of rows of ENTRY_COLUMNS, each with what bears on its destination."""
    rows = list(rows)
    known = bearings(connection, {row[4] for row in rows}, now)
    return tuple(_entry_of(row, known[row[4]]) for row in rows)


def _entry_of(row: tuple[object, ...], bearing: Bearing) -> Entry:
    values = dict(zip(Entry.__struct_fields__, (*row, bearing), strict=False))
    values["last"] = outcome_of(row[12])  # type: ignore[arg-type]
    return Entry(**values)  # type: ignore[arg-type]


def insert_event(connection: sqlite3.Connection, event: Event) -> Event:
    """Store an event and give it as stored, with its `seq`."""
    try:
        cursor = connection.execute(_INSERT_EVENT, _event_values(event))
    except UnicodeEncodeError:
        names = ("by", "sender", "recipient", "destination", "host", "text")
        event = msgspec.structs.replace(event, **{name: storable(getattr(event, name)) for name in names})
        cursor = connection.execute(_INSERT_EVENT, _event_values(event))
    return msgspec.structs.replace(event, seq=cursor.lastrowid or 0)


def event_of(row: tuple[object, ...]) -> Event:
    """Give an event from a row of EVENT_COLUMNS."""
    names = ("seq", "at", "kind", "by", "message", "entry", "sender", "recipient", "destination", "host")
    values = dict(zip(names, row, strict=False))
    return Event(**values, outcome=outcome_of(row[10]), text=row[11])  # type: ignore[arg-type]


def _event_values(event: Event) -> tuple[object, ...]:
    return (
        event.at,
        event.kind,
        event.by,
        event.message,
        event.entry,
        event.sender,
        event.recipient,
        event.destination,
        event.host,
        outcome_json(event.outcome),
        event.text,
    )
