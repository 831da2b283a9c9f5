"""Events: what happened and who did it, written in the transaction of the change that they tell of."""

from typing import Literal

from msgspec import Struct

from engine.model.outcome import Outcome

Kind = Literal[
    "started", "stopped", "sick", "clock set",
    "accepted", "refused",
    "delivered", "deferred", "notified", "returned", "discarded", "dropped", "interrupted", "damaged",
    "checked", "retried", "held", "released", "ordered", "undone", "carried out",
    "suspended", "resumed",
    "marked bad", "marked good",
    "overridden", "ended", "probed", "closed",
    "unreachable",
]  # fmt: skip

ENGINE = "engine"  # who did it, where no operator did


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened. `seq` is given by the store and grows by one; `by` is "engine" or an operator.

    `message` and `entry` name what it happened to (0: none); `text` is cleaned and says what the fields do not.
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
    seq: int = 0
