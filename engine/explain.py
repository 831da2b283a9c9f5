"""Explain: why mail is not moving, or what would happen to it now. The one true cause first, all else as facts.

It looks at what the relay itself goes by (suspensions, orders, marks, blocks, limits, the schedule, DNS) and changes
nothing. What hinders a recipient is sought in the order in which the relay would meet it, except that a failure which
still stands (DNS, a bad host, TLS) is named rather than the waiting time that it led to.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Literal

from msgspec import Struct

from engine.clock import Clock
from engine.duration import format_duration
from engine.limits import Limiting
from engine.lookups import LookupFailed, MXError
from engine.mx import AllMarkedBad, Exchange, MXCalculator
from engine.outcome import Outcome
from engine.queue.overriding import where_to
from engine.queue.queue import RELAY, Claim, Destination, Entry, Mark, Queue, Suspension
from engine.queue.steering import HoldRule
from engine.relayer.relayer import ManagedRelayer
from engine.routes import Router, Way
from engine.smarthost import SmartHost

MAX_ENTRIES = 10  # recipients of one message, or messages to one address, that are explained at once
MAX_HOSTS = 5  # whose addresses and TLS are told
LOOKUP_SECONDS = 9.0
ADDRESSES_SECONDS = 6.0

Cause = Literal[
    "being relayed", "draining", "relay suspended", "held", "to be bounced", "to be dropped", "suspended",
    "hosts bad", "DNS", "refused by DNS", "TLS", "blocked", "limit", "rate", "not due", "nothing",
]  # fmt: skip

_SLACK = 60.0  # seconds; a block and a retry that stem from one failure are this far apart at the most
_TLS_CODES = ("4.7.4", "4.7.5", "4.7.10")  # ours, of TLS that was asked for and not had


class Fact(Struct, frozen=True):
    """One thing that is so."""

    name: str
    text: str


class Explanation(Struct, frozen=True, kw_only=True):
    """Why one recipient's mail (or a domain's) is where it is.

    `until` is when the cause ends, None where nobody can say; `earliest` when it can be sent at the earliest, None
    where somebody must act first. `entry` is "48213.2", or "" where no mail of the queue is meant.
    """

    subject: str
    destination: str
    cause: Cause
    text: str
    until: float | None = None
    earliest: float | None = None
    entry: str = ""
    facts: tuple[Fact, ...] = ()


class Explainer:
    """Explains messages, addresses and domains."""

    def __init__(self, queue: Queue, mx: MXCalculator, router: Router, smarthost: SmartHost, clock: Clock) -> None:
        self._queue = queue
        self._mx = mx
        self._router = router
        self._smarthost = smarthost
        self._clock = clock

    async def message(self, number: int, entry: int = 0) -> tuple[Explanation, ...]:
        """Explain the open recipients of a message, or one of them. Raises NoSuchMessage; () when that one has left."""
        found = await self._queue.message(number)
        return await self._entries([one for one in found.entries if entry in (0, one.number)])

    async def address(self, recipient: str, destination: str, entries: Sequence[Entry]) -> tuple[Explanation, ...]:
        """Explain what waits for an address (`entries`), or where nothing does, what would happen to mail for it."""
        if entries:
            return await self._entries(entries)
        rules = await self._queue.rules_on(recipient, destination)
        return (self._explain(_Subject(name=recipient, rules=rules), await self._look(destination)),)

    async def domain(self, destination: str) -> tuple[Explanation, ...]:
        """Explain a domain by what of its mail is due first; where it has none, what would happen to mail for it."""
        seen = await self._look(destination)
        known = seen.destination
        rules = await self._queue.rules_on(f"@{destination}", destination)
        subject = _Subject(name=destination, rules=rules)
        if known.waiting and known.next_due is not None:
            subject = _Subject(name=destination, due=known.next_due, last=known.last)
        elif known.relaying:
            carrying = (one for one, claims in self._smarthost.managed.items() if _carries(claims, destination))
            subject = _Subject(name=destination, due=seen.now, relayer=next(carrying, None), relaying=True)
        elif known.held:
            subject = _Subject(name=destination, held=f"all {known.held:,} recipients of it are held by order")
        return (self._explain(subject, seen),)

    async def _entries(self, entries: Sequence[Entry]) -> tuple[Explanation, ...]:
        entries = entries[:MAX_ENTRIES]
        names = list(dict.fromkeys(one.destination for one in entries))
        looked = await asyncio.gather(*map(self._look, names))
        seen = dict(zip(names, looked, strict=True))
        rules = {rule.id: rule for rule in await self._queue.rules()}
        return tuple(self._explain(self._subject(one, rules), seen[one.destination]) for one in entries)

    def _subject(self, entry: Entry, rules: dict[int, HoldRule]) -> "_Subject":
        return _Subject(
            name=entry.recipient,
            entry=entry,
            due=entry.due,
            last=entry.last,
            relaying=entry.state == "relaying",
            relayer=_relayer_of(self._smarthost, entry),
            rules=tuple(rules[one] for one in (entry.rule,) if one in rules),
        )

    def _explain(self, subject: "_Subject", seen: "_Seen") -> Explanation:
        reasons = [found for look in _LOOKS if (found := look(subject, seen)) is not None]
        first, others = reasons[0], reasons[1:]
        facts = [Fact("also", one.text) for one in others if one.cause != "nothing"]
        entry = subject.entry
        return Explanation(
            subject=subject.name,
            destination=seen.destination.name,
            cause=first.cause,
            text=first.text,
            until=first.until,
            earliest=_earliest(subject, seen, reasons),
            entry=f"{entry.message}.{entry.number}" if entry is not None else "",
            facts=(*facts, *_of_subject(subject, seen), *seen.facts),
        )

    # -- looking --------------------------------------------------------------------------------------------------

    async def _look(self, destination: str) -> "_Seen":
        """Gather what bears on a destination. Takes 15 s at the most."""
        suspensions = await self._queue.suspensions()
        known = await self._queue.destination(destination)
        way: Way | None = None
        no_way: MXError | None = None
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                way = await self._router.way(destination)
        except TimeoutError:
            no_way = LookupFailed(f"DNS gave no answer for {destination} within {LOOKUP_SECONDS:.0f} s")
        except MXError as error:
            no_way = error
        hosts = no_way.hosts if isinstance(no_way, AllMarkedBad) else ()
        exchanges = way.exchanges if way is not None else tuple(Exchange(host=h, preference=0) for h in hosts)
        facts = [_route(way), *_dns(way, no_way), *await self._hosts(destination, exchanges)]
        return _Seen(
            now=self._clock.now(),
            draining=self._smarthost.draining,
            relay=next((one for one in suspensions if one.destination == RELAY), None),
            destination=known,
            way=way,
            no_way=no_way,
            marks=tuple(mark for one in exchanges if (mark := self._mx.mark(one.host)) is not None),
            limits=self._smarthost.limits_on(destination, is_in_doubt=known.is_in_doubt),
            facts=(*(one for one in facts if one is not None), self._figures(destination)),
        )

    async def _hosts(self, destination: str, exchanges: Sequence[Exchange]) -> list[Fact]:
        shown = sorted(exchanges, key=lambda one: (one.preference, one.host))[:MAX_HOSTS]
        texts = await asyncio.gather(*(self._host(destination, one) for one in shown))
        return [Fact(f"host {one.host}", text) for one, text in zip(shown, texts, strict=True)]

    async def _host(self, destination: str, exchange: Exchange) -> str:
        parts = []
        mark = self._mx.mark(exchange.host)
        if mark is not None:
            left = _left(mark.until - self._clock.now())
            parts.append(f"marked bad by {mark.by} for another {left}" + (f": {mark.reason}" if mark.reason else ""))
        try:
            async with asyncio.timeout(ADDRESSES_SECONDS):
                parts.append(", ".join(await self._router.addresses(exchange.host)))
                demand = await self._router.demand_of(destination, exchange.host)
                parts.append(f"TLS {demand.level} ({demand.why or 'the default'})")
        except MXError as error:
            parts.append(error.outcome.text)
        except TimeoutError:
            parts.append(f"its addresses or its TLS policy were not found within {ADDRESSES_SECONDS:.0f} s")
        return "; ".join(parts)

    def _figures(self, destination: str) -> Fact:
        smarthost = self._smarthost
        site = smarthost.site_at(destination)
        most = site.allowed(smarthost.max_connections_per_destination, self._clock.now())
        what = f"its site, that of {site.host}" if site.host else "this destination"
        return Fact(
            "connections",
            f"{len(smarthost.managed)} of {smarthost.max_connections} open (delivery.max_connections); "
            f"{len(site.connections)} to {what}, which may have {most} now",
        )


# -- what is explained, and what was seen -----------------------------------------------------------------------------


class _Subject(Struct, frozen=True, kw_only=True):
    """One recipient, or what stands for a domain. `due` None: no mail is meant, this is a dry run."""

    name: str
    entry: Entry | None = None
    due: float | None = None
    last: Outcome | None = None
    relaying: bool = False
    relayer: ManagedRelayer | None = None
    rules: tuple[HoldRule, ...] = ()
    held: str = ""


class _Seen(Struct, frozen=True, kw_only=True):
    """What bears on a destination at one moment."""

    now: float
    draining: bool
    relay: Suspension | None
    destination: Destination
    way: Way | None
    no_way: MXError | None
    marks: tuple[Mark, ...]
    limits: tuple[Limiting, ...]
    facts: tuple[Fact, ...]

    def next_try(self, subject: _Subject) -> float:
        """When the schedule lets it be tried: it is due, and its destination not blocked."""
        return max(subject.due or self.now, self.destination.blocked_until or 0.0)


class _Reason(Struct, frozen=True):
    """One thing that hinders."""

    cause: Cause
    text: str
    until: float | None = None


def _being_relayed(subject: _Subject, seen: _Seen) -> _Reason | None:
    if not subject.relaying:
        return None
    one = subject.relayer
    if one is None:
        return _Reason("being relayed", "it is being returned to its sender, or its result is being written down")
    where = f" to {one.host} [{one.address}]" if one.host else ""
    stalling = ", which is long" if one.stalling else ""
    since = _left(seen.now - one.phase_since)
    return _Reason("being relayed", f"relayer {one.id}{where} has it, in {one.phase} for {since}{stalling}", seen.now)


def _draining(subject: _Subject, seen: _Seen) -> _Reason | None:  # noqa: ARG001
    text = "the relay is about to stop: it opens no new connections before it is started anew"
    return _Reason("draining", text) if seen.draining else None


def _relay_suspended(subject: _Subject, seen: _Seen) -> _Reason | None:  # noqa: ARG001
    if seen.relay is None:
        return None
    return _Reason("relay suspended", f"the whole relay is {_suspension(seen.relay, seen.now)}", seen.relay.until)


def _held(subject: _Subject, seen: _Seen) -> _Reason | None:
    entry = subject.entry
    if subject.held:
        return _Reason("held", subject.held)
    if entry is None and subject.rules:
        rule = subject.rules[0]
        return _Reason("held", f"it would be held by {_rule(rule, seen.now)}", rule.until)
    if entry is None or entry.ordered is None:
        return None
    why = f" ({entry.reason})" if entry.reason else ""
    if entry.ordered in ("bounce", "drop"):
        cause: Cause = "to be bounced" if entry.ordered == "bounce" else "to be dropped"
        if entry.order_at is None:
            return _Reason(
                "held", f"an order of {entry.by} by which it is {cause}{why} is not complete: it is only held"
            )
        text = f"it is {cause} by order of {entry.by}{why} in {_left(entry.order_at - seen.now)}, unless undone"
        return _Reason(cause, text, entry.order_at)
    if subject.rules:
        rule = subject.rules[0]
        return _Reason("held", f"it is held by {_rule(rule, seen.now)}", rule.until)
    return _Reason("held", f"it is held by {entry.by}{why} until it is released")


def _suspended(subject: _Subject, seen: _Seen) -> _Reason | None:  # noqa: ARG001
    found = seen.destination.suspended
    if found is None:
        return None
    return _Reason("suspended", f"{found.destination} is {_suspension(found, seen.now)}", found.until)


def _hosts_bad(subject: _Subject, seen: _Seen) -> _Reason | None:
    """All marked by operators: nothing is tried. All found bad by the engine: tried at the next try, and not before."""
    if isinstance(seen.no_way, AllMarkedBad):
        return _Reason("hosts bad", seen.no_way.outcome.text, seen.no_way.until)
    if seen.way is None or len(seen.marks) < len(seen.way.exchanges) or seen.next_try(subject) <= seen.now:
        return None
    if not seen.destination.blocked_until and not _no_connection(subject.last):
        return None
    mark = seen.marks[0]
    which = f"its only host {mark.host} is" if len(seen.marks) == 1 else f"all {len(seen.marks)} of its hosts are"
    until = seen.next_try(subject)
    next_try = f"next try in {_left(until - seen.now)}"
    why = f": {mark.reason}" if mark.reason else ""
    return _Reason("hosts bad", f"{which} marked bad by {mark.by}{why}; {next_try}", until)


def _dns(way: Way | None, no_way: MXError | None) -> tuple[Fact, ...]:
    if way is not None and way.route is None and way.override is None:
        named = sorted(way.exchanges, key=lambda one: (one.preference, one.host))
        shown = ", ".join(f"{one.host} ({one.preference})" for one in named)
        return (Fact("DNS", f"mail exchanges {shown}"),)
    return (Fact("DNS", no_way.outcome.line),) if no_way is not None and not isinstance(no_way, AllMarkedBad) else ()


def _dns_fails(subject: _Subject, seen: _Seen) -> _Reason | None:
    found = seen.no_way
    if found is None or isinstance(found, AllMarkedBad):
        return None
    until = max(seen.next_try(subject), found.until or 0.0)
    if found.outcome.kind == "permanent":
        return _Reason("refused by DNS", f"it will be returned at the next try: {found.outcome.text}", until)
    if seen.next_try(subject) > seen.now and not _of_dns(subject.last) and not _of_dns_line(seen.destination):
        return None  # it waits for another reason; that DNS fails now stands among the facts
    return _Reason("DNS", found.outcome.text, until)


def _tls_broken(subject: _Subject, seen: _Seen) -> _Reason | None:
    last = subject.last
    if last is None or last.kind != "transient" or seen.next_try(subject) <= seen.now:
        return None
    if isinstance(seen.no_way, AllMarkedBad):
        return None
    if last.phase != "TLS" and not (last.code == 0 and last.enhanced in _TLS_CODES):
        return None
    until = seen.next_try(subject)
    by = f" of {last.host}" if last.host else ""
    return _Reason(
        "TLS", f"TLS is required and that{by} is broken: {last.text}; next try in {_left(until - seen.now)}", until
    )


def _blocked(subject: _Subject, seen: _Seen) -> _Reason | None:
    until = seen.destination.blocked_until
    if until is None or until <= seen.now or (subject.due or 0.0) > until + _SLACK:
        return None
    why = seen.destination.blocked_why
    return _Reason("blocked", f"no connection is opened for another {_left(until - seen.now)}: {why}", until)


def _not_due(subject: _Subject, seen: _Seen) -> _Reason | None:
    if subject.due is None or subject.due <= seen.now:
        return None
    said = f"; the last try: {subject.last.line}" if subject.last is not None else ""
    return _Reason("not due", f"it is not due for another {_left(subject.due - seen.now)}{said}", subject.due)


def _limited(subject: _Subject, seen: _Seen) -> _Reason | None:
    if not seen.limits or seen.next_try(subject) > seen.now:
        return None
    first = seen.limits[0]
    if first.name == "blocked":
        return _Reason("blocked", f"no connection is opened to its site: {first.text}", first.until)
    cause: Cause = "rate" if first.is_rate else "limit"
    return _Reason(cause, f"{first.name}: {first.text}", first.until)


def _nothing(subject: _Subject, seen: _Seen) -> _Reason | None:
    what = "mail for it would be sent at once" if subject.due is None else "it is sent at the next check"
    return _Reason("nothing", f"nothing holds it back: {what}", seen.now)


# In the order in which they are the cause.
_LOOKS: tuple[Callable[[_Subject, _Seen], _Reason | None], ...] = (
    _being_relayed,
    _draining,
    _relay_suspended,
    _held,
    _suspended,
    _tls_broken,
    _hosts_bad,
    _dns_fails,
    _blocked,
    _not_due,
    _limited,
    _nothing,
)


# -- in words ---------------------------------------------------------------------------------------------------------


def _earliest(subject: _Subject, seen: _Seen, reasons: Collection[_Reason]) -> float | None:
    """When all that hinders is over; None where something of it ends only when somebody acts."""
    if any(one.cause in ("to be bounced", "to be dropped", "refused by DNS", "draining") for one in reasons):
        return None
    if any(one.cause in ("held", "limit") and one.until is None for one in reasons):
        return None
    return max(seen.next_try(subject), seen.now, *(one.until or 0.0 for one in reasons))


def _of_subject(subject: _Subject, seen: _Seen) -> list[Fact]:
    facts = []
    entry = subject.entry
    if subject.last is not None:
        host = f" ({subject.last.host})" if subject.last.host else ""
        facts.append(Fact("last reply", f"{subject.last.line}{host}"))
    if entry is not None:
        facts.append(Fact("tries", f"{entry.attempts}; given up in {_left(entry.expires - seen.now)}"))
    return facts


def _route(way: Way | None) -> Fact | None:
    if way is None:
        return None
    if way.override is not None:
        one = way.override
        why = f" ({one.reason})" if one.reason else ""
        return Fact("route", f"overridden by {one.by}{why}: to {where_to(one)} instead of its own hosts")
    if way.route is not None:
        return Fact("route", f"to {way.route.host}:{way.route.port}, by the route for {way.route.domain}")
    return Fact("route", "to its mail exchanges")


def _relayer_of(smarthost: SmartHost, entry: Entry) -> ManagedRelayer | None:
    if entry.state != "relaying":
        return None
    for relayer, claims in smarthost.managed.items():
        for claim in claims:
            if claim.message == entry.message and any(one.number == entry.number for one in claim.entries):
                return relayer
    return None


def _carries(claims: Sequence[Claim], destination: str) -> bool:
    return any(claim.destination == destination for claim in claims)


def _suspension(one: Suspension, now: float) -> str:
    why = f" ({one.reason})" if one.reason else ""
    return f"suspended by {one.by}{why} for another {_left(one.until - now)}"


def _rule(rule: HoldRule, now: float) -> str:
    why = f" ({rule.reason})" if rule.reason else ""
    return f"hold rule {rule.id} of {rule.by}{why}, {rule.filter}, for another {_left(rule.until - now)}"


def _no_connection(last: Outcome | None) -> bool:
    return last is not None and last.code == 0 and last.phase in ("connecting", "greeting")


def _of_dns(last: Outcome | None) -> bool:
    return last is not None and last.code == 0 and last.enhanced in ("4.4.3", "4.4.4")


def _of_dns_line(destination: Destination) -> bool:
    return destination.blocked_why.startswith(("4.4.3 ", "4.4.4 "))


def _left(seconds: float) -> str:
    return format_duration(max(0.0, round(seconds)))
