"""Questions to the store in PostgreSQL whose answers never came: those asked next see what is so now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.queue.errors import QueueBusy, QueueError
from engine.queue.mail import Terms
from engine.queue.postgres import connection
from engine.queue.postgres.connection import Server
from engine.queue.postgres.database import READERS, Database
from engine.queue.postgres.node import Node
from engine.queue.postgres.transaction import Snapshot, Transaction
from tests import postgres
from tests.clock import FakeClock
from tests.nodes.way import Way
from tests.serving import free_port
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")


@asynccontextmanager
async def database_by_a_way() -> AsyncIterator[tuple[Database, Way]]:
    server = await asyncio.to_thread(postgres.Server, port=free_port())
    try:
        async with Way(server.port) as way:
            terms = Terms(lambda _: 1.0, 0.0, 0.0)
            node = Node("a", heartbeat=10.0, takeover=30.0)
            found = Database(Server(f"postgresql://smarthost@127.0.0.1:{way.port}/postgres"), node, FakeClock(), terms)
            await found.open(lambda _: None, 100)
            yield found, way
            await found.close()
    finally:
        await asyncio.to_thread(server.end)


async def kept(s: Snapshot) -> int:
    found: int = await s.value("SELECT count(*) FROM taken_key")
    return found


async def keep(tx: Transaction) -> None:
    await tx.execute("INSERT INTO taken_key (key, message) VALUES ($1, 1)", "later")


@pytest.mark.parametrize("is_left", [False, True], ids=["its time is over", "nobody waits for it any more"])
async def test_a_question_that_got_lost_on_its_way_keeps_no_other_at_the_state_of_then(
    monkeypatch: pytest.MonkeyPatch, *, is_left: bool
) -> None:
    async with database_by_a_way() as (database, way):
        if not is_left:
            monkeypatch.setattr(connection, "COMMAND_SECONDS", 1.0)
        for _ in range(READERS):
            assert await database.ask(kept) == 0
        way.part()
        asked = [asyncio.ensure_future(database.ask(kept)) for _ in range(READERS)]
        await until(lambda: way.held >= READERS)  # the questions are on their way
        for task in asked if is_left else ():
            task.cancel()
        async with asyncio.timeout(PATIENCE):
            ends = await asyncio.gather(*asked, return_exceptions=True)
        monkeypatch.undo()
        way.mend()  # and what was on its way comes late
        assert {type(end) for end in ends} <= {asyncio.CancelledError, QueueBusy}
        assert await asyncio.gather(*(database.ask(kept) for _ in range(READERS))) == [0] * READERS
        await database.do(keep)
        assert await asyncio.gather(*(database.ask(kept) for _ in range(READERS))) == [1] * READERS


async def test_who_waits_to_ask_while_the_store_is_closed_is_refused_and_leaves_no_session_behind() -> None:
    async with database_by_a_way() as (database, _):
        asked, may_end = asyncio.Event(), asyncio.Event()

        async def hang(_: Snapshot) -> None:
            asked.set()
            await may_end.wait()

        hanging = [asyncio.ensure_future(database.ask(hang)) for _ in range(READERS)]
        await asked.wait()
        late = asyncio.ensure_future(database.ask(kept))
        await until(lambda: bool(database._readers._getters))  # type: ignore[attr-defined]  # who waits for a reader
        await database.close()
        may_end.set()
        await asyncio.gather(*hanging, return_exceptions=True)
        with pytest.raises(QueueError, match="the queue is not open"):
            await late
        assert not database._connected
