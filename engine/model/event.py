"""Events: what happened and who did it, written in the transaction of the change that they tell of."""

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from engine.model.outcome import Outcome

if TYPE_CHECKING:
    Kind = Literal[
        "started", "stopped", "sick", "clock set", "node lost",
        "accepted", "refused",
        "delivered", "deferred", "notified", "returned", "discarded", "dropped", "interrupted", "damaged",
        "checked", "retried", "postponed", "held", "released", "ordered", "undone", "carried out",
        "suspended", "resumed",
        "marked bad", "marked good",
        "overridden", "ended", "probed", "closed", "drained", "undrained",
        "unreachable",
        "suppressed", "unsuppressed",
    ]  # fmt: skip
else:
    Kind = str  # who reads what another version tells meets kinds that it does not know

ENGINE = "engine"  # who did it, where no operator did


class Detail(Struct, frozen=True, kw_only=True):
    """What is known of a message as something happens to it, and is not kept with that.

    `arrived` is when it came in; of an arrival there are its `size` in bytes, its `message_id`, how many `recipients`.
    """

    arrived: float
    size: int = 0
    message_id: str = ""
    recipients: int = 0


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened. `seq` is given by the store and grows; `by` is "engine" or an operator.

    `message` and `entry` name what it happened to (0: none); `text` is cleaned and says what the fields do not. `node`
    is where it happened, of several that share a queue. `detail` is for those who hear of it at once (the mail log):
    no event that is read later has any.
    """

    at: float
    kind: Kind
    by: str = ENGINE
    message: int = 0
    entry: int = 0
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    host: str = ""
    outcome: Outcome | None = None
    text: str = ""
    node: str = ""
    seq: int = 0
    detail: Detail | None = None

    @property
    def of(self) -> str:
        """The entry it happened to, "48213.2", or ""."""
        return f"{self.message}.{self.entry}" if self.entry else ""
