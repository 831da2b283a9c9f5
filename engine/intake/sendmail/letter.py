"""A message that a program on this machine hands over as it would to /usr/sbin/sendmail, and two ways to take it in.

`compose` makes it whole; `drop_off` leaves it in the drop folder, `say` tells it to our SMTP door.
"""

import os
import secrets
import time
from contextlib import suppress
from email.utils import formataddr
from pathlib import Path

from msgspec import Struct

from engine.base.address import Address, AddressError, parse_path
from engine.base.files import put
from engine.base.permission import others_may_write
from engine.base.text import clean
from engine.intake.content import HeaderTooBig, canonical, outgoing, read_header, with_field
from engine.intake.drop.dropped import Dropped
from engine.intake.errors import Unfit
from engine.intake.mailboxes import ListProblem, mailboxes
from engine.intake.missing import with_missing
from engine.intake.preparation import Preparation
from engine.settings.kinds import Listen
from engine.settings.settings import Smtp

PATIENCE = 60.0  # seconds our own door may take for a reply, the commit of the message among them

# Fields that say who is to have the message and that its readers must not see, or that only the drop folder reads.
_TAKEN_OUT = (b"bcc", b"resent-bcc", b"x-envelope-from", b"x-envelope-to")
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to dial what listens everywhere


class BadRecipient(Exception):
    """An address to which nothing can be sent; the text says which, and why."""


class Turned(Exception):
    """Our SMTP door said no: the command it was said to, the code and the enhanced code, and the whole reply."""

    def __init__(self, command: str, code: int, text: str) -> None:
        super().__init__(f"{command}: {code} {text}")
        self.command = command
        self.code = code
        self.enhanced = text.split(" ", 1)[0]


class Hand(Struct, frozen=True, kw_only=True):
    """How a message is handed over: from whom, to whom, and what the caller is called.

    `recipients`: arguments, each an address or a list as in a header. `sender`: of the envelope, "" or "<>" for the
    null one, None for the caller. `from_header`: those in To, Cc and
    Bcc have it, too (in the Resent fields, where there are any). `user` and `full_name` are the caller's.
    """

    recipients: tuple[str, ...]
    user: str
    full_name: str = ""
    sender: str | None = None
    from_header: bool = False


class Letter(Struct, frozen=True):
    """A whole message and its envelope."""

    sender: Address
    recipients: tuple[Address, ...]
    content: bytes

    def as_dropped(self) -> bytes:
        """The message as the drop folder takes it, its envelope on top."""
        sender = f"X-Envelope-From: <{self.sender}>\r\n"
        recipients = "X-Envelope-To: " + ",\r\n\t".join(f"<{each}>" for each in self.recipients) + "\r\n"
        return (sender + recipients).encode() + self.content


def compose(text: bytes, hand: Hand, *, hostname: str, rules: Smtp, at: float) -> Letter:
    """Make a whole message of what a program wrote. Raises BadRecipient, and Unfit where intake would not take it.

    A From line of a mailbox is left out; From, Date and Message-ID are added where they are missing (RFC 6409 8).
    """
    if text.startswith(b"From "):
        text = text.partition(b"\n")[2]
    content = canonical(text)
    try:
        header = read_header(content)
        listed = _listed(content) if hand.from_header else []
    except HeaderTooBig as error:
        raise Unfit(f"header: {error}; no more is taken") from error
    named = [address for each in hand.recipients for address in _in_argument(each)]
    recipients = tuple(dict.fromkeys(_recipient(each, hostname) for each in (*named, *listed)))
    if not recipients:
        raise Unfit("recipients: none; name them as arguments, or in To, Cc or Bcc with -t")
    caller = _qualified(hand.user, hostname)
    try:
        sender = parse_path(
            caller if hand.sender is None else _qualified(hand.sender, hostname), sender=True, qualify=hostname
        )
    except AddressError as error:
        raise Unfit(f"sender: {error}") from error
    content = outgoing(header, *_TAKEN_OUT)
    header = read_header(content)
    if not content.startswith(b"\r\n", header.end):  # the body began without the blank line before it
        content = content[: header.end] + b"\r\n" + content[header.end :]
    if not header.count(b"from"):
        content = with_field(_from(str(sender) or caller, hand.full_name), content)
        header = read_header(content)
    letter = Letter(sender, recipients, with_missing(content, header, hostname, at, sender))
    dropped = letter.as_dropped()
    if len(dropped) > rules.max_message_size:
        raise Unfit(f"it has {len(dropped)} octets; intake.smtp.max_message_size allows {rules.max_message_size}")
    # What the drop folder would set aside later is told the caller now.
    as_given = Preparation(hostname)  # what it is rewritten to is the engine's to know
    Dropped(content=dropped, origin="", key="").message(as_given, rules, at)
    return letter


