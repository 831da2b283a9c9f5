"""The overview of four panes, and each pane as a screen of its own."""

from collections.abc import Callable

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widget import Widget

from console.actions import Target
from console.format import Moment
from console.screens.front import Front
from console.widgets.panes import (
    AnyPane,
    DestinationsPane,
    EventsPane,
    HostsPane,
    NodesPane,
    Pane,
    ReasonsPane,
    RelayersPane,
)
from engine.control.client import Client
from engine.control.views import RelayerView
from engine.model.destination import BadHost, Destination
from engine.model.event import Event
from engine.model.node import NodeState
from engine.model.reason import Reason


class Panes(Front):
    """A screen made of panes; what is typed goes to the one that has the focus."""

    _last: AnyPane | None = None

    @property
    def pane(self) -> AnyPane:
        """The pane that has the focus, or had it last."""
        table = self.table()
        if table is not None and isinstance(table.parent, Pane):
            self._last = table.parent
        if self._last is None or not self._last.display:
            first = self.query("Pane").first()
            assert isinstance(first, Pane)
            self._last = first
        return self._last

    @property
    def context(self) -> str:
        return self.pane.context

    def main(self) -> Widget | None:
        return self.pane.table

    def target(self) -> Target | None:
        overview = self.console.overview
        return None if overview is None else self.pane.target(overview)

    def seen_panes(self) -> list[AnyPane]:
        """The panes one sees."""
        return [pane for pane in self.query("Pane") if isinstance(pane, Pane) and pane.display]

    def focus_is_seen(self) -> bool:
        return self.focused in [pane.table for pane in self.seen_panes()]

    async def reload(self, client: Client) -> None:
        overview = self.console.overview
        if overview is None:
            return
        for pane in self.seen_panes():
            await pane.reload(client, overview)

    def show(self, moment: Moment) -> None:
        overview = self.console.overview
        if overview is None:
            return
        for pane in self.seen_panes():
            pane.show(overview, moment)

    @property
    def filter(self) -> str:
        return self.pane.filter

    @property
    def filter_help(self) -> str | None:
        return self.pane.filter_help

    async def set_filter(self, text: str) -> None:
        pane, before, overview = self.pane, self.pane.filter, self.console.overview
        pane.filter = text
        try:
            if overview is not None:
                await pane.reload(self.console.client, overview)
        except Exception:
            pane.filter = before
            raise
        pane.table.to_top()
        if overview is not None:
            pane.show(overview, self.console.moment)

    def clear(self) -> bool:
        if not self.pane.filter:
            return False
        self.pane.filter = ""
        return True

    def sorts(self) -> dict[str, str]:
        return self.pane.sorts()

    def sort_by(self, field: str) -> None:
        self.pane.sort_by(field)

    def open_pointed(self) -> None:
        row = self.pane.table.pointed
        if isinstance(row, Destination):
            self.console.open_destination(row.name)
        elif isinstance(row, RelayerView):
            self.console.open_relayer(row.id, row.host, row.node)
        elif isinstance(row, BadHost):
            self.console.open_host(row.host)
        elif isinstance(row, Reason):
            self.console.open_reason(row.group)
        elif isinstance(row, Event):
            self._open_event(row)
        elif isinstance(row, NodeState):
            self.console.action_run("relayers", row.name)

    def _open_event(self, row: Event) -> None:
        if row.message:
            self.console.open_message(row.message)
        elif row.host:
            self.console.open_host(row.host)
        elif row.destination and row.destination != "*":
            self.console.open_destination(row.destination)
        else:
            self.console.tell("this event tells all there is to it", "dim")


class Overview(Panes):
    """Destinations, relayers, bad hosts and events at once; where there is no room, destinations alone."""

    tab = "1"

    def body(self) -> ComposeResult:
        with Horizontal(id="panes"):
            with Vertical(id="left"):
                yield DestinationsPane()
                yield HostsPane()
            with Vertical(id="right"):
                yield RelayersPane()
                yield EventsPane()

    def seen_panes(self) -> list[AnyPane]:
        return super().seen_panes() if self.console.wide else [self.query_one(DestinationsPane)]

    @property
    def pane(self) -> AnyPane:
        return super().pane if self.console.wide else self.query_one(DestinationsPane)


class PaneScreen(Panes):
    """One pane, enlarged to a screen."""

    def __init__(self, make: Callable[..., AnyPane], key: str) -> None:
        super().__init__()
        self._make = make
        self.tab = key

    def body(self) -> ComposeResult:
        yield self._make(full=True)


TOP: dict[str, tuple[str, Callable[[], Front]]] = {
    "relayers": ("3", lambda: PaneScreen(RelayersPane, "3")),
    "hosts": ("4", lambda: PaneScreen(HostsPane, "4")),
    "reasons": ("5", lambda: PaneScreen(ReasonsPane, "5")),
    "events": ("6", lambda: PaneScreen(EventsPane, "6")),
    "nodes": ("8", lambda: PaneScreen(NodesPane, "8")),
}
