"""Sites: destinations whose exchanges are the same hosts share connections, and what is known of how many go well.

A site begins with few connections and gets more as it delivers; it loses some when it says that they are too many, and
all but one when none works. What comes back after that comes back with one, then 2, 4, 8. All of it is in memory, for
a bounded number of sites: what is forgotten begins anew, with few.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from engine.base.clock import Clock
from engine.base.plural import plural
from engine.delivery.limits import Limiting, Limits, Rule
from engine.model.destination import unknown_site

KEPT = 10_000  # sites, besides those with connections; destinations whose site is remembered
CEILING = 600.0  # seconds for which a number of connections that was too many is not tried again
RESTED = 600.0  # seconds without a connection, after which a site begins anew
CAUTIOUS = 900.0  # seconds after the whole relay was resumed, in which every site begins with one connection


class Connection(Protocol):
    """What a site needs to know of a connection to it."""

    @property
    def is_admitted(self) -> bool: ...
    @property
    def is_established(self) -> bool: ...
    @property
    def is_idle(self) -> bool: ...
    @property
    def has_delivered(self) -> bool: ...


class Site:
    """One site: how many connections it may have (`window`) and why; whether it is left alone, and until when."""

    def __init__(self, name: str, initial: int) -> None:
        self.name = name
        self.host = ""  # the best
        self.rules: tuple[Rule, ...] = ()
        self.connections: list[Connection] = []
        self.window = initial
        self.is_coming_back = False
        self.is_failing = False  # it was left alone, and has taken no mail since
        self.failures = 0
        self.blocked_until = 0.0
        self.blocked_why = ""
        self.last_used = 0.0
        self._successes = 0
        self._ceiling = 0
        self._ceiling_until = 0.0
        self._ceiling_why = ""
        self._is_ceiling_doubted = False

    # -- how many -------------------------------------------------------------------------------------------------

    def allowed(self, most: int, now: float) -> int:
        """How many connections it may have now, given the setting that bounds them."""
        allowed = min(self.window, self._bound(most))
        return min(allowed, self._ceiling) if now < self._ceiling_until else allowed

    def limiting(self, most: int, setting: str, now: float, *, but: Connection | None = None) -> Limiting | None:
        """What keeps it from having one more connection, if `but` is not counted; None when nothing does."""
        others = [one for one in self.connections if one is not but]
        count = len(others)
        if count >= self.allowed(most, now):
            return self._why_not_more(count, most, setting, now)
        if count and not any(one.is_established for one in others):
            return Limiting("connecting", None, "the first connection is not established yet")
        return None

    def _bound(self, most: int) -> int:
        return min((rule.setting.connections for rule in self.rules if rule.setting.connections), default=most)

    def _why_not_more(self, count: int, most: int, setting: str, now: float) -> Limiting:
        bound = self._bound(most)
        if self.is_coming_back:
            return Limiting("coming back", None, "one connection goes first; more follow when it has delivered")
        if now < self._ceiling_until and self._ceiling <= min(self.window, bound):
            text = f"no more than {_connections(self._ceiling)} for a while: {self._ceiling_why}"
            return Limiting("adaptive concurrency", self._ceiling_until, text)
        if bound <= self.window:
            named = next(
                (rule.name("connections") for rule in self.rules if rule.setting.connections == bound), setting
            )
            return Limiting(named, None, f"{count} of {bound} open")
        text = f"{count} of {self.window} open; more follow as they deliver"
        return Limiting("delivery.initial_connections", None, text)

    # -- how it goes ----------------------------------------------------------------------------------------------

    def delivered(self, most: int, now: float) -> bool:
        """Count a delivery; True when one more connection may be opened than before.

        The number doubles once all connections have delivered: what is not in use proves nothing.
        """
        self.failures = 0
        self.last_used = now
        before = self.allowed(most, now)
        if self.is_coming_back:
            self.is_coming_back = False
            self.window, self._successes = 2, 0
        elif len(self.connections) >= before and self.window <= before:
            self._successes += 1
            if self._successes >= self.window:
                self.window, self._successes = min(2 * self.window, max(self._bound(most), 1)), 0
        return self.allowed(most, now) > before

    def shrink(
        self, others: int, why: str, now: float, *, by_half: bool, seconds: float = CEILING, is_doubted: bool = False
    ) -> None:
        """A connection too many, while `others` go on: keep to those, or to half of them, for a while.

        `is_doubted`: it may have ended for another reason, and `is_cleared` says that it has.
        """
        keep = max(1, others // 2 if by_half else others)
        if now < self._ceiling_until:
            keep = min(keep, self._ceiling)
        self.window = min(self.window, keep)
        self._successes = 0
        self._is_ceiling_doubted = is_doubted and (self._is_ceiling_doubted or now >= self._ceiling_until)
        self._ceiling, self._ceiling_until, self._ceiling_why = keep, now + seconds, why

    def is_cleared(self) -> None:
        """What made a doubted ceiling was not that there were too many connections."""
        if self._is_ceiling_doubted:
            self._ceiling_until = 0.0

    def clock_was_set_back(self, now: float) -> None:
        """Keep to a ceiling for no longer than one lasts."""
        self._ceiling_until = min(self._ceiling_until, now + CEILING)
        self.last_used = min(self.last_used, now)

    def come_back(self) -> None:
        """Begin with one connection, unless there are some that work."""
        if not any(one.has_delivered for one in self.connections):
            self.begin_with_one()

    def begin_with_one(self) -> None:
        """Let one connection go first; more follow when it has delivered."""
        self.is_coming_back = True
        self.window, self._successes = 1, 0

    @property
    def blocked(self) -> Limiting:
        """Why it is left alone."""
        return Limiting("blocked", self.blocked_until, self.blocked_why)


class Sites:
    """What is known of each site, by name."""

    def __init__(self, limits: Limits, clock: Clock, *, initial: int, kept: int = KEPT) -> None:
        self._limits = limits
        self._clock = clock
        self._initial = initial
        self._kept = kept
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._blocked: dict[str, Site] = {}
        self._ruled: dict[str, Site] = {}
        self._failing: dict[str, Site] = {}
        self._places: OrderedDict[str, str] = OrderedDict()  # the site of each destination served lately
        self._cautious_until = 0.0

    def __len__(self) -> int:
        return len(self._sites)

    def get(self, name: str, domain: str = "", hosts: tuple[str, ...] = ()) -> Site:
        """The site of this name; what is not known of its limits yet is learned from its domain and its hosts."""
        site = self._sites.get(name)
        now = self._clock.now()
        if site is None:
            site = self._sites[name] = Site(name, self._initial)
            site.last_used = now
            if now < self._cautious_until:
                site.come_back()
        self._sites.move_to_end(name)
        if not site.connections and now - site.last_used > RESTED:
            site.window = min(site.window, self._initial)
        if hosts:
            site.host = hosts[0]
        if hosts or not site.rules:
            site.rules = self._limits.of(domain, hosts)
            if site.rules:
                self._ruled[name] = site
            else:
                self._ruled.pop(name, None)
        self._forget_some()
        return site

    def name_of(self, destination: str, site: str) -> str:
        """The name of the site that a destination's mail has; one with a limit of its own has its own connections."""
        return f"{destination}: {site}" if self._limits.name(destination) else site

    def of_way(self, destination: str, site: str, hosts: tuple[str, ...]) -> Site:
        """The site that a destination's mail has, given what its hosts make, and which they are."""
        is_own = self._limits.name(destination)
        return self.get(self.name_of(destination, site), destination if is_own else "", hosts)

    def known(self, name: str) -> Site | None:
        """The site of this name, if anything is known of it."""
        return self._sites.get(name)

    def place(self, destination: str, site: str) -> None:
        """Remember under which site a destination was served."""
        self._places[destination] = site
        self._places.move_to_end(destination)
        if len(self._places) > self._kept:
            self._places.popitem(last=False)

    def place_of(self, destination: str) -> str:
        """Under which site a destination was served last."""
        return self._places.get(destination, unknown_site(destination))

    def displace(self, destination: str) -> None:
        """Where a destination was served counts no more."""
        self._places.pop(destination, None)

    def forget(self, name: str) -> None:
        """Forget a site, unless it has connections."""
        site = self._sites.get(name)
        if site is not None and not site.connections:
            del self._sites[name]
            self._blocked.pop(name, None)
            self._ruled.pop(name, None)
            self._failing.pop(name, None)

    def block(self, site: Site, until: float, why: str, *, failed: bool = True) -> None:
        """Leave a site alone until then; it comes back with one connection, and in doubt if it `failed`."""
        site.blocked_until, site.blocked_why = until, why
        if failed:
            site.is_failing = True
            self._failing[site.name] = site
        self._blocked[site.name] = site
        site.begin_with_one()

    def unblock(self, site: Site) -> bool:
        """End that; False when it was not left alone."""
        site.blocked_until = 0.0
        return self._blocked.pop(site.name, None) is not None

    def proved(self, site: Site) -> None:
        """It has taken mail."""
        site.is_failing = False
        self._failing.pop(site.name, None)

    def failing(self) -> Iterator[Site]:
        """The sites that were left alone because they failed, and have taken no mail since."""
        yield from list(self._failing.values())

    def unblock_all(self) -> None:
        """An operator, or a host that answers, has let something go: what is still blocked is so in the store."""
        for site in list(self._blocked.values()):
            self.unblock(site)

    def clock_was_set_back(self) -> None:
        """What lasts until a time would last for longer than it was to: it ends now. The store's blocks stand."""
        self.unblock_all()
        self._cautious_until = min(self._cautious_until, self._clock.now() + CAUTIOUS)
        for site in self._sites.values():
            site.clock_was_set_back(self._clock.now())

    def all_come_back(self) -> None:
        """The whole relay begins anew: each site with one connection."""
        self._cautious_until = self._clock.now() + CAUTIOUS
        for site in self._sites.values():
            site.come_back()

    def blocked(self) -> Iterator[Site]:
        """The sites that are left alone now."""
        now = self._clock.now()
        for site in list(self._blocked.values()):
            if site.blocked_until > now:
                yield site
            else:
                del self._blocked[site.name]

    def ruled(self) -> Iterator[Site]:
        """The sites for which the settings have a limit."""
        yield from list(self._ruled.values())

    def _forget_some(self) -> None:
        looked = 0
        while len(self._sites) > self._kept and looked < len(self._sites):
            looked += 1
            name = next(iter(self._sites))
            if self._sites[name].connections:
                self._sites.move_to_end(name)
            else:
                self.forget(name)


def _connections(count: int) -> str:
    return f"{plural(count, 'connection')}"
