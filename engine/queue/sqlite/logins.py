"""Whence logins came in rightly, kept over a restart: their owners are not slowed by what others guess meanwhile."""

import sqlite3

from engine.queue.contract import KnownLogin
from engine.queue.sqlite.rows import storable
from engine.queue.sqlite.writer import Transaction

KEPT = 10_000  # pairs of a login and an address; those not seen for longest are let go


def remember(tx: Transaction, login: str, address: str) -> None:
    """A login came in rightly from an address, now."""
    tx.execute(
        "INSERT OR REPLACE INTO known_login (login, address, at) VALUES (?, ?, ?)",
        (storable(login), storable(address), tx.now),
    )
    tx.execute(
        "DELETE FROM known_login WHERE (login, address) IN "
        "(SELECT login, address FROM known_login ORDER BY at DESC LIMIT -1 OFFSET ?)",
        (KEPT,),
    )


def known(connection: sqlite3.Connection) -> tuple[KnownLogin, ...]:
    """All that are kept, the latest last."""
    rows = connection.execute("SELECT login, address, at FROM known_login ORDER BY at")
    return tuple(KnownLogin(login=login, address=address, at=at) for login, address, at in rows)
