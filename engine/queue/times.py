"""Times that a step of the clock has put wrong: put right by the clock as it is now, whatever the store.

Set back, what was written down before has its time in the future: what is due is due after the time it was to wait, or
after the longest there is. Set ahead again, as where a machine knows the time only some seconds after it was started,
mail has the time it had when it came.
"""

from collections.abc import Callable
from typing import NamedTuple

from engine.base.plural import plural
from engine.model.event import Event
from engine.queue.mail import Terms


class Step(NamedTuple):
    """What one transaction has looked at: the last entry, None when there are no more, and how many were changed."""

    after: tuple[int, int] | None
    changed: int


class Times(NamedTuple):
    """The times of an entry as they are written down, and what they are judged by."""

    message: int
    number: int
    destination: str
    attempts: int
    due: float
    last_at: float | None
    expires: float
    notice_at: float | None
    postponed_at: float | None
    arrived: float


class PutRight(NamedTuple):
    """The times of an entry as they should be."""

    due: float
    last_at: float | None
    expires: float
    notice_at: float | None
    postponed_at: float | None
    message: int
    number: int


def put_right(entry: Times, now: float, terms: Terms, longest_wait: Callable[[str], float]) -> PutRight | None:
    """The times of an entry as its columns should have them; None: as they are."""
    longest = longest_wait(entry.destination)
    due, postponed_at = entry.due, entry.postponed_at
    if entry.postponed_at is not None:  # it waits for the time it was told, or for as long as it was told
        postponed_at = min(entry.postponed_at, now)
        due = entry.due - (entry.postponed_at - postponed_at)
    elif not entry.attempts:
        due = min(entry.due, now)  # it was due when it came
    elif entry.last_at is not None and entry.last_at > now:
        due = min(entry.due, now + min(max(0.0, entry.due - entry.last_at), longest))
    else:
        due = min(entry.due, now + longest)
    patience = terms.give_up_after(entry.destination)
    expires = min(max(entry.expires, min(entry.arrived, now) + patience), now + patience)
    if postponed_at is not None:
        expires = max(expires, due)
    last_at = None if entry.last_at is None else min(entry.last_at, now)
    notice_at = None if entry.notice_at is None else min(entry.notice_at, now + terms.delay_notice)
    if (due, last_at, expires, notice_at, postponed_at) == (
        entry.due,
        entry.last_at,
        entry.expires,
        entry.notice_at,
        entry.postponed_at,
    ):
        return None
    return PutRight(due, last_at, expires, notice_at, postponed_at, entry.message, entry.number)


def told(now: float, text: str, changed: int) -> Event:
    """The event that tells that the clock was set; it begins with `text`."""
    concerned = f"; the times of {plural(changed, 'recipient')} were put right" if changed else ""
    return Event(at=now, kind="clock set", text=f"{text}{concerned}")
