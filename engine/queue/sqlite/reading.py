"""Reading around what is damaged: rows in the order of their keys, from either end up to what cannot be read."""

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal

from engine.queue.sqlite.connection import is_damage


def walk(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    keys: Sequence[str],
    order: Literal["ASC", "DESC"],
    first: int | None = None,
    index: str = "NOT INDEXED",
) -> Generator[tuple[Any, ...] | None, None, tuple[Any, ...] | None]:
    """The rows from the number `first` on, in order; returns the key behind which nothing can be read, or None.

    The module of Python reads a row ahead, and drops the one it has where that fails: so the last few are read
    one at a time.
    """
    count, ordered = len(keys), ", ".join(f"{key} {order}" for key in keys)
    sign, places = ">" if order == "ASC" else "<", ", ".join("?" * count)
    last: tuple[Any, ...] | None = None
    one_by_one = False
    while True:
        where, values = "", last or ()
        if last is not None:
            where = f"WHERE ({', '.join(keys)}) {sign} ({places})"
        elif first is not None:  # not "beyond the number before": that one may be where nothing can be read
            where, values = f"WHERE {keys[0]} >= ?", (first,)
        query = f"SELECT {', '.join((*keys, *columns))} FROM {table} {index} {where} ORDER BY {ordered}"
        is_there = False
        try:
            with closing(connection.execute(query + " LIMIT 1" * one_by_one, values)) as rows:
                for row in rows:
                    last, is_there = row[:count], True
                    yield row[count:]
            if not (one_by_one and is_there):
                return None
            one_by_one = False
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            if one_by_one:
                return last if last is not None else ((first or 0) - 1,)
            one_by_one = True


def from_both_ends(
    connection: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    keys: Sequence[str],
    index: str = "NOT INDEXED",
) -> Iterator[tuple[Any, ...] | None]:
    """The rows of a table from either end up to what cannot be read, which is None."""
    stuck = yield from walk(connection, table, columns, keys, "ASC", None, index)
    if stuck is not None:
        yield None
        yield from walk(connection, table, columns, keys, "DESC", None, index)
