"""What the sender is told: delivery status notifications (RFC 3464), of failure, of delay and of success."""

import email.policy
import re
import secrets
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, make_msgid
from typing import Literal

from msgspec import Struct

from engine.base import xtext
from engine.base.text import clean
from engine.model import claim
from engine.model.message import NewMessage, Ret
from engine.model.outcome import Outcome

HEADERS_RETURNED = 32 * 1024  # bytes of the original's header block that go back with the notification
WHOLE_RETURNED = 1024 * 1024  # bytes; a larger message goes back as its headers, whatever was asked for
BOUNCE_RETURNED = 128 * 1024  # bytes; a larger bounce reaches the postmaster as its headers
NAMED = 100  # recipients that are named to people; all are to programs
_OF_MANY = 300  # characters of what was said of each recipient, where there are more than those
NULL_SENDER = ""  # RFC 5321 4.5.5: a notification has the null reverse-path, so that it cannot cause another

_MARK = "X-Double-Bounce"  # the field of what tells a postmaster of a bounce; who sends it on leaves it as it is

_LONGEST_SAID = 2000  # characters; what is cleaned is shorter
_LONGEST_LINE = 990  # characters; RFC 5322 2.1.1 allows 998, of which folding takes some

# What the library would write anew it would also read anew: an encoded word in a stranger's reply would become the
# fields that it spells, and an address that looks like one could not be written at all.
_AS_IT_STANDS = email.policy.SMTP.clone(refold_source="none")

Action = claim.Action | Literal["delayed"]  # RFC 3464 2.3.3

_SUBJECTS: dict[Action, str] = {
    "failed": "Your message could not be delivered",
    "delayed": "Your message is delayed",
    "relayed": "Your message has been passed on",
}
_OF_A_BOUNCE = "A bounce could not be delivered"
_ORIGINS: dict[Action, str] = {"failed": "bounce", "delayed": "delay notice", "relayed": "success notice"}
_SAID: dict[Action, tuple[str, ...]] = {
    "failed": ("could not be delivered to the", "recipients below, and will not be tried again."),
    "delayed": (
        "could not be delivered yet to the",
        "recipients below. It will be tried again; there is nothing you need to do.",
    ),
    "relayed": (
        "was handed to the mail systems of the",
        "recipients below, which do not tell us what becomes of it.",
    ),
}


class Recipient(Struct, frozen=True, kw_only=True):
    """What a notification says of one recipient (RFC 3464 2.3).

    `orcpt` is as in DsnRequest; `until`: when a delayed one is given up. `at` is when it was tried last, None where
    that is now.
    """

    recipient: str
    outcome: Outcome
    action: Action = "failed"
    orcpt: str = ""
    until: float | None = None
    at: float | None = None


class Original(Struct, frozen=True, kw_only=True):
    """What a notification must know of the message it is about. `content` may be empty when it cannot be read."""

    message: int
    sender: str
    arrived: float
    content: bytes
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""


def notification(
    original: Original, recipients: Sequence[Recipient], *, hostname: str, now: float
) -> NewMessage | None:
    """Build the notification that tells a sender of some recipients; None when there is nobody to tell.

    A message with the null sender is never answered with a notification (RFC 5321 6.1), so bounces of bounces end.
    """
    if original.sender == NULL_SENDER:
        return None
    text = _for_people(original, recipients, hostname)
    report = _report(
        original, recipients, hostname, now, to=original.sender, subject=_SUBJECTS[_gravest(recipients)], text=text
    )
    # 8-bit headers are allowed only where the sender's own address needs them (RFC 6532).
    utf8 = not original.sender.isascii()
    policy = _AS_IT_STANDS.clone(utf8=utf8)
    returned = _whole(original) if any(each.action == "failed" for each in recipients) else None
    return NewMessage(
        sender=NULL_SENDER,
        recipients=(original.sender,),
        content=_content(report, original, returned, policy),
        origin=f"{_ORIGINS[_gravest(recipients)]} of {original.message}",
        subject=str(report["Subject"]),
        message_id=str(report["Message-ID"]),
        smtputf8=utf8,
    )


def double_bounce(
    original: Original, recipients: Sequence[Recipient], *, postmaster: str, hostname: str, now: float
) -> NewMessage:
    """Build what tells the postmaster of a bounce that could not be delivered: who should have had it, and itself.

    Nobody is to be told of one that `tells_of_bounce` already: the postmaster's host may send it on through us.
    """
    text = _for_postmaster(original, recipients, hostname)
    report = _report(original, recipients, hostname, now, to=postmaster, subject=_OF_A_BOUNCE, text=text)
    report[_MARK] = hostname
    utf8 = not postmaster.isascii()
    policy = _AS_IT_STANDS.clone(utf8=utf8)
    is_short = 0 < len(original.content) <= BOUNCE_RETURNED and not original.smtputf8 and original.ret != "HDRS"
    return NewMessage(
        sender=NULL_SENDER,
        recipients=(postmaster,),
        content=_content(report, original, original.content if is_short else None, policy),
        origin=f"double bounce of {original.message}",
        subject=_OF_A_BOUNCE,
        message_id=str(report["Message-ID"]),
        smtputf8=utf8,
    )


