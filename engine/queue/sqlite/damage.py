"""Damaged pages of the store's file: what they hold is left out, and what of them holds no mail is made anew.

A page goes bad with the disk, or by somebody's hand. What is on it fails, each operation for itself, and all else goes
on. What holds no mail is made anew at once (see engine.queue.sqlite.renewal). The rest stays as it is until `smarthost
check-spool --repair`.
"""

import logging
import sqlite3
import time

from engine.base.plural import plural
from engine.base.text import clean
from engine.model.event import Event
from engine.queue.sqlite.renewal import mend, mend_small_tables, transaction
from engine.queue.sqlite.rows import insert_event

MENDINGS = 3  # in the life of a store: a disk that goes bad page by page is not to be mended for ever
SMALL_EVERY = 10.0  # seconds between two looks at the small tables while mail itself is damaged
LEFT_OUT = 10_000  # what is remembered as unreadable; an operation that meets more fails

log = logging.getLogger(__name__)


class Damage:
    """What a store has met of damage. Written in the writer's thread, but for `met`, and read in any.

    `said` is SQLite's word for it, "" where none was met that stands. What is unreadable is noted by names: "mail", a
    message and a destination; "row", a message and the number of an entry that cannot be removed, or put back; "rest",
    a message that cannot; "attempt", one that cannot; "times", what a step of the clock concerns;
    "suppressed", that the suppression list cannot be written.
    "relaying" is noted where what is being relayed cannot be listed, "expired" where what has expired cannot, and
    "ordered" with a verb where what is to be bounced or dropped cannot; with a message, that it is on such a page.
    """

    def __init__(self) -> None:
        self.said = ""
        self._known: dict[tuple[str | int, ...], None] = {}
        self._told: set[tuple[int, str]] = set()
        self._is_fresh = False
        self._mendings_left = MENDINGS
        self._small_left = MENDINGS
        self._small_at = 0.0  # when the small tables are looked at again, on time.monotonic's clock
        self._lost: tuple[str, ...] = ()  # of what operators had laid upon mail, "hold rules"
        self.mended = 0  # how often something was

    @property
    def is_met(self) -> bool:
        """Whether a page is damaged, as far as is known."""
        return bool(self.said)

    @property
    def trouble(self) -> str:
        """What an operator is told of it, or ""."""
        return "; ".join(trouble for trouble in (self._of_orders, self._of_pages) if trouble)

    @property
    def _of_orders(self) -> str:
        if not self._lost:
            return ""
        return (
            f"{' and '.join(self._lost)} were lost with a damaged page of the queue: look after what operators had "
            "laid upon mail (the events tell of it), then start the engine anew"
        )

    @property
    def _of_pages(self) -> str:
        if not self.said:
            return ""
        count = sum(damaged[0] == "mail" for damaged in list(self._known))
        left_out = f"; the mail of {plural(count, 'message')} is left out" if count else ""
        return (
            f"a page of the queue is damaged ({self.said}){left_out}: what it holds does not go, all else does; "
            "stop the engine and see to it with `smarthost check-spool --repair`"
        )

    @property
    def known(self) -> int:
        """How much is known to be unreadable."""
        return len(self._known)

    def met(self, error: BaseException) -> None:
        """Note that a page could not be read."""
        if not self.said:
            log.error("a page of the queue cannot be read: %s", clean(str(error)))
        self.said = clean(str(error), 200)
        self._is_fresh = True

    def note(self, *what: str | int) -> None:
        """Note that this cannot be read, or removed. Of more than LEFT_OUT none is."""
        if what not in self._known and len(self._known) < LEFT_OUT:
            self._known[what] = None

    def knows(self, *what: str | int) -> bool:
        """Whether this is known to be unreadable."""
        return what in self._known

    def forget(self) -> None:
        """Have all be looked at again: what is beside a damaged page can be changed once there is room on its own.

        Called in the writer's thread, as all that writes.
        """
        self._known.clear()

    def to_tell(self, now: float) -> list[Event]:
        """The events that tell of mail that is left out since the last call."""
        mail = [(int(damaged[1]), str(damaged[2])) for damaged in list(self._known) if damaged[0] == "mail"]
        untold = [damaged for damaged in mail if damaged not in self._told]
        self._told.update(untold)
        text = "it is on a damaged page of the queue and cannot be read: it is left out, and kept as it is"
        return [
            Event(at=now, kind="damaged", message=message, destination=destination, text=text)
            for message, destination in untold
        ]

    @property
    def is_to_be_mended(self) -> bool:
        """Whether damage was met since the last mending, and another one is allowed."""
        return self._is_fresh and (self._mendings_left > 0 or self._are_small_due)

    @property
    def _are_small_due(self) -> bool:
        return self._small_left > 0 and time.monotonic() >= self._small_at

    def mend(self, connection: sqlite3.Connection, now: float) -> list[Event]:
        """Make anew what is damaged and holds no mail; give the events that tell of it, which have been kept.

        Raises sqlite3.Error, and Unsure where a commit failed; a transaction may be open then.
        """
        self._is_fresh = False
        may_be_all = self._mendings_left > 0
        done: list[str] = []
        if may_be_all:
            self._mendings_left -= 1
            done = mend(connection)  # the record of events first: what follows is told in it
        events = self._mend_small(connection, now)
        if not done and not events:
            self._mendings_left = 0  # it is in the mail itself: looking again would find the same
            return []
        self.mended += 1
        self._known.clear()
        if may_be_all:
            self.said = ""
        with transaction(connection):
            events += [insert_event(connection, Event(at=now, kind="damaged", text=text)) for text in done]
        for event in events:
            log.error("a page of the queue was damaged: %s", event.text)
        return events

    def _mend_small(self, connection: sqlite3.Connection, now: float) -> list[Event]:
        if not self._are_small_due:
            return []
        events, lost = mend_small_tables(connection, now)
        self._small_left -= bool(events)
        self._small_at = 0.0 if events else time.monotonic() + SMALL_EVERY
        self._lost = tuple(dict.fromkeys((*self._lost, *lost)))
        return events
