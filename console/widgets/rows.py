"""What stands in the rows: the columns of every list, and the words and glyphs of every state."""

from console import words
from console.format import Moment, count, rate, size
from console.widgets.columns import Column
from console.widgets.line import Piece
from engine.control.views import RelayerView
from engine.model.destination import BadHost, Destination
from engine.model.event import ENGINE, Event
from engine.model.message import Entry
from engine.model.node import NodeState
from engine.model.reason import Reason
from engine.model.verbs import VERBS

# A glyph and a word before it is a colour.
EVENTS: dict[str, tuple[str, str]] = {
    **{verb.event: (verb.glyph, verb.tone) for verb in VERBS},
    "started": ("●", "good"),
    "stopped": ("■", "warn"),
    "sick": ("✗", "bad"),
    "clock set": ("◷", "warn"),
    "accepted": ("→", ""),
    "refused": ("✗", "warn"),
    "delivered": ("✓", "good"),
    "deferred": ("◷", "warn"),
    "notified": ("↩", "warn"),
    "returned": ("↩", "bad"),
    "discarded": ("✗", "bad"),
    "dropped": ("✗", "bad"),
    "interrupted": ("!", "warn"),
    "node lost": ("!", "warn"),
    "damaged": ("!", "bad"),
    "carried out": ("✎", ""),
    "unreachable": ("✗", "bad"),
    "suppressed": ("✗", "warn"),
    "unsuppressed": ("✓", "good"),
}

STATES: dict[str, tuple[str, str]] = {"waiting": ("◷", ""), "relaying": ("▶", "good"), "held": ("‖", "warn"),
          "bounce": ("✗", "bad"), "drop": ("✗", "bad")}  # fmt: skip

# What a destination, or a recipient's mail, is.
CONDITIONS: dict[str, tuple[str, str]] = {
    "relaying": ("●", "good"),
    "draining": ("◐", "warn"),
    "to be bounced": ("✗", "bad"),
    "to be dropped": ("✗", "bad"),
    "suspended": ("‖", "warn"),
    "held": ("‖", "warn"),
    "hosts bad": ("▼", "bad"),
    "blocked": ("✗", "bad"),
    "not due": ("◷", "warn"),
    "limited": ("◷", ""),
    "ready": ("◷", ""),
    "idle": ("", ""),
}
UNKNOWN = ("?", "")  # of a newer engine


def outcome_piece(row: Entry | Destination | BadHost, none: str = "") -> Piece:
    """The last reply in one line, coloured by what it means."""
    if row.last is None:
        return none, "dim"
    kinds = {"delivered": "good", "permanent": "bad"}
    return row.last.line, kinds.get(row.last.kind, "")


def number(value: int, style: str = "") -> Piece:
    """A count; none is nothing to look at."""
    return count(value), style if value else "dim"


def entry_state(row: Entry, _moment: Moment) -> Piece:
    """The state of a recipient: `◷ waiting`, `‖ held`, or what was ordered."""
    said = words.standing_of(row)
    glyph, style = STATES.get(said, UNKNOWN)
    return f"{glyph} {said}", style


def entry_next(row: Entry, moment: Moment) -> Piece:
    """When it will be tried again, or what was ordered is done."""
    said = words.next_try(row, moment)
    if row.ordered in ("bounce", "drop") and row.order_at is not None:
        return said, "bad"
    return said, {"now": "good", "due": "warn", "-": "dim"}.get(said, "")


def entry_says(row: Entry, _moment: Moment) -> Piece:
    """The last reply; of what was never tried, why it was not."""
    if row.last is None and (said := words.says(row)):
        return said, CONDITIONS.get(row.condition, UNKNOWN)[1]
    return outcome_piece(row, "not tried yet")


def destination_status(row: Destination, moment: Moment) -> Piece:
    """Why the mail of a destination waits, if it does, else what was said last; and where it goes instead, if it does.

    It is the reply of what waits that is shown, never that of other mail.
    """
    said, style = _status(row, moment)
    if row.override:
        return f"✎ to {row.override.to}{f'; {said}' if said else ''}", style or "warn"
    return said, style


def _status(row: Destination, moment: Moment) -> Piece:
    found = words.state(row, moment)
    if not found.name:
        return outcome_piece(row)
    glyph, style = CONDITIONS["held" if row.condition == "idle" else row.condition]
    return " ".join(filter(None, (glyph, *found))), style


def relayer_host(row: RelayerView, _moment: Moment) -> Piece:
    """Which host it is connected to, or is about to be; before that is known, whose mail it is."""
    return (row.host, "") if row.host else (row.destination, "dim")


def relayer_phase(row: RelayerView, _moment: Moment) -> Piece:
    """Where in the conversation a connection is; a stalling one says so."""
    said = words.phase(row)
    if row.ended is not None:
        return f"■ {said}", "dim"
    return (f"▲ {said}", "warn") if row.stalling else (said, "")


