"""What can be asked of mail to come and of connections: hold rules, overrides, closing and probing; with who asked.

All of it is bounded, ends by itself or is over when answered, and is answered with exactly what it did.
"""

import asyncio
from contextlib import suppress
from functools import partial

from engine.base.duration import format_duration
from engine.base.plural import agree, plural
from engine.control import asking, views
from engine.control.asking import Missing, Wrong
from engine.control.previewing import no_rule, not_overridden
from engine.control.relay import Relay, afterwards
from engine.dns.lookups import MXError
from engine.model.destination import RELAY, Override
from engine.model.event import Event
from engine.model.order import MOST_RULES
from engine.model.probe import Probed

ADDRESSES_SECONDS = 4.0  # for the DNS to say where a host is that mail is to be sent to


class Steering:
    """Carries out what operators ask. `by` is who asks.

    Raises Wrong for what cannot be asked, Missing where nothing matches, QueueError where the store fails.
    """

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def hold_rule(self, ask: views.HoldRule, by: str) -> views.ResultView:
        """Hold what a filter names, waiting or still to come, for a while."""
        named, lasting = asking.rule(ask.filter), asking.seconds(ask.seconds)
        queue = self._relay.queue
        in_force = await queue.standing.rules()
        if len(in_force) >= MOST_RULES and all(one.filter != str(named) for one in in_force):
            text = f"there are {MOST_RULES} hold rules already, each looked at for every message that comes in"
            raise Wrong(text, where="filter", allowed="release one first", status=409)
        until = self._relay.clock.now() + lasting
        adding = queue.standing.add_rule(named, until, by, asking.reason(ask.reason))
        rule = await afterwards(adding, self._relay.smarthost.wake)  # it may let go what another one held
        held = f"; it holds {plural(rule.holding, 'recipient')} now" if rule.holding else ""
        text = f"hold rule {rule.id}: {rule.filter} is held when it comes in, for {format_duration(lasting)}{held}"
        return views.ResultView(verb="hold-rule", text=text, recipients=rule.holding, operation=0)

    async def release_rule(self, ask: views.ReleaseRule, by: str) -> views.ResultView:
        """End a hold rule and let go what it held."""
        number = asking.counted(ask.rule, "rule") or 0
        freed = await afterwards(self._relay.queue.standing.end_rule(number, by), self._relay.smarthost.wake)
        if freed is None:
            raise no_rule(number)
        text = (
            f"hold rule {number} has ended; {plural(freed, 'recipient')} that it held {agree(freed, 'goes', 'go')} on"
        )
        return views.ResultView(verb="release-rule", text=text, recipients=freed)

    async def override(self, ask: views.Override, by: str) -> views.ResultView:
        """Send a destination's mail to a host instead of its exchanges, for a while."""
        name = _destination(ask.destination)
        host, port = asking.host_and_port(ask.to, "to")
        await self._refuse_ourselves(host, port)
        lasting, now = asking.seconds(ask.seconds), self._relay.clock.now()
        override = Override(
            destination=name,
            host=host,
            port=port,
            since=now,
            until=now + lasting,
            by=by,
            reason=asking.reason(ask.reason),
        )
        waiting = (await self._relay.queue.listing.destination(name)).waiting
        setting = self._relay.queue.standing.set_override(override)
        await afterwards(setting, partial(self._relay.smarthost.redirected, name))
        text = f"mail for {name} goes to {override.to} for {format_duration(lasting)}"
        if waiting:
            wait, are = agree(waiting, "waits", "wait"), agree(waiting, "is", "are")
            text += f"; {plural(waiting, 'recipient')} that {wait} {are} due now"
        return views.ResultView(verb="override", text=text, recipients=waiting)

    async def _refuse_ourselves(self, host: str, port: int) -> None:
        """Raise Wrong where the host is this relay. What the DNS does not say now is found out when mail goes there."""
        why = f"{host} is our name" if host == self._relay.settings.hostname.lower() else ""
        with suppress(MXError, TimeoutError):
            async with asyncio.timeout(ADDRESSES_SECONDS):
                why = why or await self._relay.router.ours(host, port)
        if why:
            allowed = "a host, or HOST:PORT, where another takes mail"
            raise Wrong(f"this is this relay itself: {why}; mail would come back to us", where="to", allowed=allowed)

    async def end_override(self, ask: views.EndOverride, by: str) -> views.ResultView:
        """End an override: the destination's mail goes its own way again."""
        name = _destination(ask.destination)
        ending = self._relay.queue.standing.end_override(name, by)
        ended = await afterwards(ending, partial(self._relay.smarthost.redirected, name))
        if ended is None:
            raise not_overridden(name)
        text = f"mail for {name} goes its own way again, no longer to {ended.to}"
        return views.ResultView(verb="end-override", text=text)

    async def close(self, ask: views.Close, by: str) -> views.ResultView:
        """End one connection; what it carried goes back to waiting, and its destination rests for a moment."""
        number = asking.counted(ask.relayer, "relayer") or 0
        smarthost, now = self._relay.smarthost, self._relay.clock.now()
        closed = await smarthost.close(number, by)
        if closed is None:
            gone = any(one.id == number for one in smarthost.ended)
            raise Missing(
                f"relayer {number} has ended already" if gone else f"there is no relayer {number}", where="relayer"
            )
        left = max(0, closed.taken - closed.done)
        text = f"relayer {number} to {closed.host or closed.destination} is closed: {closed.result or 'it is ending'}"
        told = f"after {plural(closed.done, 'message')}"
        if left:
            told += f", {left:,} not yet written down"
        await self._relay.queue.arrivals.record(
            Event(at=now, kind="closed", by=by, destination=closed.destination, host=closed.host, text=told)
        )
        text += f", {told}; the rest waits again, and {closed.destination} rests for a moment"
        return views.ResultView(verb="close", text=text)

    async def probe(self, ask: views.Probe, by: str) -> Probed:
        """Speak to a host without sending it mail, and tell what came back."""
        host, port = asking.host_and_port(ask.host)
        found = await self._relay.prober.probe(host, port)
        now = self._relay.clock.now()
        await self._relay.queue.arrivals.record(Event(at=now, kind="probed", by=by, host=host, text=found.summary))
        return found


def _destination(text: str) -> str:
    name = asking.destination(text)
    if name == RELAY:
        allowed = 'a domain; for all mail there is [[route]] domain = "*" in the settings'
        raise Wrong("the whole relay cannot be overridden", where="destination", allowed=allowed)
    return name
