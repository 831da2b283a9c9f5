"""The commands that show: status, queue, show, relayers, hosts, reasons, destinations, events."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import Annotated, Protocol, TypeVar

import typer

from console import words
from console.commands import listings
from console.commands.columns import Column, aligned, line_width
from console.commands.door import Door, Status, complain, door_of, refuse, say, say_json
from console.format import Moment
from engine.base.words import stand_in, words_of
from engine.control import views
from engine.control.client import Client
from engine.model.destination import RELAY, BadHost, Suspension
from engine.model.event import Event
from engine.model.message import Entry, Window

R = TypeVar("R", covariant=True)

_WORDS = "Only those with all these words in kind, address, name, text or reply; !word leaves out."
_HOST_WORDS = "Only those with all these words in name, maker, note or last reply; !word leaves out."
PAGE = 1000  # the most the engine gives at a time

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0 for all.")]
AtNode = Annotated[str, typer.Option("--node", metavar="NODE", help="Of this node, where several share the queue.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="FILTER", help="Which messages; see below.")]

_ID = re.compile(r"(\d{1,18})(\.\d{1,9})?", re.ASCII)

FILTERS = (
    "A filter is a list of terms that must all hold: domain=example.org, to=bob@example.org, from=ann@example.net, "
    "id=48213 or id=48213.2, state=waiting|relaying|held|due, reply~text, subject~text, age>2h, tries>3, size>1MiB, "
    'group="..." for a reason as `reasons` lists it, or a word; ! before a term inverts it.'
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(status)
    app.command(epilog=FILTERS)(queue)
    for command in (show, destinations, relayers, nodes, hosts, reasons, events):
        app.command()(command)


def status(context: typer.Context, json: Json = False) -> None:
    """Say how the relay is."""

    async def look(client: Client) -> tuple[views.HealthView, tuple[Suspension, ...]]:
        return await client.health(), await client.suspensions()

    if json:
        say_json(door_of(context).ask(lambda client: client.health()))
        return
    health, suspensions = door_of(context).ask(look)
    moment = listings.here_and_now()
    for line in listings.health_lines(health, moment):
        say(line)
    for suspension in suspensions:
        if suspension.destination != RELAY:
            say(f"  {suspension.destination} {''.join(words.suspension(suspension, moment))}")


def queue(
    context: typer.Context,
    words: Words = None,
    sort: Annotated[str, typer.Option(help="A field to sort by, - before it turns the order.")] = "id",
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many at the beginning.")] = 0,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List the queue, or what a filter names of it."""
    text = " ".join(words or ())
    width = line_width()
    wide = width is None or width >= listings.WIDE
    columns = listings.QUEUE_WIDE if wide else listings.QUEUE

    async def page(client: Client, offset: int, limit: int) -> Window:
        return await client.queue(text, sort=sort, offset=offset, limit=limit)

    def cells(row: Entry, moment: Moment) -> list[str]:
        return listings.queue_row(row, moment, wide)

    shown, total = _list(door_of(context), page, columns, cells, offset=offset, limit=limit, json=json)
    _end(shown, total, "recipient in the queue", filtered=bool(text))


