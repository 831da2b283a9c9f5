"""One end of a move (see engine.queue.moving) in a database: the lock of who has it open is held."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import asyncpg

from engine.model.event import Event
from engine.queue.errors import QueueError
from engine.queue.moving import CannotMove, End, Unreadable, Waiting
from engine.queue.postgres import bulk, rules
from engine.queue.postgres.attempts import recover
from engine.queue.postgres.connection import CHANGE, DURABLY, LOST, MOVING, SCHEMA, Server, connect, refusal, said
from engine.queue.postgres.exchanges import know_destinations
from engine.queue.postgres.migrations import prepare
from engine.queue.postgres.rows import CONCLUDE, event_values, storable
from engine.queue.postgres.transaction import Transaction
from engine.queue.tables import EVERY, NUMBERED, OF_MAIL, Row, Table

CLEAR_SECONDS = 600.0  # for a table that is emptied once all is moved

# Who sends from it, or may: a node that cannot reach the database does so until its lease ends.
_NODES = (
    "SELECT name, greatest(0, until - extract(epoch FROM clock_timestamp())::float8) FROM node "
    "WHERE NOT is_lost AND until > extract(epoch FROM clock_timestamp()) ORDER BY name"
)


class PostgresEnd(End):
    """The queue in a database. Entering it raises CannotMove where an engine has it, or there is none to be moved."""

    def __init__(self, server: Server, now: Callable[[], float], *, is_source: bool) -> None:
        self.address = server.dsn
        self._server = server
        self._now = now
        self._is_source = is_source
        self._types: dict[tuple[str, str], str] = {}
        self._events: list[Event] = []
        self._connection: Any

    async def __aenter__(self) -> Self:
        try:
            self._connection = await connect(self._server)
        except QueueError as error:
            raise CannotMove(f"{self.address}: {error}") from error
        try:
            await self._begin()
        except BaseException:
            self._connection.terminate()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._connection.close(timeout=2)
        except Exception:  # noqa: BLE001  all that was done is committed
            self._connection.terminate()

    async def _begin(self) -> None:
        with self._telling():
            there = await self._connection.fetchval("SELECT to_regclass($1)", f"{SCHEMA}.version")
            if there is None and self._is_source:
                raise CannotMove(f"{self.address}: there is no queue in it")
            await prepare(self._connection)
            is_free = await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", MOVING)
            nodes = await self._connection.fetch(_NODES)
            if not is_free:
                who = ", ".join(name for name, _ in nodes)
                what = f"an engine has this queue open (node {who}); stop it first" if nodes else "it is being moved"
                raise CannotMove(f"{self.address}: {what}")
            if nodes:
                name, left = max(nodes, key=lambda node: float(node[1]))
                why = f"node {name} was not stopped, and may still send from this queue for {left:.0f} s"
                raise CannotMove(f"{self.address}: {why}; wait, or start it and stop it")
            await self._connection.execute("UPDATE node SET is_lost = TRUE")
            await self._connection.execute(DURABLY)
            await self._connection.execute(CHANGE)
            rows = await self._connection.fetch(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
                "JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = to_regnamespace($1) "
                "AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped",
                SCHEMA,
            )
            self._types = {(table, column): kind for table, column, kind in rows}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        with self._telling():
            async with self._connection.transaction():
                self._events.clear()
                yield
                await self._connection.execute(CONCLUDE, 0, [], *event_values(self._events))

    async def read(self, table: Table, after: Row | None, limit: int) -> list[Row]:
        behind = f"WHERE ({_names(table.key)}) > ({_places(len(after), 2)})" if after is not None else ""
        return await self._rows(table, f"{behind} ORDER BY {_names(table.key)} LIMIT $1", limit, *(after or ()))

    async def read_of(self, table: Table, first: Any, last: Any) -> list[Row]:
        which = f"WHERE {table.belongs} BETWEEN $1 AND $2 {table.which} ORDER BY {_names(table.order)}"
        return await self._rows(table, which, first, last)

    async def waiting(self, after: int, limit: int) -> list[Waiting]:
        with self._telling():
            return [
                Waiting(*row)
                for row in await self._connection.fetch(
                    "SELECT number, size, (SELECT count(*) FROM entry WHERE message = m.number) "
                    "+ (SELECT count(*) FROM untold WHERE message = m.number) "
                    "+ (SELECT count(*) FROM attempt WHERE message = m.number) "
                    "+ (SELECT count(*) FROM event WHERE message = m.number AND message > 0) "
                    "FROM message m WHERE number > $1 ORDER BY number LIMIT $2",
                    after,
                    limit,
                )
            ]

    async def count(self) -> int:
        with self._telling():
            return int(await self._connection.fetchval("SELECT count(*) FROM message"))

    async def add(self, table: Table, rows: Sequence[Row]) -> set[Row]:
        if not rows:
            return set()
        types = [self._types[table.name, name] for name in table.columns]
        columns = ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, 1))
        values = [
            [storable(each) if each else each for each in column] if kind == "text" else column
            for kind, column in zip(types, zip(*rows, strict=True), strict=True)
        ]
        with self._telling():
            added = await self._connection.fetch(
                f"INSERT INTO {table.name} ({_names(table.columns)}) OVERRIDING SYSTEM VALUE "
                f"SELECT * FROM unnest({columns}) ON CONFLICT DO NOTHING RETURNING {_names(table.key)}",
                *values,
            )
        return set(map(tuple, added))

    async def forget(self, table: Table, key: Row) -> None:
        places = " AND ".join(f'"{name}" = ${place}' for place, name in enumerate(table.key, 1))
        with self._telling():
            await self._connection.execute(f"DELETE FROM {table.name} WHERE {places}", *key)

    async def remove(self, messages: Sequence[int]) -> None:
        with self._telling():
            for table in OF_MAIL[::-1]:  # each in one statement; to leave it to the message would take one for each
                await self._connection.execute(
                    f"DELETE FROM {table.name} WHERE {table.belongs} = ANY($1::bigint[]) {table.which}", messages
                )

    async def clear(self) -> None:
        with self._telling():
            for table in EVERY[::-1]:
                await self._connection.execute(f"DELETE FROM {table.name}", timeout=CLEAR_SECONDS)

    async def given(self) -> dict[str, int]:
        with self._telling():
            return {
                table.name: await self._connection.fetchval(
                    f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {_sequence(table)}"
                )
                for table in NUMBERED
            }

    async def number_from(self, numbers: Mapping[str, int]) -> None:
        given = await self.given()
        with self._telling():
            for table in NUMBERED:
                if numbers[table.name] > given[table.name]:
                    await self._connection.execute(
                        "SELECT setval($1::text::regclass, $2)", _sequence(table), numbers[table.name]
                    )

    async def put_back_interrupted(self) -> None:
        with self._telling():
            tx = self._transaction()
            await bulk.end_unfinished(tx)
            await recover(tx)
            self._events += tx.events

    async def know_destinations(self, names: Sequence[str]) -> None:
        with self._telling():
            rows = await self._connection.fetch("SELECT name FROM destination WHERE name = ANY($1::text[])", names)
            await know_destinations(self._transaction(), set(names) - {name for (name,) in rows})

    async def hold_by_rules(self, messages: Sequence[int]) -> None:
        with self._telling():
            tx = self._transaction()
            await rules.apply(tx, messages)
            self._events += tx.events

    def now(self) -> float:
        return self._now()

    def _transaction(self) -> Transaction:
        return Transaction(self._connection, self._now())

    async def _rows(self, table: Table, which: str, *values: object) -> list[Row]:
        with self._telling():
            found = await self._connection.fetch(f"SELECT {_names(table.columns)} FROM {table.name} {which}", *values)
        return list(map(tuple, found))

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Raises for an error of the database one that says what to do."""
        try:
            yield
        except asyncpg.DataCorruptedError as error:
            raise Unreadable(f"{self.address}: {said(error)}") from error
        except (QueueError, asyncpg.PostgresError, *LOST) as error:
            raise CannotMove(f"{self.address}: {refusal(error)}") from error


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _places(count: int, first: int) -> str:
    return ", ".join(f"${place}" for place in range(first, first + count))


def _sequence(table: Table) -> str:
    return f"{table.name}_{table.key[0]}_seq"
