"""Tables of older versions are brought up to ours with all that is in them; newer ones are used as far as they say."""

import asyncio
from importlib import resources
from typing import Any

import asyncpg
import pytest

from engine.queue.errors import QueueError
from engine.queue.postgres.connection import NODE, SCHEMA, Server, connect
from engine.queue.postgres.store import PostgresQueue
from tests import postgres
from tests.clock import FakeClock
from tests.unit.queue.support import DELIVERED, Spool

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

# A message that was being sent when its engine ended, one that waits, an order that was being given, and a key.
MAIL = """
INSERT INTO message (sender, size, arrived, expires, origin, subject, message_id, eight_bit, smtputf8, ret, envid)
    SELECT 'ann@example.net', 5, 1, 4e9, 'smtp', '', '', false, false, '', '' FROM generate_series(1, 2);
INSERT INTO body SELECT number, sha256('hello'), 'hello' FROM message;
INSERT INTO destination (name, site, turn, touched) VALUES ('example.org', '@example.org', 1, 1);
INSERT INTO entry (message, number, recipient, destination, state, due, expires)
    SELECT number, 1, 'u' || number || '@example.org', 'example.org', 'waiting', 1, 4e9 FROM message;
INSERT INTO attempt (message, entry, relayer, started) VALUES (1, 1, 7, 1);
UPDATE entry SET state = 'relaying' WHERE message = 1;
INSERT INTO operation (kind, verb, filter, by, note, at, messages, recipients)
    VALUES ('held', 'hold', 'everything', 'oncall', '', 1, 1, 1);
INSERT INTO taken_key VALUES ('drop:file', 2);
INSERT INTO event (at, kind, by, message, entry, sender, recipient, destination, host, text)
    VALUES (1, 'accepted', 'engine', 2, 1, 'ann@example.net', 'u2@example.org', 'example.org', '', 'smtp');
"""
# What tables, columns, indexes, functions and triggers there are.
MADE = f"""
SELECT table_name || '.' || column_name, data_type || coalesce(collation_name, ''),
       is_nullable || coalesce(column_default, '')
    FROM information_schema.columns WHERE table_schema = '{SCHEMA}'
UNION ALL SELECT indexname, indexdef, '' FROM pg_indexes WHERE schemaname = '{SCHEMA}'
UNION ALL SELECT proname, prosrc, '' FROM pg_proc WHERE pronamespace = '{SCHEMA}'::regnamespace
UNION ALL SELECT tgname, tgrelid::regclass::text, tgtype::text FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT conname, pg_get_constraintdef(oid), '' FROM pg_constraint WHERE connamespace = '{SCHEMA}'::regnamespace
UNION ALL SELECT relname, relpersistence::text, coalesce(reloptions::text, '') FROM pg_class
    WHERE relnamespace = '{SCHEMA}'::regnamespace
ORDER BY 1, 2, 3
"""


async def database(version_1: bool = False) -> Server:
    cluster = await asyncio.to_thread(postgres.cluster)
    server = Server(await cluster.bare_database())
    if version_1:
        await tell(server, f"CREATE SCHEMA {SCHEMA}")
        await tell(server, (resources.files("tests.unit.postgres") / "version_1.sql").read_text("utf-8"))
        await tell(server, MAIL)
    return server


async def tell(server: Server, statements: str) -> None:
    connection = await connect(server)
    await connection.execute(statements)
    await connection.close()


async def made(server: Server) -> list[Any]:
    connection = await asyncpg.connect(server.dsn)
    try:
        return list(map(tuple, await connection.fetch(MADE)))
    finally:
        await connection.close()


async def opened(server: Server) -> Spool:
    clock = FakeClock()
    spool = Spool(PostgresQueue(server.dsn, clock, node="a"), clock)
    await spool.queue.open()
    return spool


async def test_tables_of_version_1_become_as_they_are_made_anew_and_lose_nothing() -> None:
    old, new = await database(version_1=True), await database()
    fresh = await opened(new)
    await fresh.queue.close()
    spool = await opened(old)
    try:
        assert await made(old) == await made(new)
        assert [entry.state for entry in await spool.entries()] == ["waiting"] * 2
        (interrupted,) = (await spool.queue.listing.message(1)).attempts
        assert interrupted.interrupted
        assert [event.kind for event in await spool.queue.listing.events()] == ["accepted", "held", "interrupted"]
        assert await spool.add("again@example.org", key="drop:file") == 2
        for claim in await spool.claim():
            await spool.settle(claim, DELIVERED)
        assert await spool.entries() == ()
        assert (await spool.queue.listing.destination("example.org")).waiting == 0
    finally:
        await spool.queue.close()


async def test_an_engine_of_version_1_is_not_taken_by_surprise() -> None:
    old = await database(version_1=True)
    engine = await connect(old)
    await engine.execute("SELECT pg_advisory_lock($1)", NODE)
    with pytest.raises(QueueError, match="an engine of an older smarthost has this queue open: stop it first"):
        await opened(old)
    await engine.close()
    await (await opened(old)).queue.close()


async def test_a_server_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queue.postgres.migrations.OLDEST", 99)
    with pytest.raises(QueueError, match=r"the database is PostgreSQL \d+: it takes 99 or newer"):
        await opened(await database())


@pytest.mark.parametrize("usable_from", [4, 5])
async def test_tables_of_a_newer_version_are_used_as_far_as_that_says(usable_from: int) -> None:
    server = await database()
    await (await opened(server)).queue.close()
    await tell(server, f"UPDATE version SET number = 5, usable_from = {usable_from}")
    if usable_from == 4:
        await (await opened(server)).queue.close()
    else:
        with pytest.raises(
            QueueError, match="of version 5, to be used from 5 on; this smarthost knows 4: use the newer"
        ):
            await opened(server)
