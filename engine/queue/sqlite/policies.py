"""MTA-STS policies, kept for as long as they say (RFC 8461 3.3): a restart must not open the door they close."""

import sqlite3

from engine.queue.contract import KeptPolicy
from engine.queue.sqlite.rows import storable
from engine.queue.sqlite.writer import Transaction

KEPT = 10_000  # policies; a domain beyond that has its policy fetched anew when mail goes there


def save(tx: Transaction, policy: KeptPolicy) -> None:
    """Keep a policy, in place of any the domain had; forget those whose time is over."""
    tx.execute(
        "INSERT OR REPLACE INTO sts_policy (domain, expires, policy) VALUES (?, ?, ?)",
        (storable(policy.domain).lower(), policy.expires, storable(policy.policy)),
    )
    tx.execute("DELETE FROM sts_policy WHERE expires <= ?", (tx.now,))
    tx.execute(
        "DELETE FROM sts_policy WHERE domain IN "
        "(SELECT domain FROM sts_policy ORDER BY expires DESC LIMIT -1 OFFSET ?)",
        (KEPT,),
    )


def load(connection: sqlite3.Connection, domain: str, *, now: float) -> KeptPolicy | None:
    """The policy of a domain, unless its time is over."""
    row = connection.execute(
        "SELECT domain, expires, policy FROM sts_policy WHERE domain = ? AND expires > ?",
        (storable(domain).lower(), now),
    ).fetchone()
    return KeptPolicy(domain=row[0], expires=row[1], policy=row[2]) if row else None
