"""The contract of what operators lay upon mail that is still to come: hold rules, and destinations sent elsewhere.

Both end by themselves, both outlive a restart, and each knows its maker and its reason.
"""

from abc import ABC, abstractmethod

from msgspec import Struct

from engine.model.filter import Filter, FilterError

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
    reason: str
    holding: int = 0


class Override(Struct, frozen=True, kw_only=True):
    """A destination whose mail goes to `host` instead of its exchanges until `until`. `port` 0: the usual one."""

    destination: str
    host: str
    port: int
    since: float
    until: float
    by: str
    reason: str


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


class Steering(ABC):
    """The part of a queue that keeps rules and overrides. Changes are on disk, with their event, when these return."""

    @abstractmethod
    async def add_rule(self, filter: Filter, until: float, by: str, reason: str) -> HoldRule:
        """Hold what the filter names: what comes in until `until`, in the transaction that takes it in, and what waits.

        A rule in force with the same filter is replaced and keeps its number.
        """

    @abstractmethod
    async def end_rule(self, id: int, by: str) -> int | None:
        """End a rule and let go what it held; give how many recipients those were, None where there is no such rule."""

    @abstractmethod
    async def rules(self) -> tuple[HoldRule, ...]:
        """The rules in force, the oldest first."""

    @abstractmethod
    async def rules_on(self, recipient: str, destination: str) -> tuple[HoldRule, ...]:
        """The rules that would hold mail to this recipient whoever sent it."""

    @abstractmethod
    async def set_override(self, override: Override) -> int:
        """Send a destination's mail elsewhere, in place of any override it had.

        Unblocks it and makes what waits due now; gives how many recipients that were.
        """

    @abstractmethod
    async def end_override(self, destination: str, by: str) -> Override | None:
        """End an override, unblock its destination and make what waits due; None where there was none."""

    @abstractmethod
    async def override(self, destination: str) -> Override | None:
        """The override in force for a destination."""

    @abstractmethod
    async def overrides(self) -> tuple[Override, ...]:
        """Those in force, by destination."""
