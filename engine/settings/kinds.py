"""What settings are made of besides numbers and texts: the words to choose from, and where to listen or ask."""

import ipaddress
from pathlib import Path
from typing import Literal

from msgspec import Struct

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Tls = Literal["none", "opportunistic", "required", "verified"]
RouteTls = Literal["none", "opportunistic", "required", "verified", "implicit"]
Form = Literal["esmtp", "smtp"]
Chunking = Literal["never", "offered"]
Unsigned = Literal["refuse", "send"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
Complete = Literal["logins", "all"]
RewriteOf = Literal["senders", "recipients"]
Family = Literal["both", "ipv4", "ipv6"]
Prefer = Literal["ipv6", "ipv4"]


class Listen(Struct, frozen=True):
    """Where to listen. Port 0 takes any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UnixSocket(Struct, frozen=True):
    """Where to listen for programs of this machine alone: the path of a Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


class Nameserver(Listen, frozen=True):
    """Whom to ask for names: an IP address and a port."""