def may_drop(folder: Path) -> bool:
    """Whether a file of ours in this folder would be taken: the engine takes only its own user's and root's.

    Nor does it use a folder or a spool that others may write to: there, what we leave could be anybody's.
    """
    try:
        owner = folder.stat().st_uid
        if others_may_write(folder, may_be_shared=True) or others_may_write(folder.parent):
            return False
    except OSError:
        return False
    return os.geteuid() in {0, owner} and os.access(folder, os.W_OK | os.X_OK)


def drop_off(letter: Letter, folder: Path) -> None:
    """Leave a letter in the drop folder; when this returns it is on disk. Raises OSError.

    It is written under a name that is not looked at, synced, and moved into place: a kill leaves no half of it.
    What root leaves there is given to the folder's owner, as whom the engine reads it.
    """
    whose = folder.stat()
    owner = (whose.st_uid, whose.st_gid) if whose.st_uid != os.geteuid() else None
    put(folder / f"sendmail-{time.time_ns()}-{secrets.token_hex(4)}.eml", letter.as_dropped(), owner=owner)


def say(letter: Letter, door: Listen, hostname: str) -> None:
    """Hand a letter over by SMTP, to all its recipients or to none. Raises Turned, OSError."""
    import smtplib  # half of the time that a sendmail takes, and seldom needed

    utf8 = letter.sender.smtputf8 or any(each.smtputf8 for each in letter.recipients)
    options = " BODY=8BITMIME" + (" SMTPUTF8" if utf8 else "")
    smtp = smtplib.SMTP(local_hostname=hostname, timeout=PATIENCE)
    try:
        _expect("the greeting", smtp.connect(_ANYWHERE.get(door.host, door.host), door.port))
        _expect("EHLO", smtp.ehlo())
        smtp.command_encoding = "utf-8"
        _expect("MAIL", smtp.docmd(f"MAIL FROM:<{letter.sender}>{options}"))
        for recipient in letter.recipients:
            _expect(f"RCPT {recipient}", smtp.docmd(f"RCPT TO:<{recipient}>"))
        _expect("DATA", smtp.data(letter.content))
        with suppress(OSError):  # it is taken: how they part is no matter any more
            smtp.putcmd("QUIT")
    except smtplib.SMTPResponseException as error:
        raise Turned("DATA", error.smtp_code, _text(error.smtp_error)) from error
    finally:
        smtp.close()


def _expect(command: str, reply: tuple[int, bytes]) -> None:
    if not 200 <= reply[0] < 300:
        raise Turned(command, reply[0], _text(reply[1]))


def _text(reply: bytes | str) -> str:
    return clean(reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply, 300)


def _listed(content: bytes) -> list[str]:
    """The addresses in the fields that name recipients. Raises BadRecipient."""
    header = read_header(content)
    names = ("resent-to", "resent-cc", "resent-bcc")
    if not any(header.count(name.encode()) for name in names):
        names = ("to", "cc", "bcc")
    found: list[str] = []
    for name in names:
        for value in header.all(name.encode()):
            try:
                found += filter(None, mailboxes(value.decode("utf-8", "surrogateescape")))
            except ListProblem as error:
                raise BadRecipient(f"{name.title()}: cannot be read: {error}") from error
    return found


def _in_argument(written: str) -> list[str]:
    """The addresses in one argument: cron gives all of its MAILTO in one, and names are given as in a header."""
    if not written.isprintable() or not any(mark in written for mark in ",<"):
        return [written]
    try:
        return list(filter(None, mailboxes(written)))
    except ListProblem as error:
        raise BadRecipient(f"{clean(written, 200)}: cannot be read: {error}") from error


def _recipient(written: str, hostname: str) -> Address:
    try:
        return parse_path(_qualified(written, hostname), qualify=hostname)
    except AddressError as error:
        raise BadRecipient(str(error)) from error


def _qualified(written: str, hostname: str) -> str:
    """An address of somebody on this machine gets its name: cron writes to `root`."""
    bare = written.strip().removeprefix("<").removesuffix(">")
    return bare if not bare or "@" in bare else f"{bare}@{hostname}"


def _from(address: str, full_name: str) -> bytes:
    name = clean(full_name, 200)
    if name and address.isascii():
        return f"From: {formataddr((name, address))}\r\n".encode()
    return f"From: {address}\r\n".encode()
