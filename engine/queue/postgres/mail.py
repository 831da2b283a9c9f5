"""How a message comes into the store (envelope, content, one entry a recipient, the key it came with) and leaves it."""

import hashlib

from engine.model.message import NO_DSN_REQUEST, NewMessage
from engine.model.node import QUEUED
from engine.queue.mail import Terms, accepted, check_envelope, destination_of
from engine.queue.postgres import rules
from engine.queue.postgres.exchanges import know_destinations
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Transaction


async def enqueue(tx: Transaction, message: NewMessage, terms: Terms) -> int:
    """Write a message, due now and to be given up as the terms say; give its number.

    What a hold rule names is held from the first moment on. A key that is taken gives the number it had. Raises
    QueueError for an envelope that cannot be kept.
    """
    key = key_of(tx, message.key) if message.key is not None else None
    if key is not None:
        taken = await tx.value("SELECT message FROM taken_key WHERE key = $1", key)
        if taken is not None:
            return int(taken)
    check_envelope(message)
    destinations = [destination_of(recipient) for recipient in message.recipients]
    expires = {name: tx.now + terms.give_up_after(name) for name in destinations}
    number = await _insert(tx, message, key, max(expires.values()))
    await know_destinations(tx, sorted(expires))
    everyone = message.dsn or [NO_DSN_REQUEST] * len(destinations)
    await tx.execute(
        "INSERT INTO entry (message, number, recipient, destination, state, due, expires, notify, orcpt, notice_at) "
        "SELECT $1, n, recipient, destination, 'waiting', $2, expires, notify, orcpt, notice_at FROM "
        "unnest($3::text[], $4::text[], $5::float8[], $6::text[], $7::text[], $8::float8[]) WITH ORDINALITY "
        "AS r (recipient, destination, expires, notify, orcpt, notice_at, n)",
        number,
        tx.now,
        list(message.recipients),
        destinations,
        [expires[name] for name in destinations],
        [dsn.notify for dsn in everyone],
        [storable(dsn.orcpt) for dsn in everyone],
        [terms.notice_at(message, dsn, tx.now) for dsn in everyone],
    )
    tx.record(*accepted(message, number, tx.now))
    tx.tell(QUEUED)
    await rules.apply(tx, number)
    return number


def key_of(tx: Transaction, key: str) -> str:
    """A key as it is kept: what one node calls so may be another thing at the next, whose files are its own."""
    return storable(f"{tx.node}:{key}")


async def _insert(tx: Transaction, message: NewMessage, key: str | None, expires: float) -> int:
    number: int = await tx.value(
        "WITH m AS (INSERT INTO message (sender, size, arrived, expires, origin, subject, message_id, eight_bit, "
        "smtputf8, ret, envid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING number), "
        "b AS (INSERT INTO body (message, sha256, content) SELECT number, $12, $13 FROM m) SELECT number FROM m",
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
        hashlib.sha256(message.content).digest(),
        message.content,
    )
    if key is not None:
        await tx.execute("INSERT INTO taken_key (key, message) VALUES ($1, $2)", key, number)
    return number


async def remove_if_finished(tx: Transaction, *messages: int) -> None:
    """Remove messages without entries, with body and attempts; where something is to be told of one, tell that now.

    It leaves with that (see engine.queue.postgres.notifications): there is nothing more to be gathered.
    """
    gone = await tx.execute(
        "DELETE FROM message m WHERE number = ANY($1::bigint[]) "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number) "
        "AND NOT EXISTS (SELECT 1 FROM untold WHERE message = m.number)",
        messages,
    )
    if gone < len(messages):
        await tx.execute(
            "UPDATE message m SET tell_at = $2 WHERE number = ANY($1::bigint[]) AND tell_at > $2 "
            "AND NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number)",
            messages,
            tx.now,
        )
