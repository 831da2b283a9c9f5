"""Which way a destination's mail goes: to its mail exchanges, or to the upstream host a route names."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from engine.config import Route
from engine.events import ENGINE
from engine.mx import AllMarkedBad, Exchange, LookupFailed, MXCalculator, MXError
from engine.queue.steering import Override
from engine.tls.demand import TlsDemand
from engine.tls.policy import TlsPolicy

MAX_ADDRESSES = 10  # tried for one host; a host may have a hundred


class Target(Struct, frozen=True, kw_only=True):
    """One place to try: an address of a host, and how to speak to it.

    `demand` is what its TLS must be like. A password is sent under TLS only, to a host whose certificate is right by
    the system's authorities or those of the demand's `ca_file`.
    """

    host: str
    address: str
    port: int
    demand: TlsDemand = TlsDemand()
    username: str = ""
    password: str = ""


class Way(Struct, frozen=True, kw_only=True):
    """The hosts to try for a destination, best first, and the route or the operator's override that named them.

    With an override the route that it stands in for is given, too: what that asks of TLS still holds.
    """

    destination: str
    exchanges: tuple[Exchange, ...]
    route: Route | None = None
    override: Override | None = None


class Overrides(Protocol):
    """Where the destinations are kept that operators send elsewhere: the queue."""

    async def override(self, destination: str) -> Override | None:
        """The override in force for a destination."""
        ...


class Router:
    """Finds the way. An operator's override comes before all, then the route for the domain, that for "*", and MX.

    `passwords` holds the password of each route that has a user name, by the route's domain. `tls` says how
    connections are to be secured.
    """

    def __init__(
        self,
        mx: MXCalculator,
        *,
        port: int,
        tls: TlsPolicy,
        routes: Sequence[Route] = (),
        passwords: dict[str, str] | None = None,
        overrides: Overrides | None = None,
    ) -> None:
        self.tls = tls
        self._mx = mx
        self._port = port
        self._routes = {route.domain: route for route in routes}
        self._passwords = passwords or {}
        self._overrides = overrides

    async def way(self, destination: str) -> Way:
        """Give the hosts for a destination. Raises MXError, whose outcome the mail has; QueueError."""
        route = self.route(destination)
        override = await self._overrides.override(destination) if self._overrides is not None else None
        if override is not None:
            upstream = self._upstream(override.host)
            return Way(destination=destination, exchanges=(upstream,), route=route, override=override)
        if route is None:
            exchanges = await self._mx.exchanges(destination)
            return Way(destination=destination, exchanges=tuple(exchanges))
        return Way(destination=destination, exchanges=(self._upstream(route.host),), route=route)

    def route(self, destination: str) -> Route | None:
        """The route that the settings have for a destination."""
        return self._routes.get(destination) or self._routes.get("*")

    def _upstream(self, host: str) -> Exchange:
        mark = self._mx.mark(host)
        if mark is not None and mark.by != ENGINE:
            why = f"{host} is marked bad by {mark.by} ({mark.reason})"
            raise AllMarkedBad(why, until=mark.until, hosts=(host,))
        return Exchange(host=host, preference=0, mark=mark)

    async def targets(self, way: Way, exchange: Exchange) -> AsyncIterator[Target]:
        """Give the addresses of one host, in the order to try.

        Raises MXError when it has none or is not to be tried, and QueueError as TlsPolicy.demand does.
        """
        demand = await self.demand(way, exchange.host)
        for address in (await self._addresses(way, exchange.host))[:MAX_ADDRESSES]:
            if way.override is not None:
                # No password goes to another host than the one it is for.
                port = way.override.port or self._port
                yield Target(host=exchange.host, address=address, port=port, demand=demand)
            elif way.route is None:
                yield Target(host=exchange.host, address=address, port=self._port, demand=demand)
            else:
                yield Target(
                    host=exchange.host,
                    address=address,
                    port=way.route.port,
                    demand=demand,
                    username=way.route.username,
                    password=self._passwords.get(way.route.domain, ""),
                )

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
            return await self.addresses(host)
        except MXError as error:
            if way.override is None or error.outcome.kind == "transient":
                raise
            # An operator's slip must not return mail: that is for the domain's own DNS alone to say.
            raise LookupFailed(f"the mail is overridden to {host}: {error.outcome.text}") from error

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host, or itself where it is one. Raises MXError."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            return await self._mx.addresses(host)


def read_passwords(routes: Sequence[Route]) -> dict[str, str]:
    """Read the password of each route that names a file for it; that it can be read was checked with the settings."""
    return {
        route.domain: Path(route.password_file).read_text(encoding="utf-8").strip()
        for route in routes
        if route.password_file
    }
