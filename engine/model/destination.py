"""Destinations: what waits for them, and what keeps it from being sent."""

from msgspec import Struct

from engine.model.explanation import Condition
from engine.model.outcome import Cause, Outcome

RELAY = "*"  # the destination that stands for the whole relay, in suspensions


def unknown_site(destination: str) -> str:
    """The site of a destination whose exchanges are not known yet: its own, in a form that no host's name has."""
    return f"@{destination}"


class Suspension(Struct, frozen=True, kw_only=True):
    """A destination (or RELAY) for which no new connection is opened until `until`."""

    destination: str
    since: float
    until: float
    by: str
    note: str


class Over(Struct, frozen=True, kw_only=True):
    """The destinations whose suspension, or whose override, is over: its time has come."""

    suspended: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()


class Override(Struct, frozen=True, kw_only=True):
    """A destination whose mail goes to `host` instead of its exchanges until `until`. `port` 0: the usual one."""

    destination: str
    host: str
    port: int
    since: float
    until: float
    by: str
    note: str

    @property
    def to(self) -> str:
        """Host and port, as they are written."""
        if not self.port:
            return self.host
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        return f"{host}:{self.port}"


class Mark(Struct, frozen=True, kw_only=True):
    """An MX host that is left out until `until`. `by` is "engine" or the operator who marked it.

    `times` counts the engine's marks in a row, without a delivery between them.
    """

    host: str
    since: float
    until: float
    by: str
    note: str
    last: Outcome | None = None
    times: int = 1


class Bearing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store knows that bears on when mail of a destination is tried.

    `next_due` is None when nothing waits. `relay` is the suspension of the whole relay, `suspended` its own.
    `blocked_until`: no connection is opened before, because none could be had (`blocked_why`, and
    `blocked_cause` as of an Outcome); `is_in_doubt`: it has
    not proved itself, since it has taken no mail lately, or failed since it did. `unreached_at`: when none could be had
    last (0: never, or it has taken mail since).
    `first` is the message of its waiting mail that is due first, and `first_sender` whose that is.
    `exchanges` are the hosts its last MX answer named, best first, or the one an override or a route names; `site`
    names what it shares connections with.
    """

    name: str = ""
    next_due: float | None = None
    relay: Suspension | None = None
    suspended: Suspension | None = None
    blocked_until: float | None = None
    blocked_why: str = ""
    blocked_cause: Cause = ""
    is_in_doubt: bool = False
    unreached_at: float = 0.0
    first: int = 0
    first_sender: str = ""
    override: Override | None = None
    exchanges: tuple[str, ...] = ()
    site: str = ""


class Destination(Bearing, frozen=True, kw_only=True, omit_defaults=False):
    """One destination's counts and how it fares.

    `last` is the last reply of anything, `reply` that of what waits and is due first. `neighbours` are others of its
    site for which mail waits, most first: 20 at the most, and only where one destination is asked for.

    Who shows it adds what only the running engine knows. `condition`, with `condition_why`, is that of its waiting mail
    which is due first; it is "relaying" where that could go and some of it is on its way, and "idle" where there is no
    mail. `next_try` is when it is tried, None where no time leads to that. `connections` are those of its site,
    `marked` the marks on its exchanges, and `rate_out` is in recipients a second.
    """

    waiting: int = 0
    due: int = 0
    held: int = 0
    relaying: int = 0
    oldest: float | None = None
    last: Outcome | None = None
    last_at: float | None = None
    reply: Outcome | None = None
    neighbours: tuple[str, ...] = ()
    rate_out: float = 0.0
    connections: int = 0
    condition: Condition = "idle"
    next_try: float | None = None
    condition_why: str = ""
    marked: tuple[Mark, ...] = ()


class BadHost(Mark, frozen=True, kw_only=True):
    """A mark, and what waits because of it.

    `waiting` counts the mail that has no other exchange, which is tried at `next_try` (None: no time leads to that);
    `alternates` are used for the rest of `destinations`.
    """

    waiting: int = 0
    destinations: tuple[str, ...] = ()
    alternates: tuple[str, ...] = ()
    next_due: float | None = None
    next_try: float | None = None


class HeldBack(Struct, frozen=True, kw_only=True):
    """What waits because of one bad host: the destinations that have it among their exchanges.

    `waiting` counts only entries of destinations with no exchange left that is not bad; `alternates` are the
    exchanges in use instead; `next_due` is when the first of the waiting entries is due, and `first` are the
    destinations among them that are tried first, ten at the most.
    """

    host: str
    waiting: int
    destinations: tuple[str, ...]
    alternates: tuple[str, ...]
    next_due: float | None = None
    first: tuple[Bearing, ...] = ()


class Totals(Struct, frozen=True, kw_only=True):
    """Entries in the whole queue, by state.

    `due` are those waiting whose time has come; `ready` those of them that nothing keeps from being sent now. Of a very
    long queue both may be some seconds old. `destinations` are those with mail, of all that are `known`.
    """

    waiting: int
    due: int
    held: int
    relaying: int
    destinations: int
    oldest: float | None = None
    ready: int = 0
    known: int = 0
