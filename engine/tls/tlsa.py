"""Which TLSA records bind a host: asked for only where DNS answers are secure (RFC 7672 2)."""

import asyncio
from typing import cast

import dns.name
import dns.rdatatype
from dns.rdatatype import RdataType

from engine.dns.answers import TlsaData, text_of
from engine.dns.lookups import DomainNotFound, Followed, Lookups, MXError, name_of
from engine.tls.dane import Dane, Tlsa, usable
from engine.tls.demand import SecurityUnknown


class TlsaLookup:
    """Asks for TLSA records. `lookups` must ask a resolver that validates, over a way that can be trusted."""

    def __init__(self, lookups: Lookups) -> None:
        self._lookups = lookups

    async def of(self, destination: str, host: str, port: int, *, by_mx: bool = True) -> Dane | None:
        """What binds the host; None: it has no secure TLSA records. No `records`: none of them can be used.

        `by_mx`: the host was found as an exchange of `destination`, not named by a setting. Raises SecurityUnknown,
        and MXError where the host's addresses cannot be had.
        """
        for base in await self._bases(name_of(host)):
            found = await self._records(base, port)
            if found is None or not found.secure or not found.records:
                continue
            records = [cast(TlsaData, record) for record in found.records]
            return Dane(
                owner=f"_{port}._tcp.{text_of(base)}",
                records=usable(
                    [Tlsa(record.usage, record.selector, record.matching, record.data) for record in records]
                ),
                names=await self._names(destination, host, base, by_mx=by_mx),
            )
        return None

    async def _bases(self, host: dns.name.Name) -> list[dns.name.Name]:
        """The names that TLSA records may stand under, best first: none where the addresses are not secure.

        RFC 7672 2.2.2, 2.2.3: a zone that is not signed is not asked, since its servers may choke on the question.
        Of an alias, the canonical name comes first if the whole way to it is secure; else only the alias itself.
        """
        families = await asyncio.gather(
            self._ask(host, dns.rdatatype.A), self._ask(host, dns.rdatatype.AAAA), return_exceptions=True
        )
        found = [family for family in families if isinstance(family, Followed) and family.records]
        if not found:
            # One that could not be asked for is no "none": it may answer a moment later, to whoever dials.
            for error in families:
                if isinstance(error, BaseException):
                    raise error
            return []
        canonical = found[0].name
        if all(family.secure for family in found):
            return list(dict.fromkeys([canonical, host]))
        if canonical != host and (alias := await self._ask(host, dns.rdatatype.CNAME)) and alias.secure:
            return [host]
        return []

    async def _ask(self, name: dns.name.Name, rdtype: RdataType) -> Followed | None:
        """Records and where they are; None where the name does not exist."""
        try:
            return await self._lookups.trace(name, rdtype)
        except DomainNotFound:
            return None

    async def _records(self, base: dns.name.Name, port: int) -> Followed | None:
        """The TLSA records under a name of a signed zone; an error there is no "no" (RFC 7672 2.1.2)."""
        try:
            return await self._ask(name_of(f"_{port}._tcp.{text_of(base)}"), dns.rdatatype.TLSA)
        except MXError as error:
            raise SecurityUnknown(f"DANE: the TLSA records of {text_of(base)} cannot be had: {error}") from error

    async def _names(self, destination: str, host: str, base: dns.name.Name, *, by_mx: bool) -> tuple[str, ...]:
        """The names a certificate may bear (RFC 7672 3.2.2): the base, and those from which it was had securely."""
        names = [text_of(base)]
        if not by_mx:
            names.append(host)
        else:
            try:
                mx = await self._lookups.trace(name_of(destination), dns.rdatatype.MX)
            except MXError:
                return tuple(names)
            if mx.secure:
                names += [destination, text_of(mx.name)]
        return tuple(dict.fromkeys(names))
