"""The commands that act: check, retry, hold, release, bounce, drop, undo, suspend, resume, mark-bad, mark-good."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from console.commands import wording
from console.commands.door import Door, complain, door_of, on_terminal, refuse, say, say_json
from console.commands.looking import FILTERS, Json
from console.format import BadDuration, parse_duration
from engine.base.plural import plural
from engine.control import views
from engine.control.client import Client
from engine.model.destination import RELAY
from engine.model.message import Selection

LOOK_EVERY = 1.0  # seconds between two looks at what becomes of an action
_CHOOSE = "say which messages, or --all for every one"

Words = Annotated[list[str] | None, typer.Argument(metavar="FILTER", help="Which messages; see below.")]
All = Annotated[bool, typer.Option("--all", help="Every message in the queue.")]
Why = Annotated[str, typer.Option("--reason", help="Why: kept and shown with it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Tell what becomes of it, until that is known.")]
Now = Annotated[bool, typer.Option("--now", help="At once: it cannot be undone.")]
Lasting = Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, such as 30m, 1h30m or 2d.")]
Destination = Annotated[str | None, typer.Argument(metavar="DESTINATION", help="A domain.")]
WholeRelay = Annotated[bool, typer.Option("--all", help="The whole relay.")]
Host = Annotated[str, typer.Argument(metavar="HOST", help="The host's name, as the MX names it.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(check)
    for on_mail in (retry, hold, release, bounce, drop):
        app.command(epilog=FILTERS)(on_mail)
    for command in (undo, suspend, resume, mark_bad, mark_good):
        app.command()(command)


def check(context: typer.Context, json: Json = False) -> None:
    """Look now for what can be sent."""
    report(door_of(context).ask(lambda client: client.check()), json)


def retry(
    context: typer.Context,
    words: Words = None,
    all: All = False,
    yes: Yes = False,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Make messages due now. Asks first on a terminal, where they are several."""
    _act(context, "retry", views.Action(filter=_named(words, all)), yes, json, follow)


def hold(
    context: typer.Context,
    words: Words = None,
    all: All = False,
    reason: Why = "",
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Keep messages from being sent until released. Asks first on a terminal, where they are several."""
    _act(context, "hold", views.Action(filter=_named(words, all), reason=reason), yes, json)


def release(
    context: typer.Context,
    words: Words = None,
    all: All = False,
    yes: Yes = False,
    follow: Follow = False,
    json: Json = False,
) -> None:
    """Let held messages go on. Asks first on a terminal, where they are several.

    Ends a bounce or drop that was not yet carried out, too.
    """
    _act(context, "release", views.Action(filter=_named(words, all)), yes, json, follow)


def bounce(
    context: typer.Context,
    words: Words = None,
    all: All = False,
    reason: Why = "",
    yes: Yes = False,
    now: Now = False,
    json: Json = False,
) -> None:
    """Give messages up and tell their senders. Asks first."""
    _give_up(context, "bounce", views.Action(filter=_named(words, all), reason=reason, now=now), yes, json)


def drop(
    context: typer.Context,
    words: Words = None,
    all: All = False,
    reason: Why = "",
    yes: Yes = False,
    now: Now = False,
    json: Json = False,
) -> None:
    """Give messages up and tell nobody. Asks first."""
    _give_up(context, "drop", views.Action(filter=_named(words, all), reason=reason, now=now), yes, json)


def undo(
    context: typer.Context,
    operation: Annotated[int, typer.Argument(min=1, help="The number that the bounce or drop was given.")],
    json: Json = False,
) -> None:
    """Take back a bounce or drop, while there is time."""
    report(door_of(context).ask(lambda client: client.undo(operation)), json)


def suspend(
    context: typer.Context,
    destination: Destination = None,
    all: WholeRelay = False,
    lasting: Lasting = "1h",
    reason: Why = "",
    json: Json = False,
) -> None:
    """Open no new connections for a while.

    To one destination, or with --all to none at all. It ends by itself.
    """
    ask = views.Suspend(destination=_where(destination, all), seconds=seconds(lasting), reason=reason)
    report(door_of(context).ask(lambda client: client.suspend(ask)), json)


def resume(
    context: typer.Context,
    destination: Destination = None,
    all: WholeRelay = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a suspension. Asks first on a terminal, where several messages wait for that."""
    name = _where(destination, all)
    agree_to_end(
        door_of(context), f"resume {'the relay' if all else name}", lambda client: client.preview_resume(name), yes
    )
    report(door_of(context).ask(lambda client: client.resume(name)), json)


def mark_bad(
    context: typer.Context,
    host: Host,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="How long, such as 30m; else as the settings have it."),
    ] = None,
    reason: Why = "",
    json: Json = False,
) -> None:
    """Leave an MX host out for a while."""
    ask = views.MarkBad(host=host, seconds=None if lasting is None else seconds(lasting), reason=reason)
    report(door_of(context).ask(lambda client: client.mark_bad(ask)), json)


def mark_good(context: typer.Context, host: Host, yes: Yes = False, follow: Follow = False, json: Json = False) -> None:
    """Use an MX host again; its backlog goes. Asks first on a terminal, where that is several messages."""
    door = door_of(context)
    agree_to_end(door, f"mark-good {host}", lambda client: client.preview_good(host), yes)
    _report_on(door, door.ask(lambda client: client.mark_good(host)), json, follow)


