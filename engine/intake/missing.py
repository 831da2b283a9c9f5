"""What a message must have and its sender left out is added (RFC 6409 8.2 and 8.3)."""

import secrets
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from engine.base.address import Address
from engine.intake.content import Header, with_field


class Missing(NamedTuple):
    """The fields that a message lacks; `message_id` is what it is given to be known by, "" where it has one."""

    fields: bytes
    message_id: str


def missing(header: Header, hostname: str, at: float, sender: Address) -> Missing:
    """A Date, a Message-ID, and a From where somebody sent it, as far as they are not there. `at`: since 1970."""
    added, message_id = b"", ""
    if not header.count(b"date"):
        added += f"Date: {format_datetime(datetime.fromtimestamp(at, UTC))}\r\n".encode()
    if not header.count(b"message-id"):
        message_id = f"<{secrets.token_hex(16)}@{hostname}>"
        added += f"Message-ID: {message_id}\r\n".encode()
    if sender.domain and not header.count(b"from"):
        added += f"From: {sender}\r\n".encode()
    return Missing(added, message_id)


def with_missing(content: bytes, header: Header, hostname: str, at: float, sender: Address) -> bytes:
    """Give canonical content with what it lacks; what is there stays as it is."""
    fields = missing(header, hostname, at, sender).fields
    return with_field(fields, content) if fields else content
