"""The arguments of MAIL and RCPT: a path, and parameters after it."""

import re

from msgspec import Struct

# In brackets up to the closing one, or a word. No character fits in two places, so that reading takes one pass whatever
# a stranger sends; possessive repeats would say so, but Python before 3.11.5 gets those of alternatives wrong.
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_PATH = re.compile(rf'<[^">]*(?:{_QUOTED}[^">]*)*|[^" ]*(?:{_QUOTED}[^" ]*)*', re.DOTALL)
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*", re.ASCII)
_VALUE = re.compile(r"[!-<>-~\u00a1-\U0010ffff]+")  # RFC 6531 3.3 adds what is not ASCII


class SyntaxProblem(ValueError):
    """The argument is not what RFC 5321 4.1.2 allows; the text says why."""


class Argument(Struct, frozen=True):
    """A path as it was written, in its angle brackets if it had them, and the parameters by keyword in capitals."""

    path: str
    parameters: dict[str, str | None]


def read_argument(text: str | None, keyword: str) -> Argument:
    """Read `FROM:<path> KEY=value ...`. A blank after the colon is forgiven, as everywhere. Raises SyntaxProblem."""
    if text is None or text[: len(keyword)].upper() != keyword:
        raise SyntaxProblem(f"{keyword}<address> is missing")
    rest = text[len(keyword) :].lstrip(" ")
    if not rest:
        raise SyntaxProblem("the address is missing")
    end = _path_end(rest)
    path, tail = rest[:end], rest[end:]
    if tail and not tail.startswith(" "):
        raise SyntaxProblem("a blank must follow the address")
    parameters: dict[str, str | None] = {}
    for word in tail.split():
        key, equals, value = word.partition("=")
        name = key.upper()
        if not _KEYWORD.fullmatch(key) or (equals and not _VALUE.fullmatch(value)):
            raise SyntaxProblem("a parameter is written KEYWORD or KEYWORD=value")
        if name in parameters:
            raise SyntaxProblem("a parameter stands twice")
        parameters[name] = value if equals else None
    return Argument(path, parameters)


def _path_end(text: str) -> int:
    """Where the path ends: after its closing bracket, or at the first blank that is not in quotes."""
    end = _PATH.match(text)
    assert end is not None  # it matches the empty text too
    if text.startswith('"', end.end()):
        raise SyntaxProblem("a quoted string has no end")
    return end.end() + text.startswith(">", end.end())
