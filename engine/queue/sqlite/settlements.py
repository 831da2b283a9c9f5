"""Settlements: what an attempt came to becomes a change of the store, with what is to be told of it, at once."""

from engine.model.claim import EntryResult, Settlement
from engine.model.event import ENGINE
from engine.model.reason import reason_of
from engine.queue.bounds import TOOK_EVERY
from engine.queue.columns import outcome_json, storable
from engine.queue.errors import NotRunning
from engine.queue.mail import Terms
from engine.queue.operations import Gone
from engine.queue.sqlite import notifications, operations, suppression
from engine.queue.sqlite.mail import remove_if_finished
from engine.queue.sqlite.writer import Transaction


def settle(tx: Transaction, settlement: Settlement, terms: Terms) -> None:
    """Apply a settlement whole. Raises NotRunning for an entry that is not being relayed by this attempt."""
    message = settlement.message
    answered: EntryResult | None = None
    destination = ""
    bounced: list[Gone] = []
    is_ordered = False
    for result in settlement.results:
        destination, operation, counted = _end_attempt(tx, message, result)
        is_ordered = is_ordered or operation is not None
        if result.due is None:
            if operation is not None and not result.attempt:
                bounced.append(Gone(operation, message, counted))
            if result.tell is not None:
                notifications.keep(tx, message, result.number, result.outcome, result.tell, terms)
            if result.suppress is not None:
                _note_suppression(tx, message, result, result.suppress)
            _leave(tx, message, result)
        else:
            _wait_again(tx, message, result, result.due)
        if result.attempt:
            answered = result
    if answered is not None:
        tx.execute(
            "UPDATE destination SET last = ?, last_at = ? WHERE name = ?",
            (outcome_json(answered.outcome), tx.now, destination),
        )
    if any(result.attempt and result.outcome.kind == "delivered" for result in settlement.results):
        tx.execute(
            "UPDATE destination SET took_at = ? WHERE name = ? AND took_at < ?",
            (tx.now, destination, tx.now - TOOK_EVERY),
        )
    operations.count(tx, bounced)
    remove_if_finished(tx, message)
    tx.record(*settlement.events)
    if is_ordered:
        operations.tell_of_whole_ones(tx)


def _end_attempt(tx: Transaction, message: int, result: EntryResult) -> tuple[str, int | None, int | None]:
    """Close the record of the attempt; give the entry's destination, and the order it is under (see Gone)."""
    row = tx.execute(
        "SELECT destination, giving_up, operation, counted FROM entry "
        "WHERE message = ? AND number = ? AND state = 'relaying'",
        (message, result.number),
    ).fetchone()
    # A claim to give up has no attempt on record, and only such a claim has none.
    running = row is not None and bool(row[1]) == (result.attempt == 0)
    if running and result.attempt:
        cursor = tx.execute(
            "UPDATE attempt SET ended = ?, outcome = ? "
            "WHERE id = ? AND message = ? AND entry = ? AND ended IS NULL AND NOT interrupted",
            (tx.now, outcome_json(result.outcome), result.attempt, message, result.number),
        )
        running = cursor.rowcount == 1
    if not running:
        raise NotRunning(f"attempt {result.attempt} at {message}.{result.number} is not running")
    return row[0], row[2], row[3]


def _note_suppression(tx: Transaction, message: int, result: EntryResult, seconds: float) -> None:
    query = "SELECT recipient FROM entry WHERE message = ? AND number = ?"
    (recipient,) = tx.execute(query, (message, result.number)).fetchone()
    suppression.note(tx, recipient, result.outcome, seconds)


def _leave(tx: Transaction, message: int, result: EntryResult) -> None:
    """The entry leaves. Where a damaged page beside it keeps it from that, it is held: it must not be sent again."""
    if not tx.damage.knows("row", message, result.number):
        with tx.touching("row", message, result.number):
            tx.execute("DELETE FROM entry WHERE message = ? AND number = ?", (message, result.number))
    else:
        why = f"it has left ({result.outcome.kind}: {result.outcome.line}), but its record cannot be removed"
        tx.execute(
            "UPDATE entry SET state = 'held', giving_up = 0, ordered = 'hold', ordered_by = ?, note = ?, "
            "operation = NULL, prior = '', prior_by = '', prior_note = '', rule = NULL "
            "WHERE message = ? AND number = ?",
            (ENGINE, storable(f"{why}: a page of the queue beside it is damaged"), message, result.number),
        )


def _wait_again(tx: Transaction, message: int, result: EntryResult, due: float) -> None:
    """Back to waiting, or held where an order was given meanwhile. Words count only where there was an attempt."""
    tried = result.attempt != 0
    tx.execute(
        "UPDATE entry SET state = iif(ordered IS NULL, 'waiting', 'held'), giving_up = 0, due = ?, "
        "postponed_at = NULL, postponed_by = '', attempts = attempts + ?, "
        "last = iif(?, ?, last), last_line = iif(?, ?, last_line), reason_key = iif(?, ?, reason_key), "
        "last_at = iif(?, ?, last_at) "
        "WHERE message = ? AND number = ?",
        (
            due,
            tried,
            tried,
            outcome_json(result.outcome),
            tried,
            storable(result.outcome.line),
            tried,
            storable(reason_of(result.outcome)),
            tried,
            tx.now,
            message,
            result.number,
        ),
    )
