"""Which way a destination's mail goes: to its mail exchanges, or to the upstream host a route names.

The way of a message, 5 of 7: here its hosts are found. From engine.delivery.relayer; on to engine.smtpclient.session.
"""

import hashlib
import ipaddress
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from engine.base.address import pattern_for
from engine.base.clock import Clock
from engine.delivery.egress import Egress, Ipv6Refusals
from engine.dns.hosts_file import HostsFile
from engine.dns.mx import (
    MOST_EXCHANGES,
    AllMarkedBad,
    Exchange,
    LookupFailed,
    MXCalculator,
    MXError,
    NoExchange,
    OwnName,
)
from engine.login.login import Login
from engine.model.destination import Override
from engine.model.event import ENGINE
from engine.queue.contract import Standing
from engine.settings.ourselves import Ourselves, is_localhost, is_number, is_within, leads_nowhere
from engine.settings.settings import Delivery, Route
from engine.smtpclient.target import Target
from engine.tls.demand import TlsDemand
from engine.tls.policy import TlsPolicy

LONGEST_SITE = 255  # characters; of longer lists of hosts a digest stands for the name
_APART = " with "  # between the hosts of a site and what its mail demands of them
_HOSTS_ASKED = 3  # what they demand of TLS, before it is said that nobody knows
MAX_ADDRESSES = 10  # tried for one host; a host may have a hundred


class LeadsHere(MXError):
    """This relay itself is the host for now, and another may be: the mail waits for that (RFC 3463 3.5, X.4.6).

    An operator named it, or a better host has no address.
    """

    enhanced = "4.4.6"


class NetworkRefused(MXError):
    """All addresses of a host lie in networks that the settings refuse.

    For good, as Exim and whoever has Postfix's check_recipient_mx_access do: it is a rule of this relay, which no
    waiting changes, and the sender is told at once (RFC 3463 3.8, X.7.1: of use only as a permanent error).
    """

    permanent = True
    enhanced = "5.7.1"
    cause = "policy"


class OtherFamily(MXError):
    """A host has addresses, and none of those that the settings let mail go over; nobody's mail is returned for it."""

    enhanced = "4.4.4"
    cause = "policy"


class Way(Struct, frozen=True, kw_only=True):
    """The hosts to try for a destination, best first, and the route or the operator's override that named them.

    With an override the route that it stands in for is given, too: what that asks of TLS still holds. `hosts` are the
    best it has, by preference, those too that an operator marked bad; 20 at the most. `site` names them: what may go
    over the same connections has the same.
    """

    destination: str
    exchanges: tuple[Exchange, ...]
    route: Route | None = None
    override: Override | None = None
    hosts: tuple[str, ...] = ()
    site: str = ""

    @property
    def is_by_dns(self) -> bool:
        """Whether the DNS named the hosts, or the address of the mail itself; no operator did."""
        return self.route is None and self.override is None

    @property
    def leaves_some_out(self) -> bool:
        """Whether it has hosts that are not tried, because operators marked them bad."""
        return bool(set(self.hosts) - {exchange.host for exchange in self.exchanges})


