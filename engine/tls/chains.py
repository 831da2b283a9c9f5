"""Certificate chains looked at after the handshake: whose names they bear, and whether they lead to an anchor."""

import functools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from engine.tls import contexts

_LONGEST = 10  # certificates looked at; what a server sends is its own choice
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class BadCertificate(Exception):
    """A certificate that cannot be read, or is not right; the text says why."""


def _is_authority(_: Policy, __: x509.Certificate, constraints: x509.BasicConstraints) -> None:
    if not constraints.ca:
        raise ValueError("one of its issuers is no authority")


def _may_sign(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("one of its issuers may sign no certificates")


def _is_for_servers(_: Policy, __: x509.Certificate, usage: x509.ExtendedKeyUsage | None) -> None:
    if usage is not None and not {Use.SERVER_AUTH, Use.ANY_EXTENDED_KEY_USAGE} & set(usage):
        raise ValueError("one of its issuers is not for servers")


# What RFC 5280 4.2.1 asks of an issuer, without what only the authorities of the web must have.
_AUTHORITY = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _is_for_servers)
)


def read(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """The certificates a server sent, its own first. Raises BadCertificate when there is none or one is garbage."""
    try:
        found = [x509.load_der_x509_certificate(der) for der in chain[:_LONGEST]]
    except _UNREADABLE as error:
        raise BadCertificate(f"the certificate cannot be read: {error}") from error
    if not found:
        raise BadCertificate("the host sent no certificate")
    return found


def check(chain: Sequence[x509.Certificate], anchors: Iterable[x509.Certificate], names: Sequence[str]) -> None:
    """Raise BadCertificate unless the first certificate leads to an anchor and bears one of the names.

    Dates, signatures and constraints are checked, by the machine's time. An authority need not be one that the web
    would take: it is one for whoever names it (RFC 7671 5.2).
    """
    leaf, *above = chain
    trusted = list(anchors)
    if not trusted:
        raise BadCertificate("the certificate does not lead to a trusted one: there are none")
    builder = PolicyBuilder().store(Store(trusted)).max_chain_depth(_LONGEST)
    # Names are ours to check: more than one will do, and they may be in the common name (RFC 7672 3.2.3).
    builder = builder.extension_policies(ca_policy=_AUTHORITY, ee_policy=ExtensionPolicy.permit_all())
    try:
        builder.build_client_verifier().verify(leaf, above)
        borne = names_of(leaf)
    except VerificationError as error:
        raise BadCertificate(f"the certificate does not lead to a trusted one: {error}") from error
    except _UNREADABLE as error:
        raise BadCertificate(f"the certificate cannot be read: {error}") from error
    if not any(is_name(pattern, name) for pattern in borne for name in names):
        raise BadCertificate(
            f"the certificate is for {', '.join(borne[:3]) or 'no name'}, not for {' or '.join(names)}"
        )


def by_authorities(chain: Sequence[bytes], name: str, ca_file: Path | None) -> str:
    """Why a chain would not do where an authority's word is wanted, or "". Raises OSError as contexts.verifying."""
    anchors = _authorities(contexts.authorities(ca_file))
    try:
        check(read(chain), anchors, (name,))
    except BadCertificate as error:
        return str(error)
    return ""


def is_name(pattern: str, name: str) -> bool:
    """Whether a name of a certificate or an MTA-STS policy means this host (RFC 6125 6.4, RFC 8461 4.1).

    A wildcard stands for the whole first label and for no more.
    """
    pattern, name = pattern.lower().removesuffix("."), name.lower().removesuffix(".")
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and rest == pattern[2:]
    return pattern == name


def names_of(certificate: x509.Certificate) -> list[str]:
    """Its DNS names; where it has none, its common names (RFC 7672 3.2.3)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if names := found.value.get_values_for_type(x509.DNSName):
            return names
    except x509.ExtensionNotFound:
        pass
    return [str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]


@functools.lru_cache(maxsize=2)
def _authorities(certificates: tuple[bytes, ...]) -> tuple[x509.Certificate, ...]:
    """Read the authorities of a system, which may hold one that this library cannot read."""
    read_ones = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # of serial numbers that are none of ours
        for der in certificates:
            try:
                read_ones.append(x509.load_der_x509_certificate(der))
            except _UNREADABLE:
                continue
    return tuple(read_ones)
