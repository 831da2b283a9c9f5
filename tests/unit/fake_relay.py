"""A relay made by hand for tests of the control socket: fixed data, and a note of every call that changes something."""

import asyncio
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from msgspec.structs import replace

from engine.control.client import Client, control_socket
from engine.control.feed import EventLog
from engine.control.relay import Relay
from engine.control.server import ControlServer
from engine.delivery.limits import Limiting
from engine.model.claim import ROOM, Room
from engine.model.destination import RELAY, Destination, HeldBack, Mark, Override, Suspension, Totals
from engine.model.event import Event
from engine.model.explanation import Explanation, Fact
from engine.model.filter import Filter
from engine.model.message import Attempt, Entry, Message, Selection, Window
from engine.model.node import NodeState
from engine.model.order import Changed, Ending, Fate, HoldRule, Operation, Touched, TouchedEntry
from engine.model.outcome import Outcome
from engine.model.probe import Probed, ProbedAddress
from engine.model.reason import Reason
from engine.model.suppression import Entered, Suppressed, Suppressions, key_of
from engine.model.transcript import Line
from engine.queue.contract import Queue
from engine.queue.errors import NodeSilent, NoSuchMessage, QueueError
from engine.settings.settings import Console, Settings
from engine.tls.secured import Secured
from tests.clock import FakeClock

NOW = 1_800_000_000.0
DEFERRED = Outcome(
    kind="transient", code=450, enhanced="4.2.1", text="mailbox busy, try again later", host="mx.example.org"
)
CONTENT = b"From: ann@example.net\r\nSubject: hello \x1b[31mred\r\nX-Odd: \xff\r\n\r\nThe body\r\n"


def entry(message: int, number: int = 1, **changes: Any) -> Entry:
    """A waiting recipient of example.org."""
    fields: dict[str, Any] = {
        "message": message,
        "number": number,
        "sender": "ann@example.net",
        "recipient": f"bob{number}@example.org",
        "destination": "example.org",
        "state": "waiting",
        "arrived": NOW - 3600,
        "due": NOW + 300,
        "expires": NOW + 428_400,
        "attempts": 2,
        "size": 4096,
        "subject": "hello",
        "last": DEFERRED,
        "last_at": NOW - 300,
    }
    return Entry(**fields | changes)


