"""Capacity: the connections and the look-ups of the whole relay, and who may have how many of them.

A relayer begins with looking up its way, and holds no connection before it has found it: look-ups have a bound of
their own, so that a name server which does not answer costs look-ups, and no connections. Destinations that have not
proved themselves (they took no mail lately, failed since, or keep us waiting now) share half of the connections and
half of the look-ups, and no sender, message or registered domain has all of these halves.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from msgspec import Struct

from engine.base.clock import Clock
from engine.delivery.limits import Limiting
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.turns import Flow
from engine.model.claim import Shares

# Seconds for which a look-up keeps the connection that it leads to: most take less, and are not to find it gone; those
# that take longer must not keep it from others.
PLACE_KEPT = 1.0


def who_of(flow: Flow, taken: Shares) -> str:
    """Who of a flow has all that one may have, or ""."""
    if flow.message in taken.messages:
        return f"message {flow.message}"
    if flow.domain in taken.domains:
        return f"{flow.domain}, with the names below it,"
    return (flow.sender or "the null sender") if flow.sender in taken.senders else ""


class Half(Struct, frozen=True):
    """What of the connections, or of the look-ups, is for destinations that have not proved themselves."""

    setting: str
    what: str
    all: int

    @property
    def size(self) -> int:
        """Half of them."""
        return max(1, self.all // 2)

    @property
    def of_one(self) -> int:
        """For one message, and for all names below one registered domain: a quarter of that half."""
        return max(1, -(-self.size // 4))

    @property
    def of_sender(self) -> int:
        """For one sender, who may be the only one: three quarters of it."""
        return max(1, -(-3 * self.size // 4))

    def used_up(self) -> Limiting:
        """What is said where all of it is in use."""
        text = f"the {self.size} of {self.all} {self.what} for destinations that have not proved themselves are in use"
        return Limiting(self.setting, None, text)

    def shares(self, relayers: Iterable[ManagedRelayer]) -> Shares:
        """Who has all that one may have, given who uses it."""
        flows = [relayer.flow for relayer in relayers if relayer.flow is not None]
        messages, domains = Counter(flow.message for flow in flows), Counter(flow.domain for flow in flows)
        senders = Counter(flow.sender for flow in flows)
        return Shares(
            messages=frozenset(message for message, count in messages.items() if count >= self.of_one),
            domains=frozenset(domain for domain, count in domains.items() if count >= self.of_one),
            senders=frozenset(sender for sender, count in senders.items() if count >= self.of_sender),
        )

    def on_flow(self, flow: Flow, shares: Shares) -> Limiting | None:
        """What keeps a flow from having more of it."""
        who = who_of(flow, shares)
        text = f"{who} has its share of the {self.what} for destinations that have not proved themselves"
        return Limiting(self.setting, None, text) if who else None


class Capacity:
    """Answers by the settings and the clock, for `live` relayers; changes nothing."""

    def __init__(self, clock: Clock, *, max_connections: int, max_lookups: int) -> None:
        self._clock = clock
        self.connections = Half("delivery.max_connections", "connections", max_connections)
        self.lookups = Half("delivery.max_lookups", "look-ups", max_lookups)

    def keeps_place(self, relayer: ManagedRelayer) -> bool:
        """Whether a relayer has a connection, or has begun just now to look for its way to one."""
        return relayer.is_admitted or self._clock.now() < relayer.started + PLACE_KEPT

    def places(self, live: Collection[ManagedRelayer]) -> int:
        """How many more relayers may begin."""
        looking = sum(not relayer.is_admitted for relayer in live)
        return max(0, min(self.connections.all - sum(map(self.keeps_place, live)), self.lookups.all - looking))

    def is_taken(self, live: Collection[ManagedRelayer]) -> bool:
        """Whether every connection is in use, or kept for somebody."""
        return sum(map(self.keeps_place, live)) >= self.connections.all

    def is_full(self, live: Collection[ManagedRelayer]) -> bool:
        """Whether every connection is in use, and none is only kept for a look-up, which may not need it."""
        return sum(relayer.is_admitted for relayer in live) >= self.connections.all

    def on_beginning(
        self, live: Collection[ManagedRelayer], *, is_in_doubt: bool, flow: Flow | None = None
    ) -> Limiting | None:
        """What keeps the relay from beginning with one more destination, of whatever site, for this flow."""
        if self.is_taken(live):
            return Limiting(self.connections.setting, None, f"all {self.connections.all} connections are in use")
        if sum(not relayer.is_admitted for relayer in live) >= self.lookups.all:
            return Limiting(self.lookups.setting, None, f"all {self.lookups.all} look-ups are under way")
        return self.on_doubt(live, flow) if is_in_doubt else None

    def on_doubt(self, live: Collection[ManagedRelayer], flow: Flow | None = None) -> Limiting | None:
        """What keeps one more destination from being tried that has not proved itself; None: for whatever flow."""
        for half, users in self._halves(live):
            if len(users) >= half.size:
                return half.used_up()
            if flow is not None and (limiting := half.on_flow(flow, half.shares(users))):
                return limiting
        return None

    def on_admission(self, relayer: ManagedRelayer, live: Collection[ManagedRelayer]) -> Limiting | None:
        """What keeps a relayer that has found its way from having a connection now.

        A quick one has its place kept; one whose look-up took long must not take what is kept for another.
        """
        others = [
            other for other in live if other is not relayer and (other.is_admitted or not self.keeps_place(relayer))
        ]
        others = [other for other in others if self.keeps_place(other)]
        if len(others) >= self.connections.all:
            return Limiting(self.connections.setting, None, f"all {self.connections.all} connections are in use")
        doubtful = [other for other in others if other.is_doubtful]
        if not relayer.is_in_doubt:
            return None
        if len(doubtful) >= self.connections.size:
            return self.connections.used_up()
        shares = self.connections.shares(doubtful)
        return self.connections.on_flow(relayer.flow, shares) if relayer.flow is not None else None

    def shares(self, live: Collection[ManagedRelayer]) -> Shares:
        """Who has all that one may have, of connections or of look-ups."""
        found = [half.shares(users) for half, users in self._halves(live)]
        return Shares(
            messages=frozenset().union(*(shares.messages for shares in found)),
            senders=frozenset().union(*(shares.senders for shares in found)),
            domains=frozenset().union(*(shares.domains for shares in found)),
        )

    def in_use(self, live: Collection[ManagedRelayer]) -> list[str]:
        """Which of its bounds are reached, in sentences."""
        found = []
        for half, users in self._halves(live):
            used = sum(relayer.is_admitted == (half is self.connections) for relayer in live)
            if used >= half.all and len(users) == used:
                found.append(f"all {half.all} {half.what} are held by destinations that have not proved themselves")
            elif used >= half.all:
                found.append(f"all {half.all} {half.what} are in use")
            elif len(users) >= half.size:
                found.append(half.used_up().text)
        return found

    def _halves(self, live: Collection[ManagedRelayer]) -> tuple[tuple[Half, list[ManagedRelayer]], ...]:
        """Who uses connections, and who look-ups, for destinations that have not proved themselves.

        A look-up that takes long is one of these, whatever its destination has proved.
        """
        connected = [relayer for relayer in live if relayer.is_doubtful and self.keeps_place(relayer)]
        looking = [
            relayer
            for relayer in live
            if not relayer.is_admitted and (relayer.is_in_doubt or not self.keeps_place(relayer))
        ]
        return (self.connections, connected), (self.lookups, looking)
