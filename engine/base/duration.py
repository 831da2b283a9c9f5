"""Durations as people write them: `30s`, `5m`, `1h30m`, `5d`."""

import math
import re

_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST = 3_650 * _UNITS["d"]
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|[dhms])\s*", re.ASCII)
_ALLOWED = "write it as 30s, 5m, 1h30m or 5d"


def parse_duration(text: str) -> float:
    """Give seconds for `text`: numbers, each with its unit d, h, m, s or ms, the larger unit first.

    At most ten years. Raises ValueError, whose text says what is wrong and what is allowed.
    """
    written = text.strip()
    seconds, position, previous = 0.0, 0, math.inf
    while position < len(written):
        part = _PART.match(written, position)
        if part is None:
            raise ValueError(f"not a duration; {_ALLOWED}")
        unit = _UNITS[part.group(2)]
        if unit >= previous:
            raise ValueError(f"its units are out of order; {_ALLOWED}")
        seconds, position, previous = seconds + float(part.group(1)) * unit, part.end(), unit
    if not written:
        raise ValueError(f"empty, not a duration; {_ALLOWED}")
    if seconds > _LONGEST:
        raise ValueError("longer than ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """Give a duration in at most two units, as exact as they allow: `5d`, `1h30m`, `42s`, `250ms`; never negative.

    What it gives, `parse_duration` reads.
    """
    milliseconds = round(max(0.0, seconds) * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    if milliseconds < 60_000 and milliseconds % 1000:
        whole, rest = divmod(milliseconds, 1000)
        return f"{whole}s{rest}ms"
    left = round(milliseconds / 1000)
    parts: list[str] = []
    for unit in "dhms":
        size = int(_UNITS[unit])
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return "".join(parts)
