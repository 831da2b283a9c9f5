"""Certificates for the sandbox's exchanges: from one authority, made up on the spot, and wrong in every usual way."""

import datetime
import hashlib
import ssl
from typing import Literal

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Certificate = Literal["good", "self-signed", "wrong name", "expired"]

_LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Certificates:
    """Makes the server side's TLS contexts; the authority lives as long as this object.

    "self-signed" stands for what no authority that the client trusts has signed. As on the internet, it is an
    intermediate authority that signs, and servers send its certificate along.
    """

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="Sandbox Authority")
        self._intermediate = self._authority.create_child_ca()
        self._stranger = trustme.CA(organization_name="Self-signed")
        self._made: dict[tuple[str, Certificate], tuple[trustme.LeafCert, ssl.SSLContext]] = {}

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate, for a client that is to trust it."""
        return self._authority.cert_pem.bytes()

    def context(self, host: str, certificate: Certificate) -> ssl.SSLContext:
        """The context with which `host` answers STARTTLS. Kept: making a key takes milliseconds."""
        return self._of(host, certificate)[1]

    def tlsa(
        self,
        host: str,
        certificate: Certificate = "good",
        *,
        usage: int = 3,
        selector: int = 1,
        matching: int = 1,
    ) -> str:
        """The TLSA record of a host's own certificate, or (usage 2) of the authority that signed it: "3 1 1 ..."."""
        chain = [x509.load_pem_x509_certificate(pem.bytes()) for pem in self._of(host, certificate)[0].cert_chain_pems]
        meant = chain[1 if usage == 2 else 0]
        data = meant.public_bytes(Encoding.DER)
        if selector == 1:
            data = meant.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if matching:
            data = (hashlib.sha256 if matching == 1 else hashlib.sha512)(data).digest()
        return f"{usage} {selector} {matching} {data.hex()}"

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts the authority, and checks names."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context

    def _of(self, host: str, certificate: Certificate) -> tuple[trustme.LeafCert, ssl.SSLContext]:
        key = (host, certificate)
        if key not in self._made:
            authority = self._stranger if certificate == "self-signed" else self._intermediate
            name = "wrong-name.example" if certificate == "wrong name" else host
            leaf = authority.issue_cert(name, not_after=_LONG_AGO if certificate == "expired" else None)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            leaf.configure_cert(context)
            self._made[key] = (leaf, context)
        return self._made[key]
