"""What MTA-STS (RFC 8461) writes: the record that announces a policy, and the policy itself."""

import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from engine.base.text import clean
from engine.tls.chains import is_name

LARGEST = 64 * 1024  # bytes of a policy; RFC 8461 3.3 suggests this bound
LONGEST_AGE = 31_557_600.0  # seconds; RFC 8461 3.2
MOST_PATTERNS = 1000  # hosts one policy may name

Mode = Literal["enforce", "testing", "none"]

_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_AGE = re.compile(r"[0-9]{1,10}")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


class PolicyError(Exception):
    """A policy is not written as RFC 8461 3.2 says, or could not be fetched; the text says what is wrong."""

    def __init__(self, text: str) -> None:
        super().__init__(clean(text))


class Policy(Struct, frozen=True, kw_only=True):
    """A domain's policy: which hosts take its mail, and whether others are to be refused. Times are the clock's.

    `id` is that of the record that announced it.
    """

    domain: str
    id: str
    mode: Mode
    mx: tuple[str, ...]
    fetched: float
    expires: float

    def names(self, host: str) -> bool:
        """Whether the host is one that the policy names (RFC 8461 4.1)."""
        return any(is_name(pattern, host) for pattern in self.mx)


class Written(Struct, frozen=True, kw_only=True):
    """What a policy file says. `max_age` is in seconds."""

    mode: Mode
    mx: tuple[str, ...]
    max_age: float


def announced_id(texts: Sequence[bytes]) -> str | None:
    """The id of the policy that the TXT records of _mta-sts announce; None: they announce none (RFC 8461 3.1).

    Of records that begin as one of MTA-STS there must be exactly one, and it must be right.
    """
    records = [text for text in texts if re.match(rb"v=STSv1[ \t]*;", text)]
    if len(records) != 1:
        return None
    fields: dict[str, str] = {}
    for field in records[0].decode("ascii", "replace").rstrip(" \t;").split(";"):
        name, separator, value = field.strip(" \t").partition("=")
        if not separator or not _FIELD.fullmatch(name):
            return None
        fields.setdefault(name, value)
    return fields["id"] if _ID.fullmatch(fields.get("id", "")) else None


def parse_policy(body: bytes) -> Written:
    """Read a policy file. Raises PolicyError; unknown keys are passed over, and of a repeated key the first counts."""
    if len(body) > LARGEST:
        raise PolicyError(f"the policy has more than {LARGEST} bytes")
    try:
        lines = body.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise PolicyError("the policy is not UTF-8") from None
    fields: dict[str, str] = {}
    hosts: list[str] = []
    for line in filter(None, (line.strip(" \t") for line in lines)):
        key, separator, value = line.partition(":")
        if not separator or not _FIELD.fullmatch(key):
            raise PolicyError(f"the policy has a line that is no 'key: value': {line[:80]}")
        value = value.strip(" \t")
        if key == "mx":
            hosts.append(_pattern(value))
        else:
            fields.setdefault(key, value)
    if fields.get("version") != "STSv1":
        raise PolicyError("the policy's version is not STSv1")
    mode = _mode(fields.get("mode"))
    if not _AGE.fullmatch(fields.get("max_age", "")):
        raise PolicyError("the policy's max_age is missing, or no number of seconds")
    if mode != "none" and not hosts:
        raise PolicyError(f"the policy's mode is {mode}, and it names no mx")
    if len(hosts) > MOST_PATTERNS:
        raise PolicyError(f"the policy names more than {MOST_PATTERNS} hosts")
    return Written(mode=mode, mx=tuple(hosts), max_age=min(float(fields["max_age"]), LONGEST_AGE))


def _mode(value: str | None) -> Mode:
    match value:
        case "enforce" | "testing" | "none":
            return value
        case _:
            raise PolicyError("the policy's mode is none of enforce, testing and none")


def _pattern(value: str) -> str:
    """A host, or all hosts one label below a domain: "mx.example.org", "*.example.net"."""
    host = value.removesuffix(".")
    if len(host) > 255 or not _PATTERN.fullmatch(host):
        raise PolicyError(f"the policy names a host that is none: {value[:80]}")
    return host.lower()
