"""What is said in answer to explain and probe, and the list of what stands: lines to be read by themselves."""

from collections.abc import Iterator

from console.commands.columns import Column
from console.format import Moment, span
from engine.control import views
from engine.model.destination import RELAY
from engine.model.explanation import Explanation
from engine.model.probe import Probed, ProbedAddress

OVERRIDES = (
    Column("ENDS IN", right=True),
    Column("KIND"),
    Column("WHAT", least=16),
    Column("DOES", least=12),
    Column("BY"),
    Column("WHY", least=12),
)


def standing_row(row: views.StandingView, moment: Moment) -> list[str]:
    """A row of what stands until a time."""
    kind = f"{row.kind} {row.rule}" if row.rule else row.kind
    name = "the whole relay" if row.kind == "suspension" and row.name == RELAY else row.name
    return [moment.left(row.until), kind, name, row.what, row.by, row.reason]


def explain_lines(found: views.ExplainView, moment: Moment) -> Iterator[str]:
    """Each explanation: the one cause first, then when, then the facts."""
    for place, one in enumerate(found.explanations):
        if place:
            yield ""
        named = f"{one.entry}  " if one.entry else ""
        yield f"{named}{one.subject}: {cause(one)}"
        yield f"  {one.text}"
        yield f"  earliest    {earliest(one, moment)}"
        yield from (f"  {fact.name:<11} {fact.text}" for fact in one.facts)


def cause(one: Explanation) -> str:
    """The cause in words; where there is none, that."""
    return "nothing holds it back" if one.cause == "nothing" else one.cause


def earliest(one: Explanation, moment: Moment) -> str:
    """When it can be sent."""
    if one.cause == "being relayed":
        return "it is on its way"
    if one.cause == "refused by DNS":
        return "never: it will be returned"
    if one.cause == "to be bounced":
        return "never, unless that is undone: it will be returned"
    if one.cause == "to be dropped":
        return "never, unless that is undone"
    if one.earliest is None:
        return "not before something else happens"
    return "now" if one.earliest <= moment.now else moment.both(one.earliest)


def probe_lines(found: Probed, moment: Moment) -> Iterator[str]:
    """What each address of a host answered."""
    yield f"{found.host}, port {found.port}: {found.summary}"
    for one in found.addresses:
        yield ""
        yield f"{one.address}  {one.trouble or 'ok'}  ({span(one.seconds)})"
        if one.trouble:
            yield f"  in           {one.phase}"
        for name, text in (("greeting", one.greeting), ("offers", ", ".join(one.offered)), ("TLS", one.tls or "none")):
            if text:
                yield f"  {name:<12} {text}"
        yield from (f"  {line}" for line in certificate_lines(one, moment))
        if one.offered_secured:
            yield f"  under TLS    {', '.join(one.offered_secured)}"
    if found.left_out:
        yield ""
        yield f"{found.left_out} more of its addresses were not asked"


def certificate_lines(one: ProbedAddress, moment: Moment) -> Iterator[str]:
    """The certificate, and whether it is right."""
    shown = one.certificate
    if shown is None:
        return
    if shown.trouble:
        yield f"certificate  cannot be read: {shown.trouble}"
        return
    verdict = "is right for this host" if one.verifies else f"is wrong: {one.verify_trouble}"
    yield f"certificate  {verdict}"
    yield f"  subject    {shown.subject or '(none)'}"
    yield f"  names      {', '.join(shown.names) or '(none)'}"
    yield f"  issuer     {shown.issuer}"
    if shown.until is not None:
        over = "has ended " if shown.until <= moment.now else "until "
        yield f"  valid      {over}{moment.both(shown.until)}"
