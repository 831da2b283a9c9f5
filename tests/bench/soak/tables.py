"""What the queue's database makes of the churn: the sizes of its tables, their dead rows, and the work of autovacuum.

Autovacuum is as Debian's settings have it, and the disk is synced; what it does stands in the server's log.
"""

import asyncio
import re
from collections.abc import Iterable, Sequence

import asyncpg
from msgspec import Struct

from tests import postgres
from tests.bench.soak.vitals import line_through

CHURNING = ("message", "body", "entry", "attempt", "destination", "event", "untold")
SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "128MB",
    "log_min_messages": "warning", "log_autovacuum_min_duration": "0",
}  # fmt: skip
GROWTH = 0.25  # of its size by which a table may grow in the second half, along a line through what was measured
LEAST_GROWTH = 16.0  # MiB it may grow in any case
DEAD_PER_LIVE = 1.0  # dead rows for each live one, in the middle of the second half
FEW_DEAD = 20_000  # rows that may be dead whatever is live
BUSY = 0.25  # of the time that autovacuum may be at it: beyond that it is a storm

_MIB = 2**20
_SIZES = (
    "SELECT relname, n_live_tup, n_dead_tup, vacuum_count + autovacuum_count, pg_relation_size(relid), "
    "pg_indexes_size(relid), pg_total_relation_size(relid) - pg_relation_size(relid) - pg_indexes_size(relid) "
    "FROM pg_stat_user_tables WHERE schemaname = 'smarthost' AND relname = ANY($1::text[])"
)
_ELAPSED = re.compile(r"automatic (?:aggressive )?(vacuum|analyze) of table .*?elapsed: ([0-9.]+) s", re.DOTALL)


class Table(Struct, frozen=True, kw_only=True):
    """A table at a moment: MiB of rows, of indexes and of what is kept apart (TOAST, maps), rows, vacuums so far."""

    name: str
    live: int
    dead: int
    vacuums: int
    heap: float
    indexes: float
    apart: float

    @property
    def size(self) -> float:
        """MiB in all."""
        return self.heap + self.indexes + self.apart

    def __str__(self) -> str:
        return (
            f"{self.name} {self.size:.1f} ({self.heap:.1f}+{self.indexes:.1f}+{self.apart:.1f}) MiB,"
            f" {self.live:,} rows, {self.dead:,} dead, {self.vacuums} vacuums"
        )


class Measured(Struct, frozen=True):
    """The tables at a moment, in seconds since the start."""

    at: float
    tables: dict[str, Table]


class Tables:
    """A server for the relay's queue, and what becomes of its tables."""

    def __init__(self) -> None:
        self.server = postgres.Server(SETTINGS, on_disk=True)
        self.history: list[Measured] = []

    @property
    def dsn(self) -> str:
        """The relay's database."""
        return self.server.dsn("postgres")

    async def measure(self, at: float) -> Measured:
        """Look at the tables, and remember how they are."""
        connection = await asyncpg.connect(self.dsn, timeout=10)
        try:
            rows = await connection.fetch(_SIZES, list(CHURNING))
        finally:
            await connection.close()
        tables = {
            name: Table(
                name=name, live=live, dead=dead, vacuums=vacuums,
                heap=heap / _MIB, indexes=indexes / _MIB, apart=apart / _MIB,
            )
            for name, live, dead, vacuums, heap, indexes, apart in rows
        }  # fmt: skip
        self.history.append(Measured(at, {name: tables[name] for name in CHURNING if name in tables}))
        return self.history[-1]

    def worked(self) -> dict[str, float]:
        """Seconds that autovacuum has taken so far, to vacuum and to analyze."""
        return worked((self.server.folder / "log").read_text(errors="replace"))

    async def end(self) -> None:
        """End the server, and all it has with it."""
        await asyncio.to_thread(self.server.end)


def worked(log: str) -> dict[str, float]:
    """Seconds that autovacuum has taken by a server's log, to vacuum and to analyze."""
    taken = {"vacuum": 0.0, "analyze": 0.0}
    for kind, seconds in _ELAPSED.findall(log):
        taken[kind] += float(seconds)
    return taken


def told(found: Measured) -> str:
    """The tables at a moment, in words."""
    return "; ".join(map(str, found.tables.values()))


def growth_fault(history: Sequence[Measured]) -> tuple[str, bool]:
    """How the tables went in the second half, in words, and whether one grew without bound."""
    said, is_wrong = [], False
    for name in CHURNING:
        points = [(one.at, one.tables[name].size) for one in _half(history) if name in one.tables]
        if len(points) < 2:
            continue
        slope = line_through(points, smoothed=1)
        bound = max(GROWTH * slope.middle, LEAST_GROWTH)
        said.append(f"{name} {slope.middle:.1f} MiB {slope.rise:+.1f}")
        if slope.rise > bound:
            said[-1] += f" (at most {bound:+.1f})"
            is_wrong = True
    return ", ".join(said) or "nothing measured", is_wrong or not said


def dead_fault(history: Sequence[Measured]) -> tuple[str, bool]:
    """How many rows are dead in the second half, in words, and whether they are cleared away too late."""
    said, is_wrong = [], False
    for name in CHURNING:
        found = [one.tables[name] for one in _half(history) if name in one.tables]
        if not found:
            continue
        dead, live = _middle(one.dead for one in found), _middle(one.live for one in found)
        said.append(f"{name} {dead:,} of {dead + live:,}")
        is_wrong |= dead > max(FEW_DEAD, DEAD_PER_LIVE * live)
    return ", ".join(said) or "nothing measured", is_wrong or not said


def _half(history: Sequence[Measured]) -> Sequence[Measured]:
    return history[len(history) // 2 :]


def _middle(numbers: Iterable[int]) -> int:
    found = sorted(numbers)
    return found[len(found) // 2]