def destinations(
    context: typer.Context,
    match: Annotated[str, typer.Argument(metavar="[NAME]", help="Only those with this in their name.")] = "",
    sort: Annotated[
        str, typer.Option(help="name, waiting, due, held or oldest; - before it turns the order.")
    ] = "-waiting",
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List the destinations and how they fare."""

    async def page(client: Client, offset: int, limit: int) -> views.DestinationsView:
        return await client.destinations(match, sort=sort, offset=offset, limit=limit)

    shown, total = _list(
        door_of(context), page, listings.DESTINATIONS, listings.destination_row, offset=0, limit=limit, json=json
    )
    _end(shown, total, "destination", filtered=bool(match))


def show(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="A message (48213) or one of its recipients (48213.2).")],
    json: Json = False,
) -> None:
    """Show one message and what happened to it.

    Its envelope, recipients, attempts with full replies, events and headers.
    """
    written = _ID.fullmatch(id)
    if written is None:
        raise typer.BadParameter(f"{id!r} is not the number of a message, such as 48213 or 48213.2", param_hint="ID")
    number = int(written[1])
    message = door_of(context).ask(lambda client: client.message(number))
    if json:
        say_json(message)
        return
    for line in listings.message_lines(message, listings.here_and_now()):
        say(line)


def relayers(
    context: typer.Context,
    id: Annotated[
        int | None, typer.Argument(metavar="[ID]", min=1, help="Show what this one and its peer said.")
    ] = None,
    ended: Annotated[int, typer.Option(min=0, max=PAGE, help="And so many of those that ended last.")] = 0,
    node: AtNode = "",
    json: Json = False,
) -> None:
    """List the connections, or show what one said.

    Where several nodes share the queue, those of all of them; one is named by its node and its number.
    """
    door, moment = door_of(context), listings.here_and_now()
    if id is not None:
        number = id
        found = door.ask(lambda client: client.transcript(number, node))
        if json:
            say_json(found)
            return
        for line in listings.transcript_lines(found, moment):
            say(line)
        return
    rows, silent = door.ask(lambda client: _of_all_nodes(client, ended))
    rows = tuple(row for row in rows if node in ("", row.node))
    if any(row.node for row in rows):
        cells = [[*listings.relayer_row(row, moment), row.node] for row in rows]
        _table(rows, listings.RELAYERS_OF_NODES, cells, json=json)
    else:
        _table(rows, listings.RELAYERS, [listings.relayer_row(row, moment) for row in rows], json=json)
    _end(len(rows), len(rows), "open connection", filtered=False)
    for name in silent:
        complain(f"node {name} does not answer: its connections are not listed")


async def _of_all_nodes(client: Client, ended: int) -> tuple[tuple[views.RelayerView, ...], list[str]]:
    """The connections, and which nodes did not answer."""
    rows = await client.relayers(ended)
    return rows, [state.name for state in await client.nodes() if state.is_silent]


def nodes(context: typer.Context, json: Json = False) -> None:
    """List the engines that share the queue.

    How each of them is, with its load, since when, and when it was heard of last; * is the one that was asked.
    """
    rows, moment = door_of(context).ask(lambda client: client.nodes()), listings.here_and_now()
    _table(rows, listings.NODES, [listings.node_row(row, moment) for row in rows], json=json)
    _end(len(rows), len(rows), "node: the queue is this engine's alone", filtered=False)


def hosts(
    context: typer.Context,
    match: Annotated[str, typer.Argument(metavar="[WORDS]", help=_HOST_WORDS)] = "",
    sort: Annotated[str, typer.Option(help="back, host or waiting; - before it turns the order.")] = "back",
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List the MX hosts marked bad.

    Until when, by whom and why, and how much waits for them.
    """
    width = line_width()
    wide = width is None or width >= listings.WIDE
    columns = listings.HOSTS_WIDE if wide else listings.HOSTS

    async def page(client: Client, offset: int, limit: int) -> views.HostsView:
        return await client.hosts(match, sort=sort, offset=offset, limit=limit)

    def cells(row: BadHost, moment: Moment) -> list[str]:
        return listings.host_row(row, moment, wide)

    shown, total = _list(door_of(context), page, columns, cells, offset=0, limit=limit, json=json)
    _end(shown, total, "host marked bad", filtered=bool(match))


def reasons(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", min=1, max=PAGE, help="At most so many, those with most mail.")] = 50,
    json: Json = False,
) -> None:
    """List why mail waits, in groups.

    By what was said last, or by why it was never tried; what is being sent is in none.
    What stands under REASON names its messages to every command that takes a filter:
    smarthost retry 'group="450 4.2.1 <address>: mailbox busy"'
    """
    rows = door_of(context).ask(lambda client: client.reasons(limit))
    width, moment = line_width(), listings.here_and_now()
    wide = width is None or width >= listings.WIDE
    columns = listings.REASONS_WIDE if wide else listings.REASONS
    _table(rows, columns, [listings.reason_row(row, moment, wide) for row in rows], json=json)
    _end(len(rows), len(rows), "reason: no mail waits", filtered=False)


def events(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.")] = False,
    message: Annotated[int | None, typer.Option(min=1, help="Only those of this message.")] = None,
    match: Annotated[str, typer.Option(metavar="WORDS", help=_WORDS)] = "",
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="At most so many, the newest.")] = 50,
    json: Json = False,
) -> None:
    """List what happened last, and who did it."""

    def write(event: Event) -> None:
        if json:
            say_json(event)
        else:
            say(listings.event_line(event, listings.here_and_now()))

    async def look(client: Client) -> int:
        newest = await _newest(client)
        found = await client.events(before=newest + 1, message=message, match=match, limit=limit)
        for event in found:
            write(event)
        if follow:
            async for event in _followed(client, newest):
                if _concerns(event, message, match):
                    write(event)
        return len(found)

    try:
        shown = door_of(context).ask(look)
    except KeyboardInterrupt as error:
        raise typer.Exit(Status.DONE if follow else 130) from error
    if follow:
        refuse("the engine has ended", Status.NO_ENGINE)
    _end(shown, shown, "event", filtered=bool(match or message))


