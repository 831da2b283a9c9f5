"""Hold rules in the store: applied in the very transaction that takes a message in, and to what waits in chunks.

A rule's row stays until all that it held has been let go, so that whatever is cut short goes on at the next check.
"""

import json
import sqlite3

from engine.model.filter import Filter
from engine.model.order import HoldRule
from engine.queue import rules as told
from engine.queue.columns import storable
from engine.queue.rules import Step, filter_of, rule_of
from engine.queue.sqlite.where import Where, where
from engine.queue.sqlite.writer import Transaction

CHUNK = 1000  # messages looked at, or entries let go, in one transaction

_HOLD = (
    "UPDATE entry SET state = iif(state = 'waiting', 'held', state), ordered = 'hold', ordered_by = ?, note = ?, "
    "rule = ? WHERE message = ? AND number = ?"
)


def add(tx: Transaction, filter: Filter, until: float, by: str, note: str) -> HoldRule:
    """Keep a rule; what waits is looked at by `sweep` afterwards."""
    named, by, note = str(filter), storable(by), storable(note)
    (newest,) = tx.execute("SELECT coalesce(max(number), 0) FROM message").fetchone()
    known = tx.execute("SELECT id, since FROM hold_rule WHERE filter = ? AND until > ?", (named, tx.now)).fetchone()
    since = known[1] if known else tx.now
    cursor = tx.execute(
        'INSERT OR REPLACE INTO hold_rule (id, filter, since, until, "by", note, newest) VALUES (?, ?, ?, ?, ?, ?, ?)',
        (known[0] if known else None, named, since, until, by, note, newest),
    )
    assert cursor.lastrowid is not None
    rule = HoldRule(id=cursor.lastrowid, filter=named, since=since, until=until, by=by, note=note)
    tx.record(told.made(tx.now, rule))
    return rule


def apply(tx: Transaction, message: int) -> None:
    """Hold those recipients of a message just taken in that a rule in force names."""
    for rule, selected in _in_force(tx):
        rows = tx.execute(
            "SELECT e.number, m.sender, e.recipient, e.destination FROM entry e JOIN message m ON m.number = e.message "
            f"WHERE e.message = ? AND e.ordered IS NULL AND {selected.sql}",
            (message, *selected.values),
        ).fetchall()
        for number, sender, recipient, destination in rows:
            tx.execute(_HOLD, (rule.by, rule.note, rule.id, message, number))
            tx.record(told.held(tx.now, rule, message, number, sender, recipient, destination))


def step(tx: Transaction) -> Step | None:
    """Do some of what is left to do for any rule; None when there is nothing."""
    return let_go(tx) or sweep(tx)


def sweep(tx: Transaction) -> Step | None:
    """Hold what waited when a rule was made, some messages at a time; None when no rule has any left to look at."""
    unswept = tx.execute(
        "SELECT id, swept, newest FROM hold_rule WHERE swept < newest AND until > ?", (tx.now,)
    ).fetchall()
    left = {rule_id: (swept, newest) for rule_id, swept, newest in unswept}
    for rule, selected in _in_force(tx) if left else ():
        if rule.id in left:
            return _sweep(tx, rule, selected, *left[rule.id])
    return None


def end(tx: Transaction, id: int, by: str) -> bool:
    """A rule is over now; what it holds is let go by `let_go`. False where there is no such rule in force."""
    cursor = tx.execute(
        "UPDATE hold_rule SET until = ?, ended_by = ? WHERE id = ? AND until > ?", (tx.now, storable(by), id, tx.now)
    )
    return bool(cursor.rowcount)


def let_go(tx: Transaction) -> Step | None:
    """Let go some of what a rule that is over holds; with the last of it the rule is forgotten. None without one."""
    row = tx.execute(
        "SELECT id, filter, ended_by, released FROM hold_rule WHERE until <= ? ORDER BY until, id LIMIT 1", (tx.now,)
    ).fetchone()
    if row is None:
        return None
    rule_id, named, ended_by, before = row
    found = tx.execute("SELECT message, number FROM entry WHERE rule = ? LIMIT ?", (rule_id, CHUNK)).fetchall()
    _hold_again(tx, found, "e.ordered = 'hold'")  # what another rule names, too, is held by that one from now on
    # What is to be bounced or dropped stays so; taken back, it goes on as all the rest.
    tx.connection.executemany(
        "UPDATE entry SET rule = NULL, prior = 'waiting', prior_by = '', prior_note = '' "
        "WHERE message = ? AND number = ? AND rule = ? AND ordered <> 'hold'",
        [(*key, rule_id) for key in found],
    )
    freed = tx.connection.executemany(
        "UPDATE entry SET state = iif(state = 'held', 'waiting', state), ordered = NULL, ordered_by = '', "
        "note = '', rule = NULL, expires = iif(state = 'held', max(expires, ?), expires) "
        "WHERE message = ? AND number = ? AND rule = ?",
        [(tx.now, *key, rule_id) for key in found],
    ).rowcount
    freed = max(0, freed)
    more = len(found) == CHUNK
    if more:
        tx.execute("UPDATE hold_rule SET released = released + ? WHERE id = ?", (freed, rule_id))
        return Step(rule_id, freed, more)
    tx.execute("DELETE FROM hold_rule WHERE id = ?", (rule_id,))
    tx.record(told.ended(tx.now, rule_id, named, ended_by, before + freed))
    return Step(rule_id, freed, more)


