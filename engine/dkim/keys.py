"""A key that signs (RFC 6376 3.3, RFC 8463): what is read of its file, and how it signs."""

from collections.abc import Callable
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from msgspec import Struct

from engine.base.permission import why_not
from engine.base.text import clean
from engine.settings.settings import DkimKey

LEAST_BITS = 1024  # of RSA; RFC 8301 3.2: no verifier takes less,
MOST_BITS = 4096  # and each must take so many
LARGEST_FILE = 64 * 1024  # octets

Algorithm = Literal["rsa", "ed25519"]  # as "k=" has it

_ALLOWED = f"allowed is a private key in PEM without a passphrase, RSA of {LEAST_BITS} to {MOST_BITS} bits or Ed25519"


class KeyProblem(Exception):
    """This file holds no key that can sign; the text names it, and says why and what is allowed."""


class Key(Struct, frozen=True):
    """A key of a domain. `record` is where the DNS has its public half, which is `public` as "p=" holds it, decoded.

    `sign` gives the signature of a SHA-256 digest, in any thread.
    """

    domain: str
    selector: str
    record: str
    algorithm: Algorithm
    public: bytes
    sign: Callable[[bytes], bytes]


def read_key(setting: DkimKey) -> Key:
    """Read the key that a setting names. Raises KeyProblem."""
    path = setting.key
    try:
        with path.open("rb") as opened:
            pem = opened.read(LARGEST_FILE)
    except OSError as error:
        raise KeyProblem(why_not(error, path, "read")) from error
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyProblem(f"{path} wants a passphrase; {_ALLOWED}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = clean(str(error).partition("\n")[0], 100)
        raise KeyProblem(f"{path} holds no key that can be read ({why}); {_ALLOWED}") from error
    try:
        algorithm, public, sign = _parts(private)
    except ValueError as error:
        raise KeyProblem(f"{path} holds {error}; {_ALLOWED}") from error
    return Key(setting.domain, setting.selector, setting.record, algorithm, public, sign)


def _parts(private: object) -> tuple[Algorithm, bytes, Callable[[bytes], bytes]]:
    if isinstance(private, Ed25519PrivateKey):
        return "ed25519", private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), private.sign
    if not isinstance(private, RSAPrivateKey):
        raise ValueError("a key of another kind")
    if not LEAST_BITS <= private.key_size <= MOST_BITS:
        raise ValueError(f"an RSA key of {private.key_size} bits")
    rsa, padding, digested = private, PKCS1v15(), Prehashed(SHA256())
    public = rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "rsa", public, lambda digest: rsa.sign(digest, padding, digested)
