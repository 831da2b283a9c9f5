"""What the engine's process takes of the machine, second by second, and whether that stays so."""

import os
import statistics
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

RISE = 0.10  # of its size by which memory may rise in the second half, along a line through what was measured
LEAST_RISE = 24.0  # MiB it may rise in any case: a large message is in memory more than once
MORE_DESCRIPTORS = 25  # at the end of the second half than at its beginning, by the middle of a fifth of it each
MORE_THREADS = 4
_SMOOTHED = 10  # measurements of which the middle counts
_TICKS = os.sysconf("SC_CLK_TCK")


class Vitals(Struct, frozen=True):
    """One measurement: seconds since the start, MiB in memory, open descriptors, threads, seconds of processor."""

    at: float
    memory: float
    descriptors: int
    threads: int
    worked: float


def measured(pid: int, at: float) -> Vitals | None:
    """Look at a process; None where it has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return Vitals(
            at,
            int(status["VmRSS"].split()[0]) / 1024,
            len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - a name for each, and nothing more is wanted
            int(status["Threads"]),
            (int(fields[11]) + int(fields[12])) / _TICKS,
        )
    return None


class Line(Struct, frozen=True):
    """A line through measurements: how much it rises over all of them, and their middle."""

    rise: float
    middle: float


def line_through(points: Sequence[tuple[float, float]], smoothed: int = _SMOOTHED) -> Line:
    """The line of least squares through (time, value), smoothed by the middle of so many neighbours each."""
    times = [statistics.fmean(at for at, _ in part) for part in _parts(points, smoothed)]
    values = [statistics.median(value for _, value in part) for part in _parts(points, smoothed)]
    if len(times) < 2:
        return Line(0.0, values[0] if values else 0.0)
    slope = statistics.linear_regression(times, values).slope
    return Line(slope * (points[-1][0] - points[0][0]), statistics.median(values))


def memory_fault(history: Sequence[Vitals]) -> tuple[str, bool]:
    """How memory went in the second half, in words, and whether that is too much."""
    half = history[len(history) // 2 :]
    line = line_through([(one.at, one.memory) for one in half])
    bound = max(RISE * line.middle, LEAST_RISE)
    said = (
        f"{line.middle:.0f} MiB, {line.rise:+.1f} MiB over the second half ({half[-1].at - half[0].at:.0f} s),"
        f" at most {bound:.0f}; the most in all {max(one.memory for one in history):.0f}"
    )
    return said, line.rise > bound


def count_fault(counts: Sequence[int], most: int) -> tuple[str, bool]:
    """How a count went in the second half, in words, and whether it grew by more than `most`."""
    half = counts[len(counts) // 2 :]
    part = max(1, len(half) // 5)
    first, last = statistics.median(half[:part]), statistics.median(half[-part:])
    return f"{first:.0f} to {last:.0f}, at most {max(counts)}; may grow by {most}", last - first > most


def _parts(points: Sequence[tuple[float, float]], size: int) -> list[Sequence[tuple[float, float]]]:
    return [points[start : start + size] for start in range(0, len(points), size)]
