"""Nothing that the engine keeps running dies unnoticed, and a stop ends whatever hangs."""

import asyncio
import logging
import queue
import signal
import threading

import pytest

from engine.base.supervision import LastResort, Supervision, told_to_end, within
from tests.waiting import PATIENCE, until


class Worker:
    """Runs until it is killed: then it raises what it was killed with."""

    def __init__(self) -> None:
        self.runs = 0
        self._killed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        self.runs += 1
        self._killed = asyncio.get_running_loop().create_future()
        await self._killed

    def die(self, error: Exception | None = None) -> None:
        assert self._killed is not None
        if error is None:
            self._killed.set_result(None)
        else:
            self._killed.set_exception(error)


async def kept(**pauses: float) -> tuple[Supervision, Worker, list[str]]:
    """A worker that is kept running, and what health said at the moment of each death."""
    told: list[str] = []

    def died(text: str) -> None:
        assert supervision.trouble == text
        told.append(text)

    supervision, worker = Supervision(died, **pauses), Worker()
    supervision.keep("the worker", worker.run)
    await until(lambda: worker.runs == 1)
    return supervision, worker, told


@pytest.mark.parametrize(
    ("error", "why"), [(KeyError("a bug"), "KeyError: 'a bug'"), (None, "it came to an end")], ids=["raises", "returns"]
)
async def test_what_dies_is_told_at_once_and_begun_anew(
    caplog: pytest.LogCaptureFixture, error: Exception | None, why: str
) -> None:
    supervision, worker, told = await kept(first_pause=0.02)
    assert supervision.trouble == ""
    worker.die(error)
    await until(lambda: bool(told))
    assert told == [f"the worker died ({why}): it is about to be begun anew"]
    if error is not None:
        assert "Traceback" in caplog.text
    await until(lambda: worker.runs == 2)
    assert supervision.trouble == f"the worker died ({why}), and was begun anew just now"
    await supervision.end("the worker")


async def test_what_was_cancelled_by_nobody_who_may_is_begun_anew() -> None:
    supervision, worker, _ = await kept(first_pause=0.0)
    (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "the worker"]
    task.cancel()
    await until(lambda: worker.runs == 2)
    assert task.cancelled()
    assert supervision.trouble.endswith("and was begun anew just now")
    await supervision.end("the worker")
    assert worker.runs == 2


async def test_what_holds_for_a_while_is_well_again() -> None:
    supervision, worker, _ = await kept(first_pause=0.0)
    worker.die(KeyError())
    await until(lambda: worker.runs == 2)
    assert supervision.trouble
    supervision._steady = 0.0  # a minute has passed
    assert not supervision.trouble
    await supervision.end("the worker")


async def test_the_pause_grows_with_each_death_in_a_row_and_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    supervision, worker, _ = await kept(first_pause=0.001, longest_pause=0.004)
    with caplog.at_level(logging.ERROR):
        for runs in range(2, 7):
            worker.die(KeyError())
            await until(lambda runs=runs: worker.runs == runs)  # type: ignore[misc]
    said = [record.getMessage().rpartition(" in ")[2] for record in caplog.records]
    assert said == ["0.001 s", "0.002 s", "0.004 s", "0.004 s", "0.004 s"]
    await supervision.end("the worker")


async def test_what_was_released_may_come_to_its_end() -> None:
    supervision, worker, told = await kept(first_pause=0.0)
    kept_ = supervision._kept["the worker"]
    assert kept_.task is not None
    supervision.release("the worker")
    worker.die()
    await asyncio.wait({kept_.task}, timeout=PATIENCE)  # whoever was told of its end before us has done what it does
    assert kept_.task.done()
    assert kept_.timer is None
    assert (worker.runs, told, supervision.trouble) == (1, [], "")


async def test_what_is_ended_while_it_is_dead_is_not_begun_anew() -> None:
    supervision, worker, told = await kept()
    worker.die(KeyError())
    await until(lambda: bool(told))
    beginning = supervision._kept["the worker"].timer
    assert beginning is not None
    await supervision.end("the worker")
    assert beginning.cancelled()
    assert worker.runs == 1


async def test_what_does_not_let_itself_be_cancelled_is_left_behind(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.base.supervision._LET_GO", 0.05)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    supervision, before = Supervision(), asyncio.all_tasks()
    supervision.keep("the mule", stubborn)
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await supervision.end("the mule")
        await within(0.05, "the mule", stubborn)
    left = asyncio.all_tasks() - before
    assert {task.get_name() for task in left} == {"the mule", "stopping the mule"}
    assert "the mule does not end: it is left behind" in caplog.text
    assert "the mule did not stop within 0.05 s" in caplog.text
    let_go.set()
    await asyncio.gather(*left)


async def test_a_step_of_a_stop_that_fails_keeps_no_other_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise KeyError("a bug")

    await within(1, "the part", fails)
    assert "the part failed to stop" in caplog.text


async def test_what_cannot_be_begun_anew_fails_the_whole() -> None:
    supervision = Supervision()
    supervision.fail("nobody listens any more")
    supervision.fail("something else")
    assert supervision.failed.is_set()
    assert supervision.trouble == supervision.failure == "nobody listens any more"


def test_a_process_that_was_told_to_stop_ends_in_the_end() -> None:
    ended: list[int] = []
    over = threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        over.set()

    last = LastResort(0.02, end)
    last.arm()
    last.arm()
    assert over.wait(10)
    assert ended == [1]


def test_a_log_that_hangs_keeps_no_process_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where somebody stands in a write to a terminal that nobody reads, and holds the lock of the log."""
    over, written = threading.Event(), threading.Event()

    def hangs(*_: object) -> None:
        written.wait(30)

    monkeypatch.setattr("engine.base.supervision._LET_GO", 0.05)
    monkeypatch.setattr("engine.base.supervision.log.critical", hangs)
    LastResort(0.02, lambda _: over.set()).arm()
    try:
        assert over.wait(10)
    finally:
        written.set()


def test_a_signal_to_end_is_heard_while_the_main_thread_hangs() -> None:
    heard: queue.Queue[str] = queue.Queue()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with told_to_end(lambda: heard.put(threading.current_thread().name)):
        (ear,) = [one for one in threading.enumerate() if one.name == "signals"]
        assert ear.ident is not None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.pthread_kill(ear.ident, number)  # a process of one's own gets it by itself; here are other threads
            assert heard.get(timeout=10) == "signals"
    assert heard.empty()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert not [one for one in threading.enumerate() if one.name == "signals"]


@pytest.mark.parametrize("is_held", [False, True], ids=["all has ended", "a thread hangs"])
def test_nothing_is_ended_where_all_has_ended_by_itself(monkeypatch: pytest.MonkeyPatch, *, is_held: bool) -> None:
    threads = [threading.main_thread(), threading.Thread(daemon=True), *([threading.Thread()] if is_held else [])]
    monkeypatch.setattr("engine.base.supervision.threading.enumerate", lambda: threads)
    last = LastResort(10 * PATIENCE, lambda _: None)
    last.arm()
    last.disarm_unless_held()
    assert last._timer.finished.is_set() == (not is_held)
    last._timer.cancel()
