"""What senders are still to be told of settled recipients: kept from the settlement to the notification.

Both are one transaction each, so that a kill between them loses nothing and tells nobody twice. What comes within a
short time goes into one notification: a message that fails at 200 destinations must not become 200 messages to a
sender whose address may be forged.
"""

import json
import sqlite3

from engine.model.claim import Action, Untold, UntoldEntry
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.bounds import LONGEST_GATHER, RECIPIENTS_TOLD
from engine.queue.columns import outcome_json, outcome_of
from engine.queue.mail import Terms
from engine.queue.sqlite.connection import of_each
from engine.queue.sqlite.mail import enqueue, remove_if_finished
from engine.queue.sqlite.writer import Transaction


def keep(tx: Transaction, message: int, number: int, outcome: Outcome, action: Action, terms: Terms) -> None:
    """Keep what is to be told of an entry that is about to leave, and when that is to be told."""
    tx.execute(
        "INSERT INTO untold (message, number, recipient, orcpt, action, outcome, at) "
        "SELECT message, number, recipient, orcpt, ?, ?, ? FROM entry WHERE message = ? AND number = ?",
        (action, outcome_json(outcome), tx.now, message, number),
    )
    tx.execute(
        "UPDATE message SET tell_at = ? + min(? * (1 << min(tellings, 20)), ?) WHERE number = ? AND tell_at IS NULL",
        (tx.now, terms.gather, LONGEST_GATHER, message),
    )


def untold(connection: sqlite3.Connection, limit: int, *, now: float, singly: bool = False) -> list[Untold]:
    """Messages of which somebody is to be told now, with RECIPIENTS_TOLD recipients in all, or with one message's.

    `singly`: those that can be read beside a damaged page; their numbers are in an index.
    """
    numbers = connection.execute(
        "SELECT number FROM message INDEXED BY message_tell_at WHERE tell_at <= ? ORDER BY tell_at, number LIMIT ?",
        (now, limit),
    ).fetchall()
    found: list[Untold] = []
    room = RECIPIENTS_TOLD
    for untold in of_each(numbers, lambda row: _untold(connection, row[0]), singly=singly):
        if found and len(untold.entries) > room:
            break
        room -= len(untold.entries)
        found.append(untold)
    return found


def tell(tx: Transaction, untold: Untold, notice: NewMessage | None, terms: Terms, *, gives_back: bool) -> bool:
    """Queue a notification and forget what it tells; do nothing unless all of that is still to be told."""
    message = untold.message
    these = (message, json.dumps([entry.number for entry in untold.entries]))
    which = "FROM untold WHERE message = ? AND number IN (SELECT value FROM json_each(?))"
    (count,) = tx.execute(f"SELECT count(*) {which}", these).fetchone()
    if count != len(untold.entries):
        return False
    tx.execute(f"DELETE {which}", these)
    tx.execute(
        "UPDATE message SET tellings = tellings + 1, given_back = max(given_back, ?), "
        "tell_at = iif(EXISTS (SELECT 1 FROM untold WHERE message = message.number), ?, NULL) WHERE number = ?",
        (gives_back, tx.now, message),
    )
    if notice is not None:
        enqueue(tx, notice, terms)
    remove_if_finished(tx, message)
    return True


def tell_later(tx: Transaction, message: int, seconds: float) -> None:
    """Look again at what is to be told of a message after so many seconds."""
    tx.execute("UPDATE message SET tell_at = ? WHERE number = ? AND tell_at IS NOT NULL", (tx.now + seconds, message))


def _untold(connection: sqlite3.Connection, message: int) -> Untold:
    sender, arrived, smtputf8, ret, envid, given_back = connection.execute(
        "SELECT sender, arrived, smtputf8, ret, envid, given_back FROM message WHERE number = ?", (message,)
    ).fetchone()
    return Untold(
        message=message,
        sender=sender,
        arrived=arrived,
        smtputf8=bool(smtputf8),
        entries=_entries(connection, message),
        ret=ret,
        envid=envid,
        given_back=bool(given_back),
    )


def _entries(connection: sqlite3.Connection, message: int) -> tuple[UntoldEntry, ...]:
    rows = connection.execute(
        "SELECT number, recipient, outcome, action, orcpt, at FROM untold WHERE message = ? ORDER BY number LIMIT ?",
        (message, RECIPIENTS_TOLD),
    )
    return tuple(
        UntoldEntry(
            number=number,
            recipient=recipient,
            outcome=outcome_of(outcome) or Outcome.transient("the record of this outcome is damaged"),
            action=action,
            orcpt=orcpt,
            at=at,
        )
        for number, recipient, outcome, action, orcpt, at in rows
    )
