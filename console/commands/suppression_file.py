"""The suppression list as a file: CSV (RFC 4180), a line an address, with a header that names what stands in it.

What we write is read again whole. What mail providers export is read as well, by the names that they give their
columns, and so is a list of addresses alone.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import NamedTuple

from console.format import safe
from engine.base.address import AddressError, parse_path
from engine.model.suppression import LATEST, Entry, Suppressed

COLUMNS = ("address", "since", "until", "by", "reply", "note")
MOST_WRONG = 20  # lines that are told; of more it is said that there are

# What else a column may be called, without regard to case, spaces and hyphens.
_CALLED: Mapping[str, str] = {
    **{name: name for name in COLUMNS},
    **dict.fromkeys(("email", "emailaddress", "mail", "recipient", "recipientaddress"), "address"),
    **dict.fromkeys(("created", "createdat", "time", "timestamp", "date", "bouncedat", "lastupdatetime"), "since"),
    **dict.fromkeys(("expires", "expiresat"), "until"),
    **dict.fromkeys(("reason", "error", "response", "diagnostic", "diagnosticcode", "description"), "reply"),
    **dict.fromkeys(("comment", "notes"), "note"),
}


class WrongLines(Exception):
    """The file cannot be read as a list; `problems` say where, and what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(problems[0])
        self.problems = tuple(problems)


class Read(NamedTuple):
    """One address of a file; None: its time is over."""

    line: int
    entry: Entry | None


class Reading:
    """Reads a list line by line, however long it is. `left_out` are columns of which nothing is known here."""

    def __init__(self, lines: Iterable[str], now: float) -> None:
        self.left_out: tuple[str, ...] = ()
        self._lines = lines
        self._now = now

    def entries(self) -> Iterator[Read]:
        """The addresses. Raises WrongLines, at the end or once there are too many."""
        problems: list[str] = []
        try:
            for line, cells in self._rows():
                try:
                    yield self._entry(line, cells)
                except ValueError as error:
                    problems.append(f"line {line}: {error}")
                    if len(problems) == MOST_WRONG:
                        problems.append("and maybe more")
                        break
        except csv.Error as error:  # what follows cannot be told apart any more
            problems.append(str(error))
        if problems:
            raise WrongLines(problems)

    def _rows(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        """What stands in the file, by the names that the list has for it, and at which line. Raises csv.Error."""
        lines = enumerate(self._lines, 1)
        number, line = next(((number, line) for number, line in lines if line.strip()), (0, ""))
        names = self._names(line)
        if not names:
            yield from ((number, _bare(line)) for number, line in chain([(number, line)], lines) if line.strip())
            return
        rows = csv.reader((line for _, line in lines), strict=True)
        while True:
            begins = number + rows.line_num + 1
            try:
                row = next(rows, None)
            except csv.Error as error:
                raise csv.Error(f"line {begins}: no CSV: {error}") from error
            if row is None:
                return
            if any(cell.strip() for cell in row):
                yield begins, {name: cell.strip() for name, cell in zip(names, row, strict=False) if name}

    def _names(self, line: str) -> list[str]:
        """What the columns are, where a line is a header; else nothing."""
        try:
            cells = next(csv.reader([line.lstrip("\ufeff")], strict=True), [])
        except csv.Error:
            return []
        called = [_CALLED.get("".join(char for char in cell.casefold() if char.isalnum()), "") for cell in cells]
        if "address" not in called:
            return []
        self.left_out = tuple(
            safe(cell.strip()) for cell, name in zip(cells, called, strict=True) if not name and cell.strip()
        )
        # Of two columns for one thing the first counts.
        return [name if name and called.index(name) == place else "" for place, name in enumerate(called)]

    def _entry(self, line: int, cells: Mapping[str, str]) -> Read:
        """What a line asks for. Raises ValueError, of which an AddressError is one."""
        named = cells.get("address", "")
        try:
            address = str(parse_path(named))
        except AddressError as error:
            hint = "" if len(cells) > 1 or "," not in named else "; where more stands in a line, a first line names it"
            raise ValueError(f"{error}{hint}") from error
        since, until = (_time(cells.get(name, ""), name) for name in ("since", "until"))
        if until is not None and until <= self._now:
            return Read(line, None)
        return Read(
            line,
            Entry(
                address=address,
                since=None if since is None else min(since, self._now),
                until=until,
                by=cells.get("by", ""),
                reply=cells.get("reply", ""),
                note=cells.get("note", ""),
            ),
        )


def _bare(line: str) -> Mapping[str, str]:
    """A line that has an address alone."""
    return {"address": line.lstrip("\ufeff").strip()}


def written(rows: Iterable[Suppressed]) -> Iterator[str]:
    """The lines of a file, but for its header."""
    return map(_line, rows)


def header() -> str:
    """Its first line."""
    return _csv(COLUMNS)


def _line(row: Suppressed) -> str:
    return _csv((row.address, _written(row.since), _written(row.until), row.by, row.reply, row.note))


def _csv(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _written(at: float | None) -> str:
    if at is None:
        return ""
    return datetime.fromtimestamp(min(max(at, 0.0), LATEST), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str, name: str) -> float | None:
    """Seconds since 1970, of a time as ISO 8601, RFC 5322 or such seconds write it. Raises ValueError."""
    if not text:
        return None
    try:
        if text.replace(".", "", 1).isdecimal() and text.isascii():
            at = float(text)
        else:
            try:
                found = datetime.fromisoformat(text)
            except ValueError:
                found = parsedate_to_datetime(text)
            at = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
        if not 0 <= at <= LATEST:
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        allowed = "write it as 2026-11-02T09:15:00Z"
        raise ValueError(f"{name}: {safe(text[:40])!r} is no time; {allowed}") from error
    return at
