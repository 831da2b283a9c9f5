"""The content of a message as intake sees it: its line ends, its header fields, and what is added to it.

Everything works on bytes: what we did not ask for is not decoded, and not changed.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import decode_header, make_header
from email.utils import format_datetime

from msgspec import Struct

from engine.text import clean

MAX_LINE = 64 * 1024  # octets, CRLF included; RFC 5321 4.5.3.1.6 asks for 1000, mail in the wild goes far beyond
MAX_SHOWN = 200  # characters kept of a subject or message id

_BREAK = re.compile(rb"\r\n|\r|\n")
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_DECODED = 2000  # octets of a field that are decoded to be shown


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
    breaks = content.count(b"\r\n")
    if content.count(b"\n") != breaks or content.count(b"\r") != breaks:
        content = _BREAK.sub(b"\r\n", content)
    return content if content.endswith(b"\r\n") else content + b"\r\n"


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
    """Find the header fields of canonical content; the first line that is no field and continues none ends them."""
    fields = tuple(_fields(content))
    return Header(content, fields, fields[-1].end if fields else 0)


def received(*, sent_by: str, by: str, protocol: str, at: float, recipients: tuple[str, ...] = ()) -> bytes:
    """Give the Received field for mail that came in at time `at` (RFC 5321 4.4), folded, with its CRLF.

    `sent_by` is the from clause, or "". A single recipient is named; of several none, so that none learns of another.
    """
    start = f"from {sent_by}\r\n\t" if sent_by else ""
    named = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
    date = format_datetime(datetime.fromtimestamp(at, UTC))
    return f"Received: {start}by {by} (smarthost) with {protocol}{named};\r\n\t{date}\r\n".encode()


def with_field(field: bytes, content: bytes) -> bytes:
    """Put a field on top. Content that has no header fields gets the blank line that must follow ours."""
    follows = _FIELD_NAME.match(content) or content.startswith(b"\r\n")
    return field + content if follows else field + b"\r\n" + content


def _fields(content: bytes) -> Iterator[Field]:
    position, size = 0, len(content)
    while position < size and (name := _FIELD_NAME.match(content, position)):
        end = _line_end(content, position)
        while content[end : end + 1] in (b" ", b"\t"):
            end = _line_end(content, end)
        yield Field(name.group(1).lower(), position, name.end(), end)
        position = end


def _line_end(content: bytes, position: int) -> int:
    return content.find(b"\n", position) + 1 or len(content)


def _decoded(value: bytes) -> str:
    text = value.replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip()
    if "=?" in text:
        # With a charset nobody knows, or if it is no encoded word after all, it is shown as it was sent.
        with suppress(MessageError, LookupError, ValueError):
            text = str(make_header(decode_header(text)))
    return clean(text, MAX_SHOWN)
