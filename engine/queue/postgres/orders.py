"""Operators' orders on mail that waits, and what became of it."""

from collections.abc import Sequence
from typing import Literal

from engine.model.filter import Filter
from engine.model.order import Changed, Fate, Operation, Touched, TouchedEntry
from engine.queue import contract, orders
from engine.queue.postgres import aftermath, bulk, operations
from engine.queue.postgres.database import Role, read
from engine.queue.postgres.transaction import Snapshot


class Orders(Role, contract.Orders):
    """What touches many entries takes several transactions, each bounded, and goes on when who ordered it has gone."""

    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self._carry_out(orders.retry(by, self._now()), filter, newest, touched)

    async def postpone(self, filter: Filter, by: str, until: float, newest: int | None = None) -> Changed:
        return await self._carry_out(orders.postpone(by, until, self._now()), filter, newest)

    async def hold(self, filter: Filter, by: str, note: str, newest: int | None = None) -> Changed:
        return await self._carry_out(orders.hold(by, note), filter, newest)

    async def release(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self._carry_out(orders.release(by, self._now()), filter, newest, touched)

    async def give_up(
        self,
        order: Literal["bounce", "drop"],
        filter: Filter,
        by: str,
        note: str,
        wait: float,
        newest: int | None = None,
    ) -> Changed:
        return await self._carry_out(orders.give_up(order, by, note, wait, self._now()), filter, newest)

    async def undo(self, operation: int, by: str) -> Changed:
        return await self.database.to_its_end(bulk.Bulk(self.database).undo(operation, by))

    @read
    async def operation(self, snapshot: Snapshot, id: int) -> Operation | None:
        return await operations.operation(snapshot, id)

    @read
    async def fates(self, snapshot: Snapshot, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
        return await aftermath.fates(snapshot, since, entries)

    def _now(self) -> float:
        return self.database.clock.now()

    async def _carry_out(
        self, order: orders.Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        carried_out = bulk.Bulk(self.database).carry_out(order, filter, newest, touched)
        return await self.database.to_its_end(carried_out)
