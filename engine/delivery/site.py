"""A site: destinations whose exchanges are the same hosts share connections, and what is known of how mail goes there.

It owns how many connections it may have now and why, what is left of its limits, who has a connection, and whether it
is left alone. It begins with few connections and gets more as it delivers; it loses some when it says that they are
too many, and all but one when none works. What comes back after that comes back with one, then 2, 4, 8.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from msgspec import Struct

from engine.base.clock import Clock
from engine.base.plural import plural
from engine.delivery.limits import Limiting, Limits, Rule, told_of_share
from engine.delivery.pause import Pause
from engine.delivery.retry import RetryPlan
from engine.model.claim import Claim
from engine.model.destination import unknown_site
from engine.model.event import Event
from engine.model.outcome import Cause, Outcome
from engine.queue.contract import Queue
from engine.smtpclient.blame import Blame

log = logging.getLogger(__name__)

CEILING = 600.0  # seconds for which a number of connections that was too many is not tried again
PAUSE = 30.0  # seconds; for a site that took mail and then hung up, or met a fault of ours
LONGEST_BLOCK = 900.0  # seconds; a site that cannot be reached is tried again at least this often

_SETTING = "delivery.max_connections_per_destination"


class Terms(Struct, frozen=True, kw_only=True):
    """What the settings say of the connections to any site: how many, how many messages each, for how long.

    `initial` and `most` are connections, `per_connection` messages; `lifetime` and `idle` are seconds.
    """

    initial: int = 2
    most: int = 20
    per_connection: int = 100
    lifetime: float = 300.0
    idle: float = 2.0


class Connection(Protocol):
    """What a site needs to know of a relayer that carries mail to it."""

    id: int
    destination: str
    host: str
    is_in_doubt: bool

    @property
    def taken(self) -> int: ...
    @property
    def answers_for(self) -> Mapping[tuple[int, str], Claim]: ...
    @property
    def age(self) -> float: ...
    @property
    def is_admitted(self) -> bool: ...
    @property
    def is_established(self) -> bool: ...
    @property
    def is_idle(self) -> bool: ...
    @property
    def has_delivered(self) -> bool: ...


class Common:
    """What all sites share: the settings, the store, the clock; which of them are left alone, or fail; and each other.

    `wake` has the smart host look soon whether more mail may go, `get` gives a site by its name (see engine.delivery.
    sites). `pause` is for faults of this machine, `live` are the connections to all sites.
    """

    get: Callable[[str, str], "Site"]

    def __init__(
        self,
        queue: Queue,
        clock: Clock,
        retries: RetryPlan,
        limits: Limits,
        terms: Terms,
        *,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits = limits
        self.queue = queue
        self.clock = clock
        self.retries = retries
        self.terms = terms
        self.wake = wake
        self.pause = Pause(clock)
        self.blocked: dict[str, Site] = {}
        self.failing: dict[str, Site] = {}
        self.live: dict[Connection, None] = {}

    def initial(self, name: str) -> int:
        """How many connections a site gets at first, from this node: each may find out whether it takes mail."""
        return max(1, self.limits.share().of(self.terms.initial, name))

    def most(self, name: str) -> int:
        """How many connections a site may have, from this node."""
        return self.limits.share().of(self.terms.most, name)

    def unblock_all(self) -> None:
        """An operator, or a host that answers, has let something go: what is still blocked is so in the store."""
        for site in list(self.blocked.values()):
            site.unblock()

    def name_of(self, destination: str, site: str) -> str:
        """The name of the site that a destination's mail has; one with a limit of its own has its own connections."""
        return f"{destination}: {site}" if self.limits.name(destination) else site


