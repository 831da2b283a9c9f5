"""What one node asks another by way of the database: answered once, or it is said that nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.queue.errors import NodeSilent, NoSuchNode, QueueBusy
from engine.queue.postgres import errands
from engine.queue.postgres.connection import Server, connect
from engine.queue.postgres.store import PostgresQueue
from tests import postgres
from tests.clock import FakeClock
from tests.waiting import until, until_told

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

LONG = 20.0  # seconds; nothing here waits for them


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    cluster = await asyncio.to_thread(postgres.cluster)
    return Server(await cluster.database(tmp_path))


async def opened(server: Server, name: str, heartbeat: float = 100.0) -> PostgresQueue:
    queue = PostgresQueue(server.dsn, FakeClock(), node=name, heartbeat=heartbeat, takeover=300.0)
    await queue.open()
    return queue


@pytest.fixture
async def a(server: Server) -> AsyncIterator[PostgresQueue]:
    queue = await opened(server, "a")
    yield queue
    await queue.close()


@pytest.fixture
async def b(server: Server) -> AsyncIterator[PostgresQueue]:
    queue = await opened(server, "b")
    queue.nodes.on_request = echo
    yield queue
    await queue.close()


async def echo(request: bytes) -> bytes:
    return b"b says " + request


async def rows(server: Server, query: str, *values: object) -> list[Any]:
    connection = await connect(server)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


async def test_a_question_is_answered_by_the_node_it_is_for_and_nothing_is_left_of_it(
    server: Server, a: PostgresQueue, b: PostgresQueue
) -> None:
    assert await a.nodes.ask("b", b"hello", LONG) == b"b says hello"
    asked = [a.nodes.ask("b", b"%d" % number, LONG) for number in range(50)]  # more than are answered at a time
    assert await asyncio.gather(*asked) == [b"b says %d" % number for number in range(50)]
    assert await rows(server, "SELECT * FROM errand") == []


async def test_notifications_that_are_lost_delay_an_answer_and_no_more(
    server: Server, a: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "CHANNEL", "nobody_listens")
    monkeypatch.setattr(errands, "LOOK_AGAIN", 0.01)
    b = await opened(server, "b", heartbeat=0.3)
    try:
        b.nodes.on_request = echo
        assert await a.nodes.ask("b", b"hello", LONG) == b"b says hello"
    finally:
        await b.close()


async def test_a_node_that_does_not_answer_is_named_and_what_it_has_not_begun_is_not_done_later(
    server: Server, a: PostgresQueue
) -> None:
    b = await opened(server, "b")
    try:
        b._errands.close()  # as if it hung
        with pytest.raises(NodeSilent, match=r"^node b does not answer$"):
            await a.nodes.ask("b", b"hello", 0.05)
        assert await rows(server, "SELECT * FROM errand") == []
    finally:
        await b.close()


async def test_of_what_was_begun_it_is_said_that_it_may_still_be_done(a: PostgresQueue, b: PostgresQueue) -> None:
    began = asyncio.Event()

    async def hang(_: bytes) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return b""

    b.nodes.on_request = hang
    with pytest.raises(NodeSilent, match="may still be carried out"):
        await a.nodes.ask("b", b"hello", 0.5)
    assert began.is_set()


async def test_a_node_that_is_not_there_or_lost_is_not_asked(server: Server, a: PostgresQueue) -> None:
    with pytest.raises(NoSuchNode, match="there is no node b"):
        await a.nodes.ask("b", b"hello", LONG)
    await rows(
        server,
        "INSERT INTO node (name, epoch, version, since, beat, until, is_lost) VALUES ('b', 999, '', 0, 0, 0, true)",
    )
    with pytest.raises(NodeSilent, match="node b is lost"):
        await a.nodes.ask("b", b"hello", LONG)


async def test_what_a_node_fails_at_or_says_at_too_great_length_is_no_answer(
    a: PostgresQueue, b: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: bytes) -> bytes:
        raise RuntimeError("no")

    b.nodes.on_request = fail
    with pytest.raises(NodeSilent, match="node b could not answer"):
        await a.nodes.ask("b", b"hello", LONG)
    monkeypatch.setattr(errands, "MAX_ANSWER", 100)

    async def tell_all(_: bytes) -> bytes:
        return b"x" * 101

    b.nodes.on_request = tell_all
    with pytest.raises(NodeSilent, match="node b could not answer"):
        await a.nodes.ask("b", b"hello", LONG)
    with pytest.raises(NodeSilent):
        await a.nodes.ask("b", b"x" * (errands.MAX_REQUEST + 1), LONG)


async def test_what_strangers_write_into_the_table_is_not_read_where_it_is_too_large(
    server: Server, a: PostgresQueue, b: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []

    async def note(request: bytes) -> bytes:
        got.append(request)
        await asyncio.Event().wait()
        return b""

    b.nodes.on_request = note
    put = "INSERT INTO errand (epoch, asker, request, until) VALUES ($1, 0, $2, 2e9)"
    await rows(server, put, b.node.epoch, b"x" * (errands.MAX_REQUEST + 1))
    await rows(server, put, b.node.epoch, b"small")
    b._errands.look()
    await until(lambda: got == [b"small"])
    # An answer that somebody else has put in, of more than may be read.
    asking = asyncio.ensure_future(a.nodes.ask("b", b"mine", LONG))
    await until(lambda: got == [b"small", b"mine"])
    monkeypatch.setattr(errands, "MAX_ANSWER", 100)
    await rows(server, "UPDATE errand SET answer = $1 WHERE request = 'mine'", b"y" * 101)
    with pytest.raises(NodeSilent, match="could not answer"):
        await asking


async def test_a_crowd_of_questions_is_refused_and_what_nobody_waits_for_is_pruned(
    server: Server, a: PostgresQueue, b: PostgresQueue
) -> None:
    b._errands.close()
    put = (
        "INSERT INTO errand (epoch, asker, request, until) "
        "SELECT $1::bigint, 0, 'x', extract(epoch FROM clock_timestamp()) + $2::float8 FROM generate_series(1, $3::int)"
    )
    await rows(server, put, b.node.epoch, -100.0, errands.MOST_WAITING)
    with pytest.raises(NodeSilent, match="too much waits for it"):
        await a.nodes.ask("b", b"hello", LONG)
    b._errands.open()
    b._errands.look()
    await until_told(lambda: rows(server, "SELECT * FROM errand"), lambda left: left == [])
    assert await a.nodes.ask("b", b"hello", LONG) == b"b says hello"


async def test_who_asks_is_told_when_the_database_goes_away(server: Server, a: PostgresQueue, b: PostgresQueue) -> None:
    began = asyncio.Event()

    async def hang(_: bytes) -> bytes:
        began.set()
        await asyncio.Event().wait()
        return b""

    b.nodes.on_request = hang
    asking = asyncio.ensure_future(a.nodes.ask("b", b"hello", LONG))
    await began.wait()
    await rows(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
               "AND query LIKE '%errand%'")  # fmt: skip
    with pytest.raises(QueueBusy, match="the database cannot be reached"):
        await asking


async def test_who_asks_while_the_queue_is_closed_leaves_no_session_behind(
    a: PostgresQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    is_asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(server: Server) -> Any:
        is_asked.set()
        await may_go_on.wait()
        made.append(await connect(server))
        return made[0]

    monkeypatch.setattr(errands, "connect", slow)
    asking = asyncio.ensure_future(a.nodes.ask("b", b"is anybody there", 5.0))
    await is_asked.wait()
    await a.close()
    may_go_on.set()
    with pytest.raises(QueueBusy, match="the queue is closed"):
        await asking
    assert [connection.is_closed() for connection in made] == [True]
