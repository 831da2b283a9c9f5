"""What it costs to find what is due, while very many destinations wait for later: looked for by time, and by turn

    by turn     all destinations with mail are walked through in order of their turns (as where very many are due)
    by time     those that are due are looked up in the order in which they fall due, and sorted

one after the other on one store, several rounds. Absolute figures depend on the machine; the ratio is what counts.

    uv run python -m tests.bench.turns [DESTINATIONS] [ROUNDS]
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from engine.queue import bounds
from engine.queue.sqlite import schedule
from engine.queue.sqlite.exchanges import know_destination
from engine.queue.sqlite.writer import Transaction
from tests.bench.relaying import say
from tests.unit.sqlite.support import SqliteSpool, opened

DUE = 20  # destinations
DAY = 86400.0  # seconds


async def fill(spool: SqliteSpool, count: int) -> None:
    """A message to so many destinations of which every other has taken mail, due tomorrow, and a few due now."""
    number = await spool.add()
    now = spool.clock.now()

    def waiting(tx: Transaction) -> None:
        for place in range(count):
            name = f"later{place}.example"
            know_destination(tx, name)
            tx.execute(
                "INSERT INTO entry (message, number, recipient, destination, state, due, expires) "
                "VALUES (?, ?, ?, ?, 'waiting', ?, ?)",
                (number, place + 2, f"x@{name}", name, now + DAY, now + 2 * DAY),
            )
        tx.execute("UPDATE destination SET took_at = ? WHERE name LIKE '%0.example'", (now,))

    await spool.writer.do(waiting)
    await spool.add(*(f"x@due{place}.example" for place in range(DUE)))


async def main(count: int, rounds: int) -> None:
    """Run the rounds and say what came out."""
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        async with opened(Path(folder)) as spool:
            await fill(spool, count)
            connection, now = spool.writer._connection, spool.clock.now() + 1
            few = bounds.FEW
            for _ in range(rounds):
                for name, most in (("by turn", 0), ("by time", few)):
                    setattr(schedule, "FEW", most)  # noqa: B010  its own name for the bound
                    begin = time.thread_time()
                    proved = schedule.due_sites(connection, 100, (), False, now=now)
                    doubtful = schedule.doubtful_sites(connection, (), now=now)
                    took.setdefault(name, []).append(time.thread_time() - begin)
                    assert len({one.site for one in (*proved, *doubtful)}) >= DUE
    medians = {name: statistics.median(each) for name, each in took.items()}
    for name, middle in medians.items():
        say(f"{name:8} {1000 * middle:8.3f} ms of CPU a check   {middle / medians['by turn']:.4f} of by turn")


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:]]
    asyncio.run(main(*(arguments + [100_000, 20][len(arguments) :])))
