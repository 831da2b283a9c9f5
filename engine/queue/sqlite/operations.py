"""What came of an order to bounce or drop: counted as it is carried out, and told once when it is whole.

The counts are written in the transactions that remove the entries, and the event in the one that removes the last:
wherever the engine is killed, the next one counts on from there and tells it once.
"""

import sqlite3
from collections import Counter
from collections.abc import Sequence

from engine.model.order import Operation
from engine.queue.operations import Gone, counts_of, told
from engine.queue.rows import struct_of
from engine.queue.sqlite.writer import Transaction

_COLUMNS = 'id, verb, filter, "by", at, messages, recipients, gone_messages, gone_recipients, released, due, finished'


def count(tx: Transaction, gone: Sequence[Gone]) -> None:
    """Count entries that have been removed by order, and each of their messages once."""
    recipients, messages, fresh = counts_of(gone)
    for operation, message in fresh:
        if not tx.damage.knows("ordered", message):  # of such a one each entry counts as a message
            with tx.touching("ordered", message):
                tx.execute(
                    "UPDATE entry SET counted = operation WHERE operation = ? AND message = ?", (operation, message)
                )
    tx.connection.executemany(
        "UPDATE operation SET gone_messages = gone_messages + ?, gone_recipients = gone_recipients + ? WHERE id = ?",
        [(messages[operation], number, operation) for operation, number in recipients.items()],
    )


def note_released(tx: Transaction, operations: Sequence[int]) -> None:
    """Count entries that were released before the order they were under was carried out: its number for each."""
    tx.connection.executemany(
        "UPDATE operation SET released = released + ? WHERE id = ?",
        [(number, operation) for operation, number in Counter(operations).items()],
    )


def go_on(tx: Transaction, operation: int) -> None:
    """An order has been undone as far as that went: it goes on with what was being returned, should that not succeed.

    One that was undone whole is over, and there is nothing to tell of it that the undoing does not.
    """
    tx.execute(
        "UPDATE operation SET due = ? WHERE id = ? "
        "AND (gone_recipients OR EXISTS (SELECT 1 FROM entry WHERE operation = operation.id))",
        (tx.now, operation),
    )


def tell_of_whole_ones(tx: Transaction) -> None:
    """Tell what came of each order that is due and has no entry left."""
    rows = tx.execute(
        f"SELECT {_COLUMNS}, 0 FROM operation WHERE due <= ? "
        "AND NOT EXISTS (SELECT 1 FROM entry e WHERE e.operation = operation.id) ORDER BY due, id",
        (tx.now,),
    ).fetchall()
    for row in rows:
        operation = struct_of(Operation, row)
        tx.record(told(tx.now, operation))
        tx.execute("UPDATE operation SET due = NULL WHERE id = ?", (operation.id,))


def operation(connection: sqlite3.Connection, id: int) -> Operation | None:
    """An order to bounce or drop, and how far it has come; see Orders.operation."""
    row = connection.execute(
        f"SELECT {_COLUMNS}, (SELECT count(*) FROM entry e WHERE e.operation = operation.id) FROM operation "
        "WHERE id = ? AND kind = 'ordered'",
        (id,),
    ).fetchone()
    return None if row is None else struct_of(Operation, row)
