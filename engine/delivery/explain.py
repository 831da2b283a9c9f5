"""Explain: why mail is not moving, or what would happen to it now. The one true cause first, all else as facts.

What it is, and when it is tried, engine.delivery.condition says, as everywhere; here DNS is asked besides, and a
failure which still stands (DNS, TLS) is named rather than the waiting time that it led to. Nothing is changed.
"""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.base.clock import Clock
from engine.base.duration import format_duration
from engine.delivery.condition import (
    ONE_MORE_TRY,
    Around,
    Hindrance,
    Mail,
    all_marked,
    has_one_more_try,
    hindrances,
    left_out_until,
    mail_of,
    next_try,
)
from engine.delivery.relayer import ManagedRelayer
from engine.delivery.remedy import remedy
from engine.delivery.routes import Router, Way
from engine.delivery.smarthost import SmartHost
from engine.dns.lookups import LookupFailed, MXError
from engine.dns.mx import AllMarkedBad, Exchange, MXCalculator
from engine.model.claim import Claim
from engine.model.destination import Destination, Suspension
from engine.model.explanation import Explanation, Fact
from engine.model.message import Entry
from engine.model.order import HoldRule
from engine.model.outcome import Outcome
from engine.queue.contract import Queue
from engine.settings.settings import Route

MAX_ENTRIES = 10  # recipients of one message, or messages to one address, that are explained at once
MAX_HOSTS = 5  # whose addresses and TLS are told
LOOKUP_SECONDS = 9.0
ADDRESSES_SECONDS = 6.0


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
        found = await self._queue.listing.message(number)
        return await self._entries([row for row in found.entries if entry in (0, row.number)])

    def remedy(self, destination: str, outcome: Outcome, sender: str) -> str:
        """What can be done about what was said of mail that has left the queue, in a sentence, or ""."""
        route = self._router.route(destination)
        return remedy(route, outcome, sender) if route is not None else ""

    async def address(self, recipient: str, destination: str, entries: Sequence[Entry]) -> tuple[Explanation, ...]:
        """Explain what waits for an address (`entries`), or where nothing does, what would happen to mail for it."""
        if entries:
            return await self._entries(entries)
        rules = await self._queue.standing.rules_on(recipient, destination)
        return (self._explain(_dry_run(recipient, rules), await self._look(destination)),)

    async def domain(self, destination: str) -> tuple[Explanation, ...]:
        """Explain a domain by what of its mail is due first; where it has none, what would happen to mail for it."""
        seen = await self._look(destination)
        known = seen.destination
        subject = _dry_run(destination, await self._queue.standing.rules_on(f"@{destination}", destination))
        if known.waiting and known.next_due is not None:
            subject = _Subject(name=destination, mail=Mail(due=known.next_due, last=known.reply))
        elif known.relaying:
            carrying = (relayer for relayer, claims in self._smarthost.managed.items() if _carries(claims, destination))
            mail = Mail(state="relaying", due=seen.now)
            subject = _Subject(name=destination, mail=mail, relayer=next(carrying, None))
        elif known.held:
            text = f"all {known.held:,} recipients of it are held by order"
            subject = _Subject(name=destination, mail=Mail(state="held", ordered="hold"), held=text)
        return (self._explain(subject, seen),)

    async def _entries(self, entries: Sequence[Entry]) -> tuple[Explanation, ...]:
        entries = entries[:MAX_ENTRIES]
        names = list(dict.fromkeys(entry.destination for entry in entries))
        looked = await asyncio.gather(*map(self._look, names))
        seen = dict(zip(names, looked, strict=True))
        rules = {rule.id: rule for rule in await self._queue.standing.rules()}
        return tuple(self._explain(self._subject(entry, rules), seen[entry.destination]) for entry in entries)

    def _subject(self, entry: Entry, rules: dict[int, HoldRule]) -> "_Subject":
        return _Subject(
            name=entry.recipient,
            entry=entry,
            mail=mail_of(entry),
            relayer=_relayer_of(self._smarthost, entry),
            rules=tuple(rules[rule] for rule in (entry.rule,) if rule in rules),
        )

    def _explain(self, subject: "_Subject", seen: "_Seen") -> Explanation:
        mail, around = subject.mail, seen.around
        found = _with_failures(hindrances(mail, around), subject, seen)
        first: Hindrance = found[0] if found else _NOTHING
        facts = [Fact("also", _text(hindrance, subject, seen)) for hindrance in found[1:]]
        earliest = _earliest(next_try(mail, around, found), seen.now)
        entry = subject.entry
        return Explanation(
            subject=subject.name,
            destination=seen.destination.name,
            cause=first.cause,
            text=_text(first, subject, seen),
            until=seen.now if first.cause in ("being relayed", "nothing") else first.until,
            earliest=earliest,
            entry=f"{entry.message}.{entry.number}" if entry is not None else "",
            facts=(*facts, *_of_subject(subject, seen), *seen.facts),
        )

    # -- looking --------------------------------------------------------------------------------------------------

    async def _look(self, destination: str) -> "_Seen":
        """Gather what bears on a destination. Takes 15 s at the most."""
        known = await self._queue.listing.destination(destination)
        way: Way | None = None
        no_way: MXError | None = None
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                way = await self._router.way(destination)
                no_way = await self._router.dead_end(way)
        except TimeoutError:
            if way is None:
                no_way = LookupFailed(f"DNS gave no answer for {destination} within {LOOKUP_SECONDS:.0f} s")
        except MXError as error:
            no_way = error
        hosts = no_way.hosts if isinstance(no_way, AllMarkedBad) else ()
        exchanges = way.exchanges if way is not None else tuple(Exchange(host=h, preference=0) for h in hosts)
        facts = [_route(way), *_dns(way, no_way), *await self._hosts(destination, exchanges)]
        smarthost = self._smarthost
        marks = tuple(mark for exchange in exchanges if (mark := self._mx.mark(exchange.host)) is not None)
        now = self._clock.now()
        return _Seen(
            now=now,
            around=Around(
                now=now,
                # What DNS says now, not what it said when mail was sent there last.
                bearing=replace(known, exchanges=tuple(exchange.host for exchange in exchanges)),
                draining=smarthost.draining,
                marks=marks,
                limits=smarthost.limits_on(
                    destination,
                    site=known.site,
                    is_in_doubt=known.is_in_doubt,
                    message=known.first,
                    sender=known.first_sender,
                ),
            ),
            destination=known,
            way=way,
            no_way=no_way,
            facts=(*(fact for fact in facts if fact is not None), self._figures(destination)),
            is_over=self._is_over,
        )

    def _is_over(self, last: Outcome, at: float | None, destination: Destination) -> bool:
        """Whether a failure is no cause any more: its host, or its destination, has taken mail or was marked good."""
        if at is None:
            return False
        taken = destination.last_at if destination.last is not None and destination.last.kind == "delivered" else None
        good = self._mx.good_at(last.host) if last.host else None
        return any(since is not None and since > at for since in (taken, good))

    async def _hosts(self, destination: str, exchanges: Sequence[Exchange]) -> list[Fact]:
        shown = sorted(exchanges, key=lambda exchange: (exchange.preference, exchange.host))[:MAX_HOSTS]
        texts = await asyncio.gather(*(self._host(destination, exchange) for exchange in shown))
        return [Fact(f"host {exchange.host}", text) for exchange, text in zip(shown, texts, strict=True)]

    async def _host(self, destination: str, exchange: Exchange) -> str:
        parts = []
        mark = self._mx.mark(exchange.host)
        if mark is not None:
            left = _left(mark.until - self._clock.now())
            parts.append(f"marked bad by {mark.by} for another {left}" + (f": {mark.note}" if mark.note else ""))
        try:
            async with asyncio.timeout(ADDRESSES_SECONDS):
                parts.append(", ".join(await self._router.addresses(exchange.host)))
                if self._router.ipv6_refusals.is_refused(exchange.host):
                    parts.append("over IPv4 alone, since it took no mail over IPv6 for want of a PTR record")
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
        what = f"its site, that of {site.host}" if site.host else "this destination"
        return Fact(
            "connections",
            f"{smarthost.connections} of {smarthost.max_connections} open (delivery.max_connections); "
            f"{len(site.connections)} to {what}, which may have {site.allowed} now",
        )


