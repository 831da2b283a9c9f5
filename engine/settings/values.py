"""The values a setting may have: each reader takes what TOML gave and gives what the engine uses.

A reader raises ValueError, whose text says what is wrong and what is allowed.
"""

import grp
import ipaddress
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

from engine.base.address import AddressError, parse_domain, parse_path
from engine.base.duration import parse_duration
from engine.base.permission import refusal, why_not
from engine.base.socket_file import EVERYBODY
from engine.base.text import clean

Reader = Callable[[object], Any]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Tls = Literal["none", "opportunistic", "required", "verified"]
RouteTls = Literal["none", "opportunistic", "required", "verified", "implicit"]
Form = Literal["esmtp", "smtp"]
Unsigned = Literal["refuse", "send"]
LogLevel = Literal["debug", "info", "warning", "error"]

LogFormat = Literal["text", "json"]
Complete = Literal["logins", "all"]
RewriteOf = Literal["senders", "recipients"]
Family = Literal["both", "ipv4", "ipv6"]
Prefer = Literal["ipv6", "ipv4"]
_MAIL_LOGS = ("stderr", "journal", "syslog", "none")

_TEN_YEARS = 3_650 * 86_400
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*((?:[kmgt]i?)?b|)", re.ASCII | re.IGNORECASE)
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", re.ASCII)
_LONGEST_SOCKET = 107  # octets of a path, unix(7)
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)
_SMALLEST, _LARGEST = 1024, 512 * 2**20
_LONGEST_TAG = 64  # characters of what a signature names: what does not fit into a line of it would be broken
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", re.ASCII)


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


