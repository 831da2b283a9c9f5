"""What a peer asks for in its own words: "try again in 300 seconds"."""

import re

_LOOKED_AT = 1000  # characters
_LONGEST = 86_400 * 365.0  # seconds; more is no delay anybody means

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNIT = r"(?:seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|[smhd])"
_AMOUNT = rf"(?:\d{{1,7}}\ ?(?:(?:-|to)\ ?\d{{1,7}}\ ?)?|an?\ |one\ ){_UNIT}\b"

# A word that speaks of another try, a few words that may stand between, and how long. Nothing else counts: "300
# messages in 60 seconds" is a limit, not a delay. A time of the clock is a delay after "in" and "for" alone.
_ASKED = re.compile(
    rf"""
    \b(?: again | retry(?:ing)? | wait | back | gr[ae]y-?\ ?list(?:ed|ing) | delayed | deferred | resend | reconnect )
    (?: [ :=,(-]{{1,3}}
        (?: in | for | after | at | least | about | another | a | further | the | next | time | until | delay | please )
        (?![a-z])
    ){{0,4}}
    [ :=,(-]{{1,3}}
    (?: (?P<amounts> {_AMOUNT} (?: (?:,?\ and\ |,\ |\ ) {_AMOUNT} ){{0,2}} )
      | (?<=\ in\ |for\ ) (?P<clock> \d{{1,3}}:\d\d:\d\d ) \b
    )
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_PART = re.compile(
    r"(?:(?P<least>\d{1,7})\ ?(?:-|to)\ ?)?(?P<number>\d{1,7}|\ban?\b|\bone\b)\ ?(?P<unit>[smhd])",
    re.IGNORECASE | re.ASCII,
)


def asked_delay(text: str) -> float | None:
    """Give how many seconds from now the words ask us to wait, or None where they name no delay.

    Of a range it is the longer end, of several delays the first that is named.
    """
    asked = _ASKED.search(text[:_LOOKED_AT])
    if asked is None:
        return None
    if asked["clock"]:
        hours, minutes, seconds = map(int, asked["clock"].split(":"))
        delay = 3600.0 * hours + 60.0 * minutes + seconds
    else:
        delay = sum(_seconds(part) for part in _PART.finditer(asked["amounts"]))
    return min(delay, _LONGEST)


def _seconds(part: re.Match[str]) -> float:
    number = part["number"]
    count = max(int(number), int(part["least"] or 0)) if number.isdigit() else 1
    return count * _SECONDS[part["unit"].lower()]
