"""How the listings lay out what is said of each view: rows for columns, and lines for what is read by itself."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from console import words
from console.commands.columns import Column
from console.format import Moment, age, rate, size, span
from engine.base.plural import plural
from engine.control import views
from engine.model.destination import BadHost, Destination
from engine.model.event import Event
from engine.model.message import Attempt, Entry, Message
from engine.model.node import NodeState
from engine.model.reason import Reason

WIDE = 110  # from this width on there is room for more columns


def here_and_now() -> Moment:
    """Now, in the zone of whoever reads."""
    return Moment(time.time(), datetime.now(UTC).astimezone().tzinfo or UTC)


# -- the queue ------------------------------------------------------------------------------------------------------

QUEUE = (
    Column("ID"),
    Column("STATE"),
    Column("NEXT TRY", right=True),
    Column("TRIES", right=True),
    Column("RECIPIENT", least=16),
    Column("LAST REPLY", least=12),
)
QUEUE_WIDE = (*QUEUE[:5], Column("SENDER", least=16), Column("AGE", right=True), Column("SIZE", right=True), QUEUE[5])


def queue_row(row: Entry, moment: Moment, wide: bool) -> list[str]:
    """A row of the queue."""
    more = [words.sender(row.sender), moment.since(row.arrived), size(row.size)] if wide else []
    following = words.next_try(row, moment)
    return [row.id, words.standing_of(row), following, str(row.attempts), row.recipient, *more, words.says(row)]


# -- destinations, relayers, hosts ----------------------------------------------------------------------------------

DESTINATIONS = (
    Column("DESTINATION", least=16),
    Column("WAITING", right=True),
    Column("DUE", right=True),
    Column("HELD", right=True),
    Column("OLDEST", right=True),
    Column("OUT/S", right=True),
    Column("STATE OR LAST REPLY", least=12),
)


def destination_row(row: Destination, moment: Moment) -> list[str]:
    """A row of the destinations."""
    oldest = moment.since(row.oldest) if row.oldest is not None else "-"
    counts = [f"{number:,}" for number in (row.waiting, row.due, row.held)]
    return [row.name, *counts, oldest, rate(row.rate_out), destination_state(row, moment)]


def destination_state(row: Destination, moment: Moment) -> str:
    """Why the mail of a destination waits, if it does, else what it said last; and where it goes instead, if so."""
    instead = f"to {row.override.to}" if row.override else ""
    waits = "" if row.condition == "relaying" else "".join(words.status(row, moment))
    return "; ".join(filter(None, (instead, waits or (row.last.line if row.last else ""))))


RELAYERS = (
    Column("ID", right=True),
    Column("HOST", least=16),
    Column("PHASE"),
    Column("TIME", right=True),
    Column("DONE", right=True),
    Column("TLS"),
    Column("DESTINATION", least=12),
)


def relayer_row(row: views.RelayerView, moment: Moment) -> list[str]:
    """A row of the relayers; one that has ended tells its result."""
    host = row.host or row.address
    done = f"{row.done}/{row.taken}"
    if row.ended is not None:
        ago = f"{age(moment.now - row.ended)} ago"
        return [str(row.id), host, "ended", ago, done, words.tls(row), f"{row.destination}: {words.phase(row)}"]
    phase = f"{row.phase} (stalling)" if row.stalling else row.phase
    time_in = span(moment.now - row.phase_since)
    return [str(row.id), host, phase, time_in, done, words.tls(row), row.destination]


RELAYERS_OF_NODES = (*RELAYERS, Column("NODE"))

NODES = (
    Column("NODE", least=8),
    Column("STATE"),
    Column("CONNS", right=True),
    Column("MAIL", right=True),
    Column("IN/S", right=True),
    Column("OUT/S", right=True),
    Column("UP", right=True),
    Column("HEARD", right=True),
    Column("VERSION"),
    Column("WHAT IS TO BE KNOWN", least=12),
)


def node_row(row: NodeState, moment: Moment) -> list[str]:
    """A row of the nodes; of one that is lost nothing is known that it said."""
    said = row.said
    load = [f"{said.connections}/{said.max_connections}", str(said.relaying), rate(said.rate_in), rate(said.rate_out)]
    if row.is_lost:
        load = ["-"] * len(load)
    up = "-" if row.is_lost else moment.since(row.since)
    name = f"{row.name} *" if row.is_this else row.name
    return [name, words.node(row), *load, up, moment.since(row.beat), row.version, words.node_says(row, moment)]


HOSTS = (
    Column("HOST", least=16),
    Column("BACK IN", right=True),
    Column("WAITING", right=True),
    Column("BY"),
    Column("WHY", least=16),
)
HOSTS_WIDE = (*HOSTS[:4], Column("USED INSTEAD", least=12), HOSTS[4])


def host_row(row: BadHost, moment: Moment, wide: bool) -> list[str]:
    """A row of the hosts marked bad."""
    instead = [", ".join(row.alternates) or "none"] if wide else []
    return [row.host, moment.left(row.until), f"{row.waiting:,}", row.by, *instead, words.why_bad(row)]


REASONS = (
    Column("RECIPIENTS", right=True),
    Column("MESSAGES", right=True),
    Column("DESTINATIONS", right=True),
    Column("OLDEST", right=True),
    Column("REASON"),  # never cut: it is what one writes after group=
)
REASONS_WIDE = (*REASONS[:4], Column("MOST OF IT FOR", least=12), REASONS[4])


def reason_row(row: Reason, moment: Moment, wide: bool) -> list[str]:
    """A row of the reasons."""
    counts = [f"{number:,}" for number in (row.entries, row.messages, row.destinations)]
    most = [", ".join(row.busiest)] if wide else []
    return [*counts, moment.since(row.oldest), *most, row.group]


# -- what is read by itself -----------------------------------------------------------------------------------------


def event_line(event: Event, moment: Moment) -> str:
    """An event in one line: when, what, to whom, and whose words it rests on."""
    named = event.of or (str(event.message) if event.message else "")
    whom = words.whom(event)
    host = f"({event.host})" if event.host and event.host != whom else ""
    at = f"node {event.node}" if event.node else ""
    what = "  ".join(filter(None, (named, "" if whom == named else whom, words.event(event), host, at)))
    return f"{moment.clock(event.at)}  {event.kind:<11}  {what}"


def health_lines(health: views.HealthView, moment: Moment) -> Iterator[str]:
    """The state of the relay."""
    yield f"{health.hostname}  {health.state}{': ' + health.trouble if health.trouble else ''}"
    if health.suspended is not None:
        yield f"  {''.join(words.suspension(health.suspended, moment))}"
    of_due = f"{health.due:,} due, {health.ready:,} ready"
    yield f"  queue        {health.waiting:,} waiting, {of_due}, {health.held:,} held, {health.relaying:,} being sent"
    if health.oldest is not None:
        yield f"  oldest       {moment.both(health.oldest)}"
    yield f"  destinations {health.destinations:,} with mail, {health.destinations_known:,} known"
    yield f"  rate         {rate(health.rate_in)}/s in, {rate(health.rate_out)}/s out"
    yield f"  connections  {health.connections} of {health.max_connections}"
    yield f"  look-ups     {health.lookups} of {health.max_lookups}"
    if health.next_check is not None:
        yield f"  next check   {moment.left(health.next_check)}"
    if health.node:
        lost = f", {health.nodes_lost} lost" if health.nodes_lost else ""
        yield f"  node         {health.node}, one of {health.nodes}{lost}"
    yield f"  engine       {health.version}, pid {health.pid}, since {moment.both(health.started)}"
    yield from (f"  note         {note}" for note in health.notes)


def message_lines(message: Message, moment: Moment) -> Iterator[str]:
    """A message: envelope, recipients, attempts with full replies, events, headers."""
    became = ", ".join(said for _, said in words.fates(message))
    left = f", which has left the queue{f': {became}' if became else ''}"
    yield f"message {message.number}{left if message.finished else ''}"
    yield f"  from        {words.sender(message.sender)}"
    if message.arrived:
        yield f"  arrived     {moment.both(message.arrived)}"
    if not message.finished:
        yield f"  expires     {moment.both(message.expires)}"
        yield f"  size        {message.size:,} bytes ({size(message.size)})"
        yield f"  came by     {message.origin}"
        yield f"  subject     {message.subject}"
        yield f"  message-id  {message.message_id}"
    for title, lines in (
        ("recipients", [line for row in message.entries for line in _recipient(row, moment)]),
        ("attempts", [_attempt(message.number, attempt, moment) for attempt in message.attempts]),
        ("events", [event_line(event, moment) for event in message.events]),
        ("headers", message.headers),
    ):
        if lines:
            yield ""
            yield title
            yield from (f"  {line}" for line in lines)


def transcript_lines(found: views.TranscriptView, moment: Moment) -> Iterator[str]:
    """What a relayer and its peer have said."""
    relayer = found.relayer
    state = f"in {relayer.phase}"
    if relayer.ended is not None:
        state = f"ended {moment.both(relayer.ended)}: {relayer.result}"
    done = f"{relayer.done} of {relayer.taken} done"
    of = f" of node {relayer.node}" if relayer.node else ""
    yield f"relayer {relayer.id}{of} to {words.place(relayer)} for {relayer.destination}, {done}, {state}"
    if len(relayer.domains) > 1:
        yield f"it has carried mail for {', '.join(relayer.domains)}"
    if found.cut:
        yield f"({plural(found.cut, 'line')} in the middle not kept)"
    yield from (f"{moment.clock(line.at)} {line.side} {line.text}" for line in found.lines)


def _recipient(row: Entry, moment: Moment) -> Iterator[str]:
    yield f"{row.id}  {row.recipient}  " + ", ".join(
        filter(None, (row.state, words.tries(row), words.next_step(row, moment)))
    )
    if said := words.order(row) or words.waits(row):
        yield f"    {said}"
    if row.last is not None:
        at = f", {moment.both(row.last_at)}" if row.last_at is not None else ""
        yield f"    last {row.last.kind}{at}"
        yield f"    {row.last.line}{f' ({row.last.host})' if row.last.host else ''}"


def _attempt(message: int, attempt: Attempt, moment: Moment) -> str:
    said, place = words.attempt(attempt, moment)
    began = f"{moment.clock(attempt.started)}  {message}.{attempt.entry}  relayer {attempt.relayer}"
    if attempt.outcome is None or attempt.ended is None:
        return f"{began}  {said}{f'  ({place})' if place else ''}"
    twice = f"  ! {words.DUPLICATE}" if attempt.outcome.may_duplicate else ""
    replied = f"{attempt.outcome.line}{f'  ({place})' if place else ''}"
    return f"{began}  {span(attempt.ended - attempt.started)}  {said}  {replied}{twice}"