def text(value: object) -> str:
    """Any text without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not text; write it in quotes")
    if clean(value, len(value)) != value:
        raise ValueError("it holds control characters; allowed are those that can be seen")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def count(value: object) -> int:
    """A whole number from 1 to a thousand million."""
    return _whole(value, 1, 10**9)


def few(value: object) -> int:
    """A whole number from 1 to 100."""
    return _whole(value, 1, 100)


def port(value: object) -> int:
    """A port one can connect to."""
    return _whole(value, 1, 65_535)


def duration(value: object) -> float:
    """Seconds, more than none and at most ten years, from a number or from text such as `1h30m`."""
    if isinstance(value, str):
        seconds = _said(value, parse_duration)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        seconds = float(value)
    else:
        raise ValueError(f"{_shown(value)} is not a duration; write it as 30s, 5m, 1h30m or 5d, or in seconds")
    if not 0 < seconds <= _TEN_YEARS:
        raise ValueError(f"{_shown(value)} is out of range; allowed is more than 0s and at most ten years")
    return seconds


def duration_or_none(value: object) -> float:
    """A duration, or 0 for none."""
    if value in (0, "0", "0s") and not isinstance(value, bool):
        return 0.0
    return duration(value)


def size(value: object) -> int:
    """Bytes, from 1 KiB to 512 MiB, from a number or from text such as `25 MiB` or `10MB`."""
    octets = _octets(value)
    if not _SMALLEST <= octets <= _LARGEST:
        raise ValueError(f"{_shown(value)} is out of range; allowed is from 1 KiB to 512 MiB")
    return octets


def space(value: object) -> int:
    """Bytes of a disk, from 0 to 1024 TiB, from a number or from text such as `100 MiB`."""
    octets = _octets(value)
    if not 0 <= octets <= 2**50:
        raise ValueError(f"{_shown(value)} is out of range; allowed is from 0 to 1024 TiB")
    return octets


def returned(value: object) -> int:
    """Bytes of a message that goes back, from 0 to 1 MiB, from a number or from text such as `50 KiB`."""
    octets = _octets(value)
    if not 0 <= octets <= 2**20:
        raise ValueError(f"{_shown(value)} is out of range; allowed is from 0 to 1 MiB")
    return octets


def gathering(value: object) -> float:
    """A duration of ten minutes at the most, or 0 for none."""
    seconds = duration_or_none(value)
    if seconds > 600:
        raise ValueError(f"{_shown(value)} is out of range; allowed is from 0 to 10m")
    return seconds


def host(value: object) -> str:
    """A host name, in lower case and A-labels."""
    name = text(value)
    try:
        domain = parse_domain(name)
    except AddressError as error:
        raise ValueError(f"not a host name: {error}; write it as relay.example.net") from error
    if domain.startswith("["):
        raise ValueError(f"{_shown(value)} is an address; write a host name such as relay.example.net")
    return domain


def https_url(value: object) -> str:
    """The address of something on the web, over HTTPS alone."""
    written = text(value)
    try:
        parts = urlsplit(written)
        is_one = parts.scheme == "https" and bool(parts.hostname) and not parts.username and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(f"{_shown(value)} is no address of HTTPS; write it as https://login.example.com/token")
    return written


def program(value: object) -> tuple[str, ...]:
    """A program by its absolute path, which may be run, and its arguments; [] for none."""
    words: tuple[str, ...] = each(text)(value)
    if words and not Path(words[0]).is_absolute():
        raise ValueError(f"[0]: {_shown(words[0])} is no absolute path; write where the program is: /usr/bin/token")
    return words


def weight(value: object) -> int:
    """A whole number from 0 to 1000."""
    return _whole(value, 0, 1000)


def host_or_none(value: object) -> str:
    """A host name, or "" for none."""
    return host(value) if value else ""


def host_or_address(value: object) -> str:
    """A host name or an IP address."""
    name = text(value)
    try:
        return str(ipaddress.ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return host(value)


def sources(value: object) -> tuple[str, ...]:
    """Addresses of this machine, of either family one at the most."""
    found: tuple[str, ...] = each(_address)(value)
    families = [":" in address for address in found]
    if len(set(families)) < len(families):
        raise ValueError(f"two addresses of one family, {_shown(value)}; allowed is one of each")
    return found


def _address(value: object) -> str:
    written = text(value)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError as error:
        raise ValueError(f"{_shown(value)} is no IP address; write it as 192.0.2.25 or 2001:db8::25") from error


def domain_or_all(value: object) -> str:
    """A domain, or "*" for all that nothing else names."""
    return "*" if value == "*" else host(value)


def route_domain(value: object) -> str:
    """A domain, "*." and a domain for all the domains below it, or "*" for all that no other route names."""
    return "*" if value == "*" else destinations(value)


def limited(value: object) -> str:
    """What a limit is for: a domain, or "*." and a domain for all hosts whose names end so."""
    name = text(value)
    if name.startswith("*."):
        return f"*.{host(name.removeprefix('*.'))}"
    if "*" in name:
        raise ValueError(f"{_shown(value)} names nothing; write a domain, or *.example.com for hosts that end so")
    return host(value)


def destinations(value: object) -> str:
    """A domain, or "*." and a domain for all the domains below it."""
    name = text(value)
    return f"*.{host(name[2:])}" if name.startswith("*.") else host(name)


def rewritten(value: object) -> str:
    """An address, a local name at this host, "*@" and a domain, "*@*." and a domain for those below it, or "*"."""
    written = text(value)
    local, at, domain = written.rpartition("@")
    try:
        if written == "*":
            return written
        if local == "*":
            return f"*@{destinations(domain)}"
        if not at:
            return parse_path(f"{written}@localhost").local.lower()
        address = parse_path(written)
    except ValueError as error:  # AddressError among them
        raise ValueError(
            f"{_shown(value)} matches no address: {error}; write it as ann@web1.local or *@web1.local"
        ) from error
    return f"{address.local.lower()}@{address.domain}"


def rewrites_to(value: object) -> str:
    """An address, or "*@" and a domain, which keeps the local part."""
    written = text(value)
    local, _, domain = written.rpartition("@")
    try:
        return f"*@{host(domain)}" if local == "*" else str(parse_path(written))
    except ValueError as error:
        raise ValueError(
            f"{_shown(value)} is no address: {error}; write it as web@example.com or *@example.com"
        ) from error


def signing_domain(value: object) -> str:
    """A domain whose name stands in signatures."""
    name = text(value)
    if "*" in name:
        raise ValueError(f"{_shown(value)} is no domain; write one: it signs for all the domains below it as well")
    return _tag(host(name))


def selector(value: object) -> str:
    """The selector of a key (RFC 6376 3.1): a label or several, in lower case."""
    name = text(value).lower()
    if not all(map(_SELECTOR.fullmatch, name.split("."))):
        raise ValueError(
            f"{_shown(value)} is no selector; allowed are letters, digits and inner hyphens, with dots between"
        )
    return _tag(name)


def mailbox(value: object) -> str:
    """The address of somebody; "" for nobody."""
    written = text(value)
    try:
        return str(parse_path(written)) if written else ""
    except AddressError as error:
        raise ValueError(f"not an address: {error}; write it as postmaster@example.org") from error


def duration_or_never(value: object) -> float:
    """A duration, or 0 and "never" for none."""
    try:
        return 0.0 if value == "never" else duration_or_none(value)
    except ValueError as error:
        raise ValueError(f'{error}; or "never"') from error


def one_of(choices: object) -> Reader:
    """One of the words of a Literal."""

    def read(value: object) -> str:
        for allowed in get_args(choices):
            if value == allowed:
                return str(allowed)
        raise ValueError(f"{_shown(value)} is none of {', '.join(get_args(choices))}")

    read.__doc__ = f"One of {', '.join(get_args(choices))}."
    return read


def mail_log(value: object) -> str:
    """One of stderr, journal, syslog, none, or the absolute path of a file."""
    written = text(value)
    if written in _MAIL_LOGS:
        return written
    if not Path(written).is_absolute():
        raise ValueError(f"{_shown(value)} is none of {', '.join(_MAIL_LOGS)}, nor the absolute path of a file")
    return written


def listen(value: object) -> Listen:
    """A host and a port: `127.0.0.1:2525`, `[::1]:2525`, `localhost:2525`."""
    name, number = _host_and_port(value, "127.0.0.1:2525 or [::1]:2525")
    if not 0 <= number <= 65_535:
        raise ValueError(f"{_shown(value)}: no such port; allowed are 1 to 65535, and 0 for any that is free")
    return Listen(host_or_address(name), number)


def listen_anyhow(value: object) -> Listen | UnixSocket:
    """A host and a port, or `unix:` and the absolute path of a socket."""
    written = text(value)
    if not written.startswith("unix:"):
        return listen(value)
    path = Path(written.removeprefix("unix:"))
    if not path.is_absolute():
        raise ValueError(f"{_shown(value)} depends on where one stands; write unix:/run/smarthost/smtp.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise ValueError(f"{_shown(value)} is too long; the path of a socket has at most {_LONGEST_SOCKET} octets")
    return UnixSocket(path)


def nameserver(value: object) -> Nameserver:
    """An IP address, with a port or without: `192.0.2.53`, `127.0.0.1:5300`, `[::1]:5300`."""
    example = "192.0.2.53, 127.0.0.1:5300 or [2001:db8::53]:53"
    written = text(value)
    try:
        return Nameserver(str(ipaddress.ip_address(written)), 53)
    except ValueError:
        name, number = _host_and_port(value, example)
    try:
        return Nameserver(str(ipaddress.ip_address(name)), port(number))
    except ValueError as error:
        raise ValueError(f"{_shown(value)}: {error}; write it as {example}") from error


def network(value: object) -> Network:
    """An IP network: `192.0.2.0/24`, `2001:db8::/32`, or one address."""
    written = text(value)
    try:
        return ipaddress.ip_network(written)
    except ValueError as error:
        try:
            hint = f"; {ipaddress.ip_network(written, strict=False)} is the network it lies in"
        except ValueError:
            hint = ""
        raise ValueError(f"{_shown(value)} is no network{hint}; write it as 192.0.2.0/24 or 2001:db8::/32") from error


def proxy_network(value: object) -> Network:
    """An IP network, but not everybody: who comes from it can say to be anybody."""
    found = network(value)
    if not found.prefixlen:
        raise ValueError(
            f"{_shown(value)} is everybody, and whoever is in it can say to be anybody; name the proxies, as 192.0.2.7"
        )
    return found


def database(value: object) -> str:
    """A PostgreSQL database by its URI, without a password; "" is none."""
    named = text(value)
    if not named:
        return ""
    allowed = 'allowed is "postgresql://user@host/name", with more hosts and parameters as libpq has them'
    try:
        parts = urlsplit(named)
        password = parts.password or parse_qs(parts.query).get("password")
    except ValueError as error:
        raise ValueError(f"{_shown(value)} is no URI; {allowed}") from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{_shown(value)} is no PostgreSQL database; {allowed}")
    if password:
        raise ValueError("a password stands in it; write it into a file, and name that in queue.password_file")
    return named


def node(value: object) -> str:
    """The name of a node: up to 64 letters, digits, dots and hyphens; "" is none."""
    named = text(value)
    if named and not _NODE.fullmatch(named):
        raise ValueError(
            f"{_shown(value)} is no name of a node; allowed are up to 64 letters, digits, dots and hyphens"
        )
    return named


def folder(value: object) -> Path:
    """The absolute path of a folder, or of one that can be made; `~` is the user's home."""
    path = folder_unseen(value)
    try:
        if path.exists() and not path.is_dir():
            raise ValueError(f"{_shown(value)} is not a folder; write the absolute path of one")
    except PermissionError:
        raise ValueError(refusal(path, "entered")) from None
    return path


