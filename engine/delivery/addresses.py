"""The addresses of a way, and what its hosts demand, before a connection is asked for.

What a name server does with our time must cost nobody a connection, so all that an attempt may try is looked up
beforehand, and nothing is looked up while there is one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from engine.delivery.routes import Router, Way
from engine.dns.mx import Exchange, LookupFailed, MXError
from engine.smtpclient.target import Target

LOOKUP = 60.0  # seconds for the way of a destination, its policies and its addresses
WITH_OTHERS = 2.0  # seconds for the way of one of several destinations, while a connection or their mail waits for it
_FOR_THE_REST = 1.0  # seconds for further hosts, once there is an address to try


class Found(dict[str, "Sequence[Target] | MXError"]):
    """By host: its addresses in the order to try, or why there are none."""

    @property
    def has_targets(self) -> bool:
        """Whether there is anything to connect to."""
        return any(addresses for addresses in self.values() if not isinstance(addresses, MXError))

    def of(self, exchange: Exchange) -> Sequence[Target]:
        """The addresses of a host. Raises MXError."""
        found = self.get(exchange.host)
        if found is None:
            raise LookupFailed(f"the addresses of {exchange.host} were not found in time")
        if isinstance(found, MXError):
            raise found
        return found


async def find(router: Router, way: Way, *, most: int, seconds: float, put_off: Callable[[str], bool]) -> Found:
    """The addresses of a way's hosts, best first, until there is enough for an attempt that tries `most` of them.

    That is half of them of either family, of hosts that are not `put_off` (see Candidates). Once there is one address
    the others must be had soon: a second host whose name server is silent keeps no mail from the first. Raises
    QueueError.
    """
    found = Found()
    family: Counter[bool] = Counter()
    half = most - most // 2
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with asyncio.timeout(seconds) as bound:
            for exchange in way.exchanges:
                if min(family[False], family[True]) >= half:
                    break
                try:
                    targets = [target async for target in router.targets(way, exchange)]
                except MXError as error:
                    found[exchange.host] = error
                    continue
                if targets and not found.has_targets:
                    bound.reschedule(min(begun + seconds, loop.time() + _FOR_THE_REST))
                found[exchange.host] = targets
                if not put_off(exchange.host):
                    family.update(":" in target.address for target in targets)
    except TimeoutError:
        pass
    return found
