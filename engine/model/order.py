"""Operators' orders: what they touched, and what became of it; and the rules that hold mail still to come."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from engine.base.plural import agree, plural
from engine.model.filter import Filter, FilterError
from engine.model.outcome import Cause

Ending = Literal["mark", "suspension", "override", "rule"]

RULE_FIELDS = ("from", "to", "domain")

MOST_RULES = 100  # in force at a time: each is looked at for every message that comes in


class HoldRule(Struct, frozen=True, kw_only=True):
    """Mail that `filter` names is held when it comes in, until `until`; then all that it held goes on.

    `holding` counts the recipients it holds now.
    """

    id: int
    filter: str
    since: float
    until: float
    by: str
    note: str
    holding: int = 0


def rule_filter(text: str) -> Filter:
    """Read the filter of a hold rule. Raises FilterError for what does not name senders, recipients or domains alone.

    Everything else of a message (its age, its last reply) is not yet there when it comes in.
    """
    found = Filter.parse(text)
    allowed = "from=ann@example.net, to=*@example.org, domain=example.org, or several of them that must all hold"
    if not found.terms:
        raise FilterError("a hold rule needs to say which mail", allowed=allowed)
    for term in found.terms:
        if term.field not in RULE_FIELDS or term.inverted:
            raise FilterError("a hold rule cannot look for this", str(term), allowed)
    return found


class Changed(Struct, frozen=True, kw_only=True):
    """What an operator's action did. `skipped` entries matched but were being relayed, or were so already.

    `operation` names the action for `undo`, which can be undone until `due`; 0 where it cannot be. `outlasting` counts
    those made due at a time before which they would have been given up, which is then their end.
    """

    messages: int
    recipients: int
    skipped: int = 0
    operation: int = 0
    due: float | None = None
    outlasting: int = 0


FOLLOWED = 10_000  # entries of one order whose fate can be asked for


class TouchedEntry(NamedTuple):
    """An entry that an order touched; `attempts` counts those before."""

    message: int
    number: int
    attempts: int


class Touched:
    """Written by an order as it goes: its number, and which entries it has touched, for whoever follows them up.

    `entries` are the first FOLLOWED of `recipients`; `since` is the last event before the first of them.
    """

    def __init__(self) -> None:
        self.operation = 0
        self.since = 0
        self.recipients = 0
        self.entries: list[TouchedEntry] = []

    def add(self, operation: int, since: int, entries: Sequence[TouchedEntry]) -> None:
        """Note what one transaction has touched, once it is on disk."""
        if not self.operation:
            self.operation, self.since = operation, since
        self.recipients += len(entries)
        self.entries += entries[: FOLLOWED - len(self.entries)]


class Fate(NamedTuple):
    """What became of an entry since an order let it go, and the reason where one was given, with its cause.

    `deferred`: tried without success; `blocked`: not tried, for no connection could be had to its destination;
    `later`: not due yet; `waiting`: nothing keeps it but its turn; `gone`: it has left, and no event kept says how.
    """

    what: Literal[
        "delivered", "deferred", "returned", "dropped", "gone",
        "relaying", "held", "suspended", "blocked", "later", "waiting",
    ]  # fmt: skip
    why: str = ""
    cause: Cause = ""  # of the outcome that `why` comes from, or of what its destination is blocked for


class Operation(Struct, frozen=True, kw_only=True):
    """An order to bounce or drop, and how far it has come.

    Of the `recipients` that it touched it has been carried out on `gone_recipients`, `released` were released before
    that, and `left` are under it still; the rest went another way. `due` is when it is carried out: None when it is
    not `finished` (all of it ordered), was cut short or undone, or is over.
    """

    id: int
    verb: str
    filter: str
    by: str
    at: float
    messages: int
    recipients: int
    gone_messages: int
    gone_recipients: int
    released: int
    due: float | None
    finished: bool
    left: int

    @property
    def result(self) -> str:
        """The exact result in words: `12 messages (14 recipients) dropped; 1 was released meanwhile`."""
        done = {"bounce": "bounced", "drop": "dropped"}.get(self.verb, "given up")
        parts = [f"nothing {done} yet" if self.left else f"nothing was {done}"]
        if self.gone_recipients:
            all_alone = self.gone_messages == self.gone_recipients
            recipients = "" if all_alone else f" ({plural(self.gone_recipients, 'recipient')})"
            parts = [f"{plural(self.gone_messages, 'message')}{recipients} {done}"]
        if self.left:
            parts.append(f"{plural(self.left, 'recipient')} still to go")
        if self.released:
            parts.append(f"{self.released:,} {agree(self.released, 'was', 'were')} released meanwhile")
        others = self.recipients - self.gone_recipients - self.released - self.left
        if others > 0:
            parts.append(f"{others:,} went another way meanwhile: held, undone, ordered anew or sent")
        return "; ".join(parts)
