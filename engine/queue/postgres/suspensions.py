"""Suspensions in the store: destinations, or the whole relay, to which no new connection is opened for a while."""

from engine.model.destination import Suspension
from engine.model.event import ENGINE, Event
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Transaction


async def suspend(tx: Transaction, suspension: Suspension) -> None:
    """Keep a suspension, in place of any there was."""
    name, by, note = storable(suspension.destination).lower(), storable(suspension.by), storable(suspension.note)
    await tx.execute(
        "INSERT INTO suspension (destination, since, until, by, note) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (destination) DO UPDATE SET "
        "since = excluded.since, until = excluded.until, by = excluded.by, note = excluded.note",
        name,
        suspension.since,
        suspension.until,
        by,
        note,
    )
    tx.record(Event(at=tx.now, kind="suspended", by=by, destination=name, text=note))


async def resume(tx: Transaction, destination: str, by: str) -> bool:
    """End a suspension; False when none was in force."""
    name = storable(destination).lower()
    ended = await tx.execute("DELETE FROM suspension WHERE destination = $1 AND until > $2", name, tx.now)
    if ended:
        tx.record(Event(at=tx.now, kind="resumed", by=by, destination=name))
    return ended > 0


async def end_suspensions(tx: Transaction) -> tuple[str, ...]:
    """Remove the suspensions whose time is over, and say so; give the destinations, the first to end first."""
    ended = await tx.fetch("DELETE FROM suspension WHERE until <= $1 RETURNING until, destination", tx.now)
    names = tuple(name for _, name in sorted(map(tuple, ended)))
    tx.record(
        *(Event(at=tx.now, kind="resumed", by=ENGINE, destination=name, text="its time was over") for name in names)
    )
    return names
