"""The content of a message as intake sees it: its line ends, its header fields, and what is added to it.

Everything works on bytes: what we did not ask for is not decoded, and not changed.
"""

import encodings
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.utils import format_datetime
from encodings.aliases import aliases
from pkgutil import iter_modules
from typing import NamedTuple

from msgspec import Struct

from engine.base.text import clean

MAX_LINE = 64 * 1024  # octets, CRLF included; RFC 5321 4.5.3.1.6 asks for 1000, mail in the wild goes far beyond
MAX_HEADER = 1 << 20  # octets of a header section
MAX_FIELDS = 10_000  # fields in it
MAX_SHOWN = 200  # characters kept of a subject or message id
LARGE = 256 * 1024  # octets of content that are judged while everyone else waits; what has more is judged in a thread
SLICE = 256 * 1024  # octets handled at a time: within one call of the interpreter all its other threads stand still

# Not for the readers of a message. Bcc names those whom nobody is to know of (RFC 5322 3.6.3); Return-Path is written
# where mail is delivered for good, and comes from there alone (RFC 5321 4.4); Content-Length is of a mailbox file.
UNSENT = (b"bcc", b"resent-bcc", b"return-path", b"content-length")

_SIGNATURES = (b"dkim-signature", b"arc-message-signature")
_STUFFED = b"\r\n.."
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FIELD_END = re.compile(rb"\n(?![ \t])")
_DECODED = 2000  # octets of a field that are decoded to be shown

# The interpreter remembers every charset it was ever asked for, whether there is one of that name or not.
_CHARSETS = {*aliases, *(module.name for module in iter_modules(encodings.__path__))}


class HeaderTooBig(ValueError):
    """The header section is beyond MAX_HEADER or MAX_FIELDS; the text says which."""


class Field(Struct, frozen=True):
    """One header field: its name in lower case, and where it stands, with its folded lines and its CRLF."""

    name: bytes
    start: int
    value: int
    end: int


class Header(Struct, frozen=True):
    """The header section of `content`, up to `end`; what follows is the blank line and the body, or the body alone."""

    content: bytes
    fields: tuple[Field, ...]
    end: int

    def all(self, name: bytes) -> list[bytes]:
        """The values of all fields of a name, each unfolded and without the blanks around it."""
        return [
            self.content[field.value : field.end].replace(b"\r\n", b"").strip(b" \t")
            for field in self.fields
            if field.name == name
        ]

    def count(self, name: bytes) -> int:
        """How many fields have this name."""
        return sum(field.name == name for field in self.fields)

    def shown(self, name: bytes) -> str:
        """The first field of this name, decoded (RFC 2047), cleaned and cut to what is shown; "" without one."""
        for field in self.fields:
            if field.name == name:
                return _decoded(self.content[field.value : min(field.end, field.value + _DECODED)])
        return ""

    @property
    def eight_bit(self) -> bool:
        """Whether anything in the header section is beyond ASCII (RFC 6532)."""
        return not self.content[: self.end].isascii()

    def without(self, *names: bytes) -> bytes:
        """The content with all fields of these names left out, everything else as it is."""
        kept: list[bytes] = []
        position = 0
        for field in self.fields:
            if field.name in names:
                kept.append(self.content[position : field.start])
                position = field.end
        return b"".join((*kept, self.content[position:]))


def canonical(content: bytes) -> bytes:
    """Give content whose every line ends in CRLF: a bare CR and a bare LF each end a line (RFC 5321 2.3.8).

    What is in that form already is given back as it is.
    """
    if not all(map(_is_canonical, _slices(content))):
        content = b"".join(map(_made_canonical, _slices(content)))
    return content if content.endswith(b"\r\n") else content + b"\r\n"


def unstuffed(chunks: Iterable[bytes]) -> bytes:
    """Join the chunks of a message, and take away the dot that a client adds to a line (RFC 5321 4.5.2)."""
    return b"".join(_without_dots(chunks))


def has_long_line(content: bytes, limit: int = MAX_LINE) -> bool:
    """Whether any line of canonical content has more than `limit` octets, its CRLF among them."""
    position = 0
    while len(content) - position > limit:
        end = content.rfind(b"\n", position, position + limit)
        if end < 0:
            return True
        position = end + 1
    return False


def read_header(content: bytes) -> Header:
    """Find the header fields of canonical content; the first line that is no field and continues none ends them.

    No more is looked at than a header may hold. Raises HeaderTooBig.
    """
    fields = tuple(_fields(content))
    return Header(content, fields, fields[-1].end if fields else 0)


