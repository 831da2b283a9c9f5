"""Operators' orders on mail that waits, and what became of it."""

from collections.abc import Sequence

from engine.model.filter import Filter
from engine.model.order import Changed, Fate, Operation, Touched, TouchedEntry
from engine.queue import bulk as carrying
from engine.queue.orders import Order
from engine.queue.sqlite import aftermath, bulk, operations
from engine.queue.sqlite.database import Role, Snapshot, seen


class Orders(Role, carrying.Orders):
    """What takes several transactions is carried out to its end by this store's Bulk."""

    async def undo(self, operation: int, by: str) -> Changed:
        return await self.database.to_its_end(bulk.Bulk(self.database).undo(operation, by))

    @seen
    def operation(self, snapshot: Snapshot, id: int) -> Operation | None:
        return operations.operation(snapshot.connection, id)

    @seen
    def fates(self, snapshot: Snapshot, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
        return aftermath.fates(snapshot.connection, since, entries, now=snapshot.now)

    def now(self) -> float:
        return self.database.clock.now()

    async def carry_out(
        self, order: Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        carried_out = bulk.Bulk(self.database).carry_out(order, filter, newest, touched)
        return await self.database.to_its_end(carried_out)
