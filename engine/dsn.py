"""What the sender is told when we give up: the delivery status notification (RFC 3464)."""

import email.policy
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, make_msgid

from msgspec import Struct

from engine.outcome import Outcome
from engine.queue.queue import NewMessage
from engine.text import clean

HEADERS_RETURNED = 32 * 1024  # bytes of the original's header block that go back with the notification
NULL_SENDER = ""  # RFC 5321 4.5.5: a notification has the null reverse-path, so that it cannot cause another


class Failed(Struct, frozen=True, kw_only=True):
    """A recipient we gave up on, and why."""

    recipient: str
    outcome: Outcome


class Original(Struct, frozen=True, kw_only=True):
    """What a notification must know of the message it is about. `content` may be empty when it cannot be read."""

    message: int
    sender: str
    arrived: float
    content: bytes


def bounce(original: Original, failed: Sequence[Failed], *, hostname: str, now: float) -> NewMessage | None:
    """Build the notification that tells a sender of `failed` recipients; None when there is nobody to tell.

    A message with the null sender is never answered with a notification (RFC 5321 6.1), so bounces of bounces end.
    """
    if original.sender == NULL_SENDER:
        return None
    report = _report(original, failed, hostname, now)
    # 8-bit headers are allowed only where the sender's own address needs them (RFC 6532).
    utf8 = not original.sender.isascii()
    policy = email.policy.SMTPUTF8 if utf8 else email.policy.SMTP
    return NewMessage(
        sender=NULL_SENDER,
        recipients=(original.sender,),
        content=report.as_bytes(policy=policy),
        origin=f"bounce of {original.message}",
        subject=str(report["Subject"]),
        message_id=str(report["Message-ID"]),
        smtputf8=utf8,
    )


def _report(original: Original, failed: Sequence[Failed], hostname: str, now: float) -> MIMEMultipart:
    """RFC 6522: text for people, a status for programs, and the headers of what could not be delivered."""
    report = MIMEMultipart("report", policy=email.policy.SMTPUTF8, report_type="delivery-status")
    report["From"] = str(Address("Mail Delivery System", "mailer-daemon", hostname))
    report["To"] = _header_safe(original.sender)
    report["Subject"] = "Your message could not be delivered"
    report["Date"] = _date(now)
    report["Message-ID"] = make_msgid(domain=hostname)
    report["Auto-Submitted"] = "auto-replied"  # RFC 3834 5
    text = _for_people(original, failed, hostname)
    report.attach(MIMEText(text, "plain", "us-ascii" if text.isascii() else "utf-8"))
    report.attach(_for_programs(original, failed, hostname, now))
    report.attach(MIMEText(_headers_of(original.content), "rfc822-headers", "us-ascii"))
    return report


def _for_people(original: Original, failed: Sequence[Failed], hostname: str) -> str:
    lines = [
        f"This is the mail relay {hostname}.",
        "",
        f"Your message of {_date(original.arrived)} could not be delivered to the",
        "recipients below, and will not be tried again.",
        "",
    ]
    for each in failed:
        who = f" ({clean(each.outcome.host, 255)} said)" if each.outcome.host and each.outcome.code else ""
        said = textwrap.fill(each.outcome.line + who, 76, initial_indent="    ", subsequent_indent="    ")
        lines += [f"  <{clean(each.recipient, 320)}>", said, ""]
    lines.append("The headers of your message are attached.")
    return "\n".join(lines) + "\n"


def _for_programs(original: Original, failed: Sequence[Failed], hostname: str, now: float) -> MIMEBase:
    """RFC 3464 2.2 and 2.3: one group of fields for the message, then one for each recipient."""
    groups = [_fields(("Reporting-MTA", f"dns; {hostname}"), ("Arrival-Date", _date(original.arrived)))]
    for each in failed:
        outcome = each.outcome
        recipient = clean(each.recipient, 320)
        final = f"rfc822; {recipient}" if recipient.isascii() else f"utf-8; {_xtext(recipient)}"
        said = f"smtp; {outcome.line}" if outcome.code else f"X-smarthost; {outcome.line}"
        fields = [
            ("Final-Recipient", final),
            ("Action", "failed"),
            ("Status", status(outcome)),
        ]
        if outcome.host and outcome.code:
            fields.append(("Remote-MTA", f"dns; {outcome.host}"))
        fields += [("Diagnostic-Code", said), ("Last-Attempt-Date", _date(now))]
        groups.append(_fields(*fields))
    part = MIMEBase("message", "delivery-status")
    for group in groups:
        part.attach(group)
    return part


def plainly(failed: Failed) -> Failed:
    """The same failure in words that nothing can be wrong with."""
    outcome = failed.outcome
    plain = Outcome(kind="permanent", code=outcome.code, enhanced=status(outcome), text="see the relay's log")
    return Failed(recipient=_xtext(clean(failed.recipient, 320)), outcome=plain)


def status(outcome: Outcome) -> str:
    """The RFC 3463 status of a failure for good: the peer's own code where it gave one of class 5."""
    if outcome.enhanced.startswith("5."):
        return outcome.enhanced
    if outcome.enhanced.startswith("4."):  # tried until we gave up: the same detail, now for good
        return f"5{outcome.enhanced[1:]}"
    return "5.0.0"


def _fields(*fields: tuple[str, str]) -> Message:
    group = Message(policy=email.policy.compat32)
    for name, value in fields:
        group[name] = _ascii(value)
    return group


def _xtext(address: str) -> str:
    """An internationalised address in ASCII (RFC 6533 3, utf-8-addr-xtext)."""
    return "".join(char if char.isascii() and char not in "\\+=" else f"\\x{{{ord(char):X}}}" for char in address)


def _headers_of(content: bytes) -> str:
    """The header block, as ASCII whatever is in it."""
    block = content[:HEADERS_RETURNED].partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    return "\n".join(_ascii(clean(line, 998))[:998] for line in block.split("\r\n")) + "\n"


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")


def _header_safe(address: str) -> str:
    # Addresses were checked at intake; a control here would only come from a damaged spool.
    return clean(address, 320)


def _date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC))
