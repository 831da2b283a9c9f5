"""Signature fields (RFC 6376 3.5): what of a message is signed, and in what form.

The form is dkimpy's: which fields are taken in which order, how they and the signature are canonicalised and folded.
The arithmetic is OpenSSL's, by way of `Key.sign`: dkimpy's own RSA is written in Python, and takes milliseconds a
signature in which nobody else has a turn. The body is hashed where it lies: in the simple form nothing of it changes
but the empty lines at its end, and dkimpy would make copies of all of it.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import dkim
from dkim.canonicalization import CanonicalizationPolicy
from msgspec import Struct

from engine.dkim.keys import Key

# RFC 6376 5.4.1, but for the fields that trace a message on its way; RFC 8058 4 of List-Unsubscribe-Post.
SIGNED = frozenset(
    (
        b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"in-reply-to",
        b"references", b"mime-version", b"content-type", b"content-transfer-encoding", b"content-id",
        b"content-description", b"auto-submitted", b"list-id", b"list-help", b"list-unsubscribe",
        b"list-unsubscribe-post", b"list-subscribe", b"list-post", b"list-owner", b"list-archive",
    )
)  # fmt: skip
MOST_SIGNED = 1000  # fields; each is named in the signature
_OVERSIGNED = (b"from",)  # once more than it is there: one that is added breaks the signature (RFC 6376 8.15)

# "simple" of the body: what is written stays as it is on its way, and whole text need not be gone through.
_FORM = CanonicalizationPolicy.from_c_value(b"relaxed/simple")
_NAME = b"DKIM-Signature"
_PLACE = b"0" * 60  # of the signature until it is there, by which dkimpy gives it lines of its own
_HASHED = 1 << 20  # octets at a time: meanwhile other threads go on

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]*\n[ \t])*[^\n]*\n)")


class Unsignable(ValueError):
    """A signature of this message would be worth nothing; the text says why."""


class Parts(Struct, frozen=True):
    """Canonical content as a verifier finds it: its `fields` of SIGNED, with their values, and where its body begins.

    `fault` is why it has no header that two readers would understand alike, or "".
    """

    content: bytes
    fields: list[tuple[bytes, bytes]]
    body: int
    fault: str = ""

    def all(self, name: bytes) -> list[bytes]:
        """The values of all fields of a name, each with its folds and its CRLF."""
        return [value for one, value in self.fields if one == name]


def parts_of(content: bytes) -> Parts:
    """Take canonical content apart. Its header ends at an empty line, whatever stands before that."""
    fields: list[tuple[bytes, bytes]] = []
    position = number = 0
    while found := _FIELD.match(content, position):
        name = found.group(1).lower()
        if name in SIGNED:
            fields.append((name, found.group(2)))
        position, number = found.end(), number + 1
    if content.startswith(b"\r\n", position):
        return Parts(content, fields, position + 2)
    fault = f"behind its header field {number} something stands that is none" if position < len(content) else ""
    return Parts(content, fields, position, fault)


def signatures(parts: Parts, keys: Sequence[Key], at: float) -> bytes:
    """Give the fields that sign a message, one for each key, to be put on top of it. `at`: seconds since 1970.

    Raises Unsignable.
    """
    if parts.fault:
        raise Unsignable(parts.fault)
    if len(parts.fields) > MOST_SIGNED:
        raise Unsignable(f"more than {MOST_SIGNED} of its header fields would have to be signed")
    body_hash = base64.b64encode(_simple_hash(parts.content, parts.body))
    return b"".join(_signature(parts.fields, body_hash, key, at) for key in keys)


def _signature(fields: list[tuple[bytes, bytes]], body_hash: bytes, key: Key, at: float) -> bytes:
    names = (*(name for name, _ in fields), *_OVERSIGNED)
    tags = [
        (b"v", b"1"),
        (b"a", f"{key.algorithm}-sha256".encode()),
        (b"c", _FORM.to_c_value()),
        (b"d", key.domain.encode()),
        (b"s", key.selector.encode()),
        (b"t", str(int(at)).encode()),
        (b"h", b" : ".join(names)),
        (b"bh", body_hash),
        (b"b", _PLACE),
    ]
    # Of a key of this kind dkimpy asks for `sign(digest).signature`, which RSA gives here as well.
    maker = dkim.DKIM(signature_algorithm=b"ed25519-sha256")
    maker.hasher = hashlib.sha256
    maker.headers = fields
    made: bytes = maker.gen_header(tags, names, _FORM, _NAME, _Signing(key))
    return b"%b: %b" % (_NAME, made)


class _Signed(NamedTuple):
    signature: bytes


class _Signing(NamedTuple):
    """A key as dkimpy knows one."""

    key: Key

    def sign(self, digest: bytes) -> _Signed:
        return _Signed(self.key.sign(digest))


def _simple_hash(content: bytes, start: int) -> bytes:
    """The hash of a body as RFC 6376 3.4.3 has it: without the empty lines at its end, and with a CRLF there."""
    end = len(content)
    while end > start:
        begin = max(start, end - _HASHED)
        if kept := content[begin:end].rstrip(b"\r\n"):
            end = begin + len(kept)
            break
        end = begin
    digest, body = hashlib.sha256(), memoryview(content)
    for position in range(start, end, _HASHED):
        digest.update(body[position : min(position + _HASHED, end)])
    digest.update(b"\r\n")
    return digest.digest()
