"""74. The queue in PostgreSQL: what befalls the database costs no mail, and the engine comes back by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiosmtplib
import asyncpg
import pytest
from msgspec.structs import replace

from engine.engine import CannotStart
from engine.model.verbs import MarkBad, MarkGood, Resume, Suspend
from engine.sandbox.exchanges import Session
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import QueueStore
from tests import postgres
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.waiting import until, until_told

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")


@pytest.fixture
async def store(tmp_path: Path) -> QueueStore:
    server = await asyncio.to_thread(postgres.cluster)
    return QueueStore(store=await server.database(tmp_path))


@asynccontextmanager
async def away(store: QueueStore) -> AsyncIterator[None]:
    """Nobody can reach the database: all sessions are ended, and there are no new ones."""
    name = urlsplit(store.store).path.removeprefix("/")
    other = await asyncpg.connect(store.store.replace(f"/{name}?", "/postgres?"))
    try:
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await other.fetch("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1", name)
        yield
    finally:
        await other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await other.close()


class Holding(Healthy):
    """Takes a message when it is told to, and not before."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()

    async def reply(self, session: Session, verb: str, argument: str) -> None:
        if verb == "content":
            await self.may_answer.wait()


async def trouble(relay: Relay) -> str:
    return (await relay.client.health()).trouble


async def test_while_the_database_cannot_be_reached_senders_come_again_and_then_all_goes(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    async with relaying(internet, clock=clock, queue=store) as relay:
        await relay.send("a@example.org")
        await internet.wait_for(1)
        await relay.settled()
        async with away(store):
            with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
                await relay.send("b@example.org")
            assert refused.value.code == 451
            assert "the database cannot be reached" in await trouble(relay)
        await relay.send("c@example.org")
        await internet.wait_for(2)
        await relay.settled()
        assert await trouble(relay) == ""
        assert await relay.entries() == ()
        assert sorted(one.recipients[0] for one in internet.delivered) == ["a@example.org", "c@example.org"]


async def test_what_was_sent_while_the_database_was_away_is_recorded_then_and_not_sent_again(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    peer = Holding()
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", peer)])
    async with relaying(internet, clock=clock, queue=store) as relay:
        await relay.send("a@example.org")
        await until(lambda: exchange.sessions == 1)
        async with away(store):
            peer.may_answer.set()
            await internet.wait_for(1)
        await relay.later(60)
        await until_told(relay.entries, lambda entries: not entries)
        assert [event.recipient for event in await relay.events("delivered")] == ["a@example.org"]
        assert internet.messages == 1


async def test_another_engine_of_the_same_name_is_refused_and_has_the_queue_once_the_first_has_gone(
    internet: Internet, clock: FakeClock, store: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.queue.postgres.writer.NAME_SECONDS", 0.1)
    await internet.add("late.example", mx=[(10, "mx.late.example", Healthy())])
    async with relaying(internet, clock=clock, queue=store) as first:
        await first.client.ask(Suspend(destination="late.example", seconds=3600, note="test"))
        await first.send("a@late.example")
        with pytest.raises(CannotStart, match="another engine is node"):
            async with relaying(internet, clock=clock, queue=store):
                raise AssertionError("it started")
    async with relaying(internet, clock=clock, queue=store) as second:
        assert [entry.recipient for entry in await second.entries()] == ["a@late.example"]


async def test_what_one_node_is_told_holds_for_the_others_at_once(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    await internet.add("late.example", mx=[(10, "mx.late.example", Healthy())])
    a, b = replace(store, node="a"), replace(store, node="b")
    async with relaying(internet, clock=clock, queue=a) as first, relaying(internet, clock=clock, queue=b) as second:
        await first.client.ask(Suspend(destination="late.example", seconds=3600, note="test"))
        await second.send("a@late.example")
        assert [entry.recipient for entry in await first.entries()] == ["a@late.example"]
        await second.client.ask(Resume(destination="late.example"))
        await internet.wait_for(1)
        await until_told(first.entries, lambda entries: not entries)
        await first.client.ask(MarkBad(host="mx.late.example", seconds=3600, note="no"))
        await until_told(second.client.health, lambda health: health.bad_hosts == 1)
        await first.client.ask(MarkGood(host="mx.late.example"))
        await until_told(second.client.health, lambda health: health.bad_hosts == 0)
        assert internet.messages == 1
