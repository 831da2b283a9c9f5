"""The one wording of every fact: what a row, an event or an answer says, for screens and commands alike.

Words alone. Which glyph and colour go with them is in widgets.rows, and how they are laid out is for who shows them.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from console.format import Moment, count, duration, span
from engine.base.plural import agree, plural
from engine.control.views import RelayerView, StandingView
from engine.model.destination import RELAY, BadHost, Destination, Suspension
from engine.model.event import ENGINE, Event
from engine.model.explanation import Explanation
from engine.model.message import Attempt, Entry, Message, Selection
from engine.model.node import NodeState
from engine.model.probe import ProbedAddress
from engine.model.verbs import DryAsk, Tone

_BEFORE_TLS = ("lookup", "connecting", "greeting", "hello", "TLS")


class Fact(NamedTuple):
    """Something that has a name; `tone` is "" where it is neither good nor bad."""

    name: str
    text: str
    tone: Tone = ""


# -- messages and their recipients ----------------------------------------------------------------------------------


def sender(address: str) -> str:
    """Who sent it; the null sender is `<>`."""
    return address or "<>"


def standing_of(row: Entry) -> str:
    """The state of a recipient, or what was ordered of it and is to come: waiting, relaying, held, bounce, drop."""
    return row.ordered if row.ordered in ("bounce", "drop") and row.order_at is not None else row.state


def says(row: Entry) -> str:
    """The last reply; of what was never tried, why it was not, as far as there is a reason."""
    if row.last is not None:
        return row.last.line
    if row.condition in ("ready", "relaying") or not row.condition_why:
        return ""
    return f"not tried, {row.condition}: {row.condition_why}"


def next_try(row: Entry, moment: Moment) -> str:
    """When it will be tried again, or what was ordered is done; `-` where no time leads to that."""
    if row.ordered in ("bounce", "drop") and row.order_at is not None:
        return moment.left(row.order_at)
    if row.state == "relaying":
        return "now"
    if row.next_try is None:
        return "due" if row.condition == "limited" else "-"
    return "due" if row.next_try <= moment.now else moment.left(row.next_try)


def next_step(row: Entry, moment: Moment) -> str:
    """The same at length: `next try 10:12:03 (in 9m)`, `due now`, `bounce 10:02:20 (in 9s)`; "" where nothing is."""
    if row.order_at is not None:
        return f"{row.ordered} {moment.near(row.order_at)}"
    if row.state != "waiting" or row.next_try is None:
        return ""
    return "due now" if row.next_try <= moment.now else f"next try {moment.near(row.next_try)}"


def tries(row: Entry) -> str:
    """How often it was tried."""
    return plural(row.attempts, "try", "tries") if row.attempts else "not tried yet"


def order(row: Entry) -> str:
    """What was ordered of it, by whom and why; "" where nothing was."""
    if not (row.ordered or row.by or row.note):
        return ""
    return f"{row.ordered or row.state} by {row.by or 'the engine'}: {row.note or 'no note'}"


def waits(row: Entry) -> str:
    """What keeps it, where something does: `blocked: connection refused`."""
    if row.condition in ("ready", "relaying"):
        return ""
    return ": ".join(filter(None, (row.condition, row.condition_why)))


def attempt(attempt: Attempt, moment: Moment) -> tuple[str, str]:
    """How an attempt ended, and where that was: the host, the phase, how safe it was."""
    if attempt.outcome is None:
        running = f"running for {span(moment.now - attempt.started)}"
        who = f"node {attempt.node}" if attempt.node else "the engine"
        at = f"node {attempt.node}" if attempt.node and not attempt.interrupted else ""
        return (f"interrupted: {who} ended in the middle of it" if attempt.interrupted else running), at
    place = " ".join(
        filter(None, (attempt.outcome.host, f"at {attempt.outcome.phase}" if attempt.outcome.phase else ""))
    )
    by = f"by node {attempt.node}" if attempt.node else ""
    return attempt.outcome.kind, "  ".join(filter(None, (place, attempt.outcome.secured, by)))


# The worst first.
FATES = {"returned": "returned to its sender", "discarded": "discarded", "dropped": "dropped", "delivered": "delivered"}
DUPLICATE = "the peer may have taken it although its answer was lost"


def fates(message: Message) -> list[tuple[str, str]]:
    """The kinds of event by which the recipients of a message left, the worst first, each in words: `2 delivered`.

    Of one recipient no number is said. Empty where the events that told of it are not kept any more.
    """
    counts = Counter[str](event.kind for event in message.events if event.kind in FATES)
    whole = sum(counts.values())
    return [
        (kind, words if whole == 1 else f"{counts[kind]:,} {words}") for kind, words in FATES.items() if counts[kind]
    ]


# -- destinations ---------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """What keeps a destination's mail: in a word ("" where nothing does), the time left until that changes, and why."""

    name: str
    left: str = ""
    why: str = ""


