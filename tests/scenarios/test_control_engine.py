"""The operator's verbs on a running engine, over its own socket, down to the disk and back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.control.client import Client, Refused, control_socket
from engine.engine import Engine
from engine.model import verbs
from engine.model.message import NewMessage
from engine.model.verbs import Check, Hold, MarkBad, MarkGood, Release, Retry, Suspend, Undo
from engine.settings.settings import Dns, Drop, Intake, Nameserver, Settings, Smtp
from tests.unit.fake_relay import short_folder
from tests.waiting import PATIENCE, until, until_told

CONTENT = b"From: ann@example.net\r\nSubject: hello\r\n\r\nThe body\r\n"


@asynccontextmanager
async def running(spool: Path) -> AsyncIterator[tuple[Engine, Client]]:
    """An engine without doors for mail and without DNS, and an operator's client."""
    intake = Intake(smtp=Smtp(listen=()), drop=Drop(enabled=False))
    dns = Dns(nameservers=(Nameserver("127.0.0.1", 9),))
    engine = Engine(Settings(hostname="relay.example.net", spool=spool, intake=intake, dns=dns))
    await engine.start()
    try:
        async with Client(control_socket(spool)) as client:
            yield engine, client
    finally:
        await engine.stop()


@asynccontextmanager
async def suspended() -> AsyncIterator[tuple[Engine, Client]]:
    """A running engine that sends nothing, with three messages to two recipients each."""
    with short_folder() as folder:
        async with running(Path(folder)) as (engine, client):
            await client.ask(Suspend(destination="*", seconds=3600, note="a test"))
            for _ in range(3):
                await engine.queue.arrivals.enqueue(
                    NewMessage(
                        sender="ann@example.net",
                        recipients=("bob@example.org", "cy@example.com"),
                        content=CONTENT,
                        origin="a test",
                        subject="hello",
                    )
                )
            yield engine, client


async def states(client: Client, filter: str = "") -> list[tuple[str, str]]:
    return [(row.id, row.state) for row in (await client.queue(filter)).rows]


async def test_what_is_held_stays_until_released() -> None:
    async with suspended() as (_, client):
        result = await client.ask(Hold(filter="domain=example.org", note="looking"))
        assert (result.messages, result.recipients) == (3, 3)
        assert await states(client, "state=held") == [("1.1", "held"), ("2.1", "held"), ("3.1", "held")]
        held = (await client.queue("id=1.1")).rows[0]
        assert (held.ordered, held.note) == ("hold", "looking")
        result = await client.ask(Release(filter="id=1"))
        assert (result.recipients, result.skipped) == (1, 1)
        assert await states(client, "state=held") == [("2.1", "held"), ("3.1", "held")]


async def test_a_drop_is_undone_while_there_is_time() -> None:
    async with suspended() as (_, client):
        result = await client.ask(verbs.Drop(filter="id=2", note="runaway"))
        assert result.undo_until is not None
        assert {row.ordered for row in (await client.queue("id=2")).rows} == {"drop"}
        assert (await client.ask(Undo(operation=result.operation))).recipients == 2
        assert await states(client, "id=2") == [("2.1", "waiting"), ("2.2", "waiting")]
        with pytest.raises(Refused):
            await client.ask(Undo(operation=result.operation))


async def test_a_drop_at_once_leaves_only_its_events() -> None:
    async with suspended() as (_, client):
        await client.ask(verbs.Drop(filter="id=3", now=True))
        message = await until_told(lambda: client.message(3), lambda seen: seen.finished)
        assert [one.kind for one in message.events] == ["accepted", "accepted", "dropped", "dropped"]
        assert (await client.health()).waiting == 4


async def test_mail_that_came_after_the_preview_is_not_touched() -> None:
    async with suspended() as (engine, client):
        seen = await client.would(verbs.Drop(filter="from=ann@example.net"))
        assert (seen.messages, seen.recipients) == (3, 6)
        await engine.queue.arrivals.enqueue(
            NewMessage(sender="ann@example.net", recipients=("dan@example.org",), content=CONTENT, origin="a test")
        )
        result = await client.ask(Hold(filter="from=ann@example.net", newest=seen.newest))
        assert (result.messages, result.recipients) == (3, 6)
        assert await states(client, "state=waiting") == [("4.1", "waiting")]


async def test_a_message_is_seen_with_its_headers() -> None:
    async with suspended() as (_, client):
        message = await client.message(1)
    assert message.headers == ("From: ann@example.net", "Subject: hello")
    assert [row.id for row in message.entries] == ["1.1", "1.2"]


async def test_marks_and_suspensions_outlive_a_restart() -> None:
    with short_folder() as folder:
        async with running(Path(folder)) as (_, client):
            await client.ask(MarkBad(host="mx1.example.org", seconds=600, note="slow"))
            await client.ask(Suspend(destination="example.com", seconds=600, note="they asked"))
        async with running(Path(folder)) as (_, client):
            hosts = (await client.hosts()).rows
            assert [(one.host, one.note) for one in hosts] == [("mx1.example.org", "slow")]
            assert hosts[0].by != "engine"
            assert [one.destination for one in await client.suspensions()] == ["example.com"]
            await client.ask(MarkGood(host="mx1.example.org"))
            assert (await client.hosts()).rows == ()


async def test_who_did_what_is_told_live_and_later() -> None:
    async with suspended() as (engine, client):
        seen: dict[int, str] = {}

        async def follow() -> None:
            async for one in client.follow():
                seen[one.seq] = one.kind

        following = asyncio.create_task(follow())
        try:
            await until(lambda: bool(engine.events._followers))
            await client.ask(Retry(filter="id=1"))
            await client.ask(Check())
            await until(lambda: "checked" in seen.values())
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        told = [(one.kind, one.by) for one in await client.events(limit=2)]
    assert list(seen.values()) == [kind for kind, _ in told]
    assert "engine" not in {by for _, by in told}


async def test_a_console_that_follows_does_not_keep_the_engine_from_stopping() -> None:
    with short_folder() as folder:
        async with running(Path(folder)) as (engine, client):
            following = asyncio.create_task(_all(client))
            await until(lambda: bool(engine.events._followers))
            async with asyncio.timeout(PATIENCE):
                await engine.stop()
            assert await following in (["stopped"], [])
        assert not control_socket(Path(folder)).exists()


async def _all(client: Client) -> list[str]:
    return [one.kind async for one in client.follow()]
