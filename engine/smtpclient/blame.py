"""Whose fault it is that no connection could be opened: this machine's, or the host's that was to be reached.

A host is marked bad for what it does, never for what is wanting here: descriptors, buffers, a route, a permission.
"""

import errno
import os
import socket
from typing import Literal

Blame = Literal["host", "machine", "family", "address"]
"""Whom an OSError is about. "host": the peer, or the way to it. The others are faults of ours: "machine": nothing can
be opened at all; "family": nothing to any address of this family, IPv4 or IPv6; "address": not to this one address.
"""

MACHINE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# No way out of this machine, or none that we may take. A router on the way may say so of one host, too, which is why
# the kernel is asked what it knows of the way.
_ROUTES = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
_REFUSED_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
LOCAL = MACHINE | _ROUTES | _REFUSED_HERE  # all that may be ours

_ANYWHERE = {"IPv4": "192.0.2.1", "IPv6": "2001:db8::1"}  # RFC 5737, RFC 3849: nobody's
_DISCARD = 9  # a port; nothing is sent to it


def blame(code: int, *, has_route: bool = True, has_family: bool = True) -> Blame:
    """Whom an errno of opening a socket, or of connecting it, is about.

    `has_route`: this machine knows a way to the address; `has_family`: to addresses of its family at all. With a way
    to it, "network is unreachable" and "no route to host" were said by a router (RFC 792): the host's matter.
    """
    if code in MACHINE:
        return "machine"
    if code not in LOCAL:
        return "host"
    if not has_family:
        return "family"
    if code in _ROUTES and has_route:
        return "host"
    return "address"


def of_error(error: OSError, address: str) -> Blame:
    """Whom an error of dialling an address is about. The kernel is asked for its routes; nothing is sent."""
    code = error.errno or 0
    if code not in LOCAL or code in MACHINE:
        return blame(code)
    return blame(code, has_route=has_route(address), has_family=has_family(family_of(address)))


def family_of(address: str) -> str:
    """The name of an address's family: "IPv4" or "IPv6"."""
    return "IPv6" if ":" in address else "IPv4"


def has_route(address: str) -> bool:
    """Whether this machine knows a way to an address, and may take it; True where that cannot be found out."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, _DISCARD))  # a look at the routes: a datagram socket sends nothing here
    except OSError as error:
        return error.errno in MACHINE
    return True


def source(family: str) -> str:
    """The address of this machine that connections over a family go out from, by its routes; "" where there is none."""
    kind = socket.AF_INET6 if family == "IPv6" else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_DGRAM) as probe:
            probe.connect((_ANYWHERE[family], _DISCARD))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def has_family(family: str) -> bool:
    """Whether this machine knows a way to addresses of a family at all."""
    return has_route(_ANYWHERE[family])


def shortage() -> str:
    """What is wanting at this moment for any connection, or "": "too many open files"."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        if error.errno in MACHINE:
            return os.strerror(error.errno or 0).lower()
    return ""
