"""A window of a sorted listing: in which order, and from which end it is reached; in every store the same."""

from typing import NamedTuple

from engine.queue.contract import DESTINATION_SORTS, SORTS
from engine.queue.errors import QueueError

# Of `entry AS e` and `message AS m`, by the names of SORTS.
_COLUMNS = {
    "id": "e.message",
    "due": "e.due",
    "arrived": "m.arrived",
    "attempts": "e.attempts",
    "size": "m.size",
    "destination": "e.destination",
    "recipient": "e.recipient",
    "sender": "m.sender",
    "state": "e.state",
}


class Sort(NamedTuple):
    """The column that entries are sorted by, and those alike by id."""

    column: str
    is_falling: bool

    @property
    def joins(self) -> bool:
        """Whether that is a column of their messages."""
        return self.column.startswith("m.")

    def order(self, *, turned: bool) -> str:
        """What stands behind ORDER BY; `turned`: the other way round."""
        direction = "DESC" if self.is_falling != turned else "ASC"
        by_id = f"e.message {direction}, e.number {direction}"
        return by_id if self.column == "e.message" else f"{self.column} {direction}, {by_id}"


class Part(NamedTuple):
    """How many rows of a listing to pass over, and how many to read; `turned`: from its other end, in that order."""

    passed_over: int
    wanted: int
    turned: bool


def sort_of(sort: str) -> Sort:
    """What a listing of entries is to be sorted by, falling with "-" in front. Raises QueueError for anything else."""
    field, is_falling = _field(sort)
    if field not in _COLUMNS:
        raise QueueError(f"the queue cannot be sorted by {field!r}, only by {', '.join(SORTS)}")
    return Sort(_COLUMNS[field], is_falling)


def destination_sort(sort: str) -> tuple[str, str]:
    """The same of destinations: one of DESTINATION_SORTS, and how SQL says the direction."""
    field, is_falling = _field(sort)
    if field not in DESTINATION_SORTS:
        raise QueueError(f"destinations cannot be sorted by {field!r}, only by {', '.join(DESTINATION_SORTS)}")
    return field, "DESC" if is_falling else "ASC"


def part_of(total: int, offset: int, limit: int) -> Part:
    """Where to find `limit` rows from `offset` on (neither below 0), of `total`.

    The far half is reached from the other end: skipping rows costs as much as reading them.
    """
    turned = offset + limit > total - offset
    passed_over = max(0, total - offset - limit) if turned else offset
    return Part(passed_over, min(limit, max(0, total - offset)), turned)


def _field(sort: str) -> tuple[str, bool]:
    return sort.removeprefix("-"), sort.startswith("-")
