"""Hold rules in the store: applied in the very transaction that takes a message in, and to what waits in chunks.

A rule's row stays until all that it held has been let go, so that whatever is cut short goes on at the next check. What
several rules name is held by the oldest of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engine.model.filter import Filter
from engine.model.order import HoldRule
from engine.queue import rules as told
from engine.queue.postgres.connection import RULING, TAKING
from engine.queue.postgres.rows import pairs, storable
from engine.queue.postgres.selection import JOIN
from engine.queue.postgres.transaction import Row, Snapshot, Transaction
from engine.queue.postgres.where import Where, numbered, where
from engine.queue.rules import Step, filter_of, rule_of

CHUNK = 1000  # messages looked at, or entries let go, in one transaction

_RULES = "SELECT id, filter, since, until, by, note, swept, newest, ended_by, released FROM hold_rule ORDER BY id"
# Entries `e` that are given by their keys, with their messages `m`. OFFSET 0 has each looked up by its key: the server
# may else think that to read all messages is less work.
GIVEN = (
    "FROM unnest(?::bigint[], ?::int[]) AS k (message, number) "
    "CROSS JOIN LATERAL (SELECT * FROM entry WHERE message = k.message AND number = k.number OFFSET 0) e "
    "CROSS JOIN LATERAL (SELECT * FROM message WHERE number = k.message OFFSET 0) m"
)
_THESE = (
    "FROM unnest($1::bigint[], $2::int[]) AS k (message, number) WHERE e.message = k.message AND e.number = k.number"
)


class _Kept(NamedTuple):
    """A rule as the store has it, in force or over, and how far it has come."""

    rule: HoldRule
    swept: int
    newest: int
    ended_by: str
    released: int

    def is_in_force(self, now: float) -> bool:
        return self.rule.until > now


async def add(tx: Transaction, filter: Filter, until: float, by: str, note: str) -> HoldRule:
    """Keep a rule; what waits is looked at by `step` afterwards."""
    named, by, note = storable(str(filter)), storable(by), storable(note)
    # What is being taken in, without this rule, is to be among what waits: its end is awaited. (See writer._BEGIN.)
    await tx.execute("SELECT pg_advisory_xact_lock($1)", TAKING)
    newest = "(SELECT coalesce(max(number), 0) FROM message)"
    row = await tx.row(
        f"UPDATE hold_rule SET until = $3, by = $4, note = $5, newest = {newest}, swept = 0, ended_by = '', "
        "released = 0 WHERE filter = $1 AND until > $2 RETURNING id, filter, since, until, by, note",
        named,
        tx.now,
        until,
        by,
        note,
    )
    if row is None:
        row = await tx.row(
            "INSERT INTO hold_rule (filter, since, until, by, note, newest) "
            f"VALUES ($1, $2, $3, $4, $5, {newest}) RETURNING id, filter, since, until, by, note",
            named,
            tx.now,
            until,
            by,
            note,
        )
    assert row is not None
    rule = rule_of(row)
    tx.record(told.made(tx.now, rule))
    return rule


async def apply(tx: Transaction, messages: Sequence[int]) -> None:
    """Hold those recipients of messages just taken in that a rule in force names."""
    in_force = [kept.rule for kept in await _kept(tx) if kept.is_in_force(tx.now)]
    rows = await _hold(
        tx, in_force, f"FROM entry e{JOIN} WHERE e.message = ANY(?::bigint[]) AND e.ordered IS NULL", messages
    )
    by_id = {rule.id: rule for rule in in_force}
    for rule_id, *entry in rows:
        tx.record(told.held(tx.now, by_id[rule_id], *entry))


async def step(tx: Transaction) -> Step | None:
    """Do some of what is left to do for any rule; None when there is nothing."""
    kept = await _kept_alone(tx)
    return await _let_go(tx, kept) or await _sweep(tx, kept)


async def end(tx: Transaction, id: int, by: str) -> bool:
    """A rule is over now; what it holds is let go by `let_go`. False where there is no such rule in force."""
    ended = await tx.execute(
        "UPDATE hold_rule SET until = $1, ended_by = $2 WHERE id = $3 AND until > $1", tx.now, storable(by), id
    )
    return ended > 0


async def let_go(tx: Transaction) -> Step | None:
    """Let go some of what a rule that is over holds; with the last of it the rule is forgotten. None without one."""
    return await _let_go(tx, await _kept_alone(tx))


async def hold_what_is_free(tx: Transaction, ids: Sequence[tuple[int, int]]) -> None:
    """Hold those of some entries that are under no order and that a rule in force names."""
    in_force = [kept.rule for kept in await _kept(tx) if kept.is_in_force(tx.now)]
    await _hold(tx, in_force, f"{GIVEN} WHERE e.ordered IS NULL AND NOT e.giving_up", *pairs(ids))


async def rules(s: Snapshot) -> tuple[HoldRule, ...]:
    """The rules in force, and how much each holds."""
    rows = await s.fetch(
        "SELECT id, filter, since, until, by, note, (SELECT count(*) FROM entry WHERE rule = hold_rule.id) "
        "FROM hold_rule WHERE until > $1 ORDER BY id",
        s.now,
    )
    return tuple(map(rule_of, rows))


async def rules_on(s: Snapshot, recipient: str, destination: str) -> tuple[HoldRule, ...]:
    """The rules that look at no sender and would hold mail to this recipient."""
    known = {
        rule.id: (rule, selected)
        for rule in await rules(s)
        if (selected := _where(rule, s.now)) is not None and not selected.joins
    }
    if not known:
        return ()
    cases = ", ".join(f"({rule_id}::bigint, ({selected.sql}))" for rule_id, (_, selected) in known.items())
    rows = await s.fetch(
        numbered(
            'SELECT r.id FROM (SELECT ?::text COLLATE "C" AS recipient, ?::text COLLATE "C" AS destination) e '
            f"CROSS JOIN LATERAL (VALUES {cases}) AS r (id, names) WHERE r.names ORDER BY r.id"
        ),
        storable(recipient),
        storable(destination),
        *(value for _, selected in known.values() for value in selected.values),
    )
    return tuple(known[rule_id][0] for (rule_id,) in rows)


async def held_by_it_alone(s: Snapshot, id: int, now: float) -> Where:
    """What goes when this rule ends: what it holds, but for what another rule names and what is to be given up."""
    conditions = ["e.rule = ?::bigint AND e.ordered = 'hold'"]
    bound: list[object] = [id]
    for rule in await rules(s):
        selected = _where(rule, now) if rule.id != id else None
        if selected is not None:
            conditions.append(f"NOT ({selected.sql})")
            bound += selected.values
    sql = " AND ".join(conditions)
    return Where(sql, tuple(bound), "m." in sql)


async def _let_go(tx: Transaction, known: Sequence[_Kept]) -> Step | None:
    over = [kept for kept in known if not kept.is_in_force(tx.now)]
    if not over:
        return None
    rule, _, _, ended_by, before = min(over, key=lambda kept: (kept.rule.until, kept.rule.id))
    rows = await tx.fetch("SELECT message, number, ordered FROM entry WHERE rule = $1 LIMIT $2", rule.id, CHUNK)
    given_up = [(message, number) for message, number, ordered in rows if ordered in ("bounce", "drop")]
    held = [(message, number) for message, number, ordered in rows if ordered not in ("bounce", "drop")]
    # What another rule names, too, is held by that one from now on.
    in_force = [kept.rule for kept in known if kept.is_in_force(tx.now)]
    others = {(message, number) for _, message, number, *_ in await _hold(tx, in_force, GIVEN, *pairs(held))}
    free = [key for key in held if key not in others]
    # What is to be bounced or dropped stays so; taken back, it goes on as all the rest.
    if given_up:
        await tx.execute(
            f"UPDATE entry e SET rule = NULL, prior = 'waiting', prior_by = '', prior_note = '' {_THESE}",
            *pairs(given_up),
        )
    if free:
        await tx.execute(
            "UPDATE entry e SET state = CASE WHEN state = 'held' THEN 'waiting' ELSE state END, ordered = NULL, "
            "ordered_by = '', note = '', rule = NULL, "
            f"expires = CASE WHEN state = 'held' THEN greatest(expires, $3::float8) ELSE expires END {_THESE}",
            *pairs(free),
            tx.now,
        )
    if len(rows) == CHUNK:
        await tx.execute("UPDATE hold_rule SET released = released + $1 WHERE id = $2", len(free), rule.id)
        return Step(rule.id, len(free), more=True)
    await tx.execute("DELETE FROM hold_rule WHERE id = $1", rule.id)
    tx.record(told.ended(tx.now, rule.id, rule.filter, ended_by, before + len(free)))
    return Step(rule.id, len(free), more=False)


async def _sweep(tx: Transaction, known: Sequence[_Kept]) -> Step | None:
    """Hold what waited when a rule was made, some messages at a time; None when no rule has any left to look at."""
    for rule, swept, newest, *_ in known:
        if swept >= newest or rule.until <= tx.now or filter_of(rule.filter) is None:
            continue
        last = await tx.value(
            "SELECT number FROM message WHERE number > $1 AND number <= $2 ORDER BY number LIMIT 1 OFFSET $3",
            swept,
            newest,
            CHUNK - 1,
        )
        upto = newest if last is None else last
        between = f"FROM entry e{JOIN} WHERE m.number > ? AND m.number <= ? AND e.message > ? AND e.message <= ?"
        free = "e.ordered IS NULL AND NOT e.giving_up"
        held = await _hold(tx, [rule], f"{between} AND {free}", swept, upto, swept, upto)
        await tx.execute("UPDATE hold_rule SET swept = $1 WHERE id = $2", upto, rule.id)
        return Step(rule.id, len(held), more=upto < newest)
    return None


async def _hold(tx: Transaction, rules: Sequence[HoldRule], among: str, *values: object) -> list[Row]:
    """Hold what any of these rules names, the first of them; `among` entries `e` with their messages `m`, from FROM on.

    Gives of each the rule, message, number, sender, recipient and destination, in this order.
    """
    named = [(rule.id, selected) for rule in rules if (selected := _where(rule, tx.now)) is not None]
    if not named:
        return []
    cases = " ".join(f"WHEN {selected.sql} THEN {rule_id}::bigint" for rule_id, selected in named)
    rows = await tx.fetch(
        numbered(
            f"SELECT * FROM (SELECT CASE {cases} END AS rule, e.message, e.number, m.sender, e.recipient, "
            f"e.destination {among}) n WHERE rule IS NOT NULL ORDER BY rule, message, number"
        ),
        *(value for _, selected in named for value in selected.values),
        *values,
    )
    if rows:
        await tx.execute(
            "UPDATE entry e SET state = CASE WHEN state = 'waiting' THEN 'held' ELSE state END, ordered = 'hold', "
            "ordered_by = r.by, note = r.note, rule = r.id "
            "FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS k (message, number, rule) "
            "JOIN hold_rule r ON r.id = k.rule WHERE e.message = k.message AND e.number = k.number",
            *pairs((message, number) for _, message, number, *_ in rows),
            [row[0] for row in rows],
        )
    return rows


async def _kept(tx: Transaction) -> list[_Kept]:
    """All rules, the oldest first: they are few, and mostly there is none."""
    return [_Kept(rule_of(row[:6]), *row[6:]) for row in map(tuple, await tx.fetch(_RULES))]


async def _kept_alone(tx: Transaction) -> list[_Kept]:
    """The same, where there is any, once no other node is about to carry them out."""
    if not await tx.value("SELECT EXISTS (SELECT 1 FROM hold_rule)"):
        return []
    await tx.execute("SELECT pg_advisory_xact_lock($1)", RULING)
    return await _kept(tx)


def _where(rule: HoldRule, now: float) -> Where | None:
    named = filter_of(rule.filter)
    return where(named, now) if named is not None else None
