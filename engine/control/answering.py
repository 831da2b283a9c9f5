"""Answers what the other engines that share the queue ask for their operators (see engine.control.errands)."""

import logging
from collections.abc import Awaitable

import msgspec

from engine.base.text import clean
from engine.control import errands, presentation, views
from engine.control.explanations import Explanations
from engine.control.queries import Queries
from engine.control.requests import LIMIT, NUMBER, Missing, Wrong
from engine.control.verbs import Verbs
from engine.model.event import ENGINE
from engine.queue.errors import NoSuchMessage, QueueError

BY = 80  # characters of an operator's name

log = logging.getLogger(__name__)

_question: msgspec.json.Decoder[errands.Question] = msgspec.json.Decoder(errands.Question, strict=True)


class Answering:
    """Answers questions as JSON, by what this engine alone knows; never with a question to yet another node."""

    def __init__(self, queries: Queries, explanations: Explanations, verbs: Verbs) -> None:
        self._queries = queries
        self._explanations = explanations
        self._verbs = verbs

    async def answer(self, request: bytes) -> bytes:
        """What is answered to a question. Raises nothing but for faults of ours."""
        try:
            view = await self._view(_question.decode(request))
        except Wrong as error:
            return _refused(error.status, error.refusal)
        except NoSuchMessage as error:
            return _refused(404, Missing(str(error)).refusal)
        except QueueError as error:
            return _refused(503, Wrong(str(error), where="queue").refusal)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("what another node asks cannot be read: %s", clean(str(error), 200))
            return _refused(400, Wrong("the question cannot be read: the nodes may be of different versions").refusal)
        return msgspec.json.encode(errands.Answered(view=msgspec.Raw(presentation.encoded(view))))

    async def _view(self, question: errands.Question) -> object:
        match question:
            case errands.Relayers(ended=ended):
                return self._queries.own_relayers(max(0, min(ended, LIMIT)))
            case errands.Transcript(relayer=relayer):
                return self._queries.own_transcript(max(0, min(relayer, NUMBER)))
            case errands.Explain(subject=subject):
                return await self._explanations.explain_here(subject)
            case errands.Order():
                return await self._carried_out(question)

    def _carried_out(self, order: errands.Order) -> Awaitable[object]:
        kind = errands.ERRANDS.get(order.word)
        if kind is None:
            raise Wrong("this is nothing that one node does for another", where=clean(order.word, 40))
        ask = msgspec.json.decode(order.ask, type=kind, strict=True)
        by = clean(order.by.strip(), BY)
        # What the engine does by itself bears its name; an operator's order never does.
        return self._verbs.do(msgspec.structs.replace(ask, node=""), "unknown" if by in ("", ENGINE) else by)


def _refused(status: int, refusal: views.Refusal) -> bytes:
    return msgspec.json.encode(errands.Refused(status=status, refusal=refusal))