class FakeQueue:
    """Holds `entries`; what acts on them is noted in `calls` and answered with `changed`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.arrivals = self.claims = self.standing = self.orders = self.listing = self.marks = self  # all roles
        self.nodes = FakeNodes()
        self.suppression = FakeSuppression()
        self.calls: list[tuple[Any, ...]] = []
        self.entries = [entry(7), entry(7, 2), entry(8, state="held", ordered="hold", by="root", note="looking")]
        self.changed = Changed(messages=1, recipients=2, skipped=1)
        self.until: float | None = None  # of what was selected last
        self.selected = Selection(messages=2, recipients=3, newest=8, examples=(entry(7),))
        self.suspended: list[Suspension] = []
        self.reasons_known: tuple[Reason, ...] = (
            Reason(
                group="450 4.2.1 mailbox busy, try again later",
                entries=12_480,
                messages=12_000,
                destinations=2,
                busiest=("example.org", "example.com"),
                oldest=NOW - 8040,
                example=DEFERRED,
            ),
        )
        self.touched: list[TouchedEntry] = []
        self.came_to: list[Fate] = []
        self.operations: list[Operation] = []
        self.rules_kept: list[HoldRule] = []
        self.overridden: list[Override] = []
        self.happened: list[Event] = [
            Event(
                seq=1, at=NOW - 3600, kind="accepted", message=6, sender="ann@example.net", recipient="cy@example.org"
            ),
            Event(seq=2, at=NOW - 3000, kind="delivered", message=6, entry=1, recipient="cy@example.org"),
            Event(seq=3, at=NOW - 300, kind="deferred", message=7, entry=1, host="mx.example.org", outcome=DEFERRED),
        ]
        self.fails: QueueError | None = None
        self.crashes: Exception | None = None
        self.stalls: asyncio.Event | None = None
        self.damaged = False
        self.counts: dict[str, int] = {}

    async def _read(self) -> None:
        if self.stalls is not None:
            await self.stalls.wait()
        if self.crashes is not None:
            raise self.crashes
        if self.fails is not None:
            raise self.fails

    async def totals(self, room: Room = ROOM) -> Totals:
        await self._read()
        return Totals(
            waiting=12_480, due=310, held=1, relaying=14, destinations=2, oldest=NOW - 8040, ready=288, known=3
        )

    async def window(self, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        await self._read()
        self.calls.append(("window", str(filter), sort, offset, limit))
        return Window(total=len(self.entries), offset=offset, rows=tuple(self.entries[offset : offset + limit]))

    async def message(self, number: int) -> Message:
        await self._read()
        rows = tuple(row for row in self.entries if row.message == number)
        if not rows:
            raise NoSuchMessage(f"no message {number}")
        return Message(
            number=number,
            sender="ann@example.net",
            size=4096,
            arrived=NOW - 3600,
            expires=NOW + 428_400,
            origin="smtp 127.0.0.1",
            subject="hello \x1b]0;title\x07",
            message_id="<1@example.net>",
            eight_bit=False,
            smtputf8=False,
            entries=rows,
            attempts=(
                Attempt(entry=1, relayer=3, started=NOW - 3590, ended=NOW - 3580, outcome=DEFERRED),
                Attempt(entry=1, relayer=4, started=NOW - 310, interrupted=True),
            ),
        )

    async def content(self, message: int) -> bytes:
        if self.damaged:
            raise QueueError("the body of message 7 is damaged")
        return CONTENT

    async def destinations(self, match: str, sort: str, offset: int, limit: int) -> tuple[int, tuple[Destination, ...]]:
        await self._read()
        self.calls.append(("destinations", match, sort, offset, limit))
        rows = [
            row for row in (await self.destination("example.org"), Destination(name="example.com")) if match in row.name
        ]
        return len(rows), tuple(rows[offset : offset + limit])

    async def destination(self, name: str) -> Destination:
        await self._read()
        if name != "example.org":
            return Destination(name=name)
        return Destination(
            name=name,
            waiting=8120,
            due=210,
            oldest=NOW - 8040,
            next_due=NOW + 300,
            last=DEFERRED,
            last_at=NOW - 300,
            reply=DEFERRED,
            exchanges=("mx.example.org", "mx2.example.org"),
            site="mx.example.org",
        )

    async def suspensions(self) -> tuple[Suspension, ...]:
        await self._read()
        return tuple(sorted(self.suspended, key=lambda one: one.destination != RELAY))

    async def reasons(self, limit: int) -> tuple[Reason, ...]:
        await self._read()
        return self.reasons_known[:limit]

    async def held_back(self, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
        await self._read()
        return tuple(
            HeldBack(host=host, waiting=2204, destinations=("example.org",), alternates=(), next_due=NOW + 60)
            for host in hosts
        )

    async def held_back_counts(self) -> dict[str, int]:
        await self._read()
        return dict(self.counts)

    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        await self._read()
        self.calls.append(("events", before, after, message, match, limit))
        found = [one for one in self.happened if message in (None, one.message)]
        if after is not None:
            return tuple([one for one in found if one.seq > after][:limit])
        return tuple([one for one in found if before is None or one.seq < before][-limit:])

    async def record(self, *events: Event) -> None:
        await self._read()
        self.calls.extend(("record", event.kind, event.by) for event in events)

    async def select(self, filter: Filter, newest: int | None = None, until: float | None = None) -> Selection:
        self.calls.append(("select", str(filter), newest))
        self.until = until
        return self.selected

    async def lets_go(self, ending: Ending, name: str) -> Selection:
        self.calls.append(("lets_go", ending, name))
        return self.selected

    async def override(self, destination: str) -> Override | None:
        return next((one for one in self.overridden if one.destination == destination), None)

    async def operation(self, id: int) -> Operation | None:
        return self.operations.pop(0) if self.operations else None

    async def fates(self, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
        return tuple(self.came_to[: len(entries)])

    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        if touched is not None and self.touched:
            touched.add(41, 3, self.touched)
        return await self._act("retry", str(filter), by, newest)

    async def postpone(self, filter: Filter, by: str, until: float, newest: int | None = None) -> Changed:
        return await self._act("postpone", str(filter), by, until, newest)

    async def hold(self, filter: Filter, by: str, note: str, newest: int | None = None) -> Changed:
        return await self._act("hold", str(filter), by, note, newest)

    async def release(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        return await self._act("release", str(filter), by, newest)

    async def give_up(
        self,
        order: Literal["bounce", "drop"],
        filter: Filter,
        by: str,
        note: str,
        wait: float,
        newest: int | None = None,
    ) -> Changed:
        return await self._act(order, str(filter), by, note, wait, newest)

    async def undo(self, operation: int, by: str) -> Changed:
        return await self._act("undo", operation, by)

    async def suspend(self, suspension: Suspension) -> None:
        await self._read()
        self.suspended.append(suspension)

    async def resume(self, destination: str, by: str) -> bool:
        await self._read()
        self.calls.append(("resume", destination, by))
        before = len(self.suspended)
        self.suspended = [one for one in self.suspended if one.destination != destination]
        return len(self.suspended) < before

    async def rules(self) -> tuple[HoldRule, ...]:
        return tuple(self.rules_kept)

    async def add_rule(self, filter: Filter, until: float, by: str, note: str) -> HoldRule:
        rule = HoldRule(
            id=len(self.rules_kept) + 1, filter=str(filter), since=NOW, until=until, by=by, note=note, holding=3
        )
        self.rules_kept.append(rule)
        return rule

    async def end_rule(self, id: int, by: str) -> int | None:
        found = [one for one in self.rules_kept if one.id == id]
        self.rules_kept = [one for one in self.rules_kept if one.id != id]
        return 3 if found else None

    async def overrides(self) -> tuple[Override, ...]:
        return tuple(self.overridden)

    async def set_override(self, override: Override) -> int:
        self.overridden.append(override)
        return 8120

    async def end_override(self, destination: str, by: str) -> Override | None:
        found = next((one for one in self.overridden if one.destination == destination), None)
        self.overridden = [one for one in self.overridden if one is not found]
        return found

    async def _act(self, *call: Any) -> Changed:
        await self._read()
        self.calls.append(call)
        return self.changed


class FakeSuppression:
    """A suppression list in memory: by key, without an end to anything."""

    def __init__(self) -> None:
        self.listed: dict[str, Suppressed] = {}
        self.calls: list[tuple[Any, ...]] = []

    async def of(self, addresses: Collection[str]) -> dict[str, Suppressed]:
        keys = map(key_of, addresses)
        return {key: self.listed[key] for key in keys if key in self.listed}

    async def window(self, match: str, after: str, limit: int) -> Suppressions:
        found = [self.listed[key] for key in sorted(self.listed) if match in key]
        return Suppressions(total=len(found), rows=tuple([one for one in found if one.address > after][:limit]))

    async def enter(self, entries: Sequence[Suppressed], by: str, source: str, most: int) -> Entered:
        self.calls.append(("enter", tuple(entries), by, source, most))
        if len(entries) > most:
            return Entered(has_room=False)
        known = sum(entry.address in self.listed for entry in entries)
        self.listed |= {entry.address: entry for entry in entries}
        return Entered(new=len(entries) - known, changed=known)

    async def remove(self, address: str, by: str) -> Suppressed | None:
        self.calls.append(("remove", address, by))
        return self.listed.pop(address, None)

    async def trim(self, most: int) -> int:
        return 0


class FakeNodes:
    """Those that share the queue: none, unless a test has some. What is asked of them is answered by `answers`."""

    def __init__(self) -> None:
        self.name = ""
        self.lease = 0.0
        self.is_drained = False
        self.there: list[NodeState] = []
        self.answers: Callable[[str, bytes], Awaitable[bytes]] | None = None
        self.asked: list[tuple[str, bytes]] = []
        self.calls: list[tuple[str, str, str]] = []
        self.on_request: Callable[[bytes], Awaitable[bytes]] | None = None

    async def all(self) -> tuple[NodeState, ...]:
        return tuple(self.there)

    async def drain(self, name: str, by: str) -> bool:
        self.calls.append(("drain", name, by))
        self.there = [replace(one, drained_at=NOW, drained_by=by) if one.name == name else one for one in self.there]
        return True

    async def undrain(self, name: str, by: str) -> bool:
        self.calls.append(("undrain", name, by))
        was = any(one.name == name and one.is_drained for one in self.there)
        self.there = [replace(one, drained_at=None, drained_by="") if one.name == name else one for one in self.there]
        return was

    async def ask(self, name: str, request: bytes, seconds: float) -> bytes:
        self.asked.append((name, request))
        if self.answers is None:
            raise NodeSilent(f"node {name} does not answer")
        return await self.answers(name, request)


def node(name: str, **changes: Any) -> NodeState:
    """A node that lives."""
    fields: dict[str, Any] = {"epoch": 1, "version": "0.1.0", "since": NOW - 60, "beat": NOW - 1, "until": NOW + 29}
    return NodeState(name=name, **{**fields, **changes})


@dataclass
class FakeTranscript:
    """Two lines of a conversation."""

    cut: int = 0

    def lines(self) -> list[Line]:
        return [
            Line(at=NOW - 3, side="<", text="220 mx.example.org \x1b[2Jready"),
            Line(at=NOW - 2, side=">", text="EHLO relay.example.net"),
        ]


@dataclass
class FakeSite:
    """Where it carries mail to."""

    name: str = "mx.example.org"
    host: str = "mx.example.org"


@dataclass
class FakeMailbag:
    """Of 100 messages 12 are settled."""

    done: int = 12
    taken: int = 100
    domains: tuple[str, ...] = ("example.org",)


@dataclass
class FakePace:
    """Where a relayer is since just now."""

    phase: str = "DATA"
    since: float = NOW - 0.2
    is_stalling: bool = False


@dataclass(eq=False)
class FakeRelayer:
    """A relayer that has sent 12 of 100 messages."""

    id: int
    destination: str = "example.org"
    host: str = "mx.example.org"
    address: str = "192.0.2.1"
    port: int = 25
    pace: FakePace = field(default_factory=FakePace)
    started: float = NOW - 10
    bag: FakeMailbag = field(default_factory=FakeMailbag)
    tls: str = "TLSv1.3"
    secured: Secured = field(default_factory=lambda: Secured("TLSv1.3", True))
    is_established: bool = True
    ended: float | None = None
    result: str = ""
    site: FakeSite = field(default_factory=FakeSite)
    transcript: FakeTranscript = field(default_factory=FakeTranscript)


class FakeSmartHost:
    """Two live relayers and two that have ended."""

    def __init__(self) -> None:
        self.managed: Collection[FakeRelayer] = [FakeRelayer(6, destination="example.com"), FakeRelayer(5)]
        self.ended = deque(
            [
                FakeRelayer(3, ended=NOW - 60, pace=FakePace("ended"), result="connect: refused"),
                FakeRelayer(4, ended=NOW - 30, pace=FakePace("ended"), result="sent 3 of 3"),
            ]
        )
        self.max_connections = 20
        self.next_check: float | None = NOW + 28
        self.draining = False
        self.is_drained = False
        self.checks = 0
        self.told: list[str] = []  # what has changed, in the order it was told

    async def check_state(self) -> object:
        self.checks += 1
        self.managed = [*self.managed, FakeRelayer(7)]
        return object()

    def wake(self) -> None:
        self.told.append("wake")

    def let_go(self) -> None:
        self.told.append("let go")

    def resumed(self, destination: str) -> None:
        self.told.append(f"resumed {destination}")

    def redirected(self, destination: str) -> None:
        self.told.append(f"redirected {destination}")

    def abandon(self, host: str) -> None:
        self.told.append(f"abandon {host}")

    @property
    def connections(self) -> int:
        return len(self.managed)

    def limits_on(
        self, destination: str, *, site: str = "", is_in_doubt: bool = False, message: int = 0, sender: str = ""
    ) -> tuple[Limiting, ...]:
        return ()

    def room(self) -> Room:
        return ROOM

    async def close(self, id: int, by: str) -> FakeRelayer | None:
        found = next((one for one in self.managed if one.id == id), None)
        if found is not None:
            found.result = f"closed by {by}"
        return found


class FakeMX:
    """One host marked bad, and one whose mark has ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.marks: list[Mark] = [
            Mark(host="mx.slow.example", since=NOW - 60, until=NOW + 2882, by="oncall", note="maintenance"),
            Mark(
                host="mx1.dead.example",
                since=NOW - 60,
                until=NOW + 761,
                by="engine",
                note="cannot be reached",
                last=Outcome.transient("connect: refused", host="mx1.dead.example"),
            ),
            Mark(host="mx.back.example", since=NOW - 600, until=NOW - 1, by="engine", note="was bad"),
        ]

    @property
    def marked(self) -> int:
        return sum(mark.until > NOW for mark in self.marks)

    def mark(self, host: str) -> Mark | None:
        return next((mark for mark in self.marks if mark.host == host), None)

    async def mark_bad(
        self, host: str, *, seconds: float | None = None, note: str, by: str, last: Outcome | None = None
    ) -> Mark:
        self.calls.append(("mark_bad", host, seconds, note, by))
        mark = Mark(host=host, since=NOW, until=NOW + (seconds or 3600), by=by, note=note, last=last)
        self.marks.append(mark)
        return mark

    async def mark_good(self, host: str, *, by: str, touched: Touched | None = None) -> int:
        self.calls.append(("mark_good", host, by))
        return 2204


