"""What the control socket refuses, and that every refusal says what is wrong, where, and what is allowed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from engine.control import views
from engine.control.client import Client, EngineUnreachable, Refused
from engine.model.verbs import Suspend
from engine.queue.errors import QueueError
from tests.unit.fake_relay import FakeEngine, short_folder


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


class Raw:
    """Asks in HTTP without the client's good manners."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, **request: Any) -> tuple[int, views.Refusal]:
        async with self._session.request(method, f"http://relay{path}", **request) as response:
            return response.status, msgspec.json.decode(await response.read(), type=views.Refusal)

    async def status(self, method: str, path: str, **request: Any) -> int:
        async with self._session.request(method, f"http://relay{path}", **request) as response:
            return response.status


@asynccontextmanager
async def raw(engine: FakeEngine, **options: Any) -> AsyncIterator[Raw]:
    async with engine.serving(**options):
        connector = aiohttp.UnixConnector(path=str(engine.socket))
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Raw(session)


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/v1/queue?limit=0", "limit"),
        ("/v1/queue?limit=1001", "limit"),
        ("/v1/queue?limit=ten", "limit"),
        ("/v1/queue?limit=%D9%A3", "limit"),
        ("/v1/queue?offset=-1", "offset"),
        ("/v1/queue?offset=99999999999999999999", "offset"),
        ("/v1/queue?offset=1&offset=2", "offset"),
        ("/v1/queue?sort=colour", "sort"),
        ("/v1/queue?sort=--id", "sort"),
        ("/v1/queue?colour=red", "colour"),
        ("/v1/queue?filter=colour%3Dred", "filter: colour=red"),
        ("/v1/overview?destinations=0", "destinations"),
        ("/v1/overview?events=1001", "events"),
        ("/v1/destinations?sort=-due_at", "sort"),
        ("/v1/destinations?match=" + "x" * 201, "match"),
        ("/v1/destinations/not%20a%20domain", "destination"),
        ("/v1/relayers?ended=-1", "ended"),
        ("/v1/relayers/first", "id"),
        ("/v1/messages/7.1", "id"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?after=x", "after"),
        ("/v1/health?verbose=1", "verbose"),
        ("/metrics?verbose=1", "verbose"),
    ],
)
async def test_a_wrong_query_is_refused_with_what_is_allowed(engine: FakeEngine, path: str, where: str) -> None:
    async with raw(engine) as asker:
        status, refusal = await asker.ask("GET", path)
    assert status == 400
    assert refusal.where == where
    assert refusal.what
    assert refusal.allowed
    assert engine.queue.calls == []


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/drop", "", ""),
        ("/v1/drop", "{", ""),
        ("/v1/drop", "[]", ""),
        ("/v1/drop", "{}", ""),
        ("/v1/drop", '{"filter": "\udcff"}', ""),
        ("/v1/drop", '{"filter": 7}', "filter"),
        ("/v1/drop", '{"filter": "id=7", "dry_run": 1}', "dry_run"),
        ("/v1/drop", '{"filter": "id=7", "newest": "8"}', "newest"),
        ("/v1/drop", '{"filter": "id=7", "newest": -1}', "newest"),
        ("/v1/drop", '{"filter": "id=7", "newest": 9223372036854775808}', "newest"),
        ("/v1/drop", '{"filter": "id=seven"}', "filter: seven"),
        ("/v1/retry", '{"filter": "state=lost", "dry_run": true}', "filter: state=lost"),
        ("/v1/undo", '{"operation": -1}', "operation"),
        ("/v1/suspend", '{"destination": "example.org", "seconds": 59, "note": ""}', "seconds"),
        ("/v1/suspend", '{"destination": "example.org", "seconds": 2592001, "note": ""}', "seconds"),
        ("/v1/suspend", '{"destination": "example.org", "seconds": "1h", "note": ""}', "seconds"),
        ("/v1/suspend", '{"destination": "exa mple", "seconds": 60, "note": ""}', "destination"),
        ("/v1/suspend", '{"destination": "example.org", "seconds": 60, "note": "", "reason": ""}', "note"),
        ("/v1/suspend", '{"destination": "example.org", "seconds": 60, "reason": 7}', "note"),
        ("/v1/retry", '{"filter": "id=7", "reason": "storm"}', "reason"),
        ("/v1/resume", '{"destination": ""}', "destination"),
        ("/v1/mark-bad", '{"host": "mx1.example.org", "seconds": 1}', "seconds"),
        ("/v1/mark-bad", '{"host": "mx1 example"}', "host"),
        ("/v1/mark-bad", '{"host": "mx1..example"}', "host"),
        ("/v1/mark-bad", '{"host": "-mx1.example"}', "host"),
        ("/v1/mark-bad", '{"host": "[mx1]"}', "host"),
        ("/v1/mark-bad", '{"host": ""}', "host"),
        ("/v1/mark-good", '{"host": "x/../y"}', "host"),
    ],
)
async def test_a_wrong_body_is_refused_and_nothing_is_done(
    engine: FakeEngine, path: str, body: str, where: str
) -> None:
    async with raw(engine) as asker:
        status, refusal = await asker.ask("POST", path, data=body.encode("utf-8", "surrogateescape"))
    assert status == 400
    assert refusal.where == where
    assert refusal.what
    assert engine.queue.calls == []
    assert engine.mx.calls == []
    assert engine.queue.suspended == []


