"""Whether a queue with a million waiting is as quick as one with ten thousand, in SQLite and in PostgreSQL

Four queues are filled through the store's contract, two of each store: letters of 100 recipients each at 5,000 domains,
of which some take mail, some have put theirs off, some cannot be reached (and hosts are marked bad), some are held and
some were never tried; a twentieth of all waits for one domain. Then each thing that is asked of a queue is asked of all
four in turn, several times; answers that a store would give again for a while are found anew. Told are the medians in
ms, with few and with many, and how many times as long it takes with many. A line is marked

    flat    PostgreSQL takes at most 3 times as long with many
    grows   longer, but no more than SQLite: in times (up to twice SQLite's), or in ms with many
    WORSE   neither
    SLOW    what moves mail takes longer than 50 ms in PostgreSQL with many

    uv run python -m tests.bench.million [--few N] [--many N] [--only WORDS] [--no-autovacuum] [--memory SIZE]
"""

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import asyncpg
import uvloop

from engine.base.clock import SystemClock
from engine.model.claim import Claim, EntryResult, Settlement
from engine.model.destination import Mark, Suspension
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import NewMessage
from engine.model.outcome import Outcome
from engine.queue.contract import DESTINATION_SORTS, SORTS, Queue
from engine.queue.postgres.store import PostgresQueue
from engine.queue.sqlite.store import SqliteQueue
from tests import postgres
from tests.bench.relaying import say

DOMAINS = 5000
SITE = 10  # domains of one site
AT_ONCE = 100  # recipients of a letter, of 50 domains
BIG = "big.example"
BIG_SHARE = 20  # every so many letters is for that domain alone
EVENTS = 20_000  # kept
HOUR = 3600.0
PAGE = 50  # rows of a window
WORKERS = 200  # things asked of a store at a time while it is filled
FEW_WORKERS = 4  # where each does several at a time
WARM = 8  # times that each thing is asked before it is timed: a plan for all values is made at the sixth
ROUNDS = 11
PATIENCE = 3.0  # seconds for the rounds of one thing in one queue, beyond the first LEAST
LEAST = 3
FLAT = 3.0
NO_WORSE = 2.0
SOON = 50.0  # ms
MOVES = ("claim", "settle", "due sites", "enqueue")
SYNCS = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}

DELIVERED = Outcome.of_reply(250, "2.0.0 ok")
PUT_OFF = tuple(
    Outcome.of_reply(code, text, host="mx.example.net", phase="rcpt")
    for code, text in [
        *((450, f"4.2.{number} mailbox {word}") for number, word in enumerate(("busy", "full", "locked", "moved"))),
        *((451, f"4.7.{number} greylisted, come back in {number} minutes") for number in range(8)),
        *((421, f"4.3.{number} too many connections") for number in range(8)),
    ]
)


class Ask(NamedTuple):
    """A question: its name, and what asks it of a queue and gives how long each part of it took, in seconds."""

    name: str
    of: Callable[[Queue], Awaitable[dict[str, float]]]


# -- filling ----------------------------------------------------------------------------------------------------------


def domain(number: int) -> str:
    """The name of a domain; those that are held begin with an h."""
    return f"{'h' if number % 50 == 0 else 'd'}{number}.example"


