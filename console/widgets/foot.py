"""The foot of a screen: what was done or is asked, and the keys that are of use here."""

from collections.abc import Sequence
from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input

from console.actions import FILTER_HELP, Action, Registry
from console.format import safe
from console.widgets.line import Line, Piece, crop, width_of

Kind = Literal["command", "filter"]


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
    """Where a filter or a command is typed; above it stands help, or why what was typed was refused."""

    DEFAULT_CSS = """
    Prompt { height: 2; display: none; }
    Prompt.open { display: block; }
    Prompt Horizontal { height: 1; }
    Prompt #sign { width: 3; }
    """

    class Submitted(Message):
        """Something was typed and entered."""

        def __init__(self, kind: Kind, text: str) -> None:
            super().__init__()
            self.kind = kind
            self.text = text

    class Closed(Message):
        """Nothing is typed any more."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self._registry = registry
        self.kind: Kind = "command"
        self.filter_help = FILTER_HELP

    def compose(self) -> ComposeResult:
        yield Line(id="hint")
        with Horizontal():
            yield Line(id="sign")
            field = Input(compact=True, select_on_focus=False, id="typed")
            field.cursor_blink = False
            yield field

    @property
    def field(self) -> Input:
        """The field that is typed into."""
        return self.query_one("#typed", Input)

    def open(self, kind: Kind, text: str = "") -> None:
        """Ask for a filter or a command, beginning with `text`."""
        self.kind = kind
        self.add_class("open")
        self.query_one("#sign", Line).say([(" : " if kind == "command" else " / ", "here")])
        self.field.value = text
        self.field.cursor_position = len(text)
        self.screen.set_focus(self.field)  # at once: what is typed ahead is meant for it
        self._hint()

    def close(self) -> None:
        """Ask no more."""
        self.remove_class("open")
        self.post_message(self.Closed())

    def refuse(self, why: str) -> None:
        """Say why what was typed cannot be; it can be mended."""
        self.query_one("#hint", Line).say([(f" ✗ {why}", "bad")])

    def on_input_changed(self) -> None:
        self._hint()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Submitted(self.kind, event.value.strip()))

    def _hint(self) -> None:
        line = self.query_one("#hint", Line)
        if self.kind == "filter":
            line.say([(f" {self.filter_help}", "dim")])
            return
        near = self._registry.near(self.field.value)
        if len(near) == 1:
            line.say([(f" {near[0].word} ", "key"), (f"{near[0].usage}  ", ""), (near[0].help, "dim")])
        elif near:
            pieces: list[Piece] = [(" ", "")]
            for action in near:
                pieces += [(action.word, "key"), ("  ", "")]
            line.say(pieces)
        else:
            line.say([(" ✗ no such command; ? lists them all", "bad")])
