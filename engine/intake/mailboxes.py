"""The mailboxes in an address list of a header field (RFC 5322 3.4).

The library's reader of such lists recurses with every comment and group, and takes minutes for a list of a mebibyte.
"""

import re
from collections.abc import Iterator

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


def mailboxes(text: str) -> Iterator[str]:
    """Give each mailbox of an unfolded list as it is written, without its angle brackets; "" for `<>`.

    Names, comments and groups are seen through. What stands where a mailbox should is given as it is: whether it is
    one, `parse_path` decides. The list is read in one pass, without recursion. Raises ListProblem.
    """
    words: list[str] = []
    angle: str | None = None
    grouped = False
    position = 0
    while token := _TOKEN.match(text, position):
        position, kind, part = token.end(), token.lastgroup, token.group()
        if part in _ALONE:
            raise ListProblem(_ALONE[part])
        if part in {",", ";"}:
            if part == ";" and not grouped:
                raise ListProblem("a semicolon ends no group")
            yield from _written(words, angle)
            words, angle, grouped = [], None, grouped and part == ","
        elif kind == "blank":
            words.append(" ")
        elif part == "(":
            position = _comment_end(text, position)
            words.append(" ")
        elif angle is not None:
            raise ListProblem("a comma is missing between two mailboxes")
        elif part == ":":
            if grouped:
                raise ListProblem("a group inside a group")
            words, grouped = [], True
        elif kind == "angle":
            angle = part[1:-1].strip()
        else:
            words.append(part)
    yield from _written(words, angle)


def _comment_end(text: str, position: int) -> int:
    """Where the comment ends whose bracket stands before `position`, with all comments in it."""
    depth = 1
    for found in _IN_COMMENT.finditer(text, position):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)
        if not depth:
            return found.end()
    raise ListProblem("a comment has no end")


def _written(words: list[str], angle: str | None) -> Iterator[str]:
    """Give the mailbox in angle brackets, or else what stands there without the blanks around its dots and its @."""
    if angle is not None:
        yield angle
        return
    kept: list[str] = []
    for word in words:
        if word == " ":
            if kept and kept[-1] not in {" ", ".", "@"}:
                kept.append(word)
            continue
        if word in {".", "@"} and kept and kept[-1] == " ":
            kept.pop()
        kept.append(word)
    if written := "".join(kept).strip():
        yield written
