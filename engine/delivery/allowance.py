"""What may go to a site now, and what keeps the rest: its limits, its window, and the life of a connection."""

from collections.abc import Collection

from engine.base.clock import Clock
from engine.delivery.capacity import Capacity
from engine.delivery.limits import Limiting
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.sites import Site, Sites
from engine.delivery.turns import Flow
from engine.model.claim import Room

_SETTING = "delivery.max_connections_per_destination"


class Allowance:
    """Answers by the settings and the clock, for `live` relayers; changes nothing."""

    def __init__(
        self,
        sites: Sites,
        clock: Clock,
        capacity: Capacity,
        *,
        max_connections_per_destination: int,
        max_messages_per_connection: int,
        connection_lifetime: float,
    ) -> None:
        self._sites = sites
        self._clock = clock
        self._capacity = capacity
        self._most = max_connections_per_destination
        self._per_connection = max_messages_per_connection
        self._lifetime = connection_lifetime

    def on_messages(self, site: Site) -> Limiting | None:
        """What keeps messages from being sent to a site, over whatever connection."""
        if site.blocked_until > self._clock.now():
            return site.blocked
        return next(filter(None, (rule.on_messages() for rule in site.rules)), None)

    def on_connections(
        self, site: Site, live: Collection[ManagedRelayer], *, but: ManagedRelayer | None = None
    ) -> Limiting | None:
        """What keeps a site from having one more connection, if `but` is not counted."""
        if limiting := site.limiting(self._most, _SETTING, self._clock.now(), but=but):
            return limiting
        for rule in site.rules:
            open_now = sum(rule in self._sites.get(one.site).rules for one in live if one is not but)
            if limiting := rule.on_new_connections(open_now):
                return limiting
        return None

    def on_mail(
        self, site: Site, live: Collection[ManagedRelayer], *, is_in_doubt: bool = False, flow: Flow | None = None
    ) -> tuple[Limiting, ...]:
        """All that keeps waiting mail of a site from going now; () when nothing does. It is what `room` says of it.

        An idle connection takes it although no other may be opened.
        """
        flow = flow if is_in_doubt else None
        is_in_doubt = is_in_doubt or site.is_failing
        found = [self.on_messages(site)]
        if not any(one.is_idle for one in site.connections):
            on_relay = self._capacity.on_beginning(live, is_in_doubt=is_in_doubt, flow=flow)
            found += [self.on_connections(site, live), on_relay]
        elif is_in_doubt:
            found.append(self._capacity.on_doubt(live, flow))
        return tuple(one for one in found if one is not None)

    def room(self, live: Collection[ManagedRelayer]) -> Room:
        """To which sites mail may go now: those for which `on_mail` has nothing to say."""
        idle = {relayer.site for relayer in live if relayer.is_idle}
        looked_at = {site.name: site for site in self._sites.blocked()}
        looked_at.update((site.name, site) for site in self._sites.ruled())
        looked_at.update((one.site, self._sites.get(one.site)) for one in live)
        closed = {
            name
            for name, site in looked_at.items()
            if self.on_messages(site) or (name not in idle and self.on_connections(site, live))
        }
        may_doubt = self._capacity.on_doubt(live) is None
        if not may_doubt:
            closed.update(site.name for site in self._sites.failing())
        return Room(
            closed=frozenset(closed),
            only=None if self._capacity.places(live) else frozenset(idle),
            with_doubtful=may_doubt,
            taken=self._capacity.shares(live),
        )

    def closed(self, live: Collection[ManagedRelayer]) -> set[str]:
        """Names of sites that can neither have a connection now nor have an idle one that may be used."""
        closed = {site.name for site in self._sites.blocked()}
        for site in (*self._sites.ruled(), *(self._sites.get(relayer.site) for relayer in live)):
            if self.on_messages(site) or (
                self.on_connections(site, live) and not any(one.is_idle for one in site.connections)
            ):
                closed.add(site.name)
        # What was called has not taken its mail yet: for the same mail no other connection is opened.
        return closed | {relayer.site for relayer in live if relayer.is_called}

    def endings(self, live: Collection[ManagedRelayer]) -> list[float]:
        """When what keeps mail from going ends by itself, as far as the queue does not know of it."""
        limiting = [site.blocked for site in self._sites.blocked()]
        for site in self._sites.ruled():
            limiting += filter(None, (self.on_messages(site), self.on_connections(site, live)))
        return [one.until for one in limiting if one.until is not None]

    def messages_left(self, relayer: ManagedRelayer, site: Site) -> int:
        """How many messages a relayer may still take; none when its time is over or it is one too many."""
        now = self._clock.now()
        if relayer.age >= self._lifetime:
            return 0
        # Those opened last are the ones too many.
        if site.connections.index(relayer) >= site.allowed(self._most, now):
            return 0
        return self.per_connection(site) - relayer.taken

    def per_connection(self, site: Site) -> int:
        """How many messages one connection to a site carries in its life."""
        set_for_it = (rule.setting.messages_per_connection for rule in site.rules)
        return min(filter(None, set_for_it), default=self._per_connection)

    def end_of(self, relayer: ManagedRelayer) -> float:
        """When a connection is to take no more, by the clock as it is set now."""
        return self._clock.now() + self._lifetime - relayer.age
