"""76. Several nodes on one queue are seen and steered as one, from any of them; and one can be taken out."""

import asyncio
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosmtplib
import pytest
from msgspec.structs import replace

from engine.control.client import Client, EngineUnreachable, Refused, view_socket
from engine.model.event import Event
from engine.model.verbs import Check, Close, Drain, Probe, Undrain
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import QueueStore
from tests import postgres
from tests.clock import FakeClock
from tests.scenarios.relaying import Relay, relaying
from tests.scenarios.test_74_database import Holding
from tests.smtp import smtp_client
from tests.waiting import until, until_told

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")


@pytest.fixture
async def store(tmp_path: Path) -> QueueStore:
    server = await asyncio.to_thread(postgres.cluster)
    return QueueStore(store=await server.database(tmp_path))


@asynccontextmanager
async def two(internet: Internet, clock: FakeClock, store: QueueStore) -> AsyncIterator[tuple[Relay, Relay]]:
    a, b = replace(store, node="a"), replace(store, node="b")
    async with relaying(internet, clock=clock, queue=a) as first, relaying(internet, clock=clock, queue=b) as second:
        yield first, second


async def carried_by(carrier: Relay, recipient: str) -> None:
    """Have this node, and not the other, be the one that sends: it is asked, and the other is busy with nothing."""
    await carrier.send(recipient)
    await until(lambda: bool(carrier.engine.smarthost.managed))


