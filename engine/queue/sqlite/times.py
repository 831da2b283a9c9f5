"""Times that a step of the clock has put wrong, in the store: see engine.queue.times.

What stands for so long from a time on (a mark, a suspension) begins now where it began in what is now the future. Each
row is put right for itself: what is cut short is done anew at the next start, and what is on a damaged page stays as
it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

from engine.queue import times
from engine.queue.bounds import LONGEST_GATHER
from engine.queue.mail import Terms
from engine.queue.sqlite import bearings
from engine.queue.sqlite.writer import Transaction
from engine.queue.times import Step, Times

CHUNK = 2000  # entries looked at in one transaction

_SINCE = ("mark", "suspension", "hold_rule", "override", "suppressed")
_DESTINATIONS = (
    "UPDATE destination SET blocked_until = min(blocked_until, ?), unreached_at = min(unreached_at, ?), "
    "last_at = min(last_at, ?), touched = min(touched, ?), took_at = min(took_at, ?) "
    "WHERE (blocked_until > ? OR unreached_at > ? OR last_at > ? OR touched > ? OR took_at > ?)"
)
_ENTRIES = (  # in the order of the fields of Times
    "SELECT e.message, e.number, e.destination, e.attempts, e.due, e.last_at, e.expires, e.notice_at, "
    "e.postponed_at, m.arrived "
    "FROM entry e CROSS JOIN message m ON m.number = e.message"
)


def put_standing_right(tx: Transaction, longest_block: float) -> None:
    """Pull in what lasts until a time: blocks, marks, suspensions, rules, overrides, orders, what is to be told."""
    now = tx.now
    block = (now + longest_block, now, now, now, now, now + longest_block, now, now, now, now)
    if not tx.damage.knows("times", "destination"):
        with tx.touching("times", "destination"):
            tx.execute(_DESTINATIONS, block)
    else:
        for name in bearings.names(tx.connection):
            _unless_damaged(tx, name, f"{_DESTINATIONS} AND name = ?", (*block, name))
    for table in _SINCE:
        since = f"UPDATE {table} SET until = ? + (until - since), since = ? WHERE since > ?"
        _unless_damaged(tx, table, since, (now, now, now))
    due = "UPDATE operation SET due = ? + (due - at) WHERE at > ? AND due IS NOT NULL"
    _unless_damaged(tx, "due", due, (now, now))
    _unless_damaged(tx, "at", "UPDATE operation SET at = ? WHERE at > ?", (now, now))
    tell_at = "UPDATE message SET tell_at = ? WHERE tell_at > ?"
    _unless_damaged(tx, "tell_at", tell_at, (now, now + LONGEST_GATHER))


def put_entries_right(
    tx: Transaction, after: tuple[int, int], terms: Terms, longest_wait: Callable[[str], float]
) -> Step:
    """Put right the times of the next CHUNK entries."""
    if tx.damage.knows("times", *after):
        return _put_right_singly(tx, after[0], terms, longest_wait)
    with tx.touching("times", *after):
        rows = tx.execute(
            f"{_ENTRIES} WHERE (e.message, e.number) > (?, ?) ORDER BY e.message, e.number LIMIT ?", (*after, CHUNK)
        ).fetchall()
        count = _write(tx, rows, terms, longest_wait)
    return Step((rows[-1][0], rows[-1][1]) if len(rows) == CHUNK else None, count)


def _put_right_singly(tx: Transaction, first: int, terms: Terms, longest_wait: Callable[[str], float]) -> Step:
    """Put right the entries of the next CHUNK messages, by their numbers, but for those beside a damaged page."""
    count = 0
    for message in range(first, first + CHUNK):
        if not tx.damage.knows("times", message):
            with tx.touching("times", message):
                rows = tx.execute(f"{_ENTRIES} WHERE e.message = ?", (message,)).fetchall()
                count += _write(tx, rows, terms, longest_wait)
    (newest,) = tx.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'message'").fetchone()
    last = first + CHUNK - 1
    return Step((last, 2**62) if last < newest else None, count)  # behind every entry of that message


def _write(tx: Transaction, rows: Sequence[tuple[Any, ...]], terms: Terms, longest_wait: Callable[[str], float]) -> int:
    changed = [new for row in rows if (new := times.put_right(Times(*row), tx.now, terms, longest_wait)) is not None]
    tx.connection.executemany(
        "UPDATE entry SET due = ?, last_at = ?, expires = ?, notice_at = ?, postponed_at = ? "
        "WHERE message = ? AND number = ?",
        changed,
    )
    return len(changed)


def _unless_damaged(tx: Transaction, what: str, statement: str, values: tuple[Any, ...]) -> None:
    if not tx.damage.knows("times", what):
        with tx.touching("times", what):
            tx.execute(statement, values)


def tell(tx: Transaction, text: str, changed: int) -> None:
    """Tell that the clock was set. In the last transaction of all: what is cut short begins anew."""
    tx.record(times.told(tx.now, text, changed))
