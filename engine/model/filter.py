"""The filter: the one way to name messages, the same in console, commands, API and operators' orders.

    domain=example.org !state=held reply~"over quota" age>2h bob

Terms stand apart by spaces and must all hold. How a store looks for them is the store's own affair.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal, Self, cast, get_args

from msgspec import Struct

from engine.base.address import AddressError, sought_domain
from engine.base.text import clean

Field = Literal["domain", "to", "from", "subject", "reply", "group", "text", "state", "id", "tries", "age", "size"]
Op = Literal["=", "~", "<", ">"]
EntryId = tuple[int, int]  # message, entry; entry 0 stands for all of the message

NULL_SENDER = "<>"  # as in from=<>
STATES = ("waiting", "relaying", "held", "due")

# The operators of a field, and what a term of it looks like.
_FIELDS: dict[Field, tuple[str, str]] = {
    "domain": ("=~", "domain=example.org, domain=*.example.org or domain~example"),
    "to": ("=~", "to=bob@example.org, to=*@example.org or to~bob"),
    "from": ("=~", "from=ann@example.net, from~example.net or from=<> for bounces"),
    "subject": ("=~", 'subject~invoice or subject="the whole subject"'),
    "reply": ("=~", 'reply~"4.7.28" or reply=421*, the last one'),
    "group": ("=", 'group="450 4.2.1 <address>: mailbox busy", a reason as it is listed, whole'),
    "text": ("~", "a word by itself, or several in double quotes"),
    "state": ("=", "state=" + " or ".join(STATES)),
    "id": ("=", "id=48213, id=48213.2 or id=48213,48214.1"),
    "tries": ("=<>", "tries=0, tries>3 or tries<10"),
    "age": ("<>", "age>2h, age<10m or age>1d12h (s, m, h, d, w)"),
    "size": ("<>", "size>1MiB or size<500KiB (B, KiB, MiB, GiB)"),
}
_ALIASES: dict[str, Field] = {"reason": "reply", "why": "group"}  # as they were called; known for one more version
_MAX_TEXT = 1_000_000  # characters; a list of marked ids may be long
_MAX_VALUE = 500
_MAX_TERMS = 50
_MAX_WILDCARDS = 8  # each multiplies what a match may cost

_HEAD = re.compile(r"(?P<marks>!*)(?:(?P<field>[A-Za-z][A-Za-z_-]*)(?P<op>[=~<>]))?")
# What looks like a term and is none: taken for a text it would match nothing, and inverted everything.
_ALMOST = re.compile(rf"!*({'|'.join((*_FIELDS, *_ALIASES))})(:|!=|!~|==|=~|~=|~~)", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ID = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?", re.ASCII)
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,3})?[smhdw])+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)([smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)(b|kib|mib|gib|kb|mb|gb|k|m|g)?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


class FilterError(ValueError):
    """A filter that cannot be read: `what` is wrong, `where` in it, and what is `allowed` there."""

    def __init__(self, what: str, where: str = "", allowed: str = "") -> None:
        self.what = what
        self.where = clean(where, 80)
        self.allowed = allowed
        message = f"{self.where}: {what}" if where else what
        super().__init__(f"{message}; write {allowed}" if allowed else message)


class Term(Struct, frozen=True, kw_only=True):
    """One condition. `value` is as written; `amount` is its number (tries, seconds, bytes), `ids` its entries.

    With `=` a `*` in the value of domain, to, from, subject and reply stands for any text; `~` looks for the value
    anywhere. Neither knows upper from lower case. A domain behind `=` is turned into what domains are kept as, A-labels
    without a final dot. `group` is exact: it names the entries of one reason.
    """

    field: Field
    op: Op
    value: str
    inverted: bool = False
    amount: float = 0.0
    ids: tuple[EntryId, ...] = ()

    def __str__(self) -> str:
        mark = "!" if self.inverted else ""
        if self.field == "text":
            return mark + _quoted(self.value, bare_word=True)
        return f"{mark}{self.field}{self.op}{_quoted(self.value)}"


class Filter(Struct, frozen=True, kw_only=True):
    """Terms that must all hold; none: everything. `str(filter)` parses to the same filter again."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def all(cls) -> Self:
        """Everything."""
        return cls()

    @classmethod
    def of_ids(cls, ids: Iterable[str | int]) -> Self:
        """These messages ("48213") and entries ("48213.2"). Raises FilterError when there are none."""
        listed = ",".join(str(number) for number in ids)
        if not listed:
            # Without a term it would select everything, which nobody who names ids can mean.
            raise FilterError("no ids are named", allowed=_FIELDS["id"][1])
        return cls(terms=(_term("id", "=", listed, inverted=False, where=f"id={listed}"),))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a filter. Raises FilterError for whatever is not one."""
        _check_characters(text)
        terms: list[Term] = []
        position = _skip_space(text, 0)
        while position < len(text):
            term, position = _read_term(text, position)
            terms.append(term)
            if len(terms) > _MAX_TERMS:
                raise FilterError(f"more than {_MAX_TERMS} terms", allowed="fewer of them")
            position = _skip_space(text, position)
        return cls(terms=tuple(terms))

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


def _check_characters(text: str) -> None:
    if len(text) > _MAX_TEXT:
        raise FilterError(f"longer than {_MAX_TEXT:,} characters", allowed="a shorter one")
    if text.isascii() and text.isprintable():
        return
    for position, char in enumerate(text):
        # A NUL ends the pattern of a store's LIKE early, and then it matches far more than what was written.
        if unicodedata.category(char) in ("Cc", "Cs") and not char.isspace():
            raise FilterError(
                f"a control character (U+{ord(char):04X})", text[max(0, position - 20) : position + 20], "text without"
            )


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _read_term(text: str, start: int) -> tuple[Term, int]:
    """Read the term that begins at `start`, and give it with the position behind it."""
    head = _HEAD.match(text, start)
    assert head is not None  # it matches the empty text too
    value, end = _read_value(text, start, head.end())
    where = text[start:end]
    if len(head["marks"]) > 1:
        raise FilterError("inverted more than once", where, 'one "!" before a term, or quotes around a text with "!"')
    inverted = bool(head["marks"])
    name = _field(head["field"] or "text")
    if name not in _FIELDS:
        raise FilterError(
            f'there is no field "{clean(name, 40)}"', where, ", ".join(_FIELDS) + "; or put a text in double quotes"
        )
    if almost := _ALMOST.match(text, start):
        raise FilterError(
            f'"{almost[1].lower()}" does not go with "{almost[2]}"', where,
            _FIELDS[_field(almost[1])][1] + "; ! before it inverts it; or put a text in double quotes",
        )  # fmt: skip
    op = cast(Op, head["op"] or "~")
    return _term(name, op, value, inverted=inverted, where=where), end


def _field(name: str) -> Field:
    return _ALIASES.get(name.lower(), cast(Field, name.lower()))


def _read_value(text: str, start: int, position: int) -> tuple[str, int]:
    if text.startswith('"', position):
        quoted = _QUOTED.match(text, position)
        if quoted is None:
            raise FilterError("the double quote is not closed", text[start:], 'a second " behind the value')
        if quoted.end() < len(text) and not text[quoted.end()].isspace():
            raise FilterError("text behind the closing quote", text[start : quoted.end() + 10], "a space between terms")
        return re.sub(r'\\(["\\])', r"\1", quoted[1]), quoted.end()
    end = position
    while end < len(text) and not text[end].isspace():
        end += 1
    if '"' in text[position:end]:
        raise FilterError("a double quote inside a value", text[start:end], 'quotes around all of it: "like this"')
    return text[position:end], end


def _term(field: Field, op: Op, value: str, *, inverted: bool, where: str) -> Term:
    ops, allowed = _FIELDS[field]
    if op not in ops:
        raise FilterError(f'"{field}" does not go with "{op}"', where, allowed)
    if not value:
        raise FilterError("a value is missing", where, allowed)
    if field == "id":
        ids = _ids(value, where, allowed)
        listed = ",".join(f"{message}.{entry}" if entry else str(message) for message, entry in ids)
        return Term(field=field, op=op, value=listed, inverted=inverted, ids=ids)
    if len(value) > _MAX_VALUE:
        raise FilterError(f"a value longer than {_MAX_VALUE} characters", where, allowed)
    if field in ("state", "tries", "age", "size"):
        value = value.lower()
    if op == "=" and field in ("domain", "to", "from"):
        local, at, domain = value.rpartition("@")
        try:
            value = local + at + (sought_domain(domain) if at or field == "domain" else domain)
        except AddressError as error:
            raise FilterError(str(error), where, allowed) from error
    if field == "state" and value not in STATES:
        raise FilterError("no such state", where, allowed)
    if op == "=" and field != "group" and value.count("*") > _MAX_WILDCARDS:
        raise FilterError(f'more than {_MAX_WILDCARDS} "*"', where, allowed)
    if len(value) > _MAX_VALUE:  # as it is kept, which is read again
        raise FilterError(f"a value longer than {_MAX_VALUE} characters in A-labels", where, allowed)
    return Term(field=field, op=op, value=value, inverted=inverted, amount=_amount(field, value, where, allowed))


def _ids(value: str, where: str, allowed: str) -> tuple[EntryId, ...]:
    ids = []
    for part in value.split(","):
        match = _ID.fullmatch(part)
        if match is None or int(match[1]) == 0 or int(match[2] or 1) == 0:
            raise FilterError("not the number of a message or entry", part or where, allowed)
        ids.append((int(match[1]), int(match[2] or 0)))
    return tuple(ids)


def _amount(field: Field, value: str, where: str, allowed: str) -> float:
    if field == "tries":
        if not _COUNT.fullmatch(value):
            raise FilterError("not a whole number", where, allowed)
        return int(value)
    if field == "age":
        if not _DURATION.fullmatch(value):
            raise FilterError("not a duration", where, allowed)
        return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if field == "size":
        match = _SIZE.fullmatch(value)
        if match is None:
            raise FilterError("not a size", where, allowed)
        return float(match[1]) * _BYTES[(match[2] or "b").replace("ib", "")]
    return 0.0


def _quoted(value: str, *, bare_word: bool = False) -> str:
    plain = value and '"' not in value and not any(char.isspace() for char in value)
    if plain and value[0] in "=~":  # behind the sign of a term it would read as another sign
        plain = False
    elif plain and bare_word:
        head = _HEAD.match(value)
        plain = head is not None and head.end() == 0
    if plain:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


assert set(get_args(Field)) == set(_FIELDS)
