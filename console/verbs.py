"""How a verb is done from the console: to what was typed, marked or pointed at, after the question it calls for.

All of it is read from the table of verbs: what a verb acts on, what can be given with it, whether it can be asked dry,
and what follows. In the end it is said exactly what came of it.
"""

import re
from typing import Any

import msgspec
from msgspec.structs import replace

from console import words
from console.actions import Target
from console.desk import Desk
from console.format import BadDuration, duration, parse_duration, safe
from console.screens.dialogs import Blank, Choose, Dialog, Option
from console.screens.front import Front
from console.widgets.document import Para, para
from console.widgets.line import crop
from engine.base.plural import plural
from engine.control.client import Refused
from engine.model.destination import RELAY
from engine.model.message import Entry, Selection
from engine.model.verbs import DryAsk, MailAsk, Parameter, Postpone, Result, Resume, Subject, Verb, parameters

DEFAULT_TIME = 3_600.0  # seconds offered when asked how long

_LABELS = {
    "filter": "which mail (from=, to=, domain=)",
    "to": "to which host (and :port)",
    "seconds": "for how long",
    "note": "note (kept and shown)",
}
_MISSING: dict[Subject, str] = {
    "mail": "point at a message or a destination first, or name a filter",
    "destination": "point at a destination first, or name one",
    "relayer": "point at a connection first, or name it by its number",
    "node": "point at a node first, or name one; 8 lists them",
    "rule": "name a hold rule by its number; 7 lists them",
    "order": "there is nothing that could be taken back",
}
_TERM = re.compile(r'(?:from|to|domain)[=~](?:"(?:[^"\\]|\\.)*"|\S+)(?:\s+|$)', re.IGNORECASE)


class TooLate(Exception):
    """The question came too late: it is not put any more, and nothing was done."""

    def __str__(self) -> str:
        return "the question came too late to be put, and nothing was done: press the key again"


class Mistyped(ValueError):
    """A command line cannot be followed; the text says how it is written."""


async def do(console: Desk[Front], verb: Verb, argument: str, target: Target | None) -> None:
    """Do what a verb says, or say what is missing for it."""
    given = typed(verb, argument)
    subject = _subject(verb)
    if subject is not None and subject.name not in given:
        found = await pointed(console, verb, target)
        if not found and verb.on != "mail to come":  # which is asked for
            return
        given[subject.name] = found
        if verb.on == "relayer" and target is not None:
            given["node"] = target.node
    if verb.is_previewed and any(parameter.name == "seconds" for parameter in parameters(verb.ask)):
        given.setdefault("seconds", DEFAULT_TIME)  # it is asked for with what would be touched
    ask = verb.ask(**given) if not _asks_more(verb, given) else None
    if not verb.follows:
        console.go_on()
    elif isinstance(ask, DryAsk):
        ask = await _agreed(console, verb, ask, target, named=argument)
    else:
        value = f"{given.get(subject.name)}" if subject is not None else ""
        to = f" to {target.what}" if verb.on == "relayer" and not argument and target is not None else ""
        if ask is None or verb.on in ("relayer", "node"):
            ask = await _filled(console, verb, given, value + to)
    if ask is not None:
        console.report(await console.client.ask(ask))


# -- what it is done to ---------------------------------------------------------------------------------------------


def typed(verb: Verb, argument: str) -> dict[str, Any]:
    """What was typed behind a verb, by the names of its parameters: `NAME... [DURATION] [WHY]`. Raises Mistyped.

    A filter goes on to the end of the line, or to a time at the end of it where the verb has one.
    """
    found: dict[str, Any] = {}
    wanted = parameters(verb.ask)
    rest = argument.strip()
    if verb.on == "mail" and any(parameter.name == "seconds" for parameter in wanted):
        rest, seconds = _time_at_the_end(rest)
        return ({"filter": rest} if rest else {}) | ({} if seconds is None else {"seconds": seconds})
    for parameter in (one for one in wanted if (one.required or one.name == "node") and one.kind is not float):
        value, rest = _name(parameter, verb.on, rest)
        if value:
            found[parameter.name] = value
    if not any(parameter.name == "seconds" for parameter in wanted):
        return found
    seconds, note = _time_and_note(rest)
    if seconds is not None:
        found["seconds"] = seconds
    return found | ({"note": note} if note else {})


