"""The reason of an outcome: its words without what differs from message to message, so that they can be grouped.

451 4.7.1 <bob@example.org>: greylisted until 12:30:05, see https://example.org/g/4711
451 4.7.1 <address>: greylisted until <time>, see <url>
"""

import re
from functools import lru_cache

from msgspec import Struct

from engine.model.outcome import Outcome

LONGEST = 200  # characters of a reason
_LOOKED_AT = 1000  # characters of the words; an outcome keeps no more

# One pass, the first that fits at a place wins; every repetition is bounded, so that no words can make it slow. What
# has no name stays: an enhanced code, with the reply code before it, says what happened (RFC 3463 2).
_VARIABLE = re.compile(
    r"""
      (?P<url>    \b(?:https?|ftp)://[^\s<>"')\]]{1,1000} | \bwww\.[^\s<>"')\]]{1,1000} )
    | (?P<address> <[^<>\s]{1,320}> | [^\s<>@,;:()\[\]"'=]{1,64}@[\w.-]{1,255} )
    | (?P<time>   \b(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),[ ])?\d{1,2}[ ]
                    (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}[ ]\d{4}
                    (?:[ ]\d\d:\d\d(?::\d\d)?)?(?:[ ](?:[+-]\d{4}|GMT|UTC))?
                | \b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?(?:Z|[ ]?[+-]\d\d:?\d\d)?
                | (?<![\w:])\d{1,2}:\d\d(?::\d\d)?(?![\w:]) )
    | (?P<ip>     (?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)
                | (?<!\w)(?:IPv6:)?(?:[0-9A-Fa-f]{1,4}|:)(?::[0-9A-Fa-f]{0,4}){2,8}(?![\w:]) )
    |             (?<![\w.])(?:[245]\d\d[ -])?[245]\.\d{1,3}\.\d{1,3}(?![\w.]*\w)
    | (?P<host>   (?<![\w.])(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.){1,30}
                    (?:[A-Za-z]{2,63}|xn--[A-Za-z0-9-]{1,59})(?![\w-])\.? )
    | (?P<word>   \d{1,80}(?:[.,]\d{1,80}){1,10}(?!\w) | [^\W_]\w{0,80}(?:-\w{1,80}){0,10} )
    """,
    re.VERBOSE,
)
_AMOUNT = re.compile(r"^\d[\d.,-]{0,80}([A-Za-z]{0,3})$", re.ASCII)
_CODE = re.compile(r"([2-5]\d\d)(?: |$)", re.ASCII)
_SPACES = re.compile(r"\s+")


class Reason(Struct, frozen=True, kw_only=True):
    """Why many entries wait: their last attempt came to the same (see engine.model.reason), or none was made for one
    reason.

    Of mail that was never tried `group` is what its destination is blocked for, the same as if it had got that reply
    itself; or who has suspended or held it; or that nothing keeps it (see engine.queue.untried).
    Of `destinations` in all, `busiest` names three, the one with most entries first; `oldest` is when the first of
    the messages came, `example` a last outcome as it was.
    """

    group: str
    entries: int
    messages: int
    destinations: int
    busiest: tuple[str, ...]
    oldest: float
    example: Outcome | None = None


def reason_of(outcome: Outcome) -> str:
    """Give the reason of an outcome: at most LONGEST characters, the same for whatever failed alike.

    Reply code and enhanced code stay; numbers, ids, addresses, host names, times and URLs in the words are replaced.
    """
    reason = _reason(outcome.code, outcome.enhanced, outcome.text)
    return reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"


@lru_cache(maxsize=16_384)  # of what is blocked each may have words of its own
def reason_of_line(line: str) -> str:
    """The reason of an outcome that was written as one line, the same as `reason_of` gives for it."""
    code = _CODE.match(line)
    reason = _reason(int(code[1]), "", line[code.end() :]) if code else _reason(0, "", line)
    return reason if len(reason) <= LONGEST else reason[: LONGEST - 1] + "…"


@lru_cache(maxsize=512)  # a peer says the same to many
def _reason(code: int, enhanced: str, text: str) -> str:
    words = _SPACES.sub(" ", _VARIABLE.sub(_placeholder, text[:_LOOKED_AT])).strip()
    return " ".join(part for part in (str(code or ""), enhanced, words) if part)


def _placeholder(match: re.Match[str]) -> str:
    kind, found = match.lastgroup, match.group()
    if kind is None:
        return found
    if kind == "host":
        # The dot that ends a sentence is not the host's.
        return "<host>." if found.endswith(".") else "<host>"
    return _word(found) if kind == "word" else f"<{kind}>"


def _word(word: str) -> str:
    """A word is an id when it is long and has digits in it: one in ten characters, two in six. Else its numbers go."""
    digits = sum(char.isdigit() for char in word)
    if not digits:
        return word
    if any(char.isalpha() for char in word) and (len(word) >= 10 or (len(word) >= 6 and digits >= 2)):
        return "<id>"
    return _AMOUNT.sub(r"<n>\1", word)  # what is left is a name, such as UTF-8, S3150 or 8BITMIME
