"""What senders are still to be told of settled recipients: kept from the settlement to the notification.

Both are one transaction each, so that a kill between them loses nothing and tells nobody twice. What comes within a
short time goes into one notification: a message that fails at 200 destinations must not become 200 messages to a
sender whose address may be forged.
"""

from collections.abc import Sequence

from engine.model.claim import EntryResult, Untold, UntoldEntry
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.bounds import LONGEST_GATHER, RECIPIENTS_TOLD
from engine.queue.columns import outcome_json, outcome_of
from engine.queue.mail import Terms
from engine.queue.postgres.mail import enqueue, remove_if_finished
from engine.queue.postgres.transaction import Row, Snapshot, Transaction


async def keep(tx: Transaction, message: int, results: Sequence[EntryResult], terms: Terms) -> None:
    """Keep what is to be told of entries that are about to leave (those with `tell`), and when that is to be told."""
    told = [result for result in results if result.tell is not None]
    if not told:
        return
    await tx.execute(
        "WITH kept AS (INSERT INTO untold (message, number, recipient, orcpt, action, outcome, at) "
        "SELECT e.message, e.number, e.recipient, e.orcpt, k.action, k.outcome, $5 "
        "FROM unnest($2::int[], $3::text[], $4::text[]) AS k (number, action, outcome) "
        "JOIN entry e ON e.message = $1 AND e.number = k.number) "
        "UPDATE message SET tell_at = $5 + least($6::float8 * (1 << least(tellings, 20)), $7::float8) "
        "WHERE number = $1 AND tell_at IS NULL",
        message,
        [result.number for result in told],
        [result.tell for result in told],
        [outcome_json(result.outcome) for result in told],
        tx.now,
        terms.gather,
        LONGEST_GATHER,
    )


async def untold(s: Snapshot, limit: int) -> list[Untold]:
    """Messages of which somebody is to be told now, with RECIPIENTS_TOLD recipients in all, or with one message's."""
    found: list[Row] = []
    room = RECIPIENTS_TOLD
    for row in await s.fetch(
        "SELECT number, sender, arrived, smtputf8, ret, envid, given_back, "
        "(SELECT count(*) FROM (SELECT 1 FROM untold WHERE message = m.number LIMIT $3) u) "
        "FROM message m WHERE tell_at <= $1 ORDER BY tell_at, number LIMIT $2",
        s.now,
        limit,
        RECIPIENTS_TOLD,
    ):
        if found and row[7] > room:
            break
        room -= row[7]
        found.append(row)
    if not found:
        return []
    entries = await _entries(s, [row[0] for row in found])
    return [
        Untold(
            message=number,
            sender=sender,
            arrived=arrived,
            smtputf8=smtputf8,
            entries=tuple(entries.get(number, ())),
            ret=ret,
            envid=envid,
            given_back=given_back,
        )
        for number, sender, arrived, smtputf8, ret, envid, given_back, _ in found
    ]


async def tell(tx: Transaction, untold: Untold, notice: NewMessage | None, terms: Terms, *, gives_back: bool) -> bool:
    """Queue a notification and forget what it tells; do nothing unless all of that is still to be told."""
    message = untold.message
    these = "message = $1 AND number = ANY($2::int[])"
    forgotten = await tx.execute(
        f"DELETE FROM untold WHERE {these} AND (SELECT count(*) FROM untold WHERE {these}) = $3",
        message,
        [entry.number for entry in untold.entries],
        len(untold.entries),
    )
    if forgotten != len(untold.entries):
        return False
    await tx.execute(
        "UPDATE message m SET tellings = tellings + 1, given_back = given_back OR $2, "
        "tell_at = CASE WHEN EXISTS (SELECT 1 FROM untold WHERE message = m.number) THEN $3::float8 END "
        "WHERE number = $1",
        message,
        gives_back,
        tx.now,
    )
    if notice is not None:
        await enqueue(tx, notice, terms)
    await remove_if_finished(tx, message)
    return True


async def tell_later(tx: Transaction, message: int, seconds: float) -> None:
    """Look again at what is to be told of a message after so many seconds."""
    await tx.execute(
        "UPDATE message SET tell_at = $2 WHERE number = $1 AND tell_at IS NOT NULL", message, tx.now + seconds
    )


async def _entries(s: Snapshot, messages: Sequence[int]) -> dict[int, list[UntoldEntry]]:
    """What is to be told of each of these messages, RECIPIENTS_TOLD recipients of each at the most."""
    found: dict[int, list[UntoldEntry]] = {}
    for message, number, recipient, outcome, action, orcpt, at in await s.fetch(
        "SELECT u.* FROM unnest($1::bigint[]) AS k (message) CROSS JOIN LATERAL "
        "(SELECT message, number, recipient, outcome, action, orcpt, at FROM untold "
        "WHERE message = k.message ORDER BY number LIMIT $2) u ORDER BY u.message, u.number",
        messages,
        RECIPIENTS_TOLD,
    ):
        found.setdefault(message, []).append(
            UntoldEntry(
                number=number,
                recipient=recipient,
                outcome=outcome_of(outcome) or Outcome.transient("the record of this outcome is damaged"),
                action=action,
                orcpt=orcpt,
                at=at,
            )
        )
    return found