class Router:
    """Finds the way. An operator's override comes before all, then the most particular route for the domain, and MX.

    `logins` holds the login of each route that has a user name, by the route's domain. `tls` says how
    connections are to be secured; `ourselves` which hosts are this relay. No address in the networks that `delivery`
    refuses is given, but to an operator who names it. `draw` is where chance comes from. What an operator names may
    have its address in the `hosts_file` of this machine.
    """

    def __init__(
        self,
        mx: MXCalculator,
        *,
        delivery: Delivery,
        tls: TlsPolicy,
        ourselves: Ourselves,
        routes: Sequence[Route] = (),
        logins: Mapping[str, Login] | None = None,
        standing: Standing | None = None,
        clock: Clock,
        draw: random.Random | None = None,
        hosts_file: HostsFile | None = None,
    ) -> None:
        self._ourselves = ourselves
        self._refused = delivery.refuse_networks
        self.ipv6_refusals = Ipv6Refusals(clock)
        self._egress = Egress.of(delivery)
        self._egresses = {route.domain: Egress.of(delivery, route) for route in routes}
        self.tls = tls
        self._mx = mx
        self._port = delivery.port
        self._chunking = delivery.chunking
        self._routes = {route.domain: route for route in routes}
        self._logins = logins or {}
        self._standing = standing
        self._draw = draw or random.SystemRandom()
        self._hosts_file = hosts_file or HostsFile()

    async def way(self, destination: str) -> Way:
        """Give the hosts for a destination. Raises MXError, whose outcome the mail has; QueueError."""
        route = self.route(destination)
        override = await self._standing.override(destination) if self._standing is not None else None
        if override is not None:
            site = _site(f"{override.host}:{override.port or self._port}", "by override")
            upstream = self._upstream((override.host,), site)
            return Way(
                destination=destination,
                exchanges=upstream,
                route=route,
                override=override,
                hosts=(override.host,),
                site=site,
            )
        if route is not None:
            # A login is the route's own: what goes over its connections goes under its name.
            site = _site(
                *(f"{host}:{route.port}" for host in route.hosts),
                f"by route as {route.username or 'anybody'}",
                *filter(None, (Egress.of(Delivery(), route).words,)),
            )
            upstream = self._upstream(self._in_order(route), site)
            return Way(destination=destination, exchanges=upstream, route=route, hosts=route.hosts, site=site)
        candidates = await self._mx.candidates(destination)
        best = sorted(candidates, key=lambda exchange: (exchange.preference, exchange.host))[:MOST_EXCHANGES]
        hosts = tuple(exchange.host for exchange in best)
        site = _site(*sorted(hosts))
        exchanges = self._mx.allowed(destination, candidates, site)
        return Way(destination=destination, exchanges=tuple(exchanges), hosts=hosts, site=site)

    def _in_order(self, route: Route) -> Sequence[str]:
        """The hosts of a route in the order to try them: as they are named, or drawn by their weights, each once."""
        if not route.weights:
            return route.hosts
        # Each host has a time that is the shorter, on average, the more it weighs (Efraimidis and Spirakis, 2006).
        times = {
            host: self._draw.expovariate(weight) if weight else math.inf
            for host, weight in zip(route.hosts, route.weights, strict=True)
        }
        return sorted(route.hosts, key=times.__getitem__)

    def _upstream(self, hosts: Sequence[str], site: str) -> tuple[Exchange, ...]:
        """The hosts that an operator named, but for those that one has marked bad; what we have marked comes last."""
        named = [Exchange(host=host, preference=place, mark=self._mx.mark(host)) for place, host in enumerate(hosts)]
        marks = [exchange.mark for exchange in named if exchange.mark is not None and exchange.mark.by != ENGINE]
        if len(marks) == len(named):
            why = "; ".join(
                f"{mark.host} is marked bad by {mark.by}" + (f" ({mark.note})" if mark.note else "") for mark in marks
            )
            raise AllMarkedBad(why, until=min(mark.until for mark in marks), hosts=tuple(hosts), site=site)
        left = [exchange for exchange in named if exchange.mark not in marks]
        return tuple(sorted(left, key=lambda exchange: exchange.mark is not None))

    async def apart(self, way: Way) -> Way:
        """The same way, its site named for what its mail demands besides: who demands more has connections of its own.

        So a policy that only one of many domains has keeps no other's mail from going. Raises QueueError.
        """
        demanded = await self._demanded(way)
        return replace(way, site=f"{way.site}{_APART}{demanded}") if demanded else way

    async def _demanded(self, way: Way) -> str:
        if self.tls.by_settings(way.destination, way.route).level == "none":
            return "no TLS"
        for host in way.hosts[:_HOSTS_ASKED]:
            with suppress(MXError):  # said when this host is tried
                demand = await self.demand(way, host)
                return demand.kind if demand.is_must else ""
        return f"what {way.destination} demands"

    def route(self, destination: str) -> Route | None:
        """The route that the settings have for a destination."""
        return self._routes.get(pattern_for(destination, self._routes) or "*")

    def spoken_to(self, host: str, port: int = 0) -> tuple[int, Path | None]:
        """At which port a host is spoken to, and whose authorities (None: the system's) judge its certificate.

        They are those of the route to it, at `port` where there are several; else those of all mail. `port` 0: the
        route's, or the usual one.
        """
        to_it = [route for route in self._routes.values() if host in route.hosts]
        route = next((route for route in to_it if route.port == port), to_it[0] if to_it else None)
        if route is None:
            return port or self._port, self.tls.by_settings("", None).ca_file
        return port or route.port, self.tls.by_settings(route.domain, route).ca_file

    async def targets(self, way: Way, exchange: Exchange) -> AsyncIterator[Target]:
        """Give the addresses of one host, in the order to try.

        Raises OwnName where it is this relay: then neither it nor any host that is no better is to be tried (RFC 5321
        5.1); another MXError when it has none or is not to be tried, and QueueError as TlsPolicy.demand does.
        """
        demand = await self.demand(way, exchange.host)
        port, egress = self._port_of(way), self._egress_of(way)
        # No login is given to another host than the one it is for.
        route = way.route if way.override is None else None
        for address in self._allowed(way, exchange.host, await self._addresses(way, exchange.host)):
            yield Target(
                host=exchange.host,
                address=address,
                port=port,
                source=egress.source(address),
                hello=egress.hello,
                is_named=not way.is_by_dns,
                form="SMTP" if route is not None and route.form == "smtp" else "ESMTP",
                chunking=((route.chunking if route is not None else None) or self._chunking) == "offered",
                demand=demand,
                tls_at_once=route is not None and route.tls == "implicit",
                login=self._logins.get(route.domain) if route is not None else None,
            )

    def _port_of(self, way: Way) -> int:
        if way.override is not None:
            return way.override.port or self._port
        return self._port if way.route is None else way.route.port

    def _allowed(self, way: Way, host: str, addresses: Sequence[str]) -> Sequence[str]:
        """Of a host's addresses those that mail may be sent to. Raises as `targets`, never gives none."""
        port = self._port_of(way)
        for address in addresses:
            if why := self._ourselves.why(address, port, by_dns=way.is_by_dns):
                raise loop(way, f"{host} has the address {address}, {why}")
        found = [address for address in addresses if not leads_nowhere(address)]
        if not found:
            raise NoExchange(f"no address of the host {host} is one that mail can be sent to: {addresses[0]}")
        if way.is_by_dns and not (found := [address for address in found if not is_within(address, self._refused)]):
            raise NetworkRefused(f"this relay sends no mail to the network of {host} (delivery.refuse_networks)")
        egress = self._egress_of(way)
        chosen = egress.in_order(found, without_ipv6=self.ipv6_refusals.is_refused(host))
        if not chosen:
            raise OtherFamily(f"{host} has no address of the family that mail goes over here ({egress.family})")
        return chosen[:MAX_ADDRESSES]

    def _egress_of(self, way: Way) -> Egress:
        """Whence mail goes on this way: an override leads elsewhere, but not from elsewhere."""
        return self._egress if way.route is None else self._egresses[way.route.domain]

    async def dead_end(self, way: Way) -> MXError | None:
        """Why nobody is dialled on a way, for good or until an operator acts; None where somebody may be.

        Raises QueueError as TlsPolicy.demand does.
        """
        found: MXError | None = None
        for exchange in way.exchanges:
            try:
                async for _ in self.targets(way, exchange):
                    return None
            except MXError as error:
                found = untried(found, error)
                if isinstance(error, OwnName):
                    break
        if found is None or way.leaves_some_out:
            return None
        return found if found.permanent or isinstance(found, LeadsHere) else None

    async def ours(self, host: str, port: int = 0) -> str:
        """Why a host that an operator names is this relay itself, in words, or ""; `port` 0: the usual one.

        Raises MXError where the DNS does not say its addresses.
        """
        if is_number(host):
            return f"{host} is a number, which on every machine may mean itself"
        for address in await self.addresses(host, by_dns=False):
            if why := self._ourselves.why(address, port or self._port, by_dns=False):
                return f"{host} has the address {address}, {why}" if address != host else f"{host} is an address, {why}"
        return ""

    async def demand_of(self, destination: str, host: str) -> TlsDemand:
        """What `demand` gives for a host of a destination's route, or of its exchanges; raises as that does."""
        return await self.demand(Way(destination=destination, exchanges=(), route=self.route(destination)), host)

    async def demand(self, way: Way, host: str) -> TlsDemand:
        """How the connection to a host of this way must be secured, and why; raises as TlsPolicy.demand."""
        if way.override is not None:
            return self.tls.by_settings(way.destination, way.route)
        port = self._port if way.route is None else way.route.port
        return await self.tls.demand(way.destination, host, port=port, route=way.route)

    async def _addresses(self, way: Way, host: str) -> list[str]:
        try:
            return await self.addresses(host, by_dns=way.is_by_dns)
        except MXError as error:
            if way.is_by_dns or error.outcome.kind == "transient":
                raise
            # A slip of ours must not return mail: that is for the domain's own DNS alone to say.
            raise LookupFailed(f"the mail is {_how(way)} to {host}: {error.outcome.text}") from error

    async def addresses(self, host: str, *, by_dns: bool = True) -> list[str]:
        """The addresses of a host, or itself where it is one. Raises MXError.

        A host that an operator names, in a route or not `by_dns`, has those that this machine's hosts file gives it.
        """
        with suppress(ValueError):
            return [str(ipaddress.ip_address(host))]
        is_named = not by_dns or any(host in route.hosts for route in self._routes.values())
        if is_named and (found := self._hosts_file.addresses(host)):
            return found
        try:
            return await self._mx.addresses(host)
        except MXError:
            if is_localhost(host):
                return ["::1", "127.0.0.1"]  # RFC 6761 6.3: even where the DNS does not know it
            raise


