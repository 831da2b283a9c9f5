"""A queue is moved from one store to another: all of it, each message once, whenever it is killed on the way."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from msgspec.structs import replace

from engine.model.claim import EntryResult, Settlement
from engine.model.destination import RELAY, Mark, Override, Suspension
from engine.model.filter import Filter
from engine.model.message import DsnRequest, Message
from engine.model.outcome import Outcome
from engine.model.suppression import Suppressed
from engine.queue import moving, tables
from engine.queue.contract import KeptPolicy
from engine.queue.errors import QueueError
from engine.queue.moving import CannotMove, End, Leaving, Moved, abandon, move
from engine.queue.postgres.connection import Server
from engine.queue.postgres.moving import PostgresEnd
from engine.queue.sqlite.moving import SqliteEnd
from engine.queue.sqlite.upkeep import Upkeep
from engine.queue.tables import EVERY, OF_MAIL, Row, Table
from tests import postgres as server
from tests.clock import FakeClock
from tests.unit.postgres import support as postgres
from tests.unit.queue.support import ALL, DELIVERED, LATER, Opened, Spool
from tests.unit.sqlite import support as sqlite_store

GATHER = 15.0
TERMS = {"gather": GATHER, "delay_notice": 3600.0}
NO = Outcome.of_reply(550, "5.1.1 no such user")
STORES: dict[str, Opened] = {"sqlite": sqlite_store.opened, "postgres": postgres.opened}
needs_server = pytest.mark.skipif(bool(server.why_not()), reason=server.why_not() or "it is there")


class Place(NamedTuple):
    """A queue: its store, and the folder that it belongs to."""

    store: str
    folder: Path

    def opened(self, clock: FakeClock) -> Any:
        """Open it as an engine does."""
        return STORES[self.store](self.folder, clock, **TERMS)

    async def end(self, clock: FakeClock, *, is_source: bool = False) -> Any:
        """It as one end of a move."""
        if self.store == "sqlite":
            return SqliteEnd(self.folder, clock.now, is_source=is_source)
        cluster = await asyncio.to_thread(server.cluster)
        return PostgresEnd(Server(await cluster.database(self.folder)), clock.now, is_source=is_source)


class Way(NamedTuple):
    """From where to where."""

    source: Place
    target: Place

    @property
    def back(self) -> "Way":
        return Way(self.target, self.source)


@pytest.fixture(
    params=[
        pytest.param(("sqlite", "postgres"), marks=needs_server),
        pytest.param(("postgres", "sqlite"), marks=needs_server),
        ("sqlite", "sqlite"),
    ],
    ids=" to ".join,
)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    source, target = request.param
    return Way(Place(source, tmp_path / "from"), Place(target, tmp_path / "to"))


@asynccontextmanager
async def ends(way: Way, clock: FakeClock) -> AsyncIterator[tuple[End, End]]:
    source, target = await way.source.end(clock, is_source=True), await way.target.end(clock)
    async with source, target:
        yield source, target


async def moved(way: Way, clock: FakeClock) -> Moved:
    async with ends(way, clock) as (source, target):
        return await moved_by(source, target)


async def rows(place: Place, clock: FakeClock) -> dict[str, list[Row]]:
    """All that is in a queue, table by table."""
    async with await place.end(clock) as end:
        return {table.name: await end.read(table, None, 10_000) for table in EVERY}


async def fill(spool: Spool) -> None:
    """Mail in every state, and all that stands beside it."""
    queue, now = spool.queue, spool.clock.now()
    await queue.standing.note_destination("site.example", ["mx1.site.example", "mx2.site.example"], "mx1 site")
    await queue.standing.block("blocked.example", now + 900, "4.4.1 nobody answers", cause="connect")
    await queue.standing.save_sts_policy(KeptPolicy(domain="sts.example", expires=now + 9e4, policy='{"a": "ü"}'))
    await queue.standing.suspend(Suspension(destination="late.example", since=now, until=now + 3e4, by="ann", note="x"))
    await queue.standing.suspend(Suspension(destination=RELAY, since=now, until=now + 1, by="ann", note="all"))
    override = Override(destination="o.example", host="mx.else", port=26, since=now, until=now + 3e4, by="bo", note="y")
    await queue.standing.set_override(override)
    await queue.marks.save(Mark(host="mx1.bad", since=now, until=now + 600, by="engine", note="", last=LATER, times=3))
    await queue.standing.add_rule(Filter.parse("to=*@ruled.example"), now + 7200, "cy", "looping")
    await queue.arrivals.remember_login("ann", "192.0.2.7")
    listed = [
        Suppressed(address="bob@gone.example", since=now, until=now + 9e5, reply="550 5.1.1 no such user"),
        Suppressed(address="ö@gone.example", since=now, by="ann", note="asked us not to"),
    ]
    await queue.suppression.enter(listed, "ann", "list.csv", 100)
    await spool.clock.advance(2)
    now = spool.clock.now()
    plain = await spool.add("a@site.example", "b@site.example", "c@late.example", key="drop 1")
    await spool.add("gone@gone.example", key="drop 2")
    await spool.add("h@ruled.example", "i@ruled.example", sender="")
    asked = (DsnRequest(notify="NEVER"), DsnRequest(notify="SUCCESS,DELAY", orcpt="rfc822;q@x.example"))
    await spool.add(
        "n@dsn.example", "ö@dsn.example", dsn=asked, ret="HDRS", envid="QQ+2B314", smtputf8=True, subject="Grüße",
        message_id="<1@a>", content=b"Subject: \xc3\xbc\r\n\r\n\x80\xff\r\n" * 2000, sender="jö@example.net",
    )  # fmt: skip
    for claim in await spool.claim("gone.example"):
        await spool.settle(claim, DELIVERED)
    for claim in await spool.claim("site.example"):
        await spool.settle(claim, LATER, after=600)
    both = await spool.add("f@part.example", "g@part.example")
    (claim,) = await spool.claim("part.example")
    first, second = claim.entries
    failed = EntryResult(number=first.number, attempt=first.attempt, outcome=NO, tell="failed")
    later = EntryResult(number=second.number, attempt=second.attempt, outcome=LATER, due=now + 50)
    await queue.claims.settle(Settlement(message=both, results=(failed, later)))
    await spool.add("t@told.example")
    (claim,) = await spool.claim("told.example")
    (only,) = claim.entries
    failed = EntryResult(number=only.number, attempt=only.attempt, outcome=NO, tell="failed")
    await queue.claims.settle(Settlement(message=claim.message, results=(failed,)))
    for destination in ("held", "bounced", "dropped", "postponed", "undone", "o", "blocked", "relayed"):
        await spool.add(f"a@{destination}.example", f"b@{destination}.example")
    await queue.orders.hold(Filter.parse("domain=held.example"), "ann", "why not")
    await queue.orders.give_up("bounce", Filter.parse("domain=bounced.example"), "ann", "no", 3600)
    await queue.orders.hold(Filter.parse("to=a@dropped.example"), "ann", "first")
    await queue.orders.give_up("drop", Filter.parse("domain=dropped.example"), "bo", "spam", 7200)
    await queue.orders.postpone(Filter.parse("domain=postponed.example"), "cy", now + 5000)
    changed = await queue.orders.give_up("drop", Filter.parse("domain=undone.example"), "bo", "", 60)
    await queue.orders.undo(changed.operation, "bo")
    await queue.orders.release(Filter.parse("to=i@ruled.example"), "ann")
    assert (await spool.claim("relayed.example"))[0].entries
    assert plain


async def seen(spool: Spool) -> dict[str, object]:
    """What the contract tells of a queue, but for the names of nodes, which are left."""
    queue = spool.queue
    listing, standing = queue.listing, queue.standing
    window = await listing.window(ALL, "id", 0, 1000)
    numbers = sorted({entry.message for entry in window.rows})
    destinations = await listing.destinations("", "name", 0, 1000)
    at = spool.clock.now()
    return {
        "window": window,
        "by due": await listing.window(ALL, "due", 0, 1000),
        "messages": [_of_no_node(await listing.message(number)) for number in numbers],
        "contents": [await queue.claims.content(number) for number in numbers],
        "destinations": destinations,
        "each": [await listing.destination(one.name) for one in destinations[1]],
        "suspensions": await standing.suspensions(),
        "overrides": await standing.overrides(),
        "rules": await standing.rules(),
        "policy": await standing.sts_policy("sts.example"),
        "marks": await queue.marks.all(),
        "suppressed": await queue.suppression.window("", "", 100),
        "logins": await queue.arrivals.known_logins(),
        "operations": [await queue.orders.operation(number) for number in range(20)],
        "events": [replace(event, node="") for event in await listing.events(limit=1000)],
        "totals": await listing.totals(),
        "reasons": await listing.reasons(50),
        "untold": await queue.claims.untold(50),
        "late": await queue.claims.late(50),
        "next": [await queue.claims.next_due(at + seconds) for seconds in (0, 10, 100, 1000, 4000, 1e5)],
    }


async def filled(way: Way, clock: FakeClock) -> tuple[dict[str, object], dict[str, list[Row]]]:
    """A closed queue, and what is in it once a start has put back what was interrupted."""
    async with way.source.opened(clock) as spool:
        await fill(spool)
    async with way.source.opened(clock) as spool:
        return await seen(spool), await rows_of_open(way.source, spool, clock)


def _of_no_node(message: Message) -> Message:
    return replace(message, attempts=tuple(replace(attempt, node="") for attempt in message.attempts))


async def rows_of_open(place: Place, spool: Spool, clock: FakeClock) -> dict[str, list[Row]]:
    await spool.queue.close()
    found = await rows(place, clock)
    await spool.queue.open()
    return found


async def test_all_of_it_is_there_as_it_was_and_back_again(way: Way) -> None:
    clock = FakeClock()
    before, rows_before = await filled(way, clock)
    assert all(rows_before[table.name] for table in EVERY), "each table has something to be moved"
    result = await moved(way, clock)
    assert result == Moved(messages=len(rows_before["message"]))
    assert await rows(way.target, clock) == rows_before
    assert not any((await rows(way.source, clock)).values())
    async with way.target.opened(clock) as spool:
        assert await seen(spool) == before
    assert await moved(way.back, clock) == result
    assert await rows(way.source, clock) == rows_before
    async with way.source.opened(clock) as spool:
        assert await seen(spool) == before
        again = await spool.add("new@example.org")
        assert again == max(row[0] for row in rows_before["message"]) + 1
        assert await spool.add("x@example.org", key="drop 2") == 2, "its file had been taken"


async def test_what_was_being_sent_waits_and_its_attempt_is_told_as_interrupted(way: Way) -> None:
    clock = FakeClock()
    async with way.source.opened(clock) as spool:
        number = await spool.add("a@example.org")
        await spool.claim()
    await moved(way, clock)
    async with way.target.opened(clock) as spool:
        assert (await spool.entry(number)).state == "waiting"
        (attempt,) = (await spool.queue.listing.message(number)).attempts
        assert attempt.interrupted
        assert [event.kind for event in await spool.queue.listing.events()] == ["accepted", "interrupted"]


async def test_beside_what_is_there_numbers_are_shifted_and_what_stands_wins(way: Way) -> None:
    clock = FakeClock()
    now = clock.now()
    async with way.target.opened(clock) as spool:
        for place in range(2):
            await spool.add(f"own{place}@example.org")
        own_rule = await spool.queue.standing.add_rule(Filter.parse("to=*@ruled.example"), now + 9000, "own", "own")
        theirs = Suspension(destination="late.example", since=now, until=now + 9e3, by="own", note="own")
        await spool.queue.standing.suspend(theirs)
        await spool.queue.standing.add_rule(Filter.parse("to=n@dsn.example"), now + 9000, "own", "not this one")
        for claim in await spool.claim():
            await spool.settle(claim, LATER, after=10)
        await spool.queue.orders.give_up("drop", Filter.parse("to=own0@*"), "own", "", 3600)
        own = await spool.entries()
    before, rows_before = await filled(way, clock)
    await moved(way, clock)
    async with way.target.opened(clock) as spool:
        assert (await spool.entries())[: len(own)] == own
        entries = (await spool.entries())[len(own) :]
        assert {entry.message for entry in entries} == {2 + row[0] for row in rows_before["entry"]}
        held = {entry.recipient: entry for entry in entries if entry.rule is not None}
        assert held["h@ruled.example"].rule == own_rule.id
        assert held["n@dsn.example"].note == "not this one"
        assert theirs in await spool.queue.standing.suspensions()
        assert [rule.by for rule in await spool.queue.standing.rules()] == ["own", "own"]
        dropped = [entry for entry in entries if entry.ordered == "drop"]
        assert [entry.recipient for entry in dropped] == ["a@dropped.example", "b@dropped.example"]
        (due,) = {entry.order_at for entry in dropped}
        assert due is not None
        attempts = (await spool.queue.listing.message(entries[0].message)).attempts
        assert [attempt.outcome for attempt in attempts] == [LATER, LATER]
        events = await spool.queue.listing.events(message=entries[0].message)
        assert [event.recipient for event in events] == ["a@site.example", "b@site.example", "c@late.example"]
        assert await spool.add("y@example.org", key="drop 1") == entries[0].message
    assert before


Work = Callable[[End, End], Awaitable[object]]


class Killed(BaseException):
    """The process ends here."""


# What changes nothing: to die before or after it is one and the same.
LOOKS = frozenset({"read", "read_of", "waiting", "count", "given"})


class _Dying:
    """An end of a move that dies at a step: `left` counts down, for both ends together, at each that is counted."""

    def __init__(self, end: End, left: list[int], *, commits: bool) -> None:
        self._end = end
        self._left = left
        self._commits = commits  # these alone are counted

    def _step(self, *, is_commit: bool = False) -> None:
        self._left[0] -= is_commit or not self._commits
        if self._left[0] == 0:
            raise Killed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._end.transaction():
            yield
            self._step()
        self._step(is_commit=True)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._end, name)
        if name in LOOKS or not asyncio.iscoroutinefunction(found):
            return found

        async def step(*values: Any) -> Any:
            self._step()
            return await found(*values)

        return step


def dying(end: End, left: list[int], *, commits: bool = False) -> End:
    return cast("End", _Dying(end, left, commits=commits))


async def moved_by(source: End, target: End) -> Moved:
    return await move(source, target, lambda moved, of: None)


async def few(way: Way, clock: FakeClock) -> dict[str, list[Row]]:
    async with way.source.opened(clock) as spool:
        for number in range(4):
            await spool.add(f"a{number}@example.org", f"b{number}@x{number}.example", key=f"k{number}")
        await spool.queue.orders.hold(Filter.parse("to=a1@*"), "ann", "why")
        for claim in await spool.claim(limit=2):
            await spool.settle(claim, LATER, after=60)
        now = clock.now()
        await spool.queue.standing.add_rule(Filter.parse("to=a3@*"), now + 60, "ann", "")
    return await rows(way.source, clock)


async def test_killed_at_any_step_it_goes_on_and_nothing_is_lost_or_doubled(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 2)
    clock = FakeClock()
    before = await few(way, clock)
    kill, there = 1, way
    while await killed(there, clock, kill, moved_by):
        await moved(there, clock)
        assert await rows(there.target, clock) == before, f"killed at step {kill}"
        kill, there = kill + 1, there.back  # what were left there would be in the way
    assert kill > 40


async def test_killed_time_and_again_it_comes_to_its_end(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 1)
    clock = FakeClock()
    before = await few(way, clock)
    kills = 1
    while await killed(way, clock, kills, moved_by):
        kills += 1
    assert kills > 30
    assert await rows(way.target, clock) == before


async def test_abandoned_at_any_step_each_message_is_in_one_of_them(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 2)
    clock = FakeClock()
    before = await few(way, clock)
    shares, kill, is_whole = set(), 0, False
    while not is_whole:
        kill += 1
        await refill(way, clock, before)
        is_whole = not await killed(way, clock, kill, moved_by, commits=True)
        again = 1
        while await marked(way, clock) and await killed(way, clock, again, abandon, commits=True):
            again += 1  # what ends it is killed, too
        here, there = await rows(way.source, clock), await rows(way.target, clock)
        for name in (table.name for table in OF_MAIL):
            found = here[name] + there[name]
            # What has been told of no message may be in both: that is no mail.
            assert sorted(set(found) if name == "event" else found) == before[name], f"killed at step {kill}"
        shares.add((len(here["message"]), len(there["message"])))
        for place in way:  # both are queues as any other
            async with place.opened(clock):
                pass
    assert shares == {(4, 0), (2, 2), (0, 4)}
    async with ends(way, clock) as (source, target):
        with pytest.raises(CannotMove, match="is not being moved: there is nothing to abandon"):
            await abandon(source, target)


async def killed(way: Way, clock: FakeClock, step: int, work: Work, *, commits: bool = False) -> bool:
    """Kill it at a step, or after so many `commits`; False where it was done before."""
    async with ends(way, clock) as (source, target):
        left = [step]
        try:
            await work(dying(source, left, commits=commits), dying(target, left, commits=commits))
        except Killed:
            return True
        return False


async def marked(way: Way, clock: FakeClock) -> bool:
    async with await way.source.end(clock, is_source=True) as source:
        return await moving.leaving(source) is not None


async def refill(way: Way, clock: FakeClock, all_rows: dict[str, list[Row]]) -> None:
    """Have in the one queue all there was in the beginning, and nothing in the other."""
    for place in way:
        await empty(place, clock)
    async with await way.source.end(clock) as end, end.transaction():
        for table in EVERY:
            await end.add(table, all_rows[table.name])


async def empty(place: Place, clock: FakeClock) -> None:
    """Have it as one that was made anew, but for the numbers it gives."""
    async with await place.end(clock) as end, end.transaction():
        await end.clear()
        for table in (tables.LEAVING, tables.COMING):
            for row in await end.read(table, None, 10):
                await end.forget(table, row[:1])


async def test_no_engine_opens_a_queue_that_is_half_moved(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 1)
    clock = FakeClock()
    await few(way, clock)
    async with ends(way, clock) as (source, target):
        command = f"smarthost move-queue .*{way.source.folder.name if way.source.store == 'sqlite' else 'postgres'}"
        left = [40]
        with pytest.raises(Killed):
            await moved_by(dying(source, left), dying(target, left))
    with pytest.raises(QueueError, match=rf"is being moved to .*{command}.* goes on with it.*--abandon"):
        async with way.source.opened(clock):
            raise AssertionError("it is open")
    async with way.target.opened(clock):
        pass
    with pytest.raises(CannotMove, match=r"is being moved to .* goes on with it"):
        await moved(way.back, clock)
    elsewhere = Way(way.source, Place("sqlite", way.target.folder / "else"))
    with pytest.raises(CannotMove, match=r"knows nothing of that.*go on with .smarthost move-queue"):
        await moved(elsewhere, clock)
    await moved(way, clock)
    async with way.source.opened(clock) as spool:
        assert await spool.entries() == ()


@pytest.mark.parametrize(("weight", "rows_at_once"), [(10, 10_000), (2**20, 3)])
async def test_what_is_large_goes_in_batches_of_its_own(
    way: Way, monkeypatch: pytest.MonkeyPatch, weight: int, rows_at_once: int
) -> None:
    monkeypatch.setattr(moving, "WEIGHT_AT_ONCE", weight)
    monkeypatch.setattr(moving, "ROWS_AT_ONCE", rows_at_once)
    monkeypatch.setattr(moving, "STANDING_AT_ONCE", 1)
    clock = FakeClock()
    _, before = await filled(way, clock)
    told: list[tuple[int, int]] = []
    async with ends(way, clock) as (source, target):
        await move(source, target, lambda moved, of: told.append((moved, of)))
    assert await rows(way.target, clock) == before
    count = len(before["message"])
    assert told == [(place, count) for place in range(1, count + 1)]


async def test_a_full_disk_ends_it_and_with_room_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way, clock = Way(Place("sqlite", tmp_path / "from"), Place("sqlite", tmp_path / "to")), FakeClock()
    before = await few(way, clock)
    room = Upkeep.leave_room

    def full(upkeep: Upkeep, weight: int, changed: int) -> None:
        room(upkeep, weight, changed)
        if weight:
            raise sqlite3.OperationalError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Upkeep, "leave_room", full)
        with pytest.raises(CannotMove, match=r"to/queue.db: the disk is full"):
            await moved(way, clock)
    assert (await rows(way.target, clock))["message"] == []
    await moved(way, clock)
    assert await rows(way.target, clock) == before


async def test_two_queues_may_be_on_their_way_into_one(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 2)
    clock = FakeClock()
    other = Way(Place("sqlite", tmp_path / "other"), way.target)
    commits, was_killed = 0, True
    while was_killed:  # the first is killed between two commits, and the second moved whole meanwhile
        commits += 2
        first, second = await few(way, clock), await few(other, clock)
        was_killed = await killed(way, clock, commits, moved_by, commits=True)
        assert (await moved(other, clock)).messages == 4
        await moved(way, clock)
        there = await rows(way.target, clock)
        for table in ("message", "entry", "body", "event"):
            assert len(there[table]) == len(first[table]) + len(second[table]), f"killed after {commits} commits"
        recipients = [row[2] for row in first["entry"]]
        assert Counter(row[2] for row in there["entry"]) == Counter(2 * recipients)
        for place in (*way, other.source):
            await empty(place, clock)
    assert commits > 10


async def test_one_whose_other_queue_is_lost_is_a_queue_again(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "MESSAGES_AT_ONCE", 1)
    clock = FakeClock()
    await few(way, clock)
    assert await killed(way, clock, 40, moved_by)
    await empty(way.target, clock)
    with pytest.raises(CannotMove, match="knows nothing of that"):
        await moved(way, clock)
    async with await way.source.end(clock, is_source=True) as source:
        left = await source.count()
        await abandon(source, None)
    async with way.source.opened(clock) as spool:
        assert 0 < len({entry.message for entry in await spool.entries()}) == left < 4


async def test_while_an_engine_has_either_open_nothing_is_moved(way: Way) -> None:
    clock = FakeClock()
    await few(way, clock)
    for place in way:
        async with place.opened(clock):
            if place.store == "postgres":
                with pytest.raises(CannotMove, match=r"an engine has this queue open \(node .*\); stop it"):
                    await moved(way, clock)
    assert not await marked(way, clock)


async def test_what_is_damaged_is_left_and_named_and_all_else_goes(way: Way) -> None:
    clock = FakeClock()
    before = await few(way, clock)
    async with await way.source.end(clock, is_source=True) as end, end.transaction():
        (body,) = await end.read_of(tables.BODY, 2, 2)
        await end.forget(tables.BODY, (2,))
        await end.add(tables.BODY, [(2, body[1], b"another content")])
        await end.forget(tables.BODY, (4,))
    result = await moved(way, clock)
    assert result == Moved(messages=2, left=((2, "its content is not what came"), (4, "its content is missing")))
    here, there = await rows(way.source, clock), await rows(way.target, clock)
    assert [row[0] for row in here["message"]] == [2, 4]
    assert [row[0] for row in there["message"]] == [1, 3]
    assert {row[4] for row in here["event"]} == {0, 2, 4}, "a repair needs them"
    assert {row[4] for row in there["event"]} == {1, 3}
    assert await marked(way, clock)
    assert await moved(way, clock) == Moved(messages=0, left=result.left)
    async with await way.source.end(clock, is_source=True) as end, end.transaction():
        await end.forget(tables.BODY, (2,))
        await end.add(tables.BODY, [row for row in before["body"] if row[0] in (2, 4)])
    assert await moved(way, clock) == Moved(messages=2)
    assert await rows(way.target, clock) == before


async def test_every_table_and_column_is_moved_or_left_on_purpose(way: Way) -> None:
    left = {
        *(("destination", name) for name in ("waiting", "held", "relaying", "edge", "ready")),  # follow the entries
        *(("version", name) for name in ("number", "usable_from")),
        *(("node", name) for name in ("name", "epoch", "version", "since", "beat", "until", "is_lost", "said")),
        *(("conclusion", name) for name in ("node", "token")),
        *(("drained", name) for name in ("name", "since", "by")),  # machines, and no mail
        *(("errand", name) for name in ("id", "epoch", "asker", "request", "until", "is_taken", "answer")),
        *(("entry", "epoch"), ("operation", "epoch"), ("attempt", "node"), ("event", "node")),  # of lives that are over
        ("taken_key", "node"),  # whoever has the drop folder then
    }
    clock = FakeClock()
    async with way.source.opened(clock):
        pass
    async with await way.source.end(clock, is_source=True) as end:
        if isinstance(end, SqliteEnd):
            query = (
                "SELECT t.name, c.name FROM sqlite_schema t JOIN pragma_table_xinfo(t.name) c WHERE t.type = 'table'"
            )
            there = {row for row in end._connection.execute(query) if not row[0].startswith("sqlite_")}
        else:
            there = set(end._types)
    named: Sequence[Table] = (*EVERY, tables.LEAVING, tables.COMING)
    assert {(table.name, column) for table in named for column in table.columns} == there - left
    assert Leaving._fields == tables.LEAVING.columns
    assert moving.Coming._fields == tables.COMING.columns