class Site:
    """One site, by the `name` that the queue has for it; `host` is its best. All of it but blocks is in memory."""

    def __init__(self, name: str, common: Common) -> None:
        self.name = name
        self.host = ""
        self.rules: tuple[Rule, ...] = ()
        self.connections: list[Connection] = []
        self.window = common.initial(name)
        self.is_coming_back = False
        self.is_failing = False  # it was left alone, and has taken no mail since
        self.failures = 0
        self.blocked_until = 0.0
        self.blocked_why = ""
        self.last_used = common.clock.now()
        self._common = common
        self._successes = 0
        self._ceiling = 0
        self._ceiling_until = 0.0
        self._ceiling_why = ""
        self._is_ceiling_doubted = False

    # -- who is there ---------------------------------------------------------------------------------------------

    def learn(self, rules: tuple[Rule, ...]) -> None:
        """These are its limits."""
        for rule in self.rules:
            rule.open.difference_update(self.connections)
        self.rules = rules
        for rule in rules:
            rule.open.update(self.connections)

    def join(self, connection: Connection) -> None:
        """Somebody carries mail to it, or looks for the way."""
        self.connections.append(connection)
        self._common.live[connection] = None
        for rule in self.rules:
            rule.open.add(connection)

    def leave(self, connection: Connection) -> None:
        """He does no more."""
        self.connections.remove(connection)
        self._common.live.pop(connection, None)
        for rule in self.rules:
            rule.open.discard(connection)
        self.last_used = self._common.clock.now()

    def others(self, connection: Connection) -> list[Connection]:
        """The other connections: what still looks for its way to it has none."""
        return [other for other in self.connections if other is not connection and other.is_admitted]

    def is_served_beside(self, connection: Connection) -> bool:
        """Whether other connections to it deliver."""
        return any(other.has_delivered for other in self.others(connection))

    def is_tried_by_another(self, host: str, connection: Connection) -> bool:
        """Whether another connection, to whatever site, is to this host."""
        return any(other.host == host for other in self._common.live if other is not connection)

    def name_of(self, destination: str, site: str) -> str:
        """The name of the site that a destination's mail has, given what its exchanges make."""
        return self._common.name_of(destination, site)

    def is_of(self, destination: str, site: str) -> bool:
        """Whether that is this one."""
        return self.name_of(destination, site) == self.name

    @property
    def has_idle(self) -> bool:
        """Whether a connection to it waits for mail."""
        return any(connection.is_idle for connection in self.connections)

    # -- what it may have -----------------------------------------------------------------------------------------

    @property
    def is_blocked(self) -> bool:
        """Whether it is left alone now."""
        return self.blocked_until > self._common.clock.now()

    @property
    def blocked(self) -> Limiting:
        """Why it is left alone."""
        return Limiting("blocked", self.blocked_until, self.blocked_why)

    def on_messages(self) -> Limiting | None:
        """What keeps messages from being sent to it, over whatever connection."""
        if self.is_blocked:
            return self.blocked
        return next(filter(None, (rule.on_messages() for rule in self.rules)), None)

    def on_connections(self, *, but: Connection | None = None) -> Limiting | None:
        """What keeps it from having one more connection, if `but` is not counted; None when nothing does."""
        others = [connection for connection in self.connections if connection is not but]
        if len(others) >= self.allowed:
            return self._why_not_more(len(others))
        if others and not any(other.is_established for other in others):
            return Limiting("connecting", None, "the first connection is not established yet")
        for rule in self.rules:
            if limiting := rule.on_new_connections(rule.open_but(but)):
                return limiting
        return None

    @property
    def allowed(self) -> int:
        """How many connections it may have now."""
        allowed = min(self.window, self._bound)
        return min(allowed, self._ceiling) if self._common.clock.now() < self._ceiling_until else allowed

    @property
    def per_connection(self) -> int:
        """How many messages one connection carries in its life."""
        set_for_it = (rule.setting.messages_per_connection for rule in self.rules)
        return min(filter(None, set_for_it), default=self._common.terms.per_connection)

    def messages_left(self, connection: Connection) -> int:
        """How many messages a connection may still take; none when its time is over or it is one too many."""
        if connection.age >= self._common.terms.lifetime:
            return 0
        # Those opened last are the ones too many.
        if self.connections.index(connection) >= self.allowed:
            return 0
        return self.per_connection - connection.taken

    def idle_until(self, connection: Connection) -> float | None:
        """How long a connection that has run dry may be kept; None: it is to end at once."""
        terms, now = self._common.terms, self._common.clock.now()
        if terms.idle <= 0 or self.messages_left(connection) <= 0:
            return None
        return min(now + terms.idle, now + terms.lifetime - connection.age)

    def may_dial(self) -> bool:
        """Whether a relayer may open one more connection than the one it was admitted for."""
        return all(rule.connections.available for rule in self.rules if rule.connections is not None)

    def dials(self) -> None:
        """Count a connection; what was not available is owed."""
        for rule in self.rules:
            if rule.connections is not None:
                rule.connections.take(1)

    def returned(self, count: int) -> None:
        """So many messages that were claimed for it were not sent: they count for no limit."""
        for rule in self.rules:
            if rule.messages is not None:
                rule.messages.give_back(count)

    @property
    def _bound(self) -> int:
        most = self._common.most(self.name)
        return min((rule.most for rule in self.rules if rule.most is not None), default=most)

    def _why_not_more(self, count: int) -> Limiting:
        bound = self._bound
        if self.is_coming_back:
            return Limiting("coming back", None, "one connection goes first; more follow when it has delivered")
        if self._common.clock.now() < self._ceiling_until and self._ceiling <= min(self.window, bound):
            text = f"no more than {plural(self._ceiling, 'connection')} for a while: {self._ceiling_why}"
            return Limiting("adaptive concurrency", self._ceiling_until, text)
        if bound <= self.window:
            rule = next((rule for rule in self.rules if rule.most == bound), None)
            named = rule.name("connections") if rule is not None else _SETTING
            of_all = self._common.terms.most if rule is None else rule.setting.connections or bound
            return Limiting(named, None, told_of_share(count, bound, of_all))
        text = f"{count} of {self.window} open; more follow as they deliver"
        return Limiting("delivery.initial_connections", None, text)

    # -- how it goes ----------------------------------------------------------------------------------------------

    def established(self) -> None:
        """It can be reached: it may have further connections now."""
        self._common.wake()

    async def delivered(self, connection: Connection) -> None:
        """It takes mail: what failed before counts no more, and it may have more connections. Raises QueueError.

        Those of its destinations that were left alone with it come back with it.
        """
        was_coming_back = self.is_coming_back
        self.proved()
        if self.grow():
            self._common.wake()
        if was_coming_back or connection.is_in_doubt:
            connection.is_in_doubt = False
            self.unblock()
            await self._common.queue.standing.unblock_site(self.name)
            # Those of which nothing waits any more are not among them.
            await self._common.queue.standing.unblock(_carried(connection))

    async def unreachable(
        self, connection: Connection, outcome: Outcome, *, until: float | None = None, pause: bool = False
    ) -> None:
        """No session could be had, or it broke: leave it alone, longer with each failure in a row. Raises QueueError.

        `until`: not before then, where that is known; `pause`: only briefly, since it did take mail. Where other
        connections go on, it has only one less, or half of them.
        """
        now = self._common.clock.now()
        if until is None and self.is_served_beside(connection):
            self.shrink(len(self.others(connection)), outcome.line, by_half=connection.is_established)
            return
        failed = until is None and not pause
        if until is not None:
            # Not longer than this, whatever a mark says: it may be ended, and the MX may have changed.
            until = min(until, now + LONGEST_BLOCK)
        else:
            until = now + PAUSE if pause else self.next_try(connection.destination)
        await self.block(until, outcome.line, [connection.destination], failed=failed, cause=outcome.cause)
        await self._tell_unreachable(connection.destination, outcome)

    async def faulted(self, connection: Connection, outcome: Outcome, *, seconds: float = PAUSE) -> None:
        """A fault of ours, or of the store, has ended a relayer: nothing of the site has failed. Raises QueueError.

        It rests for a moment, so that a fault that comes again and again does not turn in place.
        """
        log.error("relayer %d to %s: %s", connection.id, connection.destination, outcome.text)
        self._common.pause.tell(outcome.text)
        await self.rest(connection, outcome.text, seconds=seconds)

    async def rest(self, connection: Connection, why: str, *, seconds: float = PAUSE) -> None:
        """Rest for a moment, or make do with the connections but this one: nothing has failed. Raises QueueError."""
        until = self._common.clock.now() + seconds
        if others := self.others(connection):
            self.shrink(len(others), why, by_half=False, seconds=seconds)
        elif self.blocked_until < until:
            await self.block(until, why, _carried(connection), failed=False)

    def cut_short(self, connection: Connection, outcome: Outcome, *, is_usual: bool) -> None:
        """A host has ended a session between two messages: the next may begin at once.

        `is_usual`: after as many as it is known to take. Where it said 421 while others go on, they may be too many,
        until it is seen that it always does so.
        """
        if is_usual:
            self._is_cleared()
        elif outcome.code == 421 and self.is_served_beside(connection):
            self.shrink(len(self.others(connection)), outcome.line, by_half=True, is_doubted=True)

    def host_is_back(self) -> None:
        """A host that was marked bad has answered: mail may wait for it at any site, and the store has unblocked it."""
        self._common.unblock_all()
        self._common.wake()

    def works(self) -> None:
        """A host was reached, or turned us away: what this machine lacked is there again."""
        if self._common.pause.limiting is not None:
            self._common.wake()
        self._common.pause.works()

    def is_ours(self, blamed: Blame, outcome: Outcome) -> bool:
        """Note a fault of this machine. Whether no connection is opened for a moment, and the mail waits untried."""
        return self._common.pause.met(blamed, outcome.text, self.name)

    # -- left alone -----------------------------------------------------------------------------------------------

    async def block(
        self, until: float, why: str, destinations: Collection[str], *, failed: bool = True, cause: Cause = ""
    ) -> None:
        """Open no connection to it before `until`, for these destinations and all others it has. Raises QueueError.

        It comes back with one connection, and in doubt if it `failed`. `cause` is what it is about, as of an Outcome.
        """
        self.leave_alone(until, why, failed=failed)
        standing = self._common.queue.standing
        await standing.block_site(self.name, until, why, destinations, failed=failed, cause=cause)

    async def lost(self, destination: str, outcome: Outcome, *, until: float | None = None) -> None:
        """No way to one destination is to be had, whatever its site: leave it alone for a while. Raises QueueError."""
        site = self._common.get(unknown_site(destination), destination)
        failed = until is None
        until = site.next_try(destination) if until is None else min(until, self._common.clock.now() + LONGEST_BLOCK)
        await site.block(until, outcome.line, [destination], failed=failed, cause=outcome.cause)
        await self._tell_unreachable(destination, outcome)

    def leave_alone(self, until: float, why: str, *, failed: bool = True) -> None:
        """As `block`, in memory alone."""
        self.blocked_until, self.blocked_why = until, why
        self._common.blocked[self.name] = self
        if failed:
            self.is_failing = True
            self._common.failing[self.name] = self
        self.begin_with_one()

    def unblock(self) -> None:
        """End that, in memory: what is blocked in the store is ended there."""
        self.blocked_until = 0.0
        self._common.blocked.pop(self.name, None)

    def proved(self) -> None:
        """It has taken mail: it counts no more among those that fail."""
        self.is_failing = False
        self._common.failing.pop(self.name, None)

    def next_try(self, destination: str) -> float:
        """When it is to be tried again: later with each failure in a row."""
        self.failures += 1
        schedule = self._common.retries.schedule(destination)
        return self._common.clock.now() + min(schedule.interval(self.failures), LONGEST_BLOCK)

    async def _tell_unreachable(self, destination: str, outcome: Outcome) -> None:
        now = self._common.clock.now()
        await self._common.queue.arrivals.record(
            Event(at=now, kind="unreachable", destination=destination, host=outcome.host, outcome=outcome)
        )

    # -- how many -------------------------------------------------------------------------------------------------

    def grow(self) -> bool:
        """Count a delivery; True when one more connection may be opened than before.

        The number doubles once all connections have delivered: what is not in use proves nothing.
        """
        self.failures = 0
        self.last_used = self._common.clock.now()
        before = self.allowed
        if self.is_coming_back:
            self.is_coming_back = False
            self.window, self._successes = 2, 0
        elif len(self.connections) >= before and self.window <= before:
            self._successes += 1
            if self._successes >= self.window:
                self.window, self._successes = min(2 * self.window, max(self._bound, 1)), 0
        return self.allowed > before

    def shrink(
        self, others: int, why: str, *, by_half: bool, seconds: float = CEILING, is_doubted: bool = False
    ) -> None:
        """A connection too many, while `others` go on: keep to those, or to half of them, for a while.

        `is_doubted`: it may have ended for another reason, and it is seen later that it has.
        """
        now = self._common.clock.now()
        keep = max(1, others // 2 if by_half else others)
        if now < self._ceiling_until:
            keep = min(keep, self._ceiling)
        self.window = min(self.window, keep)
        self._successes = 0
        self._is_ceiling_doubted = is_doubted and (self._is_ceiling_doubted or now >= self._ceiling_until)
        self._ceiling, self._ceiling_until, self._ceiling_why = keep, now + seconds, why

    def come_back(self) -> None:
        """Begin with one connection, unless there are some that work."""
        if not any(connection.has_delivered for connection in self.connections):
            self.begin_with_one()

    def begin_with_one(self) -> None:
        """Let one connection go first; more follow when it has delivered."""
        self.is_coming_back = True
        self.window, self._successes = 1, 0

    def clock_was_set_back(self) -> None:
        """Keep to a ceiling for no longer than one lasts."""
        now = self._common.clock.now()
        self._ceiling_until = min(self._ceiling_until, now + CEILING)
        self.last_used = min(self.last_used, now)

    def _is_cleared(self) -> None:
        """What made a doubted ceiling was not that there were too many connections."""
        if self._is_ceiling_doubted:
            self._ceiling_until = 0.0


def _carried(connection: Connection) -> list[str]:
    """The destinations that a relayer is for."""
    return list(
        dict.fromkeys([connection.destination, *(claim.destination for claim in connection.answers_for.values())])
    )
