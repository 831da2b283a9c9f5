"""Runs the soak, tells how it goes each minute, and judges the end."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import TimeoutExpired

import uvloop

from engine.base.clock import SystemClock
from engine.model.filter import Filter
from engine.queue.contract import Queue
from engine.queue.postgres.store import PostgresQueue
from engine.queue.sqlite.store import SqliteQueue
from tests import postgres
from tests.bench import soak
from tests.bench.relaying import say
from tests.bench.soak import tables, vitals
from tests.bench.soak.ledger import Ledger, Verdict, p95, told
from tests.bench.soak.operators import Consoles, Operator
from tests.bench.soak.senders import Senders
from tests.bench.soak.strangers import Strangers
from tests.bench.soak.tables import Tables
from tests.bench.soak.vitals import Vitals
from tests.bench.soak.world import Relay, World, internet

PROMISED = 2.0  # seconds of p95: promise 35
SETTLES = 8.0  # seconds that healthy mail has at the end, before what has not come counts as it is
STOPS = 25.0  # seconds the engine may take to stop
JUDGED_FROM = 5.0  # minutes; of a shorter run memory is not judged
PARTS = ("silent", "tarpits", "strangers", "operator", "consoles")


class Soak:
    """One run: everybody, and what is noted of them."""

    def __init__(
        self, relay: Relay, world: World, ledger: Ledger, database: Tables | None, *, rate: float, waiting: int,
        seed: int, without: set[str],
    ) -> None:  # fmt: skip
        draw = random.Random(seed)
        self.relay = relay
        self.database = database
        self.ledger = ledger
        self.senders = Senders(relay, world, ledger, draw, rate=rate, waiting=waiting, without=frozenset(without))
        self.strangers = Strangers(relay, draw)
        self.consoles = Consoles(relay, ledger)
        self.operator = Operator(relay, draw)
        self.history: list[Vitals] = []
        self.late = 0.0  # seconds by which this program itself was held up, at the most: its times are no better
        self._without = without
        self._begin = time.monotonic()

    async def run(self, minutes: float) -> None:
        """Let all of them at it for so long, and tell each minute."""
        sending = self.senders.tasks()
        beside = [] if "strangers" in self._without else self.strangers.tasks()
        beside += [] if "operator" in self._without else self.operator.tasks()
        looking = self.consoles.tasks(polling="consoles" not in self._without)
        try:
            await self._watch(minutes * 60)
            self.senders.stopping = self.strangers.stopping = True
            await asyncio.wait(sending, timeout=SETTLES)
            for _ in range(int(SETTLES)):
                if self.ledger.missing():
                    await asyncio.sleep(1.0)
        finally:
            for task in (*sending, *beside, *looking):
                task.cancel()
            results = await asyncio.gather(*sending, *beside, *looking, return_exceptions=True)
        for failed in results:
            if isinstance(failed, Exception) and not isinstance(failed, TimeoutError):
                raise failed

    async def _watch(self, seconds: float) -> None:
        told_at, due = 0.0, time.monotonic()
        while (now := time.monotonic() - self._begin) < seconds:
            if found := vitals.measured(self.relay.pid, now):
                self.history.append(found)
            elif self.relay.process is None or self.relay.process.poll() is not None:
                raise SystemExit(f"the engine has ended: {self.relay.output.read_text()[-2000:]}")
            if now - told_at >= 60.0:
                self._tell(now, told_at)
                if self.database is not None:
                    await self._tell_of_tables(self.database, now)
                told_at = now
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.late = max(self.late, time.monotonic() - due)

    def _tell(self, now: float, before: float) -> None:
        last, first = self.history[-1], next(one for one in self.history if one.at >= before)
        cpu = (last.worked - first.worked) / max(0.001, last.at - first.at)
        times = self.ledger.times(time.time(), since=time.time() - (now - before))
        say(
            f"{now / 60:5.1f} min  {last.memory:4.0f} MiB  {last.descriptors:4} descriptors  {last.threads:3} threads"
            f"  {cpu:4.0%} cpu | {self.senders.sent:,} letters, {len(times):,} healthy lately: {told(times)},"
            f" {self.ledger.missing()} not there | views {self.consoles.longest[0]:.2f} s | operator"
            f" {self.operator.done} | strangers {self.strangers.let_in}"
        )

    async def _tell_of_tables(self, database: Tables, now: float) -> None:
        found, taken = await database.measure(now), database.worked()
        say(f"          {tables.told(found)} | autovacuum {taken['vacuum']:.1f} s, analyze {taken['analyze']:.1f} s")


async def left_in(queue: Queue, ledger: Ledger) -> list[str]:
    """Every recipient that is still in the store, of an engine that has ended; its last events go into the ledger."""
    await queue.open()
    try:
        while events := await queue.listing.events(after=ledger.seq, limit=1000):
            ledger.happened(events)
        found: list[str] = []
        while rows := (await queue.listing.window(Filter.all(), "id", len(found), 1000)).rows:
            found += [row.recipient for row in rows]
        return found
    finally:
        await queue.close()


def judged(run: Soak, books: Verdict, end: float, stopped: int | None, minutes: float) -> bool:
    """Say what came out, criterion by criterion; whether all are met."""
    failed: list[str] = []

    def line(name: str, said: str, is_wrong: bool) -> None:
        say(f"{'FAILED' if is_wrong else 'ok':7} {name:15} {said}")
        failed.extend([name] * is_wrong)

    def some(found: tuple[str, ...] | list[str]) -> str:
        return f"{len(found)}" + (f" ({', '.join(found[:5])}{', ...' if len(found) > 5 else ''})" if found else "")

    times = run.ledger.times(end)
    faults = [one for one in run.relay.output.read_text().splitlines() if " ERROR " in one or "Traceback" in one]
    line(
        "nothing lost",
        f"{some(books.lost)} of {books.answered:,} recipients: {books.delivered:,} delivered, {books.returned:,}"
        f" returned, {books.dropped:,} dropped, {books.waiting:,} waiting",
        bool(books.lost) or not books.answered,
    )
    line(
        "by name",
        f"dropped by nobody {some(books.nameless)}; returned without a word {some(books.untold)}",
        bool(books.nameless or books.untold),
    )
    line("nothing damaged", some(run.ledger.damaged), bool(run.ledger.damaged))
    line(
        "twice on record",
        f"{books.copies} copies, {books.on_record} on record; not explained {some(books.unexplained)}",
        bool(books.unexplained),
    )
    line(
        "doors",
        f"a letter took {told(run.senders.took)} to be taken (p95 at most {PROMISED:g} s); of {run.senders.logins} who"
        f" came with the login that is guessed at {run.senders.shut_out} could not send (at most a tenth)",
        p95(run.senders.took) > PROMISED or not run.senders.took or 10 * run.senders.shut_out > run.senders.logins,
    )
    line(
        "healthy mail",
        f"{len(times):,}: {told(times)} (at most {PROMISED:g} s; this program was late by"
        f" {run.late:.2f} s at the most)",
        not times or p95(times) > PROMISED,
    )
    line("memory flat", *_unless_short(*vitals.memory_fault(run.history), minutes))
    line("descriptors", *vitals.count_fault([one.descriptors for one in run.history], vitals.MORE_DESCRIPTORS))
    line("threads", *vitals.count_fault([one.threads for one in run.history], vitals.MORE_THREADS))
    line(
        "views",
        f"{run.consoles.asked:,} asked, the longest took {run.consoles.longest[0]:.2f} s"
        f" ({run.consoles.longest[1]}); wrong {some(run.consoles.wrong)}",
        bool(run.consoles.wrong),
    )
    if run.database is not None:
        taken, whole = run.database.worked(), max(1.0, run.history[-1].at)
        share = (taken["vacuum"] + taken["analyze"]) / whole
        line("tables bounded", *_unless_short(*tables.growth_fault(run.database.history), minutes))
        line("dead rows", *_unless_short(*tables.dead_fault(run.database.history), minutes))
        line(
            "no storm",
            f"autovacuum was at it for {taken['vacuum']:.1f} s, to analyze for {taken['analyze']:.1f} s: {share:.1%} of"
            f" the time (at most {tables.BUSY:.0%})",
            share > tables.BUSY,
        )
    line(
        "a good end",
        f"status {stopped}; faults in the log {some([one[:200] for one in faults])}",
        stopped != 0 or bool(faults),
    )
    say(
        f"{run.senders.sent:,} letters taken, {run.senders.refused} refused, {run.senders.unknown} unanswered,"
        f" the operator did {run.operator.done} things, {run.operator.refused} were refused; strangers came"
        f" {run.strangers.let_in:,} times, guessed {run.strangers.guesses:,} times and were turned away"
        f" {run.strangers.turned_away:,} times; {run.consoles.followed:,} events were followed"
    )
    say(f"{'FAILED: ' + ', '.join(failed) if failed else 'all is well'}")
    return not failed


def _unless_short(said: str, is_wrong: bool, minutes: float) -> tuple[str, bool]:
    return (said, is_wrong) if minutes >= JUDGED_FROM else (f"{said}; not judged, too short", False)


async def main(minutes: float, rate: float, waiting: int, seed: int, without: set[str], *, store: str) -> bool:
    """Run it; whether every criterion is met."""
    left_out = f", without {', '.join(sorted(without))}" if without else ""
    say(f"{store}, {minutes:g} minutes, {rate:g} letters a second, {waiting:,} waiting, seed {seed}{left_out}")
    ledger = Ledger()
    async with internet() as net, AsyncExitStack() as stack:
        database: Tables | None = None
        if store == "postgres":
            database = await asyncio.to_thread(Tables)
            stack.push_async_callback(database.end)
        world = World(net, ledger)
        await world.populate()
        with tempfile.TemporaryDirectory(prefix="sh-") as folder:
            relay = Relay(Path(folder), net, database.dsn if database is not None else "")
            await relay.start()
            try:
                run = Soak(
                    relay, world, ledger, database, rate=rate, waiting=waiting, seed=seed, without=without
                )  # fmt: skip
                await run.run(minutes)
                end = time.time()
                stopped = await asyncio.to_thread(_status_of, relay)
            finally:
                if relay.process is not None and relay.process.poll() is None:
                    relay.kill()
            books = ledger.verdict(await left_in(_queue_of(relay, database), ledger))
            return judged(run, books, end, stopped, minutes)


def _queue_of(relay: Relay, database: Tables | None) -> Queue:
    clock = SystemClock()
    return SqliteQueue(relay.spool, clock) if database is None else PostgresQueue(database.dsn, clock, node="books")


def _status_of(relay: Relay) -> int | None:
    """The status a relay ends with when it is told to; None where it does not end in time."""
    try:
        return relay.stop(STOPS)
    except TimeoutExpired:
        return None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench soak",
        description=soak.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("minutes", type=float)
    parser.add_argument("--rate", type=float, default=20.0, help="letters a second, of all together")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite", help="where its queue is kept")
    parser.add_argument("--waiting", type=int, default=0, help="recipients that wait all the time, beside all others")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", default="", help=f"what to leave out, of {', '.join(PARTS)}")
    given = parser.parse_args()
    left_out = {part for part in given.without.split(",") if part}
    if not left_out <= set(PARTS):
        parser.error(f"--without: only {', '.join(PARTS)}")
    if given.store == "postgres" and (why := postgres.why_not()):
        parser.error(why)
    is_well = uvloop.run(main(given.minutes, given.rate, given.waiting, given.seed, left_out, store=given.store))
    sys.exit(0 if is_well else 1)
