"""What the operator types in a line: filters and commands, with completion; and the palette."""

from collections.abc import Coroutine
from typing import Any

from console import completion
from console.actions import Registry
from console.desk import Desk
from console.screens.front import Front
from console.screens.palette import Palette
from console.screens.queue import QueueScreen
from console.verbs import refused
from console.widgets.foot import NO_COMMAND, ONLY_LOOKS, Kind, Prompt
from engine.control.client import Refused


def filter_by(console: Desk[Front], text: str) -> Coroutine[Any, Any, None] | None:
    """Filter the screen one looks at; without a text, ask for it."""
    if text:
        return console.filter_front(text)
    prompt(console, "filter")
    return None


def prompt(console: Desk[Front], kind: Kind) -> None:
    """Have a filter or a command typed."""
    front = console.front
    if front is None:
        return
    if kind == "filter" and front.filter_help is None:
        console.tell("there is nothing to filter here", "dim")
        return
    front.ask(kind, front.filter if kind == "filter" else "")


def entered(console: Desk[Front], kind: Kind, text: str) -> None:
    """A filter or a command was typed and entered: the line closes at once."""
    front = console.front
    if front is None:
        return
    if kind == "filter":
        front.stop_asking()
        console.hold_keys(_try_filter(console, front, text))
        return
    action, rest = console.registry.command(text)
    if action is None and text:
        known, _ = Registry().command(text) if console.registry.read_only else (None, "")
        front.query_one(Prompt).refuse(ONLY_LOOKS if known is not None else NO_COMMAND)
        return
    front.stop_asking()
    if action is not None:
        console.action_run(action.name, rest)


async def _try_filter(console: Desk[Front], front: Front, text: str) -> None:
    """Filter; where that is refused, the line stands there again to be mended."""
    try:
        await front.set_filter(text)
    except Refused as error:
        if console.screen is not front:
            raise
        front.ask("filter", text).refuse(refused(error))


async def complete(console: Desk[Front], line: Prompt) -> None:
    """Complete what is being typed, or name what would fit."""

    async def names(sort: completion.Sort, begun: str) -> list[str]:
        return await completion.known_names(console.client, console.overview, sort, begun)

    typed = line.field.value
    if line.kind == "command":
        completed = await completion.command(typed, console.registry, names)
    else:
        completed = await completion.terms(typed, names, of_mail=isinstance(console.front, QueueScreen))
    if line.field.value == typed:
        line.write(completed.line)
        if completed.line == typed:
            line.offer(completed.fits)


async def palette(console: Desk[Front]) -> None:
    """Let an action be chosen by its name, and do it to what was pointed at: behind the palette rows come and go."""
    target = console.pointed()
    name = await console.choose(Palette(console.registry))
    if name is not None:
        console.run_on(target, name)
