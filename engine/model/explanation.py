"""Why mail is where it is, in words for programs and for people."""

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

if TYPE_CHECKING:
    Condition = Literal[
        "relaying", "draining", "to be bounced", "to be dropped", "suspended", "held", "hosts bad", "blocked",
        "not due", "limited", "ready", "idle",
    ]  # fmt: skip
    Cause = Literal[
        "being relayed", "draining", "relay suspended", "held", "to be bounced", "to be dropped", "suspended",
        "hosts bad", "DNS", "refused by DNS", "TLS", "blocked", "limit", "rate", "not due", "suppressed", "nothing",
    ]  # fmt: skip
else:
    Condition = Cause = str  # who reads what another version tells meets words that it does not know


class Fact(Struct, frozen=True):
    """One thing that is so."""

    name: str
    text: str


class Explanation(Struct, frozen=True, kw_only=True):
    """Why one recipient's mail (or a domain's) is where it is.

    `until` is when the cause ends, None where nobody can say; `earliest` when it can be sent at the earliest, None
    where somebody must act first. `entry` is "48213.2", or "" where no mail of the queue is meant.
    """

    subject: str
    destination: str
    cause: Cause
    text: str
    until: float | None = None
    earliest: float | None = None
    entry: str = ""
    facts: tuple[Fact, ...] = ()
