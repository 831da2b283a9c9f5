"""Whom a conversation is with: an address of a host, and how to speak to it."""

from msgspec import Struct

from engine.tls.demand import TlsDemand


class Target(Struct, frozen=True, kw_only=True):
    """One place to try: an address of a host, and how to speak to it.

    `demand` is what its TLS must be like. A password is sent under TLS only, to a host whose certificate is right by
    the system's authorities or those of the demand's `ca_file`.
    """

    host: str
    address: str
    port: int
    demand: TlsDemand = TlsDemand()
    username: str = ""
    password: str = ""