class FakeExplainer:
    """Explains everything alike."""

    async def message(self, number: int, entry: int = 0) -> tuple[Explanation, ...]:
        if number != 7:
            raise NoSuchMessage(f"no message {number}")
        return (EXPLANATION,)

    async def address(self, recipient: str, destination: str, entries: Sequence[Entry]) -> tuple[Explanation, ...]:
        return (replace(EXPLANATION, subject=recipient, destination=destination),)

    async def domain(self, destination: str) -> tuple[Explanation, ...]:
        return (replace(EXPLANATION, subject=destination, destination=destination),)

    def remedy(self, destination: str, outcome: Outcome, sender: str) -> str:
        return ""


class FakeRouter:
    """Knows no host to be the relay itself."""

    async def ours(self, host: str, port: int = 0) -> str:
        return ""


class FakeProber:
    """Finds one address that answers with a nasty greeting."""

    async def probe(self, host: str, port: int = 0) -> Probed:
        greeting = "220 mx.example.org \x1b[2Jready"
        one = ProbedAddress(address="192.0.2.1", port=port or 25, phase="QUIT", seconds=0.1, greeting=greeting)
        return Probed(host=host, port=port or 25, at=NOW, addresses=(one,))


EXPLANATION = Explanation(
    subject="bob1@example.org",
    destination="example.org",
    cause="not due",
    text="it is not due for another 5m; the last try: 450 4.2.1 \x1b[31mbusy",
    until=NOW + 300,
    earliest=NOW + 300,
    entry="7.1",
    facts=(Fact("route", "to its mail exchanges"), Fact("host mx.example.org", "192.0.2.1; TLS opportunistic")),
)


