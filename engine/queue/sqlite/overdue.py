"""What is overdue: bounces and drops whose time has come, and mail that has expired."""

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import Any

from engine.model.claim import Claim
from engine.model.outcome import Outcome
from engine.queue.bounds import DROPS_AT_ONCE
from engine.queue.expiry import Taken
from engine.queue.operations import Gone, dropped
from engine.queue.sqlite import operations
from engine.queue.sqlite.attempts import claimed, how_it_fared
from engine.queue.sqlite.connection import is_damage
from engine.queue.sqlite.expiry import Expired, Place
from engine.queue.sqlite.mail import remove_if_finished
from engine.queue.sqlite.writer import Transaction

# What is to be bounced or dropped by orders whose time has come; an order that is not whole yet has none.
_ORDERED_AWAY = (
    "operation o CROSS JOIN entry e ON e.operation = o.id JOIN message m ON m.number = e.message "
    "WHERE o.due <= :now AND o.verb = :verb AND e.state = 'held' AND e.ordered = :verb ORDER BY o.due"
)
# Their keys, which the index of orders holds without the entries themselves; those too that go another way by now.
_KEYS_OF_ORDERED = (
    "SELECT e.operation, e.message, e.number FROM operation o CROSS JOIN entry e INDEXED BY entry_operation "
    "ON e.operation = o.id WHERE o.due <= :now AND o.verb = :verb ORDER BY o.due"
)


def overdue(tx: Transaction, limit: int, expired: Expired | None) -> tuple[list[Claim], Place | None]:
    """Claim up to `limit` messages whose bounce is due, or that have expired and are given up (None: none is).

    Entries that were never tried have as their `last` why their destination could not be had. Gives also where the
    walk over what has expired is to go on, once this is committed.
    """
    bounced = _ordered_away(
        tx,
        "bounce",
        "e.message, e.destination, e.number, 'bounced by ' || e.ordered_by || iif(e.note = '', '', ': ' || e.note)",
    )
    taken: Taken = {}
    for message, destination, number, why in bounced:
        if tx.damage.knows("expired", message):
            continue
        key = (message, destination)
        if key not in taken and len(taken) >= limit:
            break
        taken.setdefault(key, {})[number] = why
    place = expired.given_up(tx, taken, limit) if expired is not None else None
    claims = []
    fared: dict[str, Outcome | None] = {}
    for (message, destination), reasons in taken.items():
        with tx.touching("expired", message):
            if destination not in fared:
                fared[destination] = how_it_fared(tx.connection, destination)
            tx.connection.executemany(
                "UPDATE entry SET state = 'relaying', giving_up = 1 WHERE message = ? AND number = ?",
                [(message, number) for number in reasons],
            )
            claims.append(claimed(tx, message, destination, dict.fromkeys(reasons, 0), reasons, fared[destination]))
    return claims, place


def carry_out_drops(tx: Transaction) -> int:
    """Remove entries whose drop is due, DROPS_AT_ONCE at the most; give how many there were.

    With the last of an order it is told what became of the whole; that of a bounce, too, whose last entry went
    another way.
    """
    columns = "e.message, e.number, m.sender, e.recipient, e.destination, e.ordered_by, e.note, o.id, e.counted"
    due = list(islice(_ordered_away(tx, "drop", columns), DROPS_AT_ONCE))
    for message, number, *_ in due:
        with tx.touching("ordered", "drop"), tx.touching("ordered", message):
            tx.execute("DELETE FROM entry WHERE message = ? AND number = ?", (message, number))
    for message in dict.fromkeys(row[0] for row in due):
        remove_if_finished(tx, message)
    operations.count(tx, [Gone(row[7], row[0], row[8]) for row in due])
    tx.record(*(dropped(tx.now, *row[:7]) for row in due))
    operations.tell_of_whole_ones(tx)
    return len(due)


def _ordered_away(tx: Transaction, verb: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """What is to be bounced or dropped now; where a page is damaged, some of what can be read, entry by entry."""
    values: dict[str, Any] = {"now": tx.now, "verb": verb}
    if not tx.damage.knows("ordered", verb):
        with tx.touching("ordered", verb):
            yield from tx.execute(f"SELECT {columns} FROM {_ORDERED_AWAY}", values)
        return
    one = f"SELECT {columns} FROM {_ORDERED_AWAY}".replace(
        "WHERE", "WHERE o.id = :operation AND e.message = :message AND e.number = :number AND"
    )
    found: list[tuple[Any, ...]] = []
    met: sqlite3.Error | None = None
    for operation, message, number in tx.execute(_KEYS_OF_ORDERED, values):
        if tx.damage.knows("ordered", message):
            continue
        if len(found) >= DROPS_AT_ONCE:
            break
        try:
            key = {"operation": operation, "message": message, "number": number}
            found += tx.execute(one, values | key).fetchall()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            tx.damage.note("ordered", message)
            met = error
    if met is not None:  # nothing can be committed any more: once anew, with all of them known
        raise met
    yield from found
