"""The commands for mail to come and for connections: explain, probe, close, hold-rule, override, and their ends."""

from typing import Annotated

import typer

from console.commands import answers, wording
from console.commands.acting import Lasting, Why, Yes, agree_to_end, report, seconds
from console.commands.columns import aligned, line_width
from console.commands.door import Status, complain, door_of, say, say_json
from console.commands.looking import PAGE, Json
from engine.control import views
from engine.control.client import Client

_RULES = (
    "A rule names mail by from=ann@example.net, to=*@example.org or domain=example.org; several of them must all hold."
)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for looks in (explain, probe, overrides):
        app.command()(looks)
    app.command(epilog=_RULES)(hold_rule)
    for command in (release_rule, override, end_override, close):
        app.command()(command)


def explain(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="MESSAGE|ADDRESS|DOMAIN", help="48213, 48213.2, bob@example.org or example.org.")
    ],
    json: Json = False,
) -> None:
    """Say why mail is not moving.

    The one true cause first, then all else that bears on it. For an address or domain without mail: what would happen.
    """
    found = door_of(context).ask(lambda client: client.explain(subject))
    if json:
        say_json(found)
        return
    for line in answers.explain_lines(found, wording.here_and_now()):
        say(line)


def probe(
    context: typer.Context,
    host: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="A host, or one of its addresses.")],
    json: Json = False,
) -> None:
    """Speak to a host without sending it mail.

    Connects to each of its addresses, says EHLO, STARTTLS and QUIT, and tells what came back.
    """
    found = door_of(context).ask(lambda client: client.probe(host))
    if json:
        say_json(found)
    else:
        for line in answers.probe_lines(found, wording.here_and_now()):
            say(line)
    if not any(not one.trouble for one in found.addresses):
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
        moment = wording.here_and_now()
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


def hold_rule(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="RULE", help="Which mail; see below.")],
    lasting: Lasting = "1h",
    reason: Why = "",
    json: Json = False,
) -> None:
    """Hold mail that is still to come, and what waits of it.

    It ends by itself; then all that it held goes on.
    """
    ask = views.HoldRule(filter=" ".join(words), seconds=seconds(lasting), reason=reason)
    report(door_of(context).ask(lambda client: client.hold_rule(ask)), json)


def release_rule(
    context: typer.Context,
    rule: Annotated[int, typer.Argument(min=1, help="Its number; `smarthost overrides` lists them.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a hold rule; what it held goes on. Asks first on a terminal, where that is several messages."""
    agree_to_end(door_of(context), f"release-rule {rule}", lambda client: client.preview_release_rule(rule), yes)
    report(door_of(context).ask(lambda client: client.release_rule(rule)), json)


def override(
    context: typer.Context,
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="A domain.")],
    to: Annotated[str, typer.Argument(metavar="HOST[:PORT]", help="The host that is to take its mail.")],
    lasting: Lasting = "1h",
    reason: Why = "",
    json: Json = False,
) -> None:
    """Send a destination's mail to a host of your choice.

    Instead of its mail exchanges, for a while. It ends by itself.
    """
    ask = views.Override(destination=destination, to=to, seconds=seconds(lasting), reason=reason)
    report(door_of(context).ask(lambda client: client.override(ask)), json)


def end_override(
    context: typer.Context,
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="A domain.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End an override; mail goes its own way again. Asks first on a terminal, where several messages wait."""
    agree_to_end(door_of(context), f"end-override {destination}", lambda client: client.preview_end(destination), yes)
    report(door_of(context).ask(lambda client: client.end_override(destination)), json)


def close(
    context: typer.Context,
    relayer: Annotated[int, typer.Argument(metavar="RELAYER", min=1, help="Its number, as `relayers` lists it.")],
    json: Json = False,
) -> None:
    """End one connection; its messages wait again."""
    report(door_of(context).ask(lambda client: client.close(relayer)), json)
