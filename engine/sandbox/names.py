"""The sandbox's name server: records given as data, over UDP and TCP on one port, with every fault one could wish.

It answers as a recursive resolver does: canonical names are followed inside the answer, unless told otherwise.
"""

import asyncio
import socket
import struct
from collections import Counter
from enum import Enum
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from engine.sandbox.serving import Connections

_PLAIN_UDP = 512  # bytes, without EDNS (RFC 1035 4.2.1)
_PATIENCE = 5.0  # seconds for a question over TCP to arrive
_MOST_CONNECTIONS = 50


class Fault(Enum):
    """How the server answers for a name, instead of with its records."""

    SERVFAIL = "answers SERVFAIL"
    REFUSED = "answers REFUSED"
    NXDOMAIN = "says that the name does not exist"
    SILENT = "does not answer"
    GARBAGE = "answers with bytes that are no DNS message"
    TRUNCATED = "truncates every answer over UDP"
    TRUNCATED_ALWAYS = "truncates over TCP too"
    ONE_ALIAS = "gives one canonical name and leaves following it to whoever asks"


_RCODES = {
    Fault.SERVFAIL: dns.rcode.SERVFAIL,
    Fault.REFUSED: dns.rcode.REFUSED,
    Fault.NXDOMAIN: dns.rcode.NXDOMAIN,
}


