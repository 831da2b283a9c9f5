"""Suspensions in the store: destinations, or the whole relay, to which no new connection is opened for a while."""

from engine.model.destination import Suspension
from engine.model.event import ENGINE, Event
from engine.queue.columns import storable
from engine.queue.sqlite.writer import Transaction


def suspend(tx: Transaction, suspension: Suspension) -> None:
    """Keep a suspension, in place of any there was."""
    name, by, note = storable(suspension.destination).lower(), storable(suspension.by), storable(suspension.note)
    tx.execute(
        'INSERT OR REPLACE INTO suspension (destination, since, until, "by", note) VALUES (?, ?, ?, ?, ?)',
        (name, suspension.since, suspension.until, by, note),
    )
    tx.record(Event(at=tx.now, kind="suspended", by=by, destination=name, text=note))


def resume(tx: Transaction, destination: str, by: str) -> bool:
    """End a suspension; False when none was in force."""
    name = storable(destination).lower()
    cursor = tx.execute("DELETE FROM suspension WHERE destination = ? AND until > ?", (name, tx.now))
    if cursor.rowcount:
        tx.record(Event(at=tx.now, kind="resumed", by=by, destination=name))
    return bool(cursor.rowcount)


def end_suspensions(tx: Transaction) -> tuple[str, ...]:
    """Remove the suspensions whose time is over, and say so; give the destinations."""
    ended = tx.execute("SELECT destination FROM suspension WHERE until <= ? ORDER BY until", (tx.now,)).fetchall()
    for (name,) in ended:
        tx.execute("DELETE FROM suspension WHERE destination = ?", (name,))
        tx.record(Event(at=tx.now, kind="resumed", by=ENGINE, destination=name, text="its time was over"))
    return tuple(name for (name,) in ended)
