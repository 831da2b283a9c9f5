"""Answers to read: why mail is not moving, what a probed host said, and all that stands until a time."""

from console import words
from console.actions import Target
from console.format import Moment, span
from console.screens.details import Detail
from console.widgets.document import Para, heading, para
from console.widgets.line import Piece
from console.widgets.panes import host_target
from engine.control.client import Client
from engine.control.views import ExplainView, StandingView
from engine.model.explanation import Explanation
from engine.model.probe import Probed, ProbedAddress

WIDTH = 15  # of the names before the values
MOST = 500  # of what stands, shown at once
# Glyph and colour of a cause that is not just something to wait for.
_CAUSES = {
    "being relayed": ("✓ ", "good"),
    "nothing": ("✓ ", "good"),
    "refused by DNS": ("✗ ", "bad"),
    "to be bounced": ("✗ ", "bad"),
    "to be dropped": ("✗ ", "bad"),
}
_TONES = {"": "", "good": "✓ ", "warn": "✗ ", "bad": "✗ "}


class Answer(Detail):
    """A text that answers a question; the next answer takes its place."""


class ExplainScreen(Answer):
    """Why mail is not moving, as it was when it was asked for: the one cause first, then the facts."""

    def __init__(self, view: ExplainView) -> None:
        super().__init__()
        self._view = view

    @property
    def context(self) -> str:
        return "answer"

    def crumbs(self) -> list[str]:
        """Of a message with one recipient left that one is named: it is what the verbs are for."""
        target = self.target()
        is_one = target is not None and target.single and self._view.subject.isdecimal()
        return ["Explain", target.what if target is not None and is_one else self._view.subject]

    def target(self) -> Target | None:
        named = {explanation.destination for explanation in self._view.explanations}
        if len(named) != 1:
            return None
        entry = self._view.explanations[0].entry
        destination = named.pop()
        if len(self._view.explanations) == 1 and entry:
            return Target(entry, filter=f"id={entry}", single=True, destination=destination)
        return Target(destination, destination=destination)

    def paras(self, moment: Moment) -> list[Para]:
        at = f", as node {self._view.node} sees it" if self._view.node else ""
        asked = para((f"  as it was {moment.both(self._view.now)}{at}; e asks anew", "dim"))
        return [
            *(each for explanation in self._view.explanations for each in _explanation(explanation, moment)),
            Para(),
            asked,
        ]


class ProbeScreen(Answer):
    """What came back from a host that was probed."""

    def __init__(self, view: Probed) -> None:
        super().__init__()
        self._view = view

    @property
    def context(self) -> str:
        return "host"

    def crumbs(self) -> list[str]:
        return ["Probe", self._view.host]

    def target(self) -> Target | None:
        overview = self.console.overview
        return None if overview is None else host_target(self._view.host, overview)

    def paras(self, moment: Moment) -> list[Para]:
        view = self._view
        well = bool(view.addresses) and not any(address.trouble for address in view.addresses)
        paras = [
            _named("host", (view.host, "bold"), (f"  port {view.port}", "")),
            _named("came back", (("✓ " if well else "✗ ") + view.summary, "good" if well else "bad")),
            _named("asked", (moment.both(view.at), "dim"), ("  no mail was sent", "dim")),
        ]
        paras += [each for address in view.addresses for each in _address(address, moment)]
        if view.left_out:
            paras.append(para((f"  {view.left_out} more of its addresses were not asked", "dim")))
        return paras


class OverridesScreen(Answer):
    """All that stands until a time: who laid it upon the mail, why, and when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[StandingView, ...] | None = None

    @property
    def context(self) -> str:
        return "overrides"

    def crumbs(self) -> list[str]:
        return ["Overrides"]

    async def reload(self, client: Client) -> None:
        self._rows = await client.overrides(limit=MOST)

    def paras(self, moment: Moment) -> list[Para]:
        if self._rows is None:
            return []
        if not self._rows:
            return [
                Para(),
                para(("  ✓ nothing stands", "good"), (": no suspension, hold rule, host mark, override", "")),
            ]
        paras = heading("What stands until a time", "the first to end first; it ends by itself")
        for row in self._rows:
            paras += _standing(row, moment)
        if len(self._rows) == MOST:
            paras.append(para((f"  the first {MOST:,}; `smarthost overrides` lists all", "dim"), hang=2))
        return paras


def _named(name: str, *pieces: Piece) -> Para:
    return Para(((f"  {name:<{WIDTH - 2}}", "dim"), *pieces), WIDTH)


def _explanation(explanation: Explanation, moment: Moment) -> list[Para]:
    glyph, style = _CAUSES.get(explanation.cause, ("‖ ", "warn"))
    said: tuple[Piece, ...] = ((glyph + explanation.cause, style), ("  ", ""), (explanation.text, ""))
    if explanation.cause == "nothing":  # a tick beside the word "nothing" would read as its opposite
        said = ((glyph + explanation.text, style),)
    entry = f"   {explanation.entry}" if explanation.entry else ""
    return [
        Para(),
        para((f"  {explanation.subject}", "bold"), (entry, "dim")),
        Para(),
        para(("  ", ""), *said, hang=4),
        Para(),
        _named("earliest", (words.earliest(explanation, moment), "bold")),
        *(_fact(fact.name, fact.text) for fact in explanation.facts),
    ]


def _fact(name: str, text: str) -> Para:
    if len(name) < WIDTH - 2:
        return _named(name, (text, ""))
    return para((f"  {name}  ", "dim"), (text, ""), hang=WIDTH)


def _address(address: ProbedAddress, moment: Moment) -> list[Para]:
    paras = heading(address.address, f"took {span(address.seconds)}")
    for fact in words.probed(address, moment):
        paras.append(_named(fact.name, (_TONES[fact.tone] + fact.text, fact.tone)))
    return paras


def _standing(row: StandingView, moment: Moment) -> list[Para]:
    kind, name = words.standing(row)
    return [
        para((f"  {moment.left(row.until):>9}  ", "warn"), (f"{kind:<12} ", "dim"), (name, "bold"),
             (f"  {row.what}", ""), hang=26),
        para((f"{'':13}by {row.by or 'the engine'} {moment.both(row.since)}: {row.note or 'no note'}", "dim"),
             hang=26),
    ]  # fmt: skip
