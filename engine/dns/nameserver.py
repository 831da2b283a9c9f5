"""One name server, asked over UDP and TCP; how much of an answer is read, and how much of that is parsed, is bounded.

dnspython parses a record in some 50 microseconds: 64 KB of them hold the loop for a tenth of a second and more, for
each question that somebody makes us ask. So the size is looked at before an answer is read, and the numbers in its
header before it is parsed.
"""

import asyncio
import struct
from collections.abc import Mapping
from typing import Any, cast

import dns.asyncquery
import dns.exception
import dns.flags
import dns.inet
import dns.message
import dns.nameserver
import dns.query
import dns.rcode
import dns.rdatatype
from dns.rdatatype import RdataType

from engine.dns.answers import MOST_RECORDS

EDNS_PAYLOAD = 1232  # bytes; what passes everywhere without fragments (DNS flag day 2020)

# Bytes of an answer over TCP, by what is asked for: several times what the records need that are kept of it.
LARGEST: Mapping[RdataType, int] = {
    dns.rdatatype.A: 8 * 1024,  # a hundred have 1.6 KB
    dns.rdatatype.AAAA: 8 * 1024,  # 2.8 KB
    dns.rdatatype.MX: 16 * 1024,  # 4 KB, and a resolver may add the addresses of them all
    dns.rdatatype.TLSA: 16 * 1024,  # 8 KB of SHA-512; a whole certificate has 1 to 3 KB
}
LARGEST_OTHER = 8 * 1024  # bytes: CNAME, TXT

# Records that are parsed of one answer: those of one set, the canonical names before them (dnspython follows 16), and
# some that say how long there is nothing (SOA) and what the server can do (OPT).
MOST_PARSED = MOST_RECORDS + 28

MOST_DATAGRAMS = 32  # that wait to be looked at; of more the rest is dropped, as the kernel does

_COUNTS = struct.Struct("!4H")  # of the questions and of the records of three sections (RFC 1035 4.1.1)
_COUNTS_AT = 4
_TRUNCATED_AT, _TRUNCATED = 2, 0x02  # the octet of the header that has TC, and its bit


class AnswerTooLarge(dns.exception.FormError):
    """An answer is larger than any we can use. As after one that is garbage, the server is not asked again for it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)  # type: ignore[no-untyped-call]


class BoundedNameserver(dns.nameserver.Do53Nameserver):
    """A name server of which no answer is read that is larger than `LARGEST`."""

    async def async_query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,  # noqa: ARG002
        source_port: int,  # noqa: ARG002
        max_size: bool,
        backend: Any,  # noqa: ARG002
        one_rr_per_rrset: bool = False,  # noqa: ARG002
        ignore_trailing: bool = False,  # noqa: ARG002
    ) -> dns.message.Message:
        """Ask over TCP where `max_size`, else over UDP. Raises what dnspython's own does, and AnswerTooLarge."""
        if max_size:
            return await self._over_tcp(request, timeout)
        datagrams = _Datagrams(dns.inet.af_for_address(self.address))
        try:
            await datagrams.open()
            return await dns.asyncquery.udp(
                request,
                self.address,
                timeout=timeout,
                port=self.port,
                sock=datagrams,
                raise_on_truncation=True,
                ignore_errors=True,
                ignore_unexpected=True,
            )
        finally:
            datagrams.close()

    async def _over_tcp(self, request: dns.message.QueryMessage, timeout: float) -> dns.message.Message:
        """RFC 1035 4.2.2: the length comes first."""
        rdtype = request.question[0].rdtype
        bound = LARGEST.get(rdtype, LARGEST_OTHER)
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(self.address, self.port, limit=bound)
                try:
                    writer.write(request.to_wire(prepend_length=True))
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    if length > bound:
                        what = dns.rdatatype.to_text(rdtype)
                        raise AnswerTooLarge(
                            f"the answer has {length:,} bytes; of more than {bound:,} none is read for {what}"
                        )
                    wire = await reader.readexactly(length)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            raise dns.exception.Timeout(timeout=timeout) from error  # type: ignore[no-untyped-call]
        response = parsed(wire)
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response


def parsed(wire: bytes) -> dns.message.Message:
    """Parse the first MOST_PARSED records of an answer. Raises what dns.message.from_wire does, and AnswerTooLarge.

    What is cut is never taken for "there is nothing": where the rest says neither records nor an alias, it is refused.
    """
    if len(wire) < _COUNTS_AT + _COUNTS.size:
        raise dns.message.ShortHeader
    questions, *counts = _COUNTS.unpack_from(wire, _COUNTS_AT)
    if questions > 1:  # RFC 9619: there is never more than one
        raise dns.query.BadResponse
    left, cut = MOST_PARSED, []
    for count in counts:
        cut.append(min(count, left))
        left -= cut[-1]
    if cut == counts:
        return dns.message.from_wire(wire)
    head, rest = wire[:_COUNTS_AT], wire[_COUNTS_AT + _COUNTS.size :]
    message = dns.message.from_wire(head + _COUNTS.pack(questions, *cut) + rest, ignore_trailing=True)
    if cut[0] < counts[0] and message.rcode() == dns.rcode.NOERROR and not _says_something(message):
        raise AnswerTooLarge(f"the answer has {counts[0]:,} records, and the first {cut[0]} are not what was asked for")
    return message


def _says_something(message: dns.message.Message) -> bool:
    if not isinstance(message, dns.message.QueryMessage):  # it answers no question
        return False
    found = message.resolve_chaining()
    return found.answer is not None or bool(found.cnames)


class _Datagrams(asyncio.DatagramProtocol):
    """The socket of one question, as dnspython uses one; of a datagram longer than we said we take the rest is missing.

    So it is one that is truncated, which is asked for once more over TCP. dnspython's own would stay open where whoever
    asks is cancelled while it is made: uvloop does not close it then, and only its protocol ever learns of it.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self._came: asyncio.Queue[tuple[bytes, Any] | Exception] = asyncio.Queue(MOST_DATAGRAMS)
        self._transport: asyncio.DatagramTransport | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Make it. Raises OSError."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, family=self.family)

    def close(self) -> None:
        """Close it, or have it closed as soon as it is made."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is made."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        if self._is_closed:
            self._transport.abort()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Keep what has come until it is asked for."""
        if len(data) > EDNS_PAYLOAD:
            head = bytearray(data[:EDNS_PAYLOAD])
            head[_TRUNCATED_AT] |= _TRUNCATED
            data = bytes(head)
        self._keep((data, addr))

    def error_received(self, exc: Exception) -> None:
        """Keep it: whoever asks next raises it."""
        self._keep(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing will come any more."""
        self._keep(exc or EOFError("the socket was closed"))

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:  # noqa: ARG002
        """Send a question; this waits for nothing."""
        assert self._transport is not None
        self._transport.sendto(what, destination)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:  # noqa: ARG002
        """A datagram and who sent it. Raises dns.exception.Timeout, OSError."""
        try:
            async with asyncio.timeout(timeout):
                came = await self._came.get()
        except TimeoutError as error:
            raise dns.exception.Timeout(timeout=timeout) from error  # type: ignore[no-untyped-call]
        if isinstance(came, Exception):
            raise came
        return came

    def _keep(self, came: tuple[bytes, Any] | Exception) -> None:
        if not self._came.full():
            self._came.put_nowait(came)
