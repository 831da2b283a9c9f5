"""Whence mail goes out: over which family of addresses, from which address of this machine, and under which name."""

import re
from collections.abc import Sequence
from itertools import chain, zip_longest

from msgspec import Struct

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.model.outcome import Outcome
from engine.settings.kinds import Family, Prefer
from engine.settings.settings import Delivery, Route

REFUSED_SECONDS = 86_400.0  # for which a host that has refused our IPv6 is spoken to over IPv4
_REFUSED_KEPT = 1000  # hosts

# RFC 7372 3.3: "Reverse DNS validation failed"; large hosts say it in words with 5.7.1 as well.
_NO_NAME = ("5.7.25", "4.7.25")
_OF_POLICY = ("5.7.1", "4.7.1", "5.7.0", "4.7.0", "")
_NAMED = re.compile(r"\bPTR\b|reverse[ -]DNS|\brDNS\b|IPv6 sending guidelines", re.IGNORECASE)


class Egress(Struct, frozen=True, kw_only=True):
    """What the settings say of it. `ipv4` and `ipv6` are addresses of ours to connect from, `hello` is the name given.

    "": any address, and the relay's name.
    """

    family: Family = "both"
    prefer: Prefer = "ipv6"
    ipv4: str = ""
    ipv6: str = ""
    hello: str = ""

    @classmethod
    def of(cls, delivery: Delivery, route: Route | None = None) -> "Egress":
        """That of all mail, or of a route: what the route does not say is as for all."""
        said: list[Delivery | Route] = [delivery] if route is None else [route, delivery]

        def first(key: str) -> str:
            return next((value for each in said if (value := getattr(each, key))), "")

        sources = next((each.source_address for each in said if each.source_address), ())
        return cls(
            family=first("family") or "both",  # type: ignore[arg-type]  # a Literal of the settings
            prefer=first("prefer") or "ipv6",  # type: ignore[arg-type]
            ipv4=next((address for address in sources if ":" not in address), ""),
            ipv6=next((address for address in sources if ":" in address), ""),
            hello=first("hello"),
        )

    @property
    def words(self) -> str:
        """What sets its connections apart from others to the same hosts, or ""."""
        parts = {"over": "" if self.family == "both" else self.family, "from": f"{self.ipv4} {self.ipv6}".strip()}
        parts["as"] = self.hello
        return " ".join(f"{word} {what}" for word, what in parts.items() if what)

    def source(self, address: str) -> str:
        """The address of ours to connect from to this one; "": any."""
        return self.ipv6 if ":" in address else self.ipv4

    def in_order(self, addresses: Sequence[str], *, without_ipv6: bool = False) -> list[str]:
        """Those that may be connected to, the families in turn, each in its order.

        `without_ipv6`: where there are others.
        """
        four = [address for address in addresses if ":" not in address]
        six = [address for address in addresses if ":" in address]
        if self.family == "ipv4" or (without_ipv6 and four and self.family == "both"):
            return four
        if self.family == "ipv6":
            return six
        pairs = zip_longest(four, six) if self.prefer == "ipv4" else zip_longest(six, four)
        return [address for address in chain.from_iterable(pairs) if address is not None]


class Ipv6Refusals:
    """Remembers, for a day, the hosts that refused our mail for want of a name of our IPv6 address.

    In memory only: after a restart one message finds out again, and goes over IPv4 in the same attempt.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = Kept[str, float](_REFUSED_KEPT)

    @property
    def notes(self) -> tuple[str, ...]:
        """That there are such, and what to do, or nothing."""
        if not (hosts := [host for host in list(self._until) if self.is_refused(host)]):
            return ()
        more = f" and {len(hosts) - 1} more" if len(hosts) > 1 else ""
        what = f"{hosts[-1]}{more} took no mail over IPv6, for want of a PTR record of our address"
        return (f'{what}: it goes over IPv4; give the address a name, or set delivery.family = "ipv4"',)

    def note(self, host: str) -> None:
        """This host has refused it."""
        self._until[host] = self._clock.now() + REFUSED_SECONDS

    def is_refused(self, host: str) -> bool:
        """Whether this host is spoken to over IPv4, where it can be."""
        until = self._until.get(host)
        if until is not None and not 0 < until - self._clock.now() < REFUSED_SECONDS + 1:  # over, or set back
            del self._until[host]
            until = None
        return until is not None


def is_for_want_of_a_name(outcome: Outcome) -> bool:
    """Whether a reply says that our address has no name: over the other family it may be otherwise."""
    if outcome.kind == "delivered" or not outcome.code:
        return False
    return outcome.enhanced in _NO_NAME or (outcome.enhanced in _OF_POLICY and _NAMED.search(outcome.text) is not None)
