"""A name server whose every answer is as large as it is told, and costs it next to nothing to give."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rdatatype

_HERE = b"\xc0\x0c"  # the name that was asked for, which stands behind the header
_TTL = 3600


def a(number: int) -> bytes:
    return struct.pack("!4B", 198, 18, number >> 8 & 255, number & 255)


def aaaa(number: int) -> bytes:
    return struct.pack("!8H", 0x2001, 0xDB8, 0, 0, 0, 0, number >> 16, number & 0xFFFF)


def mx(number: int) -> bytes:
    label = f"mx{number}".encode()
    return struct.pack("!H", 10) + bytes([len(label)]) + label + _HERE


def txt(number: int) -> bytes:
    return bytes([200]) + b"x" * 200


def tlsa(number: int) -> bytes:
    return bytes([3, 1, 1]) + number.to_bytes(32, "big")


RDATA = {"A": a, "AAAA": aaaa, "MX": mx, "TXT": txt, "TLSA": tlsa}


def records(rdtype: str, count: int, name: bytes = _HERE) -> bytes:
    """So many records of a name, in bytes."""
    head = name + struct.pack("!HHI", dns.rdatatype.from_text(rdtype), 1, _TTL)
    return b"".join(head + struct.pack("!H", len(one)) + one for one in map(RDATA[rdtype], range(count)))


class LargeAnswers:
    """Answers for every name there is: `counts` says of each type how many records it has, none where it says nothing.

    Over UDP all is truncated, unless `over_udp`. `before` is put before the records, as `before_count` records of the
    answer. `asked` counts the questions over TCP by type.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.over_udp = False
        self.before, self.before_count = b"", 0
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()  # the size of the last answer over TCP, by type
        self.endpoint = ""
        self._counts = counts
        self._bodies: dict[str, bytes] = {}

    def answer(self, wire: bytes, *, truncated: bool) -> bytes:
        """The header and the question as they came, and the records."""
        question = dns.message.from_wire(wire).question[0]
        rdtype = dns.rdatatype.to_text(question.rdtype)
        count = 0 if truncated else self._counts.get(rdtype, 0)
        if rdtype not in self._bodies:
            self._bodies[rdtype] = records(rdtype, self._counts.get(rdtype, 0))
        flags = dns.flags.QR | dns.flags.RD | dns.flags.RA | (dns.flags.TC if truncated else 0)
        end = 12 + sum(len(label) + 1 for label in question.name.labels) + 4
        before, after = (b"", b"") if truncated else (self.before, self._bodies[rdtype])
        counts = struct.pack("!HHHHH", flags, 1, count + (self.before_count if before else 0), 0, 0)
        return wire[:2] + counts + wire[12:end] + before + after

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            wire = await reader.readexactly(length)
            rdtype = dns.rdatatype.to_text(dns.message.from_wire(wire).question[0].rdtype)
            answer = self.answer(wire, truncated=False)
            self.asked[rdtype] += 1
            self.sent[rdtype] = len(answer)
            writer.write(struct.pack("!H", len(answer)) + answer)
            await writer.drain()
            await reader.read(1)  # until it has had enough of us
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, server: LargeAnswers) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(self._server.answer(data, truncated=not self._server.over_udp), addr)


@asynccontextmanager
async def large_answers(counts: Mapping[str, int]) -> AsyncIterator[LargeAnswers]:
    """A running one, on loopback."""
    large = LargeAnswers(counts)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(large.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(large), local_addr=("127.0.0.1", port))
    large.endpoint = f"127.0.0.1:{port}"
    try:
        yield large
    finally:
        transport.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)
