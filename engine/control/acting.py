"""What can be asked: the operator's verbs, each with who asked, bounded, and answered with exactly what it did."""

from functools import partial

import msgspec

from engine.base.duration import format_duration
from engine.base.plural import agree, plural
from engine.control import asking, showing, views
from engine.control.asking import Missing, Wrong
from engine.control.followups import FollowUps
from engine.control.judging import Judge
from engine.control.previewing import not_bad, not_suspended
from engine.control.relay import Relay, afterwards
from engine.model.destination import RELAY, Suspension
from engine.model.event import Event
from engine.model.message import Selection
from engine.model.order import Changed, Touched


class Acting:
    """Carries out what operators ask of a relay. `by` is who asks.

    Raises Wrong for what cannot be asked, Missing where nothing matches, QueueError where the store fails.
    """

    def __init__(self, relay: Relay, followups: FollowUps) -> None:
        self._relay = relay
        self._followups = followups

    async def check(self, by: str) -> views.ResultView:
        """Run check_state now; what it opens goes on by itself."""
        relay = self._relay
        if relay.smarthost.draining:
            raise Wrong("the relay is draining: it opens no new connections before it is started anew", status=409)
        before = {one.id for one in relay.smarthost.managed}
        await relay.smarthost.check_state()
        opened = sum(one.id not in before for one in relay.smarthost.managed)
        found = f"{plural(opened, 'new connection')}, {len(relay.smarthost.managed)} open in all"
        await relay.queue.arrivals.record(Event(at=relay.clock.now(), kind="checked", by=by, text=found))
        text = f"checked: {found}"
        suspension = next((one for one in await relay.queue.standing.suspensions() if one.destination == RELAY), None)
        if suspension is not None:
            text += f"; the relay is suspended for another {self._left(suspension.until)}, by {suspension.by}"
        return views.ResultView(verb="check", text=text)

    async def select(self, ask: views.Action) -> Selection:
        """What an action would touch."""
        named = asking.filter_of(ask.filter)
        found = await self._relay.queue.listing.select(named, asking.counted(ask.newest, "newest"))
        return Judge(self._relay).selection(found)

    async def act(self, verb: views.Verb, ask: views.Action, by: str) -> views.ResultView:
        """Retry, hold, release, bounce or drop what the filter names."""
        if verb == "bounce" or verb == "drop":
            return await self._give_up(verb, ask, by)
        queue = self._relay.queue
        named, newest = asking.filter_of(ask.filter), asking.counted(ask.newest, "newest")
        touched, follow = Touched(), 0
        smarthost = self._relay.smarthost
        if verb == "retry":
            changed = await afterwards(queue.orders.retry(named, by, newest, touched), smarthost.let_go)
            follow = self._followups.begin("retry", by, touched)
            did, not_so = "due now", "held, being relayed, or due already"
        elif verb == "hold":
            changed = await queue.orders.hold(named, by, asking.reason(ask.reason), newest)
            did, not_so = "held until released", "held already"
        else:
            changed = await afterwards(queue.orders.release(named, by, newest, touched), smarthost.wake)
            follow = self._followups.begin("release", by, touched)
            did, not_so = "released, to be sent when due", "not held"
        _something(changed, ask.filter)
        return showing.result(verb, changed, _told(changed, did, not_so), follow)

    async def undo(self, ask: views.Undo, by: str) -> views.ResultView:
        """Take back a bounce or drop, as far as it was not carried out yet."""
        operation = asking.counted(ask.operation, "operation") or 0
        changed = await afterwards(self._relay.queue.orders.undo(operation, by), self._relay.smarthost.wake)
        if not changed.recipients:
            raise Missing(f"of operation {operation} nothing is left to undo", where="operation")
        return showing.result("undo", changed, _told(changed, "back as before", "carried out already"))

    async def suspend(self, ask: views.Suspend, by: str) -> views.ResultView:
        """Open no new connections to a destination, or none at all, for a while."""
        name = asking.destination(ask.destination)
        lasting = asking.seconds(ask.seconds)
        now = self._relay.clock.now()
        await self._relay.queue.standing.suspend(
            Suspension(destination=name, since=now, until=now + lasting, by=by, reason=asking.reason(ask.reason))
        )
        self._relay.smarthost.wake()
        managed = self._relay.smarthost.managed
        still = sum(name in (RELAY, one.destination) for one in managed)
        text = f"{_named(name)} is suspended for {format_duration(lasting)}: no new connection is opened"
        if still:
            text += f"; {plural(still, 'open connection')} will end by {'itself' if still == 1 else 'themselves'}"
        return views.ResultView(verb="suspend", text=text)

    async def resume(self, ask: views.Resume, by: str) -> views.ResultView:
        """End a suspension."""
        name = asking.destination(ask.destination)
        smarthost, resuming = self._relay.smarthost, self._relay.queue.standing.resume(name, by)
        if not await afterwards(resuming, partial(smarthost.resumed, name)):
            raise not_suspended(name)
        return views.ResultView(verb="resume", text=f"{_named(name)} is resumed: connections are opened again")

    async def mark_bad(self, ask: views.MarkBad, by: str) -> views.ResultView:
        """Leave a host out for a while."""
        name = asking.host(ask.host)
        lasting = None if ask.seconds is None else asking.seconds(ask.seconds)
        marking = self._relay.mx.mark_bad(name, seconds=lasting, reason=asking.reason(ask.reason), by=by)
        mark = await afterwards(marking, partial(self._relay.smarthost.abandon, name))
        return views.ResultView(
            verb="mark-bad", text=f"{name} is marked bad for {self._left(mark.until)}: it is left out until then"
        )

    async def mark_good(self, ask: views.MarkGood, by: str) -> views.ResultView:
        """Use a host again, and let go the mail it held back."""
        name = asking.host(ask.host)
        if self._relay.mx.mark(name) is None:
            raise not_bad(name)
        waited = sum(held.waiting for held in await self._relay.queue.listing.held_back([name]))
        touched = Touched()
        await afterwards(self._relay.mx.mark_good(name, by=by, touched=touched), self._relay.smarthost.let_go)
        follow = self._followups.begin("mark-good", by, touched)
        goes = (
            f"{plural(waited, 'recipient')} that waited for it {agree(waited, 'is', 'are')} due now"
            if waited
            else "no mail waited for it"
        )
        return views.ResultView(
            verb="mark-good", text=f"{name} is used again; {goes}", recipients=waited, follow=follow
        )

    async def _give_up(self, verb: views.GivingUp, ask: views.Action, by: str) -> views.ResultView:
        relay = self._relay
        named, newest = asking.filter_of(ask.filter), asking.counted(ask.newest, "newest")
        wait = 0.0 if ask.now else relay.settings.console.undo
        ordering = relay.queue.orders.give_up(verb, named, by, asking.reason(ask.reason), wait, newest)
        changed = await afterwards(ordering, relay.smarthost.wake)
        _something(changed, ask.filter)
        done = "returned" if verb == "bounce" else "dropped"
        when = f"in {format_duration(wait)}" if wait else "now"
        did = f"to be returned to the sender {when}" if verb == "bounce" else f"to be dropped {when}, telling nobody"
        unless = f", unless undone (operation {changed.operation})" if wait else ""
        text = _told(changed, did + unless, f"being relayed, or to be {done} already")
        follow = changed.operation
        if not wait:
            changed = msgspec.structs.replace(changed, operation=0)  # by then there is nothing left to undo
        return showing.result(verb, changed, text, follow)

    def _left(self, until: float) -> str:
        return format_duration(max(0.0, round(until - self._relay.clock.now())))


def _something(changed: Changed, filter: str) -> None:
    if not changed.recipients and not changed.skipped:
        raise Missing("no message in the queue matches", where=filter or "filter")


def _told(changed: Changed, did: str, not_so: str) -> str:
    """What an action did and left: the exact counts in words."""
    as_before = "as it was" if changed.skipped == 1 else "as they were"
    left = f"{plural(changed.skipped, 'recipient')} left {as_before}: {not_so}"
    if not changed.recipients:
        return f"nothing changed; {left}"
    named = f"{plural(changed.recipients, 'recipient')} of {plural(changed.messages, 'message')}"
    told = f"{named} {agree(changed.recipients, 'is', 'are')} {did}"
    return f"{told}; {left}" if changed.skipped else told


def _named(destination: str) -> str:
    return "the relay" if destination == RELAY else destination
