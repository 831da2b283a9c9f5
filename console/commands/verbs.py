"""The commands that act: one for each row of the table of verbs, with what that takes as arguments and options.

What lets several messages go, or gives any up, is asked for first: by exact count, with examples, and what follows.
"""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from msgspec.structs import replace

from console import words
from console.commands import listings
from console.commands.door import Door, complain, door_of, on_terminal, refuse, say, say_json
from console.commands.lists import FILTERS, Json
from console.format import BadDuration, parse_duration
from engine.base.duration import format_duration
from engine.base.plural import plural
from engine.control.client import Client
from engine.control.views import HealthView
from engine.model import verbs
from engine.model.destination import RELAY
from engine.model.message import Selection
from engine.model.verbs import DryAsk, MailAsk, Parameter, Result, Subject, Verb, parameters

LOOK_EVERY = 1.0  # seconds between two looks at what becomes of an action

_EPILOGS: dict[Subject, str] = {
    "mail": FILTERS,
    "mail to come": "A rule names mail by from=ann@example.net, to=*@example.org or domain=example.org; several of "
    "them must all hold.",
}
_EVERY = {"mail": "Every message in the queue.", "destination": "The whole relay."}
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
_Follow = Annotated[bool, typer.Option("--follow", "-f", help="Tell what becomes of it, until that is known.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line. What a host says when it is probed has a command of its own."""
    for verb in verbs.VERBS:
        if verb.word != "probe":
            app.command(verb.word, epilog=_EPILOGS.get(verb.on))(command_of(verb))


def command_of(verb: Verb) -> Callable[..., None]:
    """The command of a verb, with the signature that its parameters make."""

    def command(context: typer.Context, **given: Any) -> None:
        _do(door_of(context), verb, given)

    signed = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    signed += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, kind, default in _options(verb)
    ]
    command.__signature__ = inspect.Signature(signed)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in signed}
    command.__name__ = verb.word.replace("-", "_")
    first = "Asks first." if verb.gives_up else "Asks first on a terminal, where several messages are touched."
    more = " ".join(filter(None, (verb.more, first if verb.is_previewed else "")))
    command.__doc__ = f"{verb.help}.\n\n{more}" if more else f"{verb.help}."
    return command


