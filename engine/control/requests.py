"""Reads what was asked: query and body, decoded strictly and bounded, or refused with what is allowed."""

import asyncio
import ipaddress
import json
import re
from collections.abc import Collection
from contextlib import suppress
from typing import TypeVar

import msgspec
from aiohttp import web

from engine.base.address import AddressError, parse_domain
from engine.base.text import clean
from engine.control import views
from engine.model.destination import RELAY
from engine.model.filter import Filter, FilterError
from engine.model.order import rule_filter
from engine.model.verbs import FORMERLY, Ask

T = TypeVar("T", bound=Ask)

BODY_LIMIT = 64 * 1024  # bytes
BODY_SECONDS = 10.0  # in which all of a body must have come
LIMIT = 1000  # rows in one answer
NOTE = 200  # characters
MATCH = 200  # characters
NUMBER = 2**63 - 1  # what the store can count to
SHORTEST = 60.0
LONGEST = 30 * 86400.0

# RFC 1123 2.1, and the underscore that names in use have; A-labels, as MX answers give them.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NODE = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Wrong(Exception):
    """The request is refused; `status` is the HTTP status and `refusal` what the asker is told."""

    def __init__(self, what: str, *, where: str = "", allowed: str = "", status: int = 400) -> None:
        super().__init__(what)
        self.status = status
        self.refusal = views.Refusal(
            what=clean(what, 400), where=clean(where, 200), allowed=clean(allowed, 400), not_found=False
        )


class Missing(Wrong):
    """There is nothing of that name, or nothing matched."""

    def __init__(self, what: str, *, where: str = "", allowed: str = "") -> None:
        super().__init__(what, where=where, allowed=allowed, status=404)
        self.refusal = msgspec.structs.replace(self.refusal, not_found=True)


async def body(request: web.Request, kind: type[T], *, may_be_empty: bool = False) -> T:
    """The body as an ask of this kind, all of it within BODY_SECONDS. Raises Wrong.

    What is asked stands in the body alone: a field in the query would be one that is not looked at.
    """
    if request.query:
        raise Wrong("what is asked stands in the body", where=next(iter(request.query)), allowed="no query")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            raw = await request.read()
    except TimeoutError as error:
        raise Wrong(f"the body did not come within {BODY_SECONDS:g} s", status=408) from error
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    names = _names(raw)
    for name in known & FORMERLY.keys():
        names, raw = _as_now_called(name, names, raw)
    for name in known:
        if names.count(name) > 1:  # of which the last would count
            raise Wrong("given more than once", where=name, allowed="once")
    try:
        return msgspec.json.decode(b"{}" if may_be_empty and not raw else raw, type=kind, strict=True)
    except msgspec.ValidationError as error:
        if unknown := [name for name in names if name not in known]:
            raise Wrong(
                "there is no such field", where=unknown[0], allowed=", ".join(sorted(known)) or "none"
            ) from error
        what, _, where = str(error).partition(" - at ")
        raise Wrong(what, where=where.strip("`").removeprefix("$.")) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(f"the body is no JSON: {error}") from error


def _names(raw: bytes) -> list[str]:
    """The names of a body's fields, each as often as it stands there; none where it is no JSON object."""
    try:
        found = json.loads(raw, object_pairs_hook=lambda pairs: {"": [name for name, _ in pairs]})
    except (ValueError, RecursionError):
        return []
    return found[""] if isinstance(found, dict) else []


def only(request: web.Request, *names: str) -> None:
    """Refuse a query with other fields than these."""
    for name in request.query:
        if name not in names:
            raise Wrong("there is no such field", where=name, allowed=", ".join(names) or "none")
        if len(request.query.getall(name)) > 1:
            raise Wrong("given more than once", where=name, allowed="once")


def _as_now_called(name: str, names: list[str], raw: bytes) -> tuple[list[str], bytes]:
    """A body and the names of its fields, this field called as it is now, where it was called as it was before."""
    if (former := FORMERLY[name]) not in names:
        return names, raw
    if names.count(former) == 1 and name not in names:
        fields = json.loads(raw)
        fields[name] = fields.pop(former)
        raw = json.dumps(fields).encode()
    return [name if each == former else each for each in names], raw


def number(request: web.Request, name: str, default: int, least: int = 0, most: int = NUMBER) -> int:
    """A whole number of the query. Raises Wrong when it is none or out of range."""
    found = optional(request, name, least, most)
    return default if found is None else found


def optional(request: web.Request, name: str, least: int = 0, most: int = NUMBER) -> int | None:
    """A whole number of the query, or None when it is not given."""
    text = request.query.get(name)
    return None if text is None else whole(text, name, least, most)


