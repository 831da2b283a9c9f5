"""A command as a line: its verb and its argument; and what MAIL and RCPT have there, a path and parameters after it."""

import re
from typing import NamedTuple

from msgspec import Struct

from engine.intake.errors import Refused
from engine.intake.reply import Reply

MAX_COMMAND = 2048  # octets; RFC 5321 4.5.3.1.4 asks for 512
TOO_LONG = Reply(500, "", "Command line too long")

# In brackets up to the closing one, or a word. No character fits in two places, so that reading takes one pass whatever
# a stranger sends; possessive repeats would say so, but Python before 3.11.5 gets those of alternatives wrong.
_QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_PATH = re.compile(rf'<[^">]*(?:{_QUOTED}[^">]*)*|[^" ]*(?:{_QUOTED}[^" ]*)*', re.DOTALL)
_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*", re.ASCII)
_VALUE = re.compile(r"[!-<>-~\u00a1-\U0010ffff]+")  # RFC 6531 3.3 adds what is not ASCII


_HTTP = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PRI", "PUT", "TRACE"})
_FIELD = re.compile(r"[!-9;-~]+:")  # as `Host:`; RFC 5322 2.2


class Command(NamedTuple):
    """The first word of a line, in capitals, and what follows it: None where nothing does."""

    verb: str
    argument: str | None

    @property
    def is_strange(self) -> bool:
        """Whether the verb belongs to HTTP or begins a header field.

        No command of SMTP is called so (RFC 5321 4.1.1). Postfix sends these away as well (smtpd_forbidden_commands).
        """
        return self.verb in _HTTP or _FIELD.match(self.verb) is not None


class SyntaxProblem(ValueError):
    """The argument is not what RFC 5321 4.1.2 allows; the text says why."""


class Argument(Struct, frozen=True):
    """A path as it was written, in its angle brackets if it had them, and the parameters by keyword in capitals."""

    path: str
    parameters: dict[str, str | None]


def read_command(line: bytes) -> Command:
    """Read a line. What is not UTF-8 in the argument is kept as surrogates. Raises Refused."""
    line = line.rstrip(b"\r\n")
    verb, _, argument = line.partition(b" ")
    if not line or not verb.isascii():
        raise Refused(Reply(500, "", "Error: bad syntax"))
    if len(line) > MAX_COMMAND:
        raise Refused(TOO_LONG)
    text = argument.strip().decode("utf-8", "surrogateescape") if argument else None
    return Command(verb.upper().decode("ascii"), text)


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
