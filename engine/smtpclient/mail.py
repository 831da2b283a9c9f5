"""What one transaction carries, and the commands that name it."""

from collections.abc import Callable, Container

from msgspec import Struct

from engine.model.claim import Claim
from engine.model.message import DsnRequest, Ret
from engine.queue.content import Content


class Mail(Struct, frozen=True, kw_only=True):
    """Envelope and content, which has CRLF line ends, and whether envelope or headers need more than SMTP has.

    `ret`, `envid` and the DSN request of each recipient (or ()) are as the sender gave them. `before_its_end` is called
    when all of it is sent but the final dot; where it raises, that is not.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes | Content
    eight_bit: bool = False
    smtputf8: bool = False
    ret: Ret = ""
    envid: str = ""
    dsn: tuple[DsnRequest, ...] = ()
    before_its_end: Callable[[], None] = lambda: None

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.size


def mail_of(claim: Claim, content: Content, *, before_its_end: Callable[[], None] = lambda: None) -> Mail:
    """What a claim asks to be sent; a content of one block, as most are, is at hand."""
    return Mail(
        sender=claim.sender,
        recipients=tuple(entry.recipient for entry in claim.entries),
        content=content if content.whole is None else content.whole,
        eight_bit=claim.eight_bit,
        smtputf8=claim.smtputf8,
        ret=claim.ret,
        envid=claim.envid,
        dsn=tuple(entry.dsn for entry in claim.entries),
        before_its_end=before_its_end,
    )


def mail_command(mail: Mail, extensions: Container[str]) -> bytes:
    """MAIL, with what the peer offers to heed."""
    words = [b"MAIL", b"FROM:<" + mail.sender.encode("utf-8") + b">"]
    if "size" in extensions:
        words.append(b"SIZE=%d" % mail.size)
    if mail.eight_bit and "8bitmime" in extensions:  # RFC 6152 3
        words.append(b"BODY=8BITMIME")
    if mail.smtputf8:
        words.append(b"SMTPUTF8")
    if "dsn" in extensions:  # RFC 3461 5.2.1: what the sender asked for goes on as it came
        if mail.ret:
            words.append(b"RET=" + mail.ret.encode("ascii"))
        if mail.envid:
            words.append(b"ENVID=" + mail.envid.encode("ascii"))
    return b" ".join(words)


def rcpt_command(recipient: str, dsn: DsnRequest, extensions: Container[str]) -> bytes:
    """RCPT for one recipient."""
    words = [b"RCPT TO:<" + recipient.encode("utf-8") + b">"]
    if "dsn" in extensions:
        if dsn.notify:
            words.append(b"NOTIFY=" + dsn.notify.encode("ascii"))
        if dsn.orcpt:
            words.append(b"ORCPT=" + dsn.orcpt.encode("ascii"))
    return b" ".join(words)
