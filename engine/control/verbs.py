"""The operator's verbs: each carried out with who asked, bounded, and answered with exactly what it did.

For each row of engine.model.verbs there is a method of its name. What can be asked dry is answered here with what it
would touch.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.base.duration import format_duration
from engine.base.plural import agree, plural
from engine.control import requests
from engine.control.followups import FollowUps
from engine.control.judge import Judge
from engine.control.relay import Relay, afterwards
from engine.control.requests import Missing, Wrong
from engine.dns.lookups import MXError
from engine.model import verbs
from engine.model.destination import RELAY, Suspension
from engine.model.destination import Override as Overridden
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Selection
from engine.model.order import MOST_RULES, Changed, Touched
from engine.model.probe import Probed
from engine.model.verbs import Ask, Result, verb_of

ADDRESSES_SECONDS = 4.0  # for the DNS to say where a host is that mail is to be sent to


class Verbs:
    """Carries out what operators ask of a relay. `by` is who asks.

    Raises Wrong for what cannot be asked, Missing where nothing matches or there is nothing to end, QueueError where
    the store fails.
    """

    def __init__(self, relay: Relay, followups: FollowUps) -> None:
        self._relay = relay
        self._followups = followups

    async def do(self, ask: Ask, by: str) -> Struct:
        """Carry out what is asked; what is asked dry is answered with what it would touch."""
        if (lasting := getattr(ask, "seconds", None)) is not None:
            requests.seconds(lasting)
        if isinstance(ask, verbs.DryAsk) and ask.dry_run:
            return await self.would(ask)
        method: Callable[[Any, str], Awaitable[Struct]] = getattr(self, verb_of(ask).word.replace("-", "_"))
        return await method(ask, by)

    async def would(self, ask: verbs.DryAsk) -> Selection:
        """What an ask would touch; nothing is changed. What ends something says what that lets go."""
        listing = self._relay.queue.listing
        match ask:
            case verbs.MailAsk():
                found = await listing.select(*_mail(ask), self._due_at(ask))
            case verbs.MarkGood(host=host):
                found = await listing.lets_go("mark", self._bad(host))
            case verbs.Resume(destination=destination):
                found = await listing.lets_go("suspension", await self._suspended(destination))
            case verbs.EndOverride(destination=destination):
                found = await listing.lets_go("override", await self._overridden(destination))
            case verbs.ReleaseRule(rule=rule):
                found = await listing.lets_go("rule", str(await self._in_force(rule)))
            case _:
                raise TypeError(f"{verb_of(ask).word} has no preview")
        return Judge(self._relay).selection(found)

    def _due_at(self, ask: verbs.MailAsk) -> float | None:
        """When what is asked makes mail due; None where it does not."""
        match ask:
            case verbs.Postpone(seconds=lasting):
                return self._relay.clock.now() + lasting
            case verbs.Retry():
                return self._relay.clock.now()
        return None

    # -- the relay ------------------------------------------------------------------------------------------------

    async def check(self, _: verbs.Check, by: str) -> Result:
        """Run check_state now; what it opens goes on by itself."""
        relay = self._relay
        if relay.smarthost.is_drained:
            ends = f"`smarthost undrain {relay.queue.nodes.name}` ends that"
            raise Wrong(f"this node is drained: it opens no new connections; {ends}", status=409)
        if relay.smarthost.draining:
            raise Wrong("the relay is draining: it opens no new connections before it is started anew", status=409)
        before = {relayer.id for relayer in relay.smarthost.managed}
        await relay.smarthost.check_state()
        opened = sum(relayer.id not in before for relayer in relay.smarthost.managed)
        found = f"{plural(opened, 'new connection')}, {len(relay.smarthost.managed)} open in all"
        await relay.queue.arrivals.record(Event(at=relay.clock.now(), kind="checked", by=by, text=found))
        text = f"checked: {found}"
        suspension = next(
            (suspension for suspension in await relay.queue.standing.suspensions() if suspension.destination == RELAY),
            None,
        )
        if suspension is not None:
            text += f"; the relay is suspended for another {self._left(suspension.until)}, by {suspension.by}"
        return Result(verb="check", text=text)

    # -- messages -------------------------------------------------------------------------------------------------

    async def retry(self, ask: verbs.Retry, by: str) -> Result:
        """Make messages due now."""
        named, newest = _mail(ask)
        touched = Touched()
        retrying = self._relay.queue.orders.retry(named, by, newest, touched)
        changed = await afterwards(retrying, self._relay.smarthost.let_go)
        follow = self._followups.begin("retry", by, touched)
        did = "due now"
        if changed.outlasting:
            ends = f"{agree(changed.outlasting, 'is', 'are')} given up now, unless it can be sent"
            did += f"; {changed.outlasting:,} would have been given up before, and {ends}"
        return _result(ask, changed, did, "held, being relayed, or due already", follow)

    async def postpone(self, ask: verbs.Postpone, by: str) -> Result:
        """Make messages due after a while, and not before."""
        named, newest = _mail(ask)
        lasting = ask.seconds
        until = self._relay.clock.now() + lasting
        changed = await self._relay.queue.orders.postpone(named, by, until, newest)
        did = f"postponed for {format_duration(lasting)}"
        if changed.outlasting:
            ends = f"{agree(changed.outlasting, 'is', 'are')} given up then, unless it can be sent"
            did += f"; {changed.outlasting:,} would have been given up before that, and {ends}"
        return _result(ask, changed, did, "held, being relayed, or due later already")

    async def hold(self, ask: verbs.Hold, by: str) -> Result:
        """Keep messages from being sent until released."""
        named, newest = _mail(ask)
        changed = await self._relay.queue.orders.hold(named, by, requests.note(ask.note), newest)
        return _result(ask, changed, "held until released", "held already")

    async def release(self, ask: verbs.Release, by: str) -> Result:
        """Let held messages go on."""
        named, newest = _mail(ask)
        touched = Touched()
        releasing = self._relay.queue.orders.release(named, by, newest, touched)
        changed = await afterwards(releasing, self._relay.smarthost.wake)
        follow = self._followups.begin("release", by, touched)
        return _result(ask, changed, "released, to be sent when due", "not held", follow)

    async def bounce(self, ask: verbs.Bounce, by: str) -> Result:
        """Give messages up and tell their senders."""
        return await self._give_up(ask, by, "to be returned to the sender {}", "returned")

    async def drop(self, ask: verbs.Drop, by: str) -> Result:
        """Give messages up and tell nobody."""
        return await self._give_up(ask, by, "to be dropped {}, telling nobody", "dropped")

    async def _give_up(self, ask: verbs.Bounce | verbs.Drop, by: str, did: str, done: str) -> Result:
        relay = self._relay
        named, newest = _mail(ask)
        wait = 0.0 if ask.now else relay.settings.console.undo
        verb: Literal["bounce", "drop"] = "bounce" if isinstance(ask, verbs.Bounce) else "drop"
        ordering = relay.queue.orders.give_up(verb, named, by, requests.note(ask.note), wait, newest)
        changed = await afterwards(ordering, relay.smarthost.wake)
        unless = f", unless undone (operation {changed.operation})" if wait else ""
        did = did.format(f"in {format_duration(wait)}" if wait else "now")
        follow = changed.operation
        if not wait:
            changed = replace(changed, operation=0)  # by then there is nothing left to undo
        return _result(ask, changed, did + unless, f"being relayed, or to be {done} already", follow)

    async def undo(self, ask: verbs.Undo, by: str) -> Result:
        """Take back a bounce or drop, as far as it was not carried out yet."""
        operation = requests.counted(ask.operation, "operation") or 0
        undoing = self._relay.queue.orders.undo(operation, by)
        changed = await afterwards(undoing, self._relay.smarthost.wake)
        if not changed.recipients:
            raise Missing(f"of operation {operation} nothing is left to undo", where="operation")
        return _result(ask, changed, "back as before", "carried out already")

    # -- destinations ---------------------------------------------------------------------------------------------

    async def suspend(self, ask: verbs.Suspend, by: str) -> Result:
        """Open no new connections to a destination, or none at all, for a while."""
        name = requests.destination(ask.destination)
        lasting, now = ask.seconds, self._relay.clock.now()
        await self._relay.queue.standing.suspend(
            Suspension(destination=name, since=now, until=now + lasting, by=by, note=requests.note(ask.note))
        )
        self._relay.smarthost.wake()
        managed = self._relay.smarthost.managed
        still = sum(name in (RELAY, relayer.destination) for relayer in managed)
        text = f"{_named(name)} is suspended for {format_duration(lasting)}: no new connection is opened"
        if still:
            text += f"; {plural(still, 'open connection')} will end by {'itself' if still == 1 else 'themselves'}"
        return Result(verb="suspend", text=text)

    async def resume(self, ask: verbs.Resume, by: str) -> Result:
        """End a suspension."""
        name = requests.destination(ask.destination)
        resuming = self._relay.queue.standing.resume(name, by)
        if not await afterwards(resuming, partial(self._relay.smarthost.resumed, name)):
            raise _not_suspended(name)
        return Result(verb="resume", text=f"{_named(name)} is resumed: connections are opened again")

    async def _suspended(self, destination: str) -> str:
        name = requests.destination(destination)
        if all(suspension.destination != name for suspension in await self._relay.queue.standing.suspensions()):
            raise _not_suspended(name)
        return name

    async def override(self, ask: verbs.Override, by: str) -> Result:
        """Send a destination's mail to a host instead of its exchanges, for a while."""
        relay = self._relay
        name = _one_destination(ask.destination)
        host, port = requests.host_and_port(ask.to, "to")
        await self._refuse_ourselves(host, port)
        lasting, now = ask.seconds, relay.clock.now()
        override = Overridden(
            destination=name,
            host=host,
            port=port,
            since=now,
            until=now + lasting,
            by=by,
            note=requests.note(ask.note),
        )
        waiting = (await relay.queue.listing.destination(name)).waiting
        await afterwards(relay.queue.standing.set_override(override), partial(relay.smarthost.redirected, name))
        text = f"mail for {name} goes to {override.to} for {format_duration(lasting)}"
        if waiting:
            wait, are = agree(waiting, "waits", "wait"), agree(waiting, "is", "are")
            text += f"; {plural(waiting, 'recipient')} that {wait} {are} due now"
        return Result(verb="override", text=text, recipients=waiting)

    async def _refuse_ourselves(self, host: str, port: int) -> None:
        """Raise Wrong where the host is this relay. What the DNS does not say now is found out when mail goes there."""
        why = f"{host} is our name" if host == self._relay.settings.hostname.lower() else ""
        with suppress(MXError, TimeoutError):
            async with asyncio.timeout(ADDRESSES_SECONDS):
                why = why or await self._relay.router.ours(host, port)
        if why:
            allowed = "a host, or HOST:PORT, where another takes mail"
            raise Wrong(f"this is this relay itself: {why}; mail would come back to us", where="to", allowed=allowed)

    async def end_override(self, ask: verbs.EndOverride, by: str) -> Result:
        """End an override: the destination's mail goes its own way again."""
        name = _one_destination(ask.destination)
        ending = self._relay.queue.standing.end_override(name, by)
        ended = await afterwards(ending, partial(self._relay.smarthost.redirected, name))
        if ended is None:
            raise _not_overridden(name)
        text = f"mail for {name} goes its own way again, no longer to {ended.to}"
        return Result(verb="end-override", text=text)

    async def _overridden(self, destination: str) -> str:
        name = requests.destination(destination)
        if await self._relay.queue.standing.override(name) is None:
            raise _not_overridden(name)
        return name

    # -- hosts ----------------------------------------------------------------------------------------------------

    async def mark_bad(self, ask: verbs.MarkBad, by: str) -> Result:
        """Leave a host out for a while."""
        name = requests.host(ask.host)
        lasting = ask.seconds
        marking = self._relay.mx.mark_bad(name, seconds=lasting, note=requests.note(ask.note), by=by)
        mark = await afterwards(marking, partial(self._relay.smarthost.abandon, name))
        text = f"{name} is marked bad for {self._left(mark.until)}: it is left out until then"
        return Result(verb="mark-bad", text=text)

    async def mark_good(self, ask: verbs.MarkGood, by: str) -> Result:
        """Use a host again, and let go the mail it held back."""
        name = self._bad(ask.host)
        waited = sum(held.waiting for held in await self._relay.queue.listing.held_back([name]))
        touched = Touched()
        await afterwards(self._relay.mx.mark_good(name, by=by, touched=touched), self._relay.smarthost.let_go)
        follow = self._followups.begin("mark-good", by, touched)
        goes = (
            f"{plural(waited, 'recipient')} that waited for it {agree(waited, 'is', 'are')} due now"
            if waited
            else "no mail waited for it"
        )
        return Result(verb="mark-good", text=f"{name} is used again; {goes}", recipients=waited, follow=follow)

    def _bad(self, host: str) -> str:
        name = requests.host(host)
        if self._relay.mx.mark(name) is None:
            raise requests.not_bad(name)
        return name

    async def probe(self, ask: verbs.Probe, by: str) -> Probed:
        """Speak to a host without sending it mail, and tell what came back."""
        host, port = requests.host_and_port(ask.host)
        if self._relay.colleagues.is_another(node := requests.node(ask.node)):
            return await self._relay.colleagues.probe(node, ask, by)
        found = await self._relay.prober.probe(host, port)
        now = self._relay.clock.now()
        await self._relay.queue.arrivals.record(Event(at=now, kind="probed", by=by, host=host, text=found.summary))
        return found

    # -- mail to come, and connections ----------------------------------------------------------------------------

    async def hold_rule(self, ask: verbs.HoldRule, by: str) -> Result:
        """Hold what a filter names, waiting or still to come, for a while."""
        named, lasting = requests.rule(ask.filter), ask.seconds
        standing = self._relay.queue.standing
        in_force = await standing.rules()
        if len(in_force) >= MOST_RULES and all(rule.filter != str(named) for rule in in_force):
            text = f"there are {MOST_RULES} hold rules already, each looked at for every message that comes in"
            raise Wrong(text, where="filter", allowed="release one first", status=409)
        adding = standing.add_rule(named, self._relay.clock.now() + lasting, by, requests.note(ask.note))
        rule = await afterwards(adding, self._relay.smarthost.wake)  # it may let go what another one held
        held = f"; it holds {plural(rule.holding, 'recipient')} now" if rule.holding else ""
        text = f"hold rule {rule.id}: {rule.filter} is held when it comes in, for {format_duration(lasting)}{held}"
        return Result(verb="hold-rule", text=text, recipients=rule.holding)

    async def release_rule(self, ask: verbs.ReleaseRule, by: str) -> Result:
        """End a hold rule and let go what it held."""
        number = requests.counted(ask.rule, "rule") or 0
        freed = await afterwards(self._relay.queue.standing.end_rule(number, by), self._relay.smarthost.wake)
        if freed is None:
            raise _no_rule(number)
        goes = f"{plural(freed, 'recipient')} that it held {agree(freed, 'goes', 'go')} on"
        return Result(verb="release-rule", text=f"hold rule {number} has ended; {goes}", recipients=freed)

    async def _in_force(self, rule: int) -> int:
        number = requests.counted(rule, "rule") or 0
        if all(rule.id != number for rule in await self._relay.queue.standing.rules()):
            raise _no_rule(number)
        return number

    async def close(self, ask: verbs.Close, by: str) -> Result:
        """End one connection; what it carried goes back to waiting, and its destination rests for a moment."""
        number = requests.counted(ask.relayer, "relayer") or 0
        if self._relay.colleagues.is_another(node := requests.node(ask.node)):
            return await self._relay.colleagues.close(node, ask, by)
        smarthost, now = self._relay.smarthost, self._relay.clock.now()
        closed = await smarthost.close(number, by)
        if closed is None:
            gone = any(relayer.id == number for relayer in smarthost.ended)
            raise Missing(
                f"relayer {number} has ended already" if gone else f"there is no relayer {number}", where="relayer"
            )
        left = max(0, closed.bag.taken - closed.bag.done)
        text = f"relayer {number} to {closed.host or closed.destination} is closed: {closed.result or 'it is ending'}"
        after = f"after {plural(closed.bag.done, 'message')}"
        if left:
            after += f", {left:,} not yet written down"
        await self._relay.queue.arrivals.record(
            Event(at=now, kind="closed", by=by, destination=closed.destination, host=closed.host, text=after)
        )
        text += f", {after}; the rest waits again, and {closed.destination} rests for a moment"
        return Result(verb="close", text=text)

    # -- nodes ----------------------------------------------------------------------------------------------------

    async def drain(self, ask: verbs.Drain, by: str) -> Result:
        """Have a node finish what it sends, and take and send nothing more."""
        name = await self._node(ask.node)
        if not await self._relay.queue.nodes.drain(name, by):
            raise Wrong(f"node {name} is drained already", where="node", status=409)
        self._relay.colleagues.forget()
        others = [state.name for state in await self._relay.colleagues.states() if state.is_active]
        sends = f"{' and '.join(others)} {agree(len(others), 'sends', 'send')} what waits"
        if not others:
            sends = "no other node is there to send what waits"
        text = f"node {name} is drained: it finishes what it sends, and takes and sends nothing more; {sends}"
        return Result(verb="drain", text=text)

    async def undrain(self, ask: verbs.Undrain, by: str) -> Result:
        """Have a node take and send mail again."""
        name = await self._node(ask.node)
        if not await self._relay.queue.nodes.undrain(name, by):
            raise Missing(f"node {name} is not drained", where="node")
        self._relay.colleagues.forget()
        return Result(verb="undrain", text=f"node {name} takes and sends mail again")

    async def _node(self, named: str) -> str:
        """A node that there is."""
        name, nodes = requests.node(named), self._relay.queue.nodes
        if not nodes.name:
            raise Missing("there are no nodes: the queue is this engine's alone", where="node")
        known = [state.name for state in await nodes.all()]
        if name not in known:
            raise Missing(f"there is no node {name}", where="node", allowed=", ".join(known))
        return name

    def _left(self, until: float) -> str:
        return format_duration(max(0.0, round(until - self._relay.clock.now())))


