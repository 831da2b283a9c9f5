"""Plain aligned columns: as wide as needed in a pipe, no wider than the terminal on one."""

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_GAP = "  "


@dataclass(frozen=True)
class Column:
    """A column: its title; `right`: figures, aligned at the right; `least`: it may be cut down to this (0: never)."""

    title: str
    right: bool = False
    least: int = 0


def line_width() -> int | None:
    """How wide a line may be; None in a pipe or file, where nothing is cut unless $COLUMNS says so."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The lines of a table, its titles first."""
    table = [[column.title for column in columns], *rows]
    widths = [max(_cells(row[place]) for row in table) for place in range(len(columns))]
    if width is not None:
        _narrow(columns, widths, width)
    for row in table:
        cells = (_padded(text, size, column.right) for text, size, column in zip(row, widths, columns, strict=True))
        yield _GAP.join(cells).rstrip()


def cut(text: str, width: int) -> str:
    """Text that takes no more than `width` cells; an ellipsis says that it went on."""
    if _cells(text) <= width:
        return text
    while text and _cells(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _narrow(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Take from the widest column that may be cut, until all fit or none can give more."""
    room = width - len(_GAP) * (len(columns) - 1)
    while sum(widths) > room:
        giving = [place for place, column in enumerate(columns) if column.least and widths[place] > column.least]
        if not giving:
            return
        widths[max(giving, key=lambda place: widths[place])] -= 1


def _padded(text: str, size: int, right: bool) -> str:
    text = cut(text, size)
    blank = " " * (size - _cells(text))
    return blank + text if right else text + blank


def _cells(text: str) -> int:
    """How many places of a terminal's line a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)
