"""What was answered with 250, what arrived at the peers, and what is on record: each recipient names its message."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.model.event import Event


class Arrival(Struct, frozen=True):
    """A peer took a message: when, and from which node by its greeting."""

    at: float
    node: str


class Answer(Struct, frozen=True):
    """A node has answered 250: when, and which."""

    at: float
    node: str


class Comeback(Struct, frozen=True):
    """How long after the end of what befell a node it took mail again, and sent some; infinite: not any more."""

    node: str
    fault: str
    takes: float
    sends: float


class Takeover(Struct, frozen=True, kw_only=True):
    """A node that could do nothing from `at` on, and the seconds until nothing of before was claimed any more.

    `claims` is how many those were; infinite: they were until it was back. `is_judged`: the database was there all the
    while, so that `bound` holds.
    """

    node: str
    fault: str
    at: float
    took: float
    bound: float
    claims: int = 0
    is_judged: bool = True

    @property
    def is_late(self) -> bool:
        """Whether it took longer than it may."""
        return self.is_judged and self.took > self.bound


class Verdict(Struct, frozen=True, kw_only=True):
    """How the books stand; of what is behind `on_record` there should be none.

    `stuck` is still in the queue; `strays` were sent by a node that others had taken over by then.
    """

    answered: int
    refused: int
    unknown: int
    arrived: int
    copies: int
    on_record: int
    lost: tuple[str, ...]
    stuck: tuple[str, ...]
    unexplained: tuple[str, ...]
    damaged: tuple[str, ...]
    strays: tuple[str, ...]
    late: tuple[Takeover, ...]
    comebacks: tuple[Comeback, ...]
    takeovers: tuple[Takeover, ...]
    times: tuple[float, ...]
    interrupted: int

    @property
    def figures(self) -> list[str]:
        """What was counted, in lines."""
        counted = (
            f"answered with 250 {self.answered:,}, refused {self.refused:,}, not answered {self.unknown:,};"
            f" arrived {self.arrived:,}"
        )
        became = (
            f"lost {len(self.lost)}, still in the queue {len(self.stuck)}; copies {self.copies}, of which on record"
            f" {self.on_record}; attempts interrupted {self.interrupted}"
        )
        takeovers = (
            f"taken over from {one.node}, which was {one.fault}: {one.claims} claims after {one.took:.1f} s,"
            f" at most {one.bound:g}{'' if one.is_judged else ' (not judged: the database was away as well)'}"
            for one in self.takeovers
        )
        comebacks = (
            f"{one.node}, after it was {one.fault}, took mail after {one.takes:.2f} s and sent after {one.sends:.2f} s"
            for one in self.comebacks
        )
        return [counted, became, f"from its 250 to its arrival: {told(self.times)}", *takeovers, *comebacks]

    @property
    def objections(self) -> list[str]:
        """What is wrong, in words; [] where nothing is."""
        found = [
            f"{len(those)} {what}: {', '.join(those[:5])}"
            for what, those in (
                ("answered with 250 and lost", self.lost),
                ("still in the queue", self.stuck),
                ("arrived more often than is on record", self.unexplained),
                ("ended otherwise than delivered", self.damaged),
                ("sent by a node whose time was over", self.strays),
            )
            if those
        ]
        found += [
            f"{one.claims} claims of {one.node} ({one.fault}) were put back after {one.took:.1f} s,"
            f" at most {one.bound:.1f}"
            for one in self.late
        ]
        found += [
            f"{one.node} took no mail any more, or sent none, after it was {one.fault}"
            for one in self.comebacks
            if math.isinf(one.takes + one.sends)
        ]
        return found if self.answered else ["nothing was answered with 250", *found]


class Books:
    """Filled by senders, peers, faults and the relays' events; `verdict` compares them.

    `answered` is when each recipient had its 250, and from whom; `unknown` are those whose answer never came, and which
    may arrive.
    """

    def __init__(self) -> None:
        self.answered: dict[str, Answer] = {}
        self.unknown: set[str] = set()
        self.refused = 0
        self.arrivals: dict[str, list[Arrival]] = {}
        self.takeovers: list[Takeover] = []
        self.records: Counter[str] = Counter()
        self.ended: dict[str, str] = {}
        self.interrupted = 0
        self._told: dict[str, list[str]] = {}
        self._silences: list[tuple[str, float, float]] = []
        self._ends: list[tuple[str, str, float]] = []

    def yes(self, recipients: Iterable[str], at: float, node: str) -> None:
        """A node has answered for these."""
        for recipient in recipients:
            self.answered[recipient] = Answer(at, node)

    def came(self, recipient: str, at: float, node: str) -> None:
        """A peer takes a message for this one, whether or not its answer is heard."""
        self.arrivals.setdefault(recipient, []).append(Arrival(at, node))

    def happened(self, events: Iterable[Event]) -> None:
        """Take what the relays themselves say has happened."""
        for event in events:
            if event.recipient:
                told = f"{event.of} {event.kind} on {event.node} at {event.at:.3f}"
                self._told.setdefault(event.recipient, []).append(told)
            self.interrupted += event.kind == "interrupted"
            if event.kind == "interrupted" or (event.outcome is not None and event.outcome.may_duplicate):
                self.records[event.recipient] += 1
            if event.kind in ("returned", "discarded", "dropped", "damaged"):
                self.ended[event.recipient] = event.kind

    def silent(self, node: str, since: float, until: float) -> None:
        """In this time a node may have sent nothing: its claims were others' by then."""
        self._silences.append((node, since, until))

    def over(self, fault: str, node: str, at: float) -> None:
        """What befell a node is over: from now on it should take mail and send it as before."""
        self._ends.append((fault, node, at))

    @property
    def missing(self) -> list[str]:
        """What was answered for and has not arrived."""
        return [one for one in self.answered if one not in self.arrivals]

    def times(self) -> list[float]:
        """Seconds from its 250 to its first arrival, of each that has both."""
        both = ((yes, self.arrivals[one][0]) for one, yes in self.answered.items() if one in self.arrivals)
        return [max(0.0, arrival.at - yes.at) for yes, arrival in both]

    def verdict(self, left: Iterable[str]) -> Verdict:
        """Compare what was answered with what became of it; `left` is what the queue still has."""
        stuck = set(left)
        copies = {one: len(those) - 1 for one, those in self.arrivals.items() if len(those) > 1}
        return Verdict(
            answered=len(self.answered),
            refused=self.refused,
            unknown=len(self.unknown),
            arrived=len(self.arrivals),
            copies=sum(copies.values()),
            on_record=sum(self.records[one] for one in copies),
            lost=tuple(one for one in self.missing if one not in stuck),
            stuck=tuple(stuck),
            unexplained=tuple(
                f"{one} ({self._story(one)})" for one, more in copies.items() if more > self.records[one]
            ),
            damaged=tuple(f"{one} ({kind})" for one, kind in self.ended.items()),
            strays=tuple(
                f"{recipient} (by {node} at {one.at:.3f}, which was to be silent from {since:.3f} on)"
                for node, since, until in self._silences
                for recipient, arrivals in self.arrivals.items()
                for one in arrivals
                if one.node == node and since < one.at < until
            ),
            late=tuple(one for one in self.takeovers if one.is_late),
            comebacks=tuple(self._comebacks()),
            takeovers=tuple(self.takeovers),
            times=tuple(self.times()),
            interrupted=self.interrupted,
        )

    def _comebacks(self) -> Iterable[Comeback]:
        arrivals = [one for those in self.arrivals.values() for one in those]
        for fault, node, at in self._ends:
            takes, sends = (
                min((one.at - at for one in those if one.node == node and one.at >= at), default=math.inf)
                for those in (self.answered.values(), arrivals)
            )
            yield Comeback(node, fault, takes, sends)

    def _story(self, recipient: str) -> str:
        """When each copy of a message came and by whom, and what is on record of it."""
        arrivals = self.arrivals[recipient]
        copies = ", ".join(f"by {one.node} at {one.at:.3f}" for one in arrivals)
        record = ", ".join(self._told.get(recipient, []))
        return f"{copies}; on record {self.records[recipient]}: {record or 'nothing at all'}"


def told(times: Sequence[float]) -> str:
    """The middle, the 95th of a hundred and the longest, in words."""
    if len(times) < 2:
        return "none"
    p95 = statistics.quantiles(times, n=20)[-1]
    return f"p50 {statistics.median(times):.2f} s, p95 {p95:.2f} s, longest {max(times):.1f} s"
