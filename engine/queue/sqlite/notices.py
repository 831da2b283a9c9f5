"""Notices of delay: whose sender is to be told, and the one transaction in which they are."""

import sqlite3
from collections.abc import Sequence

from engine.model.claim import Late, LateEntry
from engine.model.event import Event
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.bounds import LATE_AT_ONCE
from engine.queue.columns import outcome_of
from engine.queue.mail import Terms
from engine.queue.rows import dsn_of
from engine.queue.sqlite.attempts import how_it_fared
from engine.queue.sqlite.mail import enqueue
from engine.queue.sqlite.writer import Transaction


def late(connection: sqlite3.Connection, limit: int, *, now: float) -> list[Late]:
    """Messages with waiting entries of whose delay the sender is to be told; what expires too is not late but lost."""
    rows = connection.execute(
        "SELECT message, number, recipient, destination, expires, last, notify, orcpt FROM entry "
        "WHERE state = 'waiting' AND notice_at IS NOT NULL AND notice_at <= ? AND expires > ? "
        "ORDER BY notice_at LIMIT ?",
        (now, now, LATE_AT_ONCE),
    )
    found: dict[int, list[LateEntry]] = {}
    fared: dict[str, Outcome | None] = {}
    for message, number, recipient, destination, expires, last, notify, orcpt in rows.fetchall():
        if message not in found and len(found) >= limit:
            continue
        if destination not in fared:
            fared[destination] = how_it_fared(connection, destination)
        one = LateEntry(
            number=number,
            recipient=recipient,
            destination=destination,
            expires=expires,
            last=outcome_of(last) or fared[destination],
            dsn=dsn_of(notify, orcpt),
        )
        found.setdefault(message, []).append(one)
    return [_late(connection, message, entries) for message, entries in found.items()]


def notify(tx: Transaction, late: Late, notice: NewMessage | None, events: Sequence[Event], terms: Terms) -> bool:
    """Queue a notice and note that these entries had theirs; do nothing unless all of them still wait for it."""
    for entry in late.entries:
        standing = tx.execute(
            "SELECT 1 FROM entry WHERE message = ? AND number = ? AND state = 'waiting' AND notice_at IS NOT NULL",
            (late.message, entry.number),
        ).fetchone()
        if standing is None:
            return False
    tx.connection.executemany(
        "UPDATE entry SET notice_at = NULL WHERE message = ? AND number = ?",
        [(late.message, entry.number) for entry in late.entries],
    )
    tx.record(*events)
    if notice is not None:
        enqueue(tx, notice, terms)
    return True


def _late(connection: sqlite3.Connection, message: int, entries: list[LateEntry]) -> Late:
    sender, arrived, smtputf8, ret, envid = connection.execute(
        "SELECT sender, arrived, smtputf8, ret, envid FROM message WHERE number = ?", (message,)
    ).fetchone()
    return Late(
        message=message,
        sender=sender,
        arrived=arrived,
        smtputf8=bool(smtputf8),
        entries=tuple(sorted(entries, key=lambda entry: entry.number)),
        ret=ret,
        envid=envid,
    )