# -- helpers --------------------------------------------------------------------------------------------------------


class _Page(Protocol[R]):
    """A window of a listing."""

    @property
    def total(self) -> int: ...
    @property
    def rows(self) -> tuple[R, ...]: ...


async def _newest(client: Client) -> int:
    found = await client.events(limit=1)
    return found[-1].seq if found else 0


async def _followed(client: Client, last: int) -> AsyncIterator[Event]:
    """Every event after `last`, once and in order, also those that the stream was too late for or had to leave out."""
    async with aclosing(client.follow()) as stream:
        async for event in stream:
            while last < event.seq - 1:
                later = await client.events(after=last, limit=PAGE)
                missed = [other for other in later if last < other.seq < event.seq]
                if not missed:
                    break
                for other in missed:
                    yield other
                last = missed[-1].seq
            if event.seq > last:
                last = event.seq
                yield event


def _concerns(event: Event, message: int | None, match: str) -> bool:
    if message is not None and event.message != message:
        return False
    said = f"{event.outcome.line} {event.outcome.host}" if event.outcome is not None else ""
    texts = (event.kind, event.recipient, event.sender, event.destination, event.host, event.by, event.text, said)
    return stand_in(words_of(match), " ".join(texts))


def _list(
    door: Door,
    page: Callable[[Client, int, int], Awaitable[_Page[R]]],
    columns: Sequence[Column],
    cells: Callable[[R, Moment], list[str]],
    *,
    offset: int,
    limit: int,
    json: bool,
) -> tuple[int, int]:
    """Write a listing page by page; give how many rows were shown and how many there are."""
    shown = 0
    while True:
        size = min(PAGE, limit - shown) if limit else PAGE
        found = door.ask(partial(_turn, page, offset + shown, size))
        moment = listings.here_and_now()
        _table(found.rows, columns, [cells(row, moment) for row in found.rows], json=json, titles=not shown)
        shown += len(found.rows)
        if not found.rows or shown == limit or offset + shown >= found.total:
            return shown, found.total


async def _turn(
    page: Callable[[Client, int, int], Awaitable[_Page[R]]], offset: int, size: int, client: Client
) -> _Page[R]:
    return await page(client, offset, size)


def _table(
    rows: Sequence[object],
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    *,
    json: bool,
    titles: bool = True,
) -> None:
    if json:
        for row in rows:
            say_json(row)
    elif rows:
        for line in islice(aligned(columns, cells, line_width()), 0 if titles else 1, None):
            say(line)


def _end(shown: int, total: int, what: str, *, filtered: bool) -> None:
    """Say, beside the listing, that there is nothing or that there is more."""
    if not total and filtered:
        refuse(f"nothing matches: no {what}")
    if not total:
        complain(f"no {what}")
    elif shown < total:
        complain(f"{shown:,} of {total:,} shown; --limit 0 shows all")
