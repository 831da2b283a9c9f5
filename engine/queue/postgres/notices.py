"""Notices of delay: whose sender is to be told, and the one transaction in which they are."""

from collections.abc import Sequence

from engine.model.claim import Late, LateEntry
from engine.model.event import Event
from engine.model.message import NewMessage
from engine.queue.bounds import LATE_AT_ONCE
from engine.queue.columns import outcome_of
from engine.queue.mail import Terms
from engine.queue.postgres.attempts import how_they_fared
from engine.queue.postgres.mail import enqueue
from engine.queue.postgres.transaction import Row, Snapshot, Transaction
from engine.queue.rows import dsn_of

_LATE = (
    "SELECT e.message, m.sender, m.arrived, m.smtputf8, m.ret, m.envid, "
    "e.number, e.recipient, e.destination, e.expires, e.last, e.notify, e.orcpt "
    "FROM (SELECT * FROM entry WHERE state = 'waiting' AND notice_at IS NOT NULL AND notice_at <= $1 AND expires > $1 "
    "ORDER BY notice_at LIMIT $2) e JOIN message m ON m.number = e.message ORDER BY e.notice_at, e.message, e.number"
)


async def late(s: Snapshot, limit: int) -> list[Late]:
    """Messages with waiting entries of whose delay the sender is to be told; what expires too is not late but lost."""
    found: dict[int, list[Row]] = {}
    for row in await s.fetch(_LATE, s.now, LATE_AT_ONCE):
        if row[0] in found or len(found) < limit:
            found.setdefault(row[0], []).append(row)
    fared = await how_they_fared(s, {row[8] for rows in found.values() for row in rows})
    notices = []
    for message, rows in found.items():
        _, sender, arrived, smtputf8, ret, envid, *_ = rows[0]
        entries = [
            LateEntry(
                number=number,
                recipient=recipient,
                destination=destination,
                expires=expires,
                last=outcome_of(last) or fared[destination],
                dsn=dsn_of(notify, orcpt),
            )
            for *_, number, recipient, destination, expires, last, notify, orcpt in rows
        ]
        notices.append(
            Late(
                message=message,
                sender=sender,
                arrived=arrived,
                smtputf8=smtputf8,
                entries=tuple(sorted(entries, key=lambda entry: entry.number)),
                ret=ret,
                envid=envid,
            )
        )
    return notices


async def notify(tx: Transaction, late: Late, notice: NewMessage | None, events: Sequence[Event], terms: Terms) -> bool:
    """Queue a notice and note that these entries had theirs; do nothing unless all of them still wait for it."""
    these = "message = $1 AND number = ANY($2::int[]) AND state = 'waiting' AND notice_at IS NOT NULL"
    noted = await tx.execute(
        f"UPDATE entry SET notice_at = NULL WHERE {these} AND (SELECT count(*) FROM entry WHERE {these}) = $3",
        late.message,
        [entry.number for entry in late.entries],
        len(late.entries),
    )
    if noted != len(late.entries):
        return False
    tx.record(*events)
    if notice is not None:
        await enqueue(tx, notice, terms)
    return True
