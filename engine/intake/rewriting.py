"""Addresses that are put right on the way in: senders whom nobody could answer, recipients of this machine alone.

Of the envelope and of the fields that name who sent it (RFC 5322 3.6.2); of a message nothing else is touched.
"""

from collections.abc import Sequence

from engine.base.address import Address, AddressError, parse_path, pattern_for
from engine.intake.content import Header, with_field
from engine.intake.mailboxes import ListProblem, placed_mailboxes
from engine.model.message import NO_DSN_REQUEST, DsnRequest
from engine.settings.settings import Rewrite

SENDERS = (b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender")
ORIGINAL = b"X-Original-From:"


class Rewriter:
    """Applies the rules, to each address the most particular one, and once.

    That is the one for the whole address, for its local part at this host, for its domain, for a domain above that, for
    all. `hostname` is what this relay is called.
    """

    def __init__(self, rules: Sequence[Rewrite], hostname: str) -> None:
        self._senders = _Rules([rule for rule in rules if rule.of == "senders"], hostname)
        self._recipients = _Rules([rule for rule in rules if rule.of == "recipients"], hostname)

    def sender(self, address: Address) -> Address:
        """The sender of the envelope; the null sender stays (RFC 5321 4.5.5)."""
        rule = self._senders.of(address)
        return address if rule is None else _applied(rule, address)

    def recipients(
        self, addresses: Sequence[Address], dsn: Sequence[DsnRequest]
    ) -> tuple[tuple[Address, ...], tuple[DsnRequest, ...]]:
        """The recipients of the envelope, each once, and what was asked to be told of them.

        Of one that is rewritten the address that was given goes along (RFC 3461 4.2), unless there is one already: a
        notification names what its reader wrote.
        """
        asked = dsn or [NO_DSN_REQUEST] * len(addresses)
        found: dict[Address, DsnRequest] = {}
        for address, request in zip(addresses, asked, strict=True):
            rule = self._recipients.of(address)
            if rule is not None:
                orcpt = request.orcpt or _orcpt(address)
                address, request = _applied(rule, address), DsnRequest(notify=request.notify, orcpt=orcpt)
            found.setdefault(address, request)
        requests = tuple(found.values())
        return tuple(found), requests if any(request != NO_DSN_REQUEST for request in requests) else ()

    def content(self, header: Header) -> bytes:
        """The content with the senders in its header rewritten; what cannot be read stays as it is."""
        content = header.content
        if not self._senders:
            return content
        pieces: list[bytes] = []
        position = 0
        kept = b""
        for field in header.fields:
            if field.name not in SENDERS:
                continue
            value = content[field.value : field.end]
            changed, keeps = self._value(value)
            if changed != value:
                pieces += [content[position : field.value], changed]
                position = field.end
                if keeps and field.name == b"from":
                    kept += ORIGINAL + value
        if not pieces:
            return content
        written = b"".join((*pieces, content[position:]))
        return with_field(kept, written) if kept else written

    def _value(self, value: bytes) -> tuple[bytes, bool]:
        """A list of addresses, rewritten; and whether the original is to be kept."""
        text = value.decode("utf-8", "surrogateescape")
        pieces: list[str] = []
        position, keeps = 0, False
        try:
            for placed in list(placed_mailboxes(text)):
                rule = address = None
                try:
                    address = parse_path(placed.text)
                    rule = self._senders.of(address)
                except AddressError:
                    continue
                if rule is not None and (put := _applied(rule, address)) != address:
                    pieces += [text[position : placed.start], str(put)]
                    position, keeps = placed.end, keeps or rule.keep_original
        except ListProblem:
            return value, False
        return "".join((*pieces, text[position:])).encode("utf-8", "surrogateescape"), keeps


class _Rules:
    """The rules for addresses of one kind, by what they match."""

    def __init__(self, rules: Sequence[Rewrite], hostname: str) -> None:
        self._hostname = hostname
        self._by_match = {rule.match: rule for rule in rules}
        self._by_domain = {rule.match.removeprefix("*@"): rule for rule in rules if rule.match.startswith("*@")}

    def __bool__(self) -> bool:
        return bool(self._by_match)

    def of(self, address: Address) -> Rewrite | None:
        """The most particular rule for an address."""
        if not self._by_match or not address.domain:
            return None
        local, domain = address.local.lower(), address.domain
        names = [f"{local}@{domain}", *([local] if domain == self._hostname else ())]
        found = next((rule for name in names if (rule := self._by_match.get(name)) is not None), None)
        if found is not None:
            return found
        return self._by_domain.get(pattern_for(domain, self._by_domain)) or self._by_match.get("*")


def _applied(rule: Rewrite, address: Address) -> Address:
    local, _, domain = rule.to.rpartition("@")
    return Address(address.local if local == "*" else local, domain)


def _orcpt(address: Address) -> str:
    """The recipient that was given, as RFC 3461 4.2 writes it; "" for one that it cannot write (RFC 6533)."""
    text = str(address)
    if not text.isascii():
        return ""
    plain = "".join(char if "!" <= char <= "~" and char not in "+=" else f"+{ord(char):02X}" for char in text)
    return f"rfc822;{plain}"
