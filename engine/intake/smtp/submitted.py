"""A message from an SMTP client as a message for the queue: what of its content is taken, and what is put on top."""

from collections.abc import Iterable

from msgspec import Struct

from engine.base.address import Address
from engine.dkim.result import CannotSign, Sign, Signature, unsigned
from engine.intake.content import (
    MAX_LINE,
    HeaderTooBig,
    canonical,
    has_long_line,
    outgoing,
    read_header,
    received,
    unstuffed,
    with_field,
)
from engine.intake.errors import Refused
from engine.intake.missing import with_missing
from engine.intake.reply import UNSIGNED, Reply
from engine.intake.rewriting import Rewriter
from engine.intake.smtp.dsn import OfMail
from engine.intake.smtp.reception import trace_name
from engine.model.message import DsnRequest, NewMessage
from engine.settings.settings import Smtp


class Submitted(Struct, frozen=True, kw_only=True):
    """What came with DATA, and the transaction it belongs to.

    `chunks` are as they were read: they begin with the CRLF before the message and end with the final dot and its CRLF.
    A message from somebody who has logged in is a submission: what it lacks is added (RFC 6409 8).
    """

    chunks: Iterable[bytes]
    sender: Address
    recipients: tuple[Address, ...]
    protocol: str
    greeted: str
    peer: str
    mail_dsn: OfMail = OfMail()
    dsn: tuple[DsnRequest, ...] = ()
    login: str = ""

    def message(
        self,
        *,
        hostname: str,
        rules: Smtp,
        at: float,
        rewriter: Rewriter,
        completes_all: bool = False,
        sign: Sign = unsigned,
    ) -> NewMessage:
        """Give the message to queue, with its signatures and its Received field on top.

        Safe to call in any thread. `completes_all`: what it lacks is added whoever sent it. Raises Refused.
        """
        content = unstuffed(self.chunks)[len(b"\r\n") : -len(b".\r\n")]
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
        rewritten = rewriter.content(content, header)
        if rewritten is not content:
            header = read_header(rewritten)
        content = outgoing(header)
        needs_utf8 = self.protocol.startswith("UTF8SMTP") and header.eight_bit
        sender = rewriter.sender(self.sender)
        if self.login or completes_all:
            content = with_missing(content, header, hostname, at, sender)
        to, dsn = rewriter.recipients(self.recipients, self.dsn)
        trace = received(
            sent_by=trace_name(self.greeted, self.peer),
            by=hostname,
            protocol=self.protocol,
            at=at,
            recipients=tuple(map(str, self.recipients)),
        )
        signature = _signature(content, sign)
        return NewMessage(
            sender=str(sender),
            recipients=tuple(map(str, to)),
            content=with_field(signature.fields + trace, content),
            origin=f"smtp {self.peer}{f' as {self.login}' if self.login else ''}",
            subject=header.shown(b"subject"),
            message_id=header.shown(b"message-id"),
            smtputf8=needs_utf8 or sender.smtputf8 or any(recipient.smtputf8 for recipient in to),
            ret=self.mail_dsn.ret,
            envid=self.mail_dsn.envid,
            dsn=dsn,
            remark=signature.remark,
        )


def _signature(content: bytes, sign: Sign) -> Signature:
    """The signatures of what goes out. Raises Refused: for good only where the message itself is the cause."""
    try:
        return sign(content)
    except CannotSign as error:
        why = str(error)
        reply = Reply(554, "5.6.0", f"Cannot be signed (DKIM): {why}") if error.is_permanent else UNSIGNED
        raise Refused(reply, "cannot be signed", why) from error
