"""MXCalculator: which hosts take mail for a domain, and which of them are bad until when.

It asks DNS and judges the answers as RFC 5321 5.1 and RFC 7505 want them judged. What can go wrong is one of a few
named errors, each of which carries the Outcome it means for mail to that domain; that DNS does not answer is never
a reason to return mail.
"""

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import chain, zip_longest
from typing import cast

import dns.asyncresolver
import dns.rdatatype
from dns.rdatatype import RdataType
from msgspec import Struct

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.text import clean
from engine.dns.answers import Mx, Record, text_of
from engine.dns.bad_hosts import Countdowns
from engine.dns.lookups import (
    MOST_ALIASES,
    CanonicalNameChainTooLong,
    CanonicalNameLoop,
    DomainNotFound,
    LookupFailed,
    Lookups,
    MXError,
    name_of,
)
from engine.model.destination import Mark
from engine.model.event import ENGINE
from engine.model.order import Touched
from engine.model.outcome import Outcome
from engine.queue.contract import Marks
from engine.queue.errors import QueueError
from engine.settings.ourselves import Ourselves, is_number
from engine.settings.settings import Delivery

__all__ = [
    "AllMarkedBad",
    "CanonicalNameChainTooLong",
    "CanonicalNameLoop",
    "DomainNotFound",
    "Exchange",
    "LookupFailed",
    "MXCalculator",
    "MXError",
    "NoExchange",
    "NullMX",
    "OwnName",
]

MAXIMUM_CHAIN = 3  # canonical names that get_mx follows unless told otherwise, as its ancestor does
MOST_EXCHANGES = 20  # of one domain, and addresses of one host: what is beyond is not tried

_NULL = "."  # the host of a null MX


_DEFAULTS = Delivery()  # as the settings have it where nobody says
ENGINE_MARKS = 10_000  # hosts that the engine itself has marked bad: strangers can make it mark any number of names
_ENDED_KEPT = 10_000  # hosts whose ended mark is still in the store, or of which something else is remembered


class NullMX(MXError):
    """The domain says that it takes no mail (RFC 7505)."""

    permanent = True
    enhanced = "5.1.10"


class NoExchange(MXError):
    """The domain names no exchange and may not stand for itself, or the host has no address."""

    permanent = True
    enhanced = "5.4.4"


class OwnName(MXError):
    """We are the best exchange of the domain: mail would come back to us (RFC 5321 5.1)."""

    permanent = True
    enhanced = "5.4.6"


class AllMarkedBad(MXError):
    """Operators have marked every exchange of the domain bad (`hosts`); `until` is when the first mark ends.

    `site` names what the domain shares connections with, where that is known.
    """

    enhanced = "4.4.1"
    cause = "connect"

    def __init__(self, text: str, *, until: float | None = None, hosts: tuple[str, ...] = (), site: str = "") -> None:
        super().__init__(text, until=until)
        self.hosts = hosts
        self.site = site


class Exchange(Struct, frozen=True, kw_only=True):
    """A host that takes mail for a domain: lower-case, without the final dot, or a literal (`[127.0.0.1]`).

    `mark` says why it is bad, if it is named although it is bad.
    """

    host: str
    preference: int
    mark: Mark | None = None


