"""Composes what is shown of the parts that run, and is no struct of the model; and encodes what is shown.

Text is cleaned where it is encoded, all of it, so that no answer carries a byte that steers a terminal.
"""

from collections.abc import Iterable
from operator import is_
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.base.plural import plural
from engine.base.text import clean, clean_lines
from engine.control import views
from engine.delivery.relayer import ManagedRelayer
from engine.model.destination import Mark, Override, Suspension
from engine.model.event import Event
from engine.model.message import Message
from engine.model.order import HoldRule

HEADER_BYTES = 16 * 1024  # of a header block, more is not shown
HEADER_LINES = 200

_NUMBERS = frozenset({type(None), bool, int, float})
_encode = msgspec.json.Encoder().encode


def encoded(shown: object) -> bytes:
    """Give what is shown as JSON, every text in it cleaned."""
    return _encode(cleaned(shown))


def cleaned(shown: Any) -> Any:
    """Give the same with every text cleaned: of structs, of what they are made of, and of sequences.

    Raises TypeError for what is none of these, nor a number.
    """
    kind = type(shown)
    if kind is str:
        return clean(shown)
    if kind in _NUMBERS:
        return shown
    if isinstance(shown, Struct):
        changed = {}
        for name in shown.__struct_fields__:
            was = getattr(shown, name)
            if type(was) not in _NUMBERS and (now := cleaned(was)) is not was:
                changed[name] = now
        return replace(shown, **changed) if changed else shown
    if kind is tuple or kind is list:
        items = [cleaned(value) for value in shown]
        return shown if all(map(is_, items, shown)) else tuple(items)
    raise TypeError(f"{kind.__name__} is not shown")  # what is not known here might not be clean


def relayer(managed: ManagedRelayer) -> views.RelayerView:
    """A relayer, live or ended."""
    return views.RelayerView(
        id=managed.id,
        destination=managed.destination,
        host=managed.host,
        address=managed.address,
        port=managed.port,
        phase=managed.pace.phase,
        phase_since=managed.pace.since,
        started=managed.started,
        done=managed.bag.done,
        taken=managed.bag.taken,
        tls=managed.tls,
        secured=managed.secured.line if managed.is_established else "",
        trusted=managed.secured.trusted if managed.tls else None,
        stalling=managed.pace.is_stalling,
        ended=managed.ended,
        result=managed.result,
        site=managed.site.host,
        domains=tuple(managed.bag.domains),
    )


def transcript(managed: ManagedRelayer) -> views.TranscriptView:
    """What a relayer and its peer have said so far."""
    said = managed.transcript
    return views.TranscriptView(relayer=relayer(managed), lines=tuple(said.lines()), cut=said.cut)


def standing(
    suspensions: Iterable[Suspension], rules: Iterable[HoldRule], marks: Iterable[Mark], overrides: Iterable[Override]
) -> tuple[views.StandingView, ...]:
    """All that stands until a time, the first to end first."""
    found = [
        _standing("suspension", suspension.destination, "opens no new connections", suspension)
        for suspension in suspensions
    ]
    for rule in rules:
        what = f"holds what comes, {plural(rule.holding, 'recipient')} now"
        found.append(replace(_standing("hold rule", rule.filter, what, rule), rule=rule.id))
    found += [_standing("host mark", mark.host, "is left out", mark) for mark in marks]
    found += [_standing("override", override.destination, f"goes to {override.to}", override) for override in overrides]
    return tuple(sorted(found, key=lambda row: (row.until, row.kind, row.name)))


def _standing(
    kind: Literal["suspension", "hold rule", "host mark", "override"],
    name: str,
    what: str,
    kept: Suspension | HoldRule | Mark | Override,
) -> views.StandingView:
    return views.StandingView(
        kind=kind, name=name, what=what, since=kept.since, until=kept.until, by=kept.by, note=kept.note
    )


def finished(number: int, events: tuple[Event, ...]) -> Message:
    """A message that has left the queue, as far as the events tell of it."""
    arrived = next((event.at for event in events if event.kind == "accepted"), 0.0)
    sender = next((event.sender for event in events if event.sender), "")
    return Message(number=number, finished=True, sender=sender, arrived=arrived, events=events)


def headers(content: bytes) -> tuple[str, ...]:
    """The header block of a message, cleaned: its first lines, and a remark where there are more."""
    if content.startswith(b"\r\n"):  # a message of a body alone
        return ()
    block, end, _ = content[: HEADER_BYTES + 4].partition(b"\r\n\r\n")
    text = block[:HEADER_BYTES].decode("utf-8", "surrogateescape")
    lines = clean_lines(text, HEADER_LINES)
    cut = (not end and len(content) > HEADER_BYTES) or text.count("\n") >= HEADER_LINES
    return (*lines, "(the header block goes on; the rest is not shown)") if cut else tuple(lines)
