"""Rows of a store as the data that they stand for, by the order of their columns: in every store the same.

What is true or false may come as 1 or 0.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from engine.model.destination import Bearing, Destination, Mark, Override, Suspension
from engine.model.event import Event
from engine.model.message import NO_DSN_REQUEST, Attempt, DsnRequest, Entry, Message
from engine.queue.columns import outcome_of

S = TypeVar("S", bound=Struct)
Row = Sequence[Any]

# Of `entry AS e JOIN message AS m`, in the order of the fields of Entry up to that with what bears on it.
ENTRY_COLUMNS = (
    "e.message, e.number, m.sender, e.recipient, e.destination, e.state, m.arrived, e.due, e.expires, e.attempts, "
    "m.size, m.subject, e.last, e.last_at, e.ordered, (SELECT due FROM operation WHERE id = e.operation), "
    "e.ordered_by, e.note, coalesce(e.reason_key, ''), e.rule, (SELECT until FROM hold_rule WHERE id = e.rule), "
    "e.postponed_by"
)
# Of `message`, as `message_of` takes them.
MESSAGE_COLUMNS = "sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8"
BEARING_WIDTH = 21  # columns of a Bearing, the last of which are the exchanges

_EVENT = (
    "seq", "at", "kind", "by", "message", "entry", "sender", "recipient", "destination", "host", "outcome", "text",
    "node",
)  # fmt: skip


def struct_of(kind: type[S], row: Row) -> S:
    """Of a row that has the fields of a struct in their order."""
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


def entry_of(row: Row, bearing: Bearing) -> Entry:
    """The entry of a row of ENTRY_COLUMNS, with what bears on its destination."""
    values = dict(zip(Entry.__struct_fields__, (*row, bearing), strict=False))
    return Entry(**values | {"last": outcome_of(values["last"])})


def event_of(row: Row) -> Event:
    """The event of a row of a store's EVENT_COLUMNS; without its node where nodes are none."""
    values = dict(zip(_EVENT, row, strict=False))
    return Event(**values | {"outcome": outcome_of(values["outcome"])})


def attempt_of(row: Row) -> Attempt:
    """The attempt of a row in the order of the fields of Attempt; without its node where nodes are none."""
    values = dict(zip(Attempt.__struct_fields__, row, strict=False))
    outcome, interrupted = outcome_of(values["outcome"]), bool(values["interrupted"])
    return Attempt(**values | {"outcome": outcome, "interrupted": interrupted})


def mark_of(row: Row) -> Mark:
    """The mark of a row in the order of the fields of Mark."""
    values = dict(zip(Mark.__struct_fields__, row, strict=True))
    return Mark(**values | {"last": outcome_of(values["last"])})


def message_of(number: int, row: Row, entries: tuple[Entry, ...], attempts: Iterable[Row]) -> Message:
    """The message of a row of MESSAGE_COLUMNS, with its entries (there are some), and the rows of its attempts."""
    sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8 = row
    return Message(
        number=number,
        sender=sender,
        size=size,
        arrived=arrived,
        expires=max(expires, *(entry.expires for entry in entries)),
        origin=origin,
        subject=subject,
        message_id=message_id,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        entries=entries,
        attempts=tuple(map(attempt_of, attempts)),
    )


def dsn_of(notify: str, orcpt: str) -> DsnRequest:
    """What a recipient's columns say of notifications."""
    return DsnRequest(notify=notify, orcpt=orcpt) if notify or orcpt else NO_DSN_REQUEST


def bearing_of(row: Row, exchanges: Iterable[str], relay: Suspension | None, now: float) -> dict[str, Any]:
    """The fields of a Bearing of a row that begins with a store's columns of one; the exchanges are given as read."""
    name, edge, blocked_until, blocked_why, blocked_cause, site, took_at, unreached_at, *rest = row[:BEARING_WIDTH]
    (message, sender), suspended, overridden = rest[:2], rest[2:6], rest[6:12]
    is_blocked = blocked_until > now
    return {
        "name": name,
        "next_due": edge,
        "relay": relay,
        "suspended": struct_of(Suspension, (name, *suspended)) if suspended[0] is not None else None,
        "blocked_until": blocked_until if is_blocked else None,
        "blocked_why": blocked_why if is_blocked else "",
        "blocked_cause": blocked_cause if is_blocked else "",
        "is_in_doubt": took_at == 0,
        "unreached_at": unreached_at,
        "first": message or 0,
        "first_sender": sender or "",
        "override": struct_of(Override, (name, *overridden)) if overridden[0] is not None else None,
        "exchanges": tuple(exchanges),
        "site": site,
    }


def destination_of(bearing: dict[str, Any], row: Row) -> Destination:
    """A destination of what bears on it and the columns behind that: all but how much of it is due."""
    waiting, held, relaying, oldest, last, last_at, reply = row
    return Destination(
        **bearing,
        waiting=waiting,
        held=held,
        relaying=relaying,
        oldest=oldest,
        last=outcome_of(last),
        last_at=last_at,
        reply=outcome_of(reply),
    )