def _name(parameter: Parameter, on: Subject, text: str) -> tuple[str | int, str]:
    """The value of a parameter at the beginning of what was typed ("" where it is none), and the rest."""
    if on == "mail":
        return text, ""
    if on == "mail to come":
        end = 0
        while (term := _TERM.match(text, end)) is not None:
            end = term.end()
        if text and not end:
            raise Mistyped("a rule begins with from=, to= or domain=, as in :hold-rule from=ann@example.net 2h runaway")
        return text[:end].strip(), text[end:].strip()
    word, _, rest = text.partition(" ")
    if parameter.kind is int:
        return (int(word) if word.isdecimal() else ""), rest.strip()
    if parameter.title.endswith("|all") and word.lower() == "all":
        word = RELAY
    return word, rest.strip()


def _time_at_the_end(text: str) -> tuple[str, float | None]:
    """A filter, and the time behind it, where its last word is one."""
    named, _, last = text.rpartition(" ")
    try:
        return named.strip(), parse_duration(last)
    except BadDuration:
        return text, None


def _time_and_note(text: str) -> tuple[float | None, str]:
    first, _, others = text.partition(" ")
    if not first:
        return None, ""
    try:
        return parse_duration(first), others.strip()
    except BadDuration as error:
        if first[0].isdigit():
            raise Mistyped(str(error)) from error
        return None, text


def _subject(verb: Verb) -> Parameter | None:
    """The parameter that says what the verb acts on: the first one."""
    return next(iter(parameters(verb.ask)), None)


async def pointed(console: Desk[Front], verb: Verb, target: Target | None) -> Any:
    """What a verb acts on of what is marked or pointed at; where there is nothing, that is said."""
    found: Any = ""
    match verb.on:
        case "mail":
            found = target.filter if target is not None else ""
        case "mail to come":
            return f"domain={target.destination}" if target is not None and target.destination else ""
        case "destination":
            found = target.destination if target is not None else ""
        case "relayer":
            found = target.relayer if target is not None else 0
        case "node":
            found = target.node if target is not None else ""
        case "host" | "bad host":
            return await _one_host(console, verb, target)
        case "order":
            found = console.undoable.operation if console.undoable is not None else 0
    if not found:
        missing = _MISSING[verb.on]
        if verb.on == "mail" and target is not None and target.destination:
            missing = "point at a message first, or name a filter"  # that of the destination has left
        or_all = " (:{0} all for the whole relay)" if _may_be_all(verb) else ""
        console.tell(f"{verb.label}: {missing}{or_all.format(verb.word)}", "warn")
    return found


def _may_be_all(verb: Verb) -> bool:
    subject = _subject(verb)
    return subject is not None and subject.title.endswith("|all")


async def _one_host(console: Desk[Front], verb: Verb, target: Target | None) -> str:
    is_bad = verb.on == "bad host"
    hosts = () if target is None else target.bad if is_bad else target.hosts
    if not hosts:
        known = target is not None and bool(target.hosts)
        why = f"{target.what} has no bad host" if is_bad and known and target else _NO_HOST
        console.tell(f"{verb.label}: {why}", "warn")
        return ""
    if len(hosts) == 1:
        return hosts[0]
    back_at = _marked(console)
    options = [
        Option(host, f"bad, back in {console.moment.left(back_at[host])}" if host in back_at else "") for host in hosts
    ]
    return await console.choose(Choose(f"{verb.label}: which host?", options)) or ""


_NO_HOST = "point at a host or a destination first"


def _marked(console: Desk[Front]) -> dict[str, float]:
    """When the marks end of hosts that are known to be bad."""
    seen = console.overview
    if seen is None:
        return {}
    of_destinations = {mark.host: mark.until for row in seen.destinations for mark in row.marked}
    return of_destinations | {row.host: row.until for row in seen.hosts}


