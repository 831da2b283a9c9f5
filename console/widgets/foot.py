"""The foot of a screen: what was done or is asked, and the keys that are of use here."""

from collections.abc import Callable, Sequence
from typing import Literal

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical

from console.actions import FILTER_HELP, Action, Registry
from console.format import safe
from console.widgets.field import Field
from console.widgets.line import Line, Piece, crop, width_of

Kind = Literal["command", "filter"]
NO_COMMAND = "no such command; ? lists them all"
ONLY_LOOKS = "this console may only look"


class StatusLine(Line):
    """Left: what the last action came to. Right: where in the list one is, and what is marked and filtered there."""

    def tell(self, said: Piece, place: str) -> None:
        """Say both. Where there is no room for both the result is cut: marks and filter say what a verb will touch."""
        width = self.size.width
        parts = _apart(place)
        too_long = width_of([(place, "")]) + 1 - width
        if too_long > 0 and parts[0].startswith("/"):  # the end of a long filter is the least loss
            parts[0] = crop(parts[0].rstrip(), max(2, width_of([(parts[0], "")]) - too_long - 2)) + "  "
        right = [(part, "marked" if part.startswith("✱") else "dim") for part in parts]
        room = max(0, width - width_of(right) - 1)
        left = safe(f" {said[0]}" if said[0] else "")
        self.say([(crop(left, room), said[1]), (" ", ""), *right])


def _apart(place: str) -> list[str]:
    """The parts of a place, each with the space behind it."""
    parts = place.split("  ")
    return [f"{part}  " if index < len(parts) - 1 else part for index, part in enumerate(parts)]


class KeyLine(Line):
    """The keys of what can be done here, as many as fit, the most useful first to stay."""

    def offer(self, actions: Sequence[Action]) -> None:
        """Show these actions."""
        kept = list(actions)
        while kept and width_of(_keys(kept)) > self.size.width:
            kept.remove(max(kept, key=lambda action: action.rank))
        self.say(_keys(kept))


def _keys(actions: Sequence[Action]) -> list[Piece]:
    pieces: list[Piece] = [(" ", "")]
    for action in actions:
        pieces += [(action.key, "key"), (f" {action.label}", ""), ("  ", "")]
    return pieces[:-1]


class Prompt(Vertical):
    """Where a filter or a command is typed; above it stands help, or why what was typed was refused.

    `entered` is called at once with what was entered, `complete` with what is to be completed.
    """

    DEFAULT_CSS = """
    Prompt { height: 2; display: none; }
    Prompt.open { display: block; }
    Prompt Horizontal { height: 1; }
    Prompt #sign { width: 3; }
    """
    # Whoever presses tab while typing wants a word completed, and never another screen.
    BINDINGS = [Binding("tab", "complete", show=False), Binding("shift+tab", "stay", show=False)]  # noqa: RUF012

    def __init__(
        self, registry: Registry, *, entered: Callable[[Kind, str], None], complete: Callable[["Prompt"], None]
    ) -> None:
        super().__init__()
        self._registry = registry
        self._entered = entered
        self._complete = complete
        self.kind: Kind = "command"
        self.filter_help = FILTER_HELP
        self._remark: tuple[str, list[Piece]] = ("", [])  # on what was typed, as long as just that stands there

    def compose(self) -> ComposeResult:
        yield Line(id="hint")
        with Horizontal():
            yield Line(id="sign")
            yield Field(entered=self._on_entered, id="typed")

    @property
    def field(self) -> Field:
        """The field that is typed into."""
        return self.query_one("#typed", Field)

    def open(self, kind: Kind, text: str = "") -> None:
        """Ask for a filter or a command, beginning with `text`."""
        self.kind = kind
        self._remark = ("", [])
        self.add_class("open")
        self.query_one("#sign", Line).say([(" : " if kind == "command" else " / ", "here")])
        self.write(text)
        self.screen.set_focus(self.field)  # at once: what is typed ahead is meant for it
        self._hint()

    def close(self) -> None:
        """Ask no more."""
        self.remove_class("open")

    def write(self, text: str) -> None:
        """Have this stand in the field, to be typed on behind it."""
        self.field.value = text
        self.field.cursor_position = len(text)

    def refuse(self, why: str) -> None:
        """Say why what was typed cannot be; it can be mended."""
        self._say([(f" ✗ {why}", "bad")])

    def offer(self, names: Sequence[str]) -> None:
        """Name what fits what was typed so far."""
        self._say(_named(names) if names else [(" nothing known fits", "dim")])

    def on_input_changed(self) -> None:
        self._hint()

    def action_complete(self) -> None:
        """Complete the word that is being typed."""
        self._complete(self)

    def action_stay(self) -> None:
        """Nothing: the line is not left by it."""

    def _on_entered(self) -> None:
        self._entered(self.kind, self.field.value.strip())

    def _hint(self) -> None:
        typed, said = self._remark
        self.query_one("#hint", Line).say(said if said and typed == self.field.value else self._help())

    def _help(self) -> list[Piece]:
        if self.kind == "filter":
            return [(f" {self.filter_help}", "dim")]
        near = self._registry.near(self.field.value)
        if len(near) == 1:
            return [(f" {near[0].word} ", "key"), (f"{near[0].usage}  ", ""), (near[0].help, "dim")]
        return _named([action.word for action in near]) if near else [(f" ✗ {NO_COMMAND}", "bad")]

    def _say(self, pieces: list[Piece]) -> None:
        self._remark = (self.field.value, pieces)
        self._hint()


def _named(names: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = [(" ", "")]
    for name in names:
        pieces += [(name, "key"), ("  ", "")]
    return pieces
