"""Admission: a relayer that has found its way becomes one of its site's, and has a connection, or is told why not."""

from collections.abc import Collection

from engine.base.clock import Clock
from engine.delivery.capacity import Capacity
from engine.delivery.limits import Limiting
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.routes import Way
from engine.delivery.sites import Sites
from engine.model.destination import unknown_site
from engine.queue.contract import Queue


class Admission:
    """Counts relayers among those of their sites. What a refused one is told ends when a connection or a time does.

    `check_interval`: for so many seconds what nobody's end would wake is left alone.
    """

    def __init__(
        self,
        queue: Queue,
        sites: Sites,
        capacity: Capacity,
        clock: Clock,
        *,
        check_interval: float,
    ) -> None:
        self._queue = queue
        self._sites = sites
        self._capacity = capacity
        self._clock = clock
        self._check_interval = check_interval

    async def admit(self, relayer: ManagedRelayer, way: Way, live: Collection[ManagedRelayer]) -> str:
        """Count a relayer among those of its site, now that it is known; or say why it is not to connect now.

        What it is to give back is left to those the site has, or waits until a limit allows more. Raises QueueError.
        """
        came_from = relayer.site
        known = came_from.rules
        site = self._sites.of_way(way.destination, way.site, way.hosts)
        self._sites.place(way.destination, site.name)
        # What is known only now counts for what was claimed before it was known.
        rates = [rule for rule in site.rules if rule not in known and rule.messages is not None]
        most = min([site.per_connection, *(rule.messages.available for rule in rates if rule.messages)])
        await relayer.bag.keep(max(most, 1), "a limit of its site allows fewer")
        if relayer.is_in_doubt and not site.is_failing and await self._queue.claims.proves(site.name):
            relayer.is_in_doubt = False
        # From here on nothing is waited for: of two that come at once the second finds the first.
        if site is not came_from:
            came_from.leave(relayer)
            site.join(relayer)
            relayer.site = site
            if came_from.is_coming_back:
                site.come_back()
            if came_from.name == unknown_site(way.destination):
                self._sites.forget(came_from.name)
        limiting = site.blocked if site.is_blocked else None
        limiting = limiting or next(filter(None, (rule.on_messages() for rule in rates)), None)
        for rule in rates:
            if rule.messages is not None:
                rule.messages.take(len(relayer.answers_for))
        limiting = limiting or site.on_connections(but=relayer)
        if limiting is None and site.has_idle:
            limiting = Limiting("idle", None, "a connection of its site is idle")  # which the next check calls
        if limiting is None and (full := self._capacity.on_admission(relayer, live)):
            return f"{full.name}: {full.text}"  # whose connection ends wakes it
        if limiting is None:
            site.dials()
            return ""
        if limiting.name == "blocked" or all(connection is relayer for connection in site.connections):
            # Nobody's end will wake it: it waits for its time, or for the next check.
            soon = self._clock.now() + self._check_interval
            until = soon if limiting.until is None else limiting.until
            until = until if limiting.name == "blocked" else min(soon, until)
            for destination in {claim.destination for claim in relayer.answers_for.values()}:
                await self._queue.standing.block(destination, until, limiting.text, failed=False)
        return f"{limiting.name}: {limiting.text}"
