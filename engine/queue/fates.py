"""What became of an entry that an order let go, by how it stands in a store or how it left: in every store the same."""

from typing import NamedTuple

from engine.model.order import Fate
from engine.model.outcome import Cause, Outcome
from engine.model.reason import reason_of
from engine.queue.columns import outcome_of


class Stands(NamedTuple):
    """How an entry stands that may still be there: `state` is None where it has left, and all the rest means nothing.

    `is_tried`: since the order; `reason` and `cause` are those of its last outcome. `is_later`: it is not due yet.
    """

    state: str | None
    is_tried: int
    reason: str | None
    cause: Cause | None
    is_later: int
    is_blocked: int
    blocked_why: str
    blocked_cause: Cause
    is_suspended: int


def fate_of(stands: Stands, left: tuple[str, str | None] | None) -> Fate:
    """The fate of an entry; `left` is the kind and the outcome's column of the event with which it left, if any."""
    if stands.state is None:
        return _of_gone(*(left or ("", None)))
    if stands.is_tried:
        return Fate("deferred", stands.reason or "", stands.cause or "")
    if stands.state == "relaying":
        return Fate("relaying")
    if stands.state == "held":
        return Fate("held")
    if stands.is_suspended:
        return Fate("suspended")
    if stands.is_blocked:
        why = reason_of(Outcome.transient(stands.blocked_why)) if stands.blocked_why else ""
        return Fate("blocked", why, stands.blocked_cause)
    return Fate("later" if stands.is_later else "waiting")


def _of_gone(kind: str, outcome: str | None) -> Fate:
    if kind == "delivered":
        return Fate("delivered")
    if kind in ("returned", "discarded"):
        why = outcome_of(outcome)
        return Fate("returned", reason_of(why), why.cause) if why is not None else Fate("returned")
    return Fate("dropped" if kind == "dropped" else "gone")
