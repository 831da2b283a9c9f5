"""As whom a login may send: the senders that are named for it, else its own address.

It is the sender of the envelope that counts (MAIL, RFC 6409 6.1), not the From field, which nobody here reads.
"""

import unicodedata
from collections.abc import Iterable
from contextlib import suppress

from engine.base.address import Address, AddressError, parse_domain, parse_path
from engine.base.text import clean

ANYBODY = "*"
SHOWN = 3  # senders of a login that a reply names


class SenderError(ValueError):
    """This is no sender of a login; the text says why, and what is allowed."""


def read_sender(written: str) -> str:
    """Give a sender as it is kept: an address, "*@" and a domain for all addresses there, or "*" for anybody.

    Raises SenderError.
    """
    if written == ANYBODY:
        return written
    local, at, domain = written.rpartition("@")
    try:
        found = f"*@{parse_domain(domain)}" if at and local == ANYBODY else str(parse_path(written))
    except AddressError as error:
        raise SenderError(
            f'{error}; allowed are addresses, "*@example.org" for all of a domain, and "*" for anybody'
        ) from error
    if " " in found:
        raise SenderError(f'{clean(written, 100)}: a blank stands in it; "*@" and its domain allows it, too')
    return found


def own_address(login: str, hostname: str) -> str:
    """The address that a login has by itself: what it is called, with @ and our name where it has none.

    "" where that is no address.
    """
    for written in (login, f"{login}@{hostname}"):
        with suppress(AddressError):
            address = parse_path(written)
            return "" if address.local == ANYBODY else str(address)
    return ""


def senders_of(login: str, named: tuple[str, ...] | None, hostname: str) -> tuple[str, ...]:
    """As whom a login may send: what is named for it, its own address where nothing is; anybody where that is None."""
    if named is None:
        return (ANYBODY,)
    own = own_address(login, hostname)
    return named or ((own,) if own else ())


def may_send(senders: Iterable[str], sender: Address) -> bool:
    """Whether one of these allows a sender. Capitals make no difference.

    The null sender is allowed to everybody: what a mail reader says of a message it was shown comes from it (RFC 8098
    3), and it pretends to be nobody. Postfix has it so as well (reject_authenticated_sender_login_mismatch).
    """
    if not sender.domain:
        return True
    allowing = {ANYBODY, f"*@{sender.domain}", _folded(str(sender))}
    return any(_folded(each) in allowing for each in senders)


def shown(senders: tuple[str, ...]) -> str:
    """Senders as a reply names them: the first few, and how many there are besides."""
    if not senders:
        return "nobody"
    more = f" and {len(senders) - SHOWN} more" if len(senders) > SHOWN else ""
    return ", ".join(senders[:SHOWN]) + more


def _folded(sender: str) -> str:
    return unicodedata.normalize("NFC", sender).casefold()
