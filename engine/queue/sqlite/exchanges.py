"""A destination as the store knows it: its row, its exchanges and site, and that nothing blocks it any more."""

from collections.abc import Sequence

from engine.model.destination import unknown_site
from engine.queue.columns import storable
from engine.queue.sqlite.writer import Transaction


def know_destination(tx: Transaction, name: str) -> None:
    """See to it that a destination has a row.

    A new one takes its turn just before the one served last: behind all that have waited for theirs, so that a flow
    of new destinations starves none.
    """
    tx.execute(
        "INSERT INTO destination (name, site, turn, touched) VALUES "
        "(?, ?, coalesce((SELECT 2 * seq - 1 FROM sqlite_sequence WHERE name = 'attempt'), 0), ?) "
        "ON CONFLICT (name) DO UPDATE SET touched = excluded.touched",
        (name, unknown_site(name), tx.now),
    )


def note_destination(tx: Transaction, destination: str, exchanges: Sequence[str] | None, site: str | None) -> None:
    """Remember the hosts of a destination, best first, and its site. Nothing is written when they are known.

    With a new site comes what that has proved.
    """
    name = storable(destination).lower()
    if site is not None:
        _note_site(tx, name, storable(site))
    if exchanges is None:
        return
    hosts = [storable(host).lower() for host in dict.fromkeys(exchanges)]
    known = tx.execute("SELECT host FROM exchange WHERE destination = ? ORDER BY preference", (name,)).fetchall()
    if hosts == [host for (host,) in known]:
        return
    know_destination(tx, name)
    tx.execute("DELETE FROM exchange WHERE destination = ?", (name,))
    tx.connection.executemany(
        "INSERT INTO exchange (destination, preference, host) VALUES (?, ?, ?)",
        [(name, preference, host) for preference, host in enumerate(hosts)],
    )


def unblock(tx: Transaction, destinations: Sequence[str]) -> None:
    """Connections may be opened again."""
    tx.connection.executemany(
        "UPDATE destination SET blocked_until = 0, blocked_why = '', blocked_cause = '', unreached_at = 0 "
        "WHERE name = ? AND blocked_until > 0",
        [(storable(name).lower(),) for name in destinations],
    )


def _note_site(tx: Transaction, name: str, site: str) -> None:
    if tx.execute("SELECT site FROM destination WHERE name = ?", (name,)).fetchone() == (site,):
        return
    know_destination(tx, name)
    tx.execute(
        "UPDATE destination SET site = ?, took_at = max(took_at, coalesce((SELECT max(d.took_at) FROM destination d "
        "INDEXED BY destination_took WHERE d.site = ? AND d.took_at > 0), 0)) WHERE name = ?",
        (site, site, name),
    )