def _options(verb: Verb) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of all that a command takes."""
    for parameter in parameters(verb.ask):
        yield parameter.name, *_option(verb, parameter)
        if _takes_all(verb, parameter):
            yield "all", Annotated[bool, typer.Option("--all", help=_EVERY[verb.on])], False
    if verb.is_previewed:
        yield "yes", _Yes, False
    if verb.followed:
        yield "follow", _Follow, False
    yield "json", Json, False


def _option(verb: Verb, parameter: Parameter) -> tuple[Any, Any]:
    if parameter.name == "seconds":
        text = parameter.help if parameter.required else "How long, such as 30m; else as the settings have it."
        lasting = typer.Option("--for", metavar="DURATION", help=text)
        return Annotated[str | None, lasting], "1h" if parameter.required else None
    if not parameter.required:
        names = [f"--{name}" for name in (parameter.name, verbs.FORMERLY.get(parameter.name)) if name]
        return Annotated[parameter.kind, typer.Option(*names, help=parameter.help)], parameter.kind()
    if parameter.kind is int:
        return Annotated[
            int, typer.Argument(metavar=parameter.title, min=1, help=parameter.help)
        ], inspect.Parameter.empty
    if parameter.name == "filter":
        words = typer.Argument(metavar=parameter.title, help=parameter.help)
        return Annotated[list[str] | None, words], None if verb.on == "mail" else inspect.Parameter.empty
    metavar, bar, _ = parameter.title.partition("|")
    named = typer.Argument(metavar=metavar, help=parameter.help)
    return Annotated[str | None, named], None if bar else inspect.Parameter.empty


def _takes_all(verb: Verb, parameter: Parameter) -> bool:
    """Whether --all stands for the name."""
    return (verb.on == "mail" and parameter.name == "filter") or parameter.title.endswith("|all")


# -- what is done ---------------------------------------------------------------------------------------------------


def _do(door: Door, verb: Verb, given: dict[str, Any]) -> None:
    yes, follow, json = given.pop("yes", False), given.pop("follow", False), given.pop("json")
    ask = verb.ask(**_read(verb, given))
    if isinstance(ask, DryAsk) and not yes:
        if on_terminal():
            ask = _agreed(door, verb, ask)
        elif verb.gives_up:  # the others go on unasked: nothing is lost by them
            text = f"{verb.word} asks first, and there is no terminal to ask on; --yes goes on without asking"
            refuse(f"nothing done: {text}")
    result = door.ask(lambda client: client.ask(ask))
    _report(verb, result, json)
    if follow and result.follow:
        _watch(door, result.follow, json)


def _read(verb: Verb, given: dict[str, Any]) -> dict[str, Any]:
    """What was given, as the ask has it."""
    every = given.pop("all", False)
    for parameter in parameters(verb.ask):
        value = given[parameter.name]
        if parameter.name == "filter":
            given["filter"] = " ".join(value or ()).strip()
        elif parameter.name == "seconds" and value is not None:
            given["seconds"] = _seconds(value)
        if not _takes_all(verb, parameter):
            continue
        if verb.on == "mail":
            if given["filter"] and every:
                raise typer.BadParameter("a filter and --all do not go together", param_hint="FILTER")
            if not given["filter"] and not every:
                refuse("nothing done: say which messages, or --all for every one")
        elif (value is None) == (not every):
            raise typer.BadParameter("give a domain, or --all for the whole relay", param_hint="DESTINATION")
        elif every:
            given[parameter.name] = RELAY
    return given


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except BadDuration as error:
        raise typer.BadParameter(str(error), param_hint="--for") from error


def _agreed(door: Door, verb: Verb, ask: DryAsk) -> DryAsk:
    """Ask whether exactly this is meant; give the ask, bound to what was seen. Leaves when it is not meant.

    What can be taken back needs no question for a single message.
    """

    async def look(client: Client) -> tuple[Selection, HealthView]:
        return await client.would(ask), await client.health()

    chosen, health = door.ask(look)
    if isinstance(ask, MailAsk) and not chosen.recipients:
        refuse("nothing matches: no message in the queue is named by this filter")
    if chosen.messages > 1 or verb.gives_up:
        _ask(_question(verb, ask, chosen, health), chosen, health)
    return replace(ask, newest=chosen.newest) if isinstance(ask, MailAsk) else ask


def _question(verb: Verb, ask: DryAsk, chosen: Selection, health: HealthView) -> str:
    scope = f"{plural(chosen.recipients, 'recipient')} of {plural(chosen.messages, 'message')}"
    if not isinstance(ask, MailAsk):
        named = str(getattr(ask, parameters(verb.ask)[0].name))
        title = verb.question.format("the relay" if named == RELAY else named)
        return f"{title} It lets go {scope}. {verb.follows}"
    undo = ""
    if verb.gives_up:
        is_now = getattr(ask, "now", False)
        undo = " It cannot be undone." if is_now else f" It can be undone for {health.undo_seconds:g} s."
    lasting = f" for {format_duration(seconds)}" if (seconds := getattr(ask, "seconds", None)) is not None else ""
    sooner = f" {words.outlasting(ask, chosen)}" if chosen.outlasting else ""
    return f"{verb.label} {scope}{lasting}? {verb.follows}{sooner}{undo}"


def _ask(question: str, chosen: Selection, health: HealthView) -> None:
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


def _report(verb: Verb, result: Result, json: bool) -> None:
    """Say what was done; what changed nothing of the mail it is for leaves with that status."""
    if verb.on in ("mail", "order") and not result.recipients:
        refuse(result.text)
    if json:
        say_json(result)
        return
    say(result.text)
    if result.undo_until is not None and result.operation:
        say(f"until {listings.here_and_now().clock(result.undo_until)}: smarthost undo {result.operation}")


def _watch(door: Door, operation: int, json: bool) -> None:
    """Say what becomes of an action, line by line, until that is over."""

    async def watch(client: Client) -> None:
        last = ""
        while True:
            seen = await client.operation(operation)
            if json and seen.over:
                say_json(seen)
            elif not json and seen.text != last:
                last = seen.text
                say(last)
            if seen.over:
                return
            await asyncio.sleep(LOOK_EVERY)

    try:
        door.ask(watch)
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
