"""What is asked to be looked at and answered at length: why mail is not moving, and what a host says."""

import re

from console.actions import Target
from console.desk import Desk
from console.screens.answers import ExplainScreen, ProbeScreen
from console.screens.front import Front
from console.verbs import pointed, typed
from engine.model.verbs import named

_ID = re.compile(r"id=(\d+(?:\.\d+)?)", re.ASCII)


async def explain(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Say why what is pointed at is not moving, or what is named."""
    console.go_on()
    subject = argument or _subject(target)
    if not subject:
        console.tell("Explain: point at a message or a destination first, or name one", "warn")
        return
    front = console.front
    console.tell(f"Explain: looking at {subject}…", "dim")
    found = await console.client.explain(subject)
    console.answer(f"Explain of {subject}", lambda: ExplainScreen(found), front, target)


async def probe(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Speak to a host without sending it mail, from the node that is named behind it, or from the one attached to."""
    given = typed(named("probe"), argument)
    host = given.get("host") or await pointed(console, named("probe"), target)
    console.go_on()
    if not host:
        return
    front = console.front
    console.tell(f"Probe: speaking to {host}…", "dim")
    found = await console.client.probe(host, given.get("node", ""))
    console.answer(f"Probe of {host}", lambda: ProbeScreen(found), front, target)


def _subject(target: Target | None) -> str:
    if target is None:
        return ""
    if target.single and (found := _ID.fullmatch(target.filter)):
        return found[1]
    return target.destination
