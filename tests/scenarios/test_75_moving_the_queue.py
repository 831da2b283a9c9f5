"""75. A queue is moved: mail taken in on one store is delivered from the other, once, however the move is ended."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from engine.engine import CannotStart
from engine.model.destination import RELAY
from engine.model.verbs import Resume, Suspend
from engine.queue import moving
from engine.queue.spool import Spool
from engine.queue.sqlite.store import FILE
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import QueueStore
from tests import postgres
from tests.clock import FakeClock
from tests.scenarios.relaying import relaying
from tests.unit.queue.support import new_message

pytestmark = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "it is there")

HERE = QueueStore()


@pytest.fixture
async def store(tmp_path: Path) -> QueueStore:
    server = await asyncio.to_thread(postgres.cluster)
    return QueueStore(store=await server.database(tmp_path))


async def run(source: str | Path, target: str | Path, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["move-queue", str(source), str(target), *words])


async def test_mail_taken_in_here_is_delivered_from_there(
    internet: Internet, clock: FakeClock, store: QueueStore, tmp_path: Path
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note="moving"))
        numbers = [await relay.enqueue(new_message(f"a{place}@example.org")) for place in range(20)]
        refused = await run(spool, store.store)
        assert refused.exit_code == 1
        assert refused.stderr == f"{spool}: an engine with pid {os.getpid()} owns this spool; stop it first\n"
    result = await run(spool, store.store)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"20 messages moved from {spool} to {store.store}; nothing is left there\n"
    async with relaying(internet, clock=clock, spool=spool, queue=store) as relay:
        assert [entry.message for entry in await relay.entries()] == numbers
        assert internet.messages == 0, "the suspension has come along"
        refused = await run(store.store, tmp_path / "other")
        assert refused.exit_code == 1
        assert "an engine has this queue open (node " in refused.stderr
        await relay.client.ask(Resume(destination=RELAY))
        await internet.wait_for(20)
        await relay.settled()
        assert await relay.entries() == ()
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        assert await relay.entries() == ()
    assert Counter(one.recipients[0] for one in internet.delivered) == {
        f"a{place}@example.org": 1 for place in range(20)
    }


async def test_no_engine_starts_on_a_queue_that_is_half_moved_until_that_is_done_or_abandoned(
    internet: Internet, clock: FakeClock, store: QueueStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 2)
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note="moving"))
        for place in range(6):
            await relay.enqueue(new_message(f"a{place}@example.org"))
    whole = moving._write
    batches = iter((1, 2))

    async def stopped(*values: object, **named: object) -> None:
        await whole(*values, **named)  # type: ignore[arg-type]
        if next(batches) == 2:
            raise KeyboardInterrupt  # as Ctrl-C: in the other queue, and in this one still

    with monkeypatch.context() as patched:
        patched.setattr(moving, "_write", stopped)
        result = await run(spool, store.store)
    command = moving.command_of(str(spool), store.store)
    assert (result.exit_code, result.stderr) == (1, f"stopped; `{command}` goes on with it\n")
    with pytest.raises(CannotStart) as refused:
        async with relaying(internet, clock=clock, spool=spool, queue=HERE):
            raise AssertionError("it started")
    assert str(refused.value) == (
        f"the queue {spool} is being moved to {store.store}, and no engine may open it until that is over: "
        f"`{command}` goes on with it; `{command} --abandon` ends it, and leaves here what has not been moved yet"
    )
    result = await run(spool, store.store, "--abandon")
    assert (result.exit_code, result.stdout) == (
        0,
        f"ended: what was moved is in {store.store}, the rest is in {spool}\n",
    )
    for queue, there in ((HERE, 2), (store, 4)):
        async with relaying(internet, clock=clock, spool=spool, queue=queue) as relay:
            assert len(await relay.entries()) == there
            await relay.client.ask(Resume(destination=RELAY))
            await internet.wait_for({2: 2, 4: 6}[there])
            await relay.settled()
    assert Counter(one.recipients[0] for one in internet.delivered) == {
        f"a{place}@example.org": 1 for place in range(6)
    }


async def test_a_process_that_is_killed_or_told_to_stop_loses_and_doubles_nothing(
    internet: Internet, clock: FakeClock, store: QueueStore, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note="moving"))
        for place in range(300):
            await relay.enqueue(new_message(f"a{place}@example.org"))
        before = await relay.entries()
    program = (
        "import engine.moving, engine.queue.moving\n"
        "engine.moving.TOLD_EVERY, engine.queue.moving.MESSAGES_AT_ONCE = 0, 2\n"
        "from console.entry import main; main()"
    )
    # The first line it tells is of the first batch: what comes is in the middle of all that.
    for how in (signal.SIGKILL, signal.SIGINT):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, "move-queue", str(spool), store.store,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert b"moved" in await process.stdout.readline()
        process.send_signal(how)
        _, said = await process.communicate()
        assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 1)
        assert (b"goes on with it" in said) == (how == signal.SIGINT)
    result = await run(spool, store.store)
    assert result.exit_code == 0, result.stderr
    async with relaying(internet, clock=clock, spool=spool, queue=store) as relay:
        assert [(one.message, one.recipient) for one in await relay.entries()] == [
            (one.message, one.recipient) for one in before
        ]


async def test_what_cannot_be_read_is_named_and_left_in_a_queue_of_its_own(
    internet: Internet, clock: FakeClock, store: QueueStore, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        await relay.client.ask(Suspend(destination=RELAY, seconds=3600, note="moving"))
        for place in range(3):
            await relay.enqueue(new_message(f"a{place}@example.org"))
    with closing(sqlite3.connect(spool / FILE)) as connection, connection:
        connection.execute("UPDATE body SET content = zeroblob(length(content)) WHERE message = 2")
    command = moving.command_of(str(spool), store.store)
    result = await run(spool, store.store)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "message 2: its content is not what came",
        f"2 messages moved from {spool} to {store.store}; 1 message stays, which cannot be read",
        f"repair that and run `{command}` again; or have it a queue as before with `{command} --abandon`",
    ]
    result = await run(spool, store.store, "--lost")
    told = f"ended: what was not moved, and perhaps some of what was, is in {spool}\n"
    assert (result.exit_code, result.stdout) == (0, told)
    async with relaying(internet, clock=clock, spool=spool, queue=HERE) as relay:
        assert [entry.message for entry in await relay.entries()] == [2]
    result = await run(spool, store.store, "--abandon")
    assert (result.exit_code, result.stderr) == (1, f"{spool} is not being moved: there is nothing to abandon\n")


def test_what_cannot_be_moved_is_told_and_changes_nothing(tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        result = CliRunner().invoke(app, ["move-queue", *words])
        assert result.exit_code == 1
        return result.stderr

    here, there = str(tmp_path / "a"), str(tmp_path / "b")
    assert refused(here, there) == f"{here}: there is no queue in it (queue.db)\n"
    assert refused(here, here) == f"{here}: this is the queue it is to be moved to\n"
    assert "write it into a file, and name that in --password-file" in refused(here, "postgresql://a:secret@b/c")
    assert refused(here, there, "--password-file", f"{here}/none").endswith(": No such file or directory\n")
    assert not list(tmp_path.iterdir())
    with Spool(tmp_path / "b"):
        assert "there is no queue in it" in refused(here, there)
