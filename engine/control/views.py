"""What can be seen and asked through the control socket: the wire's types, and nothing of how they come about.

Times are seconds since 1970 (UTC), sizes are bytes, texts are cleaned for a terminal by the engine.
"""

from typing import Literal

from msgspec import Struct

from engine.model.outcome import Outcome

RELAY = "*"  # the destination that stands for the whole relay


class View(Struct, frozen=True, kw_only=True):
    """Base of all views: frozen, fields by keyword. Of an answer unknown fields are ignored: versions may differ."""


# -- what is seen ---------------------------------------------------------------------------------------------------


class SuspensionView(View, frozen=True, kw_only=True):
    """A destination, or the relay ("*"), that opens no new connections until `until`."""

    destination: str
    since: float
    until: float
    by: str
    reason: str


HealthState = Literal["relaying", "suspended", "draining", "sick"]


class HealthView(View, frozen=True, kw_only=True):
    """One line of health. `state`: relaying, suspended, draining, or sick (with `trouble` saying why).

    Of those waiting `due` are those whose time has come, and `ready` those of them that nothing keeps from being sent.
    Of a very long queue both are counted anew only every few seconds. `destinations` have mail; `destinations_known`
    are all that are listed. `lookups` look for their way, and have no connection. `bad_hosts` are marked bad. `notes`
    say what is no trouble, and should be known: a bound that is reached, a setting that may not be as it was meant.
    `read_only`: who asks came by the door for looking.
    """

    hostname: str
    version: str
    pid: int
    started: float
    now: float
    state: HealthState
    trouble: str = ""
    notes: tuple[str, ...] = ()
    waiting: int = 0
    due: int = 0
    ready: int = 0
    held: int = 0
    relaying: int = 0
    oldest: float | None = None
    destinations: int = 0
    destinations_known: int = 0
    rate_in: float = 0.0
    rate_out: float = 0.0
    connections: int = 0
    max_connections: int = 0
    lookups: int = 0
    max_lookups: int = 0
    next_check: float | None = None
    suspended: SuspensionView | None = None
    undo_seconds: float = 10.0
    confirm_typed_over: int = 1000
    bad_mx_seconds: float = 3600.0
    bad_hosts: int = 0
    read_only: bool = False


class MarkView(View, frozen=True, kw_only=True):
    """That a host is marked bad until `back_at`."""

    host: str
    back_at: float


class DestinationView(View, frozen=True, kw_only=True):
    """One destination. `condition`, with `condition_why`, is that of its waiting mail which is due first.

    Its words are those of `Condition`, in delivery. It is "relaying" where that could go and some of it is on its
    way, and "idle" where there is no mail; `next_try` is when it is tried, None where no time leads to that. `override`
    is where its mail goes instead, "10.0.0.5:25". `blocked_until`: no connection before, because none could be had
    (`blocked_why`). `last` is the last reply of anything.
    `connections` counts those of its site, that is of all destinations with the same `exchanges`; `neighbours` are
    others of the site for which mail waits, 20 at the most, and only where one destination is asked for. `marked` are
    those of its exchanges that are marked bad.
    """

    name: str
    waiting: int
    due: int
    held: int
    relaying: int
    oldest: float | None = None
    next_due: float | None = None
    rate_out: float = 0.0
    connections: int = 0
    last: Outcome | None = None
    last_at: float | None = None
    suspended: SuspensionView | None = None
    blocked_until: float | None = None
    blocked_why: str = ""
    condition: str = "idle"
    next_try: float | None = None
    condition_why: str = ""
    override: str = ""
    exchanges: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    marked: tuple[MarkView, ...] = ()


class DestinationsView(View, frozen=True, kw_only=True):
    """A window of the destinations."""

    total: int
    offset: int
    rows: tuple[DestinationView, ...]


