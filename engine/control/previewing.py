"""What would go if something ended: answers the dry runs of mark-good, resume, end-override and release-rule."""

from engine.control import asking, views
from engine.control.asking import Missing
from engine.control.judging import Judge
from engine.control.relay import Relay
from engine.model.destination import RELAY
from engine.model.message import Selection
from engine.model.order import Ending


class Previewing:
    """Counts what an end would let go, before it is asked for; nothing is changed.

    Raises Wrong for what cannot be asked, Missing where there is nothing to end, QueueError where the store fails.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def good(self, ask: views.MarkGood) -> Selection:
        """What waits for a host alone: its other exchanges are bad, too, or there are none."""
        name = asking.host(ask.host)
        if self._relay.mx.mark(name) is None:
            raise not_bad(name)
        return await self._lets_go("mark", name)

    async def resume(self, ask: views.Resume) -> Selection:
        """What waits in a suspended destination, or in all of them, and is kept by no other suspension."""
        name = asking.destination(ask.destination)
        if all(one.destination != name for one in await self._relay.queue.standing.suspensions()):
            raise not_suspended(name)
        return await self._lets_go("suspension", name)

    async def end(self, ask: views.EndOverride) -> Selection:
        """What waits in a destination that is sent elsewhere: the end of that makes it due."""
        name = asking.destination(ask.destination)
        if await self._relay.queue.standing.override(name) is None:
            raise not_overridden(name)
        return await self._lets_go("override", name)

    async def release_rule(self, ask: views.ReleaseRule) -> Selection:
        """What a hold rule holds, and no other rule names."""
        number = asking.counted(ask.rule, "rule") or 0
        if all(one.id != number for one in await self._relay.queue.standing.rules()):
            raise no_rule(number)
        return await self._lets_go("rule", str(number))

    async def _lets_go(self, ending: Ending, name: str) -> Selection:
        found = await self._relay.queue.listing.lets_go(ending, name)
        return Judge(self._relay).selection(found)


def not_bad(host: str) -> Missing:
    """There is no mark to end."""
    return Missing(f"{host} is not marked bad", where="host")


def not_suspended(destination: str) -> Missing:
    """There is no suspension to end."""
    named = "the relay" if destination == RELAY else destination
    return Missing(f"{named} is not suspended", where="destination")


def not_overridden(destination: str) -> Missing:
    """There is no override to end."""
    return Missing(f"{destination} is not overridden", where="destination")


def no_rule(number: int) -> Missing:
    """There is no hold rule to end."""
    return Missing(f"there is no hold rule {number} in force", where="rule")
