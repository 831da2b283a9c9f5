"""How a message comes into the store (envelope, content, one entry a recipient, the key it came with) and leaves it."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from engine.model.event import Event
from engine.model.message import NO_DSN_REQUEST, NewMessage
from engine.queue.columns import storable
from engine.queue.contract import QueueError
from engine.queue.sqlite import rules
from engine.queue.sqlite.exchanges import know_destination
from engine.queue.sqlite.writer import Transaction


class Terms(NamedTuple):
    """How long mail may wait: seconds until it is given up, by destination, and until its sender is told; 0: never.

    `gather` is how many seconds what is to be told of a message's recipients is gathered for one notification.
    """

    give_up_after: Callable[[str], float]
    delay_notice: float = 0.0
    gather: float = 0.0


def enqueue(tx: Transaction, message: NewMessage, terms: Terms) -> int:
    """Write a message, due now and to be given up as the terms say; give its number.

    What a hold rule names is held from the first moment on. A key that is taken gives the number it had. Raises
    QueueError for an envelope that cannot be kept.
    """
    if message.key is not None:
        taken = tx.execute("SELECT message FROM taken_key WHERE key = ?", (storable(message.key),)).fetchone()
        if taken is not None:
            return int(taken[0])
    _check_envelope(message)
    destinations = [destination_of(recipient) for recipient in message.recipients]
    patience = {name: tx.now + terms.give_up_after(name) for name in destinations}
    number = _insert(tx, message, max(patience.values()))
    for destination in patience:
        know_destination(tx, destination)
    everyone = message.dsn or [NO_DSN_REQUEST] * len(destinations)
    # RFC 3461 6: nobody is told of what has the null sender.
    is_notified = terms.delay_notice > 0 and message.sender != ""
    tx.connection.executemany(
        "INSERT INTO entry (message, number, recipient, destination, state, due, expires, notify, orcpt, notice_at) "
        "VALUES (?, ?, ?, ?, 'waiting', ?, ?, ?, ?, ?)",
        [
            (
                number,
                place,
                recipient,
                destination,
                tx.now,
                patience[destination],
                dsn.notify,
                dsn.orcpt,
                tx.now + terms.delay_notice if is_notified and dsn.include("DELAY") else None,
            )
            for place, (recipient, destination, dsn) in enumerate(
                zip(message.recipients, destinations, everyone, strict=True), 1
            )
        ],
    )
    for place, (recipient, destination) in enumerate(zip(message.recipients, destinations, strict=True), 1):
        tx.record(
            Event(
                at=tx.now,
                kind="accepted",
                message=number,
                entry=place,
                sender=message.sender,
                recipient=recipient,
                destination=destination,
                text=message.origin,
            )
        )
    rules.apply(tx, number)
    return number


def destination_of(recipient: str) -> str:
    """The part after the last "@", lower case."""
    return recipient.rpartition("@")[2].lower()


def _check_envelope(message: NewMessage) -> None:
    if not message.recipients:
        raise QueueError("a message without recipients cannot be queued")
    if message.dsn and len(message.dsn) != len(message.recipients):
        raise QueueError("a message has as many DSN requests as recipients, or none")
    try:
        "".join((message.sender, *message.recipients)).encode()
    except UnicodeEncodeError as error:
        # To replace a character would make it another address.
        raise QueueError("an address of this message is not valid Unicode") from error


def _insert(tx: Transaction, message: NewMessage, expires: float) -> int:
    cursor = tx.execute(
        "INSERT INTO message (sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8, "
        "ret, envid) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.sender,
            len(message.content),
            tx.now,
            expires,
            storable(message.origin),
            storable(message.subject),
            storable(message.message_id),
            not message.content.isascii(),
            message.smtputf8,
            message.ret,
            storable(message.envid),
        ),
    )
    number = cursor.lastrowid
    assert number is not None
    tx.execute(
        "INSERT INTO body (message, sha256, content) VALUES (?, ?, ?)",
        (number, hashlib.sha256(message.content).digest(), message.content),
    )
    if message.key is not None:
        tx.execute("INSERT INTO taken_key (key, message) VALUES (?, ?)", (storable(message.key), number))
    return number


def remove_if_finished(tx: Transaction, message: int) -> None:
    """Remove a message without entries, with its body and attempts; where something is to be told of it, tell that now.

    It leaves with that (see engine.queue.sqlite.notifications): there is nothing more to be gathered. Where a damaged
    page beside them keeps it from that, it stays: without entries nothing of it is sent.
    """
    if tx.damage.knows("rest", message):
        return
    with tx.touching("rest", message):
        gone = tx.execute(
            "DELETE FROM message WHERE number = ? AND NOT EXISTS (SELECT 1 FROM entry WHERE message = message.number) "
            "AND NOT EXISTS (SELECT 1 FROM untold WHERE message = message.number)",
            (message,),
        ).rowcount
        if not gone:
            tx.execute(
                "UPDATE message SET tell_at = ? WHERE number = ? AND tell_at > ? "
                "AND NOT EXISTS (SELECT 1 FROM entry WHERE message = message.number)",
                (tx.now, message, tx.now),
            )
