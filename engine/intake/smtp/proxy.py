"""Who the client is, as a proxy before us says it: the PROXY protocol of HAProxy, versions 1 and 2.

It is believed of named networks alone, for whoever may say it can say to be anybody. What a proxy says in TLVs (version
2) is skipped; it may say that it names no client (LOCAL, UNKNOWN), as it does when it looks whether we are well.
"""

import asyncio
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from engine.intake.smtp.meeting import Meeting

PATIENCE = 10.0  # seconds a proxy may take for its header
MAX_LINE = 107  # octets of a header of version 1, its line end among them
MAX_BLOCK = 4096  # octets of a header of version 2 behind the first 16: addresses, and TLVs that nobody reads here

_WORD = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16  # octets of version 2 that every header has
_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command
_PACKED = {0x00: 0, 0x11: 4, 0x21: 16, 0x31: 0}  # octets of an address by its family: none, TCP over IPv4, IPv6, Unix
_FAMILIES: Mapping[bytes, type[IPv4Address] | type[IPv6Address]] = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}
_LAST_PORT = 65_535


class NoHeader(ValueError):
    """What a proxy has sent is no header; the text says why."""


class Header(NamedTuple):
    """What a proxy has said: the client's `address`, "" where it names none, in so many octets."""

    address: str
    size: int


class Introduction(Meeting):
    """A connection from a proxy, until it has said whom it brings, in PATIENCE seconds at the most.

    It is cut where no header comes, as the protocol wants it. One that is closed without an octet is told to nobody: so
    looks who only wants to know whether somebody is there.
    """

    def begin(self) -> None:
        """Wait for the header, for a while."""
        late = f"none has come in {PATIENCE:g} seconds"
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.give_up, late)

    def heard(self) -> None:
        """Look whether the header is there."""
        try:
            header = read_header(self.come)
        except NoHeader as error:
            self.give_up(str(error))
            return
        if header is not None:
            self.meet(header.address, behind=header.size)

    def end(self) -> None:
        """It is waited for no longer."""
        self._timer.cancel()


def read_header(come: bytes | bytearray) -> Header | None:
    """Read the header that this begins with; None where more of it has to come. Raises NoHeader."""
    if _may_begin(come, _WORD):
        return _line(come)
    if _may_begin(come, _SIGNATURE):
        return _block(come)
    raise NoHeader("something else came in its place")


def _may_begin(come: bytes | bytearray, mark: bytes) -> bool:
    return come[: len(mark)] == mark[: len(come)]


def _line(come: bytes | bytearray) -> Header | None:
    """Version 1: `PROXY TCP4 192.0.2.1 198.51.100.1 56324 25`, both addresses and both ports."""
    end = come.find(b"\r\n", 0, MAX_LINE)
    if end < 0:
        if len(come) >= MAX_LINE:
            raise NoHeader(f"its line has more than {MAX_LINE} octets")
        return None
    _, family, *rest = bytes(come[:end]).split(b" ")
    if family == b"UNKNOWN":  # whatever follows says nothing
        return Header("", end + 2)
    kind = _FAMILIES.get(family)
    if kind is None or len(rest) != 4:
        raise NoHeader("its line is none of TCP4, TCP6 and UNKNOWN, with two addresses and two ports")
    if not all(port.isdigit() and int(port) <= _LAST_PORT for port in rest[2:]):
        raise NoHeader("a port of it is none")
    try:
        client, _ = (_address(kind, written) for written in rest[:2])
    except ValueError as error:
        raise NoHeader(f"an address of it is none of {family.decode()}") from error
    return Header(client, end + 2)


def _address(kind: type[IPv4Address] | type[IPv6Address], written: bytes) -> str:
    if b"%" in written:
        raise ValueError("a zone means nothing on another machine")
    return str(kind(written.decode("ascii")))


def _block(come: bytes | bytearray) -> Header | None:
    """Version 2: a signature, version and command, family, how much follows; then addresses, ports and TLVs."""
    if len(come) < _FIXED:
        return None
    command, family, length = come[12], come[13], int.from_bytes(come[14:_FIXED])
    if command not in (_LOCAL, _PROXY):
        raise NoHeader(f"version and command {command:#04x} are none of LOCAL and PROXY in version 2")
    if length > MAX_BLOCK:
        raise NoHeader(f"it would have {length} octets; at most {MAX_BLOCK} are taken")
    octets = 0
    if command == _PROXY:
        if family not in _PACKED:
            raise NoHeader(f"its family {family:#04x} is none of TCP")
        octets = _PACKED[family]
        if octets and length < 2 * octets + 4:
            raise NoHeader(f"{length} octets are too few for the addresses of its family")
    if len(come) < _FIXED + length:
        return None
    packed = bytes(come[_FIXED : _FIXED + octets])
    return Header(str(ip_address(packed)) if packed else "", _FIXED + length)