# -- what is explained, and what was seen -----------------------------------------------------------------------------


class _Subject(Struct, frozen=True, kw_only=True):
    """One recipient, or what stands for a domain. `held` says so of all of a domain."""

    name: str
    mail: Mail
    entry: Entry | None = None
    relayer: ManagedRelayer | None = None
    rules: tuple[HoldRule, ...] = ()
    held: str = ""


class _Seen(Struct, frozen=True, kw_only=True):
    """What bears on a destination at one moment."""

    now: float
    around: Around
    destination: Destination
    way: Way | None
    no_way: MXError | None
    facts: tuple[Fact, ...]
    is_over: Callable[[Outcome, float | None, Destination], bool]


_NOTHING = Hindrance(cause="nothing", why="")
_BEFORE_FAILURES = frozenset(
    {"being relayed", "draining", "to be bounced", "to be dropped", "relay suspended", "held", "suspended"}
)


def _dry_run(name: str, rules: tuple[HoldRule, ...]) -> _Subject:
    """No mail is meant: what would happen to some."""
    if not rules:
        return _Subject(name=name, mail=Mail())
    rule = rules[0]
    mail = Mail(ordered="hold", by=rule.by, note=rule.note, rule=rule.id, held_until=rule.until)
    return _Subject(name=name, mail=mail, rules=rules)