class RelayerView(View, frozen=True, kw_only=True):
    """One connection, live or ended (`ended`, `result`). `done` of `taken` messages are settled.

    `phase`: lookup, connecting, greeting, hello, TLS, AUTH, MAIL, RCPT, DATA, body, reply, idle, QUIT, ended.
    `tls` is the protocol version ("TLSv1.3") or "", `secured` says in words how the session is ("TLS 1.3, certificate
    trusted", "clear text"; "" while there is none), `trusted` whether the certificate is. `stalling`: longer in its
    phase than is usual for it.
    `destination` is whose mail it carries now, `site` the best host of the site it serves ("" while not known),
    `domains` those it has carried mail for (100 at the most).
    """

    id: int
    destination: str
    host: str
    address: str
    port: int
    phase: str
    phase_since: float
    started: float
    done: int
    taken: int
    tls: str = ""
    secured: str = ""
    trusted: bool | None = None
    stalling: bool = False
    ended: float | None = None
    result: str = ""
    site: str = ""
    domains: tuple[str, ...] = ()


class TranscriptLine(View, frozen=True, kw_only=True):
    """One line of an SMTP conversation. `side`: "<" the peer, ">" we, "=" a remark of ours."""

    at: float
    side: Literal["<", ">", "="]
    text: str


class TranscriptView(View, frozen=True, kw_only=True):
    """A relayer and what was said so far; `cut` lines in the middle were not kept."""

    relayer: RelayerView
    lines: tuple[TranscriptLine, ...]
    cut: int = 0


class HostView(View, frozen=True, kw_only=True):
    """One MX host marked bad. `back_at` is when the mark ends; `by` is "engine" or an operator.

    `times` counts the engine's marks in a row, each of which lasts longer than the one before.
    `waiting` counts the mail that has no other exchange, which is tried at `next_try` (None: no time leads to that);
    `alternates` are used for the rest.
    """

    host: str
    since: float
    back_at: float
    by: str
    reason: str
    last: Outcome | None = None
    waiting: int = 0
    destinations: tuple[str, ...] = ()
    alternates: tuple[str, ...] = ()
    next_due: float | None = None
    next_try: float | None = None
    times: int = 1


class HostsView(View, frozen=True, kw_only=True):
    """A window of the MX hosts marked bad."""

    total: int
    offset: int
    rows: tuple[HostView, ...]


class StandingView(View, frozen=True, kw_only=True):
    """One thing that an operator (or the engine) has laid upon mail until `until`.

    `name` is the destination ("*": the whole relay), the rule's filter or the host; `what` says what it does. `rule`
    is the number of a hold rule.
    """

    kind: Literal["suspension", "hold rule", "host mark", "override"]
    name: str
    what: str
    since: float
    until: float
    by: str
    reason: str
    rule: int = 0


class CertificateView(View, frozen=True, kw_only=True):
    """What a host's certificate says; `trouble`: why it could not be read, or ""."""

    subject: str = ""
    issuer: str = ""
    names: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None
    trouble: str = ""


class ProbedAddressView(View, frozen=True, kw_only=True):
    """What one address of a probed host answered. `trouble`: what went wrong in `phase`; "": all went well to QUIT.

    `offered` are its extensions before TLS, `offered_secured` those under it. `verifies`: its certificate is right by
    the authorities the engine trusts, else `verify_trouble` says why not; None: it showed none. `seconds` it took.
    """

    address: str
    port: int
    phase: str
    seconds: float
    greeting: str = ""
    offered: tuple[str, ...] = ()
    offered_secured: tuple[str, ...] = ()
    tls: str = ""
    certificate: CertificateView | None = None
    verifies: bool | None = None
    verify_trouble: str = ""
    trouble: str = ""
    lines: tuple[TranscriptLine, ...] = ()


class ProbeView(View, frozen=True, kw_only=True):
    """What came back from a host. `trouble`: why it has no address; `left_out` addresses were not asked."""

    host: str
    port: int
    at: float
    summary: str
    addresses: tuple[ProbedAddressView, ...] = ()
    left_out: int = 0
    trouble: str = ""


class FactView(View, frozen=True, kw_only=True):
    """One thing that is so."""

    name: str
    text: str


