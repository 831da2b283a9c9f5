"""What can be seen through the control socket: the wire's types, and nothing of how they come about.

What can be asked, and what is answered to that, is in engine.model.verbs.

Times are seconds since 1970 (UTC), sizes are bytes, texts are cleaned for a terminal by the engine.
"""

from typing import Literal

from msgspec import Struct

from engine.model.destination import BadHost, Destination, Suspension
from engine.model.event import Event
from engine.model.explanation import Explanation
from engine.model.transcript import Line


class View(Struct, frozen=True, kw_only=True):
    """Base of all views: frozen, fields by keyword. Of an answer unknown fields are ignored: versions may differ."""


# -- what is seen ---------------------------------------------------------------------------------------------------


HealthState = Literal["relaying", "suspended", "draining", "sick"]


class HealthView(View, frozen=True, kw_only=True):
    """One line of health. `state`: relaying, suspended, draining, or sick (with `trouble` saying why).

    Of those waiting `due` are those whose time has come, and `ready` those of them that nothing keeps from being sent.
    Of a very long queue both are counted anew only every few seconds. `destinations` have mail; `destinations_known`
    are all that are listed. `lookups` look for their way, and have no connection. `bad_hosts` are marked bad. `notes`
    say what is no trouble, and should be known: a bound that is reached, a setting that may not be as it was meant.
    `read_only`: who asks came by the door for looking. `node` is which of the `nodes` that share the queue this is
    (`nodes_lost` of them are lost); what is not of the queue is this one's: rates, connections, look-ups. Both are
    empty where it is alone.
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
    suspended: Suspension | None = None
    undo_seconds: float = 10.0
    confirm_typed_over: int = 1000
    bad_mx_seconds: float = 3600.0
    bad_hosts: int = 0
    read_only: bool = False
    node: str = ""
    nodes: int = 0
    nodes_lost: int = 0


class DestinationsView(View, frozen=True, kw_only=True):
    """A window of the destinations."""

    total: int
    offset: int
    rows: tuple[Destination, ...]


class RelayerView(View, frozen=True, kw_only=True):
    """One connection, live or ended (`ended`, `result`). `done` of `taken` messages are settled.

    `phase`: lookup, connecting, greeting, hello, TLS, AUTH, MAIL, RCPT, DATA, body, reply, idle, QUIT, ended.
    `tls` is the protocol version ("TLSv1.3") or "", `secured` says in words how the session is ("TLS 1.3, certificate
    trusted", "clear text"; "" while there is none), `trusted` whether the certificate is. `stalling`: longer in its
    phase than is usual for it.
    `destination` is whose mail it carries now, `site` the best host of the site it serves ("" while not known),
    `domains` those it has carried mail for (100 at the most). `node` is which of several that share the queue has it:
    each counts its own.
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
    node: str = ""


class TranscriptView(View, frozen=True, kw_only=True):
    """A relayer and what was said so far; `cut` lines in the middle were not kept."""

    relayer: RelayerView
    lines: tuple[Line, ...]
    cut: int = 0


class HostsView(View, frozen=True, kw_only=True):
    """A window of the MX hosts marked bad."""

    total: int
    offset: int
    rows: tuple[BadHost, ...]


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
    note: str
    rule: int = 0


class ExplainView(View, frozen=True, kw_only=True):
    """What was asked to be explained, and the explanation of each recipient that it is about.

    `node` is which of several that share the queue sees it so.
    """

    subject: str
    now: float
    explanations: tuple[Explanation, ...]
    node: str = ""


class OverviewView(View, frozen=True, kw_only=True):
    """The overview in one snapshot: the head of each listing, taken at one moment; of `hosts` the first to be back."""

    health: HealthView
    destinations: tuple[Destination, ...] = ()
    relayers: tuple[RelayerView, ...] = ()
    hosts: tuple[BadHost, ...] = ()
    events: tuple[Event, ...] = ()


# -- what is answered -----------------------------------------------------------------------------------------------


class FollowUpView(View, frozen=True, kw_only=True):
    """What has become, so far, of the mail that an order touched; `text` says it in one line.

    `over`: nothing more is to be told of it. Of the `recipients` it touched the first `followed` are looked at, and the
    counts below are of these. `deferred` were tried without success, `blocked` were not tried, for no connection could
    be had; `why` is the reason of most of both. `later`: not due yet; `waiting`: their turn has not come; `gone`: they
    have left, and no event kept says how. Of a bounce or drop `held` is what is still under it.
    """

    operation: int
    verb: str
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