class NameServer:
    """Answers for the records it holds; every other name does not exist. Records may change while it runs.

    `queries` and `tcp_queries` count questions by (name, type): ("example.org", "MX"). `ttl` and `negative_ttl` are
    in seconds.
    """

    def __init__(self, *, address: str = "127.0.0.1", port: int = 0, ttl: int = 300, negative_ttl: int = 60) -> None:
        self.address = address
        self.port = port
        self.ttl = ttl
        self.negative_ttl = negative_ttl
        self.queries: Counter[tuple[str, str]] = Counter()
        self.tcp_queries: Counter[tuple[str, str]] = Counter()
        self._records: dict[str, dict[str, list[str]]] = {}
        self._ttls: dict[tuple[str, str], int] = {}
        self._faults: dict[tuple[str, str], Fault] = {}
        self._secure: set[str] = set()
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections = Connections(_MOST_CONNECTIONS)

    @property
    def endpoint(self) -> str:
        """Where to ask, as it is written in the settings: "127.0.0.1:5300"."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    # -- records ----------------------------------------------------------------------------------------------------

    def add(self, name: str, rdtype: str, *texts: str, ttl: int | None = None) -> None:
        """Add records in master file form: `add("example.org", "MX", "10 mx.example.org.")`; names end in a dot."""
        dns.rrset.from_text_list(_absolute(name), self.ttl, "IN", rdtype, texts)  # refuses what is no record
        key = _key(name)
        self._records.setdefault(key, {}).setdefault(rdtype, []).extend(texts)
        if ttl is not None:
            self._ttls[key, rdtype] = ttl

    def remove(self, name: str, rdtype: str | None = None) -> None:
        """Forget the records of a name: those of one type, or all of them, and with all the name itself."""
        key = _key(name)
        if rdtype is None:
            self._records.pop(key, None)
        else:
            self._records.get(key, {}).pop(rdtype, None)

    def replace(self, name: str, rdtype: str, *texts: str, ttl: int | None = None) -> None:
        """Put these records in place of those a name had of this type."""
        self.remove(name, rdtype)
        self.add(name, rdtype, *texts, ttl=ttl)

    def behave(self, name: str, fault: Fault | None, rdtype: str = "") -> None:
        """Answer for a name, or for one type of it, with a fault; None ends that."""
        if fault is None:
            self._faults.pop((_key(name), rdtype), None)
        else:
            self._faults[_key(name), rdtype] = fault

    def sign(self, *names: str) -> None:
        """Call the answers about these names authentic (AD) to whoever asks for it, as if their zones were signed."""
        self._secure.update(map(_key, names))

    def asked(self, name: str, rdtype: str) -> int:
        """How often this was asked for, over UDP and TCP together."""
        return self.queries[_key(name), rdtype]

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen on one port over UDP and TCP; with port 0 a free one is found."""
        loop = asyncio.get_running_loop()
        self._connections.begin()
        for left in reversed(range(20)):
            self._tcp = await asyncio.start_server(self._accept, self.address, self.port)
            port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(
                    lambda: _Questions(self), local_addr=(self.address, port)
                )
            except OSError:  # free over TCP, but taken over UDP: another one, if any will do
                self._tcp.close()
                if self.port or not left:
                    raise
            else:
                self.port = port
                return

    async def stop(self) -> None:
        """Stop listening and end what is under way."""
        if self._udp:
            self._udp.close()
        if self._tcp:
            self._tcp.close()
        await self._connections.end()
        if self._tcp:
            await self._tcp.wait_closed()
        self._udp = self._tcp = None
        await asyncio.sleep(0)  # lets closed transports go

    # -- answering --------------------------------------------------------------------------------------------------

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a question; None: none is given."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        if not query.question or query.flags & dns.flags.QR:
            return None
        question = query.question[0]
        name, rdtype = _key(question.name), dns.rdatatype.to_text(question.rdtype)
        self.queries[name, rdtype] += 1
        if tcp:
            self.tcp_queries[name, rdtype] += 1
        fault = self._fault(name, rdtype)
        if fault is Fault.SILENT:
            return None
        if fault is Fault.GARBAGE:
            return wire[:2] + b"\xff" * 40
        response = dns.message.make_response(query, recursion_available=True)
        if fault in _RCODES:
            response.set_rcode(_RCODES[fault])
        else:
            if query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO:  # RFC 6840 5.8
                response.flags |= dns.flags.AD
            self._fill(response, question.name, rdtype)
        return _to_wire(response, query, tcp=tcp, fault=fault)

    def _fault(self, name: str, rdtype: str) -> Fault | None:
        return self._faults.get((name, rdtype)) or self._faults.get((name, ""))

    def _fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: str) -> None:
        """Put in the records of the name, or the canonical names that lead to them."""
        seen = set()
        while True:
            key = _key(name)
            if key not in self._secure:  # one that is not signed makes the whole answer so (RFC 4035 3.2.3)
                response.flags &= ~dns.flags.AD
            records = self._records.get(key)
            if records is None or self._fault(key, rdtype) is Fault.NXDOMAIN:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            if rdtype in records or "CNAME" not in records:
                break
            response.answer.append(self._rrset(name, "CNAME", records["CNAME"][:1]))
            seen.add(key)
            name = dns.name.from_text(records["CNAME"][0])
            if self._fault(key, rdtype) is Fault.ONE_ALIAS or _key(name) in seen:
                return
        if records and records.get(rdtype):
            response.answer.append(self._rrset(name, rdtype, records[rdtype]))
        else:
            soa = f"ns.sandbox.example. postmaster.sandbox.example. 1 3600 600 86400 {self.negative_ttl}"
            response.authority.append(dns.rrset.from_text(dns.name.root, self.negative_ttl, "IN", "SOA", soa))

    def _rrset(self, name: dns.name.Name, rdtype: str, texts: list[str]) -> dns.rrset.RRset:
        ttl = self._ttls.get((_key(name), rdtype), self.ttl)
        return dns.rrset.from_text_list(name, ttl, "IN", rdtype, texts)

    # -- TCP --------------------------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections.takes(writer):
            self._connections.serve(writer, self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer questions, each with its length before it (RFC 1035 4.2.2), until none comes."""
        try:
            while True:
                async with asyncio.timeout(_PATIENCE):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    answer = self.answer(await reader.readexactly(length), tcp=True)
                    if answer is not None:
                        writer.write(struct.pack("!H", len(answer)) + answer)
                        await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            return  # the client has gone, or has nothing to ask
        finally:
            writer.transport.abort()


class _Questions(asyncio.DatagramProtocol):
    """Questions over UDP."""

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | socket.AddressFamily, int]) -> None:
        answer = self._server.answer(data, tcp=False)
        if answer is not None and self._transport and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


def _to_wire(response: dns.message.Message, query: dns.message.Message, *, tcp: bool, fault: Fault | None) -> bytes:
    """The message in bytes; one that is too long for the asker is emptied and says so (RFC 2181 9)."""
    limit = 65535 if tcp else max(_PLAIN_UDP, query.payload)
    if fault is not Fault.TRUNCATED_ALWAYS and (tcp or fault is not Fault.TRUNCATED):
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            pass
    response.answer.clear()
    response.flags |= dns.flags.TC
    return response.to_wire()


def _absolute(name: str) -> dns.name.Name:
    return dns.name.from_text(name)


def _key(name: str | dns.name.Name) -> str:
    absolute = dns.name.from_text(name) if isinstance(name, str) else name
    return absolute.to_text(omit_final_dot=True).lower()
