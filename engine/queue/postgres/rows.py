"""Rows and the data they stand for: what goes into the store's columns, and how it comes out."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from engine.model.destination import Bearing
from engine.model.event import Event
from engine.model.message import Entry
from engine.queue import columns
from engine.queue.columns import outcome_of

# Of `entry AS e JOIN message AS m`, in the order of the fields of Entry up to that with what bears on it.
ENTRY_COLUMNS = (
    "e.message, e.number, m.sender, e.recipient, e.destination, e.state, m.arrived, e.due, e.expires, e.attempts, "
    "m.size, m.subject, e.last, e.last_at, e.ordered, (SELECT due FROM operation WHERE id = e.operation), "
    "e.ordered_by, e.note, coalesce(e.reason_key, ''), e.rule, (SELECT until FROM hold_rule WHERE id = e.rule), "
    "e.postponed_by"
)
EVENT_COLUMNS = "seq, at, kind, by, message, entry, sender, recipient, destination, host, outcome, text, node"
# How a transaction ends: see functions.sql. The events are numbered in the order in which they are given.
CONCLUDE = (
    "SELECT seq, pg_current_xact_id()::text FROM conclude($1::bigint, $2::text[], $3::float8[], $4::text[], "
    "$5::text[], $6::bigint[], $7::int[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], "
    "$14::text[]) AS seq"
)
_TEXTS = ("by", "sender", "recipient", "destination", "host", "text")


def storable(text: str) -> str:
    """Give `text` as it can be stored: PostgreSQL keeps no NUL, and no encoder takes a surrogate."""
    return columns.storable(text).replace("\0", "\ufffd")


def outcome_json(outcome: Any) -> str | None:
    """Give an outcome as its column holds it. (JSON writes a NUL as \\u0000, which is text as any other.)"""
    return columns.outcome_json(outcome)


def storable_event(event: Event, node: str = "") -> Event:
    """The event of a node as it can be stored."""
    changed = {name: text for name in _TEXTS if (text := storable(getattr(event, name))) != getattr(event, name)}
    if node:
        changed["node"] = node
    return msgspec.structs.replace(event, **changed) if changed else event


def event_values(events: Sequence[Event]) -> tuple[list[object], ...]:
    """The columns of events, as CONCLUDE takes them."""
    return (
        [event.at for event in events],
        [event.kind for event in events],
        [event.by for event in events],
        [event.message for event in events],
        [event.entry for event in events],
        [event.sender for event in events],
        [event.recipient for event in events],
        [event.destination for event in events],
        [event.host for event in events],
        [outcome_json(event.outcome) for event in events],
        [event.text for event in events],
        [event.node for event in events],
    )


def entry_of(row: Sequence[Any], bearing: Bearing) -> Entry:
    """The entry of a row of ENTRY_COLUMNS, with what bears on its destination."""
    values = dict(zip(Entry.__struct_fields__, (*row, bearing), strict=False))
    values["last"] = outcome_of(row[12])
    return Entry(**values)


def event_of(row: Sequence[Any]) -> Event:
    """Give an event from a row of EVENT_COLUMNS."""
    names = ("seq", "at", "kind", "by", "message", "entry", "sender", "recipient", "destination", "host")
    values = dict(zip(names, row, strict=False))
    return Event(**values, outcome=outcome_of(row[10]), text=row[11], node=row[12])


def pairs(ids: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Keys of entries as two parameters: `unnest($1::bigint[], $2::int[]) AS k (message, number)`."""
    ids = list(ids)
    return [message for message, _ in ids], [number for _, number in ids]
