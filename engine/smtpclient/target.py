"""Whom a conversation is with: an address of a host, and how to speak to it."""

from typing import Literal

from msgspec import Struct

from engine.login.login import Login
from engine.tls.demand import TlsDemand

Form = Literal["SMTP", "ESMTP"]


class Target(Struct, frozen=True, kw_only=True):
    """One place to try: an address of a host, and how to speak to it.

    `source` is the address of ours to connect from ("": any), `hello` the name we give ("": the relay's). `is_named`:
    by an operator, in a route or an override. `form`: "SMTP" for a host that knows no EHLO, and nothing that is offered
    there. `chunking`: a message goes to it with BDAT, where that is offered. `demand` is what its TLS must be like, and
    `tls_at_once` that it comes before anything is said (RFC 8314 3.3), instead of by STARTTLS. A login is sent under
    TLS only, to a host whose certificate is right by the system's authorities or those of the demand's `ca_file`.
    """

    host: str
    address: str
    port: int
    source: str = ""
    hello: str = ""
    is_named: bool = False
    form: Form = "ESMTP"
    chunking: bool = False
    demand: TlsDemand = TlsDemand()
    tls_at_once: bool = False
    login: Login | None = None
