"""Everything one can do in the console, named once: keys, footer, help, palette and command line all read this."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from engine.model import verbs
from engine.model.order import RULE_FIELDS
from engine.model.verbs import Verb

Group = Literal["Act", "Look", "Go", "Console"]
GROUPS: tuple[Group, ...] = ("Act", "Go", "Look", "Console")

# What terminals, tmux and screen keep for themselves: never bound here. But ctrl+z does what it does in a shell.
RESERVED = frozenset({"ctrl+a", "ctrl+b", "ctrl+d", "ctrl+s", "ctrl+c", "ctrl+backslash"})

LISTS = frozenset({"destinations", "queue", "relayers", "hosts", "reasons", "events", "nodes"})
MAIL = frozenset({"destinations", "queue", "reasons", "destination", "message"})
# What is for no row, and need not wait for the first ones of a screen that is opening.
AT_ONCE = frozenset({"check", "undo", "back", "command", "filter", "help", "redraw", "background", "quit", "overview",
                     "queue", "relayers", "hosts", "reasons", "events", "overrides", "nodes"})  # fmt: skip
EVERYWHERE = LISTS | {"destination", "message", "finished", "relayer", "host", "answer", "overrides"}


@dataclass(frozen=True)
class Action:
    """One thing to do.

    `word` is what is typed after `:`, the same as in the commands and over HTTP, with `usage` behind it; `also` are
    other words for it. `label` stands in the footer, where `on` names the
    contexts it is offered in and the lowest `rank` is the last to go when room is short. `verb`: what it asks of the
    relay; a read-only console has none of these.
    """

    name: str
    keys: tuple[str, ...]
    word: str
    label: str
    help: str
    group: Group
    usage: str = ""
    on: frozenset[str] = frozenset()
    rank: int = 50
    verb: Verb | None = None
    also: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The first key, as a person reads it; "" where it has none."""
        return shown_key(self.keys[0]) if self.keys else ""

    @property
    def waits(self) -> bool:
        """Whether it may be for a row, so that on a screen that is opening it waits for the first ones."""
        return self.name not in AT_ONCE


@dataclass(frozen=True)
class Move:
    """A key that moves about in a list or a text."""

    name: str
    keys: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Target:
    """What is pointed at, or marked: what a verb will act on.

    `filter` names messages in the engine's own terms, and `what` in the operator's; `single`: it is one message or
    one recipient, so that what can be taken back needs no question. `bad` are those of `hosts` marked bad.
    `relayer` is the number of a connection, and `node` the name of the engine that has it, where several share the
    queue; without a connection it is the node that is meant.
    """

    what: str
    filter: str = ""
    single: bool = False
    destination: str = ""
    hosts: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    relayer: int = 0
    node: str = ""
    relay: bool = field(default=False)


_SHOWN = {
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
    "escape": "esc",
    "space": "space",
    "ctrl+p": "ctrl+p",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "up": "↑",
    "down": "↓",
}


def shown_key(key: str) -> str:
    """A key as it stands on the keyboard: `question_mark` is `?`."""
    return _SHOWN.get(key, key)


# Shift and a letter sorts by the column whose title has that letter underlined; again, and the order is turned.
SORT_LETTERS = ("A", "E", "F", "I", "K", "L", "M", "N", "O", "P", "R", "T", "U", "W", "Z")


def _verb(
    word: str, *keys: str, on: frozenset[str] = frozenset(), rank: int = 50, also: tuple[str, ...] = ()
) -> Action:
    """What the table of verbs says of a verb, and its keys."""
    verb = verbs.named(word)
    return Action(word, keys, word, verb.label, verb.help, "Act", _usage(verb), on, rank, verb, also)


def _usage(verb: Verb) -> str:
    """How it is typed: what it acts on, for how long and why; but a filter goes on to the end of the line."""
    if verb.on == "order":
        return ""  # it is the last one
    wanted = [parameter for parameter in verbs.parameters(verb.ask) if parameter.kind is not bool]
    if verb.on == "mail":
        wanted = [parameter for parameter in wanted if parameter.name in ("filter", "seconds")]
    titles = [parameter.title for parameter in wanted]
    if verb.on == "mail to come":
        titles[0] = "|".join(f"{name}=…" for name in RULE_FIELDS)
    return " ".join(f"[{title}]" for title in titles)


