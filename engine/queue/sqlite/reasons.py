"""Reasons: why mail waits, all of it, in groups: by what was said last, or why it was never tried.

What was tried is counted in an index; what was not, by the very condition that `group="..."` names it with.
"""

import sqlite3
import time

from engine.model.filter import Filter, Term
from engine.model.outcome import Outcome
from engine.model.reason import Reason
from engine.queue.bounds import BUSIEST, COSTLY, RESTS
from engine.queue.columns import outcome_of
from engine.queue.sqlite import untried
from engine.queue.sqlite.where import Where, where
from engine.queue.untried import HELD

_GROUPS = (
    "SELECT reason_key, count(*), count(DISTINCT message), count(DISTINCT destination), min(message), max(message) "
    "FROM entry INDEXED BY entry_reason WHERE reason_key IS NOT NULL "
    "GROUP BY reason_key ORDER BY 2 DESC, 1 LIMIT ?"
)
_DESTINATIONS = (
    "SELECT destination FROM entry INDEXED BY entry_reason WHERE reason_key = ? "
    "GROUP BY destination ORDER BY count(*) DESC, destination LIMIT ?"
)
# What was tried of each destination: where it is all there is, nothing of it was never tried.
_TRIED = (
    "SELECT destination, count(*) FROM entry INDEXED BY entry_reason WHERE reason_key IS NOT NULL GROUP BY destination"
)
_IN_ALL = "SELECT name, waiting + held + relaying FROM destination WHERE waiting > 0"
_RELAYING = "SELECT DISTINCT reason_key FROM entry INDEXED BY entry_relaying WHERE state = 'relaying'"
_HELD = (
    f"SELECT DISTINCT {HELD} FROM destination d CROSS JOIN entry e INDEXED BY entry_destination "
    "ON e.destination = d.name WHERE d.held > 0 AND e.state = 'held' AND e.reason_key IS NULL"
)


class ReasonAnswers:
    """Answers group mail waits, and remembers the last answer if it was costly.

    Consoles ask again and again: however long the queue is, counting takes no more than a twentieth of a core.
    """

    def __init__(self) -> None:
        self._kept: tuple[float, int, tuple[Reason, ...]] = (0.0, 0, ())

    def of(self, connection: sqlite3.Connection, limit: int, *, now: float) -> tuple[Reason, ...]:
        """The `limit` reasons with most entries."""
        until, asked, answer = self._kept
        started = time.monotonic()
        if asked == limit and started < until:
            return answer
        answer = reasons(connection, limit, now=now)
        ended = time.monotonic()
        if ended - started > COSTLY:
            self._kept = (ended + RESTS * (ended - started), limit, answer)
        return answer


def reasons(connection: sqlite3.Connection, limit: int, *, now: float) -> tuple[Reason, ...]:
    """The `limit` reasons with most entries, that with most first."""
    limit = max(0, limit)
    not_tried = _not_tried(connection, now)
    relaying = {group for (group,) in connection.execute(_RELAYING) if group is not None}
    held = [group for (group,) in connection.execute(_HELD)]
    found: dict[str, Reason] = {}
    for row in connection.execute(_GROUPS, (limit + len(relaying),)).fetchall():
        if row[0] not in relaying and row[0] not in not_tried:
            found[row[0]] = _tried(connection, *row)
    for group in dict.fromkeys((*not_tried, *untried.postponed(connection), *held, *relaying)):
        named = Filter(terms=(Term(field="group", op="=", value=group),))
        reason = _counted(connection, group, where(named, now, untried=not_tried))
        if reason is not None:
            found[group] = reason
    return tuple(sorted(found.values(), key=lambda reason: (-reason.entries, reason.group))[:limit])


def _not_tried(connection: sqlite3.Connection, now: float) -> dict[str, list[str]]:
    """The destinations with mail that waits and was never tried, by group."""
    tried: dict[str, int] = dict(connection.execute(_TRIED).fetchall())
    some = {name for name, count in connection.execute(_IN_ALL) if count > tried.get(name, 0)}
    by_group = {
        group: [name for name in names if name in some] for group, names in untried.waiting(connection, now).items()
    }
    return {group: names for group, names in by_group.items() if names}


def _tried(
    connection: sqlite3.Connection, group: str, entries: int, messages: int, destinations: int, first: int, newest: int
) -> Reason:
    busiest = connection.execute(_DESTINATIONS, (group, BUSIEST))
    return Reason(
        group=group,
        entries=entries,
        messages=messages,
        destinations=destinations,
        busiest=tuple(name for (name,) in busiest),
        oldest=_arrived(connection, first),
        example=_example(connection, group, newest),
    )


def _counted(connection: sqlite3.Connection, group: str, named: Where) -> Reason | None:
    """A reason some of whose entries are in no index of reasons; None when there are none."""
    entries, messages, destinations, first = connection.execute(
        "SELECT count(*), count(DISTINCT e.message), count(DISTINCT e.destination), min(e.message) "
        f"FROM entry e WHERE {named.sql}",
        named.values,
    ).fetchone()
    if not entries:
        return None
    busiest = connection.execute(
        f"SELECT e.destination FROM entry e WHERE {named.sql} "
        "GROUP BY e.destination ORDER BY count(*) DESC, e.destination LIMIT ?",
        (*named.values, BUSIEST),
    )
    (newest,) = connection.execute(
        "SELECT max(message) FROM entry INDEXED BY entry_reason WHERE reason_key = ?", (group,)
    ).fetchone()
    return Reason(
        group=group,
        entries=entries,
        messages=messages,
        destinations=destinations,
        busiest=tuple(name for (name,) in busiest),
        oldest=_arrived(connection, first),
        example=_example(connection, group, newest) if newest is not None else None,
    )


def _arrived(connection: sqlite3.Connection, message: int) -> float:
    (arrived,) = connection.execute("SELECT arrived FROM message WHERE number = ?", (message,)).fetchone()
    return float(arrived)


def _example(connection: sqlite3.Connection, group: str, message: int) -> Outcome | None:
    (last,) = connection.execute(
        "SELECT last FROM entry WHERE message = ? AND reason_key = ? ORDER BY number LIMIT 1", (message, group)
    ).fetchone()
    return outcome_of(last)
