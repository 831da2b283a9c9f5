"""The other engines that share the queue, as an operator of this one sees them: who they are, and what they answer.

Every one of them is asked by way of the queue (see engine.queue.contract.Nodes). One that does not answer is named and
left out: nobody waits for it. Where the queue is this engine's alone, all of this is empty.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from engine.base.text import clean
from engine.control import errands, views
from engine.control.requests import LIMIT, Missing, Wrong
from engine.model.event import Event
from engine.model.message import Message
from engine.model.node import NodeState
from engine.model.probe import Probed
from engine.model.verbs import Ask, Result, verb_of
from engine.queue.contract import Queue
from engine.queue.errors import NodeSilent, NoSuchNode, QueueError

T = TypeVar("T")
N = TypeVar("N", Event, views.RelayerView)

FRESH = 1.0  # seconds for which what was seen of the others is given again: consoles ask each second
RELAYERS_SECONDS = 1.0  # for a node to say which relayers it has
TRANSCRIPT_SECONDS = 5.0
LONGEST_SECONDS = 19.0  # for what takes its time: to explain, to probe, to close

_answer: msgspec.json.Decoder[errands.Answer] = msgspec.json.Decoder(errands.Answer)


class _Seen:
    """What was seen of the relayers of one node, and when; `task` asks for it anew."""

    def __init__(self) -> None:
        self.rows: tuple[views.RelayerView, ...] = ()
        self.at = float("-inf")
        self.is_silent = False
        self.task: asyncio.Task[None] | None = None


class Colleagues:
    """The other nodes of a queue. Raises QueueError where the store cannot be read."""

    def __init__(self, queue: Queue) -> None:
        self._nodes = queue.nodes
        self._states: tuple[NodeState, ...] = ()
        self._looked_at = float("-inf")
        self._seen: dict[str, _Seen] = {}

    @property
    def name(self) -> str:
        """What this node is called where there are others, else ""."""
        return self._nodes.name if self.are_several else ""

    @property
    def are_several(self) -> bool:
        """Whether there are other nodes, as of the last look."""
        return len(self._states) > 1

    def is_another(self, node: str) -> bool:
        """Whether a node that was named is not this one."""
        return bool(node) and node != self._nodes.name

    async def states(self) -> tuple[NodeState, ...]:
        """All nodes, with what is known of whether they answer."""
        if not self._nodes.name:
            return ()
        if time.monotonic() - self._looked_at >= FRESH:
            self._states = await self._nodes.all()
            self._looked_at = time.monotonic()
            live = {state.name for state in self._states if not state.is_lost}
            self._seen = {name: seen for name, seen in self._seen.items() if name in live}
        return tuple(replace(state, is_silent=self._is_silent(state.name)) for state in self._states)

    def forget(self) -> None:
        """What was seen of the nodes has changed: it is looked at anew."""
        self._looked_at = float("-inf")

    def _is_silent(self, name: str) -> bool:
        seen = self._seen.get(name)
        return seen is not None and seen.is_silent

    # -- relayers -------------------------------------------------------------------------------------------------

    @property
    def relayers_seen(self) -> tuple[views.RelayerView, ...]:
        """The relayers of the others, as they were seen last."""
        return tuple(row for _, seen in sorted(self._seen.items()) for row in seen.rows)

    async def relayers(self, ended: int = 0) -> tuple[views.RelayerView, ...]:
        """The relayers of the others, node by node; none of one that does not answer."""
        others = [state.name for state in await self.states() if not state.is_this and not state.is_lost]
        if ended:
            found = await asyncio.gather(*(self._relayers_of(name, ended) for name in others))
            return tuple(row for rows in found for row in rows or ())
        awaited: dict[asyncio.Task[None], _Seen] = {}
        for name in others:
            seen = self._seen.setdefault(name, _Seen())
            if seen.task is None and time.monotonic() - seen.at >= FRESH:
                seen.task = asyncio.create_task(self._look_at(name, seen), name="relayers of another node")
            if seen.task is not None and not seen.is_silent:  # who was silent is asked again, and not waited for
                awaited[seen.task] = seen
        if awaited:
            _, late = await asyncio.wait(awaited, timeout=RELAYERS_SECONDS)
            for task in late:
                awaited[task].rows, awaited[task].is_silent = (), True
        return self.relayers_seen

    async def _look_at(self, name: str, seen: _Seen) -> None:
        try:
            found = await self._relayers_of(name)
            seen.rows, seen.is_silent = found or (), found is None
        finally:
            seen.at, seen.task = time.monotonic(), None

    async def _relayers_of(self, name: str, ended: int = 0) -> tuple[views.RelayerView, ...] | None:
        """None: it does not answer."""
        with suppress(QueueError, Wrong):
            question = errands.Relayers(ended=ended)
            rows = await self._ask(name, question, tuple[views.RelayerView, ...], RELAYERS_SECONDS)
            return tuple(replace(row, node=name) for row in rows[: 2 * LIMIT])
        return None

    # -- what one of them is asked ----------------------------------------------------------------------------------

    async def transcript(self, node: str, relayer: int) -> views.TranscriptView:
        """What a relayer of another node and its peer have said. Raises Missing, Wrong."""
        question = errands.Transcript(relayer=relayer)
        found = await self._ask(node, question, views.TranscriptView, TRANSCRIPT_SECONDS)
        return replace(found, relayer=replace(found.relayer, node=node))

    async def explain(self, node: str, subject: str) -> views.ExplainView:
        """Why something is not moving, as another node sees it. Raises Missing, Wrong."""
        return await self._ask(node, errands.Explain(subject=subject), views.ExplainView, LONGEST_SECONDS)

    async def close(self, node: str, ask: Ask, by: str) -> Result:
        """Have another node end a connection. Raises Missing, Wrong."""
        found = await self._order(node, ask, by, Result)
        return Result(verb=verb_of(ask).word, text=found.text)  # more than that there is not to such an answer

    async def probe(self, node: str, ask: Ask, by: str) -> Probed:
        """Have another node probe a host. Raises Missing, Wrong."""
        return await self._order(node, ask, by, Probed)

    async def _order(self, node: str, ask: Ask, by: str, kind: type[T]) -> T:
        order = errands.Order(word=verb_of(ask).word, ask=msgspec.Raw(msgspec.json.encode(ask)), by=by)
        return await self._ask(node, order, kind, LONGEST_SECONDS)

    async def _ask(self, node: str, question: errands.Question, kind: type[T], seconds: float) -> T:
        try:
            raw = await self._nodes.ask(node, msgspec.json.encode(question), seconds)
        except NoSuchNode as error:
            raise Missing(str(error), where="node") from error
        except NodeSilent as error:
            raise Wrong(str(error), where="node", status=503) from error
        try:
            answer = _answer.decode(raw)
            if isinstance(answer, errands.Answered):
                return msgspec.json.decode(answer.view, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = f"node {clean(node, 64)} answers what cannot be read: it may be of another version"
            raise Wrong(text, where="node", status=503) from error
        raise _refusal(answer)

    # -- what is said of them ---------------------------------------------------------------------------------------

    def unnamed(self, rows: Iterable[N]) -> tuple[N, ...]:
        """The same rows: as long as this node is alone, its name is not said of them."""
        if self.are_several or not self._nodes.name:
            return tuple(rows)
        return tuple(replace(row, node="") if row.node == self._nodes.name else row for row in rows)

    def unnamed_message(self, message: Message) -> Message:
        """The same message: its attempts and events likewise."""
        if self.are_several or not self._nodes.name:
            return message
        alone = self._nodes.name
        attempts = tuple(replace(one, node="") if one.node == alone else one for one in message.attempts)
        return replace(message, attempts=attempts, events=self.unnamed(message.events))

    def notes(self, states: Sequence[NodeState]) -> tuple[str, ...]:
        """What should be known of the nodes, in sentences."""
        said = []
        for state in states:
            if state.is_lost:
                said.append(f"node {state.name} is lost: others send what it had")
            elif state.is_silent:
                said.append(f"node {state.name} does not answer: its connections are not listed")
            if state.is_this and state.is_drained:
                ends = f"`smarthost undrain {state.name}` ends that"
                others = any(other.is_active for other in states if not other.is_this)
                sends = "others send what waits" if others else "no other node is there to send what waits"
                said.append(f"this node was drained by {state.drained_by}: {sends}; {ends}")
        return tuple(said)


def _refusal(answer: errands.Refused) -> Wrong:
    told = answer.refusal
    if told.not_found:
        return Missing(told.what, where=told.where, allowed=told.allowed)
    status = answer.status if 400 <= answer.status <= 503 else 503
    return Wrong(told.what, where=told.where, allowed=told.allowed, status=status)
