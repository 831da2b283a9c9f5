"""What is of no more use, and is forgotten: destinations without mail, marks that have ended, orders long done."""

from engine.queue.bounds import FORGET_AT_ONCE, IDLE_SECONDS, KEEP_OPERATIONS, PROVED_KEPT, PROVED_SECONDS
from engine.queue.sqlite.writer import Transaction


def forget_idle(tx: Transaction) -> bool:
    """Forget what is of no more use; False when there may be more of it than is forgotten at once.

    That is destinations in which nothing is and of which nothing was heard for a day, unless they took mail lately;
    marks that ended a day ago (a host that answers before is news), and old operations. What took mail too long ago
    has to prove itself again.
    """
    long_ago = tx.now - IDLE_SECONDS
    proved = _proved_since(tx)
    tx.execute(
        "UPDATE destination SET took_at = 0 WHERE name IN "
        "(SELECT name FROM destination WHERE took_at > 0 AND took_at < ? LIMIT ?)",
        (tx.now - PROVED_SECONDS, FORGET_AT_ONCE),
    )
    destinations = tx.execute(
        "DELETE FROM destination WHERE name IN (SELECT name FROM destination WHERE waiting + held + relaying = 0 "
        "AND touched < ? AND coalesce(last_at, 0) < ? AND took_at < ? AND blocked_until <= ? "
        "AND name NOT IN (SELECT destination FROM suspension) LIMIT ?)",
        (long_ago, long_ago, proved, tx.now, FORGET_AT_ONCE),
    )
    marks = tx.execute(
        "DELETE FROM mark WHERE host IN (SELECT host FROM mark WHERE until < ? LIMIT ?)", (long_ago, FORGET_AT_ONCE)
    )
    tx.execute(
        "DELETE FROM operation WHERE finished AND at < ? AND id NOT IN "
        "(SELECT operation FROM entry WHERE operation IS NOT NULL)",
        (tx.now - KEEP_OPERATIONS,),
    )
    return destinations.rowcount < FORGET_AT_ONCE and marks.rowcount < FORGET_AT_ONCE


def _proved_since(tx: Transaction) -> float:
    """Since when a destination must have taken mail to be remembered for that alone."""
    row = tx.execute(
        "SELECT took_at FROM destination INDEXED BY destination_took WHERE took_at > 0 "
        "ORDER BY took_at DESC LIMIT 1 OFFSET ?",
        (PROVED_KEPT,),
    ).fetchone()
    return max(tx.now - PROVED_SECONDS, row[0] + 1 if row else 0.0)