class FakeEngine:
    """All of the above, as the control server takes it."""

    def __init__(self, spool: Path) -> None:
        self.clock = FakeClock(NOW)
        self.queue = FakeQueue(self.clock)
        self.smarthost = FakeSmartHost()
        self.mx = FakeMX()
        self.events = EventLog(self.clock)
        self.trouble = ""
        self.notes: tuple[str, ...] = ()
        self.socket = control_socket(spool)
        self.relay = Relay(
            queue=cast("Queue", self.queue),
            smarthost=cast("Any", self.smarthost),
            mx=cast("Any", self.mx),
            events=self.events,
            explainer=cast("Any", FakeExplainer()),
            prober=cast("Any", FakeProber()),
            router=cast("Any", FakeRouter()),
            settings=Settings(hostname="relay.example.net", spool=spool, console=Console(undo=10.0)),
            clock=self.clock,
            started=NOW - 86_400,
            version="0.1.0",
            trouble=lambda: self.trouble,
            notes=lambda: self.notes,
        )

    def server(self, **options: Any) -> ControlServer:
        """A control server before this engine."""
        return ControlServer(self.socket, self.relay, **options)

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[Client]:
        """A running server, and a client of it."""
        server = self.server(**options)
        await server.start()
        try:
            async with Client(self.socket, timeout=20) as client:
                yield client
        finally:
            await server.stop()


def short_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder whose name leaves room for a socket's: 107 bytes are all it may have."""
    return tempfile.TemporaryDirectory(prefix="sh-", dir="/tmp")
