"""58. A result is recorded, held with its warning, or kept until it can be: nothing is sent again for it, or stuck."""

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from engine.delivery.chooser import Chosen
from engine.delivery.relayer import ManagedRelayer
from engine.model.verbs import MarkBad, MarkGood, Resume, Suspend
from engine.queue.errors import QueueBusy, QueueError, QueueFull
from engine.queue.sqlite.arrivals import Arrivals
from engine.queue.sqlite.claims import Claims
from engine.queue.sqlite.database import Role
from engine.queue.sqlite.marks import Marks
from engine.queue.sqlite.standing import Standing
from engine.queue.sqlite.writer import Writer
from engine.sandbox.exchanges import Exchange
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests import store
from tests.scenarios.relaying import Relay
from tests.waiting import until

pytestmark = store.only("sqlite")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in real time is waited for briefly."""
    monkeypatch.setattr("engine.delivery.attempt._STORE_PAUSE", 0.02)
    monkeypatch.setattr("engine.delivery.relayer._LAST_SECONDS", 0.2)


@pytest.fixture
async def exchange(internet: Internet) -> Exchange:
    (exchange,) = await internet.add("good.example", mx=[(10, "mx.good.example", Healthy())])
    return exchange


async def at_rest(relay: Relay) -> None:
    for _ in range(6):
        await relay.later(700)


async def test_a_result_that_the_store_refuses_is_held_with_its_warning_and_not_sent_again(
    exchange: Exchange, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise QueueError("the queue could not be written: CHECK constraint failed")

    monkeypatch.setattr(Claims, "settle", refused)
    await relay.send("bob@good.example")
    await relay.settled()
    await at_rest(relay)
    monkeypatch.undo()
    await at_rest(relay)
    assert exchange.messages == 1
    (entry,) = await relay.entries()
    assert (entry.state, entry.ordered, entry.by) == ("held", "hold", "engine")
    assert entry.note.startswith("its result cannot be recorded (the queue could not be written: CHECK constraint")
    assert entry.note.endswith("; the peer may have taken it")
    assert [event.kind for event in await relay.events("damaged")] == ["damaged"]


async def test_a_result_that_can_be_neither_recorded_nor_held_is_kept_and_recorded_later(
    exchange: Exchange, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object) -> None:
        raise QueueError("no")

    for name in ("settle", "set_aside"):
        monkeypatch.setattr(Claims, name, refused)
    await relay.send("bob@good.example")
    await relay.settled()
    await at_rest(relay)
    assert exchange.messages == 1
    health = await relay.client.health()
    assert (health.state, health.trouble) == ("sick", "1 result of attempts not recorded yet: no")
    monkeypatch.undo()
    await at_rest(relay)
    assert exchange.messages == 1
    assert await relay.entries() == ()
    assert len(await relay.events("delivered")) == 1
    assert (await relay.client.health()).trouble == ""


async def test_what_was_not_recorded_when_its_connection_was_closed_is_recorded_once_the_store_is_free(
    exchange: Exchange, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: object) -> None:
        raise QueueBusy("another program holds the queue")

    monkeypatch.setattr(Claims, "settle", busy)
    await relay.send("bob@good.example")
    await until(lambda: exchange.messages == 1)
    (relayer,) = relay.engine.smarthost.managed
    await relay.engine.smarthost.close(relayer.id, "oncall")
    assert relay.engine.smarthost.managed == {}
    (entry,) = await relay.entries()
    assert entry.state == "relaying"
    await relay.later(100)
    assert "1 result of attempts not recorded yet: another program holds" in (await relay.client.health()).trouble
    monkeypatch.undo()
    await at_rest(relay)
    assert await relay.entries() == ()
    assert exchange.messages == 1
    assert len(await relay.events("delivered")) == 1
    assert await relay.events("interrupted") == []


async def test_a_relayer_that_is_closed_before_its_first_step_leaves_nothing_behind(
    exchange: Exchange, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    smarthost = relay.engine.smarthost
    opened = smarthost._open

    async def at_once(chosen: Chosen, ends: list[float]) -> ManagedRelayer | None:
        relayer = await opened(chosen, ends)
        if relayer is not None and relayer.close("oncall"):
            smarthost._live[relayer].cancel()
        return relayer

    with monkeypatch.context() as patch:
        patch.setattr(smarthost, "_open", at_once)
        await relay.send("bob@good.example")
        await until(lambda: len(smarthost.ended) > 0)
    assert smarthost.managed == {}
    await relay.settled()
    assert exchange.messages == 1
    assert await relay.entries() == ()


async def test_a_store_locked_by_another_program_leaves_nothing_relaying(
    exchange: Exchange, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a shell that is open on the file, while an operator closes what seems to hang."""
    relay.sqlite._database.writer._connection.execute("PRAGMA busy_timeout = 20")
    await relay.client.ask(Suspend(destination="good.example", seconds=600, note="so that all are due at once"))
    await relay.send("bob@good.example", times=60)
    with contextlib.closing(sqlite3.connect(relay.spool / "queue.db", isolation_level=None)) as shell:
        await relay.client.ask(Resume(destination="good.example"))
        await until(lambda: exchange.messages > 2)
        shell.execute("BEGIN IMMEDIATE")
        await until(lambda: "its result waits to be recorded: another program holds the queue" in caplog.text)
        assert relay.engine.smarthost.managed
        for relayer, task in list(relay.engine.smarthost._live.items()):
            assert relayer.close("oncall")
            task.cancel()
        await until(lambda: not relay.engine.smarthost.managed)
        shell.execute("ROLLBACK")
    await at_rest(relay)
    assert await relay.entries() == ()
    assert exchange.messages == 60
    assert len(await relay.events("delivered")) == 60


