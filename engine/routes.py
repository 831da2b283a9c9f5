"""Which way a destination's mail goes: to its mail exchanges, or to the upstream host a route names."""

import hashlib
import ipaddress
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from engine.config import Route
from engine.events import ENGINE
from engine.mx import AllMarkedBad, Exchange, MXCalculator

LONGEST_SITE = 255  # characters; of longer lists of hosts a digest stands for the name
MAX_ADDRESSES = 10  # tried for one host; a host may have a hundred


class Target(Struct, frozen=True, kw_only=True):
    """One place to try: an address of a host, and how to speak to it.

    `tls`: "none" never asks for it, "opportunistic" takes it when offered and goes on without, "required" sends
    nothing without it. A password is sent under TLS only, to a host whose certificate is right by the system's
    authorities or those of `ca_file`.
    """

    host: str
    address: str
    port: int
    tls: Literal["none", "opportunistic", "required"] = "opportunistic"
    username: str = ""
    password: str = ""
    ca_file: Path | None = None


class Way(Struct, frozen=True, kw_only=True):
    """The hosts to try for a destination, best first, and the route that named them, if one did.

    `hosts` are all it has, by preference, those too that an operator marked bad. `site`: what may go over the same
    connection has the same.
    """

    destination: str
    exchanges: tuple[Exchange, ...]
    route: Route | None = None
    hosts: tuple[str, ...] = ()
    site: str = ""


class Router:
    """Finds the way. A route for the domain itself comes before the route for "*", and that before MX.

    `passwords` holds the password of each route that has a user name, by the route's domain.
    """

    def __init__(
        self, mx: MXCalculator, *, port: int, routes: Sequence[Route] = (), passwords: dict[str, str] | None = None
    ) -> None:
        self._mx = mx
        self._port = port
        self._routes = {route.domain: route for route in routes}
        self._passwords = passwords or {}

    async def way(self, destination: str) -> Way:
        """Give the hosts for a destination. Raises MXError, whose outcome is what becomes of the mail."""
        route = self._routes.get(destination) or self._routes.get("*")
        if route is None:
            candidates = await self._mx.candidates(destination)
            hosts = tuple(one.host for one in sorted(candidates, key=lambda one: (one.preference, one.host)))
            site = _site(*sorted(hosts))
            exchanges = self._mx.allowed(destination, candidates, site)
            return Way(destination=destination, exchanges=tuple(exchanges), hosts=hosts, site=site)
        # A login is the route's own: what goes over its connections goes under its name.
        site = _site(f"{route.host}:{route.port}", f"tls={route.tls}", f"user={route.username}", str(route.ca_file))
        mark = self._mx.mark(route.host)
        if mark is not None and mark.by != ENGINE:
            why = f"{route.host} is marked bad by {mark.by} ({mark.reason})"
            raise AllMarkedBad(why, until=mark.until, hosts=(route.host,), site=site)
        upstream = Exchange(host=route.host, preference=0, mark=mark)
        return Way(destination=destination, exchanges=(upstream,), route=route, hosts=(route.host,), site=site)

    async def targets(self, way: Way, exchange: Exchange) -> AsyncIterator[Target]:
        """Give the addresses of one host, in the order to try. Raises MXError when it has none."""
        for address in (await self._addresses(exchange.host))[:MAX_ADDRESSES]:
            if way.route is None:
                yield Target(host=exchange.host, address=address, port=self._port)
            else:
                yield Target(
                    host=exchange.host,
                    address=address,
                    port=way.route.port,
                    tls=way.route.tls,
                    username=way.route.username,
                    password=self._passwords.get(way.route.domain, ""),
                    ca_file=way.route.ca_file,
                )

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            return await self._mx.addresses(host)


def _site(*parts: str) -> str:
    name = " ".join(parts)
    if len(name) <= LONGEST_SITE:
        return name
    return f"{name[:100]}... {hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()}"


def read_passwords(routes: Sequence[Route]) -> dict[str, str]:
    """Read the password of each route that names a file for it; that it can be read was checked with the settings."""
    return {
        route.domain: Path(route.password_file).read_text(encoding="utf-8").strip()
        for route in routes
        if route.password_file
    }