def relayer_time(row: RelayerView, moment: Moment) -> Piece:
    """How long it has been in its phase."""
    return moment.lasting(row.phase_since), "warn" if row.stalling else ""


def carried_for(row: RelayerView, _moment: Moment) -> Piece:
    """Whose mail it carries now, and how many other domains of its site it has carried mail for."""
    more = len(row.domains) - 1
    return (f"{row.destination} +{more}" if more > 0 else row.destination), ""


def tls_version(row: RelayerView) -> Piece:
    """The version of TLS alone."""
    said = words.tls(row)
    return said, "" if row.tls else "dim"


def event_kind(row: Event, _moment: Moment) -> Piece:
    """What happened: a glyph and a word."""
    glyph, style = EVENTS.get(row.kind, ("·", ""))
    return f"{glyph} {row.kind}", style


def event_says(row: Event, _moment: Moment) -> Piece:
    """What was said or done, and by whom when it was an operator."""
    return words.event(row), "dim" if row.by in ("", ENGINE) else ""


def event_what(row: Event, _moment: Moment) -> Piece:
    """Whom it happened to, and what was said."""
    return "  ".join(filter(None, (words.whom(row), words.event(row)))), ""


NODE_STATES: dict[str, tuple[str, str]] = {
    "relaying": ("●", "good"),
    "drained": ("◐", "warn"),
    "silent": ("?", "warn"),
    "sick": ("✗", "bad"),
    "lost": ("!", "bad"),
}


def node_name(row: NodeState, _moment: Moment) -> Piece:
    """Its name, and whether it is the one that this console is attached to."""
    return f"{row.name}{' (this one)' if row.is_this else ''}", "bold" if row.is_this else ""


def node_state(row: NodeState, _moment: Moment) -> Piece:
    """What a node is: a glyph and a word."""
    said = words.node(row)
    glyph, style = NODE_STATES[said]
    return f"{glyph} {said}", style


def _live(text: str, row: NodeState, style: str = "") -> Piece:
    """What a node said of itself, as long as it lives."""
    return ("-", "dim") if row.is_lost else (text, style)


DESTINATIONS: tuple[Column[Destination], ...] = (
    Column("destination", 17, lambda r, _: (r.name, ""), grow=5, letter="N", sort="name"),
    Column("waiting", 8, lambda r, _: number(r.waiting), right=True, letter="W", sort="waiting"),
    Column("due", 5, lambda r, _: number(r.due), rank=3, right=True, letter="U", sort="due"),
    Column("held", 5, lambda r, _: number(r.held, "warn"), rank=6, right=True, letter="L", sort="held"),
    Column("oldest", 6, lambda r, m: (m.since(r.oldest) if r.oldest else "-", "" if r.oldest else "dim"), rank=2,
           right=True, letter="O", sort="oldest"),
    Column("out/s", 5, lambda r, _: (rate(r.rate_out), "" if r.rate_out >= 0.05 else "dim"), rank=5, right=True),
    Column("conns", 5, lambda r, _: number(r.connections), rank=7, right=True),
    Column("next try", 8, lambda r, m: (words.next_left(r, m, "-"), ""), rank=8, right=True),
    Column("status, last reply", 20, destination_status, rank=1, rest=True),
)  # fmt: skip

RELAYERS: tuple[Column[RelayerView], ...] = (
    Column("host", 16, relayer_host, grow=13, letter="O", sort="host", order=lambda r: r.host),
    Column("phase", 10, relayer_phase, letter="P", sort="phase", order=lambda r: r.phase),
    Column("time", 5, relayer_time, right=True, letter="T", sort="time", order=lambda r: r.phase_since),
    Column("done", 6, lambda r, _: (f"{r.done}/{r.taken}", ""), rank=1, right=True),
    Column("tls", 4, lambda r, _: tls_version(r), rank=3, right=True),
    Column("open for", 8, lambda r, m: (m.since(r.started), ""), rank=5, right=True),
    Column("for", 20, carried_for, rank=4, grow=10),
    Column("address", 20, lambda r, _: (f"{r.address}:{r.port}" if r.address else "-", "dim"), rank=6, rest=True),
)  # fmt: skip

# With whose they are, where several nodes share the queue.
RELAYERS_OF_NODES = (
    RELAYERS[0],
    Column[RelayerView]("node", 6, lambda r, _: (r.node, ""), rank=2, grow=10, letter="N", sort="node",
                        order=lambda r: r.node),
    *RELAYERS[1:],
)  # fmt: skip

