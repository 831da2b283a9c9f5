"""Marks in the order in which their countdowns end, so that how many there are and which end first is known at once."""

from bisect import bisect_left, insort
from collections.abc import Iterator, MutableMapping

from engine.model.destination import Mark
from engine.model.event import ENGINE


class Countdowns(MutableMapping[str, Mark]):
    """Each host's mark; one goes through it in the order in which they end.

    To keep that order costs little: two sorted lists, into which a mark is put by bisection.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._ends: list[tuple[float, str]] = []
        self._ends_of_engine: list[tuple[float, str]] = []

    def __getitem__(self, host: str) -> Mark:
        return self._marks[host]

    def __setitem__(self, host: str, mark: Mark) -> None:
        if host in self._marks:
            del self[host]
        self._marks[host] = mark
        for ends in self._lists_of(mark):
            insort(ends, (mark.until, host))

    def __delitem__(self, host: str) -> None:
        mark = self._marks.pop(host)
        for ends in self._lists_of(mark):
            del ends[bisect_left(ends, (mark.until, host))]

    def __iter__(self) -> Iterator[str]:
        return (host for _, host in self._ends)

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def of_engine(self) -> int:
        """How many the engine has made."""
        return len(self._ends_of_engine)

    def ended(self, now: float) -> list[str]:
        """The hosts whose time has come."""
        found = []
        for until, host in self._ends:
            if until > now:
                break
            found.append(host)
        return found

    def too_many(self, most: int) -> list[str]:
        """The hosts of the engine's marks beyond so many: those that end first."""
        return [host for _, host in self._ends_of_engine[: max(0, len(self._ends_of_engine) - most)]]

    def _lists_of(self, mark: Mark) -> tuple[list[tuple[float, str]], ...]:
        return (self._ends, self._ends_of_engine) if mark.by == ENGINE else (self._ends,)
