"""Keys for the tests of signing, and a DNS that has their records."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.dkim.keys import read_key
from engine.dkim.records import record_of
from engine.settings.settings import DkimKey


def ed25519(folder: Path, domain: str = "example.org", selector: str = "ed") -> DkimKey:
    """A new key in a file."""
    return _written(folder, domain, selector, Ed25519PrivateKey.generate())


def rsa2048(folder: Path, domain: str = "example.org", selector: str = "rsa", bits: int = 2048) -> DkimKey:
    """A new key in a file."""
    return _written(folder, domain, selector, rsa.generate_private_key(65_537, bits))


def _written(folder: Path, domain: str, selector: str, private: rsa.RSAPrivateKey | Ed25519PrivateKey) -> DkimKey:
    path = folder / f"{domain}.{selector}.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return DkimKey(domain=domain, selector=selector, key=path)


def settings_of(*keys: DkimKey) -> str:
    """The settings that name keys."""
    return "\n".join(
        f'[[dkim]]\ndomain = "{one.domain}"\nselector = "{one.selector}"\nkey = "{one.key}"\n' for one in keys
    )


def records(*keys: DkimKey) -> dict[str, str]:
    """What the DNS has of keys, by name."""
    return {one.record: record_of(read_key(one)) for one in keys}


def verified(content: bytes, known: dict[str, str]) -> list[str]:
    """The names of the records by which signatures of a message are right, the topmost first, as dkimpy sees it."""
    found = []
    for place in range(signatures_in(content)):
        message = dkim.DKIM(content)
        with suppress(dkim.DKIMException):
            if message.verify(place, dnsfunc=_answering(known)):
                found.append(f"{message.selector.decode()}._domainkey.{message.domain.decode()}")
    return found


def signatures_in(content: bytes) -> int:
    """How many signature fields a message has."""
    return (b"\r\n" + content.partition(b"\r\n\r\n")[0]).lower().count(b"\r\ndkim-signature:")


def unsigned_part(content: bytes) -> bytes:
    """What stands below the signatures."""
    lines: Sequence[bytes] = content.split(b"\r\n")
    while lines and lines[0].startswith(b"DKIM-Signature:"):
        lines = lines[1:]
        while lines and lines[0][:1] in (b" ", b"\t"):
            lines = lines[1:]
    return b"\r\n".join(lines)


def _answering(known: dict[str, str]) -> Callable[..., bytes]:
    def answer(name: bytes, timeout: float = 5) -> bytes:
        return known.get(name.decode().rstrip("."), "").encode()

    return answer
