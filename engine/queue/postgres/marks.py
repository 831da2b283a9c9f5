"""The marks of bad MX hosts."""

from collections.abc import Sequence
from functools import partial

from engine.base.plural import plural
from engine.model.destination import Mark
from engine.model.event import ENGINE, Event
from engine.model.node import MARKS
from engine.model.order import Touched
from engine.queue import contract
from engine.queue.columns import outcome_json
from engine.queue.postgres.bulk import Bulk
from engine.queue.postgres.database import Role, read, written
from engine.queue.postgres.exchanges import unblock_because_of
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Snapshot, Transaction
from engine.queue.rows import mark_of


class Marks(Role, contract.Marks):
    """A row by host. A mark that has ended stays for a while: a host that answers before is news."""

    @read
    async def all(self, snapshot: Snapshot) -> tuple[Mark, ...]:
        rows = await snapshot.fetch("SELECT host, since, until, by, note, last, times FROM mark ORDER BY host")
        return tuple(map(mark_of, rows))

    @written
    async def save(self, tx: Transaction, mark: Mark) -> None:
        host, by, note = storable(mark.host).lower(), storable(mark.by), storable(mark.note)
        before = await tx.value("SELECT until FROM mark WHERE host = $1", host)
        # An operator who corrects 30 d to 10 m is not to find mail waiting for 30 d.
        if before is not None and mark.until < before:
            tx.in_the_end(partial(unblock_because_of, tx, host, mark.until))
        await tx.execute(
            "INSERT INTO mark (host, since, until, by, note, last, times) VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (host) DO UPDATE SET since = excluded.since, until = excluded.until, by = excluded.by, "
            "note = excluded.note, last = excluded.last, times = excluded.times",
            host,
            mark.since,
            mark.until,
            by,
            note,
            outcome_json(mark.last),
            mark.times,
        )
        tx.record(Event(at=tx.now, kind="marked bad", by=by, host=host, outcome=mark.last, text=note))
        tx.tell(MARKS)

    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:
        name = storable(host).lower()
        if by == ENGINE:
            await self._remove(name, by, "")
            return 0
        return await self.database.to_its_end(self._let_go(name, by, touched or Touched()))

    @written
    async def forget(self, tx: Transaction, hosts: Sequence[str]) -> None:
        await tx.execute("DELETE FROM mark WHERE host = ANY($1::text[])", [storable(host).lower() for host in hosts])

    @written
    async def take_back(self, tx: Transaction, marks: Sequence[Mark], note: str) -> None:
        for mark in marks:
            host = storable(mark.host).lower()
            if await tx.execute("DELETE FROM mark WHERE host = $1 AND until = $2", host, mark.until):
                tx.record(Event(at=tx.now, kind="marked good", host=host, text=note))
                tx.tell(MARKS)

    async def _let_go(self, host: str, by: str, touched: Touched) -> int:
        """Make due what waits for a host, then remove its mark: what goes first would else be counted by nobody."""
        if not await self._is_marked(host):
            return 0
        count = await Bulk(self.database).make_due(host, by, touched)
        goes = f"{plural(count, 'recipient')} that waited for it made due" if count else "no mail waited for it"
        await self._remove(host, by, goes)
        return count

    @read
    async def _is_marked(self, snapshot: Snapshot, host: str) -> bool:
        return bool(await snapshot.value("SELECT EXISTS (SELECT 1 FROM mark WHERE host = $1)", host))

    @written
    async def _remove(self, tx: Transaction, host: str, by: str, text: str) -> None:
        if await tx.execute("DELETE FROM mark WHERE host = $1", host):
            tx.in_the_end(partial(unblock_because_of, tx, host, 0.0))
            tx.record(Event(at=tx.now, kind="marked good", by=by, host=host, text=text))
            tx.tell(MARKS)
