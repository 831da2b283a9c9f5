"""What goes into the store's columns; how it comes out, engine.queue.rows says."""

from collections.abc import Iterable, Sequence

import msgspec

from engine.model.event import Event
from engine.queue import columns
from engine.queue.columns import outcome_json

EVENT_COLUMNS = "seq, at, kind, by, message, entry, sender, recipient, destination, host, outcome, text, node"
# How a transaction ends: see functions.sql. The events are numbered in the order in which they are given.
CONCLUDE = (
    "SELECT seq FROM conclude($1::bigint, $2::text[], $3::float8[], $4::text[], $5::text[], $6::bigint[], $7::int[], "
    "$8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[]) AS seq"
)
# The same, of a node, and by a token it can be asked afterwards whether it was committed. By its number it cannot:
# after a crash of the server numbers are given again of which nothing was on its disk.
CONCLUDE_NODE = (
    "WITH noted AS (INSERT INTO conclusion (node, token) VALUES ($15, $16) "
    f"ON CONFLICT (node) DO UPDATE SET token = excluded.token) {CONCLUDE}"
)
CONCLUDED = "SELECT EXISTS (SELECT 1 FROM conclusion WHERE node = $1 AND token = $2)"
_TEXTS = ("by", "sender", "recipient", "destination", "host", "text")


def storable(text: str) -> str:
    """Give `text` as it can be stored: PostgreSQL keeps no NUL, and no encoder takes a surrogate.

    (JSON writes a NUL as \\u0000, which is text as any other.)
    """
    return columns.storable(text).replace("\0", "\ufffd")


def storable_event(event: Event, node: str = "") -> Event:
    """The event of a node as it can be stored."""
    changed = {name: text for name in _TEXTS if (text := storable(getattr(event, name))) != getattr(event, name)}
    if node:
        changed["node"] = node
    return msgspec.structs.replace(event, **changed) if changed else event


def event_values(events: Sequence[Event]) -> tuple[list[object], ...]:
    """The columns of events, as CONCLUDE takes them, behind the first two."""
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


def pairs(ids: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Keys of entries as two parameters: `unnest($1::bigint[], $2::int[]) AS k (message, number)`."""
    ids = list(ids)
    return [message for message, _ in ids], [number for _, number in ids]
