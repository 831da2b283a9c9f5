"""What a message must have and its sender left out is added (RFC 6409 8.2 and 8.3)."""

import secrets
from datetime import UTC, datetime
from email.utils import format_datetime

from engine.base.address import Address
from engine.intake.content import Header, with_field


def with_missing(content: bytes, header: Header, hostname: str, at: float, sender: Address) -> bytes:
    """Give canonical content with a Date, a Message-ID, and a From where somebody sent it.

    What is there stays as it is. `at`: seconds since 1970.
    """
    added = b""
    if not header.count(b"date"):
        added += f"Date: {format_datetime(datetime.fromtimestamp(at, UTC))}\r\n".encode()
    if not header.count(b"message-id"):
        added += f"Message-ID: <{secrets.token_hex(16)}@{hostname}>\r\n".encode()
    if sender.domain and not header.count(b"from"):
        added += f"From: {sender}\r\n".encode()
    return with_field(added, content) if added else content
