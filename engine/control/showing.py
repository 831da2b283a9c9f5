"""Turns the engine's data into views: one function per view, all of them pure.

Whatever strangers had a hand in is cleaned here once more, so that no view carries a byte that steers a terminal.
"""

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from engine.base.plural import plural
from engine.base.text import clean, clean_lines
from engine.control import views
from engine.control.relay import Relayer
from engine.delivery.condition import Verdict
from engine.delivery.explain import Explanation
from engine.model.destination import Destination, HeldBack, Mark, Override, Suspension
from engine.model.event import Event
from engine.model.message import Attempt, Entry, Message, Selection, Window
from engine.model.order import Changed, HoldRule
from engine.model.reason import Reason
from engine.smtpclient.probe import Probed, ProbedAddress

HEADER_BYTES = 16 * 1024  # of a header block, more is not shown
HEADER_LINES = 200


def entry(row: Entry, verdict: Verdict) -> views.EntryView:
    """A row of the queue, and what it is."""
    return views.EntryView(
        id=f"{row.message}.{row.number}",
        message=row.message,
        sender=clean(row.sender),
        recipient=clean(row.recipient),
        destination=clean(row.destination),
        state=row.state,
        arrived=row.arrived,
        due=row.due,
        expires=row.expires,
        attempts=row.attempts,
        size=row.size,
        subject=clean(row.subject),
        last=row.last,
        last_at=row.last_at,
        ordered=row.ordered,
        order_at=row.order_at,
        by=clean(row.by),
        reason=clean(row.reason),
        why=clean(row.why),
        blocked_until=row.bearing.blocked_until,
        condition=verdict.condition,
        next_try=verdict.next_try,
        condition_why=clean(verdict.why),
    )


def reason(one: Reason) -> views.ReasonView:
    """A reason, and how much waits for it."""
    return views.ReasonView(
        why=clean(one.why),
        entries=one.entries,
        messages=one.messages,
        destinations=one.destinations,
        busiest=tuple(map(clean, one.busiest)),
        oldest=one.oldest,
        example=one.example,
    )


def window(rows: Window, judged: Callable[[Entry], Verdict]) -> views.QueueView:
    """A window of the queue."""
    shown = tuple(entry(row, judged(row)) for row in rows.rows)
    return views.QueueView(total=rows.total, offset=rows.offset, rows=shown)


def selection(chosen: Selection, judged: Callable[[Entry], Verdict]) -> views.SelectionView:
    """What an action would touch."""
    return views.SelectionView(
        messages=chosen.messages,
        recipients=chosen.recipients,
        newest=chosen.newest,
        examples=tuple(entry(row, judged(row)) for row in chosen.examples),
    )


def result(verb: str, changed: Changed, text: str, follow: int = 0) -> views.ResultView:
    """What an action did, and the number of the operation that tells what becomes of it."""
    return views.ResultView(
        verb=verb,
        text=text,
        messages=changed.messages,
        recipients=changed.recipients,
        skipped=changed.skipped,
        operation=changed.operation,
        undo_until=changed.due if changed.operation else None,
        follow=follow,
    )


def suspension(one: Suspension) -> views.SuspensionView:
    """A suspension in force."""
    return views.SuspensionView(
        destination=clean(one.destination),
        since=one.since,
        until=one.until,
        by=clean(one.by),
        reason=clean(one.reason),
    )


def destination(
    one: Destination, verdict: Verdict, *, rate_out: float, connections: int, marks: Iterable[Mark] = ()
) -> views.DestinationView:
    """A destination, with what only the running engine knows of it, and what it is."""
    return views.DestinationView(
        name=clean(one.name),
        waiting=one.waiting,
        due=one.due,
        held=one.held,
        relaying=one.relaying,
        oldest=one.oldest,
        next_due=one.next_due,
        rate_out=rate_out,
        connections=connections,
        last=one.last,
        last_at=one.last_at,
        suspended=suspension(one.suspended) if one.suspended else None,
        blocked_until=one.blocked_until,
        blocked_why=clean(one.blocked_why),
        condition=verdict.condition,
        next_try=verdict.next_try,
        condition_why=clean(verdict.why),
        override=clean(one.override.to) if one.override else "",
        exchanges=tuple(map(clean, one.exchanges)),
        neighbours=tuple(map(clean, one.neighbours)),
        marked=tuple(views.MarkView(host=clean(mark.host), back_at=mark.until) for mark in marks),
    )


