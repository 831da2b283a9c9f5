"""Columns: which fit, how wide they are, and what stands in them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from console.format import Moment
from console.widgets.line import Piece

R = TypeVar("R")
GAP = 2


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column. `rank` 0 is always there; the higher, the sooner it goes when room is short.

    `grow` is how many cells more it takes where there is room; `rest`: it takes all that is left.
    `letter` with shift sorts by `sort`: the engine's name of the order, or `order`, for rows that are all here.
    """

    title: str
    width: int
    cell: Callable[[R, Moment], Piece]
    rank: int = 0
    right: bool = False
    grow: int = 0
    rest: bool = False
    letter: str = ""
    sort: str = ""
    order: Callable[[R], Any] | None = None


@dataclass(frozen=True)
class Fitted(Generic[R]):
    """A column and the width it was given."""

    column: Column[R]
    width: int


def fit(columns: Sequence[Column[R]], width: int) -> list[Fitted[R]]:
    """Choose the columns that fit into `width` cells, by rank, and share out what is left."""
    chosen: list[int] = []
    used = -GAP
    for index in sorted(range(len(columns)), key=lambda i: (columns[i].rank, i)):
        if used + GAP + columns[index].width <= width or not chosen:
            chosen.append(index)
            used += GAP + columns[index].width
        elif columns[index].rank:
            break
    spare = max(0, width - used)
    widths = {index: columns[index].width for index in chosen}
    for index in sorted(chosen, key=lambda i: (columns[i].rank, i)):
        more = min(spare, columns[index].grow)
        widths[index] += more
        spare -= more
    for index in chosen:
        if columns[index].rest:
            widths[index] += spare
            spare = 0
    return [Fitted(columns[index], min(widths[index], width)) for index in sorted(chosen)]
