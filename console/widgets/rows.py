"""What stands in the rows: the columns of every list, and the words and glyphs of every state."""

from console.format import Moment, count, rate, size
from console.widgets.columns import Column
from console.widgets.line import Piece
from engine.control.views import RelayerView
from engine.model.destination import BadHost, Destination
from engine.model.event import Event
from engine.model.message import Entry
from engine.model.reason import Reason
from engine.model.verbs import VERBS

# A glyph and a word before it is a colour.
EVENTS: dict[str, tuple[str, str]] = {
    **{verb.told: (verb.glyph, verb.tone) for verb in VERBS},
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
    "damaged": ("!", "bad"),
    "carried out": ("✎", ""),
    "unreachable": ("✗", "bad"),
}

_BEFORE_TLS = ("lookup", "connecting", "greeting", "hello", "TLS")

STATES: dict[str, tuple[str, str]] = {"waiting": ("◷", ""), "relaying": ("▶", "good"), "held": ("‖", "warn")}

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
    if row.ordered in ("bounce", "drop") and row.order_at is not None:
        return f"✗ {row.ordered}", "bad"
    glyph, style = STATES.get(row.state, ("?", ""))
    return f"{glyph} {row.state}", style


def entry_next(row: Entry, moment: Moment) -> Piece:
    """When it will be tried again, or what was ordered is done; `-` where no time leads to that."""
    if row.ordered in ("bounce", "drop") and row.order_at is not None:
        return moment.left(row.order_at), "bad"
    if row.state == "relaying":
        return "now", "good"
    if row.next_try is None:
        return ("due", "warn") if row.condition == "limited" else ("-", "dim")
    return ("due", "warn") if row.next_try <= moment.now else (moment.left(row.next_try), "")


def entry_says(row: Entry, _moment: Moment) -> Piece:
    """The last reply; of what was never tried, why it was not."""
    if row.last is not None or row.condition in ("ready", "relaying") or not row.condition_why:
        return outcome_piece(row, "not tried yet")
    return f"not tried, {row.condition}: {row.condition_why}", CONDITIONS.get(row.condition, UNKNOWN)[1]


def destination_status(row: Destination, moment: Moment) -> Piece:
    """Why the mail of a destination waits, if it does, else what was said last; and where it goes instead, if it does.

    It is the reply of what waits that is shown, never that of other mail.
    """
    said, style = _status(row, moment)
    if row.override:
        return f"✎ to {row.override.to}{f'; {said}' if said else ''}", style or "warn"
    return said, style


def _status(row: Destination, moment: Moment) -> Piece:
    glyph, style = CONDITIONS.get(row.condition, UNKNOWN)
    why, left = row.condition_why, next_left(row, moment)
    match row.condition:
        case "suspended" if row.suspended is not None:
            return f"{glyph} suspended {moment.left(row.suspended.until)} {row.suspended.reason}".rstrip(), style
        case "suspended" | "draining":
            return f"{glyph} {why or row.condition}", style
        case "blocked" | "hosts bad":
            until = left or (moment.left(row.blocked_until) if row.blocked_until else "")
            return " ".join(filter(None, (glyph, row.condition, until, why))), style
        case "not due":
            return " ".join(filter(None, (glyph, "deferred" if why else "not due", left, why))), style
        case "limited":
            return f"{glyph} limited {why}", style
        case "ready":
            return f"{glyph} ready", style
        case "held" | "idle" if row.held and not row.waiting:
            return f"‖ {count(row.held)} held", "warn"
    return outcome_piece(row)


def next_left(row: Destination | BadHost, moment: Moment, none: str = "") -> str:
    """The time until its mail is tried next."""
    return none if row.next_try is None else moment.left(row.next_try)


def relayer_host(row: RelayerView, _moment: Moment) -> Piece:
    """Which host it is connected to, or is about to be; before that is known, whose mail it is."""
    return (row.host, "") if row.host else (row.destination, "dim")


def relayer_phase(row: RelayerView, _moment: Moment) -> Piece:
    """Where in the conversation a connection is; a stalling one says so."""
    if row.ended is not None:
        return f"■ {row.result or 'ended'}", "dim"
    return (f"▲ {row.phase}", "warn") if row.stalling else (row.phase, "")


def relayer_time(row: RelayerView, moment: Moment) -> Piece:
    """How long it has been in its phase."""
    return moment.lasting(row.phase_since), "warn" if row.stalling else ""


def carried_for(row: RelayerView, _moment: Moment) -> Piece:
    """Whose mail it carries now, and how many other domains of its site it has carried mail for."""
    more = len(row.domains) - 1
    return (f"{row.destination} +{more}" if more > 0 else row.destination), ""


def tls_name(row: RelayerView) -> Piece:
    """The version of TLS alone: `1.3`, `1.3?` where the certificate is not trusted, `none`; `-` while that is open."""
    if not row.tls and row.phase in _BEFORE_TLS:
        return "-", "dim"
    number = row.tls.removeprefix("TLSv")
    number = number if "." in number else f"{number}.0"  # OpenSSL's "TLSv1" is 1.0
    return (f"{number}{'?' if row.trusted is False else ''}", "") if row.tls else ("none", "dim")


def event_kind(row: Event, _moment: Moment) -> Piece:
    """What happened: a glyph and a word."""
    glyph, style = EVENTS.get(row.kind, ("·", ""))
    return f"{glyph} {row.kind}", style


