"""What is done to every message on its way in, whoever brings it: rewritten, completed, signed, traced.

In this order: a signature is of what goes out, and what stands above it is the trace of those who handed it on.
"""

from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from engine.base.address import Address
from engine.dkim.result import Sign, unsigned
from engine.intake.content import Header, outgoing, read_header, received, with_field
from engine.intake.missing import missing
from engine.intake.rewriting import Rewriter
from engine.model.message import DsnRequest, NewMessage, Ret
from engine.settings.settings import Rewrite, Settings


class Arrived(Struct, frozen=True, kw_only=True):
    """A message that may be taken, as it came: its header, which has its canonical content, and its envelope.

    `sent_by`, `protocol` and `secured` are for its Received field (RFC 5321 4.4). `private`: fields that are not for
    its readers, beside those that no message keeps. A submission has what it lacks added (RFC 6409 8). The rest: see
    NewMessage.
    """

    header: Header
    sender: Address
    recipients: tuple[Address, ...]
    sent_by: str
    protocol: str
    secured: str = ""
    origin: str
    private: tuple[bytes, ...] = ()
    is_submission: bool = False
    needs_utf8: bool = False
    key: str | None = None
    ret: Ret = ""
    envid: str = ""
    dsn: tuple[DsnRequest, ...] = ()


class Preparation:
    """Makes what arrived into what is queued, by the rules of this relay, which is called `hostname`.

    `completes_all`: what a message lacks is added whoever sent it. `sign` gives the signatures of one.
    """

    def __init__(
        self, hostname: str, rules: Sequence[Rewrite] = (), *, completes_all: bool = False, sign: Sign = unsigned
    ) -> None:
        self.hostname = hostname
        self._rewriter = Rewriter(rules, hostname)
        self._completes_all = completes_all
        self._sign = sign

    @classmethod
    def by(cls, settings: Settings, sign: Sign = unsigned) -> Self:
        """As the settings have it."""
        completes_all = settings.intake.complete == "all"
        return cls(settings.hostname, settings.rewrite, completes_all=completes_all, sign=sign)

    def recipient(self, address: Address) -> Address:
        """A recipient as its message will be queued for it."""
        return self._rewriter.recipients((address,), ())[0][0]

    def message(self, arrived: Arrived, at: float) -> NewMessage:
        """The message to queue; `at`: when it came, in seconds since 1970. Safe in any thread. Raises CannotSign."""
        header = arrived.header
        rewritten = self._rewriter.content(header)
        if rewritten is not header.content:
            header = read_header(rewritten)
        content = outgoing(header, *arrived.private)
        sender = self._rewriter.sender(arrived.sender)
        message_id = header.shown(b"message-id")
        if arrived.is_submission or self._completes_all:
            lacking = missing(header, self.hostname, at, sender)
            content = with_field(lacking.fields, content) if lacking.fields else content
            message_id = lacking.message_id or message_id
        recipients, dsn = self._rewriter.recipients(arrived.recipients, arrived.dsn)
        trace = received(
            sent_by=arrived.sent_by,
            by=self.hostname,
            protocol=arrived.protocol,
            at=at,
            secured=arrived.secured,
            recipients=tuple(map(str, arrived.recipients)),
        )
        signature = self._sign(content)
        return NewMessage(
            sender=str(sender),
            recipients=tuple(map(str, recipients)),
            content=with_field(signature.fields + trace.field, content),
            id_at=len(signature.fields) + trace.id_at,
            origin=arrived.origin,
            subject=header.shown(b"subject"),
            message_id=message_id,
            smtputf8=arrived.needs_utf8 or sender.smtputf8 or any(recipient.smtputf8 for recipient in recipients),
            key=arrived.key,
            ret=arrived.ret,
            envid=arrived.envid,
            dsn=dsn,
            remark=signature.remark,
        )
