"""Times that a step of the clock has put wrong, in the store: see engine.queue.times.

What stands for so long from a time on (a mark, a suspension) begins now where it began in what is now the future. Each
row is put right for itself: what is cut short is done anew at the next start.
"""

from collections.abc import Callable

from engine.queue import times
from engine.queue.bounds import LONGEST_GATHER
from engine.queue.mail import Terms
from engine.queue.postgres.transaction import Transaction
from engine.queue.times import Step, Times

CHUNK = 2000  # entries looked at in one transaction

_SINCE = ("mark", "suspension", "hold_rule", "override", "suppressed")


async def put_standing_right(tx: Transaction, longest_block: float) -> None:
    """Pull in what lasts until a time: blocks, marks, suspensions, rules, overrides, orders, what is to be told."""
    now = tx.now
    tx.in_the_end(lambda: _put_destinations_right(tx, longest_block))
    for table in _SINCE:
        await tx.execute(f"UPDATE {table} SET until = $1::float8 + (until - since), since = $1 WHERE since > $1", now)
    await tx.execute("UPDATE operation SET due = $1::float8 + (due - at), at = $1 WHERE at > $1", now)
    await tx.execute("UPDATE message SET tell_at = $1::float8 WHERE tell_at > $2::float8", now, now + LONGEST_GATHER)


async def _put_destinations_right(tx: Transaction, longest_block: float) -> None:
    await tx.execute(
        "UPDATE destination SET blocked_until = least(blocked_until, $2::float8), "
        "unreached_at = least(unreached_at, $1::float8), touched = least(touched, $1), took_at = least(took_at, $1), "
        "last_at = CASE WHEN last_at > $1 THEN $1 ELSE last_at END "  # it may be NULL, which least() would pass over
        "WHERE blocked_until > $2 OR unreached_at > $1 OR last_at > $1 OR touched > $1 OR took_at > $1",
        tx.now,
        tx.now + longest_block,
    )


async def put_entries_right(
    tx: Transaction, after: tuple[int, int], terms: Terms, longest_wait: Callable[[str], float]
) -> Step:
    """Put right the times of the next CHUNK entries."""
    rows = await tx.fetch(
        "SELECT e.message, e.number, e.destination, e.attempts, e.due, e.last_at, e.expires, e.notice_at, "
        "e.postponed_at, m.arrived FROM entry e JOIN message m ON m.number = e.message "
        # Of the messages the same: they would else be read from the first one on.
        "WHERE (e.message, e.number) > ($1::bigint, $2::int) AND m.number >= $1 ORDER BY e.message, e.number LIMIT $3",
        *after,
        CHUNK,
    )
    changed = [new for row in rows if (new := times.put_right(Times(*row), tx.now, terms, longest_wait)) is not None]
    if changed:
        await tx.execute(
            "UPDATE entry e SET due = k.due, last_at = k.last_at, expires = k.expires, notice_at = k.notice_at, "
            "postponed_at = k.postponed_at FROM unnest($1::float8[], $2::float8[], $3::float8[], $4::float8[], "
            "$5::float8[], $6::bigint[], $7::int[]) "
            "AS k (due, last_at, expires, notice_at, postponed_at, message, number) "
            "WHERE e.message = k.message AND e.number = k.number",
            *map(list, zip(*changed, strict=True)),
        )
    return Step((rows[-1][0], rows[-1][1]) if len(rows) == CHUNK else None, len(changed))


async def tell(tx: Transaction, text: str, changed: int) -> None:
    """Tell that the clock was set. In the last transaction of all: what is cut short begins anew."""
    tx.record(times.told(tx.now, text, changed))
