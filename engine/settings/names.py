"""Settings that are names or addresses: of hosts, domains, mailboxes, networks, of a node and its database.

Each reader is as those of engine.settings.values.
"""

import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from engine.base.address import AddressError, parse_domain, parse_path
from engine.settings.kinds import Listen, Nameserver, Network, UnixSocket
from engine.settings.values import each, port, shown, text

_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?", re.ASCII)
_LONGEST_SOCKET = 107  # octets of a path, unix(7)
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)
_LONGEST_TAG = 64  # characters of what a signature names: what does not fit into a line of it would be broken
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:\[\]]+):(\d{1,5})", re.ASCII)


def host(value: object) -> str:
    """A host name, in lower case and A-labels."""
    name = text(value)
    try:
        domain = parse_domain(name)
    except AddressError as error:
        raise ValueError(f"not a host name: {error}; write it as relay.example.net") from error
    if domain.startswith("["):
        raise ValueError(f"{shown(value)} is an address; write a host name such as relay.example.net")
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
        raise ValueError(f"{shown(value)} is no address of HTTPS; write it as https://login.example.com/token")
    return written


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
        raise ValueError(f"two addresses of one family, {shown(value)}; allowed is one of each")
    return found


def _address(value: object) -> str:
    written = text(value)
    try:
        return str(ipaddress.ip_address(written))
    except ValueError as error:
        raise ValueError(f"{shown(value)} is no IP address; write it as 192.0.2.25 or 2001:db8::25") from error


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
        raise ValueError(f"{shown(value)} names nothing; write a domain, or *.example.com for hosts that end so")
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
            f"{shown(value)} matches no address: {error}; write it as ann@web1.local or *@web1.local"
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
            f"{shown(value)} is no address: {error}; write it as web@example.com or *@example.com"
        ) from error


def signing_domain(value: object) -> str:
    """A domain whose name stands in signatures."""
    name = text(value)
    if "*" in name:
        raise ValueError(f"{shown(value)} is no domain; write one: it signs for all the domains below it as well")
    return _tag(host(name))


def selector(value: object) -> str:
    """The selector of a key (RFC 6376 3.1): a label or several, in lower case."""
    name = text(value).lower()
    if not all(map(_SELECTOR.fullmatch, name.split("."))):
        raise ValueError(
            f"{shown(value)} is no selector; allowed are letters, digits and inner hyphens, with dots between"
        )
    return _tag(name)


def mailbox(value: object) -> str:
    """The address of somebody; "" for nobody."""
    written = text(value)
    try:
        return str(parse_path(written)) if written else ""
    except AddressError as error:
        raise ValueError(f"not an address: {error}; write it as postmaster@example.org") from error


def listen(value: object) -> Listen:
    """A host and a port: `127.0.0.1:2525`, `[::1]:2525`, `localhost:2525`."""
    name, number = _host_and_port(value, "127.0.0.1:2525 or [::1]:2525")
    if not 0 <= number <= 65_535:
        raise ValueError(f"{shown(value)}: no such port; allowed are 1 to 65535, and 0 for any that is free")
    return Listen(host_or_address(name), number)


def listen_anyhow(value: object) -> Listen | UnixSocket:
    """A host and a port, or `unix:` and the absolute path of a socket."""
    written = text(value)
    if not written.startswith("unix:"):
        return listen(value)
    path = Path(written.removeprefix("unix:"))
    if not path.is_absolute():
        raise ValueError(f"{shown(value)} depends on where one stands; write unix:/run/smarthost/smtp.sock")
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise ValueError(f"{shown(value)} is too long; the path of a socket has at most {_LONGEST_SOCKET} octets")
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
        raise ValueError(f"{shown(value)}: {error}; write it as {example}") from error


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
        raise ValueError(f"{shown(value)} is no network{hint}; write it as 192.0.2.0/24 or 2001:db8::/32") from error


def proxy_network(value: object) -> Network:
    """An IP network, but not everybody: who comes from it can say to be anybody."""
    found = network(value)
    if not found.prefixlen:
        raise ValueError(
            f"{shown(value)} is everybody, and whoever is in it can say to be anybody; name the proxies, as 192.0.2.7"
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
        raise ValueError(f"{shown(value)} is no URI; {allowed}") from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"{shown(value)} is no PostgreSQL database; {allowed}")
    if password:
        raise ValueError("a password stands in it; write it into a file, and name that in queue.password_file")
    return named


def node(value: object) -> str:
    """The name of a node: up to 64 letters, digits, dots and hyphens; "" is none."""
    named = text(value)
    if named and not _NODE.fullmatch(named):
        raise ValueError(f"{shown(value)} is no name of a node; allowed are up to 64 letters, digits, dots and hyphens")
    return named


def _tag(name: str) -> str:
    if len(name) > _LONGEST_TAG:
        raise ValueError(f"{shown(name)} is too long; allowed are {_LONGEST_TAG} characters")
    return name


def _host_and_port(value: object, example: str) -> tuple[str, int]:
    parts = _HOST_AND_PORT.fullmatch(text(value))
    if parts is None:
        raise ValueError(f"{shown(value)} is not host:port; write it as {example}")
    return parts.group(1).removeprefix("[").removesuffix("]"), int(parts.group(2))
