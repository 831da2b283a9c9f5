"""What is of no more use, and is forgotten: destinations without mail, marks that have ended, orders long done."""

from engine.queue.bounds import FORGET_AT_ONCE, IDLE_SECONDS, KEEP_OPERATIONS, PROVED_KEPT, PROVED_SECONDS
from engine.queue.postgres.connection import OVERDUE
from engine.queue.postgres.transaction import Transaction


async def forget_idle(tx: Transaction) -> bool:
    """Forget what is of no more use; False when there may be more of it than is forgotten at once.

    That is destinations in which nothing is and of which nothing was heard for a day, unless they took mail lately;
    marks that ended a day ago (a host that answers before is news), and old operations. What took mail too long ago
    has to prove itself again.
    """
    if not await tx.conducts(OVERDUE):
        return False
    long_ago = tx.now - IDLE_SECONDS
    proved = await _proved_since(tx)
    tx.in_the_end(lambda: _forget_proofs(tx))
    destinations = await tx.execute(
        "DELETE FROM destination WHERE name IN (SELECT name FROM destination WHERE waiting + held + relaying = 0 "
        "AND touched < $1 AND coalesce(last_at, 0) < $1 AND took_at < $2 AND blocked_until <= $3 "
        "AND name NOT IN (SELECT destination FROM suspension) LIMIT $4 FOR UPDATE SKIP LOCKED)",
        long_ago,
        proved,
        tx.now,
        FORGET_AT_ONCE,
    )
    marks = await tx.execute(
        "DELETE FROM mark WHERE host IN (SELECT host FROM mark WHERE until < $1 LIMIT $2)", long_ago, FORGET_AT_ONCE
    )
    await tx.execute(
        "DELETE FROM operation o WHERE finished AND at < $1 "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE operation = o.id)",
        tx.now - KEEP_OPERATIONS,
    )
    return destinations < FORGET_AT_ONCE and marks < FORGET_AT_ONCE


async def _forget_proofs(tx: Transaction) -> None:
    await tx.execute(
        "UPDATE destination SET took_at = 0 WHERE name IN "
        "(SELECT name FROM destination WHERE took_at > 0 AND took_at < $1 LIMIT $2)",
        tx.now - PROVED_SECONDS,
        FORGET_AT_ONCE,
    )


async def _proved_since(tx: Transaction) -> float:
    """Since when a destination must have taken mail to be remembered for that alone."""
    took_at = await tx.value(
        "SELECT took_at FROM destination WHERE took_at > 0 ORDER BY took_at DESC LIMIT 1 OFFSET $1", PROVED_KEPT
    )
    return max(tx.now - PROVED_SECONDS, took_at + 1 if took_at is not None else 0.0)
