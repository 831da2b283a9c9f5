"""What is overdue: bounces and drops whose time has come, and mail that has expired."""

from engine.model.claim import Claim
from engine.queue.bounds import DROPS_AT_ONCE
from engine.queue.expiry import Place, Taken
from engine.queue.operations import Gone, dropped
from engine.queue.postgres import operations
from engine.queue.postgres.attempts import CLAIMED, claims_of, how_they_fared
from engine.queue.postgres.connection import OVERDUE
from engine.queue.postgres.expiry import Expired
from engine.queue.postgres.mail import remove_if_finished
from engine.queue.postgres.rows import pairs
from engine.queue.postgres.transaction import Transaction

# Some of the entries that orders whose time has come are to be carried out on; one that is not whole yet has no time.
_ORDERED_AWAY = (
    "SELECT o.due, e.operation, e.message, e.destination, e.number FROM "
    "(SELECT id, due FROM operation WHERE due <= $1 AND verb = '{verb}') o CROSS JOIN LATERAL "
    "(SELECT operation, message, destination, number FROM entry "
    "WHERE operation = o.id AND state = 'held' AND ordered = '{verb}' LIMIT $2) e ORDER BY o.due, o.id LIMIT $2"
)
_TO_BOUNCE = _ORDERED_AWAY.format(verb="bounce")
# All of those that go back with the same messages: by message and destination, the order that is due first in front.
# OFFSET 0: they are found by their messages, and not among all that are under the orders.
_WITH_THEM = (
    "SELECT e.message, e.destination, e.number, "
    "'bounced by ' || e.ordered_by || CASE WHEN e.note = '' THEN '' ELSE ': ' || e.note END "
    "FROM unnest($2::bigint[], $3::text[]) AS k (message, destination) CROSS JOIN LATERAL "
    "(SELECT * FROM entry WHERE message = k.message AND destination = k.destination "
    "AND state = 'held' AND ordered = 'bounce' OFFSET 0) e "
    "JOIN operation o ON o.id = e.operation AND o.due <= $1 AND o.verb = 'bounce' "
    "ORDER BY o.due, o.id, e.message, e.number"
)
_DROP = (
    f"WITH due AS ({_ORDERED_AWAY.format(verb='drop')}), gone AS (DELETE FROM entry e USING due d "
    "WHERE e.message = d.message AND e.number = d.number AND e.state = 'held' AND e.ordered = 'drop' "
    "RETURNING e.*, d.due AS order_due) "
    "SELECT e.message, e.number, m.sender, e.recipient, e.destination, e.ordered_by, e.note, e.operation, e.counted "
    "FROM gone e JOIN message m ON m.number = e.message ORDER BY e.order_due, e.operation, e.message, e.number"
)
_GIVE_UP = (
    "WITH taken AS (UPDATE entry e SET state = 'relaying', giving_up = true, epoch = $3 "
    "FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS k (message, number, place) "
    "WHERE e.message = k.message AND e.number = k.number "
    "AND (e.state = 'waiting' OR (e.state = 'held' AND e.ordered = 'bounce')) RETURNING e.*, k.place) "
    f"SELECT {CLAIMED}, 0 FROM taken e JOIN message m ON m.number = e.message ORDER BY e.place"
)


async def overdue(tx: Transaction, limit: int, expired: Expired | None) -> tuple[list[Claim], Place | None]:
    """Claim up to `limit` messages whose bounce is due, or that have expired and are given up (None: none is).

    Entries that were never tried have as their `last` why their destination could not be had. Gives also where the
    walk over what has expired is to go on, once this is committed. One node does this at a time.
    """
    if not await tx.conducts(OVERDUE):
        return [], None
    taken = await _bounced(tx, limit)
    place = await expired.given_up(tx, taken, limit) if expired is not None else None
    if not taken:
        return [], place
    fared = await how_they_fared(tx, {destination for _, destination in taken})
    ids = pairs((message, number) for (message, _), reasons in taken.items() for number in reasons)
    return claims_of(await tx.fetch(_GIVE_UP, *ids, tx.epoch), tx.epoch, taken, fared), place


async def carry_out_drops(tx: Transaction) -> int:
    """Remove entries whose drop is due, DROPS_AT_ONCE at the most; give how many there were.

    With the last of an order it is told what became of the whole; that of a bounce, too, whose last entry went
    another way.
    """
    if not await tx.conducts(OVERDUE):
        return 0
    gone = await tx.fetch(_DROP, tx.now, DROPS_AT_ONCE)
    if gone:
        await remove_if_finished(tx, *{row[0] for row in gone})
        await operations.count(tx, [Gone(row[7], row[0], row[8]) for row in gone])
    tx.record(*(dropped(tx.now, *row[:7]) for row in gone))
    await operations.tell_of_whole_ones(tx)
    return len(gone)


async def _bounced(tx: Transaction, limit: int) -> Taken:
    """What is to be bounced now, of up to `limit` messages and destinations: whole, as one bounce tells of it."""
    size = limit + 1
    while True:
        rows = await tx.fetch(_TO_BOUNCE, tx.now, size)
        found = list(dict.fromkeys((message, destination) for _, _, message, destination, _ in rows))[:limit]
        if len(found) == limit or len(rows) < size:
            break
        size *= 8  # many recipients of few messages
    if not found:
        return {}
    taken: Taken = {}
    messages, destinations = [message for message, _ in found], [destination for _, destination in found]
    for message, destination, number, why in await tx.fetch(_WITH_THEM, tx.now, messages, destinations):
        taken.setdefault((message, destination), {})[number] = why
    return taken
