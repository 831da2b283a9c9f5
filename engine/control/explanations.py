"""Explain, as it is asked for: a message, one of its recipients, an address or a domain, by what one types."""

import re
from contextlib import suppress

from msgspec.structs import replace

from engine.base.address import Address, AddressError, parse_path
from engine.control import requests, views
from engine.control.relay import Relay
from engine.control.requests import Missing, Wrong
from engine.delivery.explain import MAX_ENTRIES
from engine.model.destination import RELAY
from engine.model.explanation import Explanation, Fact
from engine.model.filter import Filter, Op, Term
from engine.model.message import Entry
from engine.model.suppression import Suppressed, key_of
from engine.queue.errors import NoSuchMessage

_ID = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?", re.ASCII)
_ALLOWED = "a message (48213 or 48213.2), an address (bob@example.org) or a domain (example.org)"
_LONGEST = 400


class Explanations:
    """Answers why mail is not moving. Raises Wrong, Missing, QueueError."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    async def explain(self, text: str, node: str = "") -> views.ExplainView:
        """Explain what `text` names, as the node named sees it ("": this one, and of what others carry, they)."""
        colleagues = self._relay.colleagues
        if colleagues.is_another(node):
            return replace(await colleagues.explain(node, text), node=node)
        found = await self.explain_here(text)
        nodes = await colleagues.states()
        if len(nodes) < 2:
            return found
        explanations = [await self._by_who_carries(each) for each in found.explanations]
        if not any(state.is_active for state in nodes):
            explanations = [_nobody_sends(each) for each in explanations]
        return replace(found, explanations=tuple(explanations), node=colleagues.name)

    async def _by_who_carries(self, explanation: Explanation) -> Explanation:
        """What is being relayed by another node is explained by that one, which has its relayer."""
        if explanation.cause != "being relayed":
            return explanation
        if not explanation.entry:
            return self._of_domain(explanation)
        message, _, number = explanation.entry.partition(".")
        with suppress(NoSuchMessage):
            attempts = (await self._relay.queue.listing.message(int(message))).attempts
            open_ones = (one for one in attempts if one.entry == int(number) and one.ended is None)
            node = next((one.node for one in open_ones if not one.interrupted), "")
            if self._relay.colleagues.is_another(node):
                return await self._as_seen_by(node, explanation)
        return explanation

    async def _as_seen_by(self, node: str, explanation: Explanation) -> Explanation:
        try:
            theirs = (await self._relay.colleagues.explain(node, explanation.entry)).explanations
        except Wrong as error:
            return replace(explanation, text=f"node {node} has it; {error}")
        found = next((one for one in theirs if one.entry == explanation.entry), explanation)
        return replace(found, text=f"node {node}: {found.text}")

    def _of_domain(self, explanation: Explanation) -> Explanation:
        """A domain of whose mail some is being relayed: over a connection of ours, or of another node."""
        name = explanation.destination
        rows = [row for row in self._relay.colleagues.relayers_seen if row.destination == name]
        if any(relayer.destination == name for relayer in self._relay.smarthost.managed) or not rows:
            return explanation
        to = f" to {rows[0].host} [{rows[0].address}]" if rows[0].host else ""
        return replace(explanation, text=f"relayer {rows[0].id}{to} of node {rows[0].node} has it, in {rows[0].phase}")

    async def explain_here(self, text: str) -> views.ExplainView:
        """The same by what this engine alone knows."""
        subject = text.strip()
        if not subject or len(subject) > _LONGEST:
            raise Wrong("this names nothing that could be explained", where="subject", allowed=_ALLOWED)
        found = await self._found(subject)
        return views.ExplainView(subject=subject, now=self._relay.clock.now(), explanations=found)

    async def _found(self, subject: str) -> tuple[Explanation, ...]:
        explainer = self._relay.explainer
        if number := _ID.fullmatch(subject):
            return await self._message(int(number[1]), int(number[2] or 0))
        if "@" in subject:
            address = _address(subject)
            waiting = await self._waiting(address)
            found = await explainer.address(str(address), address.domain.lower(), waiting)
            return await self._with_suppression(str(address), tuple(found))
        name = requests.destination(subject)
        if name == RELAY:
            raise Wrong("the whole relay is not explained; its health line says how it is", allowed=_ALLOWED)
        return tuple(await explainer.domain(name))

    async def _with_suppression(self, address: str, found: tuple[Explanation, ...]) -> tuple[Explanation, ...]:
        """The same with what new mail to an address meets, where that is refused: the cause, if none waits for it."""
        settings, key = self._relay.settings, key_of(address)
        if not settings.suppression.enabled or key in settings.own_postmasters:
            return found
        one = (await self._relay.queue.suppression.of([key])).get(key)
        return found if one is None else tuple(_suppressed(each, one) for each in found)

    async def _message(self, number: int, entry: int) -> tuple[Explanation, ...]:
        try:
            found = tuple(await self._relay.explainer.message(number, entry))
        except NoSuchMessage:
            found = ()
        if found:
            return found
        named = f"{number}.{entry}" if entry else str(number)
        events = await self._relay.queue.listing.events(message=number, limit=1000)
        last = next((event for event in reversed(events) if entry in (0, event.entry)), None)
        if last is None:
            raise Missing(f"there is no message {named}, and no event tells of it", where="subject")
        said = ""
        if last.outcome is not None:
            todo = self._relay.explainer.remedy(last.destination, last.outcome, last.sender)
            said = f": {last.outcome.line}" + (f"; {todo}" if todo else "")
        raise Missing(f"{named} has left the queue: {last.kind} {last.recipient}{said}", where="subject")

    async def _waiting(self, address: Address) -> list[Entry]:
        # An asterisk may stand in an address. Behind "=" it would be any text; "~" finds more, too, which is left out.
        op: Op = "~" if "*" in str(address) else "="
        at_its_domain = Term(field="domain", op="=", value=address.domain)
        named = Filter(terms=(at_its_domain, Term(field="to", op=op, value=str(address))))
        rows = (await self._relay.queue.listing.window(named, "due", 0, 10 * MAX_ENTRIES)).rows
        return [row for row in rows if row.recipient.casefold() == str(address).casefold()][:MAX_ENTRIES]


def _nobody_sends(explanation: Explanation) -> Explanation:
    """Where every node is drained nothing goes, whatever else is so."""
    if explanation.cause not in ("nothing", "not due", "limit", "rate"):
        return explanation
    text = f"every node is drained: none sends anything before `smarthost undrain`; else: {explanation.text}"
    return replace(explanation, cause="draining", text=text, until=None, earliest=None)


def _suppressed(explanation: Explanation, one: Suppressed) -> Explanation:
    """What is explained of an address on the suppression list. Mail that waits for it already is tried as ever."""
    ends = "until an operator takes it off" if one.until is None else "until its time is over, or it is taken off"
    note = f" ({one.note})" if one.note else ""
    text = f"new mail to it is refused {ends}, by {one.by}{note}: {one.words}"
    if explanation.entry:
        return replace(explanation, facts=(Fact("suppressed", text), *explanation.facts))
    also = () if explanation.cause == "nothing" else (Fact("also", explanation.text),)
    return replace(
        explanation,
        cause="suppressed",
        text=text,
        until=one.until,
        earliest=one.until,
        facts=(*also, *explanation.facts),
    )


def _address(text: str) -> Address:
    try:
        return parse_path(text)
    except AddressError as error:
        raise Wrong(str(error), where="subject", allowed=_ALLOWED) from error
