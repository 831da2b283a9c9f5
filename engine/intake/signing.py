"""Signing what comes in: whose mail it is, and what of it cannot be signed (RFC 6376 5.1).

It comes after all that changes a message. What is put on top of it later, its trace, is not signed.
"""

import re
from collections.abc import Iterator
from itertools import chain, islice

from engine.base.address import AddressError, parse_domain
from engine.dkim.result import NOT_SIGNED, Signature
from engine.dkim.signature import parts_of
from engine.dkim.signer import Signer
from engine.intake.mailboxes import ListProblem, mailboxes

MOST_NAMED = 1000  # names that are looked for in From fields which are not as they should be

_AFTER_AT = re.compile(r"@([^\s@<>()\[\],;:\"]{1,255})")


def signed(content: bytes, signer: Signer) -> Signature:
    """Sign canonical content for the domain of its author; what has none is nobody's to sign. Raises CannotSign.

    Of several authors in one field the first counts. Of several From fields none does: readers differ in which they
    show, and a signature would vouch for the wrong one.
    """
    if not signer.has_keys:
        return NOT_SIGNED
    message = parts_of(content)
    texts = [_unfolded(author) for author in message.all(b"from")]
    if len(texts) == 1:
        try:
            domain = _author(texts[0])
        except ListProblem as error:
            why = f"its From field cannot be read: {error}"
        else:
            return signer.sign(message, domain)
    else:
        why = f"it has {len(texts)} From fields"
    if any(map(signer.domain_of, _named(texts))):
        return signer.cannot(why, is_permanent=True)
    return NOT_SIGNED


def _unfolded(value: bytes) -> str:
    return value.replace(b"\r\n", b"").strip(b" \t").decode("utf-8", "surrogateescape")


def _author(text: str) -> str:
    """The domain of the first author; "" where there is none. Raises ListProblem."""
    authors = (author for author in mailboxes(text) if author)
    _, at, domain = next(authors, "").rpartition("@")
    return _domain(domain) if at else ""


def _named(texts: list[str]) -> Iterator[str]:
    """What looks like a domain in fields that are not as they should be."""
    written = chain.from_iterable(map(_AFTER_AT.findall, texts))
    return map(_domain, islice(dict.fromkeys(written), MOST_NAMED))


def _domain(written: str) -> str:
    """A domain as keys have it. What is none in the DNS, such as `my_host.example.org`, may lie below one that is."""
    try:
        return parse_domain(written)
    except AddressError:
        return written.lower().rstrip(".")
