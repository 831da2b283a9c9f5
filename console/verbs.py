"""What the verbs do: they ask first where it is called for, then the engine, then say exactly what came of it."""

from collections.abc import Sequence

from console.actions import Target
from console.desk import Desk
from console.format import BadDuration, duration, parse_duration, safe
from console.screens.dialogs import Blank, Choose, Dialog, Option
from console.screens.front import Front
from console.widgets.document import Para, para
from console.widgets.line import crop
from engine.base.plural import plural
from engine.control.client import Refused
from engine.control.views import Action, MarkBad, ResultView, Suspend, Verb
from engine.model.destination import RELAY
from engine.model.message import Entry, Selection

DEFAULT_SUSPENSION = 3_600.0  # seconds offered when asked how long
WORDS: dict[Verb, str] = {
    "retry": "Retry",
    "hold": "Hold",
    "release": "Release",
    "bounce": "Bounce",
    "drop": "Drop",
}
FREELY: frozenset[Verb] = frozenset({"retry", "release"})  # no question for a single message
ASK_WHY: frozenset[Verb] = frozenset({"hold", "bounce", "drop"})


class TooLate(Exception):
    """The question came too late: it is not put any more, and nothing was done."""

    def __str__(self) -> str:
        return "the question came too late to be put, and nothing was done: press the key again"


class Mistyped(ValueError):
    """A command line cannot be followed; the text says how it is written."""


async def mail(console: Desk[Front], verb: Verb, argument: str, target: Target | None) -> None:
    """Retry, hold, release, bounce or drop: what a filter names, or what is marked or pointed at."""
    if argument:
        target = Target(argument, filter=argument)
    if target is None or not target.filter:
        first = "a message" if target is not None and target.destination else "a message or a destination"
        console.tell(f"{WORDS[verb]}: point at {first} first, or name a filter", "warn")
        return
    if target.single and verb in FREELY:
        console.go_on()
        console.report(await console.client.act(verb, Action(filter=target.filter)))
        return
    selection = await console.client.preview(verb, Action(filter=target.filter))
    if not selection.messages:
        console.tell(f"{WORDS[verb]}: nothing matches {target.filter}", "warn")
        return
    reason = ""
    if selection.messages > 1 or verb not in FREELY:
        answers = await console.ask(confirmation(console, verb, target, selection))
        if answers is None:
            console.tell(f"{WORDS[verb]}: left as it was", "dim")
            return
        reason = answers.get("why", "")
    console.report(await console.client.act(verb, Action(filter=target.filter, reason=reason, newest=selection.newest)))


def confirmation(console: Desk[Front], verb: Verb, target: Target, selection: Selection) -> Dialog:
    """Say exactly what would be touched: how many, by what filter, for example which, and what follows."""
    health = console.overview.health if console.overview else None
    undo = health.undo_seconds if health else 10
    follows = {
        "retry": "They are due now.",
        "hold": "They stay in the queue, unsent, until they are released.",
        "release": "They may be sent again when they are due.",
        "bounce": f"Their senders are told. It can be undone for {undo:.0f} s.",
        "drop": f"Nobody is told. It can be undone for {undo:.0f} s.",
    }[verb]
    scope = target.filter if len(target.filter) <= 200 else f"{target.what} ({target.filter[:60]}…)"
    return bulk(
        console,
        WORDS[verb],
        ("that match", scope),
        follows,
        selection,
        danger=verb in ("bounce", "drop"),
        fields=[Blank("why", "why (is recorded)")] if verb in ASK_WHY else (),
    )


