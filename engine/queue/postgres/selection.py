"""What a condition names: its entries one after another, or counted with the first few of them."""

from engine.model.message import Selection
from engine.queue.bounds import EXAMPLES
from engine.queue.postgres.bearings import entries_of
from engine.queue.postgres.transaction import Snapshot
from engine.queue.postgres.where import Where, for_its_values, numbered
from engine.queue.rows import ENTRY_COLUMNS

JOIN = " JOIN message m ON m.number = e.message"

# When an entry is given up if nobody postpones it. An order to postpone it may have moved its end to the time at which
# it is due: then its own is that of its message, which is the latest that any of the recipients came with.
OWN_END = (
    "CASE WHEN e.postponed_at IS NOT NULL AND e.expires = e.due THEN least(e.expires, m.expires) ELSE e.expires END"
)


async def chosen(s: Snapshot, selected: Where, newest: int | None = None, *, until: float | None = None) -> Selection:
    """Count the entries that a condition names, with the first few of them; see Listing.select."""
    bound = await newest_message(s) if newest is None else newest
    join = JOIN if selected.joins else ""
    messages, recipients = (
        await s.fetch(
            numbered(
                "SELECT count(*), coalesce(sum(entries), 0)::bigint FROM "
                f"(SELECT count(*) AS entries FROM entry e{join} WHERE {selected.sql} GROUP BY e.message) c"
            ),
            *selected.values,
        )
    )[0]
    examples = await s.fetch(
        numbered(
            f"SELECT {ENTRY_COLUMNS} FROM entry e{JOIN} WHERE {selected.sql} ORDER BY e.message, e.number LIMIT ?"
        ),
        *selected.values,
        EXAMPLES,
    )
    found = await entries_of(s, examples)
    outlasting = 0 if until is None else await _outlasting(s, selected, until)
    return Selection(messages=messages, recipients=recipients, newest=bound, outlasting=outlasting, examples=found)


async def _outlasting(s: Snapshot, selected: Where, until: float) -> int:
    """How many of those that an order makes due at `until` would be given up before."""
    count = await s.value(
        numbered(
            f"SELECT count(*) FROM entry e{JOIN} WHERE {selected.sql} AND e.state = 'waiting' "
            f"AND (e.due < ?::float8 OR e.postponed_at IS NOT NULL) AND {OWN_END} < ?::float8"
        ),
        *selected.values,
        until,
        until,
    )
    return int(count)


async def candidates(s: Snapshot, selected: Where, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """The next `limit` entries of a selection behind the entry `after`, by id."""
    await for_its_values(s)
    # A plan that begins with the messages must not read them from the first one for every page.
    join, behind = (JOIN, " AND m.number >= ?::bigint") if selected.joins else ("", "")
    rows = await s.fetch(
        numbered(
            f"SELECT e.message, e.number FROM entry e{join} WHERE {selected.sql}{behind} "
            "AND (e.message, e.number) > (?::bigint, ?::int) ORDER BY e.message, e.number LIMIT ?"
        ),
        *selected.values,
        *(after[:1] if behind else ()),
        *after,
        limit,
    )
    return [(message, number) for message, number in rows]


async def newest_message(s: Snapshot) -> int:
    """The number of the newest message that is there; 0 without one. (The sequence counts what was undone, too.)"""
    return int(await s.value("SELECT coalesce(max(number), 0) FROM message"))
