"""Several nodes on one database: each entry is one node's, what one loses others take up, what all see is right."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.model.claim import Claim
from engine.model.destination import Suspension
from engine.model.filter import Filter
from engine.model.node import MARKS, QUEUED, News
from engine.queue.errors import NotRunning, QueueBusy, QueueError
from engine.queue.postgres.connection import Server, connect
from engine.queue.postgres.database import READERS
from engine.queue.postgres.store import PostgresQueue
from engine.queue.postgres.transaction import Snapshot
from tests import postgres
from tests.clock import FakeClock
from tests.unit.queue.support import ALL, DELIVERED, LATER, Spool, new_message
from tests.waiting import until

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

Opening = Callable[..., Awaitable[Spool]]


@pytest.fixture
async def server(tmp_path: Path) -> Server:
    cluster = await asyncio.to_thread(postgres.cluster)
    return Server(await cluster.database(tmp_path))


@pytest.fixture
async def node(server: Server) -> AsyncIterator[Opening]:
    """Opens a node of a name; its heart beats once, and then no more unless it is given a shorter pause."""
    opened: list[Spool] = []
    clock = FakeClock()

    async def open_node(name: str, **settings: Any) -> Spool:
        spool = Spool(
            PostgresQueue(server.dsn, clock, node=name, **{"heartbeat": 100.0, "takeover": 300.0, **settings}), clock
        )
        opened.append(spool)
        await spool.queue.open()
        return spool

    yield open_node
    for spool in opened:
        await spool.queue.close()


async def ask(server: Server, query: str, *values: object) -> list[Any]:
    connection = await connect(server)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


async def freeze(server: Server, spool: Spool) -> None:
    """A node is heard of no more, and its lease has ended."""
    assert isinstance(spool.queue, PostgresQueue)
    await spool.queue._pulse.stop()
    await ask(server, "UPDATE node SET until = 0 WHERE name = $1", spool.queue.node.name)


async def take_over(spool: Spool) -> None:
    """What a node does at each of its heartbeats."""
    assert isinstance(spool.queue, PostgresQueue)
    await spool.queue._take_over()


async def assert_counted(server: Server) -> None:
    """That counts and edges of all destinations are those of their entries."""
    wrong = await ask(
        server,
        "SELECT d.name, d.waiting, d.held, d.relaying, d.edge, c.* FROM destination d CROSS JOIN LATERAL "
        "(SELECT count(*) FILTER (WHERE state = 'waiting') AS w, count(*) FILTER (WHERE state = 'held') AS h, "
        "count(*) FILTER (WHERE state = 'relaying') AS r, min(due) FILTER (WHERE state = 'waiting') AS first "
        "FROM entry WHERE destination = d.name) c "
        "WHERE (d.waiting, d.held, d.relaying) <> (c.w, c.h, c.r) OR d.edge IS DISTINCT FROM c.first",
    )
    assert wrong == []


async def test_what_one_takes_in_another_sees_and_sends(server: Server, node: Opening) -> None:
    a, b = await node("a"), await node("b")
    number = await a.add("x@example.org")
    (claim,) = await b.claim()
    assert claim.message == number
    assert await a.claim() == []
    await b.settle(claim, DELIVERED)
    assert await a.entries() == ()
    (event,) = await a.queue.listing.events()
    assert (event.kind, event.node) == ("accepted", "a")
    await assert_counted(server)


async def test_a_name_is_one_engines(server: Server, node: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.queue.postgres.writer.NAME_SECONDS", 0.1)
    await node("a")
    second = PostgresQueue(server.dsn, FakeClock(), node="a")
    with pytest.raises(QueueError, match='another engine is node "a" of the queue'):
        await second.open()


async def test_what_a_lost_node_had_is_put_back_as_interrupted_and_its_results_are_refused(
    server: Server, node: Opening
) -> None:
    a, b = await node("a"), await node("b")
    await a.add("x@example.org")
    await a.add("y@example.org")
    (first, second) = await b.claim()
    await freeze(server, b)
    await take_over(a)
    told = await a.queue.listing.events()
    assert [(event.kind, event.node) for event in told][2:] == [("node lost", "a"), *[("interrupted", "a")] * 2]
    assert [event.text for event in told[3:]] == ["node b was lost while it was being relayed"] * 2
    assert {entry.state for entry in await a.entries()} == {"waiting"}
    (again, other) = await a.claim()
    assert again.entries[0].attempt > first.entries[0].attempt
    # The lost one comes back with a result. It is refused; and that it has begun a new life is told.
    with pytest.raises(NotRunning):
        await b.settle(first, DELIVERED)
    await b.queue.claims.put_back([second], "stopped")  # which it may say as often as it likes
    assert {entry.state for entry in await a.entries()} == {"relaying"}
    await a.settle(again, DELIVERED)
    await a.settle(other, LATER, after=60.0)
    assert [entry.state for entry in await b.entries()] == ["waiting"]
    await assert_counted(server)


async def test_a_lost_node_holds_nothing_and_begins_a_new_life(server: Server, node: Opening) -> None:
    a, b = await node("a"), await node("b", heartbeat=0.3)
    await a.add("x@example.org")
    (claim,) = await b.claim()
    assert b.queue.claims.holds(claim)
    assert not a.queue.claims.holds(claim)
    assert isinstance(b.queue, PostgresQueue)
    before = b.queue.node.epoch
    await ask(server, "UPDATE node SET is_lost = TRUE WHERE name = 'b'")
    await until(lambda: isinstance(b.queue, PostgresQueue) and b.queue.node.epoch > before)
    assert not b.queue.claims.holds(claim)
    await until(lambda: any(event.kind == "interrupted" for event in b.events))
    (new,) = await b.claim()
    assert b.queue.claims.holds(new)
    await b.settle(new, DELIVERED)


async def test_a_node_that_the_database_does_not_hear_holds_nothing_after_its_lease(server: Server) -> None:
    now = 1000.0
    queue = PostgresQueue(server.dsn, FakeClock(), node="a", heartbeat=100.0, takeover=300.0)
    queue.node._clock = lambda: now
    await queue.open()
    try:
        await queue.arrivals.enqueue(new_message("x@example.org"))
        (claim,) = await queue.claims.claim("example.org", 1, 1)
        now += 249.0
        assert queue.claims.holds(claim)
        assert queue.trouble == ""
        now += 1.1  # others take over after 300
        assert not queue.claims.holds(claim)
        await queue.claims.put_back([claim], "its lease has ended")
        # Nor does it claim, although it could write that: it would dial the peer and leave it, again and again.
        assert await queue.claims.claim("example.org", 1, 1) == []
        assert await queue.claims.claim_site("@example.org", 1, 1) == []
        with pytest.raises(QueueBusy):
            await queue.arrivals.enqueue(new_message("x@example.org"))
        assert queue.trouble == "node a was not heard of by the database for too long: it sends nothing"
    finally:
        await queue.close()


async def test_what_a_node_left_when_it_was_closed_is_the_others_at_once(server: Server, node: Opening) -> None:
    a, b = await node("a"), await node("b")
    await b.add("x@example.org")
    assert len(await b.claim()) == 1
    await b.queue.close()
    await take_over(a)
    assert len(await a.claim()) == 1
    assert await ask(server, "SELECT name FROM node") == [("a",)]


async def test_the_others_hear_what_concerns_them(node: Opening) -> None:
    a, b = await node("a"), await node("b")
    heard: list[News] = []
    own: list[News] = []
    b.queue.on_news, a.queue.on_news = heard.append, own.append
    await a.add("x@example.org")
    await until(lambda: QUEUED in heard)
    await a.queue.standing.suspend(Suspension(destination="example.org", since=0.0, until=2e9, by="me", note=""))
    await a.queue.standing.resume("example.org", "me")
    await until(lambda: News("resumed", "example.org") in heard)
    await a.queue.marks.remove("mx.example.org", "engine")
    await a.queue.orders.hold(ALL, "me", "")
    assert MARKS not in heard  # there was none
    assert own == []


async def test_keys_of_the_drop_folder_are_each_nodes_own(node: Opening) -> None:
    a, b = await node("a"), await node("b")
    first = await a.add("x@example.org", key="drop:mail:1:2:3")
    second = await b.add("y@example.org", key="drop:mail:1:2:3")
    assert first != second
    assert await a.add("x@example.org", key="drop:mail:1:2:3") == first
    await a.queue.arrivals.forget_key("drop:mail:1:2:3")
    assert await b.add("y@example.org", key="drop:mail:1:2:3") == second


async def test_three_nodes_at_the_same_mail_send_each_once_and_count_right(server: Server, node: Opening) -> None:
    nodes = [await node(name) for name in "abc"]
    domains = [f"d{number}.example" for number in range(7)]
    sent: Counter[tuple[int, int]] = Counter()

    async def bring(spool: Spool, seed: int) -> None:
        for number in range(25):
            some = [f"u{number}@{domains[(seed + number * step) % 7]}" for step in (1, 2, 3)]
            await spool.add(*some)

    async def send(spool: Spool, seed: int) -> None:
        for number in range(60):
            for claim in await spool.claim(domains[(seed + number) % 7], 5):
                tried = claim.entries[0].attempts
                if (claim.message + tried) % 3:
                    await spool.settle(claim, DELIVERED)
                    sent.update((claim.message, entry.number) for entry in claim.entries)
                else:
                    await spool.settle(claim, LATER, after=0.0)

    async def order(spool: Spool) -> None:
        for _ in range(5):
            await spool.queue.orders.hold(Filter.parse("domain=d3.example"), "me", "wait")
            await spool.queue.orders.release(ALL, "me")
            await spool.queue.standing.block("d2.example", 5.0, "no", failed=False)
            await spool.queue.standing.unblock(["d2.example"])
            await spool.queue.claims.overdue(10)

    await asyncio.gather(
        *(bring(spool, seed) for seed, spool in enumerate(nodes)),
        *(send(spool, seed) for seed, spool in enumerate(nodes)),
        *(order(spool) for spool in nodes),
    )
    await assert_counted(server)
    await nodes[0].queue.orders.release(ALL, "me")
    while left := [claim for domain in domains for claim in await nodes[1].claim(domain)]:
        for claim in left:
            await nodes[1].settle(claim, DELIVERED)
            sent.update((claim.message, entry.number) for entry in claim.entries)
    assert len(sent) == 3 * 25 * 3
    assert set(sent.values()) == {1}
    assert await nodes[2].entries() == ()
    await assert_counted(server)
    numbers = [event.seq for event in await nodes[2].queue.listing.events(limit=5000)]
    assert numbers == sorted(numbers)


async def test_what_is_told_is_told_once(node: Opening) -> None:
    a, b = await node("a"), await node("b")
    await a.add("x@example.org", "y@example.org", sender="me@example.net")
    (claim,) = await a.claim()
    refused = LATER
    await a.queue.orders.give_up("bounce", ALL, "me", "", 0.0)
    await a.settle(claim, refused, after=0.0)
    claims: list[Claim] = []
    while not claims:  # who meets the other at it leaves it to him, who may be past this part of it
        for found in await asyncio.gather(a.queue.claims.overdue(10), b.queue.claims.overdue(10)):
            claims += found
    assert len(claims) == 1
    assert await a.queue.claims.overdue(10) + await b.queue.claims.overdue(10) == []


async def test_who_is_drained_has_no_part_of_what_is_shared_once_what_it_sent_has_ended(
    server: Server, node: Opening
) -> None:
    a, b = await node("a", heartbeat=0.3), await node("b")
    await until(lambda: a.queue.share.nodes == 2)
    await a.queue.nodes.drain("b", "me")
    await until(lambda: b.queue.nodes.is_drained)
    assert a.queue.share.nodes == 2
    await ask(server, "UPDATE drained SET since = since - 301")
    await until(lambda: a.queue.share.nodes == 1)
    await a.queue.nodes.undrain("b", "me")
    await until(lambda: a.queue.share.nodes == 2)


async def test_a_heart_beats_on_while_questions_and_the_writer_hang(node: Opening) -> None:
    a = await node("a", heartbeat=0.2, takeover=1.2)
    assert isinstance(a.queue, PostgresQueue)
    may_end = asyncio.Event()

    async def hang(_: Snapshot) -> None:
        await may_end.wait()

    hanging = [asyncio.ensure_future(a.queue._database.ask(hang)) for _ in range(READERS)]
    hanging.append(asyncio.ensure_future(a.queue._database.do(hang)))
    left = []
    for _ in range(30):
        await asyncio.sleep(0.05)
        left.append(a.queue.node.left)
    may_end.set()
    await asyncio.gather(*hanging, return_exceptions=True)
    assert min(left) > 0
