"""What the console does to mail to come and to connections: Explain, Probe, Close, Override, hold rules, End."""

import re

from console.actions import Target
from console.desk import Desk
from console.format import duration, parse_duration
from console.screens.answers import ExplainScreen, ProbeScreen
from console.screens.dialogs import Blank, Dialog
from console.screens.front import Front
from console.verbs import DEFAULT_SUSPENSION, Mistyped, agreed, name_time_why, one_of
from console.widgets.document import Para, para
from engine.control.views import HoldRule, Override

_ID = re.compile(r"id=(\d+(?:\.\d+)?)", re.ASCII)
_TERM = re.compile(r'(?:from|to|domain)[=~](?:"(?:[^"\\]|\\.)*"|\S+)(?:\s+|$)', re.IGNORECASE)


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
    """Speak to a host without sending it mail."""
    host = argument or await one_of(console, "Probe: which host?", target, bad=False)
    console.go_on()
    if not host:
        return
    front = console.front
    console.tell(f"Probe: speaking to {host}…", "dim")
    found = await console.client.probe(host)
    console.answer(f"Probe of {host}", lambda: ProbeScreen(found), front, target)


async def close(console: Desk[Front], argument: str, target: Target | None) -> None:
    """End a connection, after a question."""
    number = argument or (str(target.relayer) if target is not None and target.relayer else "")
    if not number.isdecimal():
        console.tell("Close: point at a connection first, or name it by its number", "warn")
        return
    follows = (
        "What it carries waits again, untried; but what the peer may have taken already may arrive twice. Its "
        "destination rests for a moment, then connections are opened again."
    )
    to = f" to {target.what}" if not argument and target is not None else ""
    if await console.ask(Dialog(f"Close connection {number}{to}?", _body(follows), ok="Close")) is None:
        console.tell("Close: left as it was", "dim")
        return
    console.report(await console.client.close(int(number)))


async def override(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Send a destination's mail to another host; asks where to, how long and why, as far as that was not typed."""
    name, _, rest = argument.partition(" ")
    to, seconds, reason = name_time_why(rest.strip())
    name = name or (target.destination if target else "")
    if not name:
        console.tell("Override: point at a destination first, or name one", "warn")
        return
    if not (to and seconds is not None):
        fields = [Blank("to", "to which host (and :port)", to, check=_named), *_how_long(seconds, reason)]
        follows = "Its mail goes to that host instead of its exchanges until then. It ends by itself."
        title = f"Override {name}?"
        answers = await console.ask(Dialog(title, _body(follows), ok="Override", fields=fields, fill=True))
        if answers is None:
            console.tell("Override: left as it was", "dim")
            return
        to, seconds, reason = answers["to"].strip(), parse_duration(answers["for"]), answers["why"]
    ask = Override(destination=name, to=to, seconds=seconds, reason=reason)
    console.report(await console.client.override(ask))


async def hold_rule(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Hold mail that is still to come; asks which, how long and why, as far as that was not typed."""
    named, seconds, reason = _rule(argument)
    if not (named and seconds is not None):
        offered = named or (f"domain={target.destination}" if target is not None and target.destination else "")
        fields = [
            Blank("filter", "which mail (from=, to=, domain=)", offered, check=_named),
            *_how_long(seconds, reason),
        ]
        follows = "It is held when it comes in, and what waits of it, too. The rule ends by itself; then it goes on."
        answers = await console.ask(Dialog("Hold mail to come?", _body(follows), ok="Hold", fields=fields, fill=True))
        if answers is None:
            console.tell("Hold rule: left as it was", "dim")
            return
        named, seconds, reason = answers["filter"].strip(), parse_duration(answers["for"]), answers["why"]
    console.report(await console.client.hold_rule(HoldRule(filter=named, seconds=seconds, reason=reason)))


async def end(console: Desk[Front], argument: str, target: Target | None) -> None:
    """End a hold rule by its number, or the override of what is pointed at or named.

    `rule` or `override` before the argument says which of both is meant, whatever stands behind it.
    """
    kind, _, named = argument.partition(" ")
    if kind == "rule" and not named.isdecimal():
        console.tell("Release rule: name a hold rule by its number; 7 lists them", "warn")
        return
    if kind in ("rule", "override") and named:
        argument = named
    if kind != "override" and argument.isdecimal():
        rule = int(argument)
        selection = await console.client.preview_release_rule(rule)
        follows = "They go on when they are due."
        if await agreed(console, "End", ("are held by", f"hold rule {rule}"), follows, selection):
            console.report(await console.client.release_rule(rule))
        return
    name = argument or (target.destination if target else "")
    if not name:
        console.tell("End: name a destination, or a hold rule by its number; 7 lists them", "warn")
        return
    selection = await console.client.preview_end(name)
    follows = "They are due now, to the exchanges of their own."
    if await agreed(console, "End", ("wait for", name), follows, selection):
        console.report(await console.client.end_override(name))


def _subject(target: Target | None) -> str:
    if target is None:
        return ""
    if target.single and (named := _ID.fullmatch(target.filter)):
        return named[1]
    return target.destination


def _rule(argument: str) -> tuple[str, float | None, str]:
    """Read `TERM... [DURATION] [WHY]`. Raises Mistyped for what does not begin with a term."""
    end = 0
    while (term := _TERM.match(argument, end)) is not None:
        end = term.end()
    if argument and not end:
        raise Mistyped("a rule begins with from=, to= or domain=, as in :hold-rule from=ann@example.net 2h runaway")
    _, seconds, reason = name_time_why(f"- {argument[end:].strip()}")
    return argument[:end].strip(), seconds, reason


def _how_long(seconds: float | None, reason: str) -> list[Blank]:
    lasting = duration(DEFAULT_SUSPENSION if seconds is None else seconds)
    return [Blank("for", "for how long", lasting, check=parse_duration), Blank("why", "why (is recorded)", reason)]


def _named(text: str) -> str:
    if not text.strip():
        raise ValueError("it must be named")
    return text


def _body(follows: str) -> list[Para]:
    return [Para(), para((f"  {follows}", ""), hang=2), Para()]
