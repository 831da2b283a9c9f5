"""What every screen of the console has: health above, the way here, the body, and the foot with its keys."""

from abc import abstractmethod
from contextlib import suppress
from typing import Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widget import Widget

from console.actions import Target
from console.desk import Desk
from console.format import Moment, count
from console.widgets.foot import KeyLine, Kind, Prompt, StatusLine
from console.widgets.health import HealthLine
from console.widgets.line import Ageing, Line
from console.widgets.pointed import Pointed, in_full
from console.widgets.table import Table
from console.widgets.trail import Trail
from engine.control.client import Client

LEAST = (60, 15)  # columns and rows below which nothing sensible fits
SHORT, TALL = 20, 30  # rows below which the row pointed at has no line of its own, and from which it always has two


class Front(Screen[None]):
    """A screen with the health line on top. Subclasses give the body, and say what is pointed at.

    What is abstract in it is so for the type checker alone: a screen's metaclass is Textual's.
    """

    BINDINGS = [  # noqa: RUF012 (Textual's own way of declaring them)
        Binding("tab", "app.run('next')", show=False),
        Binding("shift+tab", "app.run('previous')", show=False),
        Binding("ctrl+c,super+c", "app.help_quit", show=False),
    ]
    tab = ""
    is_loaded = False  # what it shows was fetched since it was opened, or it was said why not
    is_given_up = False  # keys have waited for that in vain, and do so no more

    def compose(self) -> ComposeResult:
        self._measure()  # as long as nothing is in it, a class costs nothing; later all that is seen is styled anew
        yield HealthLine(id="health")
        yield Trail(id="trail")
        with Vertical(id="body"):
            yield from self.body()
        yield Pointed(id="pointed")
        yield StatusLine(id="status")
        yield KeyLine(id="keys")
        yield Prompt(self.console.registry, entered=self.console.entered, complete=self.console.complete)
        yield Line(id="small")

    @property
    def console(self) -> "Desk[Front]":
        """The app, as far as screens know it."""
        return cast("Desk[Front]", self.app)

    # -- what a subclass says -------------------------------------------------------------------------------------

    @abstractmethod
    def body(self) -> ComposeResult:
        """What stands between health line and foot."""

    @property
    @abstractmethod
    def context(self) -> str:
        """Which of the registry's contexts this is."""

    def crumbs(self) -> list[str]:
        """The way from the top to here; nothing for a screen of the top level."""
        return []

    def target(self) -> Target | None:
        """What verbs act on, or None when nothing is pointed at."""
        return None

    def table(self) -> Table[Any] | None:
        """The table that has the focus, if there is one."""
        focused = self.focused
        return focused if isinstance(focused, Table) else None

    def main(self) -> Widget | None:
        """What gets the focus when nothing else has it."""
        return None

    def tables(self) -> list[Table[Any]]:
        """All tables one sees."""
        return [table for table in self.query(Table) if table.display and table.is_on_screen]

    async def reload(self, client: Client) -> None:
        """Fetch what this screen shows beyond the overview. Raises Refused and EngineUnreachable."""

    def show(self, moment: Moment) -> None:
        """Show what was fetched."""

    def fail(self, why: str) -> None:
        """Say why nothing new can be shown."""
        table = self.table()
        if table is not None:
            table.fail(why)

    def miss(self, why: str) -> None:
        """Say why what was never fetched is not shown; what is there stays as it is."""
        for table in self.query(Table):
            if not table.is_loaded:
                table.fail(why)

    def open_pointed(self) -> None:
        """Go into what is pointed at."""

    def clear(self) -> bool:
        """Take back one step of what was chosen here (marks, filter); False when there is none."""
        return False

    @property
    def filter(self) -> str:
        """The filter in force."""
        return ""

    @property
    def filter_help(self) -> str | None:
        """How the filter is written; None when there is nothing to filter."""
        return None

    async def set_filter(self, text: str) -> None:
        """Filter. Raises Refused, with why."""

    def sorts(self) -> dict[str, str]:
        """The letters that sort here, and by what."""
        return {}

    def sort_by(self, field: str) -> None:
        """Sort by one of `sorts`."""

    def orders(self) -> set[tuple[str, str]]:
        """The lists here by name, and the order of each."""
        return {(table.id or "", table.sort) for table in self.query(Table)}

    # -- what all do ----------------------------------------------------------------------------------------------

    def tick(self, moment: Moment) -> None:
        """Time has passed."""
        for table in self.query(Table):
            table.tick(moment)

    def freshen(self) -> None:
        """Tell health, way, status and keys anew; what did not change is not painted."""
        if self.is_mounted:
            with suppress(NoMatches):  # of a screen that is being taken away some parts are gone
                self._freshen()

    def _freshen(self) -> None:
        console, moment = self.console, self.console.moment
        overview = console.overview
        self.query_one(HealthLine).tell(
            overview.health if overview else None, moment, lost=console.lost_since, read_only=console.read_only
        )
        for widget in self.walk_children(Ageing):
            widget.age(console.lost_since is not None)
        note = ""
        if console.frozen_at is not None:
            note = f"frozen {moment.clock(console.frozen_at)}"
        elif console.lost_since is not None and overview is not None:
            note = f"as of {moment.clock(console.seen_at)}"
        trail = self.query_one(Trail)
        if crumbs := self.crumbs():
            trail.crumbs(crumbs, note)
        else:
            trail.tabs(console.tabs(), self.tab, note)
        self._tell_pointed()
        self.query_one(StatusLine).tell(console.status(), self.place())
        self.query_one(KeyLine).offer(console.registry.footer(self.context))

    def _tell_pointed(self) -> None:
        table, pointed = self.main(), self.query_one(Pointed)
        if isinstance(table, Table):
            pointed.tell(in_full(table.pointed, table.moment))
            room = table.size.height + pointed.size.height - 2
            self.set_class(self.app.size.height >= TALL or table.total < room, "roomy")

    def place(self) -> str:
        """Where in the list one is, and how it is cut and ordered."""
        table = self.table()
        if table is None or not table.total:
            return f"/{self.filter} " if self.filter else ""
        parts = [f"/{self.filter}" if self.filter else "", f"✱ {len(table.marks):,} marked" if table.marks else ""]
        parts.append("the row pointed at has moved away" if table.lost else f"{table.cursor + 1:,} of {table.total:,}")
        return "  ".join(part for part in parts if part) + " "

    def mail(self) -> str:
        """How many wait, for the tabs."""
        overview = self.console.overview
        return count(overview.health.waiting) if overview else ""

    def on_mount(self) -> None:
        for table in self.query(Table):
            table.sort = self.console.preferences.order(table.id or "", table.sorts().values(), table.sort)
        self._measure()
        self.settle_focus()
        # As a message of its own: only once this one is done does the screen count as mounted, and take keys.
        self.call_later(self.console.keyboard.changed)

    def on_screen_resume(self) -> None:
        self.settle_focus()
        self.console.freshen()
        self.console.reload_soon()

    def on_resize(self) -> None:
        self._measure()
        self.call_after_refresh(self.settle_focus)
        self.call_after_refresh(self.freshen)

    def settle_focus(self) -> None:
        """See that something that can be seen has the focus."""
        if self.is_asking or self.focus_is_seen():
            return
        with suppress(NoMatches):  # of a screen that left while it was still being made some parts are gone
            main = self.main()
            if main is not None:
                self.set_focus(main)

    def focus_is_seen(self) -> bool:
        """Whether what has the focus is there to be seen."""
        return self.focused is not None and self.focused.display

    def on_descendant_focus(self) -> None:
        self.freshen()

    def on_table_moved(self) -> None:
        self.freshen()

    def on_table_chosen(self) -> None:
        self.open_pointed()

    def on_table_wanted(self, event: Table.Wanted) -> None:
        event.stop()
        self.console.reload_soon()

    # -- asking ---------------------------------------------------------------------------------------------------

    @property
    def is_asking(self) -> bool:
        """Whether a filter or a command is being typed."""
        return self.has_class("asking")

    def ask(self, kind: Kind, text: str = "") -> Prompt:
        """Have a filter or a command typed, beginning with `text`."""
        prompt = self.query_one(Prompt)
        prompt.filter_help = self.filter_help or ""
        prompt.open(kind, text)
        self.add_class("asking")
        return prompt

    def stop_asking(self) -> None:
        """Take the line away that is typed into."""
        self.query_one(Prompt).close()
        self.remove_class("asking")
        main = self.main()
        if main is not None:
            self.set_focus(main)

    # -- opening --------------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether what keys may point at has been fetched."""
        if self.is_given_up or not self.is_loaded:
            return self.is_given_up
        with suppress(NoMatches):  # of a screen that is being taken away some parts are gone
            table = self.table() or self.main()
            return not isinstance(table, Table) or table.is_settled
        return False

    def open_anew(self) -> None:
        """It is gone to again: what it showed when it was left is not what keys are for."""
        self.is_loaded = self.is_given_up = False

    def _measure(self) -> None:
        width, height = self.app.size
        tiny = width < LEAST[0] or height < LEAST[1]
        self.update_classes(
            {
                "tiny": tiny,
                "wide": self.console.wide,
                "short": height < SHORT,
                "roomy": height >= TALL or self.has_class("roomy"),
                "text": bool(self.children) and not self.query(Table),
            }
        )
        if tiny and self.query("#small"):
            said = f"{width}x{height} is too small; {LEAST[0]}x{LEAST[1]} is the least"
            self.query_one("#small", Line).say([(said, "warn")])
