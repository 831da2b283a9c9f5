"""The suppression list in the store: a row an address, looked up by its key."""

import json
from collections.abc import Collection, Sequence

from engine.model.outcome import Outcome
from engine.model.suppression import Entered, Suppressed, Suppressions, key_of
from engine.queue import contract
from engine.queue.columns import storable
from engine.queue.rows import struct_of
from engine.queue.sqlite.database import Role, Snapshot, read, seen, written
from engine.queue.sqlite.writer import Transaction
from engine.queue.suppression import (
    COLUMNS,
    DELIVERED,
    automatic,
    told_automatic,
    told_entered,
    told_removed,
)

_WRITE = (
    f"INSERT INTO suppressed ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (address) DO UPDATE SET "
    'since = excluded.since, until = excluded.until, "by" = excluded."by", reply = excluded.reply, note = excluded.note'
)
# What an operator entered stands for as long as it was to.
_WRITE_AUTOMATIC = f"{_WRITE} WHERE \"by\" = 'engine' OR until <= excluded.since"


class Suppression(Role, contract.Suppression):
    """What is over stays until it is forgotten, and counts for nothing."""

    @read
    def of(self, snapshot: Snapshot, addresses: Collection[str]) -> dict[str, Suppressed]:
        keys = json.dumps([storable(key_of(address)) for address in addresses])
        rows = snapshot.connection.execute(
            f"SELECT {COLUMNS} FROM json_each(?) CROSS JOIN suppressed "
            "WHERE address = json_each.value AND (until IS NULL OR until > ?)",
            (keys, snapshot.now),
        )
        return {row[0]: struct_of(Suppressed, row) for row in rows}

    @seen
    def window(self, snapshot: Snapshot, match: str, after: str, limit: int) -> Suppressions:
        which = "FROM suppressed WHERE (until IS NULL OR until > ?) AND instr(address, ?) > 0"
        values = (snapshot.now, storable(key_of(match)))
        (total,) = snapshot.connection.execute(f"SELECT count(*) {which}", values).fetchone()
        rows = snapshot.connection.execute(
            f"SELECT {COLUMNS} {which} AND address > ? ORDER BY address LIMIT ?", (*values, storable(after), limit)
        )
        return Suppressions(total=total, rows=tuple(struct_of(Suppressed, row) for row in rows))

    @written
    def enter(self, tx: Transaction, entries: Sequence[Suppressed], by: str, source: str, most: int) -> Entered:
        keys = json.dumps([entry.address for entry in entries])
        (known,) = tx.execute(
            "SELECT count(*) FROM suppressed WHERE address IN (SELECT value FROM json_each(?)) "
            "AND (until IS NULL OR until > ?)",
            (keys, tx.now),
        ).fetchone()
        (others,) = tx.execute(
            "SELECT count(*) FROM suppressed WHERE \"by\" <> 'engine' AND (until IS NULL OR until > ?) "
            "AND address NOT IN (SELECT value FROM json_each(?))",
            (tx.now, keys),
        ).fetchone()
        if others + len(entries) > most:
            return Entered(has_room=False)
        tx.connection.executemany(_WRITE, map(_values, entries))
        tx.record(told_entered(entries, tx.now, storable(by), storable(source)))
        return Entered(new=len(entries) - known, changed=known)

    @written
    def remove(self, tx: Transaction, address: str, by: str) -> Suppressed | None:
        row = tx.execute(
            f"DELETE FROM suppressed WHERE address = ? AND (until IS NULL OR until > ?) RETURNING {COLUMNS}",
            (storable(key_of(address)), tx.now),
        ).fetchone()
        if row is None:
            return None
        removed = struct_of(Suppressed, row)
        tx.record(told_removed(removed, tx.now, storable(by)))
        return removed

    @written
    def trim(self, tx: Transaction, most: int) -> int:
        over = tx.execute("DELETE FROM suppressed WHERE until <= ?", (tx.now,)).rowcount
        (count,) = tx.execute("SELECT count(*) FROM suppressed").fetchone()
        if count <= most:
            return over
        oldest = (
            "DELETE FROM suppressed WHERE address IN "
            "(SELECT address FROM suppressed WHERE \"by\" = 'engine' ORDER BY since, address LIMIT ?)"
        )
        return over + tx.execute(oldest, (count - most,)).rowcount


def note(tx: Transaction, recipient: str, outcome: Outcome, seconds: float) -> None:
    """Enter a recipient that has failed for good; 0.0: let go what was entered so. See EntryResult.suppress.

    Where a damaged page keeps it from that, nothing is noted: what became of the mail counts for more.
    """
    one = automatic(recipient, outcome, tx.now, seconds)
    if tx.damage.knows("suppressed"):
        return
    with tx.touching("suppressed"):
        if seconds:
            if tx.execute(_WRITE_AUTOMATIC, _values(one)).rowcount:
                tx.record(told_automatic(one, outcome))
            return
        row = tx.execute(
            f"DELETE FROM suppressed WHERE address = ? AND \"by\" = 'engine' RETURNING {COLUMNS}", (one.address,)
        ).fetchone()
        if row is not None:
            tx.record(told_removed(struct_of(Suppressed, row), tx.now, "engine", DELIVERED))


def _values(one: Suppressed) -> tuple[object, ...]:
    return (one.address, one.since, one.until, storable(one.by), storable(one.reply), storable(one.note))
