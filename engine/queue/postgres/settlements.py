"""Settlements: what an attempt came to becomes a change of the store, with what is to be told of it, at once."""

from collections.abc import Sequence
from typing import NamedTuple

from engine.model.claim import EntryResult, Settlement
from engine.model.reason import reason_of
from engine.queue.bounds import TOOK_EVERY
from engine.queue.contract import NotRunning
from engine.queue.mail import Terms
from engine.queue.postgres import notifications, operations
from engine.queue.postgres.mail import remove_if_finished
from engine.queue.postgres.rows import outcome_json, storable
from engine.queue.postgres.transaction import Transaction

# Closes the records of attempts, and gives those of the entries that are being relayed by these very attempts. A claim
# to give up has no attempt on record, and only such a claim has none.
_END_ATTEMPTS = (
    "WITH k AS (SELECT * FROM unnest($2::int[], $3::bigint[], $4::text[]) AS k (number, attempt, outcome)), "
    "ended AS (UPDATE attempt a SET ended = $5, outcome = k.outcome FROM k WHERE a.id = k.attempt AND a.message = $1 "
    "AND a.entry = k.number AND a.ended IS NULL AND NOT a.interrupted RETURNING a.id) "
    "SELECT e.number, e.destination, e.operation, e.counted FROM k "
    "JOIN entry e ON e.message = $1 AND e.number = k.number AND e.state = 'relaying' AND e.giving_up = (k.attempt = 0) "
    "AND (k.attempt <> 0 OR e.epoch = $6) "
    "WHERE k.attempt = 0 OR k.attempt IN (SELECT id FROM ended)"
)
# Back to waiting, or held where an order was given meanwhile. Words count only where there was an attempt.
_WAIT_AGAIN = (
    "UPDATE entry e SET state = CASE WHEN ordered IS NULL THEN 'waiting' ELSE 'held' END, giving_up = false, "
    "due = k.due, postponed_at = NULL, postponed_by = '', attempts = attempts + k.tried::int, "
    "last = CASE WHEN k.tried THEN k.outcome ELSE last END, "
    "last_line = CASE WHEN k.tried THEN k.line ELSE last_line END, "
    "reason_key = CASE WHEN k.tried THEN k.reason ELSE reason_key END, "
    "last_at = CASE WHEN k.tried THEN $2 ELSE last_at END "
    "FROM unnest($3::int[], $4::float8[], $5::boolean[], $6::text[], $7::text[], $8::text[]) "
    "AS k (number, due, tried, outcome, line, reason) WHERE e.message = $1 AND e.number = k.number"
)


async def settle(tx: Transaction, settlement: Settlement, terms: Terms) -> None:
    """Apply a settlement whole. Raises NotRunning for an entry that is not being relayed by this attempt."""
    message, results = settlement.message, settlement.results
    running = await _end_attempts(tx, message, results, settlement.epoch)
    leaving = [result for result in results if result.due is None]
    if leaving:
        await notifications.keep(tx, message, leaving, terms)
        await tx.execute(
            "DELETE FROM entry WHERE message = $1 AND number = ANY($2::int[])",
            message,
            [result.number for result in leaving],
        )
    await _wait_again(tx, message, [result for result in results if result.due is not None])
    if answers := [result for result in results if result.attempt]:
        last = answers[-1]
        await tx.execute(
            "INSERT INTO change (destination, last, last_at, took_at) "
            "SELECT name, $2, $3, CASE WHEN $4 AND took_at < $3 - $5::float8 THEN $3 END FROM destination "
            "WHERE name = $1",
            running[last.number].destination,
            outcome_json(last.outcome),
            tx.now,
            any(result.outcome.kind == "delivered" for result in answers),
            TOOK_EVERY,
        )
    await operations.count(
        tx,
        [
            operations.Gone(entry.operation, message, entry.counted)
            for result in leaving
            if (entry := running[result.number]).operation is not None and not result.attempt
        ],
    )
    if leaving:
        await remove_if_finished(tx, message)
    tx.record(*settlement.events)
    if any(entry.operation is not None for entry in running.values()):
        await operations.tell_of_whole_ones(tx)


class _Running(NamedTuple):
    """An entry that is settled: its destination, and the order it is under (see operations.Gone)."""

    destination: str
    operation: int | None
    counted: int | None


async def _end_attempts(
    tx: Transaction, message: int, results: Sequence[EntryResult], epoch: int
) -> dict[int, _Running]:
    rows = await tx.fetch(
        _END_ATTEMPTS,
        message,
        [result.number for result in results],
        [result.attempt for result in results],
        [outcome_json(result.outcome) for result in results],
        tx.now,
        epoch,
    )
    running = {number: _Running(*fields) for number, *fields in rows}
    for result in results:
        if result.number not in running:
            raise NotRunning(f"attempt {result.attempt} at {message}.{result.number} is not running")
    return running


async def _wait_again(tx: Transaction, message: int, results: Sequence[EntryResult]) -> None:
    if not results:
        return
    await tx.execute(
        _WAIT_AGAIN,
        message,
        tx.now,
        [result.number for result in results],
        [result.due for result in results],
        [result.attempt != 0 for result in results],
        [outcome_json(result.outcome) for result in results],
        [storable(result.outcome.line) for result in results],
        [storable(reason_of(result.outcome)) for result in results],
    )
