"""The commands that look after the suppression list: suppress list, add, remove, export and import."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from console.commands import listings
from console.commands.columns import Column, aligned, line_width
from console.commands.door import Status, complain, door_of, refuse, say, say_json
from console.commands.lists import PAGE, Json, Limit
from console.commands.suppression_file import Read, Reading, WrongLines, header, written
from console.format import BadDuration, Moment, parse_duration, safe
from engine.base.plural import plural
from engine.control.client import Client, Refused
from engine.model.suppression import Entry, Suppress, Suppressed, Suppressions

AT_ONCE = 100  # addresses in one request
OCTETS_AT_ONCE = 48 * 1024  # of them; a request has 64 KiB at the most
LONGEST = 366 * 86_400.0  # seconds that can be given with --for; without it there is no end

_COLUMNS = (
    Column("ADDRESS", least=20),
    Column("ENDS IN", right=True),
    Column("SINCE"),
    Column("BY"),
    Column("REPLY OR NOTE", least=12),
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="bob@example.org, in capitals or not.")]
Lasting = Annotated[
    str | None, typer.Option("--for", metavar="DURATION", help="How long, such as 30d; else until it is taken off.")
]
Note = Annotated[str, typer.Option("--note", help="What you note: kept and shown with it, and not told to senders.")]

app = typer.Typer(
    help="Look after the suppression list.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Imported(msgspec.Struct, frozen=True):
    """What came of an import; `over` are those whose time was over, and that were left out."""

    new: int
    changed: int
    over: int


@app.callback()
def _suppress() -> None:
    """Look after the suppression list: addresses to which no new mail is taken."""


@app.command("list")
def list_(
    context: typer.Context,
    match: Annotated[str, typer.Argument(metavar="[TEXT]", help="Only those with this in them: @example.org")] = "",
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List the addresses, until when, since when, by whom, and what was said when they failed."""
    shown, total = 0, 0
    for page in _pages(context, match, limit):
        moment, total = listings.here_and_now(), page.total
        if json:
            for row in page.rows:
                say_json(row)
        elif page.rows:
            cells = [_cells(row, moment) for row in page.rows]
            lines = list(aligned(_COLUMNS, cells, line_width()))
            for line in lines[1 if shown else 0 :]:
                say(line)
        shown += len(page.rows)
    if not shown:
        complain("no address on the list has this in it" if match else "no address is on the list")
    elif shown < total:
        complain(f"{shown:,} of {plural(total, 'address', 'addresses')}; --limit 0 shows all")


@app.command()
def add(context: typer.Context, address: Address, lasting: Lasting = None, note: Note = "", json: Json = False) -> None:
    """Enter an address: no new mail to it is taken. What the list had of it is replaced."""
    entry = Entry(address=address, until=_until(lasting), note=note)
    done = door_of(context).ask(lambda client: client.suppress(Suppress(entries=[entry])))
    say_json(done) if json else say(done.text)


@app.command()
def remove(context: typer.Context, address: Address, json: Json = False) -> None:
    """Take an address off the list: mail to it is taken again."""
    done = door_of(context).ask(lambda client: client.unsuppress(address))
    say_json(done) if json else say(done.text)


@app.command("export")
def export(context: typer.Context) -> None:
    """Write the whole list as CSV to standard output, as `import` reads it. Times are in UTC; without an end: none."""
    say(header())
    for page in _pages(context, "", 0):
        for line in written(page.rows):
            say(line)


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with a header, or an address a line.")],
    lasting: Lasting = None,
    note: Note = "",
    json: Json = False,
) -> None:
    """Enter the addresses of a file, in place of what the list had of them.

    What `export` wrote is read whole, and lists of mail providers by the names of their columns: address or email,
    reason, created and their like. Nothing is entered unless every line can be read. --for and --note are for those
    lines that have none.
    """
    now, until = time.time(), _until(lasting)
    if not file.is_file():
        refuse(f"{file}: no file, which is read twice", Status.USAGE)
    reading = Reading(_lines(file), now)
    over = sum(read.entry is None for read in _read(reading, file))
    if reading.left_out:
        complain(f"not read: {', '.join(reading.left_out)}")
    found = (read.entry for read in _read(Reading(_lines(file), now), file) if read.entry is not None)
    batches = _batches(_completed(entry, until, note) for entry in found)
    source, new, changed = file.name, 0, 0

    async def enter(client: Client) -> None:
        nonlocal new, changed
        for batch in batches:
            try:
                done = await client.suppress(Suppress(entries=batch, source=source))
            except Refused:
                if new or changed:
                    complain(f"{new + changed:,} addresses before that are entered; import it again once it is right")
                raise
            new, changed = new + done.new, changed + done.changed

    door_of(context).ask(enter)
    if json:
        say_json(Imported(new, changed, over))
        return
    left = f"; {plural(over, 'address', 'addresses')} whose time is over left out" if over else ""
    say(f"{plural(new + changed, 'address', 'addresses')} entered: {new:,} new, {changed:,} changed{left}")


def _pages(context: typer.Context, match: str, limit: int) -> Iterator[Suppressions]:
    """The list in parts, up to `limit` addresses in all; 0: to its end."""
    after, shown = "", 0
    while True:
        size = min(PAGE, limit - shown) if limit else PAGE
        page = _page(context, match, after, size)
        yield page
        shown += len(page.rows)
        if len(page.rows) < size or shown == limit:
            return
        after = page.rows[-1].address


def _page(context: typer.Context, match: str, after: str, size: int) -> Suppressions:
    return door_of(context).ask(lambda client: client.suppressed(match, after, size))


def _cells(row: Suppressed, moment: Moment) -> list[str]:
    ends = "-" if row.until is None else moment.left(row.until)
    return [row.address, ends, moment.short(row.since), row.by, "; ".join(filter(None, (row.reply, row.note)))]


def _until(lasting: str | None) -> float | None:
    if lasting is None:
        return None
    try:
        return time.time() + parse_duration(lasting, most=LONGEST)
    except BadDuration as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error


def _lines(file: Path) -> Iterator[str]:
    """The lines of a file; what is no UTF-8 in it is refused with its line."""
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            yield from lines
    except OSError as error:
        refuse(f"{safe(str(file))}: {error.strerror}", Status.USAGE)


def _read(reading: Reading, file: Path) -> Iterator[Read]:
    try:
        yield from reading.entries()
    except WrongLines as error:
        for problem in error.problems:
            complain(f"{file.name}: {problem}")
        refuse("nothing is entered")


def _completed(entry: Entry, until: float | None, note: str) -> Entry:
    changes: dict[str, Any] = {}
    if entry.until is None and until is not None:
        changes["until"] = until
    if not entry.note and note:
        changes["note"] = note
    return msgspec.structs.replace(entry, **changes) if changes else entry


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    octets = 0
    for entry in entries:
        size = len(msgspec.json.encode(entry)) + 1
        if batch and (len(batch) == AT_ONCE or octets + size > OCTETS_AT_ONCE):
            yield batch
            batch, octets = [], 0
        batch.append(entry)
        octets += size
    if batch:
        yield batch
