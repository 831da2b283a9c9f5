"""What one reads in full: a message, a connection's conversation, a bad host."""

from abc import abstractmethod
from dataclasses import replace

from textual.app import ComposeResult
from textual.widget import Widget

from console import words
from console.actions import Target
from console.format import Moment, span
from console.screens.front import Front
from console.widgets.document import Document, Para, heading, para
from console.widgets.line import Piece
from console.widgets.note import Note
from console.widgets.panes import host_target
from console.widgets.rows import (
    CONDITIONS,
    EVENTS,
    UNKNOWN,
    entry_next,
    entry_state,
    event_kind,
    event_says,
)
from engine.base.plural import plural
from engine.control.client import Client, Refused
from engine.control.views import RelayerView, TranscriptView
from engine.model.destination import BadHost
from engine.model.event import Event
from engine.model.message import Attempt, Entry, Message
from engine.model.transcript import Line

KINDS = {"delivered": "good", "transient": "warn", "permanent": "bad"}
_GLYPHS = {"delivered": "✓", "transient": "◷", "permanent": "✗"}
WIDTH = 13  # of the names before the values


class Detail(Front):
    """A screen that is a text. A view that cannot be loaded says why, and what was there stays."""

    tail = False

    def __init__(self) -> None:
        super().__init__()
        self._trouble = ""

    def body(self) -> ComposeResult:
        yield Document(tail=self.tail, id="text")

    def main(self) -> Widget | None:
        return self.query_one(Document)

    @abstractmethod
    def paras(self, moment: Moment) -> list[Para]:
        """The text, or nothing as long as nothing was fetched."""

    def show(self, moment: Moment) -> None:
        self._trouble = ""
        self.tick(moment)
        self.freshen()

    def fail(self, why: str) -> None:
        self._trouble = why
        self.tick(self.console.moment)

    def miss(self, why: str) -> None:
        if not self.paras(self.console.moment):
            self.fail(why)
        elif not self.query_one(Document).text:
            self.tick(self.console.moment)

    def tick(self, moment: Moment) -> None:
        paras = self.paras(moment)
        if self._trouble:
            paras = [Para(), para((f"  ✗ {self._trouble}", "bad"), hang=4), *paras]
        self.query_one(Document).show(paras)


class MessageScreen(Detail):
    """One message: envelope, recipients, every attempt with its full reply, headers, events."""

    def __init__(self, number: int, way: list[str]) -> None:
        super().__init__()
        self.number = number
        self._way = way
        self._view: Message | None = None

    @property
    def context(self) -> str:
        return "finished" if self._view is not None and self._view.finished else "message"

    def crumbs(self) -> list[str]:
        return [*self._way, f"message {self.number}"]

    def target(self) -> Target | None:
        if self._view is not None and self._view.finished:
            return None
        domains = {entry.destination for entry in self._view.entries} if self._view is not None else set()
        return Target(
            f"message {self.number}",
            filter=f"id={self.number}",
            single=True,
            destination=domains.pop() if len(domains) == 1 else "",
        )

    async def reload(self, client: Client) -> None:
        self._view = await client.message(self.number)

    def paras(self, moment: Moment) -> list[Para]:
        view = self._view
        if view is None:
            return []
        return [
            *_envelope(view, moment),
            *_recipients(view, moment),
            *_attempts(view, moment),
            *_headers(view),
            *_events(view, moment),
        ]


