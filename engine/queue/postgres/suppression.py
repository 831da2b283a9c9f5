"""The suppression list in the store: a row an address, looked up by its key.

All nodes write it, each in the end of its transactions, when no other node's is about to end: so nobody waits for a row
of it.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from engine.model.outcome import Outcome
from engine.model.suppression import Entered, Suppressed, Suppressions, key_of
from engine.queue import contract
from engine.queue.postgres.database import Role, read
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.rows import struct_of
from engine.queue.suppression import (
    COLUMNS,
    DELIVERED,
    automatic,
    told_automatic,
    told_entered,
    told_removed,
)

T = TypeVar("T")

_WRITE = (
    f"INSERT INTO suppressed ({COLUMNS}) SELECT * FROM unnest($1::text[], $2::float8[], $3::float8[], $4::text[], "
    "$5::text[], $6::text[]) ON CONFLICT (address) DO UPDATE SET since = excluded.since, until = excluded.until, "
    "by = excluded.by, reply = excluded.reply, note = excluded.note"
)
# What an operator entered stands for as long as it was to.
_WRITE_AUTOMATIC = (
    f"{_WRITE} WHERE suppressed.by = 'engine' OR suppressed.until <= excluded.since RETURNING suppressed.address"
)


class Suppression(Role, contract.Suppression):
    """What is over stays until it is forgotten, and counts for nothing."""

    @read
    async def of(self, snapshot: Snapshot, addresses: Collection[str]) -> dict[str, Suppressed]:
        rows = await snapshot.fetch(
            f"SELECT {COLUMNS} FROM suppressed WHERE address = ANY($1::text[]) AND (until IS NULL OR until > $2)",
            [storable(key_of(address)) for address in addresses],
            snapshot.now,
        )
        return {row[0]: struct_of(Suppressed, row) for row in rows}

    @read
    async def window(self, snapshot: Snapshot, match: str, after: str, limit: int) -> Suppressions:
        which = "FROM suppressed WHERE (until IS NULL OR until > $1) AND strpos(address, $2::text) > 0"
        values = (snapshot.now, storable(key_of(match)))
        total = await snapshot.value(f"SELECT count(*) {which}", *values)
        rows = await snapshot.fetch(
            f"SELECT {COLUMNS} {which} AND address > $3::text ORDER BY address LIMIT $4",
            *values,
            storable(after),
            limit,
        )
        return Suppressions(total=total, rows=tuple(struct_of(Suppressed, row) for row in rows))

    async def enter(self, entries: Sequence[Suppressed], by: str, source: str, most: int) -> Entered:
        keys = [entry.address for entry in entries]

        async def write(tx: Transaction) -> Entered:
            known, others = await tx.row(
                "SELECT count(*) FILTER (WHERE address = ANY($1::text[])), "
                "count(*) FILTER (WHERE by <> 'engine' AND NOT address = ANY($1::text[])) "
                "FROM suppressed WHERE until IS NULL OR until > $2",
                keys,
                tx.now,
            ) or (0, 0)
            if others + len(entries) > most:
                return Entered(has_room=False)
            await tx.execute(_WRITE, *_columns(entries))
            tx.record(told_entered(entries, tx.now, by, source))
            return Entered(new=len(entries) - known, changed=known)

        return await self._in_the_end(write)

    async def remove(self, address: str, by: str) -> Suppressed | None:
        async def remove(tx: Transaction) -> Suppressed | None:
            row = await tx.row(
                f"DELETE FROM suppressed WHERE address = $1 AND (until IS NULL OR until > $2) RETURNING {COLUMNS}",
                storable(key_of(address)),
                tx.now,
            )
            if row is None:
                return None
            removed = struct_of(Suppressed, row)
            tx.record(told_removed(removed, tx.now, by))
            return removed

        return await self._in_the_end(remove)

    async def trim(self, most: int) -> int:
        async def trim(tx: Transaction) -> int:
            over = await tx.execute("DELETE FROM suppressed WHERE until <= $1", tx.now)
            count = await tx.value("SELECT count(*) FROM suppressed")
            if count <= most:
                return over
            return over + await tx.execute(
                "DELETE FROM suppressed WHERE address IN "
                "(SELECT address FROM suppressed WHERE by = 'engine' ORDER BY since, address LIMIT $1)",
                count - most,
            )

        return await self._in_the_end(trim)

    async def _in_the_end(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do some work in the end of a transaction, and give what came of it once that is committed."""
        found: list[T] = []

        async def do(tx: Transaction) -> None:
            found[:] = [await work(tx)]  # the transaction may have been run, and undone, before

        async def ask(tx: Transaction) -> None:
            tx.in_the_end(partial(do, tx))

        await self.database.do(ask)
        return found[0]


def note(tx: Transaction, results: Sequence[tuple[str, Outcome, float]]) -> None:
    """Enter recipients that have failed for good; 0.0: let go what was entered so. See EntryResult.suppress."""
    if results:
        tx.in_the_end(partial(_note, tx, results))


async def _note(tx: Transaction, results: Sequence[tuple[str, Outcome, float]]) -> None:
    last = {storable(key_of(recipient)): (outcome, seconds) for recipient, outcome, seconds in results}
    failed = [
        (automatic(recipient, outcome, tx.now, seconds), outcome)
        for recipient, (outcome, seconds) in last.items()
        if seconds
    ]
    if failed:
        rows = await tx.fetch(_WRITE_AUTOMATIC, *_columns([one for one, _ in failed]))
        written = {address for (address,) in rows}
        tx.record(*(told_automatic(one, outcome) for one, outcome in failed if one.address in written))
    if taken := [recipient for recipient, (_, seconds) in last.items() if not seconds]:
        rows = await tx.fetch(
            f"DELETE FROM suppressed WHERE address = ANY($1::text[]) AND by = 'engine' RETURNING {COLUMNS}", taken
        )
        tx.record(*(told_removed(struct_of(Suppressed, row), tx.now, "engine", DELIVERED) for row in rows))


def _columns(entries: Sequence[Suppressed]) -> tuple[list[object], ...]:
    return (
        [one.address for one in entries],
        [one.since for one in entries],
        [one.until for one in entries],
        [storable(one.by) for one in entries],
        [storable(one.reply) for one in entries],
        [storable(one.note) for one in entries],
    )
