"""The writer of the store in PostgreSQL: groups, what undoes them, and connections that are lost at any moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.model.event import Event
from engine.queue.errors import QueueBusy, QueueError
from engine.queue.postgres.connection import Server, connect
from engine.queue.postgres.migrations import prepare
from engine.queue.postgres.node import Node
from engine.queue.postgres.store import PostgresQueue
from engine.queue.postgres.transaction import Transaction
from engine.queue.postgres.writer import Writer
from tests import postgres
from tests.clock import FakeClock
from tests.serving import free_port
from tests.waiting import until_told

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

KEEP = "INSERT INTO taken_key (key, message) VALUES ($1, $2)"


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    cluster = await asyncio.to_thread(postgres.cluster)
    return Server(await cluster.database(tmp_path))


@pytest.fixture
async def events() -> list[Event]:
    return []


@pytest.fixture
async def writer(server: Server, events: list[Event]) -> AsyncIterator[Writer]:
    writer = Writer(server, node(), FakeClock(), events.extend, events_kept=100)
    await writer.open()
    yield writer
    await writer.close()


def node(name: str = "a") -> Node:
    return Node(name, heartbeat=10.0, takeover=30.0)


def keep(key: str, *told: str) -> Any:
    async def operation(tx: Transaction) -> str:
        await tx.execute(KEEP, key, 1)
        tx.record(*(Event(at=tx.now, kind="started", text=text) for text in told))
        return key

    return operation


async def kept(server: Server) -> list[str]:
    connection = await connect(server)
    try:
        return [row[0] for row in await connection.fetch("SELECT key FROM taken_key ORDER BY key")]
    finally:
        await connection.close()


async def test_what_is_asked_at_once_is_one_transaction_with_its_events_in_order(
    server: Server, writer: Writer, events: list[Event]
) -> None:
    done = await asyncio.gather(*(writer.do(keep(f"k{n}", f"first of {n}", f"second of {n}")) for n in range(5)))
    assert done == [f"k{n}" for n in range(5)]
    assert await kept(server) == done
    assert [event.text for event in events] == [f"{place} of {n}" for n in range(5) for place in ("first", "second")]
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    connection = await connect(server)
    assert await connection.fetchval("SELECT count(DISTINCT xmin::text) FROM taken_key") == 1
    await connection.close()


async def test_one_that_fails_undoes_nothing_of_the_others(server: Server, writer: Writer, events: list[Event]) -> None:
    async def failing(tx: Transaction) -> None:
        await tx.execute(KEEP, "gone", 1)
        raise KeyError("a bug")

    async def refused(tx: Transaction) -> None:
        await tx.execute("INSERT INTO taken_key (key) VALUES ('no message')")

    found = await asyncio.gather(
        writer.do(keep("a", "a")), writer.do(failing), writer.do(refused), writer.do(keep("b", "b")),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(one) for one in found] == [str, KeyError, QueueError, str]
    assert await kept(server) == ["a", "b"]
    assert [event.text for event in events] == ["a", "b"]


class Losing:
    """A connection that is lost at a statement: before the server has it, or before its answer is here.

    `before` is done first.
    """

    def __init__(
        self,
        connection: Any,
        statement: str,
        *,
        after: bool = False,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._after = after
        self._before = before
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, query: str, *values: object) -> Any:
        if not query.startswith(self._statement):
            return await self._connection.execute(query, *values)
        if self._before is not None:
            await self._before()
        if self._after:
            await self._connection.execute(query, *values)
        self.lost += 1
        self._connection.terminate()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def test_one_that_comes_back_to_a_queue_that_is_being_moved_away_is_refused(
    server: Server, writer: Writer
) -> None:
    await writer.do(keep("a"))
    other = await connect(server)
    await other.fetch("SELECT pg_terminate_backend($1, 5000)", writer._connection.get_server_pid())
    await other.execute("INSERT INTO leaving VALUES ('x', 'here', 'there', true)")
    await other.close()
    with pytest.raises(QueueError, match="the queue here is being moved to there, and no engine may open it"):
        await writer.do(keep("b"))
    assert await kept(server) == ["a"]
    assert "is being moved to there" in writer.trouble


@pytest.mark.parametrize("after", [False, True], ids=["before it was done", "after it was done"])
@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO taken_key", "COMMIT"])
async def test_a_connection_lost_at_any_moment_has_all_done_once(
    server: Server, writer: Writer, events: list[Event], statement: str, *, after: bool
) -> None:
    losing = writer._connection = Losing(writer._connection, statement, after=after)
    assert await writer.do(keep("once", "told once")) == "once"
    assert losing.lost == 1
    assert await kept(server) == ["once"]
    assert [event.text for event in events] == ["told once"]
    assert writer.trouble == ""


def tell(text: str) -> Any:
    async def operation(tx: Transaction) -> str:
        tx.record(Event(at=tx.now, kind="started", text=text))
        return text

    return operation


async def told(server: Server) -> list[str]:
    connection = await connect(server)
    try:
        return [row[0] for row in await connection.fetch("SELECT text FROM event ORDER BY seq")]
    finally:
        await connection.close()


async def test_while_the_database_is_away_nothing_is_done_again_whose_answer_was_lost(
    server: Server, writer: Writer, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = _away_for(monkeypatch, times=2)
    writer._connection = Losing(writer._connection, "COMMIT", after=True)
    done = await asyncio.gather(*(writer.do(tell(text)) for text in "abc"))
    assert not away
    assert done == await told(server) == [event.text for event in events] == ["a", "b", "c"]


async def test_what_is_not_known_to_be_done_is_refused_and_not_done_again(
    server: Server, writer: Writer, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.postgres.writer.LOOK_SECONDS", 0.3)
    away = _away_for(monkeypatch, times=1000)
    writer._connection = Losing(writer._connection, "COMMIT", after=True)
    done = await asyncio.gather(*(writer.do(tell(text)) for text in "abc"), return_exceptions=True)
    assert [type(one) for one in done] == [QueueBusy] * 3
    assert "what became of a commit is not known" in writer.trouble
    away.clear()
    assert await writer.do(tell("d")) == "d"
    assert await told(server) == ["a", "b", "c", "d"]
    assert [event.text for event in events] == ["d"]
    assert writer.trouble == ""


async def test_what_a_crash_has_undone_is_not_taken_for_what_others_did_after_it(events: list[Event]) -> None:
    """Numbers of transactions of which nothing was on the disk yet are given again after a crash."""
    crashing = await asyncio.to_thread(postgres.Server, {"wal_writer_delay": "10s"}, port=free_port())
    try:
        connection = await asyncpg.connect(crashing.dsn("postgres"))
        await connection.execute("CREATE DATABASE queue")
        await connection.close()
        server = Server(crashing.dsn("queue"))
        connection = await connect(server)
        await prepare(connection)
        await connection.close()
        writer = Writer(server, node(), FakeClock(), events.extend, events_kept=100)
        await writer.open()
        await writer.do(keep("before"))

        async def crash() -> None:
            undone = await writer._connection.fetchval("SELECT pg_current_xact_id()::text::bigint")
            await asyncio.to_thread(crashing.stop, at_once=True)
            await asyncio.to_thread(crashing.start)
            other = await connect(server)
            given = await other.fetchval("SELECT pg_current_xact_id()::text::bigint")
            assert given <= undone  # else nothing is tried here
            while given < undone:
                given = await other.fetchval("SELECT pg_current_xact_id()::text::bigint")
            await other.close()

        writer._connection = Losing(writer._connection, "COMMIT", before=crash)
        assert await writer.do(keep("once", "told once")) == "once"
        assert await kept(server) == ["before", "once"]
        assert [event.text for event in events] == ["told once"]
        await writer.close()
    finally:
        await asyncio.to_thread(crashing.end)


async def test_a_commit_of_which_the_database_never_heard_is_done_again(
    server: Server, writer: Writer, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a standby took over that had not got so far."""
    losing = writer._connection = Losing(writer._connection, "COMMIT", after=False)
    conclude = writer._conclude

    async def another(events: list[Event], news: list[str]) -> tuple[int, list[Event]]:
        _, numbered = await conclude(events, news)
        return 1, numbered

    monkeypatch.setattr(writer, "_conclude", another)
    assert await writer.do(tell("once")) == "once"
    assert losing.lost == 1
    assert await told(server) == [event.text for event in events] == ["once"]