def state(row: Destination, moment: Moment) -> State:
    """What a destination's mail is, in short."""
    why, left = row.condition_why, next_left(row, moment)
    match row.condition:
        case "suspended" if row.suspended is not None:
            return State("suspended", moment.left(row.suspended.until), row.suspended.note)
        case "suspended" | "draining":
            return State(why or row.condition)
        case "blocked" | "hosts bad":
            return State(row.condition, left or (moment.left(row.blocked_until) if row.blocked_until else ""), why)
        case "not due":
            return State("deferred" if why else "not due", left, why)
        case "limited":
            return State("limited", "", why)
        case "ready":
            return State("ready")
        case "held" | "idle" if row.held and not row.waiting:
            return State(f"{count(row.held)} held")
    return State("")


def status(row: Destination, moment: Moment) -> tuple[str, str]:
    """The same at length, a sentence in two parts: what it is until when, and why. Both are "" where nothing is."""
    match row.condition:
        case "suspended" if row.suspended is not None:
            return suspension(row.suspended, moment)
        case "relaying":
            return "relaying", f" over {plural(row.connections, 'connection')}"
        case "ready":
            return "ready", ": it goes at the next check"
    name, left, why = state(row, moment)
    following = f", next try {left if left == 'now' else f'in {left}'}" if left else ""
    return f"{name}{following}", f": {why}" if why else ""


def suspension(suspension: Suspension, moment: Moment) -> tuple[str, str]:
    """A suspension, a sentence in two parts: until when; by whom, for how long and why."""
    until = f"suspended until {moment.short(suspension.until)}, {moment.left(suspension.until)} left"
    lasting = duration(suspension.until - suspension.since)
    return until, f", by {suspension.by or 'the engine'} for {lasting}: {suspension.note or 'no note'}"


def next_left(row: Destination | BadHost, moment: Moment, none: str = "") -> str:
    """The time until its mail is tried next."""
    return none if row.next_try is None else moment.left(row.next_try)


# -- hosts and connections ------------------------------------------------------------------------------------------


def why_bad(row: BadHost) -> str:
    """Why a host is bad, and what it said last where that is something else."""
    said = row.last.line if row.last is not None else ""
    if not row.note or not said:
        return row.note or said or "no note"
    return said if row.note in said else f"{row.note}: {said}"


def place(row: RelayerView) -> str:
    """To which address a connection is: `mx.example.org [192.0.2.1]:25`."""
    return f"{row.host} [{row.address}]:{row.port}" if row.address else row.host or "a host not known yet"


def phase(row: RelayerView) -> str:
    """Where in the conversation it is, or how it ended."""
    return (row.result or "ended") if row.ended is not None else row.phase


def tls(row: RelayerView) -> str:
    """The version of TLS alone: `1.3`, `1.3?` where the certificate is not trusted, `none`; `-` while that is open."""
    return f"{_version(row.tls, row.phase) or '-'}{'?' if row.tls and row.trusted is False else ''}"


def _version(tls: str, phase: str) -> str:
    """The number of a version of TLS, or `none`; "" in a phase in which that is still open."""
    if not tls:
        return "" if phase in _BEFORE_TLS else "none"
    number = tls.removeprefix("TLSv")
    return number if "." in number else f"{number}.0"  # OpenSSL's "TLSv1" is 1.0


# -- nodes ----------------------------------------------------------------------------------------------------------


def node(row: NodeState) -> str:
    """What a node is in a word: relaying, drained, sick, silent, lost."""
    if row.is_lost:
        return "lost"
    if row.is_drained:
        return "drained"
    if row.is_silent:
        return "silent"
    return "sick" if row.said.state == "sick" else "relaying"


