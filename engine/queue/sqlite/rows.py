"""Rows and the data they stand for: what goes into the store's columns, and how it comes out."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from engine.model.event import Event
from engine.model.message import Entry
from engine.queue.columns import outcome_json, storable
from engine.queue.rows import entry_of
from engine.queue.sqlite.bearings import bearings

_INSERT_EVENT = (
    'INSERT INTO event (at, kind, "by", message, entry, sender, recipient, destination, host, outcome, text) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
EVENT_COLUMNS = 'seq, at, kind, "by", message, entry, sender, recipient, destination, host, outcome, text'


def entries_of(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]], now: float) -> tuple[Entry, ...]:
    """Give the entries of rows of ENTRY_COLUMNS, each with what bears on its destination."""
    rows = list(rows)
    known = bearings(connection, {row[4] for row in rows}, now)
    return tuple(entry_of(row, known[row[4]]) for row in rows)


def insert_event(connection: sqlite3.Connection, event: Event) -> Event:
    """Store an event and give it as stored, with its `seq`."""
    try:
        cursor = connection.execute(_INSERT_EVENT, _event_values(event))
    except UnicodeEncodeError:
        names = ("by", "sender", "recipient", "destination", "host", "text")
        event = msgspec.structs.replace(event, **{name: storable(getattr(event, name)) for name in names})
        cursor = connection.execute(_INSERT_EVENT, _event_values(event))
    return msgspec.structs.replace(event, seq=cursor.lastrowid or 0)


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
