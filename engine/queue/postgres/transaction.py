"""What an operation and a question are given: a connection to ask, the time, and where events are recorded."""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.model.event import Event
from engine.queue.postgres.rows import storable_event

Row = Sequence[Any]  # a row of an answer: by position, or to be unpacked


class Snapshot:
    """What a question is given: a connection that sees one committed state, and the time it was asked."""

    def __init__(self, connection: Any, now: float) -> None:
        self._connection = connection
        self.now = now

    async def fetch(self, query: str, *values: object) -> list[Row]:
        """All rows of an answer."""
        return list(await self._connection.fetch(query, *values))

    async def row(self, query: str, *values: object) -> Row | None:
        """The first row of an answer, if there is one."""
        found: Row | None = await self._connection.fetchrow(query, *values)
        return found

    async def value(self, query: str, *values: object) -> Any:
        """The first column of the first row; None where there is none."""
        return await self._connection.fetchval(query, *values)


class Transaction(Snapshot):
    """What an operation is given. It may be run anew after it was undone: it changes nothing but the store."""

    def __init__(self, connection: Any, now: float) -> None:
        super().__init__(connection, now)
        self.events: list[Event] = []

    async def execute(self, query: str, *values: object) -> int:
        """Change rows; give how many."""
        done: str = await self._connection.execute(query, *values)
        count = done.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def many(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """The same with each of these parameters, in one exchange with the server."""
        if rows := list(rows):
            await self._connection.executemany(query, rows)

    def record(self, *events: Event) -> None:
        """Write events in this transaction, in the end of it; they are handed on once it is committed."""
        self.events += map(storable_event, events)