class HostScreen(Detail):
    """A bad host: why, what it said, who waits because of it, what is used instead."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host
        self._view: BadHost | None = None
        self._is_known = False  # whether it is bad

    @property
    def context(self) -> str:
        return "host"

    def crumbs(self) -> list[str]:
        return ["Bad MX", self.host]

    def target(self) -> Target | None:
        overview = self.console.overview
        return None if overview is None else host_target(self.host, overview)

    async def reload(self, client: Client) -> None:
        try:
            self._view = await client.host(self.host)
        except Refused as error:
            if not error.refusal.not_found:
                raise
            self._view = None
        self._is_known = True

    def paras(self, moment: Moment) -> list[Para]:
        if not self._is_known:
            return []
        view = self._view
        if view is None:
            return [
                Para(),
                para((f"  ▲ {self.host}", "good"), (" is not marked bad: it is used as its preference says", "")),
            ]
        return _host(view, moment)


class RelayerScreen(Front):
    """One connection and every line said over it, live."""

    def __init__(self, number: int, host: str, node: str = "") -> None:
        super().__init__()
        self.number = number
        self.host = host
        self.node = node
        self._view: TranscriptView | None = None
        self._trouble = ""

    def body(self) -> ComposeResult:
        yield Note(id="about")
        yield Document(tail=True, id="text")

    @property
    def context(self) -> str:
        return "relayer"

    def main(self) -> Widget | None:
        return self.query_one(Document)

    def crumbs(self) -> list[str]:
        return ["Relayers", f"{self.host} #{self.number}{f' of node {self.node}' if self.node else ''}"]

    def target(self) -> Target | None:
        overview = self.console.overview
        target = None if overview is None else host_target(self.host, overview)
        return None if target is None else replace(target, relayer=self.number, node=self.node)

    async def reload(self, client: Client) -> None:
        if self._view is None or self._view.relayer.ended is None:
            self._view = await client.transcript(self.number, self.node)

    def fail(self, why: str) -> None:
        self._trouble = why
        self.tick(self.console.moment)

    def show(self, moment: Moment) -> None:
        self._trouble = ""
        self.tick(moment)

    def tick(self, moment: Moment) -> None:
        paras = [] if self._view is None else _connection(self._view, moment)
        if self._trouble:
            paras.append(para((f"  ✗ {self._trouble}", "bad"), hang=4))
        self.query_one(Note).show([*paras, Para()])
        if self._view is not None:
            self.query_one(Document).show(_conversation(self._view, moment))


# -- a message --------------------------------------------------------------------------------------------------------


def _named(name: str, *pieces: Piece) -> Para:
    return Para(((f"  {name:<{WIDTH - 2}}", "dim"), *pieces), WIDTH)


def _envelope(view: Message, moment: Moment) -> list[Para]:
    if view.finished:
        done = para(*_fate(view), (": this is what the events tell of it", ""))
        return [done, *([_named("from", (words.sender(view.sender), ""))] if view.sender else [])]
    paras = [_named("subject", (view.subject or "(none)", "bold" if view.subject else "dim"))]
    paras.append(_named("from", (view.sender or "<> (the null sender: a bounce)", "")))
    paras.append(_named("came", (moment.both(view.arrived), ""), (f"  by {view.origin}" if view.origin else "", "")))
    paras.append(_named("ends", _end(view, moment)))
    paras.append(_named("size", (f"{view.size:,} bytes", "")))
    if view.message_id:
        paras.append(_named("message-id", (view.message_id, "")))
    return paras


def _fate(view: Message) -> list[Piece]:
    """What became of its recipients, the worst first."""
    pieces: list[Piece] = []
    for kind, said in words.fates(view):
        glyph, style = EVENTS[kind]
        pieces.append((f"{', ' if pieces else '  '}{glyph} {said}", style))
    return pieces or [("  has left the queue", "")]


def _end(view: Message, moment: Moment) -> Piece:
    """When its time is over. What is held beyond that has one more try, if it may go when it is released."""
    if view.expires > moment.now:
        return f"will be given up {moment.both(view.expires)}", ""
    waits = all(entry.state == "held" for entry in view.entries)
    then = ": what may go when it is released is tried once more" if waits else ""
    return f"its time was over {moment.both(view.expires)}{then}", "warn"


def _recipients(view: Message, moment: Moment) -> list[Para]:
    if not view.entries:
        return []
    paras = heading("Recipients", plural(len(view.entries), "is", "are") + " still to be served")
    tried_alone = len(view.entries) == 1 and bool(view.attempts)  # so its last reply is the first below
    for entry in view.entries:
        paras += _recipient(entry, moment, says_reply=not tried_alone)
    return paras


def _recipient(entry: Entry, moment: Moment, *, says_reply: bool) -> list[Para]:
    state, (_, style) = entry_state(entry, moment), entry_next(entry, moment)
    following = words.next_step(entry, moment)
    named = (f"  {entry.id}  ", "dim"), (entry.recipient, "bold"), ("   ", ""), state, (f"   {words.tries(entry)}", "")
    paras = [Para((*named, (f"   {following}" if following else "", style)), 4)]
    if ordered := words.order(entry):
        paras.append(para((f"    {ordered}", "warn"), hang=4))
    elif (waits := words.waits(entry)) and (says_reply or not _is_reply(entry)):
        glyph, style = CONDITIONS.get(entry.condition, UNKNOWN)
        paras.append(para((f"    {glyph} {waits}", style), hang=4))
    return paras


def _is_reply(entry: Entry) -> bool:
    """Whether what keeps it is that it is not due after its last reply."""
    return entry.condition == "not due" and entry.last is not None and entry.condition_why == entry.last.line


def _attempts(view: Message, moment: Moment) -> list[Para]:
    if not view.attempts:
        return []
    paras = heading("Attempts", "newest first")
    for attempt in sorted(view.attempts, key=lambda row: -row.started):
        paras += _attempt(view.number, attempt, moment)
    return paras


def _attempt(message: int, attempt: Attempt, moment: Moment) -> list[Para]:
    took = f", took {span(attempt.ended - attempt.started)}" if attempt.ended is not None else ""
    outcome = attempt.outcome
    said, place = words.attempt(attempt, moment)
    ending: Piece = (f"! {said}" if attempt.interrupted else "▶ under way", "warn" if attempt.interrupted else "good")
    if outcome is not None:
        ending = (f"{_GLYPHS[outcome.kind]} {said}", KINDS[outcome.kind])
    began = (f"  {moment.near(attempt.started)}{took}  ", "dim"), (f"{message}.{attempt.entry}  ", "dim")
    paras = [Para((*began, ending, (f"  {place}" if place else "", "")), 4)]
    if outcome is not None:
        paras.append(para((f"    {outcome.line}", KINDS[outcome.kind]), hang=4))
        if outcome.may_duplicate:
            paras.append(para((f"    ! {words.DUPLICATE}", "warn"), hang=4))
    return paras


def _headers(view: Message) -> list[Para]:
    if not view.headers:
        return []
    return [*heading("Headers"), *(para((f"  {line}", ""), hang=6) for line in view.headers)]


def _events(view: Message, moment: Moment) -> list[Para]:
    if not view.events:
        return []
    newest_first = sorted(view.events, key=lambda row: -row.seq)
    return [*heading("Events", "newest first"), *(_event(row, moment) for row in newest_first)]


def _event(row: Event, moment: Moment) -> Para:
    kind, style = event_kind(row, moment)
    whom = words.whom(row)
    return Para(
        ((f"  {moment.clock(row.at):<14}", "dim"), (f"{kind:<13} ", style), (f"{whom}  ", ""), event_says(row, moment)),
        16,
    )


# -- a host -----------------------------------------------------------------------------------------------------------


def _host(view: BadHost, moment: Moment) -> list[Para]:
    back = f"{moment.left(view.until)}  ({moment.both(view.until).partition(' (')[0]})"
    paras = [
        _named("host", ("▼ ", "bad"), (view.host, "bold")),
        _named("back in", (back, "warn")),
        _named("marked", (f"by {view.by}, {moment.both(view.since)}", ""), _in_a_row(view)),
    ]
    if view.last is None or view.note not in view.last.line:  # the engine notes what the host said: once is enough
        paras.append(_named("note", (view.note or "no note", "")))
    if view.last is not None:
        paras.append(_named("last reply", (view.last.line, KINDS[view.last.kind])))
    waits = plural(view.waiting, "message waits", "messages wait") + " because of it"
    following = f", next try {moment.near(view.next_try)}" if view.waiting and view.next_try is not None else ""
    paras.append(_named("waiting", (waits, "bold" if view.waiting else ""), (following, "")))
    paras += heading("Destinations it serves", "" if view.destinations else "none with mail")
    paras += [para((f"  {name}", ""), hang=4) for name in view.destinations]
    paras += heading("Used instead", "" if view.alternates else "none: their mail waits for this host")
    paras += [para((f"  {name}", "good"), hang=4) for name in view.alternates]
    return paras


def _in_a_row(view: BadHost) -> Piece:
    """How often it was found bad with no delivery between: each mark lasts longer than the one before."""
    return ("" if view.times < 2 else f"   {view.times} times in a row", "warn")


# -- a connection -----------------------------------------------------------------------------------------------------


def _connection(view: TranscriptView, moment: Moment) -> list[Para]:
    row = view.relayer
    phase: Piece = (f"{row.phase} for {span(moment.now - row.phase_since)}", "good")
    if row.ended is not None:
        phase = (f"■ ended {moment.both(row.ended)}: {row.result}", "warn" if row.result else "")
    elif row.stalling:
        phase = (f"▲ stalling: {phase[0]}", "warn")
    secured = row.secured or f"TLS {words.tls(row)}"
    where: tuple[Piece, ...] = ((row.host, "bold"), (f"  {row.address}:{row.port}", ""))
    if not row.address:
        where = (("not known yet", "dim"),)
    return [
        _named("to", *where),
        _named("for", (row.destination, ""), *_others(row)),
        _named("phase", phase),
        _named(
            "done",
            (f"{row.done:,} of {plural(row.taken, 'message')}", ""),
            (f"   open for {span((row.ended or moment.now) - row.started)}   {secured}", ""),
        ),
    ]


def _others(row: RelayerView) -> tuple[Piece, ...]:
    """The other domains of its site that it has carried mail for, and the site's name where it is another's."""
    others = [domain for domain in row.domains if domain != row.destination]
    site = f"   site {row.site}" if row.site and row.site != row.host else ""
    shown = f"   and for {', '.join(others)}" if others else ""
    return (site, "dim"), (shown, "dim")


def _conversation(view: TranscriptView, moment: Moment) -> list[Para]:
    lines = list(view.lines)
    paras = [_said(line, moment) for line in lines]
    if view.cut:
        middle = len(paras) // 2
        cut = para((f"  ··· {plural(view.cut, 'line')} in the middle were not kept ···", "dim"))
        paras.insert(middle, cut)
    return paras or [para(("  nothing was said yet", "dim"))]


def _said(line: Line, moment: Moment) -> Para:
    style = {"<": "key", ">": "", "=": "dim"}[line.side]
    if line.side == "<" and line.text[:1] in ("4", "5"):
        style = "warn" if line.text[0] == "4" else "bad"
    return Para(((f"  {moment.clock(line.at)} ", "dim"), (f"{line.side} ", style), (line.text, style)), 13)
