"""Times, counts and sizes as a person reads them, and the last line of defence against text that steers a terminal."""

import re
import unicodedata
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo

# What no terminal may be sent: controls (C0, DEL, C1), bidi and other invisible controls, surrogates, private and
# unassigned code points, and line breaks that are not "\n".
_UNSHOWABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_DURATION = re.compile(r"(?:(\d{1,5})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,7})s)?")
STEP = 10  # seconds: what is not said to the second goes by so many
TICKS_WITHIN = 600  # seconds: what is farther away is not said to the second
_UNITS = (86_400, 3_600, 60, 1)


class BadDuration(ValueError):
    """What was typed is no duration, or one out of range; the text says what is allowed."""


def safe(text: str) -> str:
    """Give `text` as one line that steers no terminal; the engine cleans too, the console trusts nobody."""
    if text.isprintable():  # nothing of the categories C and Z but the space
        return text
    return "".join(map(_shown, text))


def _shown(char: str) -> str:
    if char in "\t\r\n":
        return " "
    if unicodedata.category(char) not in _UNSHOWABLE:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@dataclass(frozen=True)
class Moment:
    """Now, and the zone times are shown in: what is needed to say any time.

    `ticks`: what is said may change every second. Where it does not, what runs is said in steps: minutes, and ten
    seconds within the last one; a screen full of countdowns is then quiet to the eye and on the line.
    """

    now: float
    tz: tzinfo = UTC
    ticks: bool = True

    @property
    def coarse(self) -> "Moment":
        """The same moment, for what is not looked at closely."""
        return replace(self, ticks=False)

    def clock(self, at: float) -> str:
        """The time of day, and the date when it is another day: `14:02:11`, `Jan 14 09:30`."""
        then, today = self._at(at), self._at(self.now)
        return then.strftime("%H:%M:%S" if then.date() == today.date() else "%b %d %H:%M")

    def short(self, at: float) -> str:
        """Hours and minutes, and the date when it is another day: `14:02`, `Jan 14 09:30`."""
        then, today = self._at(at), self._at(self.now)
        return then.strftime("%H:%M" if then.date() == today.date() else "%b %d %H:%M")

    def both(self, at: float) -> str:
        """Absolute and relative, for where a time matters: `2027-01-15 14:02:11 UTC (41m ago)`."""
        stamp = self._at(at).strftime("%Y-%m-%d %H:%M:%S %Z").rstrip()
        ago = self.now - at
        return f"{stamp} ({age(ago)} ago)" if ago >= 0 else f"{stamp} (in {age(-ago)})"

    def near(self, at: float) -> str:
        """Time of day and relative: `14:02:11 (41m ago)`."""
        ago = self.now - at
        return f"{self.clock(at)} ({age(ago)} ago)" if ago >= 0 else f"{self.clock(at)} (in {age(-ago)})"

    def since(self, at: float) -> str:
        """How long ago that was, in two units: `2h14m`."""
        past = self.now - at
        return age(past) if self.ticks else stepped(past)

    def left(self, until: float) -> str:
        """A countdown: `2:41`, `12m`, `2h14m`, `2d03h`; `now` once it is over."""
        rest = until - self.now
        return countdown(rest) if self.ticks or rest <= 0 else within(rest)

    def lasting(self, since: float) -> str:
        """How long something that is short as a rule has lasted: `0.2s`, `41.0s`, `3:20`."""
        past = self.now - since
        return span(past) if self.ticks or past < STEP else stepped(past)

    def _at(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self.tz)


def age(seconds: float) -> str:
    """A span in at most two units: `41s`, `41m`, `2h14m`, `3d04h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02}h"


def span(seconds: float) -> str:
    """A span that is short as a rule, with tenths below a minute: `0.2s`, `41.0s`, `3:20`, `12m`."""
    return f"{max(0.0, seconds):.1f}s" if seconds < 60 else countdown(seconds)


def stepped(seconds: float) -> str:
    """A span that is said in steps: `7s`, `40s`, `4m`, `2h14m`; never more than it is."""
    return f"{int(seconds) // STEP * STEP}s" if STEP <= seconds < 60 else age(seconds)


def within(seconds: float) -> str:
    """What is left, in steps: `<10s`, `40s`, `4m`, `2h14m`; never more than it is."""
    whole = _whole(seconds)
    return stepped(whole) if whole >= STEP else f"<{STEP}s"


def countdown(seconds: float) -> str:
    """What is left, in seconds below ten minutes and in minutes above: `0:08`, `9:41`, `12m`, `2h14m`, `now`."""
    whole = _whole(seconds)
    if whole <= 0:
        return "now"
    return age(whole) if whole >= TICKS_WITHIN else f"{whole // 60}:{whole % 60:02}"


def _whole(seconds: float) -> int:
    """What is left in whole seconds: it is over when nothing is left."""
    return int(seconds + 0.999)


def duration(seconds: float) -> str:
    """A span as it is typed: `10m`, `1h30m`; `parse_duration` reads it back."""
    rest, said = int(seconds), ""
    for unit, letter in zip(_UNITS, "dhms", strict=True):
        if rest >= unit:
            said += f"{rest // unit}{letter}"
            rest %= unit
    return said or "0s"


def parse_duration(text: str, least: float = 60, most: float = 30 * 86_400) -> float:
    """Read `10m`, `1h30m`, `2d` into seconds. Raises BadDuration, also when out of `least` to `most`."""
    typed = text.strip().lower()
    match = _DURATION.fullmatch(typed)
    if not typed or match is None:
        raise BadDuration("how long? write it like 10m, 1h30m or 2d")
    seconds = float(sum(unit * int(part or 0) for unit, part in zip(_UNITS, match.groups(), strict=True)))
    if not least <= seconds <= most:
        raise BadDuration(f"allowed is from {duration(least)} to {duration(most)}")
    return seconds


def count(number: int) -> str:
    """A count rounded for reading: exact below 100,000, then `538k`, `1.24M`."""
    if number < 100_000:
        return f"{number:,}"
    if number < 999_500:
        return f"{number / 1_000:.0f}k"
    return f"{number / 1_000_000:.2f}M"


def rate(per_second: float) -> str:
    """Events a second: `0`, `0.4`, `41.0`, `398`."""
    if per_second < 0.05:
        return "0"
    return f"{per_second:.1f}" if per_second < 99.95 else f"{per_second:,.0f}"


def size(octets: int) -> str:
    """Bytes rounded for reading: `812 B`, `4.1 KiB`, `25.0 MiB`."""
    if octets < 1024:
        return f"{octets} B"
    value, units = octets / 1024, ("KiB", "MiB", "GiB", "TiB")
    for unit in units[:-1]:
        if value < 1023.95:
            return f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {units[-1]}"
