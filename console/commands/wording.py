"""What the listings say of each view: rows for columns, and lines for what is read by itself."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from console.commands.columns import Column
from console.fates import fates
from console.format import Moment, age, duration, rate, size, span
from engine.base.plural import plural
from engine.control import views
from engine.model.destination import RELAY, BadHost, Destination, Suspension
from engine.model.event import Event
from engine.model.message import Attempt, Entry, Message
from engine.model.reason import Reason

WIDE = 110  # from this width on there is room for more columns


def here_and_now() -> Moment:
    """Now, in the zone of whoever reads."""
    return Moment(time.time(), datetime.now(UTC).astimezone().tzinfo or UTC)


# -- the queue ------------------------------------------------------------------------------------------------------

QUEUE = (
    Column("ID"),
    Column("STATE"),
    Column("NEXT"),
    Column("TRIES", right=True),
    Column("RECIPIENT", least=16),
    Column("LAST REPLY", least=12),
)
QUEUE_WIDE = (*QUEUE[:5], Column("SENDER", least=16), Column("AGE", right=True), Column("SIZE", right=True), QUEUE[5])


def queue_row(row: Entry, moment: Moment, wide: bool) -> list[str]:
    """A row of the queue."""
    more = [row.sender or "<>", moment.since(row.arrived), size(row.size)] if wide else []
    return [row.id, row.state, next_step(row, moment), str(row.attempts), row.recipient, *more, entry_says(row)]


def next_step(row: Entry, moment: Moment) -> str:
    """What happens to a recipient next, and when."""
    if row.ordered in ("bounce", "drop") and row.order_at is not None:
        return f"{row.ordered} {_in(row.order_at - moment.now)}"
    if row.state == "relaying":
        return "being sent"
    if row.next_try is not None:
        return _in(row.next_try - moment.now)
    if row.state == "held":
        return "when released"
    return "now" if row.condition == "limited" else "not by itself"


def entry_says(row: Entry) -> str:
    """The last reply; of what was never tried, why it was not."""
    if row.last is not None:
        return row.last.line
    if row.condition in ("ready", "relaying") or not row.condition_why:
        return ""
    return f"not tried, {row.condition}: {row.condition_why}"


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
    return "; ".join(filter(None, (instead, _state(row, moment))))


def _state(row: Destination, moment: Moment) -> str:
    following = f"next try {_in(row.next_try - moment.now)}" if row.next_try is not None else ""
    if row.condition == "suspended":
        return suspended(row.suspended, moment) if row.suspended is not None else row.condition_why
    if row.condition in ("blocked", "hosts bad", "not due"):
        name = "deferred" if row.condition == "not due" and row.condition_why else row.condition
        return ": ".join(filter(None, (", ".join(filter(None, (name, following))), row.condition_why)))
    if row.condition in ("draining", "held", "limited", "ready"):
        return ": ".join(filter(None, (row.condition, row.condition_why)))
    return row.last.line if row.last else ""


def suspended(one: Suspension, moment: Moment) -> str:
    """A suspension: until when, by whom and why."""
    why = f": {one.reason}" if one.reason else ""
    return f"suspended by {one.by} until {moment.short(one.until)} (in {age(one.until - moment.now)}){why}"


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
        return [str(row.id), host, "ended", ago, done, _tls(row), f"{row.destination}: {row.result}"]
    phase = f"{row.phase} (stalling)" if row.stalling else row.phase
    time_in = span(moment.now - row.phase_since)
    return [str(row.id), host, phase, time_in, done, _tls(row), row.destination]


def _tls(row: views.RelayerView) -> str:
    """The version of TLS, with a `?` where the certificate is not trusted."""
    return f"{row.tls}{'?' if row.trusted is False else ''}" if row.tls else "-"


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
    said = row.last.line if row.last else ""
    why = said if row.reason and row.reason in said else ": ".join(filter(None, (row.reason, said)))
    instead = [", ".join(row.alternates) or "none"] if wide else []
    return [row.host, moment.left(row.until), f"{row.waiting:,}", row.by, *instead, why]


REASONS = (
    Column("RECIPIENTS", right=True),
    Column("MESSAGES", right=True),
    Column("DESTINATIONS", right=True),
    Column("OLDEST", right=True),
    Column("REASON"),  # never cut: it is what one writes after why=
)
REASONS_WIDE = (*REASONS[:4], Column("MOST OF IT FOR", least=12), REASONS[4])


def reason_row(row: Reason, moment: Moment, wide: bool) -> list[str]:
    """A row of the reasons."""
    counts = [f"{number:,}" for number in (row.entries, row.messages, row.destinations)]
    most = [", ".join(row.busiest)] if wide else []
    return [*counts, moment.since(row.oldest), *most, row.why]


# -- what is read by itself -----------------------------------------------------------------------------------------


def event_line(one: Event, moment: Moment) -> str:
    """An event in one line: when, what, to whom, and whose words it rests on."""
    named = one.of or (str(one.message) if one.message else "")
    whom = one.recipient or ("the relay" if one.destination == RELAY else one.destination) or one.host
    said = one.outcome.line if one.outcome else ""
    over = one.outcome.secured if one.outcome else ""
    by = f"by {one.by}" if one.by != "engine" else ""
    parts = (named, whom, said, over, one.text, f"({one.host})" if one.host and one.host != whom else "", by)
    return f"{moment.clock(one.at)}  {one.kind:<11}  " + "  ".join(filter(None, parts))


def health_lines(health: views.HealthView, moment: Moment) -> Iterator[str]:
    """The state of the relay."""
    yield f"{health.hostname}  {health.state}{': ' + health.trouble if health.trouble else ''}"
    if health.suspended is not None:
        yield f"  {suspended(health.suspended, moment)}"
    of_due = f"{health.due:,} due, {health.ready:,} ready"
    yield f"  queue        {health.waiting:,} waiting, {of_due}, {health.held:,} held, {health.relaying:,} being sent"
    if health.oldest is not None:
        yield f"  oldest       {moment.both(health.oldest)}"
    yield f"  destinations {health.destinations:,} with mail, {health.destinations_known:,} known"
    yield f"  rate         {rate(health.rate_in)}/s in, {rate(health.rate_out)}/s out"
    yield f"  connections  {health.connections} of {health.max_connections}"
    yield f"  look-ups     {health.lookups} of {health.max_lookups}"
    if health.next_check is not None:
        yield f"  next check   {_in(health.next_check - moment.now)}"
    yield f"  engine       {health.version}, pid {health.pid}, since {moment.both(health.started)}"
    yield from (f"  note         {note}" for note in health.notes)


def message_lines(message: Message, moment: Moment) -> Iterator[str]:
    """A message: envelope, recipients, attempts with full replies, events, headers."""
    became = ", ".join(words for _, words in fates(message))
    left = f", which has left the queue{f': {became}' if became else ''}"
    yield f"message {message.number}{left if message.finished else ''}"
    yield f"  from        {message.sender or '<>'}"
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
        ("attempts", [_attempt(message.number, one, moment) for one in message.attempts]),
        ("events", [event_line(one, moment) for one in message.events]),
        ("headers", message.headers),
    ):
        if lines:
            yield ""
            yield title
            yield from (f"  {line}" for line in lines)


def transcript_lines(found: views.TranscriptView, moment: Moment) -> Iterator[str]:
    """What a relayer and its peer have said."""
    one = found.relayer
    where = f"{one.host} [{one.address}]:{one.port}" if one.address else "a host not known yet"
    state = f"ended {moment.both(one.ended)}: {one.result}" if one.ended is not None else f"in {one.phase}"
    yield f"relayer {one.id} to {where} for {one.destination}, {one.done} of {one.taken} done, {state}"
    if len(one.domains) > 1:
        yield f"it has carried mail for {', '.join(one.domains)}"
    if found.cut:
        yield f"({plural(found.cut, 'line')} in the middle not kept)"
    yield from (f"{moment.clock(line.at)} {line.side} {line.text}" for line in found.lines)


def _recipient(row: Entry, moment: Moment) -> Iterator[str]:
    yield f"{row.id}  {row.recipient}  {row.state}, {next_step(row, moment)}, {plural(row.attempts, 'try', 'tries')}"
    if row.state == "waiting":
        yield f"    due {moment.both(row.due)}"
        if row.condition_why and (row.last is None or row.condition != "not due"):
            yield f"    {row.condition}: {row.condition_why}"
    if row.ordered is not None:
        why = f": {row.reason}" if row.reason else ""
        yield f"    {row.ordered} ordered by {row.by}{why}"
    elif row.reason:
        yield f"    {row.reason}"
    if row.last is not None:
        at = f", {moment.both(row.last_at)}" if row.last_at is not None else ""
        yield f"    last {row.last.kind}{at}"
        yield f"    {row.last.line}{f' ({row.last.host})' if row.last.host else ''}"


def _attempt(message: int, one: Attempt, moment: Moment) -> str:
    began = f"{moment.clock(one.started)}  {message}.{one.entry}  relayer {one.relayer}"
    if one.interrupted:
        return f"{began}  interrupted: the engine ended while it ran"
    if one.outcome is None or one.ended is None:
        return f"{began}  running for {duration(moment.now - one.started)}"
    place = " ".join(filter(None, (one.outcome.host, one.outcome.phase)))
    place = ", ".join(filter(None, (place, one.outcome.secured)))
    said = f"{one.outcome.kind}  {one.outcome.line}{f'  ({place})' if place else ''}"
    twice = "  may have been taken by the peer all the same" if one.outcome.may_duplicate else ""
    return f"{began}  {span(one.ended - one.started)}  {said}{twice}"


def _in(seconds: float) -> str:
    return "now" if seconds <= 0 else f"in {age(seconds)}"