async def test_a_note_may_be_called_a_reason_for_one_more_version(engine: FakeEngine) -> None:
    async with raw(engine) as asker:
        body = b'{"destination": "example.org", "seconds": 60, "reason": "storm"}'
        assert await asker.status("POST", "/v1/suspend", data=body) == 200
    assert [each.note for each in engine.queue.suspended] == ["storm"]


async def test_what_is_refused_is_shown_without_controls(engine: FakeEngine) -> None:
    async with raw(engine) as asker:
        _, refusal = await asker.ask("POST", "/v1/mark-bad", data=msgspec.json.encode({"host": "\x1b[2J" + "x" * 9000}))
    assert "\x1b" not in refusal.what
    assert len(refusal.what) < 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/", 404, "see"),
        ("GET", "/v1/flush", 404, "see"),
        ("GET", "/v2/health", 404, "see"),
        ("GET", "/v1/drop", 405, "POST"),
        ("POST", "/v1/queue", 405, "GET, HEAD"),
        ("DELETE", "/v1/messages/7", 405, "GET, HEAD"),
    ],
)
async def test_a_wrong_path_or_method_is_refused(
    engine: FakeEngine, method: str, path: str, status: int, allowed: str
) -> None:
    async with raw(engine) as asker:
        got, refusal = await asker.ask(method, path)
    assert got == status
    assert refusal.where == f"{method} {path}"
    assert refusal.allowed.startswith(allowed)


async def test_a_body_over_the_limit_is_refused(engine: FakeEngine) -> None:
    async with raw(engine) as asker:
        status, refusal = await asker.ask("POST", "/v1/hold", data=b'{"filter": "' + b"x" * 65_536 + b'"}')
    assert (status, refusal.allowed) == (413, "up to 65536 bytes")
    assert engine.queue.calls == []


async def test_a_filter_of_many_ids_fits_into_a_query(engine: FakeEngine) -> None:
    ids = "id=" + ",".join(str(number) for number in range(100_000, 105_000))
    async with engine.serving() as client:
        await client.queue(ids)
    assert engine.queue.calls[0][1] == ids


async def test_a_store_that_fails_is_said_to(engine: FakeEngine) -> None:
    engine.queue.fails = QueueError("the disk is full")
    async with raw(engine) as asker:
        for method, path, body in (
            ("GET", "/v1/queue", None),
            ("GET", "/v1/messages/7", None),
            ("POST", "/v1/check", b"{}"),
            ("POST", "/v1/hold", b'{"filter": "id=7"}'),
        ):
            status, refusal = await asker.ask(method, path, data=body)
            assert (status, refusal.what, refusal.where) == (503, "the disk is full", "queue")


async def test_a_fault_of_ours_is_logged_and_its_inside_kept_to_ourselves(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.queue.crashes = RuntimeError("secret inside")
    with caplog.at_level(logging.ERROR):
        async with raw(engine) as asker:
            status, refusal = await asker.ask("GET", "/v1/queue")
    assert status == 500
    assert "secret" not in repr(refusal)
    assert "secret inside" in caplog.text


async def test_an_engine_that_takes_too_long_says_so(engine: FakeEngine) -> None:
    engine.queue.stalls = asyncio.Event()
    async with raw(engine, answer_within=0.05) as asker:
        status, refusal = await asker.ask("GET", "/v1/queue")
    assert status == 503
    assert "did not answer within 0.05 s" in refusal.what


async def test_a_refusal_reaches_the_client_in_one_sentence(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        with pytest.raises(
            Refused, match=r"^seconds: 5 seconds is out of range: 60 seconds \(1m\) to 2592000 \(30d\)$"
        ):
            await client.ask(Suspend(destination="example.org", seconds=5, note=""))


async def test_without_an_engine_the_client_says_where_it_looked(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        await client.health()
    async with Client(engine.socket) as lonely:
        with pytest.raises(EngineUnreachable, match=r"control\.sock"):
            await lonely.health()
