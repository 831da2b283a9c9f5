"""All settings as a page: each table with what it is for, each key with its default and what it may be.

It is made from the structure that the engine itself is set by, and from the readers that judge what is written.
"""

import inspect
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo

from engine.base.duration import format_duration
from engine.settings import values
from engine.settings.file import READERS
from engine.settings.settings import Settings

_HEAD = """# Settings

Every key, its default, and what it may be. `smarthost config check` says what is wrong in a file, key by key, with what
is allowed; an unknown key is refused. This page is what `smarthost config reference` prints: it is made from the
structure that the engine is set by.
"""

_DURATIONS = (
    values.duration,
    values.duration_or_none,
    values.duration_or_never,
    values.gathering,
    values.suppressed_for,
)
_SIZES = (values.size, values.space, values.returned)
_UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def reference() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *_table(Settings, "", "")])


def _table(table: type[Struct], name: str, heading: str) -> Iterator[str]:
    """A table and those inside it."""
    fields = msgspec.structs.fields(table)
    inner = {field.name: found for field in fields if (found := _inner(field.type)) is not None}
    if heading:
        yield f"## {heading}\n"
    yield _prose(table) + "\n"
    if keys := [field for field in fields if field.name not in inner]:
        yield "| key | default | what it may be |"
        yield "|---|---|---|"
        for field in keys:
            reader = READERS[table][field.name]
            yield f"| `{field.name}` | {_default(field, reader)} | {_cell(_allowed(reader))} |"
        yield ""
    for key, (below, is_list) in inner.items():
        dotted = f"{name}.{key}" if name else key
        yield from _table(below, dotted, f"`[[{dotted}]]`" if is_list else f"`[{dotted}]`")


def _inner(kind: Any) -> tuple[type[Struct], bool] | None:
    """The structure of a key that is a table, and whether there may be several; None for any other key."""
    is_list = get_origin(kind) is tuple
    kinds = get_args(kind) if is_list or isinstance(kind, UnionType) else (kind,)
    found = next((each for each in kinds if isinstance(each, type) and issubclass(each, Struct)), None)
    return (found, is_list) if found is not None and found in READERS else None


def _prose(table: type[Struct]) -> str:
    """What its docstring says, but for the name of the table, which stands above it; as paragraphs."""
    text = inspect.cleandoc(table.__doc__ or "")
    first, _, rest = text.partition("\n\n")
    if table is Settings:  # its first words are said above
        return rest
    text = f"{first.partition(': ')[2]}\n\n{rest}".rstrip()
    return text[:1].upper() + text[1:]


def _default(field: FieldInfo, reader: values.Reader) -> str:
    if field.default_factory is not NODEFAULT:
        said = inspect.cleandoc(getattr(field.default_factory, "__doc__", "") or "")
        return _cell(said.partition(";")[0].partition(".")[0])
    if field.default is NODEFAULT:
        return "must be given"
    return "" if field.default is None else f"`{_written(field.default, reader)}`"


def _written(value: Any, reader: values.Reader) -> str:
    """A value as it is written in the file."""
    if isinstance(value, tuple):
        inner = getattr(reader, "of", reader)
        return f"[{', '.join(_written(each, inner) for each in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if reader in _DURATIONS:
        return f'"{format_duration(value)}"'
    if reader in _SIZES:
        unit, name = next(((unit, name) for unit, name in _UNITS if value >= unit and value % unit == 0), (1, "B"))
        return f'"{value // unit} {name}"' if value else "0"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value}"'


def _allowed(reader: values.Reader) -> str:
    return inspect.cleandoc(reader.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _cell(text: str) -> str:
    """A text that fits into a cell of a table."""
    return text.replace("|", "\\|").removesuffix(".")
