"""Columns: which fit, how wide they are, and what stands in them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.cells import cell_len

from console.format import Moment
from console.widgets.line import Piece

R = TypeVar("R")
GAP = 2
LOW = 3  # from this rank on, a column comes only when names and reason have what they need
REASON = 40  # cells that the reason is given at least before columns of low rank
NAME = 40  # cells that a name is given before them
NOTHING = frozenset({"", "0", "-"})  # what a cell says that says nothing


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column. `rank` 0 is always there; the higher, the sooner it goes when room is short.

    `width` is the least it has. `grow` is how many cells more it takes, where its rows need them, before the reason
    has what it needs; `rest`: it says why, and takes all that is left.
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


@dataclass(frozen=True)
class Need:
    """What the rows need of a column: the cells of the longest of them, and those that do for four of five.

    `says`: not all of them are empty or 0.
    """

    cells: int
    most: int
    says: bool = True

    @staticmethod
    def of(texts: Sequence[str]) -> "Need":
        """What these texts need."""
        lengths = sorted(cell_len(text) for text in texts) or [0]
        return Need(
            lengths[-1], lengths[(len(lengths) * 4 - 1) // 5], not texts or any(t not in NOTHING for t in texts)
        )

    def __or__(self, other: "Need") -> "Need":
        return Need(max(self.cells, other.cells), max(self.most, other.most), self.says or other.says)


def fit(columns: Sequence[Column[R]], width: int, needs: Sequence[Need] = ()) -> list[Fitted[R]]:
    """Choose the columns that fit into `width` cells, and share these out by what the rows need.

    First come the columns of high rank at their least; then names, then the reason, get what most rows need; then
    columns of low rank, last of all those that say nothing; then all what they need; the reason takes what is left.
    """
    sharing = _Sharing(columns, width, needs or [Need(column.width + column.grow, column.width) for column in columns])
    most = [need.most for need in sharing.needs]
    sharing.add(index for index in sharing.ranked if columns[index].rank < LOW)
    sharing.widen(sharing.names, lambda index: min(most[index], columns[index].width + columns[index].grow))
    sharing.widen(sharing.reasons, lambda index: max(REASON, columns[index].width + columns[index].grow))
    sharing.widen(sharing.names, lambda index: min(most[index], NAME))
    low = [index for index in sharing.ranked if columns[index].rank >= LOW]
    sharing.add(index for index in low if sharing.needs[index].says)
    sharing.add(index for index in low if not sharing.needs[index].says)
    sharing.widen(sharing.ranked, lambda index: columns[index].width + columns[index].grow)
    sharing.widen(sharing.ranked, lambda _: width)
    return sharing.shared()


class _Sharing(Generic[R]):
    """Cells that are shared out among columns."""

    def __init__(self, columns: Sequence[Column[R]], width: int, needs: Sequence[Need]) -> None:
        self.columns = columns
        self.needs = needs
        self.ranked = sorted(range(len(columns)), key=lambda i: (columns[i].rank, i))
        self.reasons = [index for index in self.ranked if columns[index].rest]
        self.names = [i for i in self.ranked if columns[i].rank == 0 and columns[i].grow and not columns[i].rest]
        self._width = width
        self._left = width + GAP
        self._widths: dict[int, int] = {}

    def add(self, indices: Iterable[int]) -> None:
        """Add these at their least, as long as they fit."""
        for index in indices:
            cost = GAP + self.columns[index].width
            if cost > self._left and self._widths:
                if self.columns[index].rank:
                    return
                continue
            self._widths[index] = self.columns[index].width
            self._left -= cost

    def widen(self, indices: Sequence[int], most: Callable[[int], int]) -> None:
        """Give those of them that are there what they need, up to `most`."""
        for index in indices:
            if index in self._widths:
                wanted = min(self.needs[index].cells, most(index)) - self._widths[index]
                more = max(0, min(self._left, wanted))
                self._widths[index] += more
                self._left -= more

    def shared(self) -> list[Fitted[R]]:
        """The columns and their widths; what nobody needs goes to the one that takes the rest."""
        rest = next((index for index in self.reasons if index in self._widths), None)
        if rest is not None and self._left > 0:
            self._widths[rest] += self._left
        return [Fitted(self.columns[index], min(self._widths[index], self._width)) for index in sorted(self._widths)]
