"""Certificates for the sandbox's exchanges: from one authority, made up on the spot, and wrong in every usual way."""

import ssl
from typing import Literal

import trustme

Certificate = Literal["good", "self-signed", "wrong name"]


class Certificates:
    """Makes the server side's TLS contexts; the authority lives as long as this object.

    "self-signed" stands for what no authority that the client trusts has signed.
    """

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="Sandbox Authority")
        self._stranger = trustme.CA(organization_name="Self-signed")
        self._contexts: dict[tuple[str, Certificate], ssl.SSLContext] = {}

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate, for a client that is to trust it."""
        return self._authority.cert_pem.bytes()

    def context(self, host: str, certificate: Certificate) -> ssl.SSLContext:
        """The context with which `host` answers STARTTLS. Kept: making a key takes milliseconds."""
        key = (host, certificate)
        if key not in self._contexts:
            authority = self._stranger if certificate == "self-signed" else self._authority
            name = "wrong-name.example" if certificate == "wrong name" else host
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(name).configure_cert(context)
            self._contexts[key] = context
        return self._contexts[key]

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts the authority, and checks names."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context
