"""73. Whatever of the engine dies, health says so at once, it is begun anew or the engine ends, and a stop ends."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.control.client import Client, view_socket
from engine.sandbox.internet import Internet
from engine.sandbox.tempers import Healthy
from engine.settings.settings import Settings
from tests.scenarios.relaying import Relay
from tests.unit.fake_relay import short_folder
from tests.waiting import PATIENCE, until

NAMES = ("the smart host", "the drop folder's intake", "the drop folder's watch", "the look at the doors")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.base.supervision.FIRST_PAUSE", 0.2)


def tasks(name: str) -> list["asyncio.Task[object]"]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


def test_the_engine_keeps_these_running(relay: Relay) -> None:
    assert set(relay.engine.supervision.names) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
async def test_one_that_dies_is_told_in_health_and_among_the_events_and_runs_again(
    internet: Internet, relay: Relay, name: str
) -> None:
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    (task,) = tasks(name)
    relay.engine.supervision._first_pause = 0.3
    task.cancel()
    await until(lambda: task.done() and bool(relay.engine.trouble))
    health = await relay.client.health()
    assert health.state == "sick"
    assert health.trouble.startswith(f"{name} died (")
    await until(lambda: bool(tasks(name)))
    (event,) = await relay.events("sick")
    assert event.text.startswith(f"{name} died (")
    drop = relay.spool / "drop"
    (drop / ".letter").write_bytes(b"From: a@example.com\r\nTo: b@example.org\r\n\r\nhi\r\n")
    (drop / ".letter").rename(drop / "letter.eml")
    await relay.send("c@example.org")
    await relay.clock.advance(40)
    await internet.wait_for(2)
    async with asyncio.timeout(PATIENCE):
        await relay.engine.stop(drain=0.3)


@pytest.mark.parametrize("name", NAMES)
async def test_a_stop_ends_though_one_has_just_died(relay: Relay, name: str) -> None:
    relay.engine.supervision._first_pause = 60
    (task,) = tasks(name)
    task.cancel()
    await until(lambda: task.done() and bool(relay.engine.trouble))
    async with asyncio.timeout(PATIENCE):  # in which the dead is not begun anew
        await relay.engine.stop(drain=0.3)
    assert not tasks(name)


async def test_a_fault_in_the_tail_of_the_check_does_not_stop_the_mail(
    internet: Internet, relay: Relay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the periodic check does between two checks is inside no net of its own."""
    await internet.add("example.org", mx=[(10, "mx.example.org", Healthy())])
    relay.engine.supervision._first_pause = 0.05
    wait = relay.clock.wait
    faults = 1

    async def faulty(event: asyncio.Event, until: float | None) -> bool:
        nonlocal faults
        if faults and event is relay.engine.smarthost._woken:
            faults -= 1
            raise KeyError("a bug")
        return await wait(event, until)

    monkeypatch.setattr(relay.clock, "wait", faulty)
    relay.engine.smarthost.wake()
    await until(lambda: not faults)
    await relay.send("b@example.org")
    await internet.wait_for(1)
    assert "the smart host died" in caplog.text
    assert "KeyError: 'a bug'" in caplog.text


async def test_removed_sockets_are_made_anew_at_the_next_look(relay: Relay) -> None:
    await relay.client.health()  # it is inside from now on
    control = relay.spool / "control.sock"
    for path in (control, view_socket(control)):
        path.unlink()
    await relay.engine._look()
    async with Client(control) as client:
        assert (await client.health()).state == "relaying"
    control.unlink()
    control.mkdir()
    await relay.engine._look()
    health = await relay.client.health()
    assert health.state == "sick"
    assert "a control socket is gone, and cannot be made anew" in health.trouble
    control.rmdir()
    await relay.engine._look()
    assert (await relay.client.health()).state == "relaying"


