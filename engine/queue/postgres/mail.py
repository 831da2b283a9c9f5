"""How a message comes into the store (envelope, content, one entry a recipient, the key it came with) and leaves it."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.model.message import NO_DSN_REQUEST, NewMessage
from engine.model.node import QUEUED
from engine.queue.bounds import LONGEST_GATHER
from engine.queue.columns import outcome_json
from engine.queue.errors import QueueError
from engine.queue.mail import Terms, accepted, check_envelope, destination_of, refused
from engine.queue.postgres import rules
from engine.queue.postgres.exchanges import know_destinations
from engine.queue.postgres.rows import storable
from engine.queue.postgres.transaction import Transaction


async def enqueue(tx: Transaction, message: NewMessage, terms: Terms) -> int:
    """Write one message; see `enqueue_all`. Raises QueueError for an envelope that cannot be kept."""
    (found,) = await enqueue_all(tx, [message], terms)
    if isinstance(found, QueueError):
        raise found
    return found


async def enqueue_all(tx: Transaction, messages: Sequence[NewMessage], terms: Terms) -> list[int | QueueError]:
    """Write messages, due now and to be given up as the terms say; give the number of each, or why it cannot be kept.

    What a hold rule names is held from the first moment on; who is refused already is told of, and not tried. A key
    that is taken gives the number it had.
    """
    keys = [storable(message.key) if message.key is not None else None for message in messages]
    taken = await _taken(tx, [key for key in keys if key is not None])
    refused: dict[int, QueueError] = {}
    new: dict[int, NewMessage] = {}  # by their places among all
    firsts: dict[str, int] = {}
    for place, (message, key) in enumerate(zip(messages, keys, strict=True)):
        if key is not None and (key in taken or firsts.setdefault(key, place) != place):
            continue
        try:
            check_envelope(message)
        except QueueError as error:
            refused[place] = error
        else:
            new[place] = message
    numbers = dict(zip(new, await _insert(tx, list(new.values()), terms), strict=True)) if new else {}
    fresh = {key: numbers[place] for place, key in enumerate(keys) if key is not None and place in numbers}
    if fresh:
        query = "INSERT INTO taken_key (node, key, message) SELECT $1, * FROM unnest($2::text[], $3::bigint[])"
        await tx.execute(query, tx.node, list(fresh), list(fresh.values()))
    taken |= fresh
    return [
        refused[place] if place in refused else numbers[place] if place in numbers else taken[key or ""]
        for place, key in enumerate(keys)
    ]


async def _taken(tx: Transaction, keys: Sequence[str]) -> dict[str, int]:
    if not keys:
        return {}
    query = "SELECT key, message FROM taken_key WHERE key = ANY($1::text[]) AND node IN ($2, '')"
    return dict(map(tuple, await tx.fetch(query, keys, tx.node)))


async def _insert(tx: Transaction, messages: Sequence[NewMessage], terms: Terms) -> list[int]:
    """Write messages with their entries; give their numbers."""
    query = "SELECT nextval('message_number_seq'), EXISTS (SELECT 1 FROM hold_rule) FROM generate_series(1, $1::int)"
    rows = await tx.fetch(query, len(messages))
    numbers = [number for number, _ in rows]
    entries = [
        entry
        for message, number in zip(messages, numbers, strict=True)
        for entry in _entries(tx, message, number, terms)
    ]
    contents = [message.named(number) for message, number in zip(messages, numbers, strict=True)]
    expires = {
        number: max(tx.now + terms.give_up_after(destination_of(recipient)) for recipient in message.recipients)
        for message, number in zip(messages, numbers, strict=True)
    }
    await tx.execute(
        "WITH m AS (INSERT INTO message (number, arrived, sender, size, expires, origin, subject, message_id, "
        "eight_bit, smtputf8, ret, envid) OVERRIDING SYSTEM VALUE SELECT number, $1, sender, size, expires, origin, "
        "subject, message_id, eight_bit, smtputf8, ret, envid FROM unnest($2::bigint[], $3::text[], $4::bigint[], "
        "$5::float8[], $6::text[], $7::text[], $8::text[], $9::boolean[], $10::boolean[], $11::text[], $12::text[]) "
        "AS k (number, sender, size, expires, origin, subject, message_id, eight_bit, smtputf8, ret, envid)) "
        "INSERT INTO body (message, sha256, content) SELECT * FROM unnest($2::bigint[], $13::bytea[], $14::bytea[])",
        tx.now,
        numbers,
        [message.sender for message in messages],
        [len(content) for content in contents],
        list(expires.values()),
        [storable(message.origin) for message in messages],
        [storable(message.subject) for message in messages],
        [storable(message.message_id) for message in messages],
        [not content.isascii() for content in contents],
        [message.smtputf8 for message in messages],
        [message.ret for message in messages],
        [storable(message.envid) for message in messages],
        [hashlib.sha256(content).digest() for content in contents],
        contents,
    )
    await know_destinations(tx, {entry.destination for entry in entries})
    if entries:
        await _insert_entries(tx, entries)
    for message, number, content in zip(messages, numbers, contents, strict=True):
        tx.record(*accepted(message, number, len(content), tx.now))
    tx.tell(QUEUED)
    if rows[0][1]:
        await rules.apply(tx, numbers)
    for message, number in zip(messages, numbers, strict=True):
        if message.refused:
            await _refuse(tx, message, number, terms)
    return numbers


async def _insert_entries(tx: Transaction, entries: Sequence["_NewEntry"]) -> None:
    await tx.execute(
        "INSERT INTO entry (message, number, recipient, destination, state, due, expires, notify, orcpt, notice_at) "
        "SELECT message, number, recipient, destination, 'waiting', $1, expires, notify, orcpt, notice_at FROM "
        "unnest($2::bigint[], $3::int[], $4::text[], $5::text[], $6::float8[], $7::text[], $8::text[], $9::float8[]) "
        "AS k (message, number, recipient, destination, expires, notify, orcpt, notice_at)",
        tx.now,
        *map(list, zip(*entries, strict=True)),
    )


async def _refuse(tx: Transaction, message: NewMessage, number: int, terms: Terms) -> None:
    """Keep what is to be told of recipients that are not tried, as of any that failed."""
    not_tried = refused(message)
    if told := [one for one in not_tried if one.is_told]:
        await tx.execute(
            "WITH kept AS (INSERT INTO untold (message, number, recipient, orcpt, action, outcome, at) "
            "SELECT $1, k.number, k.recipient, k.orcpt, 'failed', k.outcome, $6 "
            "FROM unnest($2::int[], $3::text[], $4::text[], $5::text[]) AS k (number, recipient, orcpt, outcome)) "
            "UPDATE message SET tell_at = $6 + $7::float8 WHERE number = $1",
            number,
            [one.number for one in told],
            [one.recipient for one in told],
            [storable(one.dsn.orcpt) for one in told],
            [outcome_json(one.outcome) for one in told],
            tx.now,
            min(terms.gather, LONGEST_GATHER),
        )
    tx.record(*(one.event(number, message.sender, tx.now) for one in not_tried))
    await remove_if_finished(tx, number)


class _NewEntry(NamedTuple):
    message: int
    number: int
    recipient: str
    destination: str
    expires: float
    notify: str
    orcpt: str
    notice_at: float | None


def _entries(tx: Transaction, message: NewMessage, number: int, terms: Terms) -> Iterator[_NewEntry]:
    everyone = message.dsn or [NO_DSN_REQUEST] * len(message.recipients)
    not_tried = {one.number for one in refused(message)}
    for place, (recipient, dsn) in enumerate(zip(message.recipients, everyone, strict=True), 1):
        if place in not_tried:
            continue
        name = destination_of(recipient)
        expires, notice_at = tx.now + terms.give_up_after(name), terms.notice_at(message, dsn, tx.now)
        yield _NewEntry(number, place, recipient, name, expires, dsn.notify, storable(dsn.orcpt), notice_at)


async def remove_if_finished(tx: Transaction, *messages: int) -> set[int]:
    """Remove messages without entries, with body and attempts; where something is to be told of one, tell that now.

    It leaves with that (see engine.queue.postgres.notifications): there is nothing more to be gathered. Gives those
    that were removed.
    """
    gone = await tx.fetch(
        "DELETE FROM message m WHERE number = ANY($1::bigint[]) "
        "AND NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number) "
        "AND NOT EXISTS (SELECT 1 FROM untold WHERE message = m.number) "
        "RETURNING number",
        messages,
    )
    if len(gone) < len(messages):
        await tx.execute(
            "UPDATE message m SET tell_at = $2 WHERE number = ANY($1::bigint[]) AND tell_at > $2 "
            "AND NOT EXISTS (SELECT 1 FROM entry WHERE message = m.number)",
            messages,
            tx.now,
        )
    return {number for (number,) in gone}
