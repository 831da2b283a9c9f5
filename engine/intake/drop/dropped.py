"""A dropped file as a message: its envelope from its header fields, its content ready for the queue."""

from itertools import chain

from msgspec import Struct

from engine.base.address import Address, AddressError, parse_path
from engine.dkim.result import CannotSign
from engine.intake.content import (
    MAX_LINE,
    Header,
    HeaderTooBig,
    canonical,
    has_long_line,
    read_header,
)
from engine.intake.errors import Unfit
from engine.intake.mailboxes import ListProblem, mailboxes
from engine.intake.preparation import Arrived, Preparation
from engine.model.message import NewMessage
from engine.settings.settings import Smtp

MAX_RECIPIENTS = 10_000
MAX_NAMED = 2 * MAX_RECIPIENTS  # addresses in the fields of one name: some may stand there more than once

# Bcc, signed or not: it may be the envelope here, as with sendmail -t.
_PRIVATE = (b"x-envelope-from", b"x-envelope-to", b"bcc", b"resent-bcc")
_ALLOWED = "allowed are addresses such as ann@example.org, between commas"


class Dropped(Struct, frozen=True, kw_only=True):
    """What a file in the drop folder says: its octets, where they came from, and its key (see NewMessage).

    Also what was posted over HTTP, which has the same form; `sent_by`, `protocol` and `is_submission`: see Arrived.
    """

    content: bytes
    origin: str
    key: str | None
    sent_by: str = ""
    protocol: str = "local (drop)"  # handed over on this machine, by no protocol
    is_submission: bool = False

    def message(self, preparation: Preparation, rules: Smtp, at: float) -> NewMessage:
        """Give the message to queue, as it is prepared, and without what is not for its readers.

        That is X-Envelope-From, X-Envelope-To, Bcc and what `outgoing` leaves out. Raises Unfit, and CannotSign for
        what can be signed later.
        """
        arrived = self.arrived(rules)
        try:
            return preparation.message(arrived, at)
        except CannotSign as error:
            if not error.is_permanent:
                raise
            raise Unfit(f"DKIM: cannot be signed: {error}") from error

    def arrived(self, rules: Smtp) -> Arrived:
        """Read it. Raises Unfit."""
        if b"\0" in self.content:
            raise Unfit("content: holds NUL; a message holds any octet but that (RFC 5322 2.3)")
        content = canonical(self.content)
        if has_long_line(content):
            raise Unfit(f"content: a line is too long; at most {MAX_LINE} octets are allowed")
        try:
            header = read_header(content)
        except HeaderTooBig as error:
            raise Unfit(f"header: {error}; no more is taken") from error
        if header.count(b"received") > rules.max_received:
            raise Unfit(f"Received: more than {rules.max_received} of them; this message goes round in a loop")
        return Arrived(
            header=header,
            sender=_sender(header),
            recipients=_recipients(header),
            sent_by=self.sent_by,
            protocol=self.protocol,
            origin=self.origin,
            private=_PRIVATE,
            is_submission=self.is_submission,
            key=self.key,
        )


def _sender(header: Header) -> Address:
    given = header.all(b"x-envelope-from")
    if len(given) > 1:
        raise Unfit("X-Envelope-From: stands more than once; one sender is allowed")
    if given:
        if given[0] in {b"", b"<>"}:
            return Address("", "")
        addresses = _addresses("X-Envelope-From", given)
        if len(addresses) != 1:
            raise Unfit(f"X-Envelope-From: {len(addresses)} addresses; one is allowed, or <> for none")
        return addresses[0]
    authors = _addresses("From", header.all(b"from"))
    if len(authors) > 1:
        authors = _addresses("Sender", header.all(b"sender"))  # RFC 5322 3.6.2
    if len(authors) != 1:
        raise Unfit("sender: none found; X-Envelope-From or From must name one")
    return authors[0]


def _recipients(header: Header) -> tuple[Address, ...]:
    names = ("X-Envelope-To",) if header.count(b"x-envelope-to") else ("To", "Cc", "Bcc")
    found: dict[Address, None] = {}
    for name in names:
        found.update(dict.fromkeys(_addresses(name, header.all(name.lower().encode()))))
    if not found:
        raise Unfit(f"recipients: none found in {', '.join(names)}; X-Envelope-To or one of To, Cc, Bcc must name some")
    if len(found) > MAX_RECIPIENTS:
        raise Unfit(f"recipients: {len(found)} of them; at most {MAX_RECIPIENTS} are allowed")
    return tuple(found)


def _addresses(name: str, values: list[bytes]) -> list[Address]:
    """Read the address lists of all fields of a name; groups and display names are seen through."""
    lists = [value.decode("utf-8", "surrogateescape") for value in values]
    found: list[Address] = []
    try:
        for written in chain.from_iterable(map(mailboxes, lists)):
            if written:
                found.append(parse_path(written))
            if len(found) > MAX_NAMED:
                raise Unfit(f"{name}: more than {MAX_NAMED} addresses; send the message in parts")
    except ListProblem as error:
        raise Unfit(f"{name}: cannot be read: {error}; {_ALLOWED}") from error
    except AddressError as error:
        raise Unfit(f"{name}: {error}; {_ALLOWED}") from error
    return found