def bulk(
    console: Desk[Front],
    word: str,
    named: tuple[str, str],
    follows: str,
    selection: Selection,
    *,
    danger: bool = False,
    fields: Sequence[Blank] = (),
) -> Dialog:
    """Ask before many messages are touched: which by exact count, `named` how, three of them, and what follows."""
    over = console.overview.health.confirm_typed_over if console.overview else 1000
    counted = f"{plural(selection.messages, 'message')}, {plural(selection.recipients, 'recipient')}"
    body = [
        Para(),
        para(("  ", ""), (counted, "bold"), (f"  {named[0]}  ", "dim"), (named[1], "bold"), hang=2),
        para((f"  {follows}", ""), hang=2),
        Para(),
        para(("  for example" if selection.messages > len(selection.examples) else "  namely", "dim")),
        *(example(entry) for entry in selection.examples),
        Para(),
    ]
    return Dialog(
        f"{word} {plural(selection.messages, 'message')}?",
        body,
        ok=f"{word} {selection.messages:,}",
        danger=danger,
        fields=fields,
        typed=selection.messages if selection.messages > over else None,
    )


async def agreed(console: Desk[Front], word: str, named: tuple[str, str], follows: str, selection: Selection) -> bool:
    """Whether to go on: what lets go more than one message says first how many."""
    if selection.messages <= 1:
        return True
    if await console.ask(bulk(console, word, named, follows, selection)) is not None:
        return True
    console.tell(f"{word}: left as it was", "dim")
    return False


def example(entry: Entry) -> Para:
    """One of the messages an action would touch."""
    return para(
        (f"  {entry.id:>9}  ", "dim"),
        (crop(safe(entry.recipient), 28), ""),
        (f"  from {crop(safe(entry.sender or '<>'), 24)}", "dim"),
    )


