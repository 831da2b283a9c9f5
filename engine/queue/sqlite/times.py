"""Times that a step of the clock has put wrong: put right by the clock as it is now.

Set back, what was written down before has its time in the future. What stands for so long from a time on (a mark, a
suspension) then begins now; what is due is due after the time it was to wait, or after the longest there is. Set ahead
again, as where a machine knows the time only some seconds after it was started, mail has the time it had when it came.
Each row is put right for itself: what is cut short is done anew at the next start, and what is on a damaged page stays
as it is.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.base.plural import plural
from engine.model.event import Event
from engine.queue.mail import Terms
from engine.queue.sqlite import bearings
from engine.queue.sqlite.notifications import LONGEST_GATHER
from engine.queue.sqlite.writer import Transaction

CHUNK = 2000  # entries looked at in one transaction

_SINCE = ("mark", "suspension", "hold_rule", "override")
_DESTINATIONS = (
    "UPDATE destination SET blocked_until = min(blocked_until, ?), unreached_at = min(unreached_at, ?), "
    "last_at = min(last_at, ?), touched = min(touched, ?), took_at = min(took_at, ?) "
    "WHERE (blocked_until > ? OR unreached_at > ? OR last_at > ? OR touched > ? OR took_at > ?)"
)
_ENTRIES = (
    "SELECT e.message, e.number, e.destination, e.attempts, e.due, e.last_at, e.expires, e.notice_at, "
    "e.postponed_at, m.arrived "
    "FROM entry e CROSS JOIN message m ON m.number = e.message"
)


class Step(NamedTuple):
    """What one transaction has looked at: the last entry, None when there are no more, and how many were changed."""

    after: tuple[int, int] | None
    changed: int


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
    changed = [new for row in rows if (new := _put_right(row, tx.now, terms, longest_wait)) is not None]
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
    concerned = f"; the times of {plural(changed, 'recipient')} were put right" if changed else ""
    tx.record(Event(at=tx.now, kind="clock set", text=f"{text}{concerned}"))


def _put_right(
    row: tuple[Any, ...], now: float, terms: Terms, longest_wait: Callable[[str], float]
) -> tuple[Any, ...] | None:
    """The times of an entry as its columns should have them, and which entry; None: as they are."""
    message, number, destination, attempts, due, last_at, expires, notice_at, postponed_at, arrived = row
    longest = longest_wait(destination)
    new_due, new_postponed = due, postponed_at
    if postponed_at is not None:  # it waits for the time it was told, or for as long as it was told
        new_postponed = min(postponed_at, now)
        new_due = due - (postponed_at - new_postponed)
    elif not attempts:
        new_due = min(due, now)  # it was due when it came
    elif last_at is not None and last_at > now:
        new_due = min(due, now + min(max(0.0, due - last_at), longest))
    else:
        new_due = min(due, now + longest)
    patience = terms.give_up_after(destination)
    new_expires = min(max(expires, min(arrived, now) + patience), now + patience)
    if postponed_at is not None:
        new_expires = max(new_expires, new_due)
    new_last = None if last_at is None else min(last_at, now)
    new_notice = None if notice_at is None else min(notice_at, now + terms.delay_notice)
    new = (new_due, new_last, new_expires, new_notice, new_postponed)
    return None if new == (due, last_at, expires, notice_at, postponed_at) else (*new, message, number)
