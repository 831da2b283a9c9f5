"""What a mail exchange answered when it was probed."""

from msgspec import Struct

from engine.model.transcript import Line


class Certificate(Struct, frozen=True, kw_only=True):
    """What a peer's certificate says; times are seconds since 1970. `trouble`: why it could not be read, or ""."""

    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    trouble: str = ""


class ProbedAddress(Struct, frozen=True, kw_only=True):
    """What one address answered. `trouble`: what went wrong, in `phase`; "" when all went well up to QUIT.

    `offered` are the extensions before TLS, `offered_secured` those after it. `verifies`: the certificate is right
    for the host by the authorities this machine trusts; None where none was seen, and `verify_trouble` says why not.
    `seconds` is how long it took, without looking at the certificate once more.
    """

    address: str
    port: int
    phase: str
    seconds: float
    greeting: str = ""
    offered: tuple[str, ...] = ()
    offered_secured: tuple[str, ...] = ()
    tls: str = ""
    certificate: Certificate | None = None
    verifies: bool | None = None
    verify_trouble: str = ""
    trouble: str = ""
    lines: tuple[Line, ...] = ()


class Probed(Struct, frozen=True, kw_only=True):
    """What came back from a host. `trouble`: why it has no address; `left_out` addresses were not asked."""

    host: str
    port: int
    at: float
    addresses: tuple[ProbedAddress, ...] = ()
    left_out: int = 0
    trouble: str = ""

    @property
    def summary(self) -> str:
        """In one line: how many addresses answered, and how."""
        if self.trouble:
            return self.trouble
        well = sum(not address.trouble for address in self.addresses)
        troubles = "; ".join(dict.fromkeys(address.trouble for address in self.addresses if address.trouble))
        said = f"{well} of {len(self.addresses)} addresses answered as they should"
        return f"{said}: {troubles}" if troubles else said
