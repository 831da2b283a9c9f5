"""What came of an order to bounce or drop: counted as it is carried out, and told once when it is whole.

The counts are written in the transactions that remove the entries, and the event in the one that removes the last:
wherever the engine is killed, the next one counts on from there and tells it once.
"""

from collections import Counter
from collections.abc import Sequence

from engine.model.order import Operation
from engine.queue.operations import Gone, counts_of, told
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.rows import struct_of

_COLUMNS = "id, verb, filter, by, at, messages, recipients, gone_messages, gone_recipients, released, due, finished"
_TOLD = ", ".join(f"o.{column.strip()}" for column in _COLUMNS.split(","))


async def count(tx: Transaction, gone: Sequence[Gone]) -> None:
    """Count entries that have been removed by order, and each of their messages once."""
    if not gone:
        return
    recipients, messages, fresh = counts_of(gone)
    if fresh:
        await tx.execute(
            # + 0: they are found by their messages, and not among all that are under the order.
            "UPDATE entry e SET counted = e.operation "
            "FROM unnest($1::bigint[], $2::bigint[]) AS k (operation, message) "
            "WHERE e.message = k.message AND e.operation + 0 = k.operation",
            [operation for operation, _ in fresh],
            [message for _, message in fresh],
        )
    await tx.execute(
        "UPDATE operation o SET gone_messages = gone_messages + k.messages, "
        "gone_recipients = gone_recipients + k.recipients "
        "FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS k (id, messages, recipients) WHERE o.id = k.id",
        list(recipients),
        [messages[operation] for operation in recipients],
        list(recipients.values()),
    )


async def note_released(tx: Transaction, operations: Sequence[int]) -> None:
    """Count entries that were released before the order they were under was carried out: its number for each."""
    if not operations:
        return
    numbers = Counter(operations)
    await tx.execute(
        "UPDATE operation o SET released = released + k.number "
        "FROM unnest($1::bigint[], $2::bigint[]) AS k (id, number) WHERE o.id = k.id",
        list(numbers),
        list(numbers.values()),
    )


async def go_on(tx: Transaction, operation: int) -> None:
    """An order has been undone as far as that went: it goes on with what was being returned, should that not succeed.

    One that was undone whole is over, and there is nothing to tell of it that the undoing does not.
    """
    await tx.execute(
        "UPDATE operation o SET due = $1 WHERE id = $2 "
        "AND (gone_recipients > 0 OR EXISTS (SELECT 1 FROM entry WHERE operation = o.id))",
        tx.now,
        operation,
    )


async def tell_of_whole_ones(tx: Transaction) -> None:
    """Tell what came of each order that is due and has no entry left."""
    # Of two nodes that find it whole one tells it.
    rows = await tx.fetch(
        "UPDATE operation o SET due = NULL FROM operation before WHERE o.due <= $1 AND before.id = o.id "
        f"AND NOT EXISTS (SELECT 1 FROM entry WHERE operation = o.id) RETURNING before.due, {_TOLD}, 0",
        tx.now,
    )
    for _, *row in sorted(map(tuple, rows)):
        operation = struct_of(Operation, row)
        tx.record(told(tx.now, operation))


async def operation(s: Snapshot, id: int) -> Operation | None:
    """An order to bounce or drop, and how far it has come; see Orders.operation."""
    row = await s.row(
        f"SELECT {_COLUMNS}, (SELECT count(*) FROM entry WHERE operation = o.id) FROM operation o "
        "WHERE id = $1 AND kind = 'ordered'",
        id,
    )
    return None if row is None else struct_of(Operation, row)
