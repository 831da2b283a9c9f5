"""Sites: what is known of each, by name, for a bounded number of them: what is forgotten begins anew, with few."""

from collections import OrderedDict
from collections.abc import Collection, Iterator

from engine.base.kept import Kept
from engine.delivery.capacity import Capacity
from engine.delivery.limits import Limiting
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.site import Common, Site
from engine.delivery.turns import Flow
from engine.model.claim import Room
from engine.model.destination import unknown_site

KEPT = 10_000  # sites, besides those with connections; destinations whose site is remembered
RESTED = 600.0  # seconds without a connection, after which a site begins anew
CAUTIOUS = 900.0  # seconds after the whole relay was resumed, in which every site begins with one connection


class Sites:
    """Gives a site by its name, and answers for all of them together where mail may go now."""

    def __init__(self, common: Common, capacity: Capacity, *, kept: int = KEPT) -> None:
        common.get = self.get
        self._common = common
        self._limits = common.limits
        self._clock = common.clock
        self._capacity = capacity
        self._kept = kept
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._ruled: dict[str, Site] = {}
        self._places = Kept[str, str](kept)  # the site of each destination served lately
        self._cautious_until = 0.0

    def __len__(self) -> int:
        return len(self._sites)

    # -- which ----------------------------------------------------------------------------------------------------

    def get(self, name: str, domain: str = "", hosts: tuple[str, ...] = ()) -> Site:
        """The site of this name; what is not known of its limits yet is learned from its domain and its hosts."""
        site = self._sites.get(name)
        now = self._clock.now()
        if site is None:
            site = self._sites[name] = Site(name, self._common)
            if now < self._cautious_until:
                site.come_back()
        self._sites.move_to_end(name)
        if not site.connections and now - site.last_used > RESTED:
            site.window = min(site.window, self._common.initial(name))
        if hosts:
            site.host = hosts[0]
        if hosts or not site.rules:
            site.learn(self._limits.of(domain, hosts))
            if site.rules:
                self._ruled[name] = site
            else:
                self._ruled.pop(name, None)
        self._forget_some()
        return site

    def of_way(self, destination: str, site: str, hosts: tuple[str, ...]) -> Site:
        """The site that a destination's mail has, given what its hosts make, and which they are."""
        is_own = self._limits.name(destination)
        return self.get(self._common.name_of(destination, site), destination if is_own else "", hosts)

    def of_due(self, name: str, destination: str) -> Site:
        """The site that the queue names for a destination."""
        is_its_own = name == unknown_site(destination) or self._limits.name(destination)
        return self.get(name, destination if is_its_own else "")

    def known(self, name: str) -> Site | None:
        """The site of this name, if anything is known of it."""
        return self._sites.get(name)

    def at(self, destination: str, name: str = "") -> Site:
        """The site of a destination; of one not served since the start only the limits that name it are known.

        `name` is what the queue has for it; "": the one it was served under. Nothing is remembered for the question.
        """
        place = name or self._places.get(destination, unknown_site(destination))
        found = self.known(place)
        if found is None:
            found = Site(place, self._common)
            found.window = self._common.terms.most
            found.rules = self._limits.of(destination, ())  # it is not one of theirs
        return found

    def place(self, destination: str, site: str) -> None:
        """Remember under which site a destination was served."""
        self._places[destination] = site

    def displace(self, destination: str) -> None:
        """Where a destination was served counts no more, nor that there was no way to it."""
        self._places.pop(destination, None)
        if site := self.known(unknown_site(destination)):
            site.unblock()

    def forget(self, name: str) -> None:
        """Forget a site, unless it has connections."""
        site = self._sites.get(name)
        if site is not None and not site.connections:
            del self._sites[name]
            site.learn(())
            for some in (self._common.blocked, self._common.failing, self._ruled):
                some.pop(name, None)

    def _forget_some(self) -> None:
        looked = 0
        while len(self._sites) > self._kept and looked < len(self._sites):
            looked += 1
            name = next(iter(self._sites))
            if self._sites[name].connections:
                self._sites.move_to_end(name)
            else:
                self.forget(name)

    # -- how they fare --------------------------------------------------------------------------------------------

    def failing(self) -> Iterator[Site]:
        """The sites that were left alone because they failed, and have taken no mail since."""
        yield from list(self._common.failing.values())

    def blocked(self) -> Iterator[Site]:
        """The sites that are left alone now."""
        for site in list(self._common.blocked.values()):
            if site.is_blocked:
                yield site
            else:
                del self._common.blocked[site.name]

    def all_come_back(self) -> None:
        """The whole relay begins anew: each site with one connection."""
        self._cautious_until = self._clock.now() + CAUTIOUS
        for site in self._sites.values():
            site.come_back()

    def clock_was_set_back(self) -> None:
        """What lasts until a time would last for longer than it was to: it ends now. The store's blocks stand."""
        self._common.unblock_all()
        self._cautious_until = min(self._cautious_until, self._clock.now() + CAUTIOUS)
        for site in self._sites.values():
            site.clock_was_set_back()

    # -- where mail may go ----------------------------------------------------------------------------------------

    def on_mail(
        self, site: Site, live: Collection[ManagedRelayer], *, is_in_doubt: bool = False, flow: Flow | None = None
    ) -> tuple[Limiting, ...]:
        """All that keeps waiting mail of a site from going now; () when nothing does. It is what `room` says of it.

        An idle connection takes it although no other may be opened.
        """
        flow = flow if is_in_doubt else None
        is_in_doubt = is_in_doubt or site.is_failing
        found = [site.on_messages()]
        if not site.has_idle:
            on_relay = self._capacity.on_beginning(live, is_in_doubt=is_in_doubt, flow=flow)
            found += [site.on_connections(), on_relay]
        elif is_in_doubt:
            found.append(self._capacity.on_doubt(live, flow))
        return tuple(limit for limit in found if limit is not None)

    def room(self, live: Collection[ManagedRelayer]) -> Room:
        """To which sites mail may go now: those for which `on_mail` has nothing to say."""
        idle = {relayer.site.name for relayer in live if relayer.is_idle}
        looked_at = {site.name: site for site in self.blocked()}
        looked_at.update(self._ruled)
        looked_at.update((relayer.site.name, relayer.site) for relayer in live)
        closed = {
            name
            for name, site in looked_at.items()
            if site.on_messages() or (name not in idle and site.on_connections())
        }
        may_doubt = self._capacity.on_doubt(live) is None
        if not may_doubt:
            closed.update(site.name for site in self.failing())
        return Room(
            closed=frozenset(closed),
            only=None if self._capacity.places(live) else frozenset(idle),
            with_doubtful=may_doubt,
            taken=self._capacity.shares(live),
        )

    def closed(self, live: Collection[ManagedRelayer]) -> set[str]:
        """Names of sites that can neither have a connection now nor have an idle one that may be used."""
        closed = {site.name for site in self.blocked()}
        for site in (*self._ruled.values(), *(relayer.site for relayer in live)):
            if site.on_messages() or (site.on_connections() and not site.has_idle):
                closed.add(site.name)
        # What was called has not taken its mail yet: for the same mail no other connection is opened.
        return closed | {relayer.site.name for relayer in live if relayer.is_called}

    def endings(self) -> list[float]:
        """When what keeps mail from going ends by itself, as far as the queue does not know of it."""
        limiting = [site.blocked for site in self.blocked()]
        for site in self._ruled.values():
            limiting += filter(None, (site.on_messages(), site.on_connections()))
        return [limit.until for limit in limiting if limit.until is not None]
