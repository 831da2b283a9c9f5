"""72. What befalls the store costs what it concerns: other mail goes, health says so, and a stop always ends."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from engine.control.client import Refused
from engine.model.destination import RELAY
from engine.model.verbs import Drop, Hold, Suspend
from engine.queue.sqlite import bulk, claims, overdue
from engine.queue.sqlite.writer import Writer
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Dead, Healthy
from tests import store
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.unit.queue.support import CONTENT
from tests.unit.sqlite.pages import damage
from tests.unit.sqlite.support import SqliteSpool
from tests.waiting import until, until_told

pytestmark = store.only("sqlite")

MESSAGES = 120
DOMAINS = 6


async def waiting_mail(folder: Path, clock: FakeClock) -> Path:
    """A spool in which mail for some domains waits."""
    spool = SqliteSpool(folder / "spool", clock)
    await spool.queue.open()
    await asyncio.gather(
        *(spool.add(f"u{n}@d{n % DOMAINS}.example", content=CONTENT + b"x" * 900 + b"\r\n") for n in range(MESSAGES))
    )
    await spool.queue.close()
    return spool.directory


async def homes(internet: Internet) -> None:
    for number in range(DOMAINS):
        await internet.add(f"d{number}.example", mx=[(10, f"mx{number}.example", Healthy())])
    await internet.add("example.com", mx=[(10, "mx.example.com", Healthy())])
    await internet.add("dead.example", mx=[(10, "mx.dead.example", Dead())])


@pytest.mark.parametrize(("tree", "at_least", "is_sick"), [
    ("entry", 50, True), ("body", 100, True), ("entry_due", MESSAGES, False), ("event", MESSAGES, False),
    ("destination_turn", MESSAGES, False),
])  # fmt: skip
async def test_with_one_damaged_page_the_engine_starts_and_other_mail_goes(
    internet: Internet, clock: FakeClock, tmp_path: Path, tree: str, at_least: int, is_sick: bool
) -> None:
    await homes(internet)
    folder = await waiting_mail(tmp_path, clock)
    damage(folder, tree, which=0.999 if tree == "event" else 0.5)  # events are written at the end
    async with relaying(internet, clock=clock, spool=folder) as relay:
        await relay.send("new@d1.example")
        await until(lambda: internet.messages > at_least)
        await relay.settled()
        health = await relay.client.health()
        assert (health.state == "sick") == is_sick
        assert ("smarthost check-spool --repair" in health.trouble) == is_sick
        assert "check failed" not in health.trouble
    recipients = [recipient for one in internet.delivered for recipient in one.recipients]
    assert "new@d1.example" in recipients
    assert len(set(recipients)) == len(recipients)  # nothing twice


@pytest.mark.parametrize(("tree", "lost"), [
    ("mark", ""), ("known_login", ""), ("sts_policy", ""), ("suspension", "suspensions"), ("hold_rule", "hold rules"),
    ("override", "overrides"),
])  # fmt: skip
async def test_with_a_damaged_page_of_orders_the_engine_starts_and_all_mail_goes(
    internet: Internet, clock: FakeClock, tmp_path: Path, tree: str, lost: str
) -> None:
    await homes(internet)
    folder = await waiting_mail(tmp_path, clock)
    damage(folder, tree)
    async with relaying(internet, clock=clock, spool=folder) as relay:
        await relay.send("new@d1.example")
        await until(lambda: internet.messages > MESSAGES)
        await relay.settled()
        health = await relay.client.health()
        assert (health.state == "sick") == bool(lost)
        assert not lost or f"{lost} were lost with a damaged page" in health.trouble
        assert "check failed" not in health.trouble


async def test_a_stop_ends_with_an_order_on_very_many_under_way(
    internet: Internet, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is cut short between two of its transactions, and the next start tells how far it came."""
    await homes(internet)
    folder = await waiting_mail(tmp_path, clock)
    monkeypatch.setattr("engine.queue.bulk.CHUNK", 1)
    monkeypatch.setattr("engine.queue.sqlite.database.STOP_SECONDS", 0.1)
    chunks = _slowed(monkeypatch)
    async with relaying(internet, clock=clock, spool=folder) as relay:
        await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note=""))
        asked = asyncio.ensure_future(relay.client.ask(Hold(filter="domain=d1.example", note="")))
        await until(lambda: len(chunks) > 2)
        async with asyncio.timeout(20):
            await relay.engine.stop(drain=0.1)
        await asyncio.gather(asked, return_exceptions=True)
        assert len(chunks) < 20
    monkeypatch.undo()
    async with relaying(internet, clock=clock, spool=folder) as relay:
        assert any("(cut short: the engine" in event.text for event in await relay.events("held"))


async def test_a_drop_on_very_many_is_carried_out_between_other_mail_and_goes_on_after_a_stop(
    internet: Internet, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (claims, overdue):
        monkeypatch.setattr(module, "DROPS_AT_ONCE", 2)
    await homes(internet)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await relay.send(*(f"u{number}@dead.example" for number in range(90)))
        await relay.settled()
        ordered = await relay.client.ask(Drop(filter="domain=dead.example", note="", now=True))
        await relay.send("healthy@example.com")
        await until(lambda: internet.messages == 1)
        assert ordered.operation is not None
        await relay.engine.stop(drain=0.1)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        await until_told(relay.entries, lambda left: not left)
        (told,) = await relay.events("carried out")
        assert "(90 recipients) dropped" in told.text


async def test_when_the_writer_has_ended_health_says_so_clients_have_an_answer_and_a_stop_ends(
    internet: Internet, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await homes(internet)
    async with relaying(internet, clock=clock, spool=tmp_path / "spool") as relay:
        monkeypatch.setattr(Writer, "_commit", _ends)
        with pytest.raises(Exception, match="451"):
            await relay.send("a@example.com")
        health = await relay.client.health()
        assert (health.state, "its writer has ended" in health.trouble) == ("sick", True)
        with pytest.raises(Refused):
            await relay.client.ask(Hold(filter="domain=example.com", note=""))
        async with asyncio.timeout(20):
            await relay.engine.stop(drain=0.1)


def _ends(*_: Any, **__: Any) -> NoReturn:
    raise SystemExit(1)


def _slowed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    chunks: list[object] = []
    do = Writer.do

    async def slowly(self: Writer, operation: Callable[..., Any], weight: int = 0) -> Any:
        if getattr(operation, "func", None) is bulk._do:
            chunks.append(operation)
            await asyncio.sleep(0.1)
        return await do(self, operation, weight)

    monkeypatch.setattr(Writer, "do", slowly)
    return chunks
