"""The command that looks whether this machine is fit to send mail: doctor."""

import asyncio
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Protocol

import typer

from console.commands.columns import line_width
from console.commands.door import Status, say, say_json
from console.commands.lists import PAGE, Json
from console.format import age
from engine.base.address import AddressError, parse_domain
from engine.control.client import Client, EngineUnreachable, Refused, answers, control_socket
from engine.model.event import Event
from engine.model.finding import Asked, Finding

_LEAST = 20  # places of a line for what was seen, however narrow the terminal is

Address = Annotated[
    list[str] | None,
    typer.Option("--address", metavar="ADDRESS", help="That others see us come from; else as this machine knows it."),
]
Domain = Annotated[
    list[str] | None, typer.Option("--domain", metavar="DOMAIN", help="Of senders; else those that were seen lately.")
]
Probe = Annotated[
    list[str] | None, typer.Option("--probe", metavar="DOMAIN", help="Connect to its exchanges; else to large ones.")
]


class Examiner(Protocol):
    """Who looks, and where the queue is."""

    def spool(self) -> Path:
        """The queue's folder."""
        ...

    def examined(self, asked: Asked) -> Sequence[Finding]:
        """What is found; where the settings are wrong, says so and leaves."""
        ...


def add_to(app: typer.Typer, examiner: Callable[[typer.Context], Examiner]) -> None:
    """Add the command."""

    @app.command()
    def doctor(
        context: typer.Context,
        address: Address = None,
        domain: Domain = None,
        probe: Probe = None,
        json: Json = False,
    ) -> None:
        """Look whether this machine is fit to send mail.

        Name, DNS, ways out, logins, clock, disk and files, each with what to do; also before the first start. Sends
        no mail, starts nothing, changes nothing. Exit status: 0 nothing is bad, 1 something is.
        """
        by = examiner(context)
        socket = control_socket(by.spool())
        engine, seen = asyncio.run(_lately(socket)) if answers(socket) else ((_none_runs(socket),), ())
        asked = Asked(
            addresses=tuple(map(_address, address or ())),
            domains=tuple(map(_domain, domain or ())) or seen,
            probes=tuple(map(_domain, probe or ())),
        )
        looked = by.examined(asked)
        told = {one.text for one in looked}  # the engine notes what its settings do
        found = (*(one for one in engine if one.text not in told), *looked)
        if json:
            for one in found:
                say_json(one)
        else:
            for line in lines(found, line_width()):
                say(line)
        if any(one.result == "bad" for one in found):
            raise typer.Exit(Status.REFUSED)


def lines(found: Sequence[Finding], width: int | None) -> Iterator[str]:
    """What was found, each thing on a line of its own, or on several where the terminal is narrow; then the counts."""
    names = max((len(one.name) for one in found), default=0)
    for one in found:
        head = f"{one.result:<7}  {one.name:<{names}}  "
        if width is None:
            yield f"{head}{one.line}"
            continue
        text = textwrap.wrap(one.line, max(width - len(head), _LEAST), break_on_hyphens=False) or [""]
        yield f"{head}{text[0]}"
        yield from (" " * len(head) + line for line in text[1:])
    counts = Counter(one.result for one in found)
    yield ", ".join(f"{counts[result]} {result}" for result in ("bad", "warn", "ok", "skipped") if counts[result])


async def _lately(socket: Path) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """How the engine that runs is, and whose mail it has taken lately."""
    try:
        async with Client(socket) as client:
            health = await client.health()
            events = await client.events(match="accepted", limit=PAGE)
    except (EngineUnreachable, Refused) as error:
        return (Finding(name="engine", result="skipped", text=f"it cannot be asked: {error}"),), ()
    if health.trouble:
        how = Finding(name="engine", result="bad", text=health.trouble)
    else:
        how = Finding(name="engine", result="ok", text=f"{health.state} for {age(health.now - health.started)}")
    notes = (Finding(name="engine", result="warn", text=note) for note in health.notes)
    return (how, *notes), _domains(events)


def _domains(events: Sequence[Event]) -> tuple[str, ...]:
    """Of which domains the senders were, the latest first."""
    every = (event.sender.rpartition("@")[2] for event in reversed(events))
    return tuple(dict.fromkeys(domain for domain in every if domain and not domain.startswith("[")))


def _none_runs(socket: Path) -> Finding:
    return Finding(name="engine", result="skipped", text=f"none runs in {socket.parent}: by the settings alone")


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no address, such as 203.0.113.5", param_hint="--address") from None


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError as error:
        raise typer.BadParameter(str(error), param_hint="--domain, --probe") from None
