"""What came of an order to bounce or drop, whatever the store: how it is counted, and how it is told."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from engine.base.text import clean
from engine.model.event import Event
from engine.model.order import Operation


class Gone(NamedTuple):
    """An entry on which an order was carried out; `counted`: the order that has counted its message already."""

    operation: int
    message: int
    counted: int | None


class Counts(NamedTuple):
    """How many recipients and messages have gone, by order; `fresh`: order and message where that counts one for it."""

    recipients: Counter[int]
    messages: Counter[int]
    fresh: list[tuple[int, int]]


def counts_of(gone: Sequence[Gone]) -> Counts:
    """Count entries that have been removed by order, and each of their messages once."""
    fresh = list(dict.fromkeys((entry.operation, entry.message) for entry in gone if entry.counted != entry.operation))
    return Counts(Counter(entry.operation for entry in gone), Counter(operation for operation, _ in fresh), fresh)


def dropped(
    now: float, message: int, number: int, sender: str, recipient: str, destination: str, by: str, note: str
) -> Event:
    """An entry was removed by order."""
    return Event(
        at=now,
        kind="dropped",
        by=by,
        message=message,
        entry=number,
        sender=sender,
        recipient=recipient,
        destination=destination,
        text=note,
    )


def told(now: float, operation: Operation) -> Event:
    """What came of an order that is whole."""
    text = f"{operation.verb}: {operation.result}; operation {operation.id}: {operation.filter}"
    return Event(at=now, kind="carried out", by=operation.by, text=clean(text))
