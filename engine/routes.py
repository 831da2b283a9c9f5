"""Which way a destination's mail goes: to its mail exchanges, or to the upstream host a route names."""

import ipaddress
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec import Struct

from engine.config import Route
from engine.events import ENGINE
from engine.mx import AllMarkedBad, Exchange, MXCalculator
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
    """The hosts to try for a destination, best first, and the route that named them, if one did."""

    destination: str
    exchanges: tuple[Exchange, ...]
    route: Route | None = None


class Router:
    """Finds the way. A route for the domain itself comes before the route for "*", and that before MX.

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
    ) -> None:
        self.tls = tls
        self._mx = mx
        self._port = port
        self._routes = {route.domain: route for route in routes}
        self._passwords = passwords or {}

    async def way(self, destination: str) -> Way:
        """Give the hosts for a destination. Raises MXError, whose outcome is what becomes of the mail."""
        route = self._routes.get(destination) or self._routes.get("*")
        if route is None:
            exchanges = await self._mx.exchanges(destination)
            return Way(destination=destination, exchanges=tuple(exchanges))
        mark = self._mx.mark(route.host)
        if mark is not None and mark.by != ENGINE:
            why = f"{route.host} is marked bad by {mark.by} ({mark.reason})"
            raise AllMarkedBad(why, until=mark.until, hosts=(route.host,))
        upstream = Exchange(host=route.host, preference=0, mark=mark)
        return Way(destination=destination, exchanges=(upstream,), route=route)

    async def targets(self, way: Way, exchange: Exchange) -> AsyncIterator[Target]:
        """Give the addresses of one host, in the order to try.

        Raises MXError when it has none or is not to be tried, and QueueError as TlsPolicy.demand does.
        """
        demand = await self.demand(way, exchange.host)
        for address in (await self._addresses(exchange.host))[:MAX_ADDRESSES]:
            if way.route is None:
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

    async def demand(self, way: Way, host: str) -> TlsDemand:
        """How the connection to a host of this way must be secured, and why; raises as TlsPolicy.demand."""
        port = self._port if way.route is None else way.route.port
        return await self.tls.demand(way.destination, host, port=port, route=way.route)

    async def _addresses(self, host: str) -> list[str]:
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