ACTIONS: tuple[Action, ...] = (
    _verb("check", "c", on=EVERYWHERE, rank=23),
    _verb("retry", "r", on=MAIL, rank=10),
    _verb("postpone", "t", on=MAIL, rank=48),
    _verb("hold", "h", on=MAIL, rank=14),
    _verb("release", "l", on=MAIL, rank=16),
    _verb("bounce", "B", on=MAIL - {"destinations"}, rank=24),
    _verb("drop", "D", on=MAIL - {"destinations"}, rank=26),
    _verb("suspend", "s", on=frozenset({"destinations", "destination"}), rank=20),
    _verb("resume", "S", on=frozenset({"destinations", "destination"}), rank=30),
    _verb("mark-bad", "b", on=frozenset({"destinations", "destination", "relayers", "relayer", "hosts", "host"}),
          rank=19, also=("bad",)),
    _verb("mark-good", "g", on=frozenset({"hosts", "host", "destination", "relayers"}), rank=18, also=("good",)),
    _verb("undo", "u", on=frozenset({"queue", "destination", "message"}), rank=36),
    _verb("close", "x", on=frozenset({"relayers", "relayer"}), rank=17),
    _verb("probe", "i", on=frozenset({"hosts", "host", "relayers", "relayer"}), rank=21),
    _verb("override", "v", on=frozenset({"destination"}), rank=32),
    _verb("end-override", "X", also=("end",)),
    _verb("drain", "d", on=frozenset({"nodes"}), rank=10),
    _verb("undrain", "n", on=frozenset({"nodes"}), rank=12),
    _verb("hold-rule", "H"),
    _verb("release-rule"),
    Action("explain", ("e",), "explain", "Explain", "Say why mail is not moving, or what would happen to it", "Look",
           usage="[MESSAGE|ADDRESS|DOMAIN]", on=MAIL - {"reasons"} | {"answer"}, rank=12),
    Action("mark", ("space",), "mark", "Mark", "Mark the row, to act on several at once", "Look",
           on=frozenset({"queue", "destination"}), rank=38),
    Action("all", ("a",), "all", "Mark all", "Mark all that match the filter, also beyond the screen", "Look",
           on=frozenset({"queue", "destination"}), rank=44),
    Action("filter", ("slash",), "filter", "Filter", "Show only what matches", "Look",
           usage="[FILTER]", on=LISTS, rank=6),
    Action("sort", SORT_LETTERS, "sort", "Sort", "Sort by the column with that letter underlined; again to turn round",
           "Look", usage="[COLUMN]", on=frozenset({"queue"}), rank=60),
    Action("answer", ("o",), "answer", "Answer", "Show the answer of Explain or Probe that came last", "Look"),
    Action("freeze", ("p",), "freeze", "Freeze", "Let the view stand still; the health line lives on", "Look",
           on=EVERYWHERE, rank=40),
    Action("open", ("enter",), "open", "Open", "Open what is pointed at, or a message or destination by its name",
           "Go", usage="[MESSAGE|DESTINATION]", on=LISTS, rank=8),
    Action("back", ("escape",), "back", "Back", "Clear marks, then the filter, then go back", "Go",
           on=EVERYWHERE - LISTS, rank=4),
    Action("next", ("tab",), "next", "Next pane", "Go to the next pane, or the next screen where there is one pane",
           "Go", on=frozenset({"destinations", "relayers", "hosts", "reasons", "events", "nodes"}), rank=42),
    Action("previous", ("shift+tab",), "previous", "Previous pane", "Go to the pane before", "Go"),
    Action("overview", ("1",), "overview", "Overview", "Destinations, relayers, bad hosts and events at once", "Go"),
    Action("queue", ("2",), "queue", "Queue", "Every recipient of every message", "Go", usage="[FILTER]"),
    Action("relayers", ("3",), "relayers", "Relayers", "The connections that are open", "Go"),
    Action("hosts", ("4",), "hosts", "Bad MX", "The mail exchanges marked bad", "Go"),
    Action("reasons", ("5",), "reasons", "Reasons", "Why mail waits, in groups", "Go"),
    Action("events", ("6",), "events", "Events", "What happened, and who did it", "Go", usage="[WORDS]"),
    Action("overrides", ("7",), "overrides", "Overrides", "All that stands until a time, by whom and why", "Go"),
    Action("nodes", ("8",), "nodes", "Nodes", "The engines that share the queue, and how each of them is", "Go",
           usage="[WORDS]"),
    Action("command", ("colon",), "command", "Command", "Type a command", "Console", on=EVERYWHERE, rank=5),
    Action("palette", ("ctrl+p",), "palette", "Palette", "Find anything one can do by its name", "Console"),
    Action("help", ("question_mark",), "help", "Help", "Every key and command", "Console", on=EVERYWHERE, rank=2),
    Action("redraw", ("ctrl+l",), "redraw", "Redraw", "Draw the screen anew, where something else has written on it",
           "Console"),
    Action("background", ("ctrl+z",), "background", "Background", "Stop this console; the shell's fg brings it back",
           "Console"),
    Action("quit", ("q",), "quit", "Quit", "Leave the console", "Console", on=EVERYWHERE, rank=46),
)  # fmt: skip

