"""The operator's orders: retry, postpone, hold, release, bounce, drop, undo, on whatever a filter names.

An order on many entries is carried out in chunks, each a transaction of its own, so that mail moves meanwhile: a
reader looks for the next entries, the writer looks at them again and changes those it may, all in one statement.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.node import QUEUED
from engine.model.order import Changed, Touched, TouchedEntry
from engine.queue import bulk, orders
from engine.queue.bulk import Chunk
from engine.queue.orders import Candidate, Order
from engine.queue.postgres import operations, rules
from engine.queue.postgres.database import Database
from engine.queue.postgres.endings import waits_for
from engine.queue.postgres.exchanges import unblock
from engine.queue.postgres.rows import pairs, storable
from engine.queue.postgres.selection import OWN_END, candidates, newest_message
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.postgres.where import Where, looked_up, numbered


class _Change(NamedTuple):
    """What is set of an entry: `$4` and on are the named `values` of the order, and k.own_end is selection.OWN_END."""

    sets: str
    values: tuple[str, ...] = ()
    which: str = ""  # of the entries


_CHANGES: Mapping[orders.Change, _Change] = {
    "retry": _Change(
        "due = $4::float8, expires = CASE WHEN postponed_at IS NULL THEN expires ELSE greatest(k.own_end, $4) END, "
        "postponed_at = NULL, postponed_by = ''",
        ("now",),
        " AND e.due > $4",
    ),
    "postpone": _Change(
        "due = $4::float8, expires = greatest(k.own_end, $4), postponed_at = $5::float8, postponed_by = $6::text",
        ("until", "now", "by"),
    ),
    "let go": _Change("due = $4::float8, postponed_at = NULL, postponed_by = ''", ("now",), " AND e.due > $4"),
    "hold": _Change(
        "state = CASE WHEN state = 'waiting' THEN 'held' ELSE state END, ordered = 'hold', ordered_by = $4::text, "
        "note = $5::text, operation = NULL, prior = '', prior_by = '', prior_note = '', rule = NULL",
        ("by", "note"),
    ),
    "release": _Change(
        "state = CASE WHEN state = 'held' THEN 'waiting' ELSE state END, ordered = NULL, ordered_by = '', note = '', "
        "operation = NULL, prior = '', prior_by = '', prior_note = '', rule = NULL, "
        "expires = CASE WHEN state = 'held' THEN greatest(expires, $4::float8) ELSE expires END",
        ("now",),
    ),
    "give up": _Change(
        "state = CASE WHEN state = 'waiting' THEN 'held' ELSE state END, "
        "prior = CASE WHEN prior <> '' THEN prior WHEN ordered = 'hold' THEN 'held' ELSE 'waiting' END, "
        "prior_by = CASE WHEN prior <> '' THEN prior_by ELSE ordered_by END, "
        "prior_note = CASE WHEN prior <> '' THEN prior_note ELSE note END, "
        "ordered = $4::text, ordered_by = $5::text, note = $6::text, operation = $7::bigint",
        ("order", "by", "note", "operation"),
    ),
    "undo": _Change(
        "state = CASE WHEN state = 'held' THEN prior ELSE state END, "
        "ordered = CASE WHEN prior = 'held' THEN 'hold' END, ordered_by = prior_by, note = prior_note, "
        "operation = NULL, prior = '', prior_by = '', prior_note = ''"
    ),
}
_GIVEN = "kind, verb, filter, by, note, messages, recipients"  # in the order of the fields of orders.Given


class Bulk(bulk.Bulk[Where]):
    """Carries orders out, in chunks, until the store is about to be closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def carry_out(
        self, order: Order, filter: Filter, newest: int | None, touched: Touched | None = None
    ) -> Changed:
        """Do it to whatever the filter names up to message `newest`, with one event in the end."""
        now = self._database.clock.now()

        async def look_up(s: Snapshot) -> Where:
            return await looked_up(s, filter, now, await newest_message(s) if newest is None else newest)

        selected = await self._database.ask(look_up)
        return await self.carry_out_on(order, selected, str(filter) or "everything", touched)

    async def undo(self, operation: int, by: str) -> Changed:
        """Take back an order to bounce or drop; from the first moment on no more of it is carried out."""
        await self._database.do(lambda tx: tx.execute("UPDATE operation SET due = NULL WHERE id = $1", operation))
        selected = Where("e.operation = ?::bigint", (operation,))
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
            "e.destination = ?::text AND e.state = 'waiting' AND e.due > ?::float8",
            (storable(destination).lower(), now),
        )
        return (await self.carry_out_on(orders.let_go(verb, by, now), selected, destination)).recipients

    # -- the steps of it ------------------------------------------------------------------------------------------

    async def find(self, selected: Where, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        return await self._database.ask(lambda s: candidates(s, selected, after, limit))

    async def do(self, chunk: Chunk[Where]) -> Changed:
        return await self._database.do(partial(_do, chunk=chunk))

    async def cut_short(self, operation: int, why: str) -> None:
        await self._database.do(partial(_cut_short, operation=operation, why=why))

    def go_on(self) -> None:
        self._database.go_on()


async def _do(tx: Transaction, chunk: Chunk[Where]) -> Changed:
    """Do one chunk; the last one writes the event that tells of all. Run anew, it begins where it began."""
    if chunk.is_first:
        chunk.operation, chunk.since = await _begin(tx, chunk)
    touched, skipped = await _apply(tx, chunk.order, chunk.selected, chunk.ids, chunk.operation)
    chunk.touched = [TouchedEntry(entry.message, entry.number, entry.attempts) for entry in touched]
    due = tx.now + chunk.order.wait if chunk.last and chunk.order.wait is not None else None
    row = await tx.row(
        "UPDATE operation SET messages = messages + cardinality($2::bigint[]) - (last = ANY($2))::int, "
        "recipients = recipients + $3, skipped = skipped + $4, "
        "last = coalesce($2[cardinality($2)], last), finished = $5, due = $6 "
        f"WHERE id = $1 RETURNING skipped, {_GIVEN}",
        chunk.operation,
        list(dict.fromkeys(entry.message for entry in touched)),
        len(touched),
        skipped,
        chunk.last,
        due,
    )
    assert row is not None
    all_skipped, *values = row
    given = orders.Given(*values)
    outlasting = chunk.outlasting + sum(entry.end < chunk.order.until for entry in touched)
    changed = Changed(
        messages=given.messages,
        recipients=given.recipients,
        skipped=all_skipped,
        operation=chunk.operation,
        due=due,
        outlasting=outlasting,
    )
    if not chunk.last:
        return changed
    if chunk.order.undoes:  # what was being returned already goes on, should that not succeed
        await operations.go_on(tx, chunk.order.undoes)
    if not changed.recipients or not chunk.order.is_told:
        await tx.execute("DELETE FROM operation WHERE id = $1", chunk.operation)
        return changed if changed.recipients else msgspec.structs.replace(changed, operation=0, due=None)
    beyond = f", {outlasting:,} of them beyond their time" if outlasting else ""
    tx.record(orders.told(tx.now, chunk.operation, given, chunk.order.detail + beyond))
    return changed


async def _begin(tx: Transaction, chunk: Chunk[Where]) -> tuple[int, int]:
    """Its number, and that of the last event before it."""
    order = chunk.order
    row = await tx.row(
        "INSERT INTO operation (kind, verb, filter, by, note, at, epoch) VALUES ($1, $2, $3, $4, $5, $6, $7) "
        "RETURNING id, (SELECT coalesce(max(seq), 0) FROM event)",
        order.kind,
        order.verb,
        storable(chunk.named),
        storable(order.by),
        storable(order.note),
        tx.now,
        tx.epoch,
    )
    assert row is not None
    return row[0], row[1]


async def end_unfinished(tx: Transaction) -> None:
    """Tell of the orders that were cut short by the end of the node they were given at, with what they touched."""
    rows = await tx.fetch(
        "UPDATE operation SET finished = TRUE WHERE NOT finished "
        f"AND epoch <> ALL(ARRAY(SELECT epoch FROM node WHERE NOT is_lost)) RETURNING id, {_GIVEN}"
    )
    for operation, *given in sorted(map(tuple, rows)):
        tx.record(_event_of_cut_short(tx.now, operation, orders.Given(*given), "the engine ended"))


async def _cut_short(tx: Transaction, operation: int, why: str) -> None:
    """Tell of an order that is not whole. One to bounce or drop is due at no time: what it holds stays held."""
    row = await tx.row(f"UPDATE operation SET finished = TRUE WHERE id = $1 RETURNING {_GIVEN}", operation)
    assert row is not None
    tx.record(_event_of_cut_short(tx.now, operation, orders.Given(*row), why))


def _event_of_cut_short(now: float, operation: int, given: orders.Given, why: str) -> Event:
    return orders.told(now, operation, given, f" (cut short: {why})")


async def _apply(
    tx: Transaction, order: Order, selected: Where, ids: list[tuple[int, int]], operation: int
) -> tuple[list[Candidate], int]:
    """Do it to those of `ids` that still match and may be touched; give these, and how many were skipped."""
    rows = await tx.fetch(
        numbered(
            "SELECT e.message, e.number, e.destination, e.state, e.ordered, o.due, e.giving_up, e.rule, e.operation, "
            f"e.attempts, e.due, {OWN_END}, e.postponed_at "
            f"{rules.GIVEN} LEFT JOIN operation o ON o.id = e.operation WHERE {selected.sql} "
            "ORDER BY e.message, e.number FOR UPDATE OF e"
        ),
        *pairs(ids),
        *selected.values,
    )
    matching = [Candidate(*row) for row in rows]
    touched = [entry for entry in matching if order.touches(entry)]
    if touched:
        await _change(tx, order, touched, operation)
    if order.kind == "released":
        await operations.note_released(tx, [entry.operation for entry in touched if entry.operation is not None])
    if order.undoes:
        await rules.hold_what_is_free(tx, [(entry.message, entry.number) for entry in touched])
    if order.unblocks:
        tx.in_the_end(partial(unblock, tx, {entry.destination for entry in touched}))
    tx.tell(QUEUED)
    return touched, len(matching) - len(touched)


async def _change(tx: Transaction, order: Order, touched: list[Candidate], operation: int) -> None:
    change = _CHANGES[order.change]
    values = {**order.values, "operation": operation}
    await tx.execute(
        f"UPDATE entry e SET {change.sets} FROM unnest($1::bigint[], $2::int[], $3::float8[]) "
        f"AS k (message, number, own_end) WHERE e.message = k.message AND e.number = k.number{change.which}",
        *pairs((entry.message, entry.number) for entry in touched),
        [entry.end for entry in touched],
        *(storable(value) if isinstance(value := values[name], str) else value for name in change.values),
    )
