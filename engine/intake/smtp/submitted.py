"""A message from an SMTP client as a message for the queue: what of its content is taken, and what is put on top."""

from collections.abc import Iterable

from msgspec import Struct

from engine.base.address import Address
from engine.dkim.result import CannotSign
from engine.intake.content import (
    MAX_LINE,
    HeaderTooBig,
    canonical,
    has_long_line,
    read_header,
    unstuffed,
)
from engine.intake.errors import Refused
from engine.intake.preparation import Arrived, Preparation
from engine.intake.reply import UNSIGNED, Reply
from engine.intake.smtp.dsn import OfMail
from engine.intake.smtp.reception import trace_name
from engine.model.message import DsnRequest, NewMessage
from engine.settings.settings import Smtp


class Submitted(Struct, frozen=True, kw_only=True):
    """What came with DATA or BDAT, and the transaction it belongs to.

    `chunks` are as they were read: after DATA they begin with the CRLF before the message and end with the final dot
    and its CRLF; where it came `by_octets`, with BDAT, they are the message (RFC 3030 2). The rest is the same of both.
    A message from somebody who has logged in is a submission: what it lacks is added (RFC 6409 8).
    """

    chunks: Iterable[bytes]
    sender: Address
    recipients: tuple[Address, ...]
    protocol: str
    greeted: str
    peer: str
    secured: str = ""
    mail_dsn: OfMail = OfMail()
    dsn: tuple[DsnRequest, ...] = ()
    by_octets: bool = False
    login: str = ""

    def message(self, preparation: Preparation, rules: Smtp, at: float) -> NewMessage:
        """Give the message to queue, as it is prepared. Safe to call in any thread. Raises Refused."""
        content = b"".join(self.chunks) if self.by_octets else unstuffed(self.chunks)[len(b"\r\n") : -len(b".\r\n")]
        if b"\0" in content:
            raise Refused(Reply(554, "5.6.0", "A message may not hold NUL (RFC 5321 4.1.1.4)"), "NUL in the message")
        content = canonical(content)
        if has_long_line(content):
            too_long = Reply(500, "5.5.2", f"Line too long; at most {MAX_LINE} octets are taken")
            raise Refused(too_long, "line too long")
        try:
            header = read_header(content)
        except HeaderTooBig as error:
            raise Refused(Reply(552, "5.3.4", f"Header too big: {error}"), "header too big", str(error)) from error
        if header.count(b"received") > rules.max_received:
            many = f"more than {rules.max_received} Received fields"
            raise Refused(Reply(554, "5.4.6", f"Mail loop: {many}"), "mail loop", many)
        arrived = Arrived(
            header=header,
            sender=self.sender,
            recipients=self.recipients,
            sent_by=trace_name(self.greeted, self.peer),
            protocol=self.protocol,
            secured=self.secured,
            origin=f"smtp {self.peer}{f' as {self.login}' if self.login else ''}",
            is_submission=bool(self.login),
            needs_utf8=self.protocol.startswith("UTF8SMTP") and header.eight_bit,
            ret=self.mail_dsn.ret,
            envid=self.mail_dsn.envid,
            dsn=self.dsn,
        )
        try:
            return preparation.message(arrived, at)
        except CannotSign as error:  # for good only where the message itself is the cause
            why = str(error)
            reply = Reply(554, "5.6.0", f"Cannot be signed (DKIM): {why}") if error.is_permanent else UNSIGNED
            raise Refused(reply, "cannot be signed", why) from error
