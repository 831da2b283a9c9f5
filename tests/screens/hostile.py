"""Canned views in which every text a stranger could have written tries to steer the terminal."""

from typing import Any

from msgspec import Struct
from msgspec.structs import fields

from engine.control import views
from engine.model.outcome import Outcome
from tests.screens import canned
from tests.screens.canned import CannedClient

ATTACKS = (
    "\x1b[2J\x1b[H",  # CSI: clear the screen
    "\x1b]0;owned\x07",  # OSC 0: the window's title
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",  # OSC 8: a link
    "\x1b]52;c;ZXZpbA==\x07",  # OSC 52: the clipboard
    "\x1bP+q544e\x1b\\",  # DCS
    "\x9b31m\x9d0;c1\x9c",  # C1
    "\u202egnp.exe\u202c\u2066x\u2069\u200b\ufeff",  # bidi and invisible
    "[@click=app.quit]press[/] [/x] [bold red]",  # markup
    "\ud800\udcff",  # surrogates
    "line\nbreak\rreturn\x85\u2028",
    "界界界e\u0301\U000e0041",
)
POISON = "".join(ATTACKS)
# Texts of ours with a fixed set of values, or that the console keys on.
_OURS = frozenset({"id", "state", "kind", "side", "phase", "ordered", "version", "entry", "enhanced"})


def poisoned(view: Any) -> Any:
    """The same view with an attack in front of every text."""
    if isinstance(view, tuple):
        return tuple(poisoned(item) for item in view)
    if not isinstance(view, Struct):
        return view
    changed: dict[str, Any] = {}
    for number, named in enumerate(fields(view)):
        value = getattr(view, named.name)
        if isinstance(value, str) and named.name not in _OURS:
            attack = ATTACKS[number % len(ATTACKS)]
            value = f"{value[:9]}{attack}{value[9:]}{POISON if named.name in ('text', 'note', 'subject') else ''}"
        elif isinstance(value, Struct) or (isinstance(value, tuple) and value and isinstance(value[0], Struct)):
            value = poisoned(value)
        elif isinstance(value, tuple):
            value = tuple(f"{item}{ATTACKS[index % len(ATTACKS)]}" for index, item in enumerate(value))
        changed[named.name] = value
    return type(view)(**changed)


def hostile_client() -> CannedClient:
    """A client all of whose answers are hostile, as if the engine had cleaned nothing."""
    client = CannedClient(poisoned(canned.OVERVIEW), entries=poisoned(canned.ENTRIES))
    client.view = poisoned(canned.MESSAGE)
    client.transcript_view = poisoned(canned.TRANSCRIPT)
    client.reason_views = poisoned(canned.REASONS)
    client.selection = poisoned(client.selection)
    client.refusal = None
    return client


HOSTILE_REFUSAL = views.Refusal(what=POISON, where=POISON, allowed=POISON)
HOSTILE_OUTCOME = Outcome(kind="transient", text=POISON, host=POISON)