@pytest.mark.parametrize("seed", range(6))
async def test_a_store_locked_at_any_moment_leaves_nothing_relaying_and_sends_no_result_again(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    monkeypatch.setattr("engine.delivery.relayer._LAST_SECONDS", 0.01)
    exchanges = [
        (await internet.add(f"d{number}.example", mx=[(10, f"mx.d{number}.example", Healthy())]))[0]
        for number in range(4)
    ]
    await relay.client.ask(Suspend(destination="*", seconds=600, note="so that all are due at once"))
    for number in range(40):
        await relay.send(f"u{number}@d{number % 4}.example")
    do = Writer.do
    locked = False

    async def moody(writer: Writer, operation: Callable[..., Any], weight: int = 0) -> Any:
        await asyncio.sleep(draw.choice([0, 0, 0.001]))
        if locked:
            raise QueueBusy("another program holds the queue")
        return await do(writer, operation, weight)

    monkeypatch.setattr(Writer, "do", moody)
    await relay.client.ask(Resume(destination="*"))
    for _ in range(25):
        locked = draw.random() < 0.6
        await asyncio.sleep(draw.uniform(0, 0.03))
        for relayer in list(relay.engine.smarthost.managed):
            if draw.random() < 0.3 and relayer.close("oncall"):
                relay.engine.smarthost._live[relayer].cancel()
        relay.engine.smarthost.wake()
    locked = False
    await until(lambda: not relay.engine.smarthost.managed)
    monkeypatch.undo()
    await at_rest(relay)
    assert await relay.entries() == ()
    copies = Counter(recipient for one in exchanges for each in one.delivered for recipient in each.recipients)
    assert set(copies) == {f"u{number}@d{number % 4}.example" for number in range(40)}
    flagged = {event.recipient for event in await relay.events("interrupted")}
    flagged |= {
        e.recipient for e in await relay.events("deferred") if e.outcome is not None and e.outcome.may_duplicate
    }
    assert {name for name, count in copies.items() if count > 1} <= flagged


@pytest.mark.parametrize("error", [QueueError, QueueFull, QueueBusy, KeyError])
@pytest.mark.parametrize(
    ("role", "method"),
    [
        *((Claims, name) for name in ("settle", "put_back", "set_aside", "due_sites", "overdue", "untold", "relaying")),
        *((Standing, name) for name in ("unblock_site", "unblock", "block", "block_site", "note_destination")),
        (Arrivals, "record"),
        (Marks, "remove"),
    ],
)
async def test_a_fault_at_any_record_costs_no_copy_and_strands_nothing(
    internet: Internet,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    role: type[Role],
    method: str,
    error: type[Exception],
) -> None:
    (exchange,) = await internet.add("back.example", mx=[(10, "mx.back.example", Dead())])
    for number in range(5):
        await relay.send(f"u{number}@back.example")
    await relay.settled()
    await exchange.become(Healthy())
    right = getattr(role, method)
    calls = 0

    async def faulty(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise error("injected")
        return await right(*arguments, **named)

    monkeypatch.setattr(role, method, faulty)
    smarthost = relay.engine.smarthost
    for _ in range(8):
        await relay.clock.advance(400)
        smarthost.next_check = None
        smarthost.wake()
        await until(lambda: smarthost.next_check is not None and not smarthost.managed)  # it has looked, all have ended
    monkeypatch.undo()
    await at_rest(relay)
    entries = await relay.entries()
    assert [entry.state for entry in entries if entry.state != "held"] == []
    for entry in entries:
        assert "its result cannot be recorded" in entry.note
        assert "; the peer may have taken it" in entry.note
    copies = Counter(recipient for one in exchange.delivered for recipient in one.recipients)
    assert set(copies) == {f"u{number}@back.example" for number in range(5)}
    assert max(copies.values()) == 1


async def test_what_is_relayed_by_nobody_is_put_back_and_told_as_interrupted(exchange: Exchange, relay: Relay) -> None:
    """Whatever the fault that made it so."""
    await relay.client.ask(MarkBad(host="mx.good.example", seconds=20 * 60, note="so that it waits"))
    await relay.send("bob@good.example")
    await relay.settled()
    await relay.client.ask(MarkGood(host="mx.good.example"))
    await relay.settled()
    await relay.client.ask(Suspend(destination="good.example", seconds=60, note="so that it waits"))
    await relay.send("eve@good.example")
    relay.sqlite._database.writer._connection.execute("DELETE FROM suspension")
    relay.engine.smarthost._woken.clear()
    (claim,) = await relay.engine.queue.claims.claim("good.example", 10, 999)
    assert claim.entries[0].recipient == "eve@good.example"
    for _ in range(4):
        await relay.later(31)
    assert await relay.entries() == ()
    assert Counter(r for one in exchange.delivered for r in one.recipients) == {
        "bob@good.example": 1,
        "eve@good.example": 1,
    }
    (event,) = await relay.events("interrupted")
    assert (event.recipient, event.text) == (
        "eve@good.example",
        "nobody answered for it any more: the peer may have taken it, and it may arrive twice",
    )