def outgoing(header: Header, *never: bytes) -> bytes:
    """The content as it goes out, whichever way it came in: without the fields of UNSENT, and those `never` to be sent.

    A field of UNSENT that a signature of the message names (DKIM, RFC 6376 3.5 "h="; ARC, RFC 8617) stays, unless it is
    among `never`: without it the signature would be worth nothing, and who signed it meant it to be read. Signers are
    told not to do so (RFC 6376 5.4 of Return-Path; RFC 4871 5.5 of Bcc as well), so that this is rare. Postfix leaves
    the four out of all mail (message_drop_headers).
    """
    signed = {name for field in _SIGNATURES for value in header.all(field) for name in _signed(value)}
    return header.without(*never, *(name for name in UNSENT if name not in signed))


class Trace(NamedTuple):
    """A Received field, folded, with its CRLF, and the place in it where the queue's id goes."""

    field: bytes
    id_at: int


def received(
    *, sent_by: str, by: str, protocol: str, at: float, secured: str = "", recipients: tuple[str, ...] = ()
) -> Trace:
    """Give the Received field for mail that came in at time `at` (RFC 5321 4.4).

    `sent_by` is the from clause, or ""; `secured` says by which TLS it came. A single recipient is named; of several
    none, so that none learns of another.
    """
    start = f"from {sent_by}\r\n\t" if sent_by else ""
    tls = f"\r\n\t({secured})" if secured else ""
    with_what = f"Received: {start}by {by} (smarthost) with {protocol}{tls}".encode()
    named = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
    date = format_datetime(datetime.fromtimestamp(at, UTC))
    return Trace(with_what + f"{named};\r\n\t{date}\r\n".encode(), len(with_what))


def with_field(field: bytes, content: bytes) -> bytes:
    """Put a field on top. Content that has no header fields gets the blank line that must follow ours."""
    follows = _FIELD_NAME.match(content) or content.startswith(b"\r\n")
    return field + content if follows else field + b"\r\n" + content


def _signed(signature: bytes) -> Iterator[bytes]:
    """The names of the fields that a signature covers, in lower case."""
    for tag in signature.split(b";"):
        name, _, value = tag.partition(b"=")
        if name.strip() == b"h":
            yield from (field.strip().lower() for field in value.split(b":"))


def _slices(content: bytes) -> Iterator[bytes]:
    """Give the content in slices of about SLICE octets, none of which ends within a CRLF."""
    start = 0
    while start < len(content):
        end = start + SLICE
        if content[end - 1 : end + 1] == b"\r\n":
            end += 1
        yield content[start:end]
        start = end


def _is_canonical(piece: bytes) -> bool:
    breaks = piece.count(b"\r\n")
    return piece.count(b"\n") == breaks and piece.count(b"\r") == breaks


def _made_canonical(piece: bytes) -> bytes:
    return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _without_dots(chunks: Iterable[bytes]) -> Iterator[bytes]:
    kept = b""
    for chunk in chunks:
        joined = kept + chunk
        # What may be the beginning of a stuffed line waits for the next chunk.
        end = len(joined) - next((size for size in (3, 2, 1) if joined.endswith(_STUFFED[:size])), 0)
        kept = joined[end:]
        yield joined[:end].replace(_STUFFED, _STUFFED[:-1])
    yield kept


def _fields(content: bytes) -> Iterator[Field]:
    position, size, count = 0, len(content), 0
    while position < size and (name := _FIELD_NAME.match(content, position)):
        last = _FIELD_END.search(content, position, MAX_HEADER + 1)
        end = last.end() if last else size
        if end > MAX_HEADER:
            raise HeaderTooBig(f"more than {MAX_HEADER} octets")
        count += 1
        if count > MAX_FIELDS:
            raise HeaderTooBig(f"more than {MAX_FIELDS} fields")
        yield Field(name.group(1).lower(), position, name.end(), end)
        position = end


def _decoded(value: bytes) -> str:
    text = value.replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip()
    if "=?" in text:
        try:
            parts = [(part, charset and _charset(charset)) for part, charset in decode_header(text)]
            text = str(make_header(parts))
        except Exception:  # noqa: BLE001 - decoders raise what they like
            # With a charset nobody knows, or if it is no encoded word after all, it is
            # shown as it was sent.
            return clean(text, MAX_SHOWN)
    return clean(text, MAX_SHOWN)


def _charset(name: str) -> str:
    """Give the one name by which we ask for a charset. Raises LookupError."""
    known = encodings.normalize_encoding(name).lower()
    if known not in _CHARSETS:
        raise LookupError("no such charset")
    return known
