"""Events as JSON, one object a line: the same that the lines say, for machines."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from engine.base.text import clean
from engine.maillog.lines import LONGEST_TEXT, Line
from engine.model.event import Event
from engine.model.refusal import Refusal


def records(event: Event) -> Iterator[Line]:
    """The record of an event; what was refused is told as it is refused, each time."""
    if event.kind == "refused":
        return
    found: dict[str, Any] = {
        "event": event.kind,
        "id": event.of or str(event.message or ""),
        "by": event.by,
        "from": event.sender,
        "to": event.recipient,
        "destination": event.destination,
        "text": event.text,
    }
    if (outcome := event.outcome) is not None:
        found |= {
            "host": outcome.host,
            "relay": outcome.address,
            "code": outcome.code,
            "dsn": outcome.enhanced,
            "reply": outcome.text,
            "phase": outcome.phase,
            "tls": outcome.secured,
        }
        if outcome.took is not None:
            found |= {"connecting": round(outcome.took[0], 3), "sending": round(outcome.took[1], 3)}
    if (detail := event.detail) is not None:
        found["delay"] = round(max(0.0, event.at - detail.arrived), 3)
        if event.kind == "accepted":
            found |= {"size": detail.size, "message_id": detail.message_id, "recipients": detail.recipients}
    yield Line(event.at, "", _encoded(event.at, found, {"from"} if event.message else set()))


def refused(refusal: Refusal, at: float) -> Line:
    """The record of a refusal."""
    found = {
        "event": "refused",
        "client": refusal.address or refusal.peer,
        "why": refusal.why,
        "reply": refusal.reply,
        "from": refusal.sender,
        "to": refusal.recipient,
        "text": refusal.detail,
    }
    return Line(at, "", _encoded(at, found, set()))


def _encoded(at: float, found: dict[str, Any], kept: set[str]) -> str:
    """Only what there is; but for those `kept`, of which "" says something: the null sender."""
    said = {
        name: clean(value, LONGEST_TEXT) if isinstance(value, str) else value
        for name, value in found.items()
        if value or name in kept
    }
    return msgspec.json.encode({"at": datetime.fromtimestamp(at).astimezone().isoformat(), **said}).decode()
