"""What is posted goes on to its end, also where nobody waits for the answer any more."""

import asyncio
from pathlib import Path
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader
from aiohttp.test_utils import make_mocked_request

from engine.intake.content import LARGE
from engine.intake.http.counter import Counter
from engine.intake.http.problem import Problem
from engine.intake.smtp.reception import Reception
from engine.queue.errors import QueueBroken, QueueBusy, QueueFull
from engine.settings.settings import Settings
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals
from tests.waiting import until

LETTER = b"From: web@shop.example\r\nTo: bob@example.org\r\n\r\n"


def posted(body: bytes) -> object:
    payload = StreamReader(Mock(_reading_paused=False), limit=2**16, loop=asyncio.get_running_loop())
    payload.feed_data(body)
    payload.feed_eof()
    headers = {"Content-Type": "message/rfc822"}
    return make_mocked_request("POST", "/v1/messages", headers, payload=payload)


@pytest.fixture
async def arrivals() -> FakeArrivals:
    return FakeArrivals()


@pytest.fixture
async def reception(arrivals: FakeArrivals, tmp_path: Path) -> Reception:
    return Reception(arrivals, Settings(hostname="relay.example.net"), FakeClock(), folder=tmp_path)


@pytest.mark.parametrize("octets", [10, 2 * LARGE])
async def test_who_goes_before_the_answer_has_posted_all_the_same(
    arrivals: FakeArrivals, reception: Reception, octets: int
) -> None:
    counter = Counter(arrivals, reception)
    arrivals.open_gate.clear()
    taking = asyncio.create_task(counter.take(posted(LETTER + b"x\r\n" * (octets // 3)), "unix uid 7"))  # type: ignore[arg-type]
    await arrivals.started.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert counter._places.total() == 1
    arrivals.open_gate.set()
    await counter.finish(30)
    await until(lambda: not counter._places)
    assert [message.recipients for message in arrivals.messages] == [("bob@example.org",)]
    assert (reception.storeroom.memory, reception.storeroom.on_disk) == (0, 0)


@pytest.mark.parametrize("error", [QueueFull("full"), QueueBusy("busy"), QueueBroken("broken")])
async def test_what_the_store_does_not_take_is_to_come_again(
    arrivals: FakeArrivals, reception: Reception, error: Exception
) -> None:
    counter = Counter(arrivals, reception)
    arrivals.fail = error
    with pytest.raises(Problem) as refused:
        await counter.take(posted(LETTER), "unix uid 7")  # type: ignore[arg-type]
    assert (refused.value.status, refused.value.retry) == (503, 60)
    assert not counter._places
