"""What a condition names: its entries one after another, or counted with the first few of them."""

import sqlite3

from engine.model.message import Selection
from engine.queue.bounds import EXAMPLES
from engine.queue.rows import ENTRY_COLUMNS
from engine.queue.sqlite.rows import entries_of
from engine.queue.sqlite.where import Where

JOIN = " JOIN message m ON m.number = e.message"

# When an entry is given up if nobody postpones it. An order to postpone it may have moved its end to the time at which
# it is due: then its own is that of its message, which is the latest that any of the recipients came with.
OWN_END = "iif(e.postponed_at IS NOT NULL AND e.expires = e.due, min(e.expires, m.expires), e.expires)"


def chosen(
    connection: sqlite3.Connection,
    selected: Where,
    newest: int | None = None,
    *,
    now: float,
    until: float | None = None,
) -> Selection:
    """Count the entries that a condition names, with the first few of them; see Listing.select."""
    bound = newest_message(connection) if newest is None else newest
    join = JOIN if selected.joins else ""
    messages, recipients = connection.execute(
        f"SELECT count(*), coalesce(sum(entries), 0) FROM "
        f"(SELECT count(*) AS entries FROM entry e{join} WHERE {selected.sql} GROUP BY e.message)",
        selected.values,
    ).fetchone()
    examples = connection.execute(
        f"SELECT {ENTRY_COLUMNS} FROM entry e{JOIN} WHERE {selected.sql} ORDER BY e.message, e.number LIMIT ?",
        (*selected.values, EXAMPLES),
    )
    found = entries_of(connection, examples, now)
    outlasting = 0 if until is None else _outlasting(connection, selected, until)
    return Selection(messages=messages, recipients=recipients, newest=bound, outlasting=outlasting, examples=found)


def _outlasting(connection: sqlite3.Connection, selected: Where, until: float) -> int:
    """How many of those that an order makes due at `until` would be given up before."""
    (count,) = connection.execute(
        f"SELECT count(*) FROM entry e{JOIN} WHERE {selected.sql} AND e.state = 'waiting' "
        f"AND (e.due < ? OR e.postponed_at IS NOT NULL) AND {OWN_END} < ?",
        (*selected.values, until, until),
    ).fetchone()
    return int(count)


def candidates(
    connection: sqlite3.Connection, selected: Where, after: tuple[int, int], limit: int
) -> list[tuple[int, int]]:
    """The next `limit` entries of a selection behind the entry `after`, by id."""
    join = JOIN if selected.joins else ""
    return connection.execute(
        f"SELECT e.message, e.number FROM entry e{join} WHERE {selected.sql} AND (e.message, e.number) > (?, ?) "
        "ORDER BY e.message, e.number LIMIT ?",
        (*selected.values, *after, limit),
    ).fetchall()


def newest_message(connection: sqlite3.Connection) -> int:
    """The number of the message that came last, whether it has left or not."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'message'").fetchone()
    return row[0] if row else 0
