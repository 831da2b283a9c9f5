"""Completing what is typed: the words of commands, the terms of filters, and the names that the engine knows."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple

from console.actions import STATES, TERMS, Registry
from engine.control.client import Client
from engine.control.views import OverviewView

Sort = Literal["destination", "host", "node"]
NAMES = 100  # names asked for at a time
_QUOTED = '"'

Names = Callable[[Sort, str], Awaitable[Sequence[str]]]
"""Gives the names of a sort that begin with a text."""


class Completed(NamedTuple):
    """The line as far as it can be completed, and what fits where there is more than one, or nothing."""

    line: str
    fits: tuple[str, ...] = ()


async def command(line: str, registry: Registry, names: Names) -> Completed:
    """Complete a command line: its first word by the registry, the others by the usage of that command."""
    word, space, rest = line.lstrip().partition(" ")
    if not space:
        return _complete("", word, registry.words(word))
    action, _ = registry.command(word)
    if action is None:
        return Completed(line)
    before, _, last = rest.rpartition(" ")
    head = f"{word} {before} " if before else f"{word} "
    place = min(len(before.split()), len(action.usage.split()) - 1)
    wanted = action.usage.split()[place] if action.usage else ""
    if "FILTER" in wanted or "=" in wanted:
        return await _term(head, last, names)
    fits: list[str] = ["all"] if "all" in wanted and "all".startswith(last) else []
    if "DESTINATION" in wanted or "DOMAIN" in wanted:
        fits += await names("destination", last)
    if "HOST" in wanted:
        fits += await names("host", last)
    if "NODE" in wanted:
        fits += await names("node", last)
    return _complete(head, last, fits)


async def terms(line: str, names: Names, *, of_mail: bool) -> Completed:
    """Complete the last term of a filter; where it does not look at mail, a name."""
    before, space, last = line.rpartition(" ")
    if of_mail:
        return await _term(before + space, last, names)
    inverted = "!" if last.startswith("!") else ""
    begun = last.removeprefix("!")
    fits = [*await names("destination", begun), *await names("host", begun)]
    return _complete(before + space + inverted, begun, fits)


async def _term(head: str, term: str, names: Names) -> Completed:
    inverted = "!" if term.startswith("!") else ""
    head, term = head + inverted, term.removeprefix("!")
    field, sign, value = term.partition("=") if "=" in term else term.partition("~")
    if not sign:
        return _complete(head, term, TERMS, end="")
    head += field + sign
    if field.lower() == "domain" and not value.startswith(_QUOTED):
        return _complete(head, value, await names("destination", value))
    if field.lower() == "state":
        return _complete(head, value, STATES)
    return Completed(head + value)


def _complete(head: str, begun: str, known: Sequence[str], end: str = " ") -> Completed:
    """Put in place of what was begun what all that fits have in common."""
    fits = tuple(dict.fromkeys(name for name in known if name.lower().startswith(begun.lower())))
    if len(fits) == 1:
        return Completed(f"{head}{fits[0]}{end}")
    return Completed(head + (_shared(fits) or begun), fits)


def _shared(names: Sequence[str]) -> str:
    """The beginning that all names have in common."""
    first, last = min(names, default=""), max(names, default="")
    end = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:end]


async def known_names(client: Client, overview: OverviewView | None, sort: Sort, begun: str) -> list[str]:
    """Names that begin with a text: destinations as the engine knows them, hosts as far as they are in the overview."""
    begun = begun.lower()
    if sort == "destination":
        rows = (await client.destinations(match=begun, limit=NAMES)).rows if begun else ()
        names = [row.name for row in (*rows, *(overview.destinations if overview else ()))]
    elif sort == "node":
        return sorted(row.name for row in await client.nodes() if row.name.lower().startswith(begun))
    elif overview is not None:
        found = (await client.hosts(match=begun, limit=NAMES)).rows if begun else ()
        names = [host.host for host in (*found, *overview.hosts)]
        names += [name for row in overview.destinations for name in row.exchanges]
        names += [row.host for row in overview.relayers if row.host]
    else:
        names = []
    return sorted({name for name in names if name.startswith(begun)})
