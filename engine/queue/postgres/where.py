"""A filter as SQL: conditions on `entry AS e JOIN message AS m`, every value of the operator's a bound parameter.

PostgreSQL numbers its parameters, and conditions are put together from parts. So whatever has a condition of ours in it
is written with `?` for each parameter, as it comes, and `numbered` once it is whole; a `?` stands for nothing else:

    rows = await s.fetch(
        numbered(f"SELECT e.number FROM entry e{JOIN} WHERE e.message > ? AND {selected.sql} LIMIT ?"),
        after, *selected.values, limit,
    )
"""

from functools import lru_cache
from itertools import count
from types import MappingProxyType
from typing import NamedTuple

from engine.model.filter import NULL_SENDER, Filter, Term
from engine.queue.filtering import COLUMNS, FREE_TEXT, ids_of, like, only_destination
from engine.queue.postgres.transaction import Snapshot
from engine.queue.postgres.untried import POSTPONED, waiting
from engine.queue.untried import HELD, NOT_TRIED, Untried, is_of_held, is_reply, postponed_by


class Where(NamedTuple):
    """Conditions joined by AND, their parameters in order, and whether they look at the message's row.

    Each `?` in `sql` is one of `values`; what it is put into is to be `numbered`. Beside OR it needs brackets.
    """

    sql: str
    values: tuple[object, ...]
    joins: bool = False


@lru_cache(maxsize=1000)
def numbered(query: str) -> str:
    """Give a query with `$1`, `$2`, ... in place of each `?`: its parameters are given in the order of these."""
    first, *rest = query.split("?")
    numbers = count(1)
    return first + "".join(f"${next(numbers)}{part}" for part in rest)


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
            conditions.append("e.destination = ?::text")
            values.append(destination)
    if newest is not None:
        conditions.append("e.message <= ?::bigint")
        values.append(newest)
    sql = " AND ".join(conditions) or "TRUE"
    return Where(sql, tuple(values), "m." in sql)


async def looked_up(s: Snapshot, filter: Filter, now: float, newest: int | None = None) -> Where:
    """Compile a filter of which some terms speak of how destinations are: as they are now, however long it is used.

    What is asked with it in this snapshot is planned for its values.
    """
    if filter.terms:
        await for_its_values(s)
    asks = any(term.field == "group" for term in filter.terms)
    return where(filter, now, newest, untried=await waiting(s, now) if asks else {})


async def for_its_values(s: Snapshot) -> None:
    """Have what is asked from here on planned for its values, each time anew, until the snapshot is let go.

    Of a question that is asked often the server would else keep one plan for all values: it knows neither how many
    entries a word or a list names then, nor does it look things up in a list but by comparing with one after another.
    """
    await s.value("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")


def contains(column: str, text: str) -> tuple[str, str]:
    """A condition that a column has this text somewhere, in any case, and its parameter."""
    if text.isascii():
        return rf"{column} ILIKE ?::text ESCAPE '\'", like(text, contains=True)
    return f"strpos({folded(column)}, {_FOLDED}) > 0", text


def folded(sql: str) -> str:
    """A text as it is compared in any case of any script: "ß" as "SS". (ILIKE folds ASCII alone, of our columns.)"""
    return f'upper(lower({sql} COLLATE "und-x-icu") COLLATE "und-x-icu")'


_FOLDED = f"(SELECT {folded('?::text')})"  # a parameter, once and not for each row


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
            return "e.state = 'waiting' AND e.due <= ?::float8", [now]
        case "state":
            # The state stands in the text, one of three words, so that the partial indexes can be used.
            return f"e.state = '{term.value}'", []
        case "id":
            return _ids(term)
        case "tries":
            return f"e.attempts {term.op} ?::int", [int(term.amount)]
        case "age":
            return f"?::float8 - m.arrived {term.op} ?::float8", [now, term.amount]
        case "size":
            return f"m.size {term.op} ?::float8", [term.amount]
        case field:
            return _matches(COLUMNS[field], term)


def _group(term: Term, now: float, untried: Untried) -> tuple[str, list[object]]:
    """Mail that was tried by its last reply; other mail by what keeps it. What is under way waits for nothing."""
    why = term.value
    if is_of_held(why):
        some = "e.destination IN (SELECT name FROM destination WHERE held > 0)"
        return f"e.state = 'held' AND e.reason_key IS NULL AND {some} AND {HELD} = ?::text", [why]
    parts: list[str] = []
    values: list[object] = []
    if is_reply(why):
        # "=" finds its rows by index; inverted it would leave out those that have no reason.
        parts.append(
            f"e.reason_key {'IS NOT DISTINCT FROM' if term.inverted else '='} ?::text AND e.state <> 'relaying'"
        )
        values.append(why)
    by = postponed_by(why)
    if names := untried.get(NOT_TRIED if by else why):
        parts.append("e.state = 'waiting' AND e.reason_key IS NULL AND e.destination = ANY(?::text[])")
        values.append(names)
        if by:
            parts[-1] += f" AND e.postponed_by = ?::text AND {POSTPONED}"
            values += [by, now]
        elif why == NOT_TRIED:
            parts[-1] += f" AND NOT ({POSTPONED})"
            values.append(now)
    return " OR ".join(f"({part})" for part in parts) or "FALSE", values


def _domain(term: Term) -> tuple[str, list[object]]:
    # Destinations are lower case, in every script.
    value = term.value.lower()
    if term.op == "=" and "*" not in value:
        return "e.destination = ?::text", [value]
    return r"e.destination LIKE ?::text ESCAPE '\'", [like(value, contains=term.op == "~")]


def _matches(column: str, term: Term) -> tuple[str, list[object]]:
    if term.op == "~":
        sql, value = contains(column, term.value)
        return sql, [value]
    pattern = like(term.value, contains=False)
    if term.value.isascii():
        return rf"{column} ILIKE ?::text ESCAPE '\'", [pattern]
    return rf"{folded(column)} LIKE {_FOLDED} ESCAPE '\'", [pattern]


def _ids(term: Term) -> tuple[str, list[object]]:
    """Any number of ids in a few parameters."""
    whole, entries = ids_of(term)
    if not entries:
        return "e.message = ANY(?::bigint[])", [whole]
    messages, numbers = [message for message, _ in entries], [number for _, number in entries]
    # The first of these finds the rows by index.
    single = "(e.message, e.number) IN (SELECT * FROM unnest(?::bigint[], ?::int[]))"
    return (
        f"e.message = ANY(?::bigint[]) AND (e.message = ANY(?::bigint[]) OR {single})",
        [whole + messages, whole, messages, numbers],
    )
