"""Judging: puts together what the store, the marks and the smart host know, and asks delivery what it comes to.

One Judge serves one answer: what it has gathered for a destination holds for all rows of it.
"""

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from msgspec.structs import replace

from engine.control.relay import Relay
from engine.delivery import condition
from engine.delivery.condition import Around, Verdict
from engine.model.destination import Bearing, Destination, HeldBack
from engine.model.message import Entry, Selection

_NOTHING = Bearing()


class Judge:
    """Says of rows what they are, as of now."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._now = relay.clock.now()
        self._known: dict[str, Around] = {}

    def verdict(self, row: Entry) -> Verdict:
        """What one recipient's mail is."""
        return condition.of_entry(row, self._around(row.bearing))

    def entry(self, row: Entry) -> Entry:
        """A row of the queue with what it is, in place of what bears on it."""
        verdict = self.verdict(row)
        return replace(
            row,
            bearing=_NOTHING,
            condition=verdict.condition,
            next_try=verdict.next_try,
            condition_why=verdict.why,
        )

    def entries(self, rows: Iterable[Entry]) -> tuple[Entry, ...]:
        """Rows of the queue, each with what it is."""
        return tuple(map(self.entry, rows))

    def selection(self, chosen: Selection) -> Selection:
        """What an action would touch, its examples with what they are."""
        return replace(chosen, examples=self.entries(chosen.examples))

    def destination(self, row: Destination) -> Destination:
        """A destination with what it is, and what only the running engine knows of it."""
        around = self._around(row)
        verdict = condition.of_destination(row, around)
        elsewhere = sum(row.name in other.domains for other in self._relay.colleagues.relayers_seen)
        return replace(
            row,
            condition=verdict.condition,
            next_try=verdict.next_try,
            condition_why=verdict.why,
            connections=self._connections[row.site] + elsewhere,
            marked=around.marks,
            rate_out=self._relay.events.rate_out(row.name),
        )

    @cached_property
    def _connections(self) -> Counter[str]:
        """How many are open to each site."""
        return Counter(relayer.site.name for relayer in self._relay.smarthost.managed)

    def next_try(self, held: HeldBack) -> float | None:
        """When what waits for a bad host is tried next."""
        tried = (condition.of_waiting(self._around(mail)).next_try for mail in held.first)
        return min((time for time in tried if time is not None), default=None)

    def _around(self, bearing: Bearing) -> Around:
        found = self._known.get(bearing.name)
        if found is None:
            found = self._known[bearing.name] = self._gathered(bearing)
        return found

    def _gathered(self, bearing: Bearing) -> Around:
        relay = self._relay
        marks = (relay.mx.mark(host) for host in bearing.exchanges)
        limits = relay.smarthost.limits_on(
            bearing.name,
            site=bearing.site,
            is_in_doubt=bearing.is_in_doubt,
            message=bearing.first,
            sender=bearing.first_sender,
        )
        return Around(
            now=self._now,
            bearing=bearing,
            draining=relay.smarthost.draining,
            marks=tuple(mark for mark in marks if mark is not None),
            limits=tuple(limits),
        )
