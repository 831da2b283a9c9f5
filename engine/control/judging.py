"""Judging: puts what the store, the marks and the smart host know together, and asks
engine.delivery.condition what it comes to.

One Judge serves one answer: what it has gathered for a destination holds for all rows of it.
"""

from engine.control.relay import Relay
from engine.delivery import condition
from engine.delivery.condition import Around, Verdict
from engine.model.destination import Bearing, Destination, HeldBack
from engine.model.message import Entry


class Judge:
    """Says of rows what they are, as of now."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._now = relay.clock.now()
        self._known: dict[str, Around] = {}

    def entry(self, row: Entry) -> Verdict:
        """What one recipient's mail is."""
        return condition.of_entry(row, self._around(row.bearing))

    def destination(self, row: Destination) -> Verdict:
        """What a destination is."""
        return condition.of_destination(row, self._around(row))

    def next_try(self, held: HeldBack) -> float | None:
        """When what waits for a bad host is tried next."""
        tried = (condition.of_waiting(self._around(one)).next_try for one in held.first)
        return min((one for one in tried if one is not None), default=None)

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
