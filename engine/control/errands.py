"""What the engines that share a queue ask each other for their operators, and how it is answered: the wire's types.

Of the verbs only those are here that are for a thing of one node alone: a connection, and what a host says to it. Who
may ask is decided where the operator asked; what is answered is held to what was asked for, by its type.
"""

from msgspec import Raw, Struct

from engine.control import views
from engine.model.verbs import Ask, Close, Probe

ERRANDS: dict[str, type[Ask]] = {"close": Close, "probe": Probe}  # verbs that one node carries out for another


class _Question(Struct, frozen=True, kw_only=True, tag_field="question", forbid_unknown_fields=True):
    """Base of all questions."""


class Relayers(_Question, frozen=True, kw_only=True, tag="relayers"):
    """Which relayers there are, and up to `ended` of those that ended last."""

    ended: int = 0


class Transcript(_Question, frozen=True, kw_only=True, tag="transcript"):
    """What one relayer and its peer have said."""

    relayer: int


class Explain(_Question, frozen=True, kw_only=True, tag="explain"):
    """Why something is not moving, as that node sees it."""

    subject: str


class Order(_Question, frozen=True, kw_only=True, tag="order"):
    """Carry out a verb of ERRANDS, as `by` has asked."""

    word: str
    ask: Raw
    by: str


Question = Relayers | Transcript | Explain | Order


class Answered(Struct, frozen=True, kw_only=True, tag_field="answer", tag="view"):
    """It was done, and this is what is to be seen."""

    view: Raw


class Refused(Struct, frozen=True, kw_only=True, tag_field="answer", tag="refusal"):
    """It was not, and why; `status` is that of HTTP."""

    status: int
    refusal: views.Refusal


Answer = Answered | Refused
