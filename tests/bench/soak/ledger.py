"""What was answered with 250, and what became of it: each recipient has an address of its own, which names it."""

import statistics
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from engine.model.event import Event

GATHERED = 60.0  # seconds within which a sender is told of what was returned: several failures may share a notice
ENDS = frozenset({"delivered", "returned", "discarded", "dropped"})  # events after which an entry is gone


class Answered(Struct):
    """One recipient that the relay said yes to: when, for whom, whether its domain is healthy, when it came first."""

    at: float
    sender: str
    is_healthy: bool
    came: float | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """How the books stand: how many recipients there were, where each is, and what should not be."""

    answered: int
    delivered: int
    returned: int
    dropped: int
    waiting: int
    copies: int
    on_record: int
    lost: tuple[str, ...]
    unexplained: tuple[str, ...]
    nameless: tuple[str, ...]
    untold: tuple[str, ...]


class Ledger:
    """Filled by senders, exchanges and the events; `verdict` compares them with what the store still has.

    `damaged` are recipients that got something else than was sent; `seq` and `newest` are the last event and message.
    """

    def __init__(self) -> None:
        self.answered: dict[str, Answered] = {}
        self.damaged: list[str] = []
        self.seq = self.newest = 0
        self._copies: Counter[str] = Counter()
        self._first: dict[str, float] = {}
        self._records: Counter[str] = Counter()
        self._ends: dict[str, tuple[str, float]] = {}
        self._nameless: list[str] = []

    def yes(self, sender: str, recipients: Iterable[str], at: float, *, healthy: Iterable[str] = ()) -> None:
        """The relay has answered for these recipients of a sender's message; of some the domain is healthy."""
        well = set(healthy)
        for recipient in recipients:
            self.answered[recipient] = Answered(at, sender, recipient in well, self._first.get(recipient))

    def taken(self, recipients: Iterable[str], at: float, is_whole: bool) -> None:
        """An exchange has answered 250 to a message for these."""
        for recipient in recipients:
            self._copies[recipient] += 1
            self._first.setdefault(recipient, at)
            if found := self.answered.get(recipient):
                found.came = self._first[recipient]
            if not is_whole:
                self.damaged.append(recipient)

    def happened(self, events: Iterable[Event | Event]) -> None:
        """Take what the relay itself says has happened, in order."""
        for event in events:
            self.seq, self.newest = max(self.seq, event.seq), max(self.newest, event.message)
            if event.kind in ENDS:
                self._ends[event.recipient] = (event.kind, event.at)
            if event.kind == "dropped" and event.by in ("", "engine"):
                self._nameless.append(event.recipient)
            if event.kind == "interrupted" or (event.outcome is not None and event.outcome.may_duplicate):
                self._records[event.recipient] += 1

    def times(self, now: float, since: float = 0.0) -> list[float]:
        """Seconds from its 250 to that of its exchange, of healthy mail answered from `since` on.

        What has not come counts with its age.
        """
        healthy = (one for one in self.answered.values() if one.is_healthy and one.at >= since)
        return [max(0.0, (now if one.came is None else one.came) - one.at) for one in healthy]

    def missing(self) -> int:
        """How much healthy mail has not come."""
        return sum(one.is_healthy and one.came is None for one in self.answered.values())

    def verdict(self, waiting: Iterable[str]) -> Verdict:
        """Compare what was answered with what became of it, given the recipients that are still in the store.

        `untold`: returned, and their sender has no notification, nor does one wait for him.
        """
        left = set(waiting)
        came, ends = self._copies, {one: self._ends.get(one, ("", 0.0)) for one in self.answered}
        copies = {one: came[one] - 1 for one in self.answered if came[one] > 1}
        returned = [one for one, (kind, _) in ends.items() if kind == "returned"]
        newest = max((at for _, at in self._ends.values()), default=0.0)
        return Verdict(
            answered=len(self.answered),
            delivered=sum(came[one] > 0 for one in self.answered),
            returned=len(returned),
            dropped=sum(kind == "dropped" for kind, _ in ends.values()),
            waiting=len(left & self.answered.keys()),
            copies=sum(copies.values()),
            on_record=sum(self._records[one] for one in copies),
            lost=tuple(
                one
                for one, (kind, _) in ends.items()
                if not came[one] and kind not in ("returned", "dropped") and one not in left
            ),
            unexplained=tuple(one for one, more in copies.items() if more > self._records[one]),
            nameless=tuple(self._nameless),
            untold=tuple(
                one
                for one in returned
                if ends[one][1] < newest - GATHERED
                and not came[self.answered[one].sender]
                and self.answered[one].sender not in left
            ),
        )


def told(times: list[float]) -> str:
    """The middle, the 95th of a hundred, and the longest, in words."""
    if not times:
        return "none"
    return f"p50 {statistics.median(times):.3f} s, p95 {p95(times):.3f} s, longest {max(times):.3f} s"


def p95(times: list[float]) -> float:
    """What 95 of a hundred do not exceed."""
    return statistics.quantiles(times, n=20)[-1] if len(times) > 1 else max(times, default=0.0)
