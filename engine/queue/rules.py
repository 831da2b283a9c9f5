"""Hold rules, whatever the store: how the filter of one is read, and how is told what it does."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from engine.base.duration import format_duration
from engine.base.plural import plural
from engine.base.text import clean
from engine.model.event import ENGINE, Event
from engine.model.filter import Filter, FilterError
from engine.model.order import MOST_RULES, HoldRule

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """What one transaction did for rule `id`: how many recipients, and whether there is more to do."""

    id: int
    recipients: int
    more: bool


def rule_of(row: Sequence[Any]) -> HoldRule:
    """The rule of a row with its columns in the order of the fields of HoldRule; what it holds may be left out."""
    return HoldRule(**dict(zip(HoldRule.__struct_fields__, row, strict=False)))


@lru_cache(maxsize=2 * MOST_RULES)
def filter_of(text: str) -> Filter | None:
    """A rule's filter. One that this version cannot read holds nothing: it must not keep all mail from coming in."""
    try:
        return Filter.parse(text)
    except FilterError as error:
        log.error("a hold rule cannot be read, and holds nothing: %s", error)
        return None


def made(now: float, rule: HoldRule) -> Event:
    """The event that tells of a rule that is new, or in place of one with the same filter."""
    text = f"hold rule {rule.id}: {rule.filter} for {format_duration(rule.until - now)}{_why(rule.note)}"
    return Event(at=now, kind="held", by=rule.by, text=clean(text))


def held(now: float, rule: HoldRule, message: int, entry: int, sender: str, recipient: str, destination: str) -> Event:
    """The event that tells that a recipient of a message that came in is held."""
    return Event(
        at=now,
        kind="held",
        by=rule.by,
        message=message,
        entry=entry,
        sender=sender,
        recipient=recipient,
        destination=destination,
        text=f"hold rule {rule.id}{_why(rule.note)}",
    )


def ended(now: float, id: int, filter: str, ended_by: str, released: int) -> Event:
    """The event that tells that a rule is over, and how many recipients went; `ended_by` "": its time was over."""
    over = "" if ended_by else ": its time was over"
    text = f"hold rule {id} ({filter}) has ended{over}; {plural(released, 'recipient')} let go"
    return Event(at=now, kind="released", by=ended_by or ENGINE, text=clean(text))


def _why(note: str) -> str:
    return f" ({note})" if note else ""