def _away_for(monkeypatch: pytest.MonkeyPatch, times: int) -> list[None]:
    """The database cannot be reached so often; what is left of that."""
    left: list[None] = [None] * times

    async def reach(server: Server) -> Any:
        if left:
            left.pop()
            raise QueueBusy("the database cannot be reached: connection refused")
        return await connect(server)

    monkeypatch.setattr("engine.queue.postgres.writer.connect", reach)
    return left


async def test_a_session_that_the_server_ends_is_made_anew(server: Server, writer: Writer) -> None:
    await writer.do(keep("a"))
    pid = writer._connection.get_server_pid()
    other = await connect(server)
    assert await other.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)
    await other.close()
    assert await writer.do(keep("b")) == "b"
    assert await kept(server) == ["a", "b"]


async def test_one_engine_has_the_queue_and_another_is_refused_until_it_has_gone(
    server: Server, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.postgres.writer.NAME_SECONDS", 0.1)
    second = Writer(server, node(), FakeClock(), lambda _: None, events_kept=100)
    with pytest.raises(QueueError, match='another engine is node "a" of the queue'):
        await second.open()
    await writer.close()
    await second.open()
    assert await second.do(keep("its own")) == "its own"
    await second.close()


async def test_who_is_cancelled_has_it_done_all_the_same(server: Server, writer: Writer) -> None:
    asking = asyncio.ensure_future(writer.do(keep("done")))
    await asyncio.sleep(0)
    asking.cancel()
    await writer.do(keep("later"))
    assert await kept(server) == ["done", "later"]


async def test_a_database_that_cannot_be_reached_is_named_and_its_password_is_not(tmp_path: Path) -> None:
    nowhere = Server(f"postgresql://relay@/queue?host={tmp_path}", password="s3cret")
    with pytest.raises(QueueBusy, match="the database cannot be reached") as told:
        await Writer(nowhere, node(), FakeClock(), lambda _: None, events_kept=1).open()
    assert "s3cret" not in f"{told.value}{told.value.__cause__}{nowhere!r}"


async def test_of_the_events_the_newest_are_kept(
    server: Server, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.postgres.writer.PRUNE_EVERY", 50)
    for n in range(30):
        await writer.do(keep(f"k{n}", *(f"{n}.{m}" for m in range(10))))
    connection = await connect(server)
    count, newest = await connection.fetchrow("SELECT count(*), max(seq) FROM event")
    await connection.close()
    assert 100 <= count < 150 + 10
    assert newest == 300


async def test_what_is_committed_is_on_the_disk_also_where_the_database_does_not_wait_for_it(
    server: Server, writer: Writer
) -> None:
    other = await connect(server)
    assert await other.fetchval("SHOW synchronous_commit") == "off", "so that something is shown here"
    await other.close()

    async def asked(tx: Transaction) -> str:
        return str(await tx.value("SHOW synchronous_commit"))

    assert await writer.do(asked) == "on"


async def test_a_user_who_may_make_no_tables_is_told_so(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(postgres.cluster)
    name = await cluster.bare_database()
    connection = await asyncpg.connect(name)
    await connection.execute("DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    await connection.close()
    queue = PostgresQueue(name.replace("smarthost@", "poor@"), FakeClock())
    with pytest.raises(QueueError, match="permission denied for database"):
        await queue.open()
    assert await _sessions(name) == 0


async def test_a_database_whose_texts_are_not_utf_8_is_refused(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(postgres.cluster)
    name = await cluster.bare_database(encoding="SQL_ASCII")
    with pytest.raises(QueueError, match="keeps its texts in SQL_ASCII: make one with ENCODING 'UTF8'"):
        await PostgresQueue(name, FakeClock()).open()


async def _sessions(name: str) -> int:
    """How many are in a database besides the one that asks."""
    connection = await asyncpg.connect(name)
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        await until_told(lambda: connection.fetchval(query), lambda count: count == 0)
        return 0
    finally:
        await connection.close()
