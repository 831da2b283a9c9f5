"""Figures for a monitoring system."""

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.model.event import Event
from engine.queue.errors import QueueError
from tests.unit.fake_relay import NOW, FakeEngine, node, short_folder


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with short_folder() as folder:
        yield FakeEngine(Path(folder))


async def scrape(engine: FakeEngine) -> dict[str, float]:
    """Each sample by its name and labels, as a scrape reads it."""
    connector = aiohttp.UnixConnector(path=str(engine.socket))
    async with (
        engine.serving(),
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://relay/metrics") as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_scrape_reads_queue_connections_and_bad_hosts(engine: FakeEngine) -> None:
    figures = await scrape(engine)
    assert figures["smarthost_queue_recipients waiting"] == 12_480
    assert figures["smarthost_queue_recipients held"] == 1
    assert figures["smarthost_queue_recipients relaying"] == 14
    assert figures["smarthost_due_recipients"] == 310
    assert figures["smarthost_oldest_seconds"] == 8040
    assert figures["smarthost_connections"] == 2
    assert figures["smarthost_connections_allowed"] == 20
    assert figures["smarthost_bad_hosts"] == 2
    assert figures["smarthost_state relaying"] == 1
    assert figures["smarthost_state sick"] == 0


async def test_a_scrape_counts_events_by_kind_since_the_start(engine: FakeEngine) -> None:
    engine.events.publish(
        [Event(at=NOW, kind="accepted"), Event(at=NOW, kind="accepted"), Event(at=NOW, kind="delivered")]
    )
    figures = await scrape(engine)
    assert figures["smarthost_events_total accepted"] == 2
    assert figures["smarthost_events_total delivered"] == 1
    assert figures["smarthost_accepted_per_second"] == pytest.approx(0.2)


async def test_a_sick_engine_can_be_scraped(engine: FakeEngine) -> None:
    engine.queue.fails = QueueError("disk I/O error")
    figures = await scrape(engine)
    assert figures["smarthost_state sick"] == 1


async def test_a_scrape_says_which_node_it_is_of_and_how_many_there_are(engine: FakeEngine) -> None:
    assert not any("node" in name or "lease" in name for name in await scrape(engine))
    nodes = engine.queue.nodes
    nodes.name, nodes.lease = "a", 21.5
    nodes.there = [node("a", is_this=True), node("b", drained_at=NOW), node("c", is_lost=True)]
    engine.relay.colleagues.forget()
    figures = await scrape(engine)
    assert figures["smarthost_node_info a 0.1.0"] == 1
    assert [figures[f"smarthost_nodes {state}"] for state in ("live", "lost", "drained")] == [2, 1, 1]
    assert figures["smarthost_lease_seconds"] == 21.5
