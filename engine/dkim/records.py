"""Key records (RFC 6376 3.6.1): what the DNS is to have of a key, and whether what it has is that."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence

from dkim.util import InvalidTagValueList, parse_tag_value
from dns.rdatatype import TXT

from engine.base.text import clean
from engine.dkim.keys import Key, KeyProblem, read_key
from engine.dns.lookups import DomainNotFound, Lookups, MXError, name_of, resolver_for
from engine.settings.settings import DkimKey, Dns

STRING = 255  # octets of one string of a TXT record (RFC 1035 3.3)

_SHOWN = 100  # characters of what stands in the DNS

_BLANKS = re.compile(rb"\s+")


def record_of(key: Key) -> str:
    """What the DNS is to say of a key."""
    return f"v=DKIM1; k={key.algorithm}; p={base64.b64encode(key.public).decode()}"


def zone_lines(key: Key) -> Iterator[str]:
    """The record as a zone file has it (RFC 1035 5.1), in strings that are short enough."""
    text = record_of(key)
    strings = [f'"{text[start : start + STRING]}"' for start in range(0, len(text), STRING)]
    if len(strings) == 1:
        yield f"{key.record}. IN TXT {strings[0]}"
        return
    yield f"{key.record}. IN TXT ("
    yield from (f"    {string}" for string in strings[:-1])
    yield f"    {strings[-1]} )"


async def check(settings: Sequence[DkimKey], dns: Dns) -> list[tuple[bool, str]]:
    """Whether the DNS has each of these keys for verifiers to use, and what it has, as a line with its name."""
    lookups = Lookups(resolver_for([str(each) for each in dns.nameservers]))
    found = []
    for setting in settings:
        try:
            key = read_key(setting)
        except KeyProblem as error:
            found.append((False, f"{setting.record}: {error}"))
        else:
            is_well, text = await published(key, lookups)
            found.append((is_well, f"{setting.record} ({key.algorithm}): {text}"))
    return found


async def published(key: Key, lookups: Lookups) -> tuple[bool, str]:
    """Whether the DNS has this key for verifiers to use, and what it has."""
    try:
        _, records = await lookups.follow(name_of(key.record), TXT)
    except DomainNotFound:
        return False, "missing: the DNS has no such name"
    except MXError as error:
        return False, f"cannot be told: {error}"
    return judged(key, [record for record in records if isinstance(record, bytes)])


def judged(key: Key, records: Sequence[bytes]) -> tuple[bool, str]:
    """Whether these TXT records give a key to verifiers, and what they do."""
    if not records:
        return False, "missing: the DNS has no TXT record there"
    if len(records) > 1:
        return False, f"{len(records)} TXT records stand there; one is allowed (RFC 6376 3.6.2.2)"
    shown = clean(records[0].decode("utf-8", "replace"), _SHOWN)
    try:
        tags = parse_tag_value(records[0])
        public = base64.b64decode(_BLANKS.sub(b"", tags[b"p"]), validate=True)
    except (InvalidTagValueList, KeyError, binascii.Error):
        return False, f"no key: {shown}"
    if tags.get(b"v", b"DKIM1") != b"DKIM1":
        return False, f"no key of DKIM1: {shown}"
    if not public:
        return False, "revoked: its p= is empty (RFC 6376 3.6.1)"
    algorithm = tags.get(b"k", b"rsa").decode("ascii", "replace")
    if (algorithm, public) != (key.algorithm, key.public):
        return False, f"another key than ours: {shown}"
    if b"sha256" not in _listed(tags.get(b"h", b"sha256")):
        return False, f"our key, but not for sha256: {shown}"
    if not {b"*", b"email"} & _listed(tags.get(b"s", b"*")):
        return False, f"our key, but not for mail: {shown}"
    if b"y" in _listed(tags.get(b"t", b"")):
        return False, "our key, but for tests (t=y): to verifiers mail is as if it were not signed"
    return True, "our key"


def _listed(value: bytes) -> set[bytes]:
    return {each.strip() for each in value.split(b":")}