def folder_unseen(value: object) -> Path:
    """The same for whoever need not look at it."""
    written = text(value)
    if not written:
        raise ValueError("it is empty; write the absolute path of a folder")
    path = Path(written).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{_shown(value)} depends on where one stands; write the absolute path of a folder")
    return path


def file(value: object) -> Path | None:
    """The absolute path of a file, whether it is there or not; "" for none."""
    written = text(value)
    if not written:
        return None
    path = Path(written).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{_shown(value)} depends on where one stands; write the absolute path of a file")
    return path


def readable_file(value: object) -> Path | None:
    """The absolute path of a file that can be read; "" for none."""
    path = file(value)
    if path is None:
        return None
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise ValueError(f"{why_not(error, path, 'read')}; it must be a file we may read") from error


def key_file(value: object) -> Path:
    """The absolute path of a file that can be read, which must be named."""
    return _named(readable_file(value))


def key_file_unseen(value: object) -> Path:
    """The same for whoever need not look at it."""
    return _named(file(value))


def group(value: object) -> str:
    """The name of a group of this machine; "" for none."""
    name = text(value)
    if name:
        try:
            grp.getgrnam(name)
        except KeyError:
            raise ValueError(f"this machine has no group {_shown(value)}; name one that it has, or none") from None
    return name


