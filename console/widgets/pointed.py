"""The row pointed at, in full: what its list had to cut stands in a line or two below it."""

from typing import Any

from textual.strip import Strip

from console import words
from console.format import Moment
from console.widgets.document import Para, wrap
from console.widgets.line import Ageing, Piece, crop, strip_of
from console.widgets.rows import (
    QUEUE,
    destination_status,
    entry_state,
    event_kind,
    node_state,
    relayer_phase,
)
from engine.base.plural import plural
from engine.control.views import RelayerView
from engine.model.destination import BadHost, Destination
from engine.model.event import Event
from engine.model.message import Entry
from engine.model.node import NodeState
from engine.model.reason import Reason

_SPACE: Piece = ("  ", "")
_WHY = next(column for column in QUEUE if column.rest)  # the list's own word for why
_KINDS = {"delivered": "good", "permanent": "bad"}


class Pointed(Ageing):
    """A few words in as many lines as it was given; what is longer ends in an ellipsis."""

    DEFAULT_CSS = "Pointed { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._pieces: tuple[Piece, ...] = ()

    def tell(self, pieces: list[Piece]) -> None:
        """Say this; it is painted again only when it is something else."""
        if tuple(pieces) != self._pieces:
            self._pieces = tuple(pieces)
            self.refresh()

    @property
    def said(self) -> str:
        """What there is to say, as plain text, also what has no room."""
        return "".join(text for text, _ in self._pieces)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        lines = self._lines(self._pieces)
        if len(lines) > self.size.height and self._pieces[-1][1] == "dim":
            lines = self._lines(self._pieces[:-1])  # a remark goes as a whole
        if y >= len(lines):
            return strip_of((), width)
        if y == self.size.height - 1 and len(lines) > self.size.height:
            last, style = lines[y][-1]
            room = width - 1 - sum(len(text) for text, _ in lines[y][:-1])
            return strip_of([*lines[y][:-1], (crop(last.rstrip() + " …", max(1, room)), style)], width, self.over)
        return strip_of(lines[y], width, self.over)

    def _lines(self, pieces: tuple[Piece, ...]) -> list[list[Piece]]:
        return wrap(Para((("  ", ""), *pieces), 2), self.size.width - 1) if pieces else []


def in_full(row: object, moment: Moment) -> list[Piece]:
    """What is to be known of a row, name first, then why it is as it is, and what was said, in full."""
    tells: dict[type[Any], Any] = {
        Destination: _destination,
        Entry: _entry,
        RelayerView: _relayer,
        BadHost: _host,
        Reason: _reason,
        Event: _event,
        NodeState: _node,
    }
    tell = tells.get(type(row))
    pieces: list[Piece] = [] if tell is None else tell(row, moment)
    return [piece for piece in pieces if piece[0]]


def _destination(row: Destination, moment: Moment) -> list[Piece]:
    status, style = destination_status(row, moment)
    pieces: list[Piece] = [(row.name, "dim"), _SPACE]
    by = f" (by {row.suspended.by})" if row.suspended is not None and row.suspended.by else ""
    return pieces + _said((status + by, style), _reply(row, moment))


def _entry(row: Entry, moment: Moment) -> list[Piece]:
    state, style = entry_state(row, moment)
    pieces: list[Piece] = [(row.recipient, "dim"), _SPACE]
    if said := words.order(row):
        pieces += [(f"{state.partition(' ')[0]} {said}", style), _SPACE]
    return pieces + _said(_WHY.cell(row, moment), _reply(row, moment))


def _said(status: Piece, reply: list[Piece]) -> list[Piece]:
    """What is said of it and what was replied; the same words once."""
    if reply and reply[0][0] in status[0]:
        return [status, *reply[1:]]
    return [status, _SPACE, *reply] if status[0] else reply


def _reply(row: Destination | Entry, moment: Moment) -> list[Piece]:
    last, at = row.last, row.last_at
    if last is None:
        return []
    # The host is in the line of a conversation that was had; a connection that failed names it too.
    host = f"{last.host} " if last.host and last.host not in last.line else ""
    when = moment.clock(at) if at is not None else ""
    return [(last.line, _KINDS.get(last.kind, "")), (f"  {host}{when}".rstrip(), "dim")]


def _relayer(row: RelayerView, moment: Moment) -> list[Piece]:
    others = [domain for domain in row.domains if domain != row.destination]
    more = f" and {', '.join(others)}" if others else ""
    result = relayer_phase(row, moment) if row.ended is not None or row.stalling else ("", "")
    return [
        (words.place(row), "dim"),
        _SPACE,
        result,
        ("  " if result[0] else "", ""),
        (f"for {row.destination}{more}", ""),
        (f"  node {row.node}" if row.node else "", "dim"),
    ]


def _host(row: BadHost, _moment: Moment) -> list[Piece]:
    times = f" ({row.times} times in a row)" if row.times > 1 else ""
    by = f"  by {row.by}" if row.by else ""
    back = f"  keeps mail of {', '.join(row.destinations)}" if row.destinations else ""
    other = f"  used instead: {', '.join(row.alternates)}" if row.alternates else ""
    return [(row.host, "dim"), _SPACE, (words.why_bad(row), ""), (times, "warn"), (f"{by}{back}{other}", "dim")]


def _reason(row: Reason, _moment: Moment) -> list[Piece]:
    more = row.destinations - len(row.busiest)
    names = ", ".join(row.busiest) + (f" and {plural(more, 'other')}" if more > 0 else "")
    return [(row.group, ""), (f"  {names}" if names else "", "dim")]


def _node(row: NodeState, moment: Moment) -> list[Piece]:
    state, style = node_state(row, moment)
    known = f"  version {row.version}, up {moment.since(row.since)}, heard of {moment.since(row.beat)} ago"
    said = words.node_says(row, moment)
    return [(row.name, "dim"), _SPACE, (state, style), (f"  {said}" if said else "", style), (known, "dim")]


def _event(row: Event, moment: Moment) -> list[Piece]:
    kind, style = event_kind(row, moment)
    whom = words.whom(row)
    host = f"  {row.host}" if row.host and row.host != whom else ""
    at = f"  node {row.node}" if row.node else ""
    return [(whom, "dim"), _SPACE, (kind, style), _SPACE, (words.event(row), ""), (f"{host}{at}", "dim")]
