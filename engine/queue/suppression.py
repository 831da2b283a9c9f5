"""The suppression list as every store keeps it: what is entered with a settlement, and the events that tell of it."""

from collections.abc import Sequence

from engine.base.plural import plural
from engine.base.text import clean
from engine.model.event import ENGINE, Event
from engine.model.outcome import Outcome
from engine.model.suppression import LONGEST_REPLY, Suppressed, key_of
from engine.queue.columns import storable
from engine.queue.mail import destination_of

COLUMNS = 'address, since, until, "by", reply, note'  # in the order of the fields of Suppressed


def automatic(recipient: str, outcome: Outcome, now: float, seconds: float) -> Suppressed:
    """What is entered for a recipient that has failed for good."""
    reply = clean(outcome.line, LONGEST_REPLY)
    return Suppressed(address=storable(key_of(recipient)), since=now, until=now + seconds, by=ENGINE, reply=reply)


def told_automatic(entered: Suppressed, outcome: Outcome) -> Event:
    """The event of that."""
    return Event(
        at=entered.since,
        kind="suppressed",
        recipient=entered.address,
        destination=destination_of(entered.address),
        host=outcome.host,
        outcome=outcome,
        text="new mail to it is refused for a while",
    )


def told_entered(entries: Sequence[Suppressed], now: float, by: str, source: str) -> Event:
    """The event of what an operator entered: of one address its own, of more of them how many and of which."""
    where = f"from {clean(source, 200)}" if source else ""
    if len(entries) > 1:
        what = f"{plural(len(entries), 'address', 'addresses')}, from {entries[0].address} to {entries[-1].address}"
        return Event(at=now, kind="suppressed", by=by, text=", ".join(filter(None, (what, where))))
    (only,) = entries
    return Event(
        at=now,
        kind="suppressed",
        by=by,
        recipient=only.address,
        destination=destination_of(only.address),
        text="; ".join(filter(None, (only.note, where))),
    )


def told_removed(removed: Suppressed, now: float, by: str, text: str = "") -> Event:
    """The event of one that was taken off the list."""
    return Event(
        at=now,
        kind="unsuppressed",
        by=by,
        recipient=removed.address,
        destination=destination_of(removed.address),
        text=text,
    )


DELIVERED = "mail to it was delivered"
