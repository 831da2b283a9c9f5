"""The panes: destinations, relayers, bad hosts and events, a part of the overview or a whole screen; and reasons."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from textual.app import ComposeResult
from textual.containers import Vertical

from console import words
from console.actions import Target, domain_filter, group_filter
from console.format import Moment, count
from console.widgets.line import Line, Piece, width_of
from console.widgets.rows import (
    DESTINATIONS,
    EVENT_ROWS,
    EVENT_ROWS_OF_NODES,
    HOSTS,
    NODES,
    REASONS,
    RELAYERS,
    RELAYERS_OF_NODES,
)
from console.widgets.table import Table
from engine.base.plural import plural
from engine.base.words import stand_in, words_of
from engine.control.client import Client
from engine.control.views import DestinationsView, HostsView, OverviewView, RelayerView
from engine.model.destination import BadHost, Destination
from engine.model.event import Event
from engine.model.node import NodeState
from engine.model.reason import Reason

R = TypeVar("R")
PAGE = 200  # rows asked for at a time
EVENTS_AT_ONCE = 200
REASONS_AT_ONCE = 500
EVENTS_KEPT = 5_000
MISSED_AT_MOST = 1_000  # events that are fetched after those known; of more the newest are fetched alone


class Pane(Vertical, Generic[R]):
    """A table with a title. `full`: it is a whole screen, without the title, and may ask for more.

    What is abstract in it is so for the type checker alone: a widget's metaclass is Textual's.
    """

    context = ""
    key = ""
    label = ""
    filter_help = "words that stand in the row; ! before a word leaves out what has it"

    def __init__(self, table: Table[R], *, full: bool = False) -> None:
        super().__init__(id=f"pane-{self.context}", classes="full" if full else "boxed")
        self.table = table
        self.full = full
        self.filter = ""
        self._said = ""
        self._none = table.empty

    def compose(self) -> ComposeResult:
        if not self.full:
            yield Line(id=f"title-{self.context}")
        yield self.table

    def on_descendant_focus(self) -> None:
        self._entitle()

    def on_descendant_blur(self) -> None:
        self._entitle()

    def on_resize(self) -> None:
        self._entitle()

    async def reload(self, client: Client, overview: OverviewView) -> None:
        """Fetch what the overview does not hold. Raises Refused and EngineUnreachable."""

    def show(self, overview: OverviewView, moment: Moment) -> None:
        """Show the rows of this snapshot."""
        rows = self.arranged(self.select(overview))
        self.table.show(rows, moment)
        self.head(overview)

    def head(self, overview: OverviewView) -> None:
        """Write the title over the table."""
        self._said = f"/{self.filter}" if self.filter else self.title(overview)
        self.table.empty = "nothing matches the filter" if self.filter else self._none
        self.table.repaint()
        self._entitle()

    def _entitle(self) -> None:
        if self.full:
            return
        here = self.table.has_focus
        pieces: list[Piece] = [
            ("━━" if here else "──", "key" if here else "dim"),
            (f" {self.key} {self.label} ", "cursor" if here else "bold"),
            (f" {self._said} ", "" if here else "dim"),
        ]
        rule = "━" if here else "─"
        pieces.append((rule * max(0, self.size.width - width_of(pieces)), "key" if here else "dim"))
        self.query_one(Line).say(pieces)

    @abstractmethod
    def select(self, overview: OverviewView) -> Sequence[R]:
        """The rows of a snapshot."""

    def words(self, _row: R) -> str:
        """What the filter looks into; "" where the engine filters."""
        return ""

    @abstractmethod
    def title(self, overview: OverviewView) -> str:
        """What the title says beside the name."""

    @abstractmethod
    def target(self, overview: OverviewView) -> Target | None:
        """What is pointed at."""

    def arranged(self, rows: Sequence[R]) -> list[R]:
        """The rows that match the filter, in the order asked for."""
        kept = [row for row in rows if matches(self.filter, self.words(row))]
        order = next((c.order for c in self.table.columns if c.sort and c.sort == self.table.sort.lstrip("-")), None)
        if order is not None:
            kept.sort(key=order, reverse=self.table.sort.startswith("-"))
        return kept

    def sorts(self) -> dict[str, str]:
        """The letters that sort, and by what."""
        return self.table.sorts()

    def sort_by(self, field: str) -> None:
        """Sort by a field of `sorts`; again, and the order is turned."""
        self.table.sort = f"-{field}" if self.table.sort == field else field
        self.table.to_top()


class WindowPane(Pane[R]):
    """A pane of which the engine gives windows: filtered and sorted there. The overview holds the head of the list."""

    first = ""  # the order of that head

    def __init__(self, table: Table[R], *, full: bool = False) -> None:
        super().__init__(table, full=full)
        self._window: tuple[int, int, tuple[R, ...]] | None = None

    async def reload(self, client: Client, overview: OverviewView) -> None:
        is_first = self.table.sort in ("", self.first)
        seen = min(self.table.top + self.table.page, self.how_many(overview))
        if not self.filter and is_first and seen <= len(self.select(overview)):
            self._window = None
            return
        start = max(0, self.table.top + self.table.page // 2 - PAGE // 2)
        window = await self.fetch(client, start)
        self._window = (window.total, window.offset, window.rows)

    def show(self, overview: OverviewView, moment: Moment) -> None:
        if self._window is None:
            rows = self.select(overview)
            self.table.show(rows, moment, total=self.how_many(overview) if rows else 0)
        else:
            total, start, rows = self._window
            self.table.show(rows, moment, total=total, start=start)
        self.head(overview)

    @abstractmethod
    def how_many(self, overview: OverviewView) -> int:
        """How many rows there are, without a filter."""

    @abstractmethod
    async def fetch(self, client: Client, start: int) -> Any:
        """A window of the list, in the order and with the filter asked for. Raises Refused and EngineUnreachable."""


class DestinationsPane(WindowPane[Destination]):
    """Where mail waits to go, most waiting first."""

    context, label, key = "destinations", "Destinations", "1"
    filter_help = "a part of the destination's name"
    first = "-waiting"

    def __init__(self, *, full: bool = False) -> None:
        table: Table[Destination] = Table(
            DESTINATIONS, lambda row: row.name, empty="no mail waits", stays_on_top=True, id="destinations"
        )
        table.sort = self.first
        super().__init__(table, full=full)

    def sort_by(self, field: str) -> None:
        falling = field not in ("name", "oldest")
        wanted = f"-{field}" if falling else field
        self.table.sort = (field if falling else f"-{field}") if self.table.sort == wanted else wanted
        self.table.to_top()

    def select(self, overview: OverviewView) -> Sequence[Destination]:
        return overview.destinations

    def how_many(self, overview: OverviewView) -> int:
        return max(overview.health.destinations, len(overview.destinations))

    async def fetch(self, client: Client, start: int) -> DestinationsView:
        return await client.destinations(match=self.filter, sort=self.table.sort, offset=start, limit=PAGE)

    def title(self, overview: OverviewView) -> str:
        order = self.table.sort.lstrip("-")
        total = self.how_many(overview)
        return f"{count(total)} by {order}" if total else "none"

    def target(self, overview: OverviewView) -> Target | None:
        row = self.table.pointed
        return None if row is None else destination_target(row, overview)


class RelayersPane(Pane[RelayerView]):
    """The connections that are open."""

    context, label, key = "relayers", "Relayers", "3"

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(
            Table(RELAYERS, lambda row: f"{row.node} {row.id}", empty="no connections are open", id="relayers"),
            full=full,
        )

    def show(self, overview: OverviewView, moment: Moment) -> None:
        self.table.use(RELAYERS_OF_NODES if overview.health.node else RELAYERS)
        super().show(overview, moment)

    def select(self, overview: OverviewView) -> Sequence[RelayerView]:
        return overview.relayers

    def words(self, row: RelayerView) -> str:
        stalling = " stalling" if row.stalling else ""
        return f"{row.host} {row.destination} {row.address} {row.phase} {row.tls} {row.node}{stalling}"

    def title(self, overview: OverviewView) -> str:
        stalling = sum(row.stalling for row in overview.relayers)
        health = overview.health
        said = f"{health.connections} of {health.max_connections}"
        if health.node:
            said = f"{len(overview.relayers)} on {plural(health.nodes - health.nodes_lost, 'node')}"
        return said + (f" · ▲ {stalling} stalling" if stalling else "")

    def target(self, overview: OverviewView) -> Target | None:
        row = self.table.pointed
        return None if row is None else replace(host_target(row.host, overview), relayer=row.id, node=row.node)


class HostsPane(WindowPane[BadHost]):
    """The mail exchanges marked bad: until when, how much waits for them, and why; the first to be back first."""

    context, label, key = "hosts", "Bad MX", "4"
    filter_help = "words in the host, who marked it, why or what it said; ! before a word leaves out what has it"
    first = "back"

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(Table(HOSTS, lambda row: row.host, empty="no bad hosts", id="hosts"), full=full)

    def select(self, overview: OverviewView) -> Sequence[BadHost]:
        return overview.hosts

    def how_many(self, overview: OverviewView) -> int:
        return bad_hosts(overview)

    async def fetch(self, client: Client, start: int) -> HostsView:
        sort = self.table.sort or self.first
        return await client.hosts(match=self.filter, sort=sort, offset=start, limit=PAGE)

    def title(self, overview: OverviewView) -> str:
        if not overview.hosts:
            return "none"
        total = self.how_many(overview)
        hosts = plural(total, "host")
        # How much waits for each is in its row: what waits for two of them must not be counted twice.
        is_waited_for = total > len(overview.hosts) or any(row.waiting for row in overview.hosts)
        return hosts if is_waited_for else f"{hosts}, nothing waits"

    def target(self, overview: OverviewView) -> Target | None:
        row = self.table.pointed
        return None if row is None else host_target(row.host, overview)


class NodesPane(Pane[NodeState]):
    """The engines that share the queue. A whole screen only."""

    context, label, key = "nodes", "Nodes", "8"

    def __init__(self, *, full: bool = False) -> None:
        none = "there are no nodes: the queue is this engine's alone"
        super().__init__(Table(NODES, lambda row: row.name, empty=none, id="nodes"), full=full)
        self._states: tuple[NodeState, ...] = ()

    async def reload(self, client: Client, _overview: OverviewView) -> None:
        self._states = await client.nodes()

    def select(self, _overview: OverviewView) -> Sequence[NodeState]:
        return self._states

    def words(self, row: NodeState) -> str:
        return " ".join((row.name, words.node(row), row.version, row.drained_by, row.said.trouble))

    def title(self, _overview: OverviewView) -> str:
        return plural(len(self._states), "node")

    def target(self, _overview: OverviewView) -> Target | None:
        row = self.table.pointed
        return None if row is None else Target(f"node {row.name}", node=row.name)


class ReasonsPane(Pane[Reason]):
    """Why mail waits, all of it, in groups: by what was said, or why it was not tried. A whole screen only."""

    context, label, key = "reasons", "Reasons", "5"

    def __init__(self, *, full: bool = False) -> None:
        super().__init__(Table(REASONS, lambda row: row.group, empty="no mail waits", id="reasons"), full=full)
        self._reasons: tuple[Reason, ...] = ()

    async def reload(self, client: Client, _overview: OverviewView) -> None:
        self._reasons = await client.reasons(limit=REASONS_AT_ONCE)

    def select(self, _overview: OverviewView) -> Sequence[Reason]:
        return self._reasons

    def words(self, row: Reason) -> str:
        return " ".join((row.group, *row.busiest))

    def title(self, _overview: OverviewView) -> str:
        return plural(len(self._reasons), "reason")

    def target(self, _overview: OverviewView) -> Target | None:
        row = self.table.pointed
        return None if row is None else Target(f"all for: {row.group}", filter=group_filter(row.group))


class EventsPane(Pane[Event]):
    """What happened and who did it, newest first. As a whole screen it goes back as far as the engine remembers."""

    context, label, key = "events", "Events", "6"
    filter_help = "words in the kind, an address, a host, a name or a reply; ! before a word leaves out what has it"

    def __init__(self, *, full: bool = False) -> None:
        table: Table[Event] = Table(
            EVENT_ROWS, lambda row: str(row.seq), empty="nothing happened yet", follow=True, id="events"
        )
        super().__init__(table, full=full)
        self._events: list[Event] = []
        self._match: str | None = None
        self._ends = False

    def show(self, overview: OverviewView, moment: Moment) -> None:
        self.table.use(EVENT_ROWS_OF_NODES if overview.health.node else EVENT_ROWS)
        super().show(overview, moment)

    def select(self, overview: OverviewView) -> Sequence[Event]:
        own = self.full or bool(self.filter)
        return self._events if own else sorted(overview.events, key=lambda row: -row.seq)

    def arranged(self, rows: Sequence[Event]) -> list[Event]:
        return list(rows)

    async def reload(self, client: Client, _overview: OverviewView) -> None:
        if not (self.full or self.filter):
            return
        if self._match != self.filter:
            await self._start_afresh(client)
            return
        newest = self._events[0].seq if self._events else 0
        fresh = await client.events(after=newest, match=self.filter, limit=MISSED_AT_MOST)
        if len(fresh) == MISSED_AT_MOST:  # there may be more: what is newest counts, and no gap may look like none
            await self._start_afresh(client)
            return
        self._ends = self._ends and len(fresh) + len(self._events) <= EVENTS_KEPT
        self._events = (_newest_first(fresh) + self._events)[:EVENTS_KEPT]
        near_end = self.table.cursor + 2 * self.table.page >= len(self._events)
        if near_end and not self._ends and 0 < len(self._events) < EVENTS_KEPT:
            older = await client.events(before=self._events[-1].seq, match=self.filter, limit=EVENTS_AT_ONCE)
            self._events += _newest_first(older)
            self._ends = len(older) < EVENTS_AT_ONCE

    async def _start_afresh(self, client: Client) -> None:
        """Hold the newest alone; what is older comes when one scrolls to it."""
        wanted = self.filter
        first = await client.events(match=wanted, limit=EVENTS_AT_ONCE)
        self._events, self._match, self._ends = _newest_first(first), wanted, len(first) < EVENTS_AT_ONCE

    def title(self, _overview: OverviewView) -> str:
        return "newest first"

    def target(self, overview: OverviewView) -> Target | None:
        row = self.table.pointed
        if row is None:
            return None
        if row.message:
            return Target(f"message {row.message}", filter=f"id={row.message}", single=True)
        return host_target(row.host, overview) if row.host else None


AnyPane = Pane[Any]


def destination_target(row: Destination, overview: OverviewView) -> Target:
    """A destination, as what verbs act on."""
    bad = {mark.host for mark in row.marked}
    of_it = tuple(host.host for host in overview.hosts if row.name in host.destinations)
    hosts = row.exchanges or of_it
    if not row.exchanges:
        bad.update(of_it)
    return Target(
        row.name,
        filter=domain_filter(row.name),
        destination=row.name,
        hosts=hosts,
        bad=tuple(host for host in hosts if host in bad),
    )


def host_target(host: str, overview: OverviewView) -> Target:
    """A mail exchange, as what verbs act on. Where not all that are bad are known here it may be: the engine knows."""
    is_bad = bad_hosts(overview) > len(overview.hosts) or any(row.host == host for row in overview.hosts)
    return Target(host, hosts=(host,), bad=(host,) if is_bad else ())


def bad_hosts(overview: OverviewView) -> int:
    """How many hosts are marked bad."""
    return max(overview.health.bad_hosts, len(overview.hosts))


def matches(filter: str, text: str) -> bool:
    """Whether all words of the filter stand in the text, and none of those after `!`."""
    return stand_in(words_of(filter), text)


def _newest_first(events: Sequence[Event]) -> list[Event]:
    return sorted(events, key=lambda row: -row.seq)