def relayer(one: Relayer) -> views.RelayerView:
    """A relayer, live or ended."""
    return views.RelayerView(
        id=one.id,
        destination=clean(one.destination),
        host=clean(one.host),
        address=clean(one.address),
        port=one.port,
        phase=one.phase,
        phase_since=one.phase_since,
        started=one.started,
        done=one.done,
        taken=one.taken,
        tls=one.tls,
        secured=one.secured.line if one.is_established else "",
        trusted=one.secured.trusted if one.tls else None,
        stalling=one.stalling,
        ended=one.ended,
        result=clean(one.result),
        site=clean(one.site_host),
        domains=tuple(map(clean, one.domains)),
    )


def transcript(one: Relayer) -> views.TranscriptView:
    """What a relayer and its peer have said so far."""
    lines = tuple(
        views.TranscriptLine(at=line.at, side=_side(line.side), text=clean(line.text))
        for line in one.transcript.lines()
    )
    return views.TranscriptView(relayer=relayer(one), lines=lines, cut=one.transcript.cut)


def host(mark: Mark, held: HeldBack | None, next_try: float | None) -> views.HostView:
    """A host marked bad, what waits because of it, and when that is tried."""
    return views.HostView(
        host=clean(mark.host),
        since=mark.since,
        back_at=mark.until,
        by=clean(mark.by),
        reason=clean(mark.reason),
        last=mark.last,
        waiting=held.waiting if held else 0,
        destinations=tuple(map(clean, held.destinations)) if held else (),
        alternates=tuple(map(clean, held.alternates)) if held else (),
        next_due=held.next_due if held else None,
        next_try=next_try,
        times=mark.times,
    )


def standing(
    suspensions: Iterable[Suspension], rules: Iterable[HoldRule], marks: Iterable[Mark], overrides: Iterable[Override]
) -> tuple[views.StandingView, ...]:
    """All that stands until a time, the first to end first."""
    found = [_standing("suspension", one.destination, "opens no new connections", one) for one in suspensions]
    for rule in rules:
        what = f"holds what comes, {plural(rule.holding, 'recipient')} now"
        found.append(msgspec.structs.replace(_standing("hold rule", rule.filter, what, rule), rule=rule.id))
    found += [_standing("host mark", one.host, "is left out", one) for one in marks]
    found += [_standing("override", one.destination, f"goes to {one.to}", one) for one in overrides]
    return tuple(sorted(found, key=lambda one: (one.until, one.kind, one.name)))


def _standing(
    kind: Literal["suspension", "hold rule", "host mark", "override"],
    name: str,
    what: str,
    one: Suspension | HoldRule | Mark | Override,
) -> views.StandingView:
    return views.StandingView(
        kind=kind,
        name=clean(name),
        what=clean(what),
        since=one.since,
        until=one.until,
        by=clean(one.by),
        reason=clean(one.reason),
    )


def probed(one: Probed, at: float) -> views.ProbeView:
    """What came back from a probed host."""
    return views.ProbeView(
        host=clean(one.host),
        port=one.port,
        at=at,
        summary=clean(one.summary),
        addresses=tuple(map(_probed_address, one.addresses)),
        left_out=one.left_out,
        trouble=clean(one.trouble),
    )


