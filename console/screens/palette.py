"""The palette and the help: both read the registry, so that nothing is in one place only."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical

from console.actions import FILTER_HELP, GROUPS, MOVES, Action, Registry, shown_key
from console.format import Moment
from console.layer import Layer
from console.widgets.columns import Column
from console.widgets.document import Document, Para, heading, para
from console.widgets.field import Field
from console.widgets.line import Line
from console.widgets.table import Table

_COLUMNS: tuple[Column[Action], ...] = (
    Column("", 14, lambda row, _: (row.label, "")),
    Column("", 9, lambda row, _: ("shift+" + "…" if row.name == "sort" else row.key, "key")),
    Column("", 20, lambda row, _: (row.help, "dim"), rest=True),
)

_COLOURS = (
    ("● relaying  ✓ delivered", "good", "green is good"),
    ("◷ deferred  ▲ stalling  ‖ held, suspended", "warn", "yellow waits, or wants a look"),
    ("✗ blocked, returned  ▼ bad", "bad", "red is broken"),
    ("▸ the row pointed at", "here", "cyan is where you are"),
)


class Palette(Layer[str | None]):
    """Type a part of a name or of what it does; enter does it."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape", "cancel", show=False),
        Binding("ctrl+c,super+c", "cancel", show=False),
        Binding("up", "up", show=False),
        Binding("down", "down", show=False),
    ]

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry
        self._words = ""
        self._table: Table[Action] = Table(_COLUMNS, lambda row: row.name, empty="nothing of that name")
        self._table.can_focus = False
        self._table.always_here = True
        self._table.hold(registry.found(""))

    def compose(self) -> ComposeResult:
        with Vertical(id="box", classes="palette"):
            yield Field(entered=self._choose, placeholder="what do you want to do?", id="words")
            yield self._table

    def on_mount(self) -> None:
        self.set_focus(self.query_one(Field))

    def on_input_changed(self) -> None:
        self._find()

    def on_table_chosen(self) -> None:
        self._choose()

    def action_up(self) -> None:
        """One up."""
        self._find()
        self._table.action_cursor_up()

    def action_down(self) -> None:
        """One down."""
        self._find()
        self._table.action_cursor_down()

    def action_cancel(self) -> None:
        """Do nothing."""
        self.dismiss(None)

    def _find(self) -> None:
        """Show what fits the words; asked before each key too, since the field tells of its changes only later."""
        words = self.query_one(Field).value
        if words != self._words:
            self._words = words
            self._table.to_top()
            self._table.show(self._registry.found(words), Moment(0.0))

    def _choose(self) -> None:
        self._find()
        row = self._table.pointed
        if row is not None:
            self.dismiss(row.name)


class Help(Layer[None]):
    """Every key and every command."""

    BINDINGS = [  # noqa: RUF012
        Binding("escape,q,question_mark,enter", "close", show=False),
        Binding("ctrl+c,super+c", "close", show=False),
    ]

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry

    def compose(self) -> ComposeResult:
        with Vertical(id="page"):
            yield Line(id="title")
            yield Document(id="text")

    def on_mount(self) -> None:
        line: list[tuple[str, str]] = [("  Help", "here"), ("   ↑ ↓ move, esc closes", "dim")]
        self.query_one("#title", Line).say(line)
        document = self.query_one(Document)
        document.show(manual(self._registry))
        self.set_focus(document)

    def action_close(self) -> None:
        """Go back."""
        self.dismiss(None)


def manual(registry: Registry) -> list[Para]:
    """All that can be done, by group, then how to move, filter, and what glyphs and colours mean."""
    paras: list[Para] = []
    for group in GROUPS:
        actions = [action for action in registry if action.group == group]
        if actions:
            paras += heading(group)
            paras += [_line(action) for action in actions]
    paras += heading("Move")
    paras += [
        para((f"  {' '.join(shown_key(key) for key in move.keys):<11}", "key"), (move.help, "")) for move in MOVES
    ]
    paras += heading("Filter", "/ asks for it; all terms must hold")
    paras.append(para((f"  {FILTER_HELP}", ""), hang=2))
    paras.append(
        para(
            (
                "  In lists of hosts, relayers and events: words that all stand in the row; !word leaves out.",
                "dim",
            ),
            hang=2,
        )
    )
    paras += heading("Glyphs and colours")
    paras += [para((f"  {glyphs:<44}", style), (meaning, "")) for glyphs, style, meaning in _COLOURS]
    return [*paras[1:], Para()]


def _line(action: Action) -> Para:
    keys = "shift+…" if action.name == "sort" else " ".join(shown_key(key) for key in action.keys)
    usage = "  " + f":{action.word} {action.usage}".rstrip().replace(" ", "\xa0")  # wrapped as a whole
    return Para(((f"  {keys:<11}", "key"), (f"{action.label:<15}", "bold"), (action.help, ""), (usage, "dim")), 28)
