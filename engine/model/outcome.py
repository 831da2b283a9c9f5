"""What became of one recipient in one attempt: the only thing that leaves a relayer."""

import re
from typing import Literal, Self

from msgspec import Struct

from engine.base.text import clean

Kind = Literal["delivered", "transient", "permanent"]
Cause = Literal["", "reply", "connect", "greeting", "tls", "login", "dns", "policy", "lost", "ours"]

# RFC 3463 2: class "." subject "." detail, the class the same as the reply's.
_ENHANCED = re.compile(r"^([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)", re.ASCII)


class Outcome(Struct, frozen=True, kw_only=True):
    """The result for one recipient, and whose words it rests on.

    `code` is the SMTP reply code, or 0 where no reply was had; `enhanced` is the RFC 3463 code or ""; `text` is
    cleaned, one line; `host` is who said it, or ""; `phase` is where in the conversation (see relayer.Phase).
    `may_duplicate`: the peer may have taken the message although we must send it again (RFC 1047). `peer_notifies`:
    it offers DSN, so that what the sender asked to be told is its matter now (RFC 3461 5.2.1).

    `cause` is what it is about, set where that is known, "" where nobody has said: a reply to the mail; a connection
    that could not be had, a banner that turned us away, TLS, a login; the DNS; a policy; a session that was lost; or
    "ours", what was wanting on this machine. `secured` tells how a session that delivered was (see tls.secured).
    `address` is where the host was spoken to, with the port behind a colon, "" where nobody was; `took` how many
    seconds it took to connect for this, and to send. `is_named`: by an operator, in a route or an override, and so no
    exchange of the destination's own.
    """

    kind: Kind
    text: str
    code: int = 0
    enhanced: str = ""
    host: str = ""
    phase: str = ""
    may_duplicate: bool = False
    peer_notifies: bool = False
    cause: Cause = ""
    secured: str = ""
    address: str = ""
    took: tuple[float, float] | None = None
    is_named: bool = False

    @classmethod
    def of_reply(cls, code: int, text: str, *, host: str = "", phase: str = "", cause: Cause = "") -> Self:
        """Judge a reply by its code alone: 2xx delivered, 5xx permanent, everything else transient.

        RFC 5321 4.2.1; 421 is transient wherever it comes (4.2.2), and so is what is not a reply code at all.
        """
        kind: Kind = "transient"
        if 200 <= code <= 299:
            kind = "delivered"
        elif 500 <= code <= 599:
            kind = "permanent"
        match = _ENHANCED.match(text)
        enhanced = match.group(0) if match and match.group(1) == str(code)[0] else ""
        said = clean(text.removeprefix(enhanced).lstrip() if enhanced else text)
        return cls(kind=kind, code=code, enhanced=enhanced, text=said, host=host, phase=phase, cause=cause)

    @classmethod
    def transient(cls, text: str, *, enhanced: str = "", host: str = "", phase: str = "", cause: Cause = "") -> Self:
        """A failure of ours or the network's, without a reply: it will be tried again."""
        return cls(kind="transient", text=clean(text), enhanced=enhanced, host=host, phase=phase, cause=cause)

    @classmethod
    def permanent(cls, text: str, *, enhanced: str, host: str = "", phase: str = "", cause: Cause = "") -> Self:
        """A failure without a reply that trying again will not mend."""
        return cls(kind="permanent", text=clean(text), enhanced=enhanced, host=host, phase=phase, cause=cause)

    def as_transient(self) -> Self:
        """The same, but no verdict on the mail: what kept us from connecting never is one."""
        if self.kind == "transient":
            return self
        return type(self).transient(self.text, host=self.host, cause=self.cause)

    @property
    def is_reply_to_mail(self) -> bool:
        """Whether the peer has answered for the message, and not taken its leave instead (421)."""
        return self.cause == "reply" and self.code != 421

    @property
    def line(self) -> str:
        """The outcome as a postmaster writes it: `550 5.1.1 no such user`."""
        return " ".join(part for part in (str(self.code or ""), self.enhanced, self.text) if part)