def _mail(ask: verbs.MailAsk) -> tuple[Filter, int | None]:
    """Which mail is meant, and up to which message."""
    return requests.filter_of(ask.filter), requests.counted(ask.newest, "newest")


def _result(ask: verbs.MailAsk | verbs.Undo, changed: Changed, did: str, not_so: str, follow: int = 0) -> Result:
    """What was done to messages and what was left: the exact counts, also in words. Raises Missing."""
    if isinstance(ask, verbs.MailAsk) and not changed.recipients and not changed.skipped:
        raise Missing("no message in the queue matches", where=ask.filter or "filter")
    return Result(
        verb=verb_of(ask).word,
        text=_counted(changed, did, not_so),
        messages=changed.messages,
        recipients=changed.recipients,
        skipped=changed.skipped,
        operation=changed.operation,
        undo_until=changed.due if changed.operation else None,
        follow=follow,
    )


def _counted(changed: Changed, did: str, not_so: str) -> str:
    as_before = "as it was" if changed.skipped == 1 else "as they were"
    left = f"{plural(changed.skipped, 'recipient')} left {as_before}: {not_so}"
    if not changed.recipients:
        return f"nothing changed; {left}"
    named = f"{plural(changed.recipients, 'recipient')} of {plural(changed.messages, 'message')}"
    result = f"{named} {agree(changed.recipients, 'is', 'are')} {did}"
    return f"{result}; {left}" if changed.skipped else result


def _named(destination: str) -> str:
    return "the relay" if destination == RELAY else destination


def _one_destination(text: str) -> str:
    name = requests.destination(text)
    if name == RELAY:
        allowed = 'a domain; for all mail there is [[route]] domain = "*" in the settings'
        raise Wrong("the whole relay cannot be overridden", where="destination", allowed=allowed)
    return name


def _not_suspended(destination: str) -> Missing:
    return Missing(f"{_named(destination)} is not suspended", where="destination")


def _not_overridden(destination: str) -> Missing:
    return Missing(f"{destination} is not overridden", where="destination")


def _no_rule(number: int) -> Missing:
    return Missing(f"there is no hold rule {number} in force", where="rule")
