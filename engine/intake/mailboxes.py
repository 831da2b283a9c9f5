"""The mailboxes in an address list of a header field (RFC 5322 3.4).

The library's reader of such lists recurses with every comment and group, and takes minutes for a list of a mebibyte.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")"""
    r"""|(?P<literal>\[[^\[\]\\]*\])"""
    r"""|(?P<angle><[^<>"]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^<>"]*)*>)"""
    r"""|(?P<blank>[ \t\r\n]+)"""
    r"""|(?P<word>[^]()<>[:;@\\,." \t\r\n]+)"""
    r"""|(?P<special>.)""",
    re.DOTALL,
)
_IN_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_ALONE = {
    '"': "a quoted string has no end",
    "[": "a square bracket has no end",
    "<": "an angle bracket has no end",
    "]": "a bracket has no beginning",
    ">": "a bracket has no beginning",
    ")": "a bracket has no beginning",
}


class ListProblem(ValueError):
    """This is no address list; the text says why."""


class Placed(NamedTuple):
    """A mailbox of a list, and where it stands there: from `start` up to `end`."""

    text: str
    start: int
    end: int


def mailboxes(text: str) -> Iterator[str]:
    """Give each mailbox of an unfolded list as it is written, without its angle brackets; "" for `<>`.

    Names, comments and groups are seen through. What stands where a mailbox should is given as it is: whether it is
    one, `parse_path` decides. The list is read in one pass, without recursion. Raises ListProblem.
    """
    return (placed.text for placed in placed_mailboxes(text))


def placed_mailboxes(text: str) -> Iterator[Placed]:
    """The same with their places; the list may be folded. Raises ListProblem."""
    words: list[Placed] = []
    angle: Placed | None = None
    grouped = False
    position = 0
    while token := _TOKEN.match(text, position):
        start, kind, part = position, token.lastgroup, token.group()
        position = token.end()
        if part in _ALONE:
            raise ListProblem(_ALONE[part])
        if part in {",", ";"}:
            if part == ";" and not grouped:
                raise ListProblem("a semicolon ends no group")
            yield from _written(words, angle)
            words, angle, grouped = [], None, grouped and part == ","
        elif kind == "blank":
            words.append(Placed(" ", start, position))
        elif part == "(":
            position = _comment_end(text, position)
            words.append(Placed(" ", start, position))
        elif angle is not None:
            raise ListProblem("a comma is missing between two mailboxes")
        elif part == ":":
            if grouped:
                raise ListProblem("a group inside a group")
            words, grouped = [], True
        elif kind == "angle":
            angle = Placed(part[1:-1].strip(), start + 1, position - 1)
        else:
            words.append(Placed(part, start, position))
    yield from _written(words, angle)


def _comment_end(text: str, position: int) -> int:
    """Where the comment ends whose bracket stands before `position`, with all comments in it."""
    depth = 1
    for found in _IN_COMMENT.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)
        if not depth:
            return found.end()
    raise ListProblem("a comment has no end")


def _written(words: list[Placed], angle: Placed | None) -> Iterator[Placed]:
    """Give the mailbox in angle brackets, or else what stands there without the blanks around its dots and its @."""
    if angle is not None:
        yield angle
        return
    kept: list[Placed] = []
    for word in words:
        if word.text == " ":
            if kept and kept[-1].text not in {" ", ".", "@"}:
                kept.append(word)
            continue
        if word.text in {".", "@"} and kept and kept[-1].text == " ":
            kept.pop()
        kept.append(word)
    if kept and kept[-1].text == " ":
        kept.pop()
    if kept:
        yield Placed("".join(word.text for word in kept), kept[0].start, kept[-1].end)