async def suspend(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Suspend a destination or the relay; asks how long and why, unless both were typed."""
    name, seconds, reason = name_time_why(argument)
    name = name or (target.destination if target else "")
    if not name:
        console.tell("Suspend: point at a destination first, or name one (:suspend all for the whole relay)", "warn")
        return
    name = RELAY if name.lower() in ("all", RELAY) else name
    if not (argument and seconds is not None and reason):
        answers = await console.ask(
            how_long_and_why(
                f"Suspend {'the whole relay' if name == RELAY else name}?",
                "No new connections are opened until then; open ones finish. It ends by itself.",
                "Suspend",
                seconds if seconds is not None else DEFAULT_SUSPENSION,
                reason,
            )
        )
        if answers is None:
            console.tell("Suspend: left as it was", "dim")
            return
        seconds, reason = parse_duration(answers["for"]), answers["why"]
    console.report(await console.client.suspend(Suspend(destination=name, seconds=seconds or 0, reason=reason)))


async def resume(console: Desk[Front], argument: str, target: Target | None) -> None:
    """End the suspension of what is pointed at or named; the whole relay's only where it is named."""
    name = argument or (target.destination if target else "")
    if not name:
        console.tell("Resume: point at a destination first, or name one (:resume all for the whole relay)", "warn")
        return
    name = RELAY if name.lower() in ("all", RELAY) else name
    try:
        selection = await console.client.preview_resume(name)
    except Refused as error:
        health = console.overview.health if console.overview else None
        if name != RELAY and error.refusal.not_found and health is not None and health.suspended is not None:
            console.tell(f"✗ {error.refusal.what}, but the whole relay is: :resume all", "warn")
            return
        raise
    where = ("wait in", "the whole relay") if name == RELAY else ("wait for", name)
    if await agreed(console, "Resume", where, "Connections are opened again, at first one to each site.", selection):
        console.report(await console.client.resume(name))


async def mark_bad(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Leave a host out; asks which, how long and why, as far as that was not typed."""
    host, seconds, reason = name_time_why(argument)
    if not host:
        host = await one_of(console, "Mark bad: which of its exchanges?", target, bad=False)
        if not host:
            return
    if not (argument and seconds is not None):
        default = console.overview.health.bad_mx_seconds if console.overview else 3_600.0
        answers = await console.ask(
            how_long_and_why(
                f"Mark {host} bad?",
                "It is left out until then, or until it is marked good. Mail goes to other exchanges, if any.",
                "Mark bad",
                default,
                reason,
            )
        )
        if answers is None:
            console.tell("Mark bad: left as it was", "dim")
            return
        seconds, reason = parse_duration(answers["for"]), answers["why"]
    console.report(await console.client.mark_bad(MarkBad(host=host, seconds=seconds, reason=reason)))


async def mark_good(console: Desk[Front], argument: str, target: Target | None) -> None:
    """Use a host again, at once; where much mail waits for it, after a question."""
    host = argument or await one_of(console, "Mark good: which host?", target, bad=True)
    if not host:
        return
    selection = await console.client.preview_good(host)
    follows = "They are due now, and go gently: one connection first, then 2, 4, 8."
    if await agreed(console, "Mark good", ("wait for", host), follows, selection):
        console.report(await console.client.mark_good(host))


async def check(console: Desk[Front]) -> None:
    """Run check_state now."""
    console.go_on()
    console.report(await console.client.check())


async def undo(console: Desk[Front]) -> None:
    """Take back the last bounce or drop of this console."""
    console.go_on()
    result = console.undoable
    if result is None:
        console.tell("Undo: there is nothing that could be taken back", "warn")
        return
    console.report(await console.client.undo(result.operation))


async def one_of(console: Desk[Front], title: str, target: Target | None, *, bad: bool) -> str:
    hosts = () if target is None else target.bad if bad else target.hosts
    if not hosts:
        known = target is not None and bool(target.hosts)
        why = f"{target.what} has no bad host" if bad and known and target else "point at a host or a destination first"
        console.tell(f"{title.partition(':')[0]}: {why}", "warn")
        return ""
    if len(hosts) == 1:
        return hosts[0]
    back_at = _marked(console)
    options = [
        Option(host, f"bad, back in {console.moment.left(back_at[host])}" if host in back_at else "") for host in hosts
    ]
    return await console.choose(Choose(title, options)) or ""


def _marked(console: Desk[Front]) -> dict[str, float]:
    """When the marks end of hosts that are known to be bad."""
    seen = console.overview
    if seen is None:
        return {}
    of_destinations = {one.host: one.until for row in seen.destinations for one in row.marked}
    return of_destinations | {row.host: row.until for row in seen.hosts}


def how_long_and_why(title: str, follows: str, ok: str, seconds: float, reason: str) -> Dialog:
    body = [Para(), para((f"  {follows}", ""), hang=2), Para()]
    fields = [
        Blank("for", "for how long", duration(seconds), check=parse_duration),
        Blank("why", "why (is recorded)", reason),
    ]
    return Dialog(title, body, ok=ok, fields=fields, fill=True)


def name_time_why(argument: str) -> tuple[str, float | None, str]:
    """Read `NAME [DURATION] [WHY]`. Raises Mistyped when what looks like a duration is none that is allowed."""
    name, _, rest = argument.partition(" ")
    first, _, others = rest.strip().partition(" ")
    if not first:
        return name, None, ""
    try:
        return name, parse_duration(first), others.strip()
    except BadDuration as error:
        if first[0].isdigit():
            raise Mistyped(str(error)) from error
        return name, None, rest.strip()


def coming(result: ResultView) -> str:
    """What an action will do when its time has come, exactly."""
    what = plural(result.messages, "message")
    if result.recipients != result.messages:
        what += f" ({plural(result.recipients, 'recipient')})"
    return f"{what} will be {'bounced' if result.verb == 'bounce' else 'dropped'}"


def summary(result: ResultView) -> str:
    """What an action did, in one sentence: the engine's own, or made from its counts."""
    return result.text or f"{result.verb}: {plural(result.messages, 'message')}"


def refused(error: Refused) -> str:
    """Why the engine did not do it: what is wrong, where, and what is allowed."""
    refusal = error.refusal
    said = ": ".join(part for part in (refusal.where, refusal.what) if part)
    return f"{said} (allowed: {refusal.allowed})" if refusal.allowed else said
