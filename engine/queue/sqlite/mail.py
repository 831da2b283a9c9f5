"""How a message comes into the store (envelope, content, one entry a recipient, the key it came with) and leaves it."""

import hashlib
from collections.abc import Sequence

from engine.model.message import NO_DSN_REQUEST, NewMessage
from engine.queue.bounds import LONGEST_GATHER
from engine.queue.columns import outcome_json, storable
from engine.queue.mail import Refused, Terms, accepted, check_envelope, destination_of, refused
from engine.queue.sqlite import rules
from engine.queue.sqlite.exchanges import know_destination
from engine.queue.sqlite.writer import Transaction


def enqueue(tx: Transaction, message: NewMessage, terms: Terms) -> int:
    """Write a message, due now and to be given up as the terms say; give its number.

    What a hold rule names is held from the first moment on; who is refused already is told of, and not tried. A key
    that is taken gives the number it had. Raises QueueError for an envelope that cannot be kept.
    """
    if message.key is not None:
        taken = tx.execute("SELECT message FROM taken_key WHERE key = ?", (storable(message.key),)).fetchone()
        if taken is not None:
            return int(taken[0])
    check_envelope(message)
    destinations = [destination_of(recipient) for recipient in message.recipients]
    expires = {name: tx.now + terms.give_up_after(name) for name in destinations}
    number = _next_number(tx)
    content = message.named(number)
    _insert(tx, message, number, content, max(expires.values()))
    not_tried = refused(message)
    numbers = {one.number for one in not_tried}
    for destination in dict.fromkeys(name for place, name in enumerate(destinations, 1) if place not in numbers):
        know_destination(tx, destination)
    everyone = message.dsn or [NO_DSN_REQUEST] * len(destinations)
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
                expires[destination],
                dsn.notify,
                dsn.orcpt,
                terms.notice_at(message, dsn, tx.now),
            )
            for place, (recipient, destination, dsn) in enumerate(
                zip(message.recipients, destinations, everyone, strict=True), 1
            )
            if place not in numbers
        ],
    )
    tx.record(*accepted(message, number, len(content), tx.now))
    rules.apply(tx, number)
    if not_tried:
        _refuse(tx, message, number, not_tried, terms)
    return number


def _next_number(tx: Transaction) -> int:
    """The number of the next message: it is said in its content, and so must be known before that is written."""
    given = "(SELECT seq FROM sqlite_sequence WHERE name = 'message')"  # the last one, also of what has left
    there = "(SELECT max(number) FROM message)"
    (last,) = tx.execute(f"SELECT max(coalesce({given}, 0), coalesce({there}, 0))").fetchone()
    return int(last) + 1


def _refuse(tx: Transaction, message: NewMessage, number: int, not_tried: Sequence[Refused], terms: Terms) -> None:
    """Keep what is to be told of recipients that are not tried, as of any that failed."""
    tx.connection.executemany(
        "INSERT INTO untold (message, number, recipient, orcpt, action, outcome, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (number, one.number, one.recipient, one.dsn.orcpt, "failed", outcome_json(one.outcome), tx.now)
            for one in not_tried
            if one.is_told
        ],
    )
    tx.execute(
        "UPDATE message SET tell_at = ? WHERE number = ? AND EXISTS (SELECT 1 FROM untold WHERE message = ?)",
        (tx.now + min(terms.gather, LONGEST_GATHER), number, number),
    )
    tx.record(*(one.event(number, message.sender, tx.now) for one in not_tried))
    remove_if_finished(tx, number)


def _insert(tx: Transaction, message: NewMessage, number: int, content: bytes, expires: float) -> None:
    tx.execute(
        "INSERT INTO message (number, sender, size, arrived, expires, origin, subject, message_id, eight_bit, "
        "smtputf8, ret, envid) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            message.sender,
            len(content),
            tx.now,
            expires,
            storable(message.origin),
            storable(message.subject),
            storable(message.message_id),
            not content.isascii(),
            message.smtputf8,
            message.ret,
            storable(message.envid),
        ),
    )
    tx.execute(
        "INSERT INTO body (message, sha256, content) VALUES (?, ?, ?)",
        (number, hashlib.sha256(content).digest(), content),
    )
    if message.key is not None:
        tx.execute("INSERT INTO taken_key (key, message) VALUES (?, ?)", (storable(message.key), number))


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
