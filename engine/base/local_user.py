"""Who is at the other end of a Unix socket: a user of this machine, as the kernel knows him."""

import os
import pwd
import socket
import struct

from engine.base.text import clean

_PREFIX = "unix uid "
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: SO_PEERCRED of unix(7)


def uid_behind(descriptor: int) -> int | None:
    """The user at the other end of a connected Unix socket: to a client, whoever listens on it."""
    # The loop gives a stand-in for its socket, which may not be asked for options; a duplicate may be.
    with socket.socket(fileno=os.dup(descriptor)) as peer:
        try:
            raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


def login_of(uid: int) -> str:
    """What a user is called, cleaned; "" where he has no name. It may come from a directory on the network."""
    try:
        return clean(pwd.getpwuid(uid).pw_name, 40)
    except KeyError:
        return ""


def as_peer(uid: int, name: str) -> str:
    """How a user is shown where else an address stands: `unix uid 1000 (ann)`, or without the name."""
    return f"{_PREFIX}{uid}{f' ({name})' if name else ''}"


def uid_in(peer: str) -> str:
    """The same without the name: `unix uid 1000`; "" where it is an address of the network."""
    return peer.partition(" (")[0] if peer.startswith(_PREFIX) else ""