def kind(number: int) -> str:
    """How the domains of a site fare: ten sites of every kind."""
    return ("due", "due", "tried", "dead", "dead", "dead", "limited", "limited", "limited", "new")[number // SITE % 10]


def site(number: int) -> str:
    """The site of a domain."""
    return f"site{number // SITE}.example"


def numbers_of(*kinds: str) -> list[int]:
    """The domains that fare so."""
    return [number for number in range(DOMAINS) if kind(number) in kinds]


class Filling:
    """Fills one queue with so many entries, the same for every store."""

    def __init__(self, queue: Queue, entries: int) -> None:
        self._queue = queue
        self._entries = entries
        self._draw = random.Random(1)

    async def fill(self) -> None:
        """Do all of it."""
        await self._prove()
        await each(self._queue.arrivals.enqueue(letter) for letter in self._letters())
        await self._note()
        await self._try()
        await self._keep()
        for first in range(0, EVENTS, 1000):
            await self._queue.arrivals.record(*map(_event, range(first, first + 1000)))

    async def _prove(self) -> None:
        """Some domains have taken mail."""
        names = [*map(domain, numbers_of("due", "tried")), BIG]
        for first in range(0, len(names), 1000):
            recipients = tuple(f"first@{name}" for name in names[first : first + 1000])
            await self._queue.arrivals.enqueue(_letter("ann@example.net", recipients))
        await each(self._deliver(name) for name in names)

    async def _deliver(self, name: str) -> None:
        for claim in await self._queue.claims.claim(name, 10, 1):
            await self._queue.claims.settle(settled(claim, DELIVERED))

    def _letters(self) -> list[NewMessage]:
        letters = []
        for number in range(self._entries // AT_ONCE):
            sender = f"list{number % 97}@news{number % 13}.example"
            if number % BIG_SHARE == 0:
                recipients = tuple(f"r{number}.{place}@{BIG}" for place in range(AT_ONCE))
            else:
                first = number * AT_ONCE // 2
                recipients = tuple(
                    f"r{number}.{place}@{domain((first + place // 2) % DOMAINS)}" for place in range(AT_ONCE)
                )
            colour = ("red", "green", "blue")[number % 3]
            letters.append(_letter(sender, recipients, f"letter {number} of a {colour} list"))
        return letters

    async def _note(self) -> None:
        """Who is where is known of all domains but the new ones."""
        standing = self._queue.standing
        known = numbers_of("due", "tried", "dead", "limited")
        hosts = {number: (f"mx1.{site(number)}", f"mx2.{site(number)}") for number in known}
        await each(standing.note_destination(domain(number), hosts[number], site(number)) for number in known)

    async def _try(self) -> None:
        """Some mail was tried once, and is due again in some hours."""
        await each((self._put_off(domain(number)) for number in numbers_of("tried")), FEW_WORKERS)

    async def _put_off(self, name: str) -> None:
        while claims := await self._queue.claims.claim(name, 10, 1):
            until = time.time() + (1 + 3 * self._draw.random()) * HOUR
            outcome = self._draw.choice(PUT_OFF)
            await each((self._queue.claims.settle(settled(claim, outcome, until)) for claim in claims), len(claims))

    async def _keep(self) -> None:
        """What keeps mail from being sent: hosts that are bad, limits, what operators have ordered."""
        queue, now = self._queue, time.time()
        dead = sorted({site(number) for number in numbers_of("dead")})
        await each(queue.standing.block_site(name, now + 3 * HOUR, f"mx1.{name} cannot be reached") for name in dead)
        limited = sorted({site(number) for number in numbers_of("limited")})
        await each(
            queue.standing.block_site(name, now + HOUR, "a limit of 10 an hour", failed=False) for name in limited
        )
        for name in dead[:50]:
            for host in (f"mx1.{name}", f"mx2.{name}"):
                await queue.marks.save(Mark(host=host, since=now, until=now + 3 * HOUR, by="ann", note="down"))
        await queue.orders.hold(Filter.parse("domain=h*"), "ann", "to be looked at")
        for number in numbers_of("tried")[1:4]:
            await queue.standing.suspend(
                Suspension(destination=domain(number), since=now, until=now + HOUR, by="ann", note="asked for")
            )


def settled(claim: Claim, outcome: Outcome, due: float | None = None) -> Settlement:
    """All recipients of a claim came to the same."""
    results = tuple(
        EntryResult(number=entry.number, attempt=entry.attempt, outcome=outcome, due=due) for entry in claim.entries
    )
    return Settlement(message=claim.message, results=results, epoch=claim.epoch)


async def each(calls: Any, workers: int = WORKERS) -> None:
    """Do all of these, some at a time."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call

    await asyncio.gather(*(work() for _ in range(workers)))


def _letter(sender: str, recipients: tuple[str, ...], subject: str = "hello") -> NewMessage:
    content = b"Subject: %s\r\n\r\n" % subject.encode() + b"x" * 1000 + b"\r\n"
    return NewMessage(sender=sender, recipients=recipients, content=content, subject=subject, origin="bench")


def _event(number: int) -> Event:
    name = domain(number % DOMAINS)
    return Event(
        at=time.time(), kind="deferred", message=number + 1, entry=1, sender="ann@example.net",
        recipient=f"bob{number}@{name}", destination=name, host=f"mx.{name}",
        outcome=PUT_OFF[number % len(PUT_OFF)], text=f"try {number % 7}",
    )  # fmt: skip


# -- asking -----------------------------------------------------------------------------------------------------------


def anew(queue: Queue) -> None:
    """Forget the answers that would be given again for a while."""
    it = cast("Any", queue)
    it.listing = type(it.listing)(it._database)
    it.claims._doubtful = type(it.claims._doubtful)()


def timed(name: str, call: Callable[[Queue], Awaitable[object]]) -> Ask:
    """One question, as it is asked."""

    async def ask(queue: Queue) -> dict[str, float]:
        begin = time.perf_counter()
        await call(queue)
        return {name: time.perf_counter() - begin}

    return Ask(name, ask)


def moving() -> list[Ask]:
    """What moves mail. A claim is given back as it was: put off to no later time."""
    draw, numbers = random.Random(2), count()
    due = sorted({site(number) for number in numbers_of("due")})

    async def claim(queue: Queue, where: str, *, is_site: bool) -> dict[str, float]:
        claims = queue.claims
        begin = time.perf_counter()
        found = await (claims.claim_site(where, 10, 1) if is_site else claims.claim(where, 5, 1, 2))
        claimed = time.perf_counter()
        await asyncio.gather(*(claims.settle(settled(one, PUT_OFF[0], time.time() - 1)) for one in found))
        of = "10 of a site" if is_site else "5 of the big domain"
        return {f"claim {of}": claimed - begin, f"settle {of}": time.perf_counter() - claimed}

    async def deliver(queue: Queue) -> dict[str, float]:
        """Take in ten letters, and deliver them."""
        names = [domain(draw.choice(numbers_of("due"))) for _ in range(10)]
        begin = time.perf_counter()
        for name in names:
            await queue.arrivals.enqueue(_letter("ann@example.net", (f"bob{next(numbers)}@{name}",)))
        taken = time.perf_counter()
        found = [one for name in names[:1] for one in await queue.claims.claim(name, 1, 1, 1)]
        claimed = time.perf_counter()
        for one in found:
            await queue.claims.settle(settled(one, DELIVERED))
        return {
            "enqueue, one recipient": (taken - begin) / 10,
            "claim 1": claimed - taken,
            "settle 1, delivered": time.perf_counter() - claimed,
        }

    def many() -> NewMessage:
        first = draw.randrange(DOMAINS)
        names = (domain((first + place) % DOMAINS) for place in range(10))
        return _letter("ann@example.net", tuple(f"bob{next(numbers)}@{name}" for name in names))

    return [
        Ask("claim and settle, site", lambda queue: claim(queue, draw.choice(due), is_site=True)),
        Ask("claim and settle, big domain", lambda queue: claim(queue, BIG, is_site=False)),
        Ask("enqueue, claim and settle", deliver),
        timed("enqueue, ten recipients", lambda queue: queue.arrivals.enqueue(many())),
        timed("due sites, 100", lambda queue: queue.claims.due_sites(100)),
        timed("due sites, none in doubt", lambda queue: queue.claims.due_sites(100, with_doubtful=False)),
        timed("doubtful sites", lambda queue: queue.claims.doubtful_sites()),
        timed("next due", lambda queue: queue.claims.next_due()),
        timed("next due, later", lambda queue: queue.claims.next_due(time.time())),
        timed("overdue, nothing", lambda queue: queue.claims.overdue(10)),
        timed("late, none", lambda queue: queue.claims.late(10)),
        timed("untold, none", lambda queue: queue.claims.untold(10)),
    ]


FILTERS = {
    "one domain": f"domain={domain(2)}", "the big domain": f"domain={BIG}", "domains with a word": "domain~d77",
    "one recipient": f"to=r3.5@{domain(152)}", "recipients with a word": "to~r77.", "recipient nobody is": "to~nobody",
    "one sender": "from=list5@news5.example", "senders with a word": "from~news7", "subject": "subject~green",
    "subject, one letter": 'subject~"letter 77 "', "subject in other letters": "subject~grün",
    "a reply": "reply~greylist",
    "a reply to few": 'reply~"mailbox moved"', "a word anywhere": "text~blue", "held": "state=held", "due": "state=due",
    "waiting": "state=waiting", "one message": "id=77", "tries": "tries>0", "young": "age<1h", "large": "size>500",
    "a reply of one domain": f"domain={domain(20)} reply~greylist", "held of a sender": "state=held from~news7",
    "not a domain": f"-domain={BIG} state=held", "due of a sender": "state=due from=list5@news5.example",
}  # fmt: skip


def looking(groups: dict[str, str]) -> list[Ask]:
    """What operators look at; `groups` are filters that name the mail of one reason."""

    def window(text: str, sort: str, part: float) -> Callable[[Queue], Awaitable[object]]:
        async def ask(queue: Queue) -> object:
            # The console knows how long the listing was when it asks for a page of it.
            offset = int(part * (lengths[queue, text] - PAGE)) if part else 0
            found = await queue.listing.window(Filter.parse(text), sort, offset, PAGE)
            lengths[queue, text] = found.total
            return found

        return ask

    def select(text: str, until: float | None = None) -> Callable[[Queue], Awaitable[object]]:
        return lambda queue: queue.listing.select(Filter.parse(text), until=until)

    def destinations(match: str, sort: str) -> Callable[[Queue], Awaitable[object]]:
        return lambda queue: queue.listing.destinations(match, sort, 0, PAGE)

    lengths: dict[tuple[Queue, str], int] = {}
    asks = [timed("all, by id", window("", "id", 0.0))]
    places = (("first", 0.0), ("middle", 0.5), ("end", 1.0))
    asks += [timed(f"all by {sort}, {name}", window("", sort, part)) for sort in SORTS for name, part in places]
    filters = {**FILTERS, **groups}
    asks += [timed(f"window: {name}", window(text, "id", 0.0)) for name, text in filters.items()]
    asks += [
        timed(f"select: {name}", select(filters[name]))
        for name in ("one domain", "the big domain", "one sender", "subject", "held", "waiting", *groups)
    ]
    asks += [
        timed("window: held by size", window("state=held", "-size", 0.0)),
        timed("window: one sender by due", window(FILTERS["one sender"], "due", 0.0)),
        timed("select: everything", select("")),
        timed("select: tries, to retry", select("tries>0", time.time())),
        timed("one message", lambda queue: queue.listing.message(77)),
        timed("totals", lambda queue: queue.listing.totals()),
        *(timed(f"destinations by {sort}", destinations("", f"-{sort}")) for sort in DESTINATION_SORTS),
        timed("destinations with a word", destinations("d77", "name")),
        timed("one destination", lambda queue: queue.listing.destination(domain(2))),
        timed("the big destination", lambda queue: queue.listing.destination(BIG)),
        timed("reasons", lambda queue: queue.listing.reasons(20)),
        timed("held back, 50 hosts", lambda queue: queue.listing.held_back(_bad_hosts())),
        timed("held back, counts", lambda queue: queue.listing.held_back_counts()),
        timed("events, a page", lambda queue: queue.listing.events(limit=100)),
        timed("events of a message", lambda queue: queue.listing.events(message=77)),
        timed("events by words", lambda queue: queue.listing.events(match="greylisted d77", limit=100)),
        timed("events by words not there", lambda queue: queue.listing.events(match="nobody", limit=100)),
    ]
    return asks


def _bad_hosts() -> list[str]:
    return [f"mx1.{name}" for name in sorted({site(number) for number in numbers_of("dead")})[:50]]


# -- comparing --------------------------------------------------------------------------------------------------------

Figures = dict[str, list[list[float]]]
"""Of each thing the seconds it took, in each of the queues."""


async def asked(queues: Sequence[Queue], ask: Ask) -> Figures:
    """Ask all queues in turn, several times."""
    figures: Figures = {}
    warmed, spent = [0.0] * len(queues), [0.0] * len(queues)
    for number in range(-WARM, ROUNDS):
        for place, queue in enumerate(queues):
            taken = warmed if number < 0 else spent
            if taken[place] > PATIENCE and number >= (LEAST if number >= 0 else 1 - WARM):
                continue
            anew(queue)
            found = await ask.of(queue)
            taken[place] += sum(found.values())
            for name, seconds in found.items():
                row = figures.setdefault(name, [[] for _ in queues])
                if number >= 0:
                    row[place].append(seconds)
    return figures


def judged(few: float, many: float, sqlite_few: float, sqlite_many: float, *, moves: bool) -> str:
    """What a line is marked with; see above."""
    if moves and many > SOON:
        return "SLOW"
    if many <= FLAT * few:
        return "flat"
    times, sqlite_times = many / few, sqlite_many / sqlite_few
    return "grows" if times <= NO_WORSE * sqlite_times or many <= sqlite_many else "WORSE"


def tell(figures: Figures) -> list[str]:
    """Say what came out; give what is worse, or slow."""
    wrong = []
    for name, (sqlite_few, sqlite_many, few, many) in (
        (name, [statistics.median(times) * 1e3 for times in queues]) for name, queues in figures.items()
    ):
        mark = judged(few, many, sqlite_few, sqlite_many, moves=name.startswith(MOVES))
        say(
            f"{name:32}{sqlite_few:9.2f}{sqlite_many:10.2f}{sqlite_many / sqlite_few:8.1f}"
            f"{few:12.2f}{many:10.2f}{many / few:8.1f}   {mark}"
        )
        if mark.isupper():
            wrong.append(name)
    return wrong


async def main(sizes: tuple[int, int], only: str, settings: dict[str, str]) -> bool:
    """Fill, ask, and say what came out; whether nothing is worse."""
    clock = SystemClock()
    server = await asyncio.to_thread(postgres.Server, {**SYNCS, **settings}, on_disk=True)
    queues: list[Queue] = []
    try:
        with tempfile.TemporaryDirectory(prefix="sh-") as folder:
            for size in sizes:
                (place := Path(folder, f"{size}")).mkdir()
                queues.append(SqliteQueue(place, clock, events_kept=EVENTS))
            for size in sizes:
                await _make(server, f"of_{size}")
                queues.append(PostgresQueue(server.dsn(f"of_{size}"), clock, node="million", events_kept=EVENTS))
            for queue in queues:
                await queue.open()
            await asyncio.gather(*(_fill(queue, size) for queue, size in zip(queues, (*sizes, *sizes), strict=True)))
            return await _compare(queues, only)
    finally:
        for queue in queues:
            await queue.close()
        await asyncio.to_thread(server.end)


async def _fill(queue: Queue, size: int) -> None:
    begin = time.monotonic()
    await Filling(queue, size).fill()
    took, found = time.monotonic() - begin, await queue.listing.totals()
    say(
        f"{type(queue).__name__:14} {found.waiting:9,} waiting, {found.due:,} due, {found.held:,} held,"
        f" {found.destinations:,} destinations, filled in {took:.0f} s"
    )


async def _compare(queues: Sequence[Queue], only: str) -> bool:
    reasons = await queues[-1].listing.reasons(100)
    replies = [one.group for one in reasons if one.group[:1].isdigit()]
    others = [one.group for one in reasons if not one.group[:1].isdigit()]
    groups = {
        f"reason {name}": f'group="{group}"'
        for names, found in (("12", replies), ("abc", others))
        for name, group in zip(names, found, strict=False)
    }
    say(f"reasons: {', '.join(f'{name} {text}' for name, text in groups.items())}")
    say(f"{'':32}{'SQLite':>9}{'':18}{'PostgreSQL':>12}")
    say(f"{'ms':32}{'few':>9}{'many':>10}{'times':>8}{'few':>12}{'many':>10}{'times':>8}")
    wrong: list[str] = []
    for ask in (*moving(), *looking(groups)):
        if only in ask.name:
            wrong += tell(await asked(queues, ask))
    say(f"worse: {', '.join(wrong)}" if wrong else "nothing is worse")
    return not wrong


async def _make(server: postgres.Server, name: str) -> None:
    connection = await asyncpg.connect(server.dsn("postgres"))
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.million", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--only", default="", help="ask only for what has this in its name")
    parser.add_argument("--no-autovacuum", action="store_true", help="nothing is ever vacuumed, or analyzed")
    parser.add_argument("--memory", default="128MB", help="the shared_buffers of PostgreSQL")
    given = parser.parse_args()
    if why := postgres.why_not():
        sys.exit(why)
    settings = {"autovacuum": "off" if given.no_autovacuum else "on", "shared_buffers": given.memory}
    sys.exit(0 if uvloop.run(main((given.few, given.many), given.only, settings)) else 1)
