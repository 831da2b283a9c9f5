"""The commands that find something out: explain, probe, overrides."""

from typing import Annotated

import typer

from console.commands import answers, listings
from console.commands.columns import aligned, line_width
from console.commands.door import Status, complain, door_of, say, say_json
from console.commands.lists import PAGE, AtNode, Json
from engine.control import views
from engine.control.client import Client


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (explain, probe, overrides):
        app.command()(command)


def explain(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="MESSAGE|ADDRESS|DOMAIN", help="48213, 48213.2, bob@example.org or example.org.")
    ],
    node: AtNode = "",
    json: Json = False,
) -> None:
    """Say why mail is not moving.

    The one true cause first, then all else that bears on it. For an address or domain without mail: what would happen.
    """
    found = door_of(context).ask(lambda client: client.explain(subject, node))
    if json:
        say_json(found)
        return
    for line in answers.explain_lines(found, listings.here_and_now()):
        say(line)


def probe(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A host, or one of its addresses.")],
    node: AtNode = "",
    json: Json = False,
) -> None:
    """Speak to a host without sending it mail.

    Connects to each of its addresses, says EHLO, STARTTLS and QUIT, and tells what came back.
    """
    found = door_of(context).ask(lambda client: client.probe(host, node))
    if json:
        say_json(found)
    else:
        for line in answers.probe_lines(found, listings.here_and_now()):
            say(line)
    if not any(not address.trouble for address in found.addresses):
        raise typer.Exit(Status.REFUSED)


def overrides(context: typer.Context, json: Json = False) -> None:
    """List all that stands until a time.

    Suspensions, hold rules, host marks and overrides: what they do, until when, by whom and why.
    """
    rows = door_of(context).ask(_all_that_stands)
    if json:
        for row in rows:
            say_json(row)
    elif rows:
        moment = listings.here_and_now()
        cells = [answers.standing_row(row, moment) for row in rows]
        for line in aligned(answers.OVERRIDES, cells, line_width()):
            say(line)
    if not rows:
        complain("nothing stands: no suspension, hold rule, host mark or override")


async def _all_that_stands(client: Client) -> list[views.StandingView]:
    found: list[views.StandingView] = []
    while True:
        more = await client.overrides(offset=len(found), limit=PAGE)
        found += more
        if len(more) < PAGE:
            return found
