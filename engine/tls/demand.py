"""What is demanded of the connection to one host, and why: the one answer of this room to all others."""

import hashlib
from pathlib import Path

from msgspec import Struct

from engine.dns.lookups import MXError
from engine.settings.kinds import Tls
from engine.tls.dane import Dane

LEVELS = ("none", "opportunistic", "required", "verified")  # each stricter than the one before

_SAID = {
    "none": "TLS is not used",
    "opportunistic": "TLS is used where it is offered",
    "required": "TLS is required",
    "verified": "TLS verified is required",
}


class TlsDemand(Struct, frozen=True, kw_only=True):
    """How a connection must be secured before mail goes over it, and what makes it so.

    `level`: "none" never asks for TLS; "opportunistic" takes it when offered and goes on without; "required" sends
    nothing unencrypted, whatever the certificate; "verified" wants the certificate right as well: by `dane` where that
    is given, else by name and chain to an authority of `ca_file` or of the system. `why` is "" where nothing but the
    default makes it so. `is_domains`: the mail's own domain makes it so, which anybody may have: a host that fails it
    may be good for all others. `trial` is an MTA-STS policy that is only being tested: what would have kept the mail
    under it is remarked on, and no more.
    """

    level: Tls = "opportunistic"
    why: str = ""
    dane: Dane | None = None
    ca_file: Path | None = None
    is_domains: bool = False
    trial: str = ""

    @property
    def is_must(self) -> bool:
        """Whether nothing may be sent in the clear."""
        return self.level in ("required", "verified")

    @property
    def by_authorities(self) -> bool:
        """Whether the certificate must be right by its name and its chain to an authority."""
        return self.level == "verified" and (self.dane is None or self.dane.and_authorities)

    def is_met_by(self, other: "TlsDemand") -> bool:
        """Whether a session with the same host that was opened under `other` may carry mail under this demand too.

        One who was proved otherwise, or by other names, was not proved to this mail's domain.
        """
        if LEVELS.index(other.level) < LEVELS.index(self.level):
            return False
        return self.level != "verified" or self.proof == other.proof

    @property
    def kind(self) -> str:
        """The demand's level and proof in a name: demands so named alike are met by the same sessions."""
        if self.level != "verified":
            return f"TLS {self.level}"
        return f"TLS verified {hashlib.sha256(repr(self.proof).encode()).hexdigest()[:16]}"

    @property
    def proof(self) -> tuple[Dane | None, Path | None]:
        """What makes a certificate right."""
        return self.dane and self.dane.proof, self.ca_file

    @property
    def line(self) -> str:
        """The demand in words: "TLS verified is required: MTA-STS policy of example.org (enforce)"."""
        return f"{_SAID[self.level]}: {self.why}" if self.why else _SAID[self.level]


class HostNotAllowed(MXError):
    """The destination's MTA-STS policy is enforced and does not name this host: nothing is sent to it (RFC 8461 5)."""

    enhanced = "4.7.5"
    cause = "policy"


class SecurityUnknown(MXError):
    """What a signed zone demands could not be learnt: it may be withheld, so nothing is sent (RFC 7672 2.1.2)."""

    enhanced = "4.7.5"
    cause = "policy"
