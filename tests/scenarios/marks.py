"""A store of marks in memory, in the place of the queue."""

from collections.abc import Sequence

from engine.model.destination import Mark
from engine.model.order import Touched
from engine.queue.contract import Marks
from engine.queue.errors import QueueError


class MarksInMemory(Marks):
    """Keeps marks as the queue does, and counts what is written. `fails` is raised instead while set."""

    def __init__(self, *marks: Mark) -> None:
        self.kept = {mark.host: mark for mark in marks}
        self.writes: list[str] = []
        self.fails: QueueError | None = None

    async def all(self) -> tuple[Mark, ...]:
        return tuple(self.kept.values())

    async def save(self, mark: Mark) -> None:
        if self.fails is not None:
            raise self.fails
        self.kept[mark.host] = mark
        self.writes.append(f"save {mark.host} by {mark.by}")

    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:
        if self.fails is not None:
            raise self.fails
        self.writes.append(f"remove {host} by {by}")
        return 7 if self.kept.pop(host, None) else 0

    async def forget(self, hosts: Sequence[str]) -> None:
        if self.fails is not None:
            raise self.fails
        for host in hosts:
            self.kept.pop(host, None)
            self.writes.append(f"forget {host}")

    async def take_back(self, marks: Sequence[Mark], note: str) -> None:
        if self.fails is not None:
            raise self.fails
        for mark in marks:
            if self.kept.get(mark.host) == mark:
                del self.kept[mark.host]
                self.writes.append(f"take back {mark.host}")
