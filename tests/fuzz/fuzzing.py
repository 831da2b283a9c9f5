"""How a fuzzer is run: rounds of cases drawn by Hypothesis, each fault made as small as it goes, all by a seed."""

import asyncio
import contextlib
import logging
import re
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import hypothesis
import uvloop
from hypothesis.errors import HypothesisWarning
from hypothesis.strategies import SearchStrategy
from msgspec import Struct

ROUND = 100  # cases with one seed; the next round has the next one
MOST_FOUND = 5  # faults after which a run ends: the rest may be the same
LONGEST_CASE = 60.0  # seconds, after which a case hangs: the bounds that the fuzzers themselves know are far below
GROWS = 200.0  # MiB by which this process may grow after its first rounds
_WARM = 5  # rounds

_OURS = ("engine", "asyncio")  # loggers; a library that tells of a stranger's mistake breaks nothing
_REPEATED = re.compile(r"(.{1,30}?)\1{9,}")

Case = TypeVar("Case")


class Fault(AssertionError):
    """Something came of a case that must never come of any; the text says what."""


class Found(Struct, frozen=True):
    """A fault: the smallest case for it, what happened, and the seed of its round."""

    case: object
    what: str
    seed: int

    def __str__(self) -> str:
        shown = _REPEATED.sub(lambda run: f"{run[1]}<{len(run[0]) // len(run[1])} times>", repr(self.case))
        return f"seed {self.seed}: {self.what}\n    {shown}"


class Report(Struct, frozen=True):
    """What a run came to. Of the cases `went_well` so many were taken for good: without them nothing much was tried."""

    cases: int
    went_well: int
    found: tuple[Found, ...]


class Fuzzer(ABC, Generic[Case]):
    """One way in. `cases` is what comes, `FOUND` what was found once, `SHORT` how many cases are among the tests.

    `went_well` counts the cases that were good, and were taken so.
    """

    FOUND: ClassVar[Sequence[Any]] = ()
    SHORT: ClassVar[int] = 100
    went_well = 0

    @property
    @abstractmethod
    def cases(self) -> SearchStrategy[Case]:
        """Every case there may be."""

    @abstractmethod
    async def open(self) -> None:
        """Start what is attacked."""

    @abstractmethod
    async def close(self) -> None:
        """Stop it."""

    @abstractmethod
    async def check(self, case: Case) -> None:
        """Try one case. Raises Fault, or whatever breaks."""


def fuzz(
    make: Callable[[], Fuzzer[Any]], *, seed: int, most: int | None = None, seconds: float | None = None
) -> Report:
    """Run until `most` cases were tried or `seconds` are over; cases that take too long are a fault, too."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, _faults_logged(runner) as faults:
        fuzzer = make()
        runner.run(fuzzer.open())
        try:
            return _Run(fuzzer, runner, faults, seed).run(most, seconds)
        finally:
            runner.run(fuzzer.close())


class _Run:
    """The rounds of one run."""

    def __init__(self, fuzzer: Fuzzer[Any], runner: asyncio.Runner, faults: list[str], seed: int) -> None:
        self._fuzzer = fuzzer
        self._runner = runner
        self._faults = faults
        self._seed = seed
        self._tried = 0
        self._found: list[Found] = []
        self._last: object = None

    def run(self, most: int | None, seconds: float | None) -> Report:
        end = None if seconds is None else time.monotonic() + seconds
        for case in self._fuzzer.FOUND:
            self._round_of([case], self._seed)
        rounds, grown = 0, 0.0
        while len(self._found) < MOST_FOUND:
            left = ROUND if most is None else min(ROUND, most - self._tried)
            if left <= 0 or (end is not None and time.monotonic() >= end):
                break
            self._round(left, self._seed + rounds, end)
            rounds += 1
            if rounds == _WARM:
                grown = _memory()
            elif rounds > _WARM and _memory() - grown > GROWS:
                self._found.append(
                    Found(None, f"memory grew from {grown:.0f} to {_memory():.0f} MiB", self._seed + rounds)
                )
                break
        return Report(self._tried, self._fuzzer.went_well, tuple(self._found))

    def _round(self, most: int, seed: int, end: float | None) -> None:
        """One round of drawn cases."""

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=most, database=None, deadline=None, report_multiple_bugs=False, print_blob=False,
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
            suppress_health_check=list(hypothesis.HealthCheck), verbosity=hypothesis.Verbosity.quiet,
        )  # fmt: skip
        @hypothesis.given(self._fuzzer.cases)
        def one(case: object) -> None:
            if end is None or time.monotonic() < end:
                self._try(case)

        self._noting(one, seed)

    def _round_of(self, cases: Sequence[object], seed: int) -> None:
        for case in cases:
            self._noting(lambda case=case: self._try(case), seed)  # type: ignore[misc]

    def _noting(self, run: Callable[[], None], seed: int) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", HypothesisWarning)  # of what is long to write out, and is not
                run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it was found
            # The smallest case is the one that was tried last. One that fails only now and then is a fault as well.
            parts = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
            what = "; ".join(f"{type(one).__name__}: {one}" for one in parts)
            self._found.append(Found(self._last, f"now and then: {what}" if parts != (error,) else what, seed))

    def _try(self, case: object) -> None:
        self._last = case
        self._tried += 1
        self._faults.clear()
        self._runner.run(self._bounded(case))
        if self._faults:
            raise Fault(f"it was logged as a fault: {self._faults[0]}")

    async def _bounded(self, case: object) -> None:
        try:
            async with asyncio.timeout(LONGEST_CASE):
                await self._fuzzer.check(case)
        except TimeoutError as error:
            raise Fault("it hangs") from error


@contextlib.contextmanager
def _faults_logged(runner: asyncio.Runner) -> Iterator[list[str]]:
    """Collect what the engine and the loop log as errors: nothing that comes from outside may be one."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.name.startswith(_OURS):
                return
            what = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                what += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            found.append(f"{record.name}: {what}"[:500])

    collector = Collector(logging.ERROR)
    root = logging.getLogger()
    root.addHandler(collector)
    runner.get_loop().set_exception_handler(
        lambda _, context: found.append(f"loop: {context.get('message')}: {context.get('exception')!r}")
    )
    try:
        yield found
    finally:
        root.removeHandler(collector)


def _memory() -> float:
    """What this process takes of memory, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
