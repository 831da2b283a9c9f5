"""5. What was promised outlives the process: mail, holds, suspensions, marks; and a spool has one owner."""

import os
from pathlib import Path

import pytest

from engine.model.verbs import Hold, MarkBad, Suspend
from engine.queue.spool import Spool, SpoolOwned
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import BlackHole, Dead, Healthy
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


async def test_mail_that_waits_is_sent_after_a_restart(internet: Internet, clock: FakeClock, spool: Path) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await relay.send("bob@example.org", times=3)
        await relay.settled()
    await exchange.become(Healthy())
    await clock.advance(1000)
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await internet.wait_for(3)
        assert [event.kind for event in await relay.events("started", "stopped")] == ["started", "stopped", "started"]


async def test_holds_suspensions_and_marks_outlive_a_restart(internet: Internet, clock: FakeClock, spool: Path) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Dead())])
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await relay.send("bob@example.org")
        await relay.settled()
        await relay.client.ask(Hold(filter="", note="look"))
        await relay.client.ask(Suspend(destination="example.org", seconds=3600, note="storm"))
        await relay.client.ask(MarkBad(host="mx.example.org", seconds=600, note="broken"))
    async with relaying(internet, clock=clock, spool=spool) as relay:
        assert [entry.state for entry in await relay.entries()] == ["held"]
        assert [each.note for each in await relay.client.suspensions()] == ["storm"]
        assert [host.note for host in (await relay.client.hosts()).rows] == ["broken"]


async def test_a_stop_in_the_middle_of_a_conversation_puts_its_mail_back(
    internet: Internet, clock: FakeClock, spool: Path
) -> None:
    (exchange,) = await internet.add("example.org", mx=[(10, "mx.example.org", BlackHole())])
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await relay.send("bob@example.org")
        await relay.engine.smarthost.check_state()
    await exchange.become(Healthy())
    await clock.advance(1000)
    async with relaying(internet, clock=clock, spool=spool):
        await internet.wait_for(1)


async def test_a_second_engine_on_a_spool_is_refused_with_the_pid_of_the_first(
    internet: Internet, clock: FakeClock, spool: Path
) -> None:
    async with relaying(internet, clock=clock, spool=spool):
        with pytest.raises(SpoolOwned, match=str(os.getpid())) as refused:
            Spool(spool).__enter__()
        assert refused.value.pid == os.getpid()


async def test_the_spool_is_for_its_owner_alone(internet: Internet, clock: FakeClock, spool: Path) -> None:
    async with relaying(internet, clock=clock, spool=spool) as relay:
        await relay.send("bob@nowhere.example")
        assert spool.stat().st_mode & 0o777 == 0o700
        for file in spool.iterdir():
            if file.is_file() or file.is_socket():
                assert file.stat().st_mode & 0o077 == 0, file.name
