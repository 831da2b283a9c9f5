"""How clients of HTTPS find their servers: by the name servers that mail is sent by."""

import socket
from collections.abc import Sequence
from typing import cast

import dns.rdatatype
from aiohttp.abc import AbstractResolver, ResolveResult
from dns.rdatatype import RdataType

from engine.dns.lookups import Lookups, MXError, name_of
from engine.settings.kinds import Network
from engine.settings.ourselves import is_within

_MOST_ADDRESSES = 4


class HttpResolver(AbstractResolver):
    """Names by our own lookups: the system's resolver would block threads, and may see another DNS."""

    def __init__(self, lookups: Lookups, refused: Sequence[Network] = ()) -> None:
        self._lookups = lookups
        self._refused = refused

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002
    ) -> list[ResolveResult]:
        """Addresses of both families, whichever was asked for."""
        found: list[ResolveResult] = []
        trouble: MXError | None = None
        kinds = ((dns.rdatatype.AAAA, socket.AF_INET6), (dns.rdatatype.A, socket.AF_INET))
        for rdtype, kind in kinds:
            try:
                addresses = await self._addresses(host, rdtype)
            except MXError as error:
                trouble = error
                continue
            found += [
                ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
                for address in addresses[:_MOST_ADDRESSES]
            ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, str(trouble or f"{host} has no address"))
        return found

    async def close(self) -> None:
        """Nothing is kept."""

    async def _addresses(self, host: str, rdtype: RdataType) -> list[str]:
        _, records = await self._lookups.follow(name_of(host), rdtype)
        return [record for record in cast(tuple[str, ...], records) if not is_within(record, self._refused)]
