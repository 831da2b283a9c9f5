"""The suppression list: addresses to which no new mail is taken for a while, since it would fail again."""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta, Struct

from engine.model.event import ENGINE
from engine.model.outcome import Outcome
from engine.model.verbs import Ask

LONGEST_REPLY = 400  # characters of what was said, as the list keeps it
LONGEST_NOTE = 200  # characters
LATEST = 253_402_300_799.0  # seconds since 1970: the last of the year 9999, which is the last that can be written


class Suppressed(Struct, frozen=True, kw_only=True):
    """One address on the list, by its key (see `key_of`): since when, until when (None: no end), and by whom.

    `reply` is what was said when it failed, cleaned, or ""; `note` what an operator noted. What the engine entered by
    itself it also lets go: when its time is over, when mail to it is delivered, or to keep the list within its bound.
    """

    address: str
    since: float
    until: float | None = None
    by: str = ENGINE
    reply: str = ""
    note: str = ""

    @property
    def is_automatic(self) -> bool:
        """Whether the engine entered it by itself."""
        return self.by == ENGINE

    @property
    def words(self) -> str:
        """What whoever sends to it is told. Who entered it, and what they noted, is for operators alone."""
        day = datetime.fromtimestamp(min(max(self.since, 0.0), LATEST), UTC).strftime("%Y-%m-%d")
        if self.reply:
            return f"Suppressed: it failed on {day} with: {self.reply}"
        return f"Suppressed: since {day} no mail to this address is taken here"

    @property
    def outcome(self) -> Outcome:
        """The same as the result of a recipient that is not tried: a failure for good (RFC 3463 3.2, X.1.1)."""
        return Outcome.permanent(self.words, enhanced="5.1.1", cause="policy")


class Suppressions(Struct, frozen=True, kw_only=True):
    """A part of the list, in the order of addresses, of `total` that match."""

    total: int
    rows: tuple[Suppressed, ...]


class Entered(Struct, frozen=True, kw_only=True):
    """What came of entering addresses: how many were `new`, and how many were on the list and are changed.

    None are entered where there is no `room` for all of them: the list is full of what operators entered.
    """

    new: int = 0
    changed: int = 0
    has_room: bool = True


class Entry(Ask, frozen=True, kw_only=True):
    """One address, as it is asked for: `since` is now, and there is no end, where that is None.

    `by` is who had entered it, as a list that was exported says; "" is who asks. All times are in seconds since 1970.
    """

    address: str
    since: float | None = None
    until: float | None = None
    by: str = ""
    reply: str = ""
    note: str = ""


class Suppress(Ask, frozen=True, kw_only=True):
    """Enter addresses, all of them or none; what is on the list already is changed. `source`: where they came from."""

    entries: Annotated[list[Entry], Meta(min_length=1, max_length=100)]
    source: str = ""


class Unsuppress(Ask, frozen=True, kw_only=True):
    """Take an address off the list."""

    address: str


class Entering(Struct, frozen=True, kw_only=True):
    """What was entered; `text` says it in words."""

    text: str
    new: int = 0
    changed: int = 0


def key_of(address: str) -> str:
    """An address as the list compares it: all in lower case.

    A host may tell `Bob` from `bob` (RFC 5321 2.4), but none is to be relied on to (4.1.2 there), and none in use does.
    """
    return address.lower()