class MXCalculator:
    """Names the hosts that take mail for a domain, in the order to try them, and remembers which are bad.

    `own_names` are names of this relay; an exchange so called ends the list, and so does localhost.
    `bad_mx_timeout` is in seconds; a host that is still bad after that long is marked for twice as long, up to
    `bad_mx_timeout_max`, until it delivers. `fallback_to_domain`: a domain without MX stands for itself, as RFC 5321
    5.1 says. `draw` shuffles equals.
    """

    def __init__(
        self,
        resolver: dns.asyncresolver.Resolver,
        *,
        clock: Clock,
        marks: Marks,
        own_names: Collection[str] = (),
        bad_mx_timeout: float = _DEFAULTS.bad_mx_timeout,
        bad_mx_timeout_max: float = _DEFAULTS.bad_mx_timeout_max,
        fallback_to_domain: bool = _DEFAULTS.fallback_to_domain,
        draw: random.Random | None = None,
    ) -> None:
        self._lookups = Lookups(resolver)
        self._clock = clock
        self._store = marks
        self._ourselves = Ourselves(names=own_names)
        self.bad_mx_timeout = bad_mx_timeout
        self._bad_mx_timeout_max = max(bad_mx_timeout, bad_mx_timeout_max)
        self.fallback_to_domain = fallback_to_domain
        self._draw = draw or random.Random()
        self._marks = Countdowns()
        self._ended = Kept[str, None](_ENDED_KEPT)  # hosts, oldest first
        # How often a host was marked, and when last for longer.
        self._repeated = Kept[str, tuple[int, float]](_ENDED_KEPT)
        self._returning = Kept[str, None](_ENDED_KEPT)  # hosts whose mark has ended and that have not delivered since
        self._good_at = Kept[str, float](_ENDED_KEPT)  # when a host took mail last, or was marked good
        self._marking = asyncio.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds of what is kept of hosts and of the DNS are reached, or were in the last hour, in sentences."""
        return (*self._lookups.notes, *filter(None, (self.note,)))

    # -- which hosts --------------------------------------------------------------------------------------------------

    async def get_mx(self, domain: str, maximum_canonical_chain_length: int = MAXIMUM_CHAIN) -> Exchange:
        """The host of the lowest preference that is not bad, or of the lowest preference when all are.

        It counts canonical names as its ancestor is documented to; mail goes by `exchanges` and `candidates`, which
        follow more. Raises the errors of `exchanges`, AllMarkedBad excepted.
        """
        candidates = await self._candidates(domain, maximum_canonical_chain_length)
        for preference, host in candidates:
            if self.mark(host) is None:
                return Exchange(host=host, preference=preference)
        preference, host = candidates[0]
        return Exchange(host=host, preference=preference, mark=self.mark(host))

    async def exchanges(self, domain: str, maximum_canonical_chain_length: int = MOST_ALIASES) -> list[Exchange]:
        """The hosts to try, in order: good ones by preference, then those the engine found bad, by preference.

        Equal preferences are shuffled at every call (RFC 5321 5.1). Hosts that an operator marked bad are left out.
        Raises CanonicalNameLoop, CanonicalNameChainTooLong, NullMX, DomainNotFound, NoExchange, LookupFailed,
        OwnName, AllMarkedBad.
        """
        return self.allowed(domain, await self.candidates(domain, maximum_canonical_chain_length))

    async def candidates(self, domain: str, maximum_canonical_chain_length: int = MOST_ALIASES) -> list[Exchange]:
        """All hosts the domain has, by preference, each with its mark. Raises as `exchanges`, but not AllMarkedBad."""
        found = await self._candidates(domain, maximum_canonical_chain_length)
        return [Exchange(host=host, preference=number, mark=self.mark(host)) for number, host in found]

    def allowed(self, domain: str, found: Sequence[Exchange], site: str = "") -> list[Exchange]:
        """Of a domain's hosts those to try, in order; see `exchanges`. Raises AllMarkedBad."""
        allowed = [exchange for exchange in found if exchange.mark is None or exchange.mark.by == ENGINE]
        if not allowed:
            marks = [exchange.mark for exchange in found if exchange.mark]
            reasons = ", ".join(f"{mark.host} by {mark.by} ({mark.note})" for mark in marks[:MOST_EXCHANGES])
            raise AllMarkedBad(
                f"every exchange of {domain} is marked bad: {reasons}",
                until=min(mark.until for mark in marks),
                hosts=tuple(mark.host for mark in marks[:MOST_EXCHANGES]),
                site=site,
            )
        return sorted(allowed, key=lambda exchange: exchange.mark is not None)[:MOST_EXCHANGES]

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host: both families in turn, IPv6 first, each in the order of the answer.

        An address gives itself, with brackets or without. Raises NoExchange when there is none, else as `exchanges`.
        """
        if address := _address(host):
            return [address]
        name = name_of(host)
        families = await asyncio.gather(
            self._family(name, dns.rdatatype.AAAA), self._family(name, dns.rdatatype.A), return_exceptions=True
        )
        failed = [found for found in families if isinstance(found, BaseException)]
        texts = [found for found in families if not isinstance(found, BaseException)]
        mixed = [text for text in chain.from_iterable(zip_longest(*texts)) if text is not None]
        if mixed:
            return mixed[:MOST_EXCHANGES]
        # A family that could not be asked for may have an address: that is not yet "none".
        for error in failed:
            if not isinstance(error, DomainNotFound):
                raise error
        raise NoExchange(f"the host {host} has no address")

    # -- which are bad ------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Take over the marks that the store has, in place of what is known: other nodes keep theirs there too."""
        async with self._marking:
            kept = {mark.host: mark for mark in await self._store.all()}
            for host in [host for host in self._marks if host not in kept]:
                del self._marks[host]
            for host, mark in kept.items():
                self._marks[host] = mark
                if mark.by == ENGINE:
                    self._repeated[host] = (mark.times, self._clock.now())
        self._expire()
        await self._let_go()

    async def mark_bad(
        self, host: str, *, seconds: float | None = None, note: str, by: str = ENGINE, last: Outcome | None = None
    ) -> Mark:
        """Mark a host bad for `seconds`; the mark is on disk when this returns.

        None: `bad_mx_timeout`, and where the engine found it bad for as long before, with no delivery since, twice
        as long as the last time.

        Gives the mark in force: the engine leaves a mark that an operator made as it is. Of more than ENGINE_MARKS of
        the engine's own the ones that end first are let go. Raises QueueError, and leaves all as it was, when the
        store cannot keep it.
        """
        host = _host(host)
        async with self._marking:
            now = self._clock.now()
            before = self.mark(host)
            if before and by == ENGINE != before.by:
                return before
            times = self._times(host, now) if by == ENGINE else 1
            if seconds is None:
                # Bounded before the power is taken, which would be beyond any number after a year of failures.
                seconds = min(self.bad_mx_timeout * 2 ** min(times - 1, 32), self._bad_mx_timeout_max)
            mark = Mark(
                host=host,
                since=before.since if before and by == before.by else now,
                until=now + max(0.0, seconds),
                by=by,
                note=clean(note),
                last=last or (before.last if before else None),
                times=times,
            )
            with self._unless_refused(host):
                self._marks[host] = mark
                self._ended.pop(host, None)
                await self._store.save(mark)
            if by == ENGINE:
                before_times, since = self._repeated.get(host, (0, now))
                self._repeated[host] = (times, now if times > before_times else since)
                await self._let_go()
            self._expire()
            return mark

    async def mark_good(self, host: str, *, by: str = ENGINE, touched: Touched | None = None) -> int | None:
        """End a host's mark; give the number of entries that this made due, and write them into `touched`.

        Gives None, and does nothing, where there is no mark, or where the engine meets a mark that an operator made.
        Raises QueueError, and leaves all as it was, when the store cannot do it.
        """
        host = _host(host)
        if host not in self._marks and host not in self._ended:
            return None  # the common case, after every good conversation
        async with self._marking:
            mark = self.mark(host)
            if mark and by == ENGINE != mark.by:
                return None
            if mark is None and host not in self._ended:
                return None
            with self._unless_refused(host):
                self._marks.pop(host, None)
                self._ended.pop(host, None)
                self._returning[host] = None
                self._good_at[host] = self._clock.now()
                return await self._store.remove(host, by, touched)

    async def take_back(self, marks: Collection[Mark], *, note: str) -> None:
        """Undo marks of the engine's that say nothing of their hosts, as far as they stand as they were made.

        It is as if they had not been; no mail becomes due by it. Raises QueueError, and leaves all as it was, when the
        store cannot do it.
        """
        async with self._marking:
            wrong = [mark for mark in marks if (now := self.mark(mark.host)) is not None and now.until == mark.until]
            if not wrong:
                return
            with contextlib.ExitStack() as stack:
                for mark in wrong:
                    stack.enter_context(self._unless_refused(mark.host))
                    del self._marks[mark.host]
                await self._store.take_back(wrong, note)
            for mark in wrong:
                if mark.times > 1:
                    self._repeated[mark.host] = (mark.times - 1, float("-inf"))
                else:
                    self._repeated.pop(mark.host, None)

    def delivered(self, host: str) -> None:
        """A host has taken mail: what it did before counts no more."""
        self._good_at[_host(host)] = self._clock.now()
        if self._repeated or self._returning:
            host = _host(host)
            self._repeated.pop(host, None)
            self._returning.pop(host, None)

    def good_at(self, host: str) -> float | None:
        """When a host took mail last or was marked good, as far as that is remembered; it is not over a restart."""
        return self._good_at.get(_host(host))

    def is_returning(self, host: str) -> bool:
        """Whether a host's mark has ended, by time or by an operator, and it has not delivered since."""
        host = _host(host)
        return self.mark(host) is None and host in self._returning

    def mark(self, host: str) -> Mark | None:
        """The mark in force on a host. A mark whose time has come is forgotten when met."""
        host = _host(host)
        mark = self._marks.get(host)
        if mark is None or mark.until > self._clock.now():
            return mark
        del self._marks[host]
        # The store still has it: it is removed there when the host answers, which is when that is news.
        self._ended[host] = None
        self._returning[host] = None
        return None

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks in force, the first to end first."""
        self._expire()
        return tuple(map(self._marks.__getitem__, self._marks))

    @property
    def marked(self) -> int:
        """How many hosts are marked."""
        self._expire()
        return len(self._marks)

    @property
    def note(self) -> str:
        """That the engine has marked as many hosts as it remembers, or ""."""
        if self._marks.of_engine < ENGINE_MARKS:
            return ""
        what = "hosts are marked bad by the engine, as many as it remembers"
        return f"{ENGINE_MARKS:,} {what}: for each further one the mark that ends first is let go"

    @contextlib.contextmanager
    def _unless_refused(self, host: str) -> Iterator[None]:
        """A change of a host's mark holds at once, for others look meanwhile, but not if the store refuses it."""
        mark, had_ended = self._marks.get(host), host in self._ended
        try:
            yield
        except QueueError:
            self._marks.pop(host, None)
            if mark is not None:
                self._marks[host] = mark
            if had_ended:
                self._ended[host] = None
            raise

    def _expire(self) -> None:
        """Meet the marks whose time has come, though nobody asks for their hosts."""
        for host in self._marks.ended(self._clock.now()):
            self.mark(host)

    async def _let_go(self) -> None:
        """Forget what is too much of the engine's own marks, those that end first."""
        hosts = self._marks.too_many(ENGINE_MARKS)
        for host in hosts:
            del self._marks[host]
        if hosts:
            with contextlib.suppress(QueueError):  # it has them a while longer: until they end, or the next start
                await self._store.forget(hosts)

    def _times(self, host: str, now: float) -> int:
        """The how-manieth mark in a row this is: one more for each that lasted its time and did not help."""
        times, since = self._repeated.get(host, (0, now))
        lasted = min(self.bad_mx_timeout * 2 ** min(max(times - 1, 0), 32), self._bad_mx_timeout_max)
        return times + 1 if not times or now - since >= lasted else times

    # -- how ----------------------------------------------------------------------------------------------------------

    async def _candidates(self, domain: str, maximum: int) -> list[tuple[int, str]]:
        """Preference and host of every exchange before our own name, best first, equals shuffled. Never empty."""
        if domain.startswith("["):
            if _address(domain) is None:
                raise DomainNotFound(f"{domain} is not an address literal")
            return [(0, _host(domain))]
        canonical, records = await self._lookups.follow(name_of(domain), dns.rdatatype.MX, maximum)
        best: dict[str, int] = {}
        for record in map(_mx, records):
            if record.host != _NULL:  # RFC 7505 3: beside others it says nothing
                best[record.host] = min(record.preference, best.get(record.host, record.preference))
        if not best:
            if records:
                raise NullMX(f"the domain {domain} takes no mail (null MX)")
            if not self.fallback_to_domain:
                raise NoExchange(f"the domain {domain} names no mail exchange")
            best[text_of(canonical)] = 0
        # A number is no host, and where one is taken for an address it mostly means oneself: it is left out, but says
        # nothing of the others (RFC 5321 5.1 wants a name with an address).
        numbers = [host for host in best if is_number(host)]
        for host in numbers:
            del best[host]
        if not best:
            why = f"its exchange {numbers[0]} is a number, which on every machine may mean itself"
            raise OwnName(f"mail for {domain} loops back to this relay: {why}")
        limit = min((number for host, number in best.items() if self._ourselves.is_named(host)), default=None)
        hosts = [(number, host) for host, number in best.items() if limit is None or number < limit]
        if not hosts:
            raise OwnName(f"mail for {domain} loops back to this relay: it is the best exchange itself")
        self._draw.shuffle(hosts)
        return sorted(hosts, key=lambda pair: pair[0])

    async def _family(self, name: dns.name.Name, rdtype: RdataType) -> list[str]:
        _, records = await self._lookups.follow(name, rdtype)
        return cast(list[str], list(records))


def _mx(record: Record) -> Mx:
    return cast(Mx, record)


def _host(text: str) -> str:
    return clean(text).lower().removesuffix(".")


def _address(text: str) -> str | None:
    """The address that `text` is, be it a literal (RFC 5321 4.1.3) or bare; None when it is a name."""
    if text.startswith("[") and text.endswith("]"):
        literal = text[1:-1].lower()
        with contextlib.suppress(ValueError):
            if literal.startswith("ipv6:"):
                return str(ipaddress.IPv6Address(literal.removeprefix("ipv6:")))
            return str(ipaddress.IPv4Address(literal))
        return None
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(text))
    return None