def whole(text: str, where: str, least: int = 0, most: int = NUMBER) -> int:
    """A whole number within a range. Raises Wrong."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise Wrong(f"{clean(text, 40)!r} is not a number allowed here", where=where, allowed=f"{least} to {most}")
    return int(text)


def counted(value: int | None, where: str) -> int | None:
    """A whole number of a body, which the store must be able to count to."""
    if value is not None and not 0 <= value <= NUMBER:
        raise Wrong(f"{value} is not a number allowed here", where=where, allowed=f"0 to {NUMBER}")
    return value


def sort(request: web.Request, default: str, allowed: Collection[str]) -> str:
    """The name of a field to sort by, "-" before it for descending. Raises Wrong."""
    found = request.query.get("sort", default)
    if found.removeprefix("-") not in allowed:
        shown = ", ".join(allowed)
        raise Wrong(f"{clean(found, 40)!r} is nothing to sort by", where="sort", allowed=f"{shown}; - before it turns")
    return found


def match(request: web.Request) -> str:
    """A text to look for. Raises Wrong when it is too long."""
    text = request.query.get("match", "")
    if len(text) > MATCH:
        raise Wrong("the text is too long", where="match", allowed=f"up to {MATCH} characters")
    return text


def filter_of(text: str) -> Filter:
    """The filter that the text stands for. Raises Wrong."""
    try:
        return Filter.parse(text)
    except FilterError as error:
        raise Wrong(
            error.what, where=f"filter: {error.where}" if error.where else "filter", allowed=error.allowed
        ) from error


def note(text: str) -> str:
    """The note an operator gave, fit to be shown and kept."""
    return clean(text.strip(), NOTE)


def seconds(value: float, where: str = "seconds") -> float:
    """How long a suspension or mark lasts. Raises Wrong."""
    if not SHORTEST <= value <= LONGEST:  # NaN fails here, too
        raise Wrong(f"{value:g} seconds is out of range", where=where, allowed="60 seconds (1m) to 2592000 (30d)")
    return value


def host(text: str) -> str:
    """A host name, address or address literal in the form in which hosts are marked. Raises Wrong."""
    name = text.strip().lower().removesuffix(".")
    if name.startswith("["):
        with suppress(AddressError):
            return parse_domain(name).lower()
    with suppress(ValueError):
        return str(ipaddress.ip_address(name))
    if not name.isascii():
        with suppress(AddressError):
            name = parse_domain(name)
    if not 1 <= len(name) <= 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        allowed = "letters, digits, hyphens and dots, as in mx1.example.org"
        raise Wrong(f"{clean(text, 80)!r} is no host name", where="host", allowed=allowed)
    return name


def node(text: str) -> str:
    """The name of a node, or "". Raises Wrong."""
    name = text.strip()
    if name and not _NODE.fullmatch(name):
        allowed = "a name as `smarthost nodes` lists it"
        raise Wrong(f"{clean(text, 80)!r} is no name of a node", where="node", allowed=allowed)
    return name


def not_bad(host: str) -> Missing:
    """There is no mark of this host."""
    return Missing(f"{host} is not marked bad", where="host")


def host_and_port(text: str, where: str = "host") -> tuple[str, int]:
    """A host as `host` reads it, and the port behind its colon, 0 where none is written. Raises Wrong."""
    name, port = text.strip(), ""
    if name.startswith("["):
        name, bracket, rest = name.partition("]")
        name, port = name + bracket, rest
    elif name.count(":") == 1:
        name, colon, rest = name.partition(":")
        port = colon + rest
    if not port:
        return host(name), 0
    allowed = "HOST, HOST:PORT or [IPv6]:PORT"
    if not port.startswith(":"):
        raise Wrong(f"{clean(text, 80)!r} is no host and port", where=where, allowed=allowed)
    return host(name), whole(port[1:], where, 1, 65_535)


def rule(text: str) -> Filter:
    """The filter of a hold rule. Raises Wrong."""
    try:
        return rule_filter(text)
    except FilterError as error:
        where = f"filter: {error.where}" if error.where else "filter"
        raise Wrong(error.what, where=where, allowed=error.allowed) from error


def destination(text: str) -> str:
    """A destination to be seen, suspended or resumed: a domain, an address literal, or "*". Raises Wrong."""
    name = text.strip()
    if name == RELAY:
        return RELAY
    try:
        return parse_domain(name.removesuffix("."))
    except AddressError as error:
        allowed = f"a domain such as example.org, or {RELAY} for the whole relay"
        raise Wrong(str(error), where="destination", allowed=allowed) from error