# -- what is asked before it ----------------------------------------------------------------------------------------


def _asks_more(verb: Verb, given: dict[str, Any]) -> bool:
    """Whether something is to be filled in: what has an end is asked for its time, unless that was typed."""
    wanted = parameters(verb.ask)
    lasts = any(parameter.name == "seconds" for parameter in wanted)
    return (lasts and "seconds" not in given) or any(
        parameter.required and not given.get(parameter.name) for parameter in wanted
    )


async def _filled(console: Desk[Front], verb: Verb, given: dict[str, Any], named: str) -> Any:
    """Say what follows, and have what is missing filled in; None where it is left."""
    fields = _blanks(console, verb, given)
    body = [Para(), para((f"  {verb.follows}", ""), hang=2), Para()]
    title = verb.question.format("the whole relay" if named == RELAY else named)
    answers = await console.ask(Dialog(title, body, ok=verb.label, fields=fields, fill=bool(fields)))
    if answers is None:
        return _left(console, verb)
    return verb.ask(**(given | _read(fields, answers)))


def _blanks(console: Desk[Front], verb: Verb, given: dict[str, Any]) -> list[Blank]:
    """What is to be filled in, with what is known of it."""
    return [
        _blank(console, verb, parameter, given) for parameter in parameters(verb.ask) if _is_filled_in(verb, parameter)
    ]


def _read(fields: list[Blank], answers: dict[str, str]) -> dict[str, Any]:
    """What was filled in, as the ask has it."""
    typed_in = {field.name: answers[field.name] for field in fields}
    return {name: parse_duration(text) if name == "seconds" else text.strip() for name, text in typed_in.items()}


def _is_filled_in(verb: Verb, parameter: Parameter) -> bool:
    """Whether a parameter is asked for in a dialog: all but what the verb acts on, unless that is still to come."""
    if parameter.kind is bool or parameter.name == "node":
        return False
    return parameter is not _subject(verb) or verb.on == "mail to come"


def _blank(console: Desk[Front], verb: Verb, parameter: Parameter, given: dict[str, Any]) -> Blank:
    value = given.get(parameter.name, "")
    if parameter.name == "seconds":
        usual = console.overview.health.bad_mx_seconds if verb.on == "host" and console.overview else DEFAULT_TIME
        return Blank(parameter.name, _LABELS[parameter.name], duration(value or usual), check=parse_duration)
    return Blank(parameter.name, _LABELS[parameter.name], value, check=_must_be_named if parameter.required else None)


def _must_be_named(text: str) -> str:
    if not text.strip():
        raise ValueError("it must be named")
    return text


async def _agreed(console: Desk[Front], verb: Verb, ask: DryAsk, target: Target | None, *, named: str) -> Any:
    """Look what would be touched, and ask where that is more than one message; None where it is left.

    What has a time or a note is asked for them, and then for one message too; and once more where some of it would
    be given up before the time that was filled in.
    """
    fields = _blanks(console, verb, msgspec.structs.asdict(ask))
    is_single = target is not None and target.single and not named
    if isinstance(ask, MailAsk) and is_single and not fields:
        console.go_on()
        return ask
    selection = await _would(console, ask)
    if selection is None:
        return None
    if isinstance(ask, MailAsk):
        if not selection.messages:
            console.tell(f"{verb.label}: nothing matches {ask.filter}", "warn")
            return None
        ask = replace(ask, newest=selection.newest)
    if selection.messages <= 1 and not fields:
        return ask
    what = target.what if target is not None and not named else ""
    while True:
        answers = await console.ask(confirmation(console, verb, ask, selection, fields, what))
        if answers is None:
            return _left(console, verb)
        seen, ask = ask, replace(ask, **_read(fields, answers))
        if not isinstance(ask, Postpone) or ask == seen:
            return ask
        # With another time it is other mail that would be given up before that; where there is any, that is said.
        looked_at = await _would(console, ask)
        if looked_at is None or not looked_at.outlasting:
            return ask
        selection, fields = looked_at, _blanks(console, verb, msgspec.structs.asdict(ask))