class ExplanationView(View, frozen=True, kw_only=True):
    """Why one recipient's mail is where it is: the one true cause, then the facts.

    `cause` is a word for programs (see `Cause`, in delivery), `text` says it to people; `until` is when it ends, and
    `earliest` when the mail can go at the earliest (None: not before somebody acts, or never; see `cause`).
    """

    subject: str
    destination: str
    cause: str
    text: str
    until: float | None = None
    earliest: float | None = None
    entry: str = ""
    facts: tuple[FactView, ...] = ()


class ExplainView(View, frozen=True, kw_only=True):
    """What was asked to be explained, and the explanation of each recipient that it is about."""

    subject: str
    now: float
    explanations: tuple[ExplanationView, ...]


class EntryView(View, frozen=True, kw_only=True):
    """One recipient of one message: a row of the queue. `id` is "48213.2"; `why` is the reason of `last`, or "".

    `condition` (a word of `Condition`, in delivery) says what it is, `condition_why` why in words, and `next_try`
    when it is tried (in the past for what is ready): None where no time leads to that, since somebody must act or a
    connection must end first.
    """

    id: str
    message: int
    sender: str
    recipient: str
    destination: str
    state: Literal["waiting", "relaying", "held"]
    arrived: float
    due: float
    expires: float
    attempts: int
    size: int
    subject: str = ""
    last: Outcome | None = None
    last_at: float | None = None
    ordered: Literal["hold", "bounce", "drop"] | None = None
    order_at: float | None = None
    by: str = ""
    reason: str = ""
    why: str = ""
    blocked_until: float | None = None
    condition: str = "ready"
    next_try: float | None = None
    condition_why: str = ""


class QueueView(View, frozen=True, kw_only=True):
    """A window of the queue."""

    total: int
    offset: int
    rows: tuple[EntryView, ...]


class ReasonView(View, frozen=True, kw_only=True):
    """Why mail waits: what many peers said alike, without what varies, or why it was never tried.

    The filter `why="..."` names its entries.

    Of `destinations` in all, `busiest` names three; `oldest` is when the first of the messages came, `example` one of
    the outcomes as it was.
    """

    why: str
    entries: int
    messages: int
    destinations: int
    busiest: tuple[str, ...]
    oldest: float
    example: Outcome | None = None


class AttemptView(View, frozen=True, kw_only=True):
    """One try at one recipient (`entry` is "48213.2")."""

    entry: str
    relayer: int
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    interrupted: bool = False


class EventView(View, frozen=True, kw_only=True):
    """One thing that happened; see engine.model.event for the kinds."""

    seq: int
    at: float
    kind: str
    by: str
    message: int = 0
    entry: str = ""
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    host: str = ""
    outcome: Outcome | None = None
    text: str = ""


class MessageView(View, frozen=True, kw_only=True):
    """One message. When it has left the queue (`finished`), only what the events tell of it is here."""

    number: int
    finished: bool = False
    sender: str = ""
    size: int = 0
    arrived: float = 0.0
    expires: float = 0.0
    origin: str = ""
    subject: str = ""
    message_id: str = ""
    headers: tuple[str, ...] = ()
    entries: tuple[EntryView, ...] = ()
    attempts: tuple[AttemptView, ...] = ()
    events: tuple[EventView, ...] = ()


class OverviewView(View, frozen=True, kw_only=True):
    """The overview in one snapshot: the head of each listing, taken at one moment; of `hosts` the first to be back."""

    health: HealthView
    destinations: tuple[DestinationView, ...] = ()
    relayers: tuple[RelayerView, ...] = ()
    hosts: tuple[HostView, ...] = ()
    events: tuple[EventView, ...] = ()


# -- what is asked --------------------------------------------------------------------------------------------------

GivingUp = Literal["bounce", "drop"]
Verb = Literal["retry", "hold", "release", "bounce", "drop"]


