"""One end of a move (see engine.queue.moving) in a spool: its lock is held, and nobody else has the file open."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from engine.base.text import clean
from engine.queue.errors import QueueError
from engine.queue.moving import CannotMove, End, Unreadable, Waiting
from engine.queue.spool import Spool, SpoolError, SpoolOwned
from engine.queue.sqlite import bulk, filesystems, rules
from engine.queue.sqlite.attempts import recover
from engine.queue.sqlite.connection import SEE_TO_IT, Unsure, connect_reader, connect_writer, is_damage, sure
from engine.queue.sqlite.exchanges import know_destination
from engine.queue.sqlite.store import FILE
from engine.queue.sqlite.upkeep import Upkeep
from engine.queue.sqlite.writer import Transaction
from engine.queue.tables import BODY, EVENT, EVERY, NUMBERED, Row, Table

_ALL_EVENTS = 2**62  # are kept: how many an engine keeps is its own affair


class SqliteEnd(End):
    """The queue in a spool. Entering it raises CannotMove where an engine has it, or there is none to be moved."""

    def __init__(self, folder: Path, now: Callable[[], float], *, is_source: bool) -> None:
        self.address = str(folder)
        self._folder = folder
        self._file = folder / FILE
        self._now = now
        self._is_source = is_source
        self._open = ExitStack()
        self._weight = 0  # bytes of content written in this transaction
        self._is_sure = True  # of what is on disk
        self._is_clear = False
        self._connection: sqlite3.Connection
        self._upkeep: Upkeep

    async def __aenter__(self) -> Self:
        if self._is_source and not self._file.is_file():
            raise CannotMove(f"{self._folder}: there is no queue in it ({FILE})")
        with ExitStack() as opening:
            try:
                opening.enter_context(Spool(self._folder))
                if kind := filesystems.unsafe(self._folder):
                    raise filesystems.refusal(self._folder, kind)
                self._connection = connect_writer(self._file)
                opening.callback(self._connection.close)
                self._upkeep = Upkeep(self._connection, self._file, _ALL_EVENTS, self._now)
            except SpoolOwned as error:
                raise CannotMove(f"{error}; stop it first") from error
            except (SpoolError, QueueError, sqlite3.Error) as error:
                raise CannotMove(str(error)) from error
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._open, self._telling():
            if not self._is_sure:
                # Whoever closes the file last copies the log into it, unless they may only read: nothing more is
                # to be written.
                self._open.callback(connect_reader(self._file).close)
                self._connection.close()
                return
            if self._is_clear:  # its room goes back to the file system at once: to give it back in pieces takes long
                with suppress(sqlite3.OperationalError):  # it is left to the next engine then
                    self._connection.execute("VACUUM")
            self._upkeep.checkpoint()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._telling():
            self._connection.execute("BEGIN IMMEDIATE")
            self._weight, changes = 0, self._connection.total_changes
            try:
                yield
                self._upkeep.leave_room(self._weight, self._connection.total_changes - changes)
                with sure():
                    self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            self._upkeep.committed(0, self._weight)
            self._upkeep.tend()

    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        behind = f"WHERE ({_names(table.key)}) > ({', '.join('?' * len(after))})" if after is not None else ""
        return self._rows(table, f"{behind} ORDER BY {_names(table.key)} LIMIT ?", *(after or ()), limit)

    async def read_of(self, table: Table, first: Any, last: Any) -> list[Row]:
        which = f"WHERE {table.belongs} BETWEEN ? AND ? {table.which} ORDER BY {_names(table.order)}"
        return self._rows(table, which, first, last)

    async def waiting(self, after: int, limit: int) -> list[Waiting]:
        with self._telling():
            return [
                Waiting(*row)
                for row in self._connection.execute(
                    "SELECT number, size, (SELECT count(*) FROM entry WHERE message = m.number) "
                    "+ (SELECT count(*) FROM untold WHERE message = m.number) "
                    "+ (SELECT count(*) FROM attempt WHERE message = m.number) "
                    "+ (SELECT count(*) FROM event WHERE message = m.number AND message > 0) "
                    "FROM message m WHERE number > ? ORDER BY number LIMIT ?",
                    (after, limit),
                )
            ]

    async def count(self) -> int:
        with self._telling():
            (found,) = self._connection.execute("SELECT count(*) FROM message").fetchone()
            return int(found)

    async def add(self, table: Table, rows: Sequence[Row]) -> set[Row]:
        if table is BODY:
            self._weight += sum(len(content) for _, _, content in rows)
        with self._telling():
            added = (self._connection.execute(_insert(table), row).rowcount for row in rows)
            return {table.key_of(row) for row, is_new in zip(rows, added, strict=True) if is_new}

    async def forget(self, table: Table, key: Row) -> None:
        with self._telling():
            places = " AND ".join(f'"{name}" = ?' for name in table.key)
            self._connection.execute(f"DELETE FROM {table.name} WHERE {places}", key)

    async def remove(self, messages: Sequence[int]) -> None:
        keys = [(number,) for number in messages]
        with self._telling():  # all that belongs to one goes with it, but for its events
            self._connection.executemany(f"DELETE FROM event WHERE message = ? {EVENT.which}", keys)
            self._connection.executemany("DELETE FROM message WHERE number = ?", keys)

    async def clear(self) -> None:
        with self._telling():
            for table in EVERY[::-1]:
                self._connection.execute(f"DELETE FROM {table.name}")
        self._is_clear = True

    async def given(self) -> dict[str, int]:
        with self._telling():
            found = dict(self._connection.execute("SELECT name, seq FROM sqlite_sequence"))
        return {table.name: found.get(table.name, 0) for table in NUMBERED}

    async def number_from(self, numbers: Mapping[str, int]) -> None:
        given = await self.given()
        with self._telling():
            for name, number in numbers.items():
                self._connection.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
                self._connection.execute(
                    "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, max(number, given[name]))
                )

    async def put_back_interrupted(self) -> None:
        with self._telling():
            bulk.end_unfinished(self._transaction())
            recover(self._transaction())

    async def know_destinations(self, names: Sequence[str]) -> None:
        with self._telling():
            for name in names:
                if not self._connection.execute("SELECT 1 FROM destination WHERE name = ?", (name,)).fetchone():
                    know_destination(self._transaction(), name)

    async def hold_by_rules(self, messages: Sequence[int]) -> None:
        with self._telling():
            for message in messages:
                rules.apply(self._transaction(), message)

    def now(self) -> float:
        return self._now()

    def _transaction(self) -> Transaction:
        return Transaction(self._connection, self._now())

    def _rows(self, table: Table, which: str, *values: object) -> list[Row]:
        query = f"SELECT {_names(table.columns)} FROM {table.name} {which}"
        flags = table.places(*table.flags)
        with self._telling():
            rows = self._connection.execute(query, values).fetchall()
        return [_with_flags(row, flags) for row in rows] if flags else rows

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raises for an error of the store one that says what to do."""
        try:
            yield
        except (sqlite3.Error, Unsure, QueueError) as error:
            said = clean(str(error), 300)
            self._is_sure &= not isinstance(error, Unsure)
            if is_damage(error) or "Could not decode" in said:
                raise Unreadable(f"{self._file}: {said}; {SEE_TO_IT}") from error
            raise CannotMove(f"{self._file}: {said}") from error


def _with_flags(row: Row, flags: Sequence[int]) -> Row:
    """A row in which what is true or false is so by its type."""
    values = list(row)
    for place in flags:
        values[place] = bool(values[place])
    return tuple(values)


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


@cache
def _insert_into(name: str, columns: tuple[str, ...]) -> str:
    places = ", ".join("?" * len(columns))
    return f"INSERT INTO {name} ({_names(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING"


def _insert(table: Table) -> str:
    return _insert_into(table.name, table.columns)
