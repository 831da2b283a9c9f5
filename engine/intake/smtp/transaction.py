"""The mail transaction (RFC 5321 3.3): who sends a message and who is to have it, as MAIL and RCPT say."""

import re

from msgspec import Struct

from engine.base.address import Address, AddressError, parse_path
from engine.base.text import clean
from engine.intake.errors import Refused
from engine.intake.reply import Reply, too_big
from engine.intake.smtp.command import Argument, SyntaxProblem, read_argument
from engine.intake.smtp.dsn import OF_MAIL, OF_RCPT, OfMail, of_mail, of_recipient
from engine.model.message import DsnRequest

MAX_RECIPIENTS = 1000  # RFC 5321 4.5.3.1.8 asks for 100

_SIZE = re.compile(r"[0-9]{1,20}", re.ASCII)
_AFTER_HELO = Reply(555, "5.5.4", "Parameters come after EHLO, not after HELO")
_OF_MAIL = Reply(555, "5.5.4", "Only SIZE, BODY, SMTPUTF8, RET and ENVID are known here")
_OF_RCPT = Reply(555, "5.5.4", "Only NOTIFY and ORCPT are known here")
_TOO_MANY = Reply(452, "4.5.3", f"At most {MAX_RECIPIENTS} recipients at a time; send it again for the others")


class Recipient(Struct, frozen=True):
    """What RCPT says: an address, `name` as it counts, and what the sender wants to be told of it."""

    name: str
    address: Address
    dsn: DsnRequest


class Transaction:
    """What MAIL has begun: the sender, and the recipients so far in their order.

    `declared_utf8`: MAIL had SMTPUTF8. `octets` is the size it announced, or 0.
    """

    def __init__(self, sender: Address, *, declared_utf8: bool, dsn: OfMail, octets: int) -> None:
        self.sender = sender
        self.declared_utf8 = declared_utf8
        self.dsn = dsn
        self.octets = octets
        self.recipients: dict[str, Recipient] = {}

    def read_recipient(self, text: str | None, *, hostname: str, is_extended: bool) -> Recipient:
        """Read the argument of RCPT (RFC 5321 4.1.1.3). Raises Refused.

        `hostname` is ours, where postmaster may have none; `is_extended`: the client has said EHLO.
        """
        try:
            argument = read_argument(text, "TO:")
            _check_extended(argument, is_extended=is_extended)
            if not argument.parameters.keys() <= OF_RCPT:
                raise Refused(_OF_RCPT)
            dsn = of_recipient(argument.parameters)
        except SyntaxProblem as error:
            raise Refused(Reply(501, "5.5.4", f"RCPT: {error}")) from error
        if len(self.recipients) >= MAX_RECIPIENTS:
            raise Refused(_TOO_MANY)
        try:
            address = parse_path(argument.path, qualify=hostname)
        except AddressError as error:
            raise Refused(Reply(501, "5.1.3", _reason(error)), "bad recipient address", str(error)) from error
        if address.smtputf8 and not self.declared_utf8:
            raise Refused(Reply(553, "5.6.7", "This recipient needs the SMTPUTF8 parameter of MAIL"))
        return Recipient(str(address), address, dsn)


def begun(text: str | None, *, hostname: str, largest: int, is_extended: bool, has_login: bool) -> Transaction:
    """Read the argument of MAIL (RFC 5321 4.1.1.2). Raises Refused.

    `largest` is how many octets a message may have; `has_login`: the client has logged in.
    """
    try:
        argument = read_argument(text, "FROM:")
        _check_extended(argument, is_extended=is_extended)
        for name, value in argument.parameters.items():
            _check_parameter(name, value, largest=largest, has_login=has_login)
        dsn = of_mail(argument.parameters)
    except SyntaxProblem as error:
        raise Refused(Reply(501, "5.5.4", f"MAIL: {error}")) from error
    declared_utf8 = "SMTPUTF8" in argument.parameters
    try:
        sender = parse_path(argument.path, sender=True, qualify=hostname)
    except AddressError as error:
        raise Refused(Reply(553, "5.1.7", _reason(error)), "bad sender address", str(error)) from error
    if sender.smtputf8 and not declared_utf8:
        raise Refused(Reply(553, "5.6.7", "This sender needs the SMTPUTF8 parameter"))
    octets = int(argument.parameters.get("SIZE") or 0)
    return Transaction(sender, declared_utf8=declared_utf8, dsn=dsn, octets=octets)


def _check_extended(argument: Argument, *, is_extended: bool) -> None:
    if argument.parameters and not is_extended:
        raise Refused(_AFTER_HELO)


def _check_parameter(name: str, value: str | None, *, largest: int, has_login: bool) -> None:
    """Raise Refused for a parameter of MAIL that cannot be kept; those of DSN are read on their own."""
    if name == "SIZE":  # RFC 1870 6
        if value is None or not _SIZE.fullmatch(value):
            raise Refused(Reply(501, "5.5.4", "SIZE is written SIZE=octets"))
        if int(value) > largest:
            raise Refused(too_big(largest), "too big", f"{int(value)} octets announced")
    elif name == "BODY":  # RFC 6152 2
        if (value or "").upper() not in {"7BIT", "8BITMIME"}:
            raise Refused(Reply(501, "5.5.4", "BODY is 7BIT or 8BITMIME"))
    elif name == "SMTPUTF8":  # RFC 6531 3.4
        if value is not None:
            raise Refused(Reply(501, "5.5.4", "SMTPUTF8 takes no value"))
    elif name == "AUTH" and has_login:
        pass  # RFC 4954 5: taken, and not believed; we know who has logged in
    elif name not in OF_MAIL:
        raise Refused(_OF_MAIL)


def _reason(error: AddressError) -> str:
    """The reason as a reply may carry it, well within its line."""
    return clean(str(error), 120)
