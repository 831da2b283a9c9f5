"""Asking DNS: the same question once at a time, canonical names followed, every failure told apart."""

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from typing import ClassVar, cast

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.CNAME import CNAME
from msgspec import Struct

from engine.base.text import clean
from engine.dns.answers import AnswerCache, Found, Record, found_in, text_of
from engine.dns.nameserver import EDNS_PAYLOAD, AnswerTooLarge, BoundedNameserver
from engine.model.outcome import Cause, Outcome

# Canonical names that mail's own way follows: RFC 5321 5.1 knows no maximum, so as many as Postfix does, and more than
# any zone in good order has; yet they cost a question each where they come one by one.
MOST_ALIASES = 10

_OVERRUN = 1.0  # seconds that a lookup may take beyond the resolver's lifetime before it is cut off
_NO_DOMAIN_CHARACTERS = frozenset('\\"(),:;<>@[]')


class MXError(Exception):
    """No host can be named for a domain, or no address for a host. `outcome` is what becomes of the mail.

    `until` is when it is worth asking again, where that is known.
    """

    permanent: ClassVar[bool] = False
    enhanced: ClassVar[str] = "4.4.3"
    cause: ClassVar[Cause] = "dns"

    def __init__(self, text: str, *, until: float | None = None) -> None:
        super().__init__(clean(text))
        self.until = until
        kind = Outcome.permanent if self.permanent else Outcome.transient
        self.outcome = kind(text, enhanced=self.enhanced, cause=self.cause)


class CanonicalNameLoop(MXError):
    """The canonical names of the domain lead back to one another."""

    enhanced = "4.4.4"


class CanonicalNameChainTooLong(MXError):
    """More canonical names in a row than we follow."""

    enhanced = "4.4.4"


class DomainNotFound(MXError):
    """The domain does not exist, or is no domain name at all."""

    permanent = True
    enhanced = "5.1.2"


class LookupFailed(MXError):
    """DNS did not answer, or not in a way that tells anything."""


def resolver_for(
    nameservers: Sequence[str], *, timeout: float = 2.0, lifetime: float = 5.0, validating: bool = False
) -> dns.asyncresolver.Resolver:
    """A resolver that asks these name servers ("9.9.9.9", "127.0.0.1:5300", "[::1]:53"), or the system's for [].

    `timeout` is seconds for one question to one server, `lifetime` for all of them together. Answers are cached for
    their TTL. `validating`: they check signatures and are asked to say so. Raises ValueError for what is no address.
    """
    resolver = dns.asyncresolver.Resolver(configure=False)
    if nameservers:
        resolver.nameservers = [BoundedNameserver(*_endpoint(text)) for text in nameservers]
    else:
        try:
            resolver = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            resolver.nameservers = ["127.0.0.1"]  # as resolv.conf(5) has it
        resolver.nameservers = [BoundedNameserver(str(each), resolver.port) for each in resolver.nameservers]
    resolver.search = []
    resolver.timeout = timeout
    resolver.lifetime = lifetime
    resolver.use_edns(0, 0, EDNS_PAYLOAD)
    if validating:
        resolver.flags = dns.flags.RD | dns.flags.AD  # RFC 6840 5.7: AD in a question asks for AD in the answer
    resolver.cache = AnswerCache()
    return resolver


class _Answer(Struct, frozen=True):
    """What one question came to: what was found, or what is wrong."""

    found: Found = Found()
    trouble: type[MXError] | None = None
    text: str = ""


class Followed(Struct, frozen=True, kw_only=True):
    """Where canonical names led, and the records there, if any.

    `secure`: of every answer on the way the resolver said that it is authentic (AD, RFC 4035 3.2.3). That is worth as
    much as the resolver and the way to it.
    """

    name: dns.name.Name
    records: tuple[Record, ...]
    secure: bool


