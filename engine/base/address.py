"""What may stand in an envelope: paths are read here once, and nothing that passes is rewritten later on."""

import ipaddress
import re
from collections.abc import Container

import idna
from msgspec import Struct

from engine.base.text import clean

MAX_LOCAL = 64  # octets, RFC 5321 4.5.3.1.1
MAX_DOMAIN = 255  # octets, RFC 5321 4.5.3.1.2
MAX_PATH = 256  # octets with its angle brackets, RFC 5321 4.5.3.1.3

_MAX_WRITTEN = 2048  # characters looked at, a source route included
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class AddressError(ValueError):
    """This cannot stand in an envelope; the text says what is wrong with it."""


class Address(Struct, frozen=True):
    """One mailbox; both parts are "" for the null reverse-path. `str()` gives it without angle brackets.

    `local` stands as it was given, in quotes where it had them; `domain` is in lower case and A-labels, or is a
    literal such as `[127.0.0.1]` or `[IPv6:::1]`.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else ""

    @property
    def smtputf8(self) -> bool:
        """Whether a peer must speak SMTPUTF8 to be told of it (RFC 6531); a domain never asks for that."""
        return not self.local.isascii()


def parse_path(text: str, *, sender: bool = False, qualify: str = "") -> Address:
    """Read a path of RFC 5321 4.1.2, with or without its angle brackets. Raises AddressError.

    `sender`: the null path `<>` is allowed. `qualify`: the domain of a bare `postmaster` (RFC 5321 4.5.1), which is
    refused without it. A source route is checked and left out (RFC 5321 4.1.1.3 and appendix C).
    """
    if len(text) > _MAX_WRITTEN:
        raise AddressError(f"longer than {_MAX_WRITTEN} characters")
    if clean(text, _MAX_WRITTEN) != text:
        raise _wrong(text, "holds a character that cannot be shown")
    path = text
    if path.startswith("<") or path.endswith(">"):
        if not (path.startswith("<") and path.endswith(">")):
            raise _wrong(text, "one angle bracket is missing")
        path = path[1:-1]
    if not path:
        if sender:
            return Address("", "")
        raise AddressError("empty")
    if path.startswith("@"):
        path = _without_route(path)
    if path.lower() == "postmaster" and qualify:
        return Address(path, parse_domain(qualify))
    local, rest = _split_local(path)
    address = Address(local, parse_domain(rest))
    if len(str(address).encode()) + len("<>") > MAX_PATH:
        raise _wrong(text, f"longer than {MAX_PATH} octets")
    return address


def parse_domain(text: str) -> str:
    """Give a domain in lower case and A-labels (UTS 46), or an address literal in its usual form.

    Raises AddressError.
    """
    if text.startswith("["):
        return _literal(text)
    domain = text.lower()
    if not domain.isascii():
        try:
            domain = idna.encode(text[:_MAX_WRITTEN], uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise _wrong(text, f"not an international domain name: {clean(str(error))}") from error
    if not domain:
        raise AddressError("the domain is missing")
    if len(domain) > MAX_DOMAIN:
        raise _wrong(text, f"a domain has at most {MAX_DOMAIN} octets")
    labels = domain.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            what = f"'{clean(label, 80)}' is no label" if label else "a label is empty"
            raise _wrong(text, f"not a domain: {what}; letters, digits and inner hyphens, at most 63")
    if labels[-1].isdigit():
        raise _wrong(text, "not a domain; an IP address is written in square brackets")
    return domain


def pattern_for(domain: str, patterns: Container[str]) -> str:
    """The pattern that counts for a domain: its own name, else the longest "*.example.org" it lies below, or ""."""
    if domain in patterns:
        return domain
    rest = domain
    while "." in rest:
        rest = rest.partition(".")[2]
        if f"*.{rest}" in patterns:
            return f"*.{rest}"
    return ""


def sought_domain(text: str) -> str:
    """Give what somebody looks for among domains as these are kept: lower case, A-labels, no dot at the end.

    It need not be a whole domain, and `*` may stand in it for any text. Raises AddressError for a label that cannot be
    turned into its A-label, as one with a `*` in it.
    """
    labels = map(_sought_label, text.lower().split("."))
    return ".".join(labels).rstrip(".") or text


def _sought_label(label: str) -> str:
    if label.isascii():
        return label
    if "*" in label:
        raise _wrong(label, '"*" stands for whole labels where these are not ASCII')
    try:
        return idna.encode(label[:_MAX_WRITTEN], uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError) as error:
        raise _wrong(label, f"not an international domain name: {clean(str(error))}") from error


def _wrong(text: str, why: str) -> AddressError:
    return AddressError(f"{clean(text, 100)}: {why}")


def _without_route(path: str) -> str:
    """Leave out `@one,@two:` after a look at its domains."""
    route, colon, mailbox = path.partition(":")
    if not colon:
        raise _wrong(path, "a source route ends in a colon")
    for hop in route.split(","):
        if not hop.startswith("@"):
            raise _wrong(path, f"'{hop}' is no hop of a source route")
        parse_domain(hop[1:])
    return mailbox


def _split_local(path: str) -> tuple[str, str]:
    """Give local part and domain, the local part quoted no more than it must be where it has quotes."""
    if path.startswith('"'):
        quoted = _QUOTED.match(path)
        if quoted is None:
            raise _wrong(path, "the quoted local part has no end")
        # A needless backslash is the one thing later readers would take out (RFC 5321 4.1.2 calls both the same).
        plain = _ESCAPED.sub(r"\1", quoted.group(1))
        local = '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
        rest = path[quoted.end() :]
    else:
        local, at, domain = path.partition("@")
        rest = at + domain
        _check_dot_string(local, path)
    if len(local.encode()) > MAX_LOCAL:
        raise _wrong(path, f"a local part has at most {MAX_LOCAL} octets")
    if not rest.startswith("@"):
        raise _wrong(path, "no @ after the local part")
    return local, rest[1:]


def _check_dot_string(local: str, path: str) -> None:
    if not local:
        raise _wrong(path, "the local part is missing")
    for atom in local.split("."):
        if not atom:
            raise _wrong(path, "a dot may stand only between other characters, or in quotes")
        if not _ATOM.fullmatch(atom) or any(char.isspace() for char in atom):
            wrong = next(char for char in atom if not _ATOM.fullmatch(char) or char.isspace())
            raise _wrong(path, f"'{wrong}' may stand in a local part only in quotes")


def _literal(text: str) -> str:
    """Read an address literal (RFC 5321 4.1.3). A tag other than IPv6 is not known to us."""
    inner = text[1:-1] if text.endswith("]") else ""
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise ValueError("a zone has no meaning in mail")
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError as error:
        raise _wrong(text, "not an address literal; write [192.0.2.1] or [IPv6:2001:db8::1]") from (error)