def group_or_everybody(value: object) -> str:
    """The name of a group of this machine, "*" for everybody on it, "" for no one besides the owner."""
    if value == EVERYBODY:
        return EVERYBODY
    try:
        return group(value)
    except ValueError as error:
        raise ValueError(f'{error}, or "*" for everybody on this machine') from error


def each(reader: Reader, at_least: int = 0) -> Callable[[object], tuple[Any, ...]]:
    """A list whose members are read by `reader`; the number of a wrong one, from 0, stands in the error."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{_shown(value)} is not a list; write [ ] around its members")
        if len(value) < at_least:
            raise ValueError(f"it is empty; at least {at_least} is needed")
        members = []
        for position, member in enumerate(value):
            try:
                members.append(reader(member))
            except ValueError as error:
                raise ValueError(f"[{position}]: {error}") from error
        return tuple(members)

    read.of = reader  # type: ignore[attr-defined]  # for who tells what it reads
    read.__doc__ = f"A list. {reader.__doc__}" + (f" At least {at_least} is needed." if at_least else "")
    return read


def one_or_each(reader: Reader) -> Callable[[object], Any]:
    """What `reader` reads, or a list of such with one member at least."""
    read_list = each(reader, at_least=1)

    def read(value: object) -> Any:
        return read_list(value) if isinstance(value, list) else reader(value)

    read.__doc__ = f"{reader.__doc__} Or a list of such."
    return read


def _named(path: Path | None) -> Path:
    if path is None:
        raise ValueError("it is empty; write the absolute path of a file")
    return path


def _tag(name: str) -> str:
    if len(name) > _LONGEST_TAG:
        raise ValueError(f"{_shown(name)} is too long; allowed are {_LONGEST_TAG} characters")
    return name


def _octets(value: object) -> int:
    if isinstance(value, str) and (written := _SIZE.fullmatch(value.strip())):
        return int(float(written.group(1)) * _UNITS[written.group(2).lower()])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{_shown(value)} is not a size; write it as 25 MiB or 10 MB, or in bytes")


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is not a whole number; allowed are {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{value} is out of range; allowed are {low} to {high}")
    return value


def _host_and_port(value: object, example: str) -> tuple[str, int]:
    parts = _HOST_AND_PORT.fullmatch(text(value))
    if parts is None:
        raise ValueError(f"{_shown(value)} is not host:port; write it as {example}")
    return parts.group(1).removeprefix("[").removesuffix("]"), int(parts.group(2))


def _said(value: str, reader: Callable[[str], float]) -> float:
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{_shown(value)}: {error}") from error


def _shown(value: object) -> str:
    return clean(str(value).lower() if isinstance(value, bool) else repr(value), 80)