async def test_the_look_is_made_by_itself(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.engine.LOOK_SECONDS", 0.02)
    relay.engine.supervision._first_pause = 0.0
    (task,) = tasks("the look at the doors")
    task.cancel()  # the one that runs waits for longer
    control = relay.spool / "control.sock"
    control.unlink()
    await until(control.exists)
    assert control.is_socket()
    async with Client(control) as newcomer:
        assert (await newcomer.health()).hostname == "relay.example.net"


async def test_secrets_on_a_file_system_that_hangs_take_no_thread_from_the_mail(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often they are looked at: what spills large messages and finds out who acts has threads as before."""
    engine, hangs, looks = relay.engine, threading.Event(), 0

    def hanging(_: Settings) -> tuple[str, ...]:
        nonlocal looks
        looks += 1
        hangs.wait(60)
        return ("seen anew",)

    monkeypatch.setattr("engine.engine.STEP_SECONDS", 0.01)
    monkeypatch.setattr(Settings, "notes", property(hanging))
    before = engine.notes
    try:
        for _ in range(40):
            await engine._look()
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.to_thread(lambda: "done") == "done"
        assert looks == 1
        assert engine.notes == before, "what was seen last stands, and a moment is nothing to tell of"
        monkeypatch.setattr("engine.engine.UNSEEN", 0.0)
        (told,) = [note for note in (await relay.client.health()).notes if "cannot be looked at" in note]
        assert re.match(r"the keys, passwords and users that the settings name cannot be looked at: for \d+ s ", told)
    finally:
        hangs.set()
    await until(lambda: not engine._secrets.seconds)
    await engine._look()
    assert "seen anew" in engine.notes
    assert not [note for note in engine.notes if "cannot be looked at" in note]


async def test_a_listener_that_is_lost_fails_the_engine(relay: Relay) -> None:
    (server,) = relay.engine.smtp._servers
    door = relay.engine.smtp.addresses[0]
    server.close()
    await relay.engine._look()
    assert relay.engine.supervision.failed.is_set()
    assert "nobody listens on 127.0.0.1:0 any more" in (await relay.client.health()).trouble
    assert door.port


# -- as a process ---------------------------------------------------------------------------------------------------

_SCRIPT = """
import asyncio, sys, threading, time
from pathlib import Path
import engine.engine as house
import engine.running as running
import engine.queue.sqlite.writer as writer
import engine.base.supervision as supervision
from engine.settings.settings import Dns, Intake, Log, Listen, Nameserver, Settings, Smtp
house.LOOK_SECONDS = 0.1
house.STEP_SECONDS = house.WRITE_SECONDS = 0.5
settings = Settings(
    hostname="relay.example.net", spool=Path(sys.argv[1]),
    intake=Intake(min_free=0, smtp=Smtp(listen=(Listen("127.0.0.1", 0),))),
    dns=Dns(nameservers=(Nameserver("127.0.0.1", 9),)),
    log=Log(mail="none"),
)
async def never(*_):
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

def ready(engine):
    print("ready", flush=True)
    match sys.argv[2]:
        case "listener":
            engine.smtp._servers[0].close()
        case "steps":
            engine.drop.stop = engine.smtp.stop = engine.tls.close = engine.delivery.smarthost.drain = never
        case "thread":
            asyncio.get_running_loop().run_in_executor(None, time.sleep, 1000)
        case "writer":
            engine.queue._database.writer._jobs.put(object())

def starting(call, seconds):
    def begun(*given, **named):
        print("starting", flush=True)
        time.sleep(seconds)
        return call(*given, **named)
    return begun

match sys.argv[2]:
    case "a start whose store hangs":
        writer.connect_writer = starting(writer.connect_writer, 1000)
    case "a start that hangs on the loop":
        house.Spool.__enter__ = starting(house.Spool.__enter__, 1000)
    case "a start that takes its time":
        writer.connect_writer = starting(writer.connect_writer, 1)

running.LastResort = lambda: supervision.LastResort(4)
try:
    running.run_daemon(settings, ready)
except running.EngineFailed as error:
    print("failed:", error, flush=True)
    sys.exit(7)
"""


def served(what: str, *, told: bool) -> tuple[int, str, float]:
    """Run an engine to which this happens; its status, what it said, and how long it took to end."""
    with short_folder() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(Path(folder) / "spool"), what],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == ("starting\n" if "start" in what else "ready\n")
            began = time.monotonic()
            if told:
                process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        return process.returncode, said, time.monotonic() - began


def test_an_engine_that_lost_its_listener_ends_with_an_error() -> None:
    status, said, _ = served("listener", told=False)
    assert status == 7
    assert "failed: nobody listens on 127.0.0.1:0 any more" in said


@pytest.mark.parametrize(
    ("what", "statuses"), [("nothing", {0}), ("steps", {0, 1}), ("thread", {1}), ("writer", {0, 1})]
)
def test_sigterm_ends_the_process_in_time_whatever_hangs(what: str, statuses: set[int]) -> None:
    status, said, took = served(what, told=True)
    assert status in statuses, said
    assert took < 30, said


@pytest.mark.parametrize(
    ("what", "ends_with"),
    [("a start whose store hangs", 1), ("a start that hangs on the loop", 1), ("a start that takes its time", 0)],
)
def test_sigterm_ends_the_process_in_time_while_it_starts(what: str, ends_with: int) -> None:
    status, said, took = served(what, told=True)
    assert status == ends_with, said
    assert took < 15, said
    assert "ready" not in said, "who was told to end opens for nobody"
