"""Settlements: what attempts came to becomes a change of the store, with what is to be told of it, at once.

Those that come at a moment are applied together, each statement once for all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engine.model.claim import EntryResult, Settlement
from engine.model.reason import reason_of
from engine.queue.bounds import TOOK_EVERY
from engine.queue.columns import outcome_json
from engine.queue.errors import NotRunning, QueueError
from engine.queue.mail import Terms
from engine.queue.operations import Gone
from engine.queue.postgres import notifications, operations, suppression
from engine.queue.postgres.mail import remove_if_finished
from engine.queue.postgres.rows import pairs, storable
from engine.queue.postgres.transaction import Transaction

# The entries that are being relayed by these very attempts. A claim to give up has no attempt on record, and only such
# a claim has none. Nothing is locked: nobody else changes that but who takes over from this node, and then this
# transaction comes to nothing. OFFSET 0: each is looked up by its key. Where nothing was being relayed when the table
# was last analyzed, the server would else go through all that is, for each.
RUNNING = (
    "SELECT e.message, e.number, e.destination "
    "FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[]) AS k (message, number, attempt, epoch) "
    "CROSS JOIN LATERAL (SELECT * FROM entry WHERE message = k.message AND number = k.number OFFSET 0) e "
    "WHERE e.state = 'relaying' AND e.giving_up = (k.attempt = 0) AND (k.attempt <> 0 OR e.epoch = k.epoch) "
    "AND (k.attempt = 0 OR EXISTS (SELECT 1 FROM attempt a WHERE a.id = k.attempt AND a.message = k.message "
    "AND a.entry = k.number AND a.ended IS NULL AND NOT a.interrupted))"
)
_LEAVE = (
    "DELETE FROM entry e USING unnest($1::bigint[], $2::int[]) AS k (message, number) "
    "WHERE e.message = k.message AND e.number = k.number RETURNING "
    "e.message, e.number, e.operation, e.counted, e.recipient"
)
# Back to waiting, or held where an order was given meanwhile. Words count only where there was an attempt.
_WAIT_AGAIN = (
    "UPDATE entry e SET state = CASE WHEN ordered IS NULL THEN 'waiting' ELSE 'held' END, giving_up = false, "
    "due = k.due, postponed_at = NULL, postponed_by = '', attempts = attempts + k.tried::int, "
    "last = CASE WHEN k.tried THEN k.outcome ELSE last END, "
    "last_line = CASE WHEN k.tried THEN k.line ELSE last_line END, "
    "reason_key = CASE WHEN k.tried THEN k.reason ELSE reason_key END, "
    "last_at = CASE WHEN k.tried THEN $1 ELSE last_at END "
    "FROM unnest($2::bigint[], $3::int[], $4::float8[], $5::boolean[], $6::text[], $7::text[], $8::text[]) "
    "AS k (message, number, due, tried, outcome, line, reason) WHERE e.message = k.message AND e.number = k.number "
    "RETURNING e.operation"
)
_END_ATTEMPTS = (
    "UPDATE attempt a SET ended = $1, outcome = k.outcome "
    "FROM unnest($2::bigint[], $3::text[]) AS k (attempt, outcome) WHERE a.id = k.attempt"
)
_FARED = (
    "INSERT INTO change (destination, last, last_at, took_at) "
    "SELECT d.name, k.last, $1, CASE WHEN k.took AND d.took_at < $1 - $2::float8 THEN $1 END "
    "FROM unnest($3::text[], $4::text[], $5::boolean[]) AS k (name, last, took) JOIN destination d ON d.name = k.name"
)


class _Result(NamedTuple):
    """What an attempt came to for one entry of a message."""

    message: int
    result: EntryResult

    @property
    def key(self) -> tuple[int, int]:
        return self.message, self.result.number


async def settle(tx: Transaction, settlements: Sequence[Settlement], terms: Terms) -> list[QueueError | None]:
    """Apply settlements, each whole or not at all; NotRunning for one whose attempt is not running any more."""
    running = await _running(tx, settlements)
    found: list[QueueError | None] = []
    applied: list[_Result] = []
    fared: dict[str, tuple[str | None, bool]] = {}
    for settlement in settlements:
        results = [_Result(settlement.message, result) for result in settlement.results]
        ended = next((each for each in results if each.key not in running), None)
        if ended is not None:
            number, attempt = ended.result.number, ended.result.attempt
            found.append(NotRunning(f"attempt {attempt} at {settlement.message}.{number} is not running"))
            continue
        found.append(None)
        applied += results
        tx.record(*settlement.events)
        if answers := [each for each in results if each.result.attempt]:
            took = any(each.result.outcome.kind == "delivered" for each in answers)
            name = running[answers[-1].key]
            fared[name] = outcome_json(answers[-1].result.outcome), took or fared.get(name, (None, False))[1]
        for each in results:
            del running[each.key]  # who reports the same once more comes too late
    if applied:
        await _apply(tx, applied, terms)
    if fared:
        lasts, took_it = [last for last, _ in fared.values()], [took for _, took in fared.values()]
        await tx.execute(_FARED, tx.now, TOOK_EVERY, list(fared), lasts, took_it)
    return found


async def _running(tx: Transaction, settlements: Sequence[Settlement]) -> dict[tuple[int, int], str]:
    """The destination of each entry that is being relayed by these attempts."""
    every = [(settlement, result) for settlement in settlements for result in settlement.results]
    rows = await tx.fetch(
        RUNNING,
        [settlement.message for settlement, _ in every],
        [result.number for _, result in every],
        [result.attempt for _, result in every],
        [settlement.epoch for settlement, _ in every],
    )
    return {(message, number): destination for message, number, destination in rows}


async def _apply(tx: Transaction, results: Sequence[_Result], terms: Terms) -> None:
    leaving = [each for each in results if each.result.due is None]
    waiting = [each for each in results if each.result.due is not None]
    gone: set[int] = set()
    is_ordered = False
    if leaving:
        for message in dict.fromkeys(each.message for each in leaving if each.result.tell is not None):
            told = [each.result for each in leaving if each.message == message]
            await notifications.keep(tx, message, told, terms)
        rows = await tx.fetch(_LEAVE, *pairs(each.key for each in leaving))
        left = {(message, number): (operation, counted) for message, number, operation, counted, _ in rows}
        ordered = [(each, *left[each.key]) for each in leaving if each.key in left and left[each.key][0] is not None]
        is_ordered = bool(ordered)
        await operations.count(
            tx,
            [Gone(operation, each.message, counted) for each, operation, counted in ordered if not each.result.attempt],
        )
        recipients = {(message, number): recipient for message, number, _, _, recipient in rows}
        suppression.note(
            tx,
            [
                (recipients[each.key], each.result.outcome, each.result.suppress)
                for each in leaving
                if each.result.suppress is not None and each.key in recipients
            ],
        )
        gone = await remove_if_finished(tx, *{each.message for each in leaving})
    if waiting:
        is_ordered = await _wait_again(tx, waiting) or is_ordered
    # The attempts of what has left have left with it.
    if ended := [each.result for each in results if each.result.attempt and each.message not in gone]:
        outcomes = [outcome_json(result.outcome) for result in ended]
        await tx.execute(_END_ATTEMPTS, tx.now, [result.attempt for result in ended], outcomes)
    if is_ordered:
        await operations.tell_of_whole_ones(tx)


async def _wait_again(tx: Transaction, waiting: Sequence[_Result]) -> bool:
    """Whether any of them is under an order."""
    results = [each.result for each in waiting]
    rows = await tx.fetch(
        _WAIT_AGAIN,
        tx.now,
        *pairs(each.key for each in waiting),
        [result.due for result in results],
        [result.attempt != 0 for result in results],
        [outcome_json(result.outcome) for result in results],
        [storable(result.outcome.line) for result in results],
        [storable(reason_of(result.outcome)) for result in results],
    )
    return any(operation is not None for (operation,) in rows)