def tells_of_bounce(content: bytes) -> bool:
    """Whether this told a postmaster of a bounce, or has such a thing in it: telling of it again could go round.

    What is returned of a message stands near its beginning; no more than WHOLE_RETURNED octets are looked at.
    """
    return re.search(rb"(?im)^%b:" % _MARK.encode(), content[:WHOLE_RETURNED]) is not None


def _gravest(recipients: Sequence[Recipient]) -> Action:
    """What a notification of several is called after: a failure first."""
    actions = {each.action for each in recipients}
    return next(action for action in _SUBJECTS if action in actions)


def _content(
    report: MIMEMultipart, original: Original, returned: bytes | None, policy: "email.policy.Policy[Message]"
) -> bytes:
    """The report with what it is about: what is returned of it, else its headers."""
    if returned is not None:
        return _with_original(report, returned, policy)
    report.attach(MIMEText(_headers_of(original.content), "rfc822-headers", "us-ascii"))
    return report.as_bytes(policy=policy)


def _report(
    original: Original, recipients: Sequence[Recipient], hostname: str, now: float, *, to: str, subject: str, text: str
) -> MIMEMultipart:
    """RFC 6522: text for people, a status for programs; what could not be delivered is still to come."""
    report = MIMEMultipart("report", policy=email.policy.compat32, report_type="delivery-status")
    report["From"] = str(Address("Mail Delivery System", "mailer-daemon", hostname))
    report["To"] = clean(to, 320)  # checked at intake: a control here comes from a damaged spool
    report["Subject"] = subject
    report["Date"] = _date(now)
    report["Message-ID"] = make_msgid(domain=hostname)
    report["Auto-Submitted"] = "auto-replied"  # RFC 3834 5
    report.attach(MIMEText(text, "plain", "us-ascii" if text.isascii() else "utf-8"))
    report.attach(_for_programs(original, recipients, hostname, now))
    return report


def _for_people(original: Original, recipients: Sequence[Recipient], hostname: str) -> str:
    lines = [f"This is the mail relay {hostname}.", ""]
    for action, (said, *more) in _SAID.items():
        these = [each for each in recipients if each.action == action]
        if these:
            lines += [f"Your message of {_date(original.arrived)} {said}", *more, ""]
        lines += _of_recipients(these)
    lines.append("The headers of your message, or all of it, are attached.")
    return "\n".join(lines) + "\n"


def _for_postmaster(original: Original, recipients: Sequence[Recipient], hostname: str) -> str:
    lines = [
        f"This is the mail relay {hostname}.",
        "",
        f"A message of {_date(original.arrived)} with the null sender,",
        "which is a bounce or another notice whose sender cannot be told,",
        "could not be delivered to",
        "",
    ]
    lines += _of_recipients(recipients)
    lines.append("It is attached, or its headers are. This relay has given it up.")
    return "\n".join(lines) + "\n"


def _of_recipients(recipients: Sequence[Recipient]) -> list[str]:
    """The first of them by name, and how many there are besides: programs find them all in the status."""
    lines = [line for each in recipients[:NAMED] for line in (*_of_recipient(each), "")]
    if len(recipients) > NAMED:
        lines += [f"  and {len(recipients) - NAMED:,} more, all of whom the attached status names.", ""]
    return lines


def _of_recipient(each: Recipient) -> list[str]:
    outcome = each.outcome
    who = f" ({clean(outcome.host, 255)} said)" if outcome.host and outcome.code else ""
    said = textwrap.fill(outcome.line + who, 76, initial_indent="    ", subsequent_indent="    ")
    until = [] if each.until is None else [f"    It will be tried until {_date(each.until)}."]
    return [f"  <{clean(each.recipient, 320)}>", said, *until]


def _for_programs(original: Original, recipients: Sequence[Recipient], hostname: str, now: float) -> MIMEBase:
    """RFC 3464 2.2 and 2.3: one group of fields for the message, then one for each recipient."""
    about = [("Reporting-MTA", f"dns; {hostname}"), ("Arrival-Date", _date(original.arrived))]
    if envid := _plain(original.envid):
        about.insert(0, ("Original-Envelope-Id", envid))  # RFC 3464 2.2.1
    part = MIMEBase("message", "delivery-status")
    part.attach(_fields(*about))
    most = _OF_MANY if len(recipients) > NAMED else _LONGEST_SAID
    for each in recipients:
        part.attach(_fields(*_status_of(each, now, most)))
    return part


