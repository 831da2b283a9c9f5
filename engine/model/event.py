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
    ]  # fmt: skip
else:
    Kind = str  # who reads what another version tells meets kinds that it does not know

ENGINE = "engine"  # who did it, where no operator did


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened. `seq` is given by the store and grows; `by` is "engine" or an operator.

    `message` and `entry` name what it happened to (0: none); `text` is cleaned and says what the fields do not. `node`
    is where it happened, of several that share a queue.
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

    @property
    def of(self) -> str:
        """The entry it happened to, "48213.2", or ""."""
        return f"{self.message}.{self.entry}" if self.entry else ""
