"""Reasons: why mail waits, grouped by what was said last. An index holds all that is counted."""

import sqlite3
import time

from engine.queue.destinations import RESTS
from engine.queue.queue import Reason
from engine.queue.rows import outcome_of
from engine.queue.standing import COSTLY

BUSIEST = 3  # destinations named of one reason

_GROUPS = (
    "SELECT reason_key, count(*), count(DISTINCT message), count(DISTINCT destination), min(message), max(message) "
    "FROM entry INDEXED BY entry_reason WHERE reason_key IS NOT NULL "
    "GROUP BY reason_key ORDER BY 2 DESC, 1 LIMIT ?"
)
_DESTINATIONS = (
    "SELECT destination FROM entry INDEXED BY entry_reason WHERE reason_key = ? "
    "GROUP BY destination ORDER BY count(*) DESC, destination LIMIT ?"
)


class ReasonAnswers:
    """Answers why mail waits, and remembers the last answer if it was costly.

    Consoles ask again and again: however long the queue is, counting takes no more than a twentieth of a core.
    """

    def __init__(self) -> None:
        self._kept: tuple[float, int, tuple[Reason, ...]] = (0.0, 0, ())

    def of(self, connection: sqlite3.Connection, limit: int) -> tuple[Reason, ...]:
        """The `limit` reasons with most entries."""
        until, asked, answer = self._kept
        started = time.monotonic()
        if asked == limit and started < until:
            return answer
        answer = reasons(connection, limit)
        ended = time.monotonic()
        if ended - started > COSTLY:
            self._kept = (ended + RESTS * (ended - started), limit, answer)
        return answer


def reasons(connection: sqlite3.Connection, limit: int) -> tuple[Reason, ...]:
    """The `limit` reasons with most entries, that with most first."""
    found = connection.execute(_GROUPS, (max(0, limit),)).fetchall()
    return tuple(_reason(connection, *row) for row in found)


def _reason(
    connection: sqlite3.Connection, why: str, entries: int, messages: int, destinations: int, first: int, newest: int
) -> Reason:
    (oldest,) = connection.execute("SELECT arrived FROM message WHERE number = ?", (first,)).fetchone()
    (last,) = connection.execute(
        "SELECT last FROM entry WHERE message = ? AND reason_key = ? ORDER BY number LIMIT 1", (newest, why)
    ).fetchone()
    return Reason(
        why=why,
        entries=entries,
        messages=messages,
        destinations=destinations,
        busiest=tuple(name for (name,) in connection.execute(_DESTINATIONS, (why, BUSIEST))),
        oldest=oldest,
        example=outcome_of(last),
    )