# -- failures that still stand ----------------------------------------------------------------------------------------


def _with_failures(found: tuple[Hindrance, ...], subject: _Subject, seen: _Seen) -> tuple[Hindrance, ...]:
    """What hinders, with the failures of TLS and DNS before the waiting time that they led to."""
    before = [hindrance for hindrance in found if hindrance.cause in _BEFORE_FAILURES]
    hosts = [hindrance for hindrance in found if hindrance.cause == "hosts bad"]
    others = found[len(before) + len(hosts) :]
    failures = (_tls_broken(subject, seen), *hosts, _dns_fails(subject, seen))
    return (*before, *(failure for failure in failures if failure is not None), *others)


def _scheduled(subject: _Subject, seen: _Seen) -> float:
    return max(subject.mail.due or seen.now, seen.destination.blocked_until or 0.0)


def _tls_broken(subject: _Subject, seen: _Seen) -> Hindrance | None:
    last, until = subject.mail.last, _scheduled(subject, seen)
    if last is None or last.kind != "transient" or until <= seen.now or left_out_until(seen.around) is not None:
        return None
    if last.phase != "TLS" and last.cause not in ("tls", "policy"):
        return None
    at = subject.entry.last_at if subject.entry is not None else None
    if seen.is_over(last, at, seen.destination):
        return None
    by = f" of {last.host}" if last.host else ""
    return Hindrance(cause="TLS", why=f"TLS is required and that{by} is broken: {last.text}", until=until)


def _dns(way: Way | None, no_way: MXError | None) -> tuple[Fact, ...]:
    if way is not None and way.route is None and way.override is None:
        named = sorted(way.exchanges, key=lambda exchange: (exchange.preference, exchange.host))
        shown = ", ".join(f"{exchange.host} ({exchange.preference})" for exchange in named)
        return (Fact("DNS", f"mail exchanges {shown}"),)
    return (Fact("DNS", no_way.outcome.line),) if no_way is not None and not isinstance(no_way, AllMarkedBad) else ()


def _dns_fails(subject: _Subject, seen: _Seen) -> Hindrance | None:
    found = seen.no_way
    if found is None or isinstance(found, AllMarkedBad):
        return None
    until = max(_scheduled(subject, seen), found.until or 0.0)
    if found.outcome.kind == "permanent":
        why = f"it will be returned at the next try: {found.outcome.text}"
        return Hindrance(cause="refused by DNS", why=why, until=until, is_final=True)
    waits = _scheduled(subject, seen) > seen.now
    if waits and not _of_dns(subject.mail.last) and seen.destination.blocked_cause != "dns":
        return None  # it waits for another reason; that DNS fails now stands among the facts
    return Hindrance(cause="DNS", why=found.outcome.text, until=until)


# -- in words ---------------------------------------------------------------------------------------------------------


def _text(hindrance: Hindrance, subject: _Subject, seen: _Seen) -> str:
    """What hinders as a sentence, with how long it does."""
    left = _left(hindrance.until - seen.now) if hindrance.until is not None else ""
    mail = subject.mail
    match hindrance.cause:
        case "being relayed":
            return _carried(subject, seen)
        case "relay suspended" if seen.around.bearing.relay is not None:
            return f"the whole relay is {_suspension(seen.around.bearing.relay, seen.now)}"
        case "suspended" if seen.around.bearing.suspended is not None:
            return f"{seen.destination.name} is {_suspension(seen.around.bearing.suspended, seen.now)}"
        case "to be bounced" | "to be dropped" if mail.ordered is not None:
            why = f" ({mail.note})" if mail.note else ""
            return f"it is {hindrance.cause} by order of {mail.by}{why} in {left}, unless undone"
        case "held":
            return _kept(subject, seen)
        case "hosts bad" if isinstance(seen.no_way, AllMarkedBad):
            return seen.no_way.outcome.text
        case "hosts bad" | "TLS" if not _is_left_out(seen):
            return f"{hindrance.why}; next try in {left}"
        case "blocked" if hindrance.until == seen.destination.blocked_until:
            return f"no connection is opened for another {left}: {hindrance.why}"
        case "blocked":
            return f"no connection is opened to its site: {hindrance.why}"
        case "not due" if mail.postponed_by:
            return f"it is {hindrance.why}, for another {left}"
        case "not due":
            said = f"; the last try: {hindrance.why}" if hindrance.why else ""
            return f"it is not due for another {left}{said}"
        case "nothing" if mail.due is None:
            return "mail for it would be sent at once: nothing holds it back"
        case "nothing":
            return "it is on its way at the next check: nothing holds it back"
    return hindrance.why