MOVES: tuple[Move, ...] = (
    Move("cursor_up", ("up", "k"), "One line up"),
    Move("cursor_down", ("down", "j"), "One line down"),
    Move("page_up", ("pageup",), "One page up"),
    Move("page_down", ("pagedown",), "One page down"),
    Move("first", ("home",), "To the first line"),
    Move("last", ("end",), "To the last line"),
)

# The terms of a filter, each with the sign it is used with most.
TERMS = ("domain=", "to~", "from=", "id=", "state=", "reply~", "subject~", "group=", "age>", "tries>", "size>")
STATES = ("waiting", "relaying", "held", "due")
FILTER_HELP = "domain=example.org  to~bob  from=*@a.example  id=48213  state=held  reply~4.7  age>2h  !inverts"


def group_filter(why: str) -> str:
    """The filter that names the mail of one reason."""
    escaped = why.replace("\\", "\\\\").replace('"', '\\"')
    return f'group="{escaped}"'


def domain_filter(name: str) -> str:
    """The filter that names a destination's messages, quoted where its name calls for it."""
    if name and all(char.isalnum() or char in "._-[]:" for char in name):
        return f"domain={name}"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'domain="{escaped}"'


class Registry:
    """The actions of one console: all of them, or those that change nothing where the engine lets it look alone."""

    def __init__(self, read_only: bool = False) -> None:
        self.become(read_only)

    def become(self, read_only: bool) -> None:
        """Have all actions, or those alone that change nothing."""
        self.read_only = read_only
        self._actions = {action.name: action for action in ACTIONS if not (read_only and action.verb)}
        self._words = {word: action for action in self for word in (action.word, *action.also)}
        self._keys = {key: action for action in self for key in action.keys}

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._actions

    def named(self, name: str) -> Action | None:
        """The action of this name, if this console has it."""
        return self._actions.get(name)

    def withheld(self, name: str) -> Action | None:
        """The action of this name, if it is absent because this console may only look."""
        found = next((action for action in ACTIONS if action.name == name), None)
        return found if found is not None and self.read_only and found.verb else None

    def keyed(self, key: str) -> Action | None:
        """The action of this key."""
        return self._keys.get(key)

    def command(self, line: str) -> tuple[Action | None, str]:
        """The action a typed line asks for, and what stands behind its word; an unambiguous beginning is enough."""
        typed, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if typed.lower() == "end" and rest.isdecimal():  # what stands is a rule then, and no destination's
            typed = "release-rule"
        near = self.near(typed)
        return (near[0] if len(near) == 1 else None), rest

    def words(self, beginning: str) -> list[str]:
        """The words of commands that begin so."""
        return sorted(word for word in self._words if word.startswith(beginning.lower()))

    def near(self, line: str) -> list[Action]:
        """The actions that a word typed so far may ask for: the one it names, or those whose word begins with it."""
        return list(dict.fromkeys(self._meant(line.strip().partition(" ")[0]).values()))

    def _meant(self, typed: str) -> dict[str, Action]:
        """The words that may be meant: the one that was typed, or all that begin so."""
        typed = typed.lower()
        if typed in self._words:
            return {typed: self._words[typed]}
        return {word: action for word, action in self._words.items() if word.startswith(typed)}

    def found(self, words: str) -> list[Action]:
        """The actions in whose label, word or help all these words stand, best first."""
        wanted = words.lower().split()
        hits = []
        for action in self:
            text = " ".join((action.word, *action.also, action.label, action.help)).lower()
            if all(word in text for word in wanted):
                first = not wanted or any(part.startswith(wanted[0]) for part in (action.word, action.label.lower()))
                hits.append((not first, action))
        return [action for _, action in sorted(hits, key=lambda hit: hit[0])]

    def footer(self, context: str) -> list[Action]:
        """What the footer offers in a context, in the order of the list; `rank` says which go first."""
        offered = [action for action in self if context in action.on]
        return sorted(offered, key=lambda action: action.name not in ("open", "back"))