NODES: tuple[Column[NodeState], ...] = (
    Column("node", 14, node_name, grow=16, letter="N", sort="node", order=lambda r: r.name),
    Column("state", 10, node_state),
    Column("conns", 7, lambda r, _: _live(f"{r.said.connections}/{r.said.max_connections}", r), rank=2, right=True),
    Column("mail", 5, lambda r, _: number(0 if r.is_lost else r.said.relaying), rank=3, right=True),
    Column("in/s", 5, lambda r, _: _live(rate(r.said.rate_in), r), rank=2, right=True),
    Column("out/s", 5, lambda r, _: _live(rate(r.said.rate_out), r), rank=1, right=True),
    Column("up", 6, lambda r, m: _live(m.since(r.since), r), rank=3, right=True),
    Column("heard", 6, lambda r, m: (m.since(r.beat), "warn" if r.is_lost else ""), rank=4, right=True),
    Column("version", 7, lambda r, _: (r.version, "dim"), rank=5),
    Column("what is to be known", 20, lambda r, m: (words.node_says(r, m), NODE_STATES[words.node(r)][1]), rank=1,
           rest=True),
)  # fmt: skip

HOSTS: tuple[Column[BadHost], ...] = (
    Column("host", 16, lambda r, _: (r.host, ""), grow=6, letter="O", sort="host", order=lambda r: r.host),
    Column("back in", 7, lambda r, m: (m.left(r.until), "warn"), right=True, letter="K", sort="back",
           order=lambda r: r.until),
    Column("waiting", 7, lambda r, _: number(r.waiting), right=True, letter="W", sort="waiting",
           order=lambda r: r.waiting),
    Column("by", 6, lambda r, _: (r.by, ""), rank=3),
    Column("why", 20, lambda r, _: (r.note or (r.last.line if r.last else ""), ""), rank=1, grow=20, rest=True),
    Column("next try", 8, lambda r, m: (words.next_left(r, m, "-"), ""), rank=6, right=True),
    Column("holds back", 18, lambda r, _: (_names(r.destinations), ""), rank=5, grow=6),
    Column("used instead", 18, lambda r, _: (_names(r.alternates, "none"), "" if r.alternates else "warn"), rank=4,
           grow=10),
)  # fmt: skip

REASONS: tuple[Column[Reason], ...] = (
    Column("mail", 7, lambda r, _: number(r.entries), right=True, letter="M", sort="mail", order=lambda r: r.entries),
    Column("domains", 7, lambda r, _: number(r.destinations), rank=4, right=True, letter="N", sort="domains",
           order=lambda r: r.destinations),
    Column("oldest", 6, lambda r, m: (m.since(r.oldest), ""), rank=2, right=True, letter="O", sort="oldest",
           order=lambda r: r.oldest),
    Column("most of it for", 18, lambda r, _: (_most(r), ""), rank=3, grow=6),
    Column("reason", 40, lambda r, _: (r.group, ""), rank=1, rest=True),
)  # fmt: skip

EVENT_ROWS: tuple[Column[Event], ...] = (
    Column("time", 8, lambda r, m: (m.clock(r.at), "dim")),
    Column("event", 13, event_kind),
    Column("message", 8, lambda r, _: (str(r.message) if r.message else "", "dim"), rank=3, right=True),
    Column("what", 24, event_what, rank=1, grow=36, rest=True),
)  # fmt: skip

EVENT_ROWS_OF_NODES = (
    *EVENT_ROWS[:2],
    Column[Event]("node", 6, lambda r, _: (r.node, "dim"), rank=2, grow=6),
    *EVENT_ROWS[2:],
)

QUEUE: tuple[Column[Entry], ...] = (
    Column("id", 9, lambda r, _: (r.id, ""), right=True, letter="I", sort="id"),
    Column("state", 10, entry_state, letter="E", sort="state"),
    Column("to", 18, lambda r, _: (r.recipient, ""), grow=10, letter="T", sort="recipient"),
    Column("next try", 8, entry_next, rank=1, right=True, letter="N", sort="due"),
    Column("tries", 5, lambda r, _: (str(r.attempts), "" if r.attempts else "dim"), rank=3, right=True, letter="R",
           sort="attempts"),
    Column("age", 6, lambda r, m: (m.since(r.arrived), ""), rank=4, right=True, letter="A", sort="arrived"),
    Column("size", 9, lambda r, _: (size(r.size), ""), rank=6, right=True, letter="Z", sort="size"),
    Column("from", 18, lambda r, _: (words.sender(r.sender), "" if r.sender else "dim"), rank=5, grow=8, letter="F",
           sort="sender"),
    Column("domain", 16, lambda r, _: (r.destination, ""), rank=8, letter="M", sort="destination"),
    Column("subject", 20, lambda r, _: (r.subject, ""), rank=7, grow=20),
    Column("last reply", 24, entry_says, rank=2, rest=True),
)  # fmt: skip


def _most(row: Reason) -> str:
    others = row.destinations - 1
    return f"{''.join(row.busiest[:1])}{f' +{others}' if others > 0 else ''}"


def _names(names: tuple[str, ...], none: str = "") -> str:
    return none if not names else names[0] if len(names) == 1 else f"{names[0]} +{len(names) - 1}"
