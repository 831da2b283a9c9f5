"""The operator's orders: retry, postpone, hold, release, bounce, drop, undo, on whatever a filter names.

An order on many entries is carried out in chunks, each a transaction of its own, so that mail moves meanwhile: a
reader looks for the next entries, the writer looks at them again and changes those it may.
"""

import json
from collections.abc import Mapping
from functools import partial

import msgspec

from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.order import Changed, Touched, TouchedEntry
from engine.queue import bulk, orders
from engine.queue.bulk import Chunk
from engine.queue.columns import storable
from engine.queue.orders import Candidate, Order
from engine.queue.sqlite import operations, rules
from engine.queue.sqlite.database import Database
from engine.queue.sqlite.endings import waits_for
from engine.queue.sqlite.exchanges import unblock
from engine.queue.sqlite.selection import OWN_END, candidates, newest_message
from engine.queue.sqlite.where import Where, looked_up
from engine.queue.sqlite.writer import Transaction

# What an order does to an entry, with its values, :message, :number, :operation, and :end (see selection.OWN_END).
_CHANGES: Mapping[orders.Change, str] = {
    "retry": "UPDATE entry SET due = :now, expires = iif(postponed_at IS NULL, expires, max(:end, :now)), "
    "postponed_at = NULL, postponed_by = '' WHERE message = :message AND number = :number AND due > :now",
    "postpone": "UPDATE entry SET due = :until, expires = max(:end, :until), postponed_at = :now, postponed_by = :by "
    "WHERE message = :message AND number = :number",
    "let go": "UPDATE entry SET due = :now, postponed_at = NULL, postponed_by = '' "
    "WHERE message = :message AND number = :number AND due > :now",
    "hold": "UPDATE entry SET state = iif(state = 'waiting', 'held', state), ordered = 'hold', ordered_by = :by, "
    "note = :note, operation = NULL, prior = '', prior_by = '', prior_note = '', rule = NULL "
    "WHERE message = :message AND number = :number",
    "release": "UPDATE entry SET state = iif(state = 'held', 'waiting', state), ordered = NULL, "
    "ordered_by = '', note = '', operation = NULL, prior = '', prior_by = '', prior_note = '', rule = NULL, "
    "expires = iif(state = 'held', max(expires, :now), expires) WHERE message = :message AND number = :number",
    "give up": "UPDATE entry SET state = iif(state = 'waiting', 'held', state), "
    "prior = CASE WHEN prior <> '' THEN prior WHEN ordered = 'hold' THEN 'held' ELSE 'waiting' END, "
    "prior_by = iif(prior <> '', prior_by, ordered_by), prior_note = iif(prior <> '', prior_note, note), "
    "ordered = :order, ordered_by = :by, note = :note, operation = :operation "
    "WHERE message = :message AND number = :number",
    "undo": "UPDATE entry SET state = iif(state = 'held', prior, state), ordered = iif(prior = 'held', 'hold', NULL), "
    "ordered_by = prior_by, note = prior_note, operation = NULL, prior = '', prior_by = '', "
    "prior_note = '' WHERE message = :message AND number = :number",
}


