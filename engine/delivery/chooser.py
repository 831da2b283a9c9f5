"""Which sites are served next, when there are more than can be.

Those that have proved themselves go by whose turn it was longest ago; those that have not share out their turns
between senders and messages (see engine.delivery.turns). Where both wait for the next connection, each has every
other one.
"""

from collections.abc import Collection
from itertools import chain, zip_longest

from msgspec import Struct
from msgspec.structs import replace

from engine.delivery.capacity import Capacity
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.sites import Sites
from engine.delivery.turns import Flow, in_fair_turn
from engine.model.claim import DueSite
from engine.queue.contract import Queue

YIELDED_KEPT = 1000  # sites that gave up a connection for others


class Chosen(Struct, frozen=True):
    """A site to serve, and for whom: `flow` where it has not proved itself."""

    due: DueSite
    flow: Flow | None = None


class Chooser:
    """Asks the queue what is due, and puts it in the order in which it is to be served."""

    def __init__(self, queue: Queue, sites: Sites, capacity: Capacity) -> None:
        self._queue = queue
        self._sites = sites
        self._capacity = capacity
        self._yielded: set[str] = set()
        self._doubtful_first = False

    def yielded(self, site: str) -> None:
        """A site has given up a connection for others: they come first, once."""
        if len(self._yielded) < YIELDED_KEPT:
            self._yielded.add(site)

    def served(self, chosen: Chosen) -> None:
        """A site was served: where there is one connection for two, the next is for one of the other kind."""
        self._doubtful_first = not chosen.due.is_in_doubt

    async def next(
        self, limit: int, closed: set[str], busy: set[str], live: Collection[ManagedRelayer]
    ) -> list[Chosen]:
        """Up to `limit` sites but those `closed`; those that have a busy connection come last. Raises QueueError."""
        last = busy | self._yielded
        found = await self._some(limit, closed | last, live)
        if last and len(found) < limit:
            self._yielded.clear()
            found += await self._some(limit - len(found), closed | {chosen.due.site for chosen in found}, live)
        return found

    async def _some(self, limit: int, without: set[str], live: Collection[ManagedRelayer]) -> list[Chosen]:
        may_doubt = self._capacity.on_doubt(live) is None
        failing = {site.name for site in self._sites.failing()}
        left_out = without if may_doubt else without | failing
        proved = [
            Chosen(replace(due, is_in_doubt=True) if due.site in failing else due)
            for due in await self._queue.claims.due_sites(limit, left_out, with_doubtful=False)
        ]
        doubtful: list[Chosen] = []
        if may_doubt:
            taken = self._capacity.shares(live)
            due = await self._queue.claims.doubtful_sites(without | {chosen.due.site for chosen in proved}, taken)
            served = [relayer.flow for relayer in live if relayer.flow is not None and relayer.is_doubtful]
            doubtful = [Chosen(site, flow) for site, flow in in_fair_turn(due, served)][:limit]
        first, second = (doubtful, proved) if self._doubtful_first else (proved, doubtful)
        return [chosen for chosen in chain.from_iterable(zip_longest(first, second)) if chosen is not None][:limit]