def event_subject(row: Event, _moment: Moment) -> Piece:
    """Whom or what it happened to."""
    return row.recipient or row.host or row.destination or row.sender or (f"{row.message}" if row.message else ""), ""


def event_says(row: Event, _moment: Moment) -> Piece:
    """What was said or done, and by whom when it was an operator."""
    by = "" if row.by in ("", "engine") else f"{row.by}: "
    said = row.text
    if row.outcome is not None:
        said = f"{row.outcome.line}{f' ({row.outcome.secured})' if row.outcome.secured else ''}"
    return by + said, "" if by else "dim"


def event_what(row: Event, moment: Moment) -> Piece:
    """Whom it happened to, and what was said."""
    whom, says = event_subject(row, moment)[0], event_says(row, moment)[0]
    return "  ".join(part for part in (whom, says) if part), ""


DESTINATIONS: tuple[Column[Destination], ...] = (
    Column("destination", 17, lambda r, _: (r.name, ""), grow=5, letter="N", sort="name"),
    Column("waiting", 8, lambda r, _: number(r.waiting), right=True, letter="W", sort="waiting"),
    Column("due", 5, lambda r, _: number(r.due), rank=3, right=True, letter="U", sort="due"),
    Column("held", 5, lambda r, _: number(r.held, "warn"), rank=6, right=True, letter="L", sort="held"),
    Column("oldest", 6, lambda r, m: (m.since(r.oldest) if r.oldest else "-", "" if r.oldest else "dim"), rank=2,
           right=True, letter="O", sort="oldest"),
    Column("out/s", 5, lambda r, _: (rate(r.rate_out), "" if r.rate_out >= 0.05 else "dim"), rank=5, right=True),
    Column("conns", 5, lambda r, _: number(r.connections), rank=7, right=True),
    Column("next try", 8, lambda r, m: (next_left(r, m, "-"), ""), rank=8, right=True),
    Column("status, last reply", 20, destination_status, rank=1, rest=True),
)  # fmt: skip

RELAYERS: tuple[Column[RelayerView], ...] = (
    Column("host", 16, relayer_host, grow=13, letter="O", sort="host", order=lambda r: r.host),
    Column("phase", 10, relayer_phase, letter="P", sort="phase", order=lambda r: r.phase),
    Column("time", 5, relayer_time, right=True, letter="T", sort="time", order=lambda r: r.phase_since),
    Column("done", 6, lambda r, _: (f"{r.done}/{r.taken}", ""), rank=1, right=True),
    Column("tls", 4, lambda r, _: tls_name(r), rank=3, right=True),
    Column("open for", 8, lambda r, m: (m.since(r.started), ""), rank=5, right=True),
    Column("for", 20, carried_for, rank=4, grow=10),
    Column("address", 20, lambda r, _: (f"{r.address}:{r.port}" if r.address else "-", "dim"), rank=6, rest=True),
)  # fmt: skip

HOSTS: tuple[Column[BadHost], ...] = (
    Column("host", 16, lambda r, _: (r.host, ""), grow=6, letter="O", sort="host", order=lambda r: r.host),
    Column("back in", 7, lambda r, m: (m.left(r.until), "warn"), right=True, letter="K", sort="back",
           order=lambda r: r.until),
    Column("waiting", 7, lambda r, _: number(r.waiting), right=True, letter="W", sort="waiting",
           order=lambda r: r.waiting),
    Column("by", 6, lambda r, _: (r.by, ""), rank=3),
    Column("why", 20, lambda r, _: (r.reason or (r.last.line if r.last else ""), ""), rank=1, grow=20, rest=True),
    Column("next try", 8, lambda r, m: (next_left(r, m, "-"), ""), rank=6, right=True),
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
    Column("reason", 40, lambda r, _: (r.why, ""), rank=1, rest=True),
)  # fmt: skip

EVENT_ROWS: tuple[Column[Event], ...] = (
    Column("time", 8, lambda r, m: (m.clock(r.at), "dim")),
    Column("event", 13, event_kind),
    Column("message", 8, lambda r, _: (str(r.message) if r.message else "", "dim"), rank=3, right=True),
    Column("what", 24, event_what, rank=1, grow=36, rest=True),
)  # fmt: skip

QUEUE: tuple[Column[Entry], ...] = (
    Column("id", 9, lambda r, _: (r.id, ""), right=True, letter="I", sort="id"),
    Column("state", 10, entry_state, letter="E", sort="state"),
    Column("to", 18, lambda r, _: (r.recipient, ""), grow=10, letter="T", sort="recipient"),
    Column("next try", 8, entry_next, rank=1, right=True, letter="N", sort="due"),
    Column("tries", 5, lambda r, _: (str(r.attempts), "" if r.attempts else "dim"), rank=3, right=True, letter="R",
           sort="attempts"),
    Column("age", 6, lambda r, m: (m.since(r.arrived), ""), rank=4, right=True, letter="A", sort="arrived"),
    Column("size", 9, lambda r, _: (size(r.size), ""), rank=6, right=True, letter="Z", sort="size"),
    Column("from", 18, lambda r, _: (r.sender or "<>", "" if r.sender else "dim"), rank=5, grow=8, letter="F",
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
