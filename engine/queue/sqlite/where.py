"""A filter as SQL: conditions on `entry AS e JOIN message AS m`, every value of the operator's a bound parameter."""

import json
import sqlite3
from types import MappingProxyType
from typing import NamedTuple

from engine.model.filter import NULL_SENDER, Filter, Term
from engine.queue.filtering import COLUMNS, FREE_TEXT, ids_of, like, only_destination
from engine.queue.sqlite.untried import POSTPONED, waiting
from engine.queue.untried import HELD, NOT_TRIED, Untried, is_of_held, is_reply, postponed_by


class Where(NamedTuple):
    """Conditions joined by AND, their parameters in order, and whether they look at the message's row."""

    sql: str
    values: tuple[object, ...]
    joins: bool = False


def where(filter: Filter, now: float, newest: int | None = None, *, untried: Untried = MappingProxyType({})) -> Where:
    """Compile a filter; `newest` leaves out messages with a greater number.

    `untried` are the destinations whose mail waits, by why it does where it was never tried: see `looked_up`.
    """
    conditions: list[str] = []
    values: list[object] = []
    for term in filter.terms:
        sql, bound = _group(term, now, untried) if term.field == "group" else _condition(term, now)
        conditions.append(f"NOT ({sql})" if term.inverted else f"({sql})")
        values += bound
        if destination := only_destination(term):
            conditions.append("e.destination = ?")
            values.append(destination)
    if newest is not None:
        conditions.append("e.message <= ?")
        values.append(newest)
    sql = " AND ".join(conditions) or "1"
    return Where(sql, tuple(values), "m." in sql)


def looked_up(connection: sqlite3.Connection, filter: Filter, now: float, newest: int | None = None) -> Where:
    """Compile a filter of which some terms speak of how destinations are: as they are now, however long it is used."""
    asks = any(term.field == "group" for term in filter.terms)
    return where(filter, now, newest, untried=waiting(connection, now) if asks else {})


def contains(column: str, text: str) -> tuple[str, str]:
    """A condition that a column has this text somewhere, in any case, and its parameter."""
    if text.isascii():
        return rf"{column} LIKE ? ESCAPE '\'", like(text, contains=True)
    return f"instr(folded({column}), ?)", text.casefold()  # SQLite's LIKE folds ASCII alone, but fast


def _condition(term: Term, now: float) -> tuple[str, list[object]]:
    match term.field:
        case "domain":
            return _domain(term)
        case "from" if term.op == "=" and term.value == NULL_SENDER:
            return "m.sender = ''", []
        case "text":
            parts = [_matches(column, term) for column in FREE_TEXT]
            return " OR ".join(sql for sql, _ in parts), [value for _, bound in parts for value in bound]
        case "state" if term.value == "due":
            return "e.state = 'waiting' AND e.due <= ?", [now]
        case "state":
            # The state stands in the text, one of three words, so that the partial indexes can be used.
            return f"e.state = '{term.value}'", []
        case "id":
            return _ids(term)
        case "tries":
            return f"e.attempts {term.op} ?", [term.amount]
        case "age":
            return f"? - m.arrived {term.op} ?", [now, term.amount]
        case "size":
            return f"m.size {term.op} ?", [term.amount]
        case field:
            return _matches(COLUMNS[field], term)


def _group(term: Term, now: float, untried: Untried) -> tuple[str, list[object]]:
    """Mail that was tried by its last reply; other mail by what keeps it. What is under way waits for nothing."""
    why = term.value
    if is_of_held(why):
        some = "e.destination IN (SELECT name FROM destination WHERE held > 0)"
        return f"e.state = 'held' AND e.reason_key IS NULL AND {some} AND {HELD} = ?", [why]
    parts: list[str] = []
    values: list[object] = []
    if is_reply(why):
        # "=" finds its rows by index; inverted it would leave out those that have no reason.
        parts.append(f"e.reason_key {'IS' if term.inverted else '='} ? AND e.state <> 'relaying'")
        values.append(why)
    by = postponed_by(why)
    if names := untried.get(NOT_TRIED if by else why):
        named = "e.destination IN (SELECT value FROM json_each(?))"
        parts.append(f"e.state = 'waiting' AND e.reason_key IS NULL AND {named}")
        values.append(json.dumps(names))
        if by:
            parts[-1] += f" AND e.postponed_by = ? AND {POSTPONED}"
            values += [by, now]
        elif why == NOT_TRIED:
            parts[-1] += f" AND NOT ({POSTPONED})"
            values.append(now)
    return " OR ".join(f"({part})" for part in parts) or "0", values


def _domain(term: Term) -> tuple[str, list[object]]:
    # Destinations are lower case, in every script.
    value = term.value.lower()
    if term.op == "=" and "*" not in value:
        return "e.destination = ?", [value]
    return r"e.destination LIKE ? ESCAPE '\'", [like(value, contains=term.op == "~")]


def _matches(column: str, term: Term) -> tuple[str, list[object]]:
    if term.op == "~":
        sql, value = contains(column, term.value)
        return sql, [value]
    if term.value.isascii():
        return rf"{column} LIKE ? ESCAPE '\'", [like(term.value, contains=False)]
    return f"folded_like(?, {column})", [term.value]


def _ids(term: Term) -> tuple[str, list[object]]:
    """Any number of ids in two parameters, as JSON."""
    messages, entries = ids_of(term)
    whole = "e.message IN (SELECT value FROM json_each(?))"
    single = "(e.message, e.number) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
    if not entries:
        return whole, [json.dumps(messages)]
    if not messages:
        return single, [json.dumps(entries)]
    return f"{whole} OR {single}", [json.dumps(messages), json.dumps(entries)]
