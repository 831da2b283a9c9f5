"""Events as they are looked for: by number, by message, and by words in what is said of them."""

import json

from engine.base.words import Word, stand_in, words_of
from engine.model.event import Event
from engine.queue.postgres.rows import EVENT_COLUMNS, storable
from engine.queue.postgres.transaction import Row, Snapshot
from engine.queue.postgres.where import folded, numbered
from engine.queue.rows import event_of

PAGE = 1000  # events that may have the words, looked at at once

# What is said of an event but by its outcome.
_SAID = "kind || ' ' || recipient || ' ' || sender || ' ' || destination || ' ' || host || ' ' || by || ' ' || text"

_REPLIED = "coalesce(outcome, '')"


async def events(
    s: Snapshot, *, before: int | None, after: int | None, message: int | None, match: str, limit: int
) -> tuple[Event, ...]:
    """Events kept, in order of `seq`; see Listing.events.

    The server finds those that may have the words: an outcome it takes as it is stored, which is all that it says and
    more, since one that is damaged must not keep all others from being found. These are looked at here, in pages.
    """
    words = tuple(dict.fromkeys(words_of(storable(match))))
    limit, is_newest_first = max(0, limit), after is None
    page = min(limit, PAGE) if words else limit
    found: list[Event] = []
    while len(found) < limit:
        rows = await _page(s, before, after, message, words, page, is_newest_first=is_newest_first)
        found += [event for event in map(event_of, rows) if stand_in(words, _said(event))]
        if len(rows) < page:
            break
        before, after = (rows[-1][0], after) if is_newest_first else (before, rows[-1][0])
        page = PAGE
    found = found[:limit]
    return tuple(reversed(found) if is_newest_first else found)


async def _page(
    s: Snapshot,
    before: int | None,
    after: int | None,
    message: int | None,
    words: tuple[Word, ...],
    limit: int,
    *,
    is_newest_first: bool,
) -> list[Row]:
    """The next events that may have the words."""
    bounds = (
        ("seq < ?::bigint", before),
        ("seq > ?::bigint", after),
        ("message > 0 AND message = ?::bigint", message),
    )
    conditions = [bound for bound, value in bounds if value is not None] or ["TRUE"]
    values: list[object] = [value for _, value in bounds if value is not None]
    order = f"ORDER BY seq {'DESC' if is_newest_first else 'ASC'}"
    listed = f"FROM event WHERE {' AND '.join(conditions)} {order}"
    if words:
        said, may_have, sought = _may_have(words)
        # OFFSET keeps it a query of its own, so that what an event says is put together once for all words.
        listed = f"FROM (SELECT *, {said} {listed} OFFSET 0) e WHERE {may_have} {order}"
        values += sought
    return await s.fetch(numbered(f"SELECT {EVENT_COLUMNS} {listed} LIMIT ?"), *values, limit)


def _may_have(words: tuple[Word, ...]) -> tuple[str, str, list[object]]:
    """Two columns of what is said of an event, a condition that it may have the words, and its parameters."""
    is_ascii = all(word.text.isascii() for word in words)
    conditions: list[str] = []
    values: list[object] = []
    for word in sorted(words, key=lambda word: word.left_out):  # what is sought leaves fewest
        stands = f"strpos(said, {_fold('?::text', is_ascii)}) > 0"
        values.append(word.text)
        if word.left_out:
            conditions.append(f"NOT {stands}")
        else:
            conditions.append(f"({stands} OR strpos(replied, {_fold('?::text', is_ascii)}) > 0)")
            values.append(json.dumps(word.text, ensure_ascii=False)[1:-1])
    columns = f"{_fold(_SAID, is_ascii)} AS said, {_fold(_REPLIED, is_ascii)} AS replied"
    return columns, " AND ".join(conditions), values


def _fold(sql: str, is_ascii: bool) -> str:
    folding = f"lower({sql})" if is_ascii else folded(f"({sql})")
    return f"(SELECT {folding})" if sql.startswith("?") else folding  # so that a parameter is folded once


def _said(event: Event) -> str:
    """All that is said of an event, each part apart from the next."""
    texts = [event.kind, event.recipient, event.sender, event.destination, event.host, event.by, event.text]
    if event.outcome is not None:
        texts += [event.outcome.line, event.outcome.host, event.outcome.secured]
    return " ".join(texts)