def hold_what_is_free(tx: Transaction, ids: list[tuple[int, int]]) -> None:
    """Hold those of some entries that are under no order and that a rule in force names."""
    _hold_again(tx, ids, "e.ordered IS NULL AND NOT e.giving_up")


def rules(connection: sqlite3.Connection, now: float) -> tuple[HoldRule, ...]:
    """The rules in force, and how much each holds."""
    rows = connection.execute(
        'SELECT id, filter, since, until, "by", note, (SELECT count(*) FROM entry WHERE rule = hold_rule.id) '
        "FROM hold_rule WHERE until > ? ORDER BY id",
        (now,),
    )
    return tuple(map(rule_of, rows))


def rules_on(connection: sqlite3.Connection, recipient: str, destination: str, now: float) -> tuple[HoldRule, ...]:
    """The rules that look at no sender and would hold mail to this recipient."""
    found = []
    for rule in rules(connection, now):
        selected = _where(rule, now)
        if selected is None or selected.joins:
            continue
        query = f"SELECT 1 FROM (SELECT ? AS recipient, ? AS destination) e WHERE {selected.sql}"
        values = (storable(recipient), storable(destination), *selected.values)
        if connection.execute(query, values).fetchone():
            found.append(rule)
    return tuple(found)


def held_by_it_alone(connection: sqlite3.Connection, id: int, now: float) -> Where:
    """What goes when this rule ends: what it holds, but for what another rule names and what is to be given up."""
    conditions = ["e.rule = ? AND e.ordered = 'hold'"]
    bound: list[object] = [id]
    for rule in rules(connection, now):
        selected = _where(rule, now) if rule.id != id else None
        if selected is not None:
            conditions.append(f"NOT ({selected.sql})")
            bound += selected.values
    sql = " AND ".join(conditions)
    return Where(sql, tuple(bound), "m." in sql)


def _sweep(tx: Transaction, rule: HoldRule, selected: Where, swept: int, newest: int) -> Step:
    last = tx.execute(
        "SELECT number FROM message WHERE number > ? AND number <= ? ORDER BY number LIMIT 1 OFFSET ?",
        (swept, newest, CHUNK - 1),
    ).fetchone()
    upto = last[0] if last else newest
    found = tx.execute(
        "SELECT e.message, e.number FROM entry e JOIN message m ON m.number = e.message "
        f"WHERE e.message > ? AND e.message <= ? AND e.ordered IS NULL AND NOT e.giving_up AND {selected.sql}",
        (swept, upto, *selected.values),
    ).fetchall()
    tx.connection.executemany(_HOLD, [(rule.by, rule.note, rule.id, *key) for key in found])
    tx.execute("UPDATE hold_rule SET swept = ? WHERE id = ?", (upto, rule.id))
    return Step(rule.id, len(found), upto < newest)


def _hold_again(tx: Transaction, ids: list[tuple[int, int]], which: str) -> None:
    for rule, selected in _in_force(tx):
        rows = tx.execute(
            "SELECT e.message, e.number FROM json_each(?) j "
            "CROSS JOIN entry e ON e.message = j.value ->> 0 AND e.number = j.value ->> 1 "
            f"CROSS JOIN message m ON m.number = e.message WHERE {which} AND {selected.sql}",
            (json.dumps(ids), *selected.values),
        ).fetchall()
        tx.connection.executemany(_HOLD, [(rule.by, rule.note, rule.id, *row) for row in rows])


def _in_force(tx: Transaction) -> list[tuple[HoldRule, Where]]:
    """The rules in force that can be read, the oldest first, and what they name."""
    rows = tx.execute(
        'SELECT id, filter, since, until, "by", note, 0 FROM hold_rule WHERE until > ? ORDER BY id', (tx.now,)
    )
    return [(rule, selected) for rule in map(rule_of, rows) if (selected := _where(rule, tx.now)) is not None]


def _where(rule: HoldRule, now: float) -> Where | None:
    named = filter_of(rule.filter)
    return where(named, now) if named is not None else None