class Lookups:
    """Asks DNS, the same question only once at a time, and follows canonical names.

    Those that have one resolver share what it keeps of its answers.
    """

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver
        self._cache = resolver.cache if isinstance(resolver.cache, AnswerCache) else AnswerCache(0, 0)
        self._under_way: dict[tuple[dns.name.Name, RdataType], asyncio.Task[_Answer]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached in the last hour, by whomever of those who share the answers; in sentences."""
        return self._cache.notes

    async def follow(
        self, name: dns.name.Name, rdtype: RdataType, maximum: int = MOST_ALIASES
    ) -> tuple[dns.name.Name, tuple[Record, ...]]:
        """The canonical name of `name` and its records of a type, following up to `maximum` canonical names.

        They are counted alike whether they come in one answer or are asked for one by one.
        """
        found = await self.trace(name, rdtype, maximum)
        return found.name, found.records

    async def trace(self, name: dns.name.Name, rdtype: RdataType, maximum: int = MOST_ALIASES) -> Followed:
        """As `follow`, and say whether all of it is secure."""
        seen = {name}
        asked = name
        secure = True
        while True:
            answer = await self._ask(asked, rdtype)
            if answer.trouble:
                raise answer.trouble(answer.text)
            found = answer.found
            secure = secure and found.secure
            for alias in found.aliases:
                if alias in seen:
                    raise CanonicalNameLoop(f"the canonical names of {text_of(name)} form a loop at {text_of(alias)}")
                seen.add(alias)
                if len(seen) > maximum + 1:
                    raise CanonicalNameChainTooLong(
                        f"{text_of(name)} leads through more than {maximum} canonical names, to {text_of(alias)}"
                    )
            asked = found.aliases[-1] if found.aliases else asked
            if found.records is not None or not found.aliases:
                return Followed(name=asked, records=found.records or (), secure=secure)

    async def _ask(self, name: dns.name.Name, rdtype: RdataType) -> _Answer:
        cached = self._cache.find(name, rdtype)
        if cached is not None:
            return _judged(cached, name, rdtype)
        key = (name, rdtype)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._look_up(name, rdtype))
            task.add_done_callback(lambda _: self._under_way.pop(key, None))
        return await asyncio.shield(task)  # whoever gives up waiting does not end it for the others

    async def _look_up(self, name: dns.name.Name, rdtype: RdataType) -> _Answer:
        """Ask once. Never raises: several may be waiting, and each raises an error of its own."""
        what = f"{dns.rdatatype.to_text(rdtype)} of {text_of(name)}"
        try:
            async with asyncio.timeout(self._resolver.lifetime + _OVERRUN):
                answer = await self._resolver.resolve(name, rdtype, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return _judged(Found(exists=False), name, rdtype)
        except (dns.exception.Timeout, TimeoutError):
            text = f"DNS gave no answer for the {what} in {self._resolver.lifetime:g} s"
            return _Answer(trouble=LookupFailed, text=text)
        except dns.resolver.NoNameservers as error:
            if any(isinstance(problem, AnswerTooLarge) for _, _, _, problem, _ in error.kwargs["errors"]):
                self._cache.refused(what)
            return _of_errors(error, name, what)
        except (dns.exception.DNSException, OSError) as error:
            return _Answer(trouble=LookupFailed, text=f"DNS could not be asked for the {what}: {error}")
        return _judged(found_in(answer), name, rdtype)


def _judged(found: Found, name: dns.name.Name, rdtype: RdataType) -> _Answer:
    if not found.exists:
        return _Answer(trouble=DomainNotFound, text=f"the domain {text_of(name)} does not exist")
    if found.is_half:
        text = f"DNS gave half an answer for the {dns.rdatatype.to_text(rdtype)} of {text_of(name)}"
        return _Answer(trouble=LookupFailed, text=text)
    return _Answer(found)


def _of_errors(error: dns.resolver.NoNameservers, name: dns.name.Name, what: str) -> _Answer:
    """What the name servers said that dnspython could do nothing with."""
    failures = []
    for server, over_tcp, _, problem, response in error.kwargs["errors"]:
        if isinstance(problem, dns.message.ChainTooLong) and response is not None:
            return _Answer(Found(tuple(_aliases(response, name))))
        if isinstance(problem, dns.message.Truncated) and not over_tcp:
            continue  # what came over TCP then is what counts
        address = str(server).removeprefix("Do53:").rpartition("@")[0] or str(server)
        failures.append(f"{address}: {problem or type(problem).__name__}")
    why = "; ".join(dict.fromkeys(failures))
    return _Answer(trouble=LookupFailed, text=f"DNS has no answer for the {what} ({why})")


def _aliases(response: dns.message.Message, name: dns.name.Name) -> Iterable[dns.name.Name]:
    """The canonical names of `name` in one answer, up to and with the first that comes a second time."""
    seen = {name}
    while records := response.get_rrset(response.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME):
        name = cast(CNAME, records[0]).target
        yield name
        if name in seen:
            return
        seen.add(name)


def name_of(text: str) -> dns.name.Name:
    """The DNS name that `text` writes; internationalised labels become A-labels (RFC 5891)."""
    if not text.isprintable() or " " in text or not _NO_DOMAIN_CHARACTERS.isdisjoint(text):
        raise DomainNotFound(f"{text} is not a domain name")
    try:
        name = dns.name.from_text(text, idna_codec=dns.name.IDNA_2008_Practical)
    except (dns.exception.DNSException, UnicodeError):
        raise DomainNotFound(f"{text} is not a domain name") from None
    if name == dns.name.root:
        raise DomainNotFound("the root of the DNS takes no mail")
    return name


def _endpoint(text: str) -> tuple[str, int]:
    """Address and port of a name server."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        number = int(port)
        if not 0 < number < 65536:
            raise ValueError
        return str(ipaddress.ip_address(host)), number
    except ValueError:
        raise ValueError(f"{text!r} is no name server: write an address, or address:port") from None