def _probed_address(one: ProbedAddress) -> views.ProbedAddressView:
    certificate = None
    if one.certificate is not None:
        certificate = views.CertificateView(
            subject=clean(one.certificate.subject),
            issuer=clean(one.certificate.issuer),
            names=tuple(map(clean, one.certificate.names)),
            since=one.certificate.since,
            until=one.certificate.until,
            trouble=clean(one.certificate.trouble),
        )
    return views.ProbedAddressView(
        address=clean(one.address),
        port=one.port,
        phase=one.phase,
        seconds=one.seconds,
        greeting=clean(one.greeting),
        offered=tuple(map(clean, one.offered)),
        offered_secured=tuple(map(clean, one.offered_secured)),
        tls=one.tls,
        certificate=certificate,
        verifies=one.verifies,
        verify_trouble=clean(one.verify_trouble),
        trouble=clean(one.trouble),
        lines=tuple(
            views.TranscriptLine(at=line.at, side=_side(line.side), text=clean(line.text)) for line in one.lines
        ),
    )


def explanation(one: Explanation) -> views.ExplanationView:
    """Why mail is where it is."""
    return views.ExplanationView(
        subject=clean(one.subject),
        destination=clean(one.destination),
        cause=one.cause,
        text=clean(one.text, 600),
        until=one.until,
        earliest=one.earliest,
        entry=one.entry,
        facts=tuple(views.FactView(name=clean(fact.name), text=clean(fact.text, 600)) for fact in one.facts),
    )


def event(one: Event) -> views.EventView:
    """One thing that happened."""
    return views.EventView(
        seq=one.seq,
        at=one.at,
        kind=one.kind,
        by=clean(one.by),
        message=one.message,
        entry=f"{one.message}.{one.entry}" if one.entry else "",
        sender=clean(one.sender),
        recipient=clean(one.recipient),
        destination=clean(one.destination),
        host=clean(one.host),
        outcome=one.outcome,
        text=clean(one.text),
    )


def message(
    one: Message,
    headers: tuple[str, ...],
    events: tuple[views.EventView, ...],
    judged: Callable[[Entry], Verdict],
) -> views.MessageView:
    """A message that is in the queue."""
    return views.MessageView(
        number=one.number,
        sender=clean(one.sender),
        size=one.size,
        arrived=one.arrived,
        expires=one.expires,
        origin=clean(one.origin),
        subject=clean(one.subject),
        message_id=clean(one.message_id),
        headers=headers,
        entries=tuple(entry(row, judged(row)) for row in one.entries),
        attempts=tuple(_attempt(one.number, attempt) for attempt in one.attempts),
        events=events,
    )


def finished(number: int, events: tuple[views.EventView, ...]) -> views.MessageView:
    """A message that has left the queue, as far as the events tell of it."""

    def first(field: Callable[[views.EventView], str]) -> str:
        return next(filter(None, map(field, events)), "")

    arrived = next((one.at for one in events if one.kind == "accepted"), 0.0)
    return views.MessageView(
        number=number, finished=True, sender=first(lambda one: one.sender), arrived=arrived, events=events
    )


def headers(content: bytes) -> tuple[str, ...]:
    """The header block of a message, cleaned: its first lines, and a remark where there are more."""
    if content.startswith(b"\r\n"):  # a message of a body alone
        return ()
    block, end, _ = content[: HEADER_BYTES + 4].partition(b"\r\n\r\n")
    text = block[:HEADER_BYTES].decode("utf-8", "surrogateescape")
    lines = clean_lines(text, HEADER_LINES)
    cut = (not end and len(content) > HEADER_BYTES) or text.count("\n") >= HEADER_LINES
    return (*lines, "(the header block goes on; the rest is not shown)") if cut else tuple(lines)


def _attempt(message: int, one: Attempt) -> views.AttemptView:
    return views.AttemptView(
        entry=f"{message}.{one.entry}",
        relayer=one.relayer,
        started=one.started,
        ended=one.ended,
        outcome=one.outcome,
        interrupted=one.interrupted,
    )


def _side(side: str) -> Literal["<", ">", "="]:
    if side == "<":
        return "<"
    return ">" if side == ">" else "="
