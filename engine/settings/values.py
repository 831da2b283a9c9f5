"""The values a setting may have: each reader takes what TOML gave and gives what the engine uses.

A reader raises ValueError, whose text says what is wrong and what is allowed. Those of names and addresses stand in
engine.settings.names, those of files and folders in engine.settings.paths.
"""

import math
import re
from collections.abc import Callable
from typing import Any, get_args

from engine.base.duration import parse_duration
from engine.base.text import clean

Reader = Callable[[object], Any]
_TEN_YEARS = 3_650 * 86_400
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*((?:[kmgt]i?)?b|)", re.ASCII | re.IGNORECASE)
# RFC 3463 3.2 and 3.3, RFC 7505: what is said of the recipient. 5.1.7 and 5.1.8 are of the sender.
_ADDRESS_CODES = ("5.1.1", "5.1.2", "5.1.3", "5.1.4", "5.1.6", "5.1.10", "5.2.1", "5.2.2")
_NO_ADDRESS_CODES = {"5.7.": "of a policy, and not of the address", "5.4.": "of the way there, and not of the address"}
_SMALLEST, _LARGEST = 1024, 512 * 2**20


def text(value: object) -> str:
    """Any text without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text; write it in quotes")
    if clean(value, len(value)) != value:
        raise ValueError("it holds control characters; allowed are those that can be seen")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value


def count(value: object) -> int:
    """A whole number from 1 to a thousand million."""
    return whole(value, 1, 10**9)


def few(value: object) -> int:
    """A whole number from 1 to 100."""
    return whole(value, 1, 100)


def port(value: object) -> int:
    """A port one can connect to."""
    return whole(value, 1, 65_535)


def duration(value: object) -> float:
    """Seconds, more than none and at most ten years, from a number or from text such as `1h30m`."""
    if isinstance(value, str):
        seconds = said(value, parse_duration)
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        seconds = float(value)
    else:
        raise ValueError(f"{shown(value)} is not a duration; write it as 30s, 5m, 1h30m or 5d, or in seconds")
    if not 0 < seconds <= _TEN_YEARS:
        raise ValueError(f"{shown(value)} is out of range; allowed is more than 0s and at most ten years")
    return seconds


def duration_or_none(value: object) -> float:
    """A duration, or 0 for none."""
    if value in (0, "0", "0s") and not isinstance(value, bool):
        return 0.0
    return duration(value)


def size(value: object) -> int:
    """Bytes, from 1 KiB to 512 MiB, from a number or from text such as `25 MiB` or `10MB`."""
    octets = _octets(value)
    if not _SMALLEST <= octets <= _LARGEST:
        raise ValueError(f"{shown(value)} is out of range; allowed is from 1 KiB to 512 MiB")
    return octets


def space(value: object) -> int:
    """Bytes of a disk, from 0 to 1024 TiB, from a number or from text such as `100 MiB`."""
    octets = _octets(value)
    if not 0 <= octets <= 2**50:
        raise ValueError(f"{shown(value)} is out of range; allowed is from 0 to 1024 TiB")
    return octets


def returned(value: object) -> int:
    """Bytes of a message that goes back, from 0 to 1 MiB, from a number or from text such as `50 KiB`."""
    octets = _octets(value)
    if not 0 <= octets <= 2**20:
        raise ValueError(f"{shown(value)} is out of range; allowed is from 0 to 1 MiB")
    return octets


def gathering(value: object) -> float:
    """A duration of ten minutes at the most, or 0 for none."""
    seconds = duration_or_none(value)
    if seconds > 600:
        raise ValueError(f"{shown(value)} is out of range; allowed is from 0 to 10m")
    return seconds


def suppressed_for(value: object) -> float:
    """A duration from an hour to a year."""
    seconds = duration(value)
    if not 3600 <= seconds <= 366 * 86_400:
        raise ValueError(f"{shown(value)} is out of range; allowed is from 1h to 366d")
    return seconds


def most_suppressed(value: object) -> int:
    """A whole number from 1 to a million."""
    return whole(value, 1, 10**6)


def address_code(value: object) -> str:
    """A code that says of a recipient's address or mailbox that it takes no mail, such as 5.1.1 or 5.2.1."""
    code = text(value)
    if code not in _ADDRESS_CODES:
        what = _NO_ADDRESS_CODES.get(code[:4], "") or "no code that says of an address that it takes no mail"
        raise ValueError(f"{shown(value)} is {what}; allowed are {', '.join(_ADDRESS_CODES)}")
    return code


def weight(value: object) -> int:
    """A whole number from 0 to 1000."""
    return whole(value, 0, 1000)


def duration_or_never(value: object) -> float:
    """A duration, or 0 and "never" for none."""
    try:
        return 0.0 if value == "never" else duration_or_none(value)
    except ValueError as error:
        raise ValueError(f'{error}; or "never"') from error


def one_of(choices: object) -> Reader:
    """One of the words of a Literal."""

    def read(value: object) -> str:
        for allowed in get_args(choices):
            if value == allowed:
                return str(allowed)
        raise ValueError(f"{shown(value)} is none of {', '.join(get_args(choices))}")

    read.__doc__ = f"One of {', '.join(get_args(choices))}."
    return read


def each(reader: Reader, at_least: int = 0) -> Callable[[object], tuple[Any, ...]]:
    """A list whose members are read by `reader`; the number of a wrong one, from 0, stands in the error."""

    def read(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list; write [ ] around its members")
        if len(value) < at_least:
            raise ValueError(f"it is empty; at least {at_least} is needed")
        members = []
        for position, member in enumerate(value):
            try:
                members.append(reader(member))
            except ValueError as error:
                raise ValueError(f"[{position}]: {error}") from error
        return tuple(members)

    read.of = reader  # type: ignore[attr-defined]  # for who tells what it reads
    read.__doc__ = f"A list. {reader.__doc__}" + (f" At least {at_least} is needed." if at_least else "")
    return read


def one_or_each(reader: Reader) -> Callable[[object], Any]:
    """What `reader` reads, or a list of such with one member at least."""
    read_list = each(reader, at_least=1)

    def read(value: object) -> Any:
        return read_list(value) if isinstance(value, list) else reader(value)

    read.__doc__ = f"{reader.__doc__} Or a list of such."
    return read


def _octets(value: object) -> int:
    if isinstance(value, str) and (written := _SIZE.fullmatch(value.strip())):
        return int(float(written.group(1)) * _UNITS[written.group(2).lower()])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{shown(value)} is not a size; write it as 25 MiB or 10 MB, or in bytes")


def whole(value: object, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a whole number; allowed are {low} to {high}")
    if not low <= value <= high:
        raise ValueError(f"{value} is out of range; allowed are {low} to {high}")
    return value


def said(value: str, reader: Callable[[str], float]) -> float:
    """What a reader of texts gives; its error names the text."""
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{shown(value)}: {error}") from error


def shown(value: object) -> str:
    """A value as it is shown in an error."""
    return clean(str(value).lower() if isinstance(value, bool) else repr(value), 80)
