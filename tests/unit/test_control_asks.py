"""A control request with a field that is not known does nothing: it may be a known one, misspelt."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from engine.control import views
from engine.model.verbs import VERBS, Check, Retry
from tests.asks import fields_of
from tests.unit.fake_relay import FakeEngine, short_folder

# A right body for each ask, by the word of its path.
BODIES = {verb.word: fields_of(verb) for verb in VERBS} | {
    "suppress": {"entries": [{"address": "bob@example.org"}]},
    "unsuppress": {"address": "bob@example.org"},
}
MISSPELT = ("dry-run", "dryRun", "newst", "")


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


class Raw:
    """Asks in HTTP whatever it is told to."""

    def __init__(self, engine: FakeEngine, session: aiohttp.ClientSession) -> None:
        self._engine = engine
        self._session = session

    async def post(self, path: str, body: object, query: str = "") -> tuple[int, views.Refusal]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self._session.post(f"http://relay{path}{query}", data=data) as response:
            return response.status, msgspec.json.decode(await response.read(), type=views.Refusal)

    def nothing_was_done(self) -> bool:
        queue = self._engine.queue
        done = (
            queue.calls,
            queue.suppression.calls,
            self._engine.mx.calls,
            queue.suspended,
            queue.rules_kept,
            queue.overridden,
        )
        return not any(done) and not self._engine.smarthost.checks


@asynccontextmanager
async def raw(engine: FakeEngine) -> AsyncIterator[Raw]:
    async with engine.serving():
        connector = aiohttp.UnixConnector(path=str(engine.socket))
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
            yield Raw(engine, session)


def paths() -> list[str]:
    with short_folder() as folder:
        server = FakeEngine(Path(folder)).server()
        return [route.path for route in (*server.acting, *server.listing)]


def test_every_path_that_acts_has_its_body_here() -> None:
    assert {path.removeprefix("/v1/") for path in paths()} == set(BODIES)


@pytest.mark.parametrize("path", paths())
async def test_a_field_that_is_not_known_is_refused_with_those_that_are(engine: FakeEngine, path: str) -> None:
    body = BODIES[path.removeprefix("/v1/")]
    async with raw(engine) as asker:
        for wrong in MISSPELT:
            status, refusal = await asker.post(path, {**body, wrong: True})
            assert (status, refusal.what, refusal.where) == (400, "there is no such field", wrong)
            assert refusal.allowed == "none" if not body else all(field in refusal.allowed for field in body)
        assert asker.nothing_was_done()


@pytest.mark.parametrize("path", paths())
async def test_a_field_in_the_query_is_not_passed_over(engine: FakeEngine, path: str) -> None:
    async with raw(engine) as asker:
        status, refusal = await asker.post(path, BODIES[path.removeprefix("/v1/")], query="?dry_run=true")
        assert (status, refusal.what, refusal.where) == (400, "what is asked stands in the body", "dry_run")
        assert asker.nothing_was_done()


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"filter": "id=7", "filter": ""}', "filter"),
        (b'{"filter": "id=7", "dry_run": true, "dry_run": false}', "dry_run"),
    ],
)
async def test_a_field_that_is_given_twice_is_refused(engine: FakeEngine, body: bytes, where: str) -> None:
    async with raw(engine) as asker:
        status, refusal = await asker.post("/v1/drop", body)
        assert (status, refusal.what, refusal.where, refusal.allowed) == (400, "given more than once", where, "once")
        assert asker.nothing_was_done()


@pytest.mark.parametrize(
    "body", [b"[" * 60_000, b'{"a":' * 10_000, b'{"filter": {"filter": 1, "filter": 2}}', b"7", b'""']
)
async def test_an_odd_body_is_refused_and_no_fault_of_ours(
    engine: FakeEngine, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw(engine) as asker:
        status, _ = await asker.post("/v1/drop", body)
        assert status == 400
        assert asker.nothing_was_done()
    assert "Traceback" not in caplog.text


async def test_what_is_written_as_it_should_be_is_done(engine: FakeEngine) -> None:
    async with engine.serving() as client:
        assert (await client.ask(Check())).verb == "check"
        await client.ask(Retry(filter="", newest=8))
    assert ("retry", "", engine.queue.calls[-1][2], 8) == engine.queue.calls[-1]


async def test_a_check_needs_no_body(engine: FakeEngine) -> None:
    async with engine.serving():
        connector = aiohttp.UnixConnector(path=str(engine.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post("http://relay/v1/check") as response,
        ):
            assert response.status == 200
    assert engine.smarthost.checks == 1


def test_an_answer_of_a_newer_engine_may_say_more() -> None:
    newer = msgspec.json.encode({**msgspec.to_builtins(views.Refusal(what="no")), "since": 1})
    assert msgspec.json.decode(newer, type=views.Refusal).what == "no"