class Ask(View, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all asks: an unknown field is refused. It may be a known one misspelt, such as `dry-run`."""


class Check(Ask, frozen=True, kw_only=True):
    """Run check_state now."""


class Action(Ask, frozen=True, kw_only=True):
    """An action on the messages a filter names. With `dry_run` it only says what it would touch.

    `newest`: mail that arrived after this message number is not touched (given by the dry run), so that what was
    confirmed is what is done.
    """

    filter: str
    reason: str = ""
    newest: int | None = None
    dry_run: bool = False
    now: bool = False  # bounce and drop: at once, not to be undone


class Suspend(Ask, frozen=True, kw_only=True):
    """Suspend a destination, or the relay ("*"), for `seconds` (60 to 30 days)."""

    destination: str
    seconds: float
    reason: str


class Resume(Ask, frozen=True, kw_only=True):
    """End the suspension of a destination, or of the relay ("*"). With `dry_run` it only says what would go."""

    destination: str
    dry_run: bool = False


class MarkBad(Ask, frozen=True, kw_only=True):
    """Leave a host out for `seconds` (None: the setting delivery.bad_mx_timeout)."""

    host: str
    seconds: float | None = None
    reason: str = ""


class MarkGood(Ask, frozen=True, kw_only=True):
    """Use a host again. With `dry_run` it only says what would go."""

    host: str
    dry_run: bool = False


class HoldRule(Ask, frozen=True, kw_only=True):
    """Hold what `filter` names (from=, to=, domain=; all must hold), waiting or still to come, for `seconds`."""

    filter: str
    seconds: float
    reason: str


class ReleaseRule(Ask, frozen=True, kw_only=True):
    """End a hold rule and let go what it held. With `dry_run` it only says what would go."""

    rule: int
    dry_run: bool = False


class Override(Ask, frozen=True, kw_only=True):
    """Send a destination's mail to `to` ("HOST" or "HOST:PORT") instead of its exchanges, for `seconds`."""

    destination: str
    to: str
    seconds: float
    reason: str


class EndOverride(Ask, frozen=True, kw_only=True):
    """End the override of a destination. With `dry_run` it only says what would go."""

    destination: str
    dry_run: bool = False


class Close(Ask, frozen=True, kw_only=True):
    """End one connection."""

    relayer: int


class Probe(Ask, frozen=True, kw_only=True):
    """Speak to a host ("HOST" or "HOST:PORT") without sending it mail."""

    host: str


class Undo(Ask, frozen=True, kw_only=True):
    """Take back a bounce or drop by the operation number its result gave."""

    operation: int


# -- what is answered -----------------------------------------------------------------------------------------------


class SelectionView(View, frozen=True, kw_only=True):
    """What an action would touch."""

    messages: int
    recipients: int
    newest: int
    examples: tuple[EntryView, ...] = ()


class ResultView(View, frozen=True, kw_only=True):
    """What an action did, exactly; `verb` is its word. `operation` with `undo_until`: it can be undone until then.

    `follow`: the operation whose follow-up tells what becomes of it; 0: there is nothing to tell.
    """

    verb: str
    text: str
    messages: int = 0
    recipients: int = 0
    skipped: int = 0
    operation: int = 0
    undo_until: float | None = None
    follow: int = 0


Followed = Literal["retry", "release", "mark-good", "bounce", "drop"]


class FollowUpView(View, frozen=True, kw_only=True):
    """What has become, so far, of the mail that an order touched; `text` says it in one line.

    `over`: nothing more is to be told of it. Of the `recipients` it touched the first `followed` are looked at, and the
    counts below are of these. `deferred` were tried without success, `blocked` were not tried, for no connection could
    be had; `why` is the reason of most of both. `later`: not due yet; `waiting`: their turn has not come; `gone`: they
    have left, and no event kept says how. Of a bounce or drop `held` is what is still under it.
    """

    operation: int
    verb: Followed
    by: str
    at: float
    text: str
    over: bool
    recipients: int
    followed: int
    delivered: int = 0
    deferred: int = 0
    returned: int = 0
    dropped: int = 0
    gone: int = 0
    relaying: int = 0
    held: int = 0
    suspended: int = 0
    blocked: int = 0
    later: int = 0
    waiting: int = 0
    why: str = ""


class Refusal(View, frozen=True, kw_only=True):
    """Why the engine did not do what was asked: what is wrong, where, and what is allowed."""

    what: str
    where: str = ""
    allowed: str = ""
    not_found: bool = False  # nothing of that name, or nothing matched