# -- helpers --------------------------------------------------------------------------------------------------------


def _act(
    context: typer.Context, verb: views.Verb, action: views.Action, yes: bool, json: bool, follow: bool = False
) -> None:
    """Retry, hold or release. Without a terminal it goes on unasked: nothing is lost by it."""
    door = door_of(context)
    if not yes and on_terminal():
        action = _agreed(door, verb, action)
    _report_on(door, door.ask(lambda client: client.act(verb, action)), json, follow)


def agree_to_end(door: Door, what: str, look: Callable[[Client], Awaitable[Selection]], yes: bool) -> None:
    """Ask before something is ended that lets several messages go; leave where that is not meant."""
    if yes or not on_terminal():
        return

    async def look_at_both(client: Client) -> tuple[Selection, views.HealthView]:
        return await look(client), await client.health()

    chosen, health = door.ask(look_at_both)
    if chosen.messages > 1:
        _ask(f"{what} lets go {_scope(chosen)}:", chosen, health)


def _give_up(context: typer.Context, verb: views.GivingUp, action: views.Action, yes: bool, json: bool) -> None:
    door = door_of(context)
    if not yes:
        if not on_terminal():
            refuse(f"nothing done: {verb} asks first, and there is no terminal to ask on; --yes goes on without asking")
        action = _agreed(door, verb, action)
    report(door.ask(lambda client: client.act(verb, action)), json)


def _agreed(door: Door, verb: views.Verb, action: views.Action) -> views.Action:
    """Ask whether exactly this is meant; give the action, bound to what was seen. Leaves when it is not.

    What can be taken back needs no question for a single message.
    """

    async def look(client: Client) -> tuple[Selection, views.HealthView]:
        return await client.preview(verb, action), await client.health()

    chosen, health = door.ask(look)
    if not chosen.recipients:
        refuse("nothing matches: no message in the queue is named by this filter")
    undo = "at once, not to be undone" if action.now else f"to be undone within {health.undo_seconds:g} s"
    follows = {
        "retry": ", to be due now",
        "hold": ", to stay until released",
        "release": ", to be sent when due",
        "bounce": f" and tell their senders, {undo}",
        "drop": f" and tell nobody, {undo}",
    }[verb]
    if chosen.messages > 1 or verb in ("bounce", "drop"):
        _ask(f"{verb} {_scope(chosen)}{follows}:", chosen, health)
    return views.Action(filter=action.filter, reason=action.reason, newest=chosen.newest, now=action.now)


def _scope(chosen: Selection) -> str:
    return f"{plural(chosen.recipients, 'recipient')} of {plural(chosen.messages, 'message')}"


def _ask(question: str, chosen: Selection, health: views.HealthView) -> None:
    """Say what would be touched, for example which; leave unless it is meant."""
    complain(question)
    for row in chosen.examples:
        complain(f"  {row.id}  {row.sender or '<>'} to {row.recipient}  {row.subject}")
    if chosen.recipients > len(chosen.examples):
        complain(f"  and {plural(chosen.recipients - len(chosen.examples), 'other')}")
    if not _says_yes(chosen.messages, health.confirm_typed_over):
        refuse("nothing done")


def _says_yes(messages: int, typed_over: int) -> bool:
    if messages <= typed_over:
        return typer.confirm("go on?", default=False, err=True)
    typed: str = typer.prompt(f"type {messages} to go on", default="", show_default=False, err=True)
    return typed.strip().replace(",", "") == str(messages)


def _report_on(door: Door, result: views.ResultView, json: bool, follow: bool) -> None:
    """Say what an action did, and with `follow` what becomes of it, line by line, until that is over."""
    report(result, json)
    if not (follow and result.follow):
        return

    async def watch(client: Client) -> None:
        told = ""
        while True:
            seen = await client.operation(result.follow)
            if json and seen.over:
                say_json(seen)
            elif not json and seen.text != told:
                told = seen.text
                say(told)
            if seen.over:
                return
            await asyncio.sleep(LOOK_EVERY)

    try:
        door.ask(watch)
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


def report(result: views.ResultView, json: bool) -> None:
    """Say what an action did; one on mail that changed nothing leaves with that status."""
    acted_on_mail = result.verb in ("retry", "hold", "release", "bounce", "drop", "undo")
    if acted_on_mail and not result.recipients:
        refuse(result.text)
    if json:
        say_json(result)
        return
    say(result.text)
    if result.undo_until is not None and result.operation:
        say(f"until {wording.here_and_now().clock(result.undo_until)}: smarthost undo {result.operation}")


def _named(words: list[str] | None, all: bool) -> str:
    text = " ".join(words or ()).strip()
    if text and all:
        raise typer.BadParameter("a filter and --all do not go together", param_hint="FILTER")
    if not text and not all:
        refuse(f"nothing done: {_CHOOSE}")
    return text


def _where(destination: str | None, all: bool) -> str:
    if (destination is None) == (not all):
        raise typer.BadParameter("give a domain, or --all for the whole relay", param_hint="DESTINATION")
    return RELAY if destination is None else destination


def seconds(text: str) -> float:
    """The seconds of a written duration."""
    try:
        return parse_duration(text)
    except BadDuration as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error
