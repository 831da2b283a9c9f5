"""TLSA records against certificates: DANE for SMTP (RFC 7672), usages DANE-TA(2) and DANE-EE(3)."""

import hashlib
from collections.abc import Callable, Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct
from msgspec.structs import replace

from engine.tls import chains

TRUST_ANCHOR, END_ENTITY = 2, 3  # certificate usages
_FULL, _SHA256, _SHA512 = 0, 1, 2  # matching types
_LENGTHS = {_SHA256: 32, _SHA512: 64}  # bytes
_DIGESTS: Mapping[int, Callable[[bytes], bytes]] = {
    _FULL: bytes,
    _SHA256: lambda data: hashlib.sha256(data).digest(),
    _SHA512: lambda data: hashlib.sha512(data).digest(),
}


class Tlsa(Struct, frozen=True):
    """One TLSA record: usage, selector (0 certificate, 1 public key), matching type, and the data (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


class Dane(Struct, frozen=True, kw_only=True):
    """The usable records of a host, where they stand (`owner`), and the names its certificate may bear.

    The first of `names` is the TLSA base domain, which is also the name to ask the server for (RFC 7672 8.1).
    `and_authorities`: the certificate must be right without DANE too, since something else demands that.
    """

    owner: str
    records: tuple[Tlsa, ...]
    names: tuple[str, ...]
    and_authorities: bool = False

    @property
    def proof(self) -> "Dane":
        """What makes a certificate right, for whomever: without names where none count (RFC 7672 3.1.1)."""
        is_by_name = any(record.usage == TRUST_ANCHOR for record in self.records)
        return self if is_by_name else replace(self, names=())


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """The records that can be used for SMTP; of two digests of one kind of data the weaker is left out.

    RFC 7672 3.1.3: PKIX-TA(0) and PKIX-EE(1) cannot be; RFC 7671 9: digest algorithm agility.
    """
    known = [record for record in records if _is_usable(record)]
    strong = {(record.usage, record.selector) for record in known if record.matching == _SHA512}
    return tuple(
        record for record in known if record.matching != _SHA256 or (record.usage, record.selector) not in strong
    )


def fault(dane: Dane, chain: Sequence[bytes]) -> str:
    """Why the chain a server sent (DER, its own certificate first) is not right by the records; "" when it is."""
    try:
        _check(dane, chains.read(chain))
    except chains.BadCertificate as error:
        return f"{error} (by the TLSA records of {dane.owner})"
    return ""


def _check(dane: Dane, chain: list[x509.Certificate]) -> None:
    leaf, *above = chain
    # RFC 7672 3.1.1: for DANE-EE neither name nor dates of the certificate count; the record's signature bounds it.
    if any(_matches(record, leaf) for record in dane.records if record.usage == END_ENTITY):
        return
    of_anchors = [record for record in dane.records if record.usage == TRUST_ANCHOR]
    candidates = above + [one for record in of_anchors if (one := _certificate_in(record)) is not None]
    anchors = [candidate for candidate in candidates if any(_matches(record, candidate) for record in of_anchors)]
    if not anchors:
        raise chains.BadCertificate("the certificate matches no record")
    chains.check(chain, anchors, dane.names)  # RFC 7672 3.1.2, 3.2.2: for DANE-TA chain, dates and name count


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    if record.selector == 0:
        data = certificate.public_bytes(Encoding.DER)
    else:
        try:
            data = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):
            return False
    return _DIGESTS[record.matching](data) == record.data


def _certificate_in(record: Tlsa) -> x509.Certificate | None:
    """A trust anchor that the record holds whole, so that the server need not send it."""
    if (record.selector, record.matching) != (0, _FULL):
        return None
    try:
        return x509.load_der_x509_certificate(record.data)
    except ValueError:
        return None


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (TRUST_ANCHOR, END_ENTITY) or record.selector not in (0, 1):
        return False
    if record.matching == _FULL:
        return bool(record.data)
    return _LENGTHS.get(record.matching) == len(record.data)
