"""Carries an operator's order out on many entries, in chunks, whatever the store: mail moves between two of them."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Generic, Literal, TypeVar

import msgspec

from engine.base.text import clean
from engine.model.filter import Filter
from engine.model.order import Changed, Touched, TouchedEntry
from engine.queue import contract, orders
from engine.queue.errors import QueueError
from engine.queue.orders import Order

CHUNK = 1000  # entries in one transaction

Where = TypeVar("Where")  # what a store's conditions are


class Chunk(Generic[Where]):
    """One chunk of an order; with the last one it is told what the whole has done.

    `ids` are those that it looks at; `operation` is 0 until the first has made it; `outlasting`: of the chunks before.
    Afterwards `touched` says which it changed, and `since` the last event before it (known of the first, at least).
    """

    def __init__(
        self,
        order: Order,
        selected: Where,
        named: str,
        ids: list[tuple[int, int]],
        operation: int,
        outlasting: int,
        *,
        last: bool,
    ) -> None:
        self.order = order
        self.selected = selected
        self.named = clean(named, 500)
        self.ids = ids
        self.operation = operation
        self.outlasting = outlasting
        self.last = last
        self.since = 0
        self.touched: list[TouchedEntry] = []
        self.is_first = not operation


class Bulk(ABC, Generic[Where]):
    """Carries orders out, in chunks, until the store is about to be closed. Each step is a store's own."""

    async def carry_out_on(self, order: Order, selected: Where, named: str, touched: Touched | None = None) -> Changed:
        """Do it to all that is selected, with one event in the end. Raises QueueError, which says how far it came."""
        done = Changed(messages=0, recipients=0)
        after = (0, 0)
        outlasting = 0
        try:
            while True:
                found = await self.find(selected, after, CHUNK)
                is_last = len(found) < CHUNK
                if not found and not done.operation:
                    return done
                chunk = Chunk(order, selected, named, found, done.operation, outlasting, last=is_last)
                done = await self.do(chunk)
                outlasting = done.outlasting
                if touched is not None:
                    touched.add(chunk.operation, chunk.since, chunk.touched)
                if is_last:
                    return done if order.wait is not None else msgspec.structs.replace(done, operation=0)
                after = found[-1]
                self.go_on()
        except QueueError as error:
            if not done.operation:
                raise
            with suppress(QueueError):  # then the next start says it
                await self.cut_short(done.operation, clean(str(error), 300))
            raise type(error)(f"{error}; {orders.so_far(order, done)}") from error

    @abstractmethod
    async def find(self, selected: Where, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        """The next `limit` entries of a selection behind the entry `after`."""

    @abstractmethod
    async def do(self, chunk: Chunk[Where]) -> Changed:
        """Do one chunk, in one transaction; give what has been done so far."""

    @abstractmethod
    async def cut_short(self, operation: int, why: str) -> None:
        """Tell of an order that is not whole."""

    @abstractmethod
    def go_on(self) -> None:
        """Between two chunks. Raises QueueError where the store is about to be closed."""


class Orders(contract.Orders):
    """What touches many entries takes several transactions, each bounded, and goes on when who ordered it has gone."""

    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self.carry_out(orders.retry(by, self.now()), filter, newest, touched)

    async def postpone(self, filter: Filter, by: str, until: float, newest: int | None = None) -> Changed:
        return await self.carry_out(orders.postpone(by, until, self.now()), filter, newest)

    async def hold(self, filter: Filter, by: str, note: str, newest: int | None = None) -> Changed:
        return await self.carry_out(orders.hold(by, note), filter, newest)

    async def release(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self.carry_out(orders.release(by, self.now()), filter, newest, touched)

    async def give_up(
        self,
        order: Literal["bounce", "drop"],
        filter: Filter,
        by: str,
        note: str,
        wait: float,
        newest: int | None = None,
    ) -> Changed:
        return await self.carry_out(orders.give_up(order, by, note, wait, self.now()), filter, newest)

    @abstractmethod
    def now(self) -> float:
        """The time by the store's clock."""

    @abstractmethod
    async def carry_out(
        self, order: Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        """Do it to whatever the filter names up to message `newest`, also where who asked has gone."""