def _status_of(each: Recipient, now: float, most: int) -> list[tuple[str, str]]:
    outcome = each.outcome
    recipient = clean(each.recipient, 320)
    final = f"rfc822; {recipient}" if recipient.isascii() else f"utf-8; {xtext.utf8_address(recipient)}"
    fields = [("Final-Recipient", final), ("Action", each.action), ("Status", status(outcome, each.action))]
    kind, _, named = each.orcpt.partition(";")
    if original := _plain(named):
        fields.insert(0, ("Original-Recipient", f"{clean(kind, 100)}; {original}"))  # RFC 3464 2.3.1
    if outcome.host and outcome.code:
        fields.append(("Remote-MTA", f"dns; {clean(outcome.host, 255)}"))
    if each.action != "relayed":  # RFC 3464 2.3.6: a diagnosis is of what is wrong
        said = f"smtp; {outcome.line}" if outcome.code else f"X-smarthost; {outcome.line}"
        fields.append(("Diagnostic-Code", said if len(said) <= most else f"{said[:most]}..."))
    if each.action != "delayed":
        fields.append(("Last-Attempt-Date", _date(now if each.at is None else each.at)))
    if each.until is not None:
        fields.append(("Will-Retry-Until", _date(each.until)))  # RFC 3464 2.3.9
    return fields


def plainly(each: Recipient) -> Recipient:
    """The same in words that nothing can be wrong with."""
    outcome = each.outcome
    enhanced = status(outcome, each.action)
    plain = Outcome(kind=outcome.kind, code=outcome.code, enhanced=enhanced, text="see the relay's log")
    address = xtext.utf8_address(clean(each.recipient, 320))
    return Recipient(recipient=address, outcome=plain, action=each.action, until=each.until, at=each.at)


def status(outcome: Outcome, action: Action = "failed") -> str:
    """The RFC 3463 status of an action: the peer's own code, in the class that the action has."""
    digit = {"failed": "5", "delayed": "4", "relayed": "2"}[action]
    if outcome.enhanced.startswith(f"{digit}."):
        return outcome.enhanced
    if action == "failed" and outcome.enhanced.startswith("4."):  # tried until we gave up: the same, now for good
        return f"5{outcome.enhanced[1:]}"
    return f"{digit}.0.0"


def _whole(original: Original) -> bytes | None:
    """The message itself, where its return was asked for (RFC 3461 4.3) and it can be had in bounds.

    What needs SMTPUTF8 goes back as its headers, written in ASCII: who asks for its return may not speak it.
    """
    content = original.content
    if original.ret != "FULL" or original.smtputf8 or not 0 < len(content) <= WHOLE_RETURNED:
        return None
    return content


def _with_original(report: MIMEMultipart, content: bytes, policy: "email.policy.Policy[Message]") -> bytes:
    """The report with the message as its last part, byte for byte: a generator would write it anew in its own way."""
    boundary = f"=_{secrets.token_hex(16)}"
    while boundary.encode() in content:
        boundary = f"=_{secrets.token_hex(16)}"
    report.set_boundary(boundary)
    eight_bit = not content.isascii()
    if eight_bit:  # RFC 2045 6.4: what holds an 8-bit part says so
        report["Content-Transfer-Encoding"] = "8bit"
    delimiter = f"--{boundary}".encode()
    before = report.as_bytes(policy=policy).rstrip(b"\r\n").removesuffix(delimiter + b"--")
    head = b"Content-Type: message/rfc822\r\n" + (b"Content-Transfer-Encoding: 8bit\r\n" if eight_bit else b"")
    return b"\r\n".join((before + delimiter, head, content, delimiter + b"--", b""))


def _fields(*fields: tuple[str, str]) -> Message:
    group = Message(policy=email.policy.compat32)
    for name, value in fields:
        group[name] = _folded(name, _ascii(value))
    return group


def _folded(name: str, value: str) -> str:
    """The value in lines (RFC 5322 2.2.3): prose is broken at blanks, a name only where it is too long for any line."""
    width = 78 if name == "Diagnostic-Code" else _LONGEST_LINE
    if len(name) + 2 + len(value) <= width and value.isprintable() and value == value.strip():
        return value
    at_blanks = textwrap.wrap(value, width, initial_indent=f"{name}: ", break_long_words=False, break_on_hyphens=False)
    lines = [
        short
        for line in at_blanks
        for short in ([line] if len(line) <= _LONGEST_LINE else textwrap.wrap(line, _LONGEST_LINE))
    ]
    return "\n ".join(lines).removeprefix(f"{name}:").lstrip(" ")


def _plain(encoded: str) -> str:
    """What an xtext says; intake has checked it, so a damaged one only comes from a damaged spool."""
    try:
        return xtext.decoded(encoded)
    except ValueError:
        return ""


def _headers_of(content: bytes) -> str:
    """The header block, as ASCII whatever is in it."""
    block = content[:HEADERS_RETURNED].partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    return "\n".join(_ascii(clean(line, 998))[:998] for line in block.split("\r\n")) + "\n"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
