"""What a body says: a message as it is (RFC 5322), or its parts in JSON, of which one is made.

Either way it is then a message with its envelope in X-Envelope-From and X-Envelope-To, as in the drop folder, where it
is read.
"""

import re
from collections.abc import Mapping, Sequence
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.base.address import Address, AddressError, parse_path
from engine.base.text import clean
from engine.intake.http.problem import Problem

MAX_ENTRY = 998  # characters of an address with its name, of a subject and of a field
MAX_EXTRA = 64  # fields that a body may bring besides those it is asked for
MAX_RECIPIENTS = 1000  # of one message, as over SMTP

_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]+)>\s*")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FIELD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,69}")
_SPECIAL = re.compile(r"[^A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]")
_OURS = {"from", "to", "cc", "bcc", "subject", "mime-version", "received", "return-path", "dkim-signature"}
_ADDRESS = 'one address each, as "Ann <ann@example.org>" or "ann@example.org"'
_IN_PARTS = SMTP.clone(cte_type="7bit")  # not every host takes 8-bit content

Some = str | list[str]


class Letter(Struct, forbid_unknown_fields=True):
    """The parts of a message in JSON. `headers` are fields besides those that have a name here."""

    sender: str = field(name="from")
    to: Some = field(default_factory=list)
    cc: Some = field(default_factory=list)
    bcc: Some = field(default_factory=list)
    subject: str = ""
    text: str = ""
    html: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class _Mailbox(Struct, frozen=True):
    name: str
    address: Address

    @property
    def written(self) -> str:
        """As it stands in a field."""
        if not self.name:
            return str(self.address)
        return f"{_phrase(self.name)} <{self.address}>"


def with_envelope(content: bytes, given: Mapping[str, str]) -> bytes:
    """A message as it was sent, with the envelope that stood beside it, by the names of the fields. Raises Problem."""
    added = b""
    for name, value in given.items():
        if _CONTROLS.search(value):
            raise Problem(400, "a control character stands in it", where=name, allowed="addresses between commas")
        added += f"{name}: ".encode() + value.encode("utf-8", "surrogateescape") + b"\r\n"
    return added + content


def composed(body: bytes) -> bytes:
    """The message that JSON describes. Raises Problem."""
    letter = _read(body)
    author = _mailboxes("from", letter.sender)[0]
    named = {name: _mailboxes(name, getattr(letter, name)) for name in ("to", "cc", "bcc")}
    recipients = list(dict.fromkeys(str(each.address) for some in named.values() for each in some))
    if not recipients:
        raise Problem(400, "nobody is to have it", where="to", allowed=_ADDRESS)
    lines = [
        f"X-Envelope-From: <{author.address}>",
        f"X-Envelope-To: {_listed([f'<{each}>' for each in recipients])}",
        f"From: {author.written}",
        *(f"{name.title()}: {_listed([each.written for each in named[name]])}" for name in ("to", "cc") if named[name]),
        *(f"{name}: {_text(value, name)}" for name, value in _extra(letter.headers)),
    ]
    if letter.subject:
        _check("subject", letter.subject)
        lines.append(f"Subject: {_text(letter.subject, 'Subject')}")
    try:
        head = "".join(f"{line}\r\n" for line in lines).encode()
        return head + _body(letter)
    except UnicodeEncodeError as error:  # half of a pair of surrogates
        raise Problem(400, "a character stands in it that there is not", allowed="Unicode text") from error


def _read(body: bytes) -> Letter:
    try:
        return msgspec.json.decode(body, type=Letter)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        allowed = ", ".join(known.encode_name for known in msgspec.structs.fields(Letter))
        raise Problem(
            400, clean(what, 200), where=clean(where.strip("`").removeprefix("$."), 80), allowed=allowed
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {clean(str(error), 200)}", where="body") from error


def _mailboxes(name: str, given: Some) -> list[_Mailbox]:
    entries = [given] if isinstance(given, str) else given
    if len(entries) > MAX_RECIPIENTS:
        raise Problem(400, f"{len(entries)} addresses", where=name, allowed=f"{MAX_RECIPIENTS} at the most")
    return [_mailbox(f"{name}[{place}]" if given is entries else name, each) for place, each in enumerate(entries)]


def _mailbox(where: str, entry: str) -> _Mailbox:
    _check(where, entry)
    found = _NAMED.fullmatch(entry)
    name, address = (found["name"], found["address"]) if found else ("", entry)
    try:
        return _Mailbox(name.strip().strip('"').strip(), parse_path(address.strip()))
    except AddressError as error:
        raise Problem(400, clean(str(error), 200), where=where, allowed=_ADDRESS) from error


def _extra(given: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """The fields besides, which may be none of those that have a name or are for us to write."""
    if len(given) > MAX_EXTRA:
        raise Problem(400, f"{len(given)} fields", where="headers", allowed=f"{MAX_EXTRA} at the most")
    for name, value in given.items():
        where = f"headers.{clean(name, 80)}"
        if not _FIELD.fullmatch(name):
            raise Problem(400, "no name of a field", where=where, allowed="letters, digits and hyphens")
        if name.lower() in _OURS or name.lower().startswith(("content-", "x-envelope-")):
            raise Problem(
                400, "this field is not for you to write here", where=where, allowed="Reply-To, X-... and so on"
            )
        _check(where, value)
    return list(given.items())


def _check(where: str, text: str) -> None:
    if len(text) > MAX_ENTRY:
        raise Problem(400, f"{len(text)} characters", where=where, allowed=f"{MAX_ENTRY} at the most")
    if _CONTROLS.search(text):
        raise Problem(400, "a control character stands in it", where=where, allowed="one line of text")


def _listed(entries: Sequence[str]) -> str:
    return ",\r\n ".join(entries)


def _phrase(name: str) -> str:
    """A name before an address (RFC 5322 3.2.5): as it is, quoted, or encoded (RFC 2047)."""
    if not name.isascii():
        return Header(name, "utf-8").encode(linesep="\r\n")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' if _SPECIAL.search(name) else name


def _text(value: str, name: str) -> str:
    """The text of a field, folded, and encoded where it is beyond ASCII (RFC 2047)."""
    return Header(value, "us-ascii" if value.isascii() else "utf-8", header_name=name).encode(linesep="\r\n")


def _body(letter: Letter) -> bytes:
    """The body with the fields that say what it is (RFC 2045)."""
    parts: Any = EmailMessage(policy=_IN_PARTS)
    if letter.text or not letter.html:
        parts.set_content(letter.text)
        if letter.html:
            parts.add_alternative(letter.html, subtype="html")
    else:
        parts.set_content(letter.html, subtype="html")
    return bytes(parts.as_bytes())
