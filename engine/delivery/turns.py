"""Turns: for whom a destination's mail goes, and who is next among destinations that have not proved themselves.

Names cost nothing, so turns go by who sends: between senders, between one sender's messages, and between the domains
that somebody has registered. One message to 600 destinations takes one message's turn, and so do 600 messages to
600 names below one domain.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from engine.base.registrable import registrable
from engine.model.claim import DueSite


class Flow(Struct, frozen=True):
    """Whose share a look-up or a connection counts for: a message, its sender, and the domain somebody registered."""

    message: int
    sender: str
    domain: str


def flow_of(message: int, sender: str, destination: str) -> Flow:
    """The flow of a destination whose first mail is this message, of this sender."""
    return Flow(message, sender, registrable(destination))


def in_fair_turn(due: Sequence[DueSite], served: Iterable[Flow]) -> list[tuple[DueSite, Flow]]:
    """The sites in the order in which they are to be served, each with its flow, given whose mail is `served` now.

    Who has least comes first: of senders, of each one's messages and domains, and then whose turn it was longest ago,
    of those that were never tried and those that have failed one after the other.
    """
    taken: Counter[tuple[str, object]] = Counter()
    for flow in served:
        taken.update([("message", flow.message), ("domain", flow.domain), ("sender", flow.sender)])
    ranked = []
    places: Counter[bool] = Counter()
    for number, one in enumerate(due):
        flow = flow_of(one.message, one.sender, one.destination)
        places[one.has_failed] += 1
        rank = 0
        for key in (("message", flow.message), ("domain", flow.domain)):
            taken[key] += 1
            rank = max(rank, taken[key])
        ranked.append((rank, places[one.has_failed], number, flow))
    ordered = []
    for rank, place, number, flow in sorted(ranked, key=lambda row: row[:3]):
        taken["sender", flow.sender] += 1
        ordered.append((taken["sender", flow.sender], rank, place, number, flow))
    return [(due[number], flow) for *_, number, flow in sorted(ordered, key=lambda row: row[:4])]
