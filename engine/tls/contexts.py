"""TLS contexts of a client, by what they check."""

import functools
import re
import ssl
from contextlib import suppress
from pathlib import Path

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # the names of certificates in a directory of authorities


# The best first; then all that OpenSSL still has, but what does not encrypt at all or leaves out whom it speaks to.
# Level 0: TLS 1.0 and 1.1 sign with SHA-1, and old hosts have short keys (SSL_CTX_set_security_level(3)).
_ANY_CIPHER = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:ALL:!aNULL:!eNULL:@SECLEVEL=0"
# What is asked for where TLS must hold: forward secrecy, and no SHA-1 (RFC 9325 4.2). Python's own defaults are those
# of whoever built it: Debian's leave both to OpenSSL, which has them not.
_STRONG_CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:DHE+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
_LEGACY_SERVER_CONNECT = 0x4  # SSL_OP_LEGACY_SERVER_CONNECT, in ssl from Python 3.12 on


def unverified() -> ssl.SSLContext:
    """TLS against eavesdroppers: names and certificates of exchanges prove nothing without a policy (RFC 7435)."""
    context = _strong(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@functools.cache
def opportunistic() -> ssl.SSLContext:
    """TLS where the other choice is clear text: from 1.0 on, with old ciphers too, and any certificate (RFC 7435 4.4).

    What both sides do best is used: whoever could talk us down to less could as well take STARTTLS away.
    """
    context = unverified()
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # SSL 3 is off by itself (RFC 7568)
    context.set_ciphers(_ANY_CIPHER)
    context.options |= _LEGACY_SERVER_CONNECT  # hosts without RFC 5746: nothing is renegotiated here
    return context


def verifying(ca_file: Path | None) -> ssl.SSLContext:
    """TLS with a certificate right by its name and by an authority of `ca_file`, or of the system for None.

    Kept until the file changes: reading the system's authorities takes tens of milliseconds. Raises OSError,
    ssl.SSLError among them, when the authorities cannot be read.
    """
    file = str(ca_file) if ca_file is not None else ssl.get_default_verify_paths().cafile
    return _verifying(str(ca_file) if ca_file is not None else None, Path(file).stat().st_mtime_ns if file else 0)


def authorities(ca_file: Path | None) -> tuple[bytes, ...]:
    """The certificates that `verifying` trusts, in DER. Raises OSError as that does.

    A system may keep them in a directory (openssl-rehash(1)), of which OpenSSL itself reads only those that it needs.
    """
    listed = verifying(ca_file).get_ca_certs(binary_form=True)
    directory = ssl.get_default_verify_paths().capath if ca_file is None else None
    if directory is not None:
        listed += _authorities_in(directory, Path(directory).stat().st_mtime_ns)
    return tuple(dict.fromkeys(listed))


@functools.lru_cache(maxsize=1)
def _authorities_in(directory: str, changed: int) -> tuple[bytes, ...]:  # noqa: ARG001
    found = []
    for file in sorted(Path(directory).iterdir()):
        if _HASHED.fullmatch(file.name):
            with suppress(OSError, ValueError):  # OpenSSL, too, passes over what it cannot read
                found += [
                    ssl.PEM_cert_to_DER_cert(pem.decode("ascii")) for pem in _CERTIFICATE.findall(file.read_bytes())
                ]
    return tuple(found)


@functools.lru_cache(maxsize=8)
def _verifying(ca_file: str | None, changed: int) -> ssl.SSLContext:  # noqa: ARG001
    context = _strong(ssl.create_default_context(cafile=ca_file))
    # Both RFC 8461 4.2 and RFC 9525 6.3 want the name among the alternative names.
    context.hostname_checks_common_name = False
    return context


def _strong(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_STRONG_CIPHERS)
    return context