async def _would(console: Desk[Front], ask: DryAsk) -> Selection | None:
    try:
        return await console.client.would(ask)
    except Refused as error:
        health = console.overview.health if console.overview else None
        is_of_one = isinstance(ask, Resume) and ask.destination != RELAY
        if is_of_one and error.refusal.not_found and health is not None and health.suspended is not None:
            console.tell(f"✗ {error.refusal.what}, but the whole relay is: :resume all", "warn")
            return None
        raise


def confirmation(
    console: Desk[Front], verb: Verb, ask: DryAsk, selection: Selection, fields: list[Blank], what: str = ""
) -> Dialog:
    """Say exactly what would be touched: how many, named how (`what` in words), for example which, and what follows."""
    health = console.overview.health if console.overview else None
    over = health.confirm_typed_over if health else 1000
    counted = f"{plural(selection.messages, 'message')}, {plural(selection.recipients, 'recipient')}"
    which, name = _which(verb, ask, what)
    undo = f" It can be undone for {health.undo_seconds if health else 10:.0f} s." if verb.gives_up else ""
    body = [
        Para(),
        para(("  ", ""), (counted, "bold"), (f"  {which}  ", "dim"), (name, "bold"), hang=2),
        para((f"  {verb.follows}{undo}", ""), hang=2),
        *([para((f"  {words.outlasting(ask, selection)}", "warn"), hang=2)] if selection.outlasting else []),
        Para(),
        para(("  for example" if selection.messages > len(selection.examples) else "  namely", "dim")),
        *(_example(entry) for entry in selection.examples),
        Para(),
    ]
    is_of_mail = isinstance(ask, MailAsk)
    return Dialog(
        f"{verb.label} {plural(selection.messages, 'message')}?" if is_of_mail else verb.question.format(name),
        body,
        ok=f"{verb.label} {selection.messages:,}" if is_of_mail else verb.label,
        danger=verb.gives_up,
        fields=fields,
        typed=selection.messages if selection.messages > over else None,
        fill=bool(fields) and not verb.gives_up,
    )


def _which(verb: Verb, ask: DryAsk, what: str) -> tuple[str, str]:
    """By what the messages are named that an ask would touch, in two parts."""
    if isinstance(ask, MailAsk):
        return "that match", ask.filter if len(ask.filter) <= 200 else f"{what} ({ask.filter[:60]}…)"
    subject = _subject(verb)
    name = str(getattr(ask, subject.name)) if subject is not None else ""
    if verb.ending == "rule":
        return "are held by hold rule", name
    return ("wait in", "the whole relay") if name == RELAY else ("wait for", name)


def _example(entry: Entry) -> Para:
    """One of the messages an action would touch."""
    return para(
        (f"  {entry.id:>9}  ", "dim"),
        (crop(safe(entry.recipient), 26), ""),
        (f"  from {crop(safe(entry.sender or '<>'), 22)}", "dim"),
    )


def _left(console: Desk[Front], verb: Verb) -> None:
    console.tell(f"{verb.label}: left as it was", "dim")


# -- what is said of it ---------------------------------------------------------------------------------------------


def coming(result: Result) -> str:
    """What an action will do when its time has come, exactly."""
    what = plural(result.messages, "message")
    if result.recipients != result.messages:
        what += f" ({plural(result.recipients, 'recipient')})"
    return f"{what} will be {'bounced' if result.verb == 'bounce' else 'dropped'}"


def summary(result: Result) -> str:
    """What an action did, in one sentence: the engine's own, or made from its counts."""
    return result.text or f"{result.verb}: {plural(result.messages, 'message')}"


def refused(error: Refused) -> str:
    """Why the engine did not do it: what is wrong, where, and what is allowed."""
    refusal = error.refusal
    said = ": ".join(part for part in (refusal.where, refusal.what) if part)
    return f"{said} (allowed: {refusal.allowed})" if refusal.allowed else said
