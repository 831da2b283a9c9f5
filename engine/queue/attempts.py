"""Attempts that came to nothing, whatever the store: how that is told, and what is said of mail that had none."""

from engine.model.claim import Claim, ClaimedEntry
from engine.model.event import Event
from engine.model.outcome import Outcome
from engine.queue.columns import outcome_of


def interrupted(
    now: float, message: int, number: int, sender: str, recipient: str, destination: str, text: str
) -> Event:
    """Nobody knows how the attempt at an entry ended: the peer may have it."""
    return Event(
        at=now,
        kind="interrupted",
        message=message,
        entry=number,
        sender=sender,
        recipient=recipient,
        destination=destination,
        text=text,
    )


def damaged(now: float, claim: Claim, entry: ClaimedEntry, why: str) -> Event:
    """An entry that was claimed cannot be read, and is held."""
    return Event(
        at=now,
        kind="damaged",
        message=claim.message,
        entry=entry.number,
        sender=claim.sender,
        recipient=entry.recipient,
        destination=claim.destination,
        text=why,
    )


def why_not_tried(last: str | None, blocked_why: str) -> Outcome | None:
    """Why mail to a destination could not be tried, by what its row says of its last outcome and its block.

    What it took or refused for good was other mail: no reason.
    """
    outcome = outcome_of(last)
    if outcome is not None and outcome.kind == "transient":
        return outcome
    return Outcome.transient(blocked_why) if blocked_why else None