def _is_left_out(seen: _Seen) -> bool:
    return all_marked(seen.around) and left_out_until(seen.around) is not None


def _carried(subject: _Subject, seen: _Seen) -> str:
    relayer = subject.relayer
    if relayer is None:
        return "it is being returned to its sender, or its result is being written down"
    where = f" to {relayer.host} [{relayer.address}]" if relayer.host else ""
    stalling = ", which is long" if relayer.pace.is_stalling else ""
    since = _left(seen.now - relayer.pace.since)
    return f"relayer {relayer.id}{where} has it, in {relayer.pace.phase} for {since}{stalling}"


def _kept(subject: _Subject, seen: _Seen) -> str:
    mail, rules = subject.mail, subject.rules
    if subject.held:
        return subject.held
    why = f" ({mail.note})" if mail.note else ""
    if mail.ordered != "hold":
        is_to = "to be bounced" if mail.ordered == "bounce" else "to be dropped"
        return f"an order of {mail.by} by which it is {is_to}{why} is not complete: it is only held"
    if rules:
        return f"it {'would be' if mail.due is None else 'is'} held by {_rule(rules[0], seen.now)}"
    return f"it is held by {mail.by}{why} until it is released"


def _earliest(tried: float | None, now: float) -> float | None:
    return None if tried is None else max(tried, now)


def _of_subject(subject: _Subject, seen: _Seen) -> list[Fact]:
    facts = []
    entry = subject.entry
    last = subject.mail.last
    if last is not None:
        host = f" ({last.host})" if last.host else ""
        facts.append(Fact("last reply", f"{last.line}{host}"))
    route, said = _upstream(seen.way), last or _why_blocked(seen)
    if route is not None and said is not None:
        todo = remedy(route, said, entry.sender if entry is not None else "")
        facts += [Fact("to do", todo)] if todo else []
    if entry is not None:
        facts.append(Fact("tries", f"{entry.attempts}; {_end_of(entry, subject, seen)}"))
    return facts


def _why_blocked(seen: _Seen) -> Outcome | None:
    """What was said last where no connection is opened for it; mail that was not tried has heard nothing itself."""
    until = seen.destination.blocked_until
    return seen.destination.last if until is not None and until > seen.now else None


def _end_of(entry: Entry, subject: _Subject, seen: _Seen) -> str:
    """When it is given up. What is held is not, however long: once released it has one more try."""
    if entry.expires > seen.now:
        return f"will be given up in {_left(entry.expires - seen.now)}"
    if has_one_more_try(subject.mail, seen.around):
        return ONE_MORE_TRY + (" once it is released" if entry.state == "held" else "")
    when = "once it is released" if entry.state == "held" else "at the next check"
    return f"its time is over: it will be returned {when}"


def _upstream(way: Way | None) -> Route | None:
    """The route that mail takes, but for an override."""
    return way.route if way is not None and way.override is None else None


def _route(way: Way | None) -> Fact | None:
    if way is None:
        return None
    if way.override is not None:
        override = way.override
        why = f" ({override.note})" if override.note else ""
        return Fact("route", f"overridden by {override.by}{why}: to {override.to} instead of its own hosts")
    if way.route is not None:
        return Fact("route", f"to {', '.join(way.route.hosts)}:{way.route.port}, by the route for {way.route.domain}")
    return Fact("route", "to its mail exchanges")


def _relayer_of(smarthost: SmartHost, entry: Entry) -> ManagedRelayer | None:
    if entry.state != "relaying":
        return None
    for relayer, claims in smarthost.managed.items():
        for claim in claims:
            if claim.message == entry.message and any(carried.number == entry.number for carried in claim.entries):
                return relayer
    return None


def _carries(claims: Sequence[Claim], destination: str) -> bool:
    return any(claim.destination == destination for claim in claims)


def _suspension(suspension: Suspension, now: float) -> str:
    why = f" ({suspension.note})" if suspension.note else ""
    return f"suspended by {suspension.by}{why} for another {_left(suspension.until - now)}"


def _rule(rule: HoldRule, now: float) -> str:
    why = f" ({rule.note})" if rule.note else ""
    return f"hold rule {rule.id} of {rule.by}{why}, {rule.filter}, for another {_left(rule.until - now)}"


def _of_dns(last: Outcome | None) -> bool:
    return last is not None and last.cause == "dns"


def _left(seconds: float) -> str:
    return format_duration(max(0.0, round(seconds)))