class Bulk(bulk.Bulk[Where]):
    """Carries orders out, in chunks, until the store is about to be closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def carry_out(
        self, order: Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        """Do it to whatever the filter names up to message `newest`, with one event in the end."""
        bound = await self._database.readers.ask(newest_message) if newest is None else newest
        now = self._database.clock.now()
        selected = await self._database.readers.ask(lambda c: looked_up(c, filter, now, bound), order=True)
        return await self.carry_out_on(order, selected, str(filter) or "everything", touched)

    async def undo(self, operation: int, by: str) -> Changed:
        """Take back an order to bounce or drop; from the first moment on no more of it is carried out."""
        await self._database.do(lambda tx: tx.execute("UPDATE operation SET due = NULL WHERE id = ?", (operation,)))
        selected = Where("e.operation = ?", (operation,))
        changed = await self.carry_out_on(orders.undo(operation, by), selected, f"operation {operation}")
        return msgspec.structs.replace(changed, operation=0)

    async def make_due(self, host: str, by: str, touched: Touched | None = None) -> int:
        """Make due now what waits in destinations that have this host, and else only bad ones; give how many."""
        now = self._database.clock.now()
        done = await self.carry_out_on(orders.let_go("mark-good", by, now), waits_for(host, now), host, touched)
        return done.recipients

    async def make_due_in(self, destination: str, verb: str, by: str) -> int:
        """Make due now what waits in one destination; give how many."""
        now = self._database.clock.now()
        selected = Where(
            "e.destination = ? AND e.state = 'waiting' AND e.due > ?", (storable(destination).lower(), now)
        )
        return (await self.carry_out_on(orders.let_go(verb, by, now), selected, destination)).recipients

    # -- the steps of it ------------------------------------------------------------------------------------------

    async def find(self, selected: Where, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        return await self._database.readers.ask(lambda c: candidates(c, selected, after, limit), order=True)

    async def do(self, chunk: Chunk[Where]) -> Changed:
        return await self._database.do(partial(_do, chunk=chunk))

    async def cut_short(self, operation: int, why: str) -> None:
        await self._database.do(partial(_cut_short, operation=operation, why=why))

    def go_on(self) -> None:
        self._database.go_on()


def _do(tx: Transaction, chunk: Chunk[Where]) -> Changed:
    """Do one chunk; the last one writes the event that tells of all. Run anew, it begins where it began."""
    operation = _begin(tx, chunk) if chunk.is_first else chunk.operation
    (chunk.since,) = tx.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    touched, skipped = _apply(tx, chunk.order, chunk.selected, chunk.ids, operation)
    chunk.operation = operation
    chunk.touched = [TouchedEntry(entry.message, entry.number, entry.attempts) for entry in touched]
    messages = list(dict.fromkeys(entry.message for entry in touched))
    (before,) = tx.execute("SELECT last FROM operation WHERE id = ?", (operation,)).fetchone()
    due = tx.now + chunk.order.wait if chunk.last and chunk.order.wait is not None else None
    row = tx.execute(
        "UPDATE operation SET messages = messages + ?, recipients = recipients + ?, skipped = skipped + ?, "
        "last = ?, finished = ?, due = ? WHERE id = ? RETURNING messages, recipients, skipped",
        (
            len(messages) - (before in messages),
            len(touched),
            skipped,
            messages[-1] if messages else before,
            chunk.last,
            due,
            operation,
        ),
    ).fetchone()
    outlasting = chunk.outlasting + sum(entry.end < chunk.order.until for entry in touched)
    changed = Changed(
        messages=row[0],
        recipients=row[1],
        skipped=row[2],
        operation=operation,
        due=due,
        outlasting=outlasting,
    )
    if not chunk.last:
        return changed
    if chunk.order.undoes:  # what was being returned already goes on, should that not succeed
        operations.go_on(tx, chunk.order.undoes)
    if not changed.recipients:
        tx.execute("DELETE FROM operation WHERE id = ?", (operation,))
        return msgspec.structs.replace(changed, operation=0, due=None)
    if not chunk.order.is_told:
        tx.execute("DELETE FROM operation WHERE id = ?", (operation,))
        return changed
    beyond = f", {outlasting:,} of them beyond their time" if outlasting else ""
    tx.record(_event(tx.now, operation, tx, chunk.order.detail + beyond))
    return changed


def _begin(tx: Transaction, chunk: Chunk[Where]) -> int:
    order = chunk.order
    cursor = tx.execute(
        'INSERT INTO operation (kind, verb, filter, "by", note, at) VALUES (?, ?, ?, ?, ?, ?)',
        (order.kind, order.verb, chunk.named, storable(order.by), storable(order.note), tx.now),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def end_unfinished(tx: Transaction) -> None:
    """Tell of the orders that were cut short by the end of the engine, with what they touched until then."""
    for (operation,) in tx.execute("SELECT id FROM operation WHERE NOT finished ORDER BY id").fetchall():
        _cut_short(tx, operation, "the engine ended")


def _cut_short(tx: Transaction, operation: int, why: str) -> None:
    """Tell of an order that is not whole. One to bounce or drop is due at no time: what it holds stays held."""
    tx.record(_event(tx.now, operation, tx, f" (cut short: {why})"))
    tx.execute("UPDATE operation SET finished = 1 WHERE id = ?", (operation,))


def _event(now: float, operation: int, tx: Transaction, detail: str = "") -> Event:
    row = tx.execute(
        'SELECT kind, verb, filter, "by", note, messages, recipients FROM operation WHERE id = ?', (operation,)
    ).fetchone()
    return orders.told(now, operation, orders.Given(*row), detail)


def _apply(
    tx: Transaction, order: Order, selected: Where, ids: list[tuple[int, int]], operation: int = 0
) -> tuple[list[Candidate], int]:
    """Do it to those of `ids` that still match and may be touched; give these, and how many were skipped."""
    rows = tx.execute(
        "SELECT e.message, e.number, e.destination, e.state, e.ordered, "
        "(SELECT due FROM operation WHERE id = e.operation), e.giving_up, e.rule, e.operation, e.attempts, "
        f"e.due, {OWN_END}, e.postponed_at "
        "FROM json_each(?) j "
        "CROSS JOIN entry e ON e.message = j.value ->> 0 AND e.number = j.value ->> 1 "
        f"CROSS JOIN message m ON m.number = e.message WHERE {selected.sql}",
        (json.dumps(ids), *selected.values),
    ).fetchall()
    matching = [Candidate(*row) for row in rows]
    touched = [entry for entry in matching if order.touches(entry)]
    tx.connection.executemany(
        _CHANGES[order.change],
        [
            {
                **order.values,
                "operation": operation,
                "message": entry.message,
                "number": entry.number,
                "end": entry.end,
            }
            for entry in touched
        ],
    )
    if order.kind == "released":
        operations.note_released(tx, [entry.operation for entry in touched if entry.operation is not None])
    if order.undoes:
        rules.hold_what_is_free(tx, [(entry.message, entry.number) for entry in touched])
    if order.unblocks:
        unblock(tx, list(dict.fromkeys(entry.destination for entry in touched)))
    return touched, len(matching) - len(touched)
