"""What is said in answer to explain and probe, and the list of what stands: lines to be read by themselves."""

from collections.abc import Iterator

from console import words
from console.commands.columns import Column
from console.format import Moment, span
from engine.control import views
from engine.model.probe import Probed

OVERRIDES = (
    Column("ENDS IN", right=True),
    Column("KIND"),
    Column("WHAT", least=16),
    Column("DOES", least=12),
    Column("BY"),
    Column("NOTE", least=12),
)


def standing_row(row: views.StandingView, moment: Moment) -> list[str]:
    """A row of what stands until a time."""
    return [moment.left(row.until), *words.standing(row), row.what, row.by, row.note]


def explain_lines(found: views.ExplainView, moment: Moment) -> Iterator[str]:
    """Each explanation: the one cause first, then when, then the facts."""
    for place, explanation in enumerate(found.explanations):
        if place:
            yield ""
        named = f"{explanation.entry}  " if explanation.entry else ""
        yield f"{named}{explanation.subject}: {words.cause(explanation)}"
        yield f"  {explanation.text}"
        yield f"  earliest    {words.earliest(explanation, moment)}"
        yield from (f"  {fact.name:<11} {fact.text}" for fact in explanation.facts)
    if found.node:
        yield f"(as node {found.node} sees it)"


def probe_lines(found: Probed, moment: Moment) -> Iterator[str]:
    """What each address of a host answered."""
    yield f"{found.host}, port {found.port}: {found.summary}"
    for address in found.addresses:
        yield ""
        yield f"{address.address}  {'failed' if address.trouble else 'ok'}  ({span(address.seconds)})"
        yield from (f"  {fact.name:<12} {fact.text}" for fact in words.probed(address, moment))
    if found.left_out:
        yield ""
        yield f"{found.left_out} more of its addresses were not asked"