def node_says(row: NodeState, moment: Moment) -> str:
    """Why a node is what it is, where there is something to say."""
    said = []
    if row.is_lost:
        said.append(f"not heard of since {moment.short(row.beat)}: others send what it had")
    elif row.is_silent:
        said.append("it lives, and does not answer")
    if row.drained_at is not None:
        relays = f", {plural(row.said.relaying, 'message')} to finish" if row.said.relaying and not row.is_lost else ""
        word = "drained " if row.is_lost or row.is_silent else ""  # else it is what the node is
        said.append(f"{word}by {row.drained_by} since {moment.short(row.drained_at)}{relays}")
    if not row.is_lost and row.said.trouble:
        said.append(row.said.trouble)
    return "; ".join(said)


# -- events ---------------------------------------------------------------------------------------------------------


def whom(row: Event) -> str:
    """Whom or what an event happened to."""
    whole = "the relay" if row.destination == RELAY else row.destination
    return row.recipient or row.host or whole or row.sender or (f"{row.message}" if row.message else "")


def event(row: Event) -> str:
    """What was said or done, and by whom when it was an operator."""
    said = row.text
    if row.outcome is not None:
        said = f"{row.outcome.line}{f' ({row.outcome.secured})' if row.outcome.secured else ''}"
    if row.by in ("", ENGINE):
        return said
    return f"{row.by}: {said}" if said else f"by {row.by}"


# -- questions ------------------------------------------------------------------------------------------------------


def outlasting(ask: DryAsk, chosen: Selection) -> str:
    """What becomes of the end of mail that has its time before it would be due: it is given up no sooner than then."""
    named, they = plural(chosen.outlasting, "recipient"), agree(chosen.outlasting, "it is", "they are")
    lasting = getattr(ask, "seconds", None)
    if lasting is None:
        had = agree(chosen.outlasting, "has had its time: it is", "have had their time: they are")
        return f"{named} {had} given up now, unless {agree(chosen.outlasting, 'it', 'they')} can be sent."
    within = f"would be given up within {duration(lasting)}"
    return f"{named} {within}: {they} given up after that, unless {agree(chosen.outlasting, 'it', 'they')} can be sent."


# -- answers --------------------------------------------------------------------------------------------------------


def standing(row: StandingView) -> tuple[str, str]:
    """What stands until a time: what it is, and upon whom."""
    name = "the whole relay" if row.kind == "suspension" and row.name == RELAY else row.name
    return (f"{row.kind} {row.rule}" if row.rule else row.kind), name


def cause(explanation: Explanation) -> str:
    """The cause in words; where there is none, that."""
    return "nothing holds it back" if explanation.cause == "nothing" else explanation.cause


def earliest(explanation: Explanation, moment: Moment) -> str:
    """When it can be sent."""
    if explanation.cause == "being relayed":
        return "it is on its way"
    if explanation.cause == "refused by DNS":
        return "never: it will be returned"
    if explanation.cause == "to be bounced":
        return "never, unless that is undone: it will be returned"
    if explanation.cause == "to be dropped":
        return "never, unless that is undone"
    if explanation.earliest is None:
        return "not before something else happens"
    return "now" if explanation.earliest <= moment.now else moment.both(explanation.earliest)


def probed(address: ProbedAddress, moment: Moment) -> Iterator[Fact]:
    """What an address of a host answered."""
    if address.trouble:
        at = "" if address.trouble.startswith("connect: ") else f", at {address.phase}"
        yield Fact("trouble", f"{address.trouble}{at}", "bad")
    if address.greeting:
        yield Fact("greeting", address.greeting)
    if address.offered:
        yield Fact("offers", ", ".join(address.offered))
    if version := _version(address.tls, address.phase):  # who answered no EHLO has not said whether there is TLS
        yield Fact("TLS", version)
    yield from _certificate(address, moment)
    if address.offered_secured:
        yield Fact("under TLS", ", ".join(address.offered_secured))


def _certificate(address: ProbedAddress, moment: Moment) -> Iterator[Fact]:
    """The certificate, and whether it is right."""
    shown = address.certificate
    if shown is None:
        return
    if shown.trouble:
        yield Fact("certificate", f"cannot be read: {shown.trouble}", "bad")
        return
    yield Fact(
        "certificate", *(("right for this host", "good") if address.verifies else (address.verify_trouble, "warn"))
    )
    yield Fact("subject", shown.subject or "(none)")
    yield Fact("names", ", ".join(shown.names) or "(none)")
    yield Fact("issuer", shown.issuer)
    if shown.until is not None:
        yield Fact("valid until", moment.both(shown.until), "bad" if shown.until <= moment.now else "")
