"""What an operation and a question are given: a connection to ask, the time, and where events are recorded."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from engine.model.event import Event
from engine.model.node import News
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
    """What an operation is given. It may be run anew after it was undone: it changes nothing but the store.

    `node` and `epoch` are whose it is, `has_others` whether there are other nodes; `news` is what these are to hear of
    once it is committed.
    """

    def __init__(
        self, connection: Any, now: float, node: str = "", epoch: int = 0, *, has_others: bool = False
    ) -> None:
        super().__init__(connection, now)
        self.node = node
        self.epoch = epoch
        self.has_others = has_others
        self.events: list[Event] = []
        self.news: list[News] = []
        self.last: list[Callable[[], Awaitable[object]]] = []

    async def execute(self, query: str, *values: object) -> int:
        """Change rows; give how many."""
        done: str = await self._connection.execute(query, *values)
        count = done.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    def in_the_end(self, step: Callable[[], Awaitable[object]]) -> None:
        """Do this last, when no transaction of another node is about to end.

        It is for what changes rows of `destination`: all nodes write there, and would else wait for each other in no
        order. What it reads is what is committed then.
        """
        self.last.append(step)

    async def conducts(self, work: int) -> bool:
        """Whether this node may do some work that one node does at a time; no other does until this is committed."""
        return bool(await self.value("SELECT pg_try_advisory_xact_lock($1)", work))

    def tell(self, *news: News) -> None:
        """Have the other nodes hear of this once it is committed; nobody here does."""
        self.news += news

    def record(self, *events: Event) -> None:
        """Write events in this transaction, in the end of it; they are handed on once it is committed."""
        self.events += (storable_event(event, self.node) for event in events)
