"""Events as lines: each of a service, as the programs of a relay that has many have each their own.

The words are those of the logs that operators have tools for (pflogsumm, fail2ban, a grep of many years): an id, then
`name=value` between commas. Text of strangers is cleaned, so that none of it can begin a line or steer a terminal.
"""

from collections.abc import Iterator
from typing import NamedTuple

from engine.base.text import clean
from engine.model.event import Detail, Event
from engine.model.outcome import Outcome
from engine.model.refusal import Refusal

LONGEST_TEXT = 400  # characters of a reply, and of what else strangers say

_STATUS = {"delivered": "sent", "deferred": "deferred", "returned": "bounced", "discarded": "bounced"}
_USUAL = {"delivered": "2.0.0", "transient": "4.0.0", "permanent": "5.0.0"}
_COMMANDS = {"RCPT": "RCPT TO", "MAIL": "MAIL FROM", "reply": "end of DATA", "body": "DATA", "hello": "EHLO"}
_RESOLUTION = 0.01  # seconds: what is shorter is none


class Line(NamedTuple):
    """One line: when, of which service, and what it says."""

    at: float
    service: str
    text: str


def lines(event: Event) -> Iterator[Line]:
    """The lines that tell of an event. What was refused is told as it is refused, each time (see `refused`)."""
    if event.kind == "accepted":
        yield from _accepted(event)
    elif event.kind in _STATUS:
        yield Line(event.at, "smtp", _attempt(event))
    elif event.kind == "notified":
        yield Line(event.at, "bounce", f"{event.message}: sender delay notification: to=<{clean(event.sender, 320)}>")
    elif event.kind != "refused":
        yield Line(event.at, "engine", _other(event))


def refused(refusal: Refusal, at: float) -> Line:
    """What tells of a refusal."""
    client = f"unknown[{clean(refusal.address, 100)}]" if refusal.address else clean(refusal.peer, 300)
    detail = clean(refusal.detail, LONGEST_TEXT)
    if refusal.why == "login failed":
        return Line(at, "smtpd", f"warning: {client}: SASL LOGIN authentication failed: sasl_username={detail}")
    code = f"{refusal.reply} " if refusal.reply else ""
    recipient = clean(refusal.recipient.strip("<>"), 320)
    about = f"<{recipient}>: " if recipient else ""
    why = "Relay access denied" if refusal.why == "relaying denied" else clean(refusal.why, 100)
    envelope = f"from=<{clean(refusal.sender, 320)}> to=<{recipient}> proto=ESMTP"
    said = f"{code}{about}{why}" + (f": {detail}" if detail else "")
    stage = "RCPT" if refusal.recipient else "MAIL" if refusal.sender else "CONNECT"
    return Line(at, "smtpd", f"NOQUEUE: reject: {stage} from {client}: {said}; {envelope}")


def _accepted(event: Event) -> Iterator[Line]:
    """Whence it came, its message-id, and what it is: once, with its first recipient."""
    detail = event.detail
    if detail is None or event.entry != 1:
        return
    origin = event.text.partition("; ")[0]  # what is remarked of it stands behind
    number, (way, _, rest) = event.message, origin.partition(" ")
    if way in ("smtp", "http"):
        address, _, login = rest.partition(" as ")
        method = "LOGIN" if way == "smtp" else "BEARER"
        who = f", sasl_method={method}, sasl_username={clean(login, 200)}" if login else ""
        yield Line(event.at, "smtpd", f"{number}: client=unknown[{clean(address, 100)}]{who}")
    elif way == "bounce":
        yield Line(event.at, "bounce", f"{rest.removeprefix('of ')}: sender non-delivery notification: {number}")
    else:
        source = clean(event.text, 255)
        yield Line(event.at, "pickup", f"{number}: uid=0 from=<{clean(event.sender, 320)}> source={source}")
    yield Line(event.at, "cleanup", f"{number}: message-id={clean(detail.message_id, 200)}")
    what = f"from=<{clean(event.sender, 320)}>, size={detail.size}, nrcpt={detail.recipients} (queue active)"
    yield Line(event.at, "qmgr", f"{number}: {what}")


def _attempt(event: Event) -> str:
    outcome = event.outcome or Outcome.transient(event.text)
    words = [
        f"{event.message}: to=<{clean(event.recipient, 320)}>",
        f"relay={_relay(outcome)}",
        *_delays(event, outcome, event.detail),
        f"dsn={outcome.enhanced or _USUAL[outcome.kind]}",
        f"status={_STATUS[event.kind]} ({_said(outcome)})",
    ]
    if outcome.secured:  # last: pflogsumm reads no line that has more before the status than it knows
        words.append(f"tls={_tls(outcome.secured)}")
    return ", ".join(words)


def _tls(secured: str) -> str:
    """The version, as OpenSSL writes it: "TLSv1.3"."""
    version = secured.partition(",")[0]
    return version.replace("TLS ", "TLSv") if version.startswith("TLS ") else "none"


def _relay(outcome: Outcome) -> str:
    if not outcome.address:
        return "none"
    address, _, port = outcome.address.rpartition(":")
    return f"{clean(outcome.host, 255)}[{address}]:{port}"


def _delays(event: Event, outcome: Outcome, detail: Detail | None) -> Iterator[str]:
    """How long it took in all; and of that before the queue (which is not measured), in it, connecting and sending."""
    if detail is None:
        return
    total = max(0.0, event.at - detail.arrived)
    connecting, sending = outcome.took or (0.0, 0.0)
    waiting = max(0.0, total - connecting - sending)
    yield f"delay={_seconds(total)}"
    yield f"delays=0/{_seconds(waiting)}/{_seconds(connecting)}/{_seconds(sending)}"


def _seconds(value: float) -> str:
    if value < _RESOLUTION:
        return "0"
    return f"{round(value, 2):.2g}" if value < 10 else f"{value:.0f}"


def _said(outcome: Outcome) -> str:
    line = clean(outcome.line, LONGEST_TEXT)
    if outcome.kind == "delivered" or not outcome.code:
        return line
    command = _COMMANDS.get(outcome.phase, outcome.phase)
    address = outcome.address.rpartition(":")[0]
    return f"host {clean(outcome.host, 255)}[{address}] said: {line} (in reply to {command} command)"


def _other(event: Event) -> str:
    """What an operator did, or the relay itself: its words, and of what it is said."""
    about = [
        (f"{event.of or event.message}:" if event.message else ""),
        event.kind,
        *(
            f"{name}={clean(value, 320)}"
            for name, value in (
                ("to", event.recipient and f"<{event.recipient}>"),
                ("destination", "" if event.recipient else event.destination),
                ("host", event.host),
                ("by", event.by),
            )
            if value
        ),
    ]
    said = clean(event.text or (event.outcome.line if event.outcome is not None else ""), LONGEST_TEXT)
    return " ".join(filter(None, about)) + (f" ({said})" if said else "")
