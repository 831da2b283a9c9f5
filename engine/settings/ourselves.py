"""Which hosts and addresses are this relay itself: mail sent there would come back (RFC 5321 5.1, 6.3).

A host is we ourselves where its address and port are ones that we listen on; where it has a name or an address that
every machine has of itself; and, named by the DNS, where its address is on loopback. What the DNS says of 127.0.0.1 is
said of this machine by somebody who does not know it, and 127.0.0.1 at the port for mail is ours, or a neighbour's who
expects no mail of strangers. An operator who names a host knows it: there, only what we listen on counts.
"""

import ipaddress
import re
import time
from collections.abc import Callable, Collection, Iterable

import ifaddr

from engine.settings.kinds import Listen, Network
from engine.settings.settings import Settings

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # RFC 1122 3.2.1.3: "this host", and nobody's to be sent to
_BROADCAST = ipaddress.ip_address("255.255.255.255")

# What inet_aton(3) takes for an address. No top-level domain is a number (RFC 3696 2), so that it is no host's name.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)
_INTERFACES_SECONDS = 10.0  # that are trusted before the system is asked again which addresses it has


def is_localhost(host: str) -> bool:
    """Whether a host is `localhost`, or below it: on every machine itself, whatever the DNS says (RFC 6761 6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def is_number(host: str) -> bool:
    """Whether the name of a host is a number, such as 2130706433 or 127.1; four numbers with dots are an address."""
    return _NUMBER.fullmatch(host) is not None and address_in(host) is None


def address_in(text: str) -> IpAddress | None:
    """The address that a text is, None where it is none. One of IPv4 that is written as IPv6 is one of IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        return found.ipv4_mapped or ipaddress.IPv6Address(int(found))  # without a zone
    return found


def leads_nowhere(address: str) -> bool:
    """Whether an address is no single host's: multicast and broadcast."""
    found = address_in(address)
    return found is not None and (found.is_multicast or found == _BROADCAST)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of these networks."""
    found = address_in(address)
    return found is not None and any(found in network for network in networks)


class Ourselves:
    """Says of hosts whether they are this relay.

    `names` are what it is called. `listening` gives where it takes mail at this moment, in addresses and ports, the
    port as the system chose it; `interfaces` the addresses that the machine has, which is what "0.0.0.0" and "::" mean
    there. `loopback_exchanges`: the DNS may name hosts on loopback (a sandbox).
    """

    def __init__(
        self,
        *,
        names: Iterable[str] = (),
        listening: Callable[[], Iterable[Listen]] = tuple,
        loopback_exchanges: bool = False,
        interfaces: Callable[[], Collection[IpAddress]] | None = None,
    ) -> None:
        self._names = frozenset(name.lower().removesuffix(".") for name in names)
        self._listening = listening
        self._loopback_exchanges = loopback_exchanges
        self._interfaces = interfaces or Interfaces()

    def is_named(self, host: str) -> bool:
        """Whether the name of an exchange says that it is we: our own, or localhost."""
        return host in self._names or is_localhost(host)

    def why(self, address: str, port: int, *, by_dns: bool) -> str:
        """Why whoever connects to this address and port meets ourselves, as what is said of the address; or "".

        `by_dns`: a stranger named it, no operator.
        """
        found = address_in(address)
        if found is None:
            return ""
        if found.is_unspecified or (found.version == 4 and found in _THIS_NETWORK):
            return "which on every machine means itself"
        if by_dns and found.is_loopback and not self._loopback_exchanges:
            return "which is this machine itself"
        for listen in self._listening():
            if listen.port == port and self._is_at(listen.host, found):
                return f"where this relay listens, on {listen}"
        return ""

    def _is_at(self, listening: str, address: IpAddress) -> bool:
        if is_localhost(listening):
            return address.is_loopback
        bound = address_in(listening)
        if bound is None or not bound.is_unspecified:
            return bound == address
        return bound.version == address.version and (address.is_loopback or address in self._interfaces())


class Interfaces:
    """The addresses of this machine's interfaces, asked for again after a few seconds: they may change."""

    def __init__(self) -> None:
        self._found: frozenset[IpAddress] = frozenset()
        self._asked: float | None = None

    def __call__(self) -> frozenset[IpAddress]:
        now = time.monotonic()
        if self._asked is None or now - self._asked > _INTERFACES_SECONDS:
            self._found, self._asked = _interfaces(), now
        return self._found


def _interfaces() -> frozenset[IpAddress]:
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    texts = (ip if isinstance(ip, str) else ip[0] for ip in ips)  # of IPv6 with flow and scope
    return frozenset(found for text in texts if (found := address_in(text)) is not None)


def listening_by(settings: Settings) -> tuple[Listen, ...]:
    """Where a relay with these settings takes mail, as far as they say: a port 0 is chosen later."""
    intake = settings.intake
    every = (*intake.smtp.listen, *intake.submission.listen, *intake.submission.listen_tls)
    return tuple(listen for listen in every if isinstance(listen, Listen) and listen.port)


def routes_here(settings: Settings) -> list[str]:
    """What is wrong with routes that lead to this relay itself: each problem names the key, what it is, what may be."""
    ours = Ourselves(listening=lambda: listening_by(settings))
    return [
        f"route[{position}].host: mail would come back: {host} is an address, {why}; allowed is any host and port but"
        " this relay's own"
        for position, route in enumerate(settings.route)
        for host in route.hosts
        if (why := ours.why("127.0.0.1" if is_localhost(host) else host, route.port, by_dns=False))
    ]
