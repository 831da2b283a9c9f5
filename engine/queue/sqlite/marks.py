"""The marks of bad MX hosts."""

from collections.abc import Sequence

from engine.base.plural import plural
from engine.model.destination import Mark
from engine.model.event import ENGINE, Event
from engine.model.order import Touched
from engine.queue import contract
from engine.queue.columns import outcome_json, storable
from engine.queue.rows import mark_of
from engine.queue.sqlite.bulk import Bulk
from engine.queue.sqlite.database import Role, Snapshot, read, written
from engine.queue.sqlite.writer import Transaction


class Marks(Role, contract.Marks):
    """A row by host. A mark that has ended stays for a while: a host that answers before is news."""

    @read
    def all(self, snapshot: Snapshot) -> tuple[Mark, ...]:
        rows = snapshot.connection.execute('SELECT host, since, until, "by", note, last, times FROM mark ORDER BY host')
        return tuple(map(mark_of, rows))

    @written
    def save(self, tx: Transaction, mark: Mark) -> None:
        host, by, note = storable(mark.host).lower(), storable(mark.by), storable(mark.note)
        before = tx.execute("SELECT until FROM mark WHERE host = ?", (host,)).fetchone()
        # An operator who corrects 30 d to 10 m is not to find mail waiting for 30 d.
        if before is not None and mark.until < before[0]:
            _unblock_because_of(tx, host, mark.until)
        tx.execute(
            'INSERT OR REPLACE INTO mark (host, since, until, "by", note, last, times) VALUES (?, ?, ?, ?, ?, ?, ?)',
            (host, mark.since, mark.until, by, note, outcome_json(mark.last), mark.times),
        )
        tx.record(Event(at=tx.now, kind="marked bad", by=by, host=host, outcome=mark.last, text=note))

    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:
        name = storable(host).lower()
        if by == ENGINE:
            await self._remove(name, by, "")
            return 0
        return await self.database.to_its_end(self._let_go(name, by, touched or Touched()))

    @written
    def forget(self, tx: Transaction, hosts: Sequence[str]) -> None:
        tx.connection.executemany("DELETE FROM mark WHERE host = ?", [(storable(host).lower(),) for host in hosts])

    @written
    def take_back(self, tx: Transaction, marks: Sequence[Mark], note: str) -> None:
        for mark in marks:
            host = storable(mark.host).lower()
            if tx.execute("DELETE FROM mark WHERE host = ? AND until = ?", (host, mark.until)).rowcount:
                tx.record(Event(at=tx.now, kind="marked good", host=host, text=note))

    async def _let_go(self, host: str, by: str, touched: Touched) -> int:
        """Make due what waits for a host, then remove its mark: what goes first would else be counted by nobody."""
        if not await self._is_marked(host):
            return 0
        count = await Bulk(self.database).make_due(host, by, touched)
        goes = f"{plural(count, 'recipient')} that waited for it made due" if count else "no mail waited for it"
        await self._remove(host, by, goes)
        return count

    @read
    def _is_marked(self, snapshot: Snapshot, host: str) -> bool:
        return snapshot.connection.execute("SELECT 1 FROM mark WHERE host = ?", (host,)).fetchone() is not None

    @written
    def _remove(self, tx: Transaction, host: str, by: str, text: str) -> None:
        if tx.execute("DELETE FROM mark WHERE host = ?", (host,)).rowcount:
            _unblock_because_of(tx, host, 0.0)
            tx.record(Event(at=tx.now, kind="marked good", by=by, host=host, text=text))


def _unblock_because_of(tx: Transaction, host: str, until: float) -> None:
    """Unblock the destinations that are blocked beyond `until` and have the host among their exchanges."""
    tx.execute(
        "UPDATE destination SET blocked_until = 0, blocked_why = '', blocked_cause = '' "
        "WHERE name IN (SELECT destination FROM exchange WHERE host = ?) AND blocked_until > ?",
        (host, until),
    )