def _how(way: Way) -> str:
    return "routed" if way.override is None else "overridden"


def loop(way: Way, what: str) -> MXError:
    """What it means that a host of this way is this relay itself, as `what` says: OwnName, or LeadsHere."""
    if way.is_by_dns:
        return OwnName(f"mail for {way.destination} loops back to this relay: {what}")
    return LeadsHere(f"the mail is {_how(way)} to this relay itself: {what}")


def untried(before: MXError | None, error: MXError) -> MXError:
    """What is said of hosts none of which was dialled: `before` of those looked at first, `error` of the last.

    The transient comes before the permanent, since "for good" takes all of them. That we are the next best is not for
    good where a better host is named, even if it has no address now (as Postfix has it); that we refuse it is.
    """
    if before is None:
        return error
    ours, other = (error, before) if isinstance(error, OwnName) else (before, error)
    if isinstance(ours, OwnName) and not isinstance(other, OwnName | NetworkRefused):
        return LeadsHere(f"{ours.outcome.text}; and no better host is to be had: {other.outcome.text}")
    return error if before.permanent else before


def has_hosts_of(site: str, other: str) -> bool:
    """Whether two names of sites are those of the same hosts, whatever their mail demands of them."""
    return site.partition(_APART)[0] == other.partition(_APART)[0]


def _site(*parts: str) -> str:
    name = " ".join(parts)
    if len(name) <= LONGEST_SITE:
        return name
    return f"{name[:100]}... {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()}"