async def test_relayers_of_all_nodes_are_one_list_and_each_is_shown_closed_and_explained_at_its_own(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    peer = Holding()
    (exchange,) = await internet.add("held.example", mx=[(10, "mx.held.example", peer)])
    async with two(internet, clock, store) as (first, second):
        first.engine.smarthost.is_drained = True  # so that it is the other's, and not by chance
        await carried_by(second, "x@held.example")
        await until(lambda: exchange.sessions == 1)
        (row,) = await until_told(first.client.relayers, lambda rows: [row.node for row in rows] == ["b"])
        assert (row.destination, row.host) == ("held.example", "mx.held.example")
        assert (await first.client.overview()).relayers[0].node == "b"
        said = await first.client.transcript(row.id, "b")
        assert said.relayer.node == "b"
        assert any("EHLO" in line.text for line in said.lines)
        (explained,) = (await first.client.explain("x@held.example")).explanations
        assert explained.text.startswith(f"node b: relayer {row.id} to mx.held.example")
        (attempt,) = (await first.client.message(1)).attempts
        assert attempt.node == "b"
        (of_domain,) = (await first.client.explain("held.example")).explanations
        assert "of node b has it" in of_domain.text
        with pytest.raises(Refused, match="there is no relayer"):
            await first.client.ask(Close(relayer=row.id))  # ours has none
        with pytest.raises(Refused, match="there is no node c"):
            await first.client.ask(Close(relayer=row.id, node="c"))
        closed = await first.client.ask(Close(relayer=row.id, node="b"))
        assert closed.text.startswith(f"relayer {row.id} to mx.held.example is closed")
        events = await second.events("closed")
        assert [(event.by, event.node) for event in events] == [(getpass.getuser(), "b")]
        peer.may_answer.set()


async def test_a_node_is_asked_to_probe_and_explain_and_who_may_only_look_orders_nothing_there(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    exchange = await internet.host("mx.good.example", Healthy())
    await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    async with two(internet, clock, store) as (first, _):
        found = await first.client.probe("mx.good.example", "b")
        assert found.addresses[0].address == exchange.address
        (event,) = await first.events("probed")
        assert (event.by, event.node) == (getpass.getuser(), "b")
        assert (await first.client.explain("good.example", "b")).node == "b"
        assert (await first.client.explain("good.example")).node == "a"
        with pytest.raises(Refused, match="nonsense"):
            await first.client.explain("nonsense nonsense", "b")
        async with Client(view_socket(first.spool / "control.sock")) as viewer:
            assert (await viewer.explain("good.example", "b")).node == "b"
            assert [state.name for state in await viewer.nodes()] == ["a", "b"]
            for ask in (Probe(host="mx.good.example", node="b"), Close(relayer=1, node="b"), Drain(node="b")):
                with pytest.raises(Refused, match="way in for looking alone"):
                    await viewer.ask(ask)


async def test_a_drained_node_ends_what_it_sends_takes_no_mail_in_and_others_send_what_waits(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    peer = Holding()
    (exchange,) = await internet.add("held.example", mx=[(10, "mx.held.example", peer)])
    await internet.add("quick.example", mx=[(10, "mx.quick.example", Healthy())])
    async with two(internet, clock, store) as (first, second):
        first.engine.smarthost.is_drained = True  # so that it is the other's, and not by chance
        await carried_by(second, "x@held.example")
        await until(lambda: exchange.sessions == 1)
        door = second.engine.smtp.addresses[0]
        open_one = smtp_client(door.port, door.host)
        await open_one.connect()
        result = await first.client.ask(Drain(node="b"))
        assert result.text == (
            "node b is drained: it finishes what it sends, and takes and sends nothing more; a sends what waits"
        )
        await until(lambda: second.engine.smarthost.is_drained)
        first.engine.smarthost.is_drained = False
        with pytest.raises(Refused, match="drained already"):
            await second.client.ask(Drain(node="b"))
        health = await second.client.health()
        assert (health.state, health.node, health.nodes) == ("draining", "b", 2)
        assert any("this node was drained by" in note and "others send" in note for note in health.notes)
        # What it has in hand is finished, and recorded; new mail it sends away, also where a session was open.
        peer.may_answer.set()
        await internet.wait_for(1)
        await until(lambda: not second.engine.smarthost.managed)
        with pytest.raises(aiosmtplib.SMTPConnectResponseError, match="try another") as greeted:
            await second.send("y@quick.example")
        assert greeted.value.code == 421
        with pytest.raises(aiosmtplib.SMTPResponseException, match="try another") as asked:
            await open_one.sendmail("a@b.example", ["y@quick.example"], b"hi\r\n")
        assert asked.value.code == 421
        with pytest.raises(Refused, match="this node is drained"):
            await second.client.ask(Check())
        # What lies in its drop folder it takes all the same, for others to send.
        (second.spool / "drop" / "x.tmp").write_bytes(b"From: a@b.example\r\nTo: z@quick.example\r\n\r\nhi\r\n")
        (second.spool / "drop" / "x.tmp").rename(second.spool / "drop" / "x.eml")
        await until_told(lambda: first.events("accepted"), lambda events: len(events) == 2)
        await first.settled()
        await internet.wait_for(2)
        delivered = await first.events("delivered")
        assert [(event.recipient, event.node) for event in delivered] == [
            ("x@held.example", "b"),
            ("z@quick.example", "a"),
        ]
        await first.client.ask(Undrain(node="b"))
        await until(lambda: not second.engine.smarthost.is_drained)
        await second.send("y@quick.example")
        await internet.wait_for(3)
        assert [event.text for event in await first.events("drained")] == ["node b takes no mail and sends none"]


async def test_a_node_that_was_drained_is_so_when_it_is_started_anew(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    named = replace(store, node="b")
    async with relaying(internet, clock=clock, queue=named) as only:
        result = await only.client.ask(Drain(node="b"))
        assert result.text.endswith("no other node is there to send what waits")
    await internet.add("quick.example", mx=[(10, "mx.quick.example", Healthy())])
    async with relaying(internet, clock=clock, queue=named) as again:
        assert (await again.client.health()).state == "draining"
        with pytest.raises(aiosmtplib.SMTPConnectResponseError, match="try another"):
            await again.send("y@quick.example")
        await again.client.ask(Undrain(node="b"))
        await until(lambda: not again.engine.smarthost.is_drained)
        await again.send("y@quick.example")
        await internet.wait_for(1)


async def test_a_node_that_does_not_answer_is_named_and_nobody_waits_for_it(
    internet: Internet, clock: FakeClock, store: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.colleagues.RELAYERS_SECONDS", 0.1)
    async with two(internet, clock, store) as (first, second):

        async def hang(_: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        second.engine.queue.nodes.on_request = hang
        states = await first.client.nodes()
        assert [(state.name, state.is_this, state.is_silent) for state in states] == [
            ("a", True, False),
            ("b", False, True),
        ]
        assert "node b does not answer: its connections are not listed" in (await first.client.health()).notes
        assert await first.client.relayers() == ()


async def test_each_node_says_of_itself_what_the_others_see(
    internet: Internet, clock: FakeClock, store: QueueStore
) -> None:
    async with two(internet, clock, store) as (first, second):
        await second.client.ask(Drain(node="a"))  # upon which all hearts beat
        await until_told(first.client.nodes, lambda states: states[1].said.max_connections > 0)
        seen = {state.name: state for state in await second.client.nodes()}
        assert seen["a"].is_drained
        assert seen["a"].drained_by == getpass.getuser()
        assert seen["b"].said.state == "relaying"


async def test_who_follows_the_events_at_one_node_hears_of_each_of_all_of_them_once(
    internet: Internet, clock: FakeClock, store: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.control.streams.LOOK_EVERY", 0.05)
    await internet.add("quick.example", mx=[(10, "mx.quick.example", Healthy())])
    async with two(internet, clock, store) as (first, second):
        heard: list[Event] = []

        async def follow() -> None:
            async for event in first.client.follow():
                heard.append(event)  # noqa: PERF401 (as they come)

        following = asyncio.create_task(follow())
        await until(lambda: bool(first.engine.events._followers))
        await second.send("x@quick.example")
        await first.send("y@quick.example")
        await internet.wait_for(2)
        await until(lambda: sum(event.kind == "delivered" for event in heard) == 2)
        following.cancel()
        assert [event.node for event in heard if event.kind == "accepted"] == ["b", "a"]
        numbers = [event.seq for event in heard]
        assert numbers == sorted(set(numbers))


async def test_where_the_queue_is_one_engines_alone_nothing_is_said_of_nodes(relay: Relay) -> None:
    if relay.engine.queue.nodes.name:
        pytest.skip("of a store without nodes")
    assert await relay.client.nodes() == ()
    health = await relay.client.health()
    assert (health.node, health.nodes) == ("", 0)
    for ask in (Drain(node="a"), Undrain(node="a")):
        with pytest.raises(Refused, match="there are no nodes"):
            await relay.client.ask(ask)
    with pytest.raises((Refused, EngineUnreachable), match="no nodes"):
        await relay.client.probe("mx.example.org", "b")
