"""The contract of the durable queue: what every store must do, and what it promises.

A queue holds messages; every recipient of a message is an *entry*, a row of its own with a state, a destination and
the time it is due. An entry is named `48213.2`: the second recipient of message 48213. Every method that changes
something returns only after the change is on disk, with the events that tell of it written in the same transaction.
Rows are listed by window, never all at once, and memory does not grow with the queue.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.outcome import Outcome
from engine.model.steering import Override, Steering
from engine.queue.content import Content

State = Literal["waiting", "relaying", "held"]
Ret = Literal["", "FULL", "HDRS"]
Order = Literal["hold", "bounce", "drop"]
Told = Literal["failed", "relayed"]  # RFC 3464 2.3.3
Ending = Literal["mark", "suspension", "override", "rule"]


def unknown_site(destination: str) -> str:
    """The site of a destination whose exchanges are not known yet: its own, in a form that no host's name has."""
    return f"@{destination}"


RELAY = "*"  # the destination that stands for the whole relay, in suspensions


class QueueError(Exception):
    """The queue could not do what was asked; nothing of it was done."""


class QueueFull(QueueError):
    """No room on the disk for this. It works again once there is."""


class QueueBroken(QueueError):
    """The store failed to write; it takes nothing more until the engine is started anew.

    After a failed fsync what is on disk is unknown, and a second fsync may say "ok" of pages that were lost.
    """


class QueueBusy(QueueError):
    """Somebody else holds the store; it works again once they let go."""


class QueueDamaged(QueueError):
    """A page that this needs cannot be read; nothing of it was done. What does not need that page goes on."""


class NotRunning(QueueError):
    """The attempt to be settled is not running any more: it was settled, put back or interrupted before."""


class NoSuchMessage(QueueError):
    """There is no message of this number in the queue."""


class Wishes(Struct, frozen=True, kw_only=True):
    """What the sender wants to be told of one recipient (RFC 3461 4.1 and 4.2).

    `notify` is "" (nothing was said), "NEVER", or a list such as "SUCCESS,DELAY"; `orcpt` is the recipient the sender
    named at first, as type and xtext, "rfc822;bob@example.org", or "".
    """

    notify: str = ""
    orcpt: str = ""

    def include(self, about: Literal["SUCCESS", "FAILURE", "DELAY"]) -> bool:
        """Whether the sender is to be told of this. Who said nothing is told of failure and of delay."""
        return about in self.notify.split(",") if self.notify else about != "SUCCESS"


NO_WISHES = Wishes()


class NewMessage(Struct, frozen=True, kw_only=True):
    """A message to be queued. Content has CRLF line ends and ends with one; addresses have passed
    `engine.base.address`.

    `sender` is "" for the null reverse-path. `origin` says where it came from ("smtp 127.0.0.1", "drop a.eml",
    "bounce of 12"). `key`: a message whose key was enqueued before and not yet forgotten is not taken twice.
    What the sender asked to be told: `ret` and `envid` (xtext) of the message, `wishes` of each recipient, or () where
    nothing was said of any.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    origin: str
    subject: str = ""
    message_id: str = ""
    smtputf8: bool = False
    key: str | None = None
    ret: Ret = ""
    envid: str = ""
    wishes: tuple[Wishes, ...] = ()


class ClaimedEntry(Struct, frozen=True, kw_only=True):
    """One recipient a relayer answers for. `attempt` is the record of this attempt; `attempts` counts those before.

    `last` is what the attempt before came to. In a claim of `overdue`, `given_up` says by whose order and why
    ("bounced by oncall: wrong list"), or is "" when the time was up, and `last` of an entry that was never tried is
    how its destination fared.
    """

    number: int
    recipient: str
    attempt: int
    attempts: int
    given_up: str = ""
    last: Outcome | None = None
    wishes: Wishes = NO_WISHES


class Claim(Struct, frozen=True, kw_only=True):
    """One message and those of its recipients, all of one destination, that one relayer answers for until settled."""

    message: int
    sender: str
    size: int
    arrived: float
    expires: float
    eight_bit: bool
    smtputf8: bool
    destination: str
    entries: tuple[ClaimedEntry, ...]
    ret: Ret = ""
    envid: str = ""


class Relaying(NamedTuple):
    """An entry that is being relayed, by which attempt and relayer; both are 0 where it is being returned."""

    message: int
    entry: int
    attempt: int = 0
    relayer: int = 0


class EntryResult(Struct, frozen=True, kw_only=True):
    """What one attempt came to for one entry. `due` is when to try again, None when the entry is finished.

    `tell` is what is to be told of one that is finished; None: nothing.
    """

    number: int
    attempt: int
    outcome: Outcome
    due: float | None = None
    tell: Told | None = None


class Settlement(Struct, frozen=True, kw_only=True):
    """What one attempt came to for a message: applied whole, in one transaction, with what is to be told of it."""

    message: int
    results: tuple[EntryResult, ...]
    events: tuple[Event, ...] = ()


class UntoldEntry(Struct, frozen=True, kw_only=True):
    """One recipient that was settled `at` some time, and of which nobody has been told yet."""

    number: int
    recipient: str
    outcome: Outcome
    action: Told
    at: float
    orcpt: str = ""


class Untold(Struct, frozen=True, kw_only=True):
    """A message and some of its recipients, of which the sender (or the postmaster) is to be told now.

    `given_back`: its content has gone back whole before.
    """

    message: int
    sender: str
    arrived: float
    smtputf8: bool
    entries: tuple[UntoldEntry, ...]
    ret: Ret = ""
    envid: str = ""
    given_back: bool = False


class LateEntry(Struct, frozen=True, kw_only=True):
    """One recipient whose sender is to be told of the delay; `last` is as in a claim of `overdue`."""

    number: int
    recipient: str
    destination: str
    expires: float
    last: Outcome | None = None
    wishes: Wishes = NO_WISHES


class Late(Struct, frozen=True, kw_only=True):
    """A message whose sender is to be told that some of its recipients have to wait."""

    message: int
    sender: str
    arrived: float
    smtputf8: bool
    entries: tuple[LateEntry, ...]
    ret: Ret = ""
    envid: str = ""


class Reason(Struct, frozen=True, kw_only=True):
    """Why many entries wait: their last attempt came to the same (see engine.model.reason), or none was made for one
    reason.

    Of mail that was never tried `why` is what its destination is blocked for, the same as if it had got that reply
    itself; or who has suspended or held it; or that nothing keeps it (see engine.queue.sqlite.untried).
    Of `destinations` in all, `busiest` names three, the one with most entries first; `oldest` is when the first of
    the messages came, `example` a last outcome as it was.
    """

    why: str
    entries: int
    messages: int
    destinations: int
    busiest: tuple[str, ...]
    oldest: float
    example: Outcome | None = None


class Suspension(Struct, frozen=True, kw_only=True):
    """A destination (or RELAY) for which no new connection is opened until `until`."""

    destination: str
    since: float
    until: float
    by: str
    reason: str


class Bearing(Struct, frozen=True, kw_only=True):
    """What the store knows that bears on when mail of a destination is tried.

    `next_due` is None when nothing waits. `relay` is the suspension of the whole relay, `suspended` its own.
    `blocked_until`: no connection is opened before, because none could be had (`blocked_why`); `is_in_doubt`: it has
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
    is_in_doubt: bool = False
    unreached_at: float = 0.0
    first: int = 0
    first_sender: str = ""
    override: Override | None = None
    exchanges: tuple[str, ...] = ()
    site: str = ""


class Shares(Struct, frozen=True, kw_only=True):
    """The messages, senders and registered domains that have all of the relay that one of them may have.

    It holds for destinations in doubt: for those whose first mail is of such a message or from such a sender, and for
    those at or below such a domain.
    """

    messages: frozenset[int] = frozenset()
    senders: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()


NONE_TAKEN = Shares()


class Room(Struct, frozen=True, kw_only=True):
    """To which sites mail may be sent now, as far as limits and connections go.

    To none of `closed`; where `only` is given, to these alone, since every connection is in use; to destinations in
    doubt only `with_doubtful`, and of these to none of which one has its share already (`taken`).
    """

    closed: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    with_doubtful: bool = True
    taken: Shares = NONE_TAKEN


ROOM = Room()  # for anything


class Entry(Struct, frozen=True, kw_only=True):
    """One recipient of one message as it stands in the queue.

    `why` is the reason of `last`, or "" (see engine.model.reason). `ordered` is a bounce or drop that takes effect at
    `order_at` unless undone, or a hold; `by` is who ordered it, `reason` for what, and `rule` the hold rule that did so
    for them, which ends at `held_until`. `bearing` is what bears on its destination.
    """

    message: int
    number: int
    sender: str
    recipient: str
    destination: str
    state: State
    arrived: float
    due: float
    expires: float
    attempts: int
    size: int
    subject: str = ""
    last: Outcome | None = None
    last_at: float | None = None
    ordered: Order | None = None
    order_at: float | None = None
    by: str = ""
    reason: str = ""
    why: str = ""
    rule: int | None = None
    held_until: float | None = None
    bearing: Bearing = Bearing()


class Window(Struct, frozen=True, kw_only=True):
    """A part of a listing: rows from `offset` on, of `total` that match."""

    total: int
    offset: int
    rows: tuple[Entry, ...]


class Attempt(Struct, frozen=True, kw_only=True):
    """One try at one entry. While it runs, or if the engine was killed in it, there is no outcome."""

    entry: int
    relayer: int
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    interrupted: bool = False


class Message(Struct, frozen=True, kw_only=True):
    """One message with its open entries and every attempt at them, oldest first."""

    number: int
    sender: str
    size: int
    arrived: float
    expires: float
    origin: str
    subject: str
    message_id: str
    eight_bit: bool
    smtputf8: bool
    entries: tuple[Entry, ...]
    attempts: tuple[Attempt, ...]


class Selection(Struct, frozen=True, kw_only=True):
    """What a filter selects: exact counts, three examples, and the newest message number at that moment."""

    messages: int
    recipients: int
    newest: int
    examples: tuple[Entry, ...] = ()


class Changed(Struct, frozen=True, kw_only=True):
    """What an operator's action did. `skipped` entries matched but were being relayed, or were so already.

    `operation` names the action for `undo`, which can be undone until `due`; 0 where it cannot be.
    """

    messages: int
    recipients: int
    skipped: int = 0
    operation: int = 0
    due: float | None = None


FOLLOWED = 10_000  # entries of one order whose fate can be asked for


class TouchedEntry(NamedTuple):
    """An entry that an order touched; `attempts` counts those before."""

    message: int
    number: int
    attempts: int


class Touched:
    """Written by an order as it goes: its number, and which entries it has touched, for whoever follows them up.

    `entries` are the first FOLLOWED of `recipients`; `since` is the last event before the first of them.
    """

    def __init__(self) -> None:
        self.operation = 0
        self.since = 0
        self.recipients = 0
        self.entries: list[TouchedEntry] = []

    def add(self, operation: int, since: int, entries: Sequence[TouchedEntry]) -> None:
        """Note what one transaction has touched, once it is on disk."""
        if not self.operation:
            self.operation, self.since = operation, since
        self.recipients += len(entries)
        self.entries += entries[: FOLLOWED - len(self.entries)]


class Fate(NamedTuple):
    """What became of an entry since an order let it go, and the reason where one was given.

    `deferred`: tried without success; `blocked`: not tried, for no connection could be had to its destination;
    `later`: not due yet; `waiting`: nothing keeps it but its turn; `gone`: it has left, and no event kept says how.
    """

    what: Literal[
        "delivered", "deferred", "returned", "dropped", "gone",
        "relaying", "held", "suspended", "blocked", "later", "waiting",
    ]  # fmt: skip
    why: str = ""


class Operation(Struct, frozen=True, kw_only=True):
    """An order to bounce or drop, and how far it has come.

    Of the `recipients` that it touched it has been carried out on `gone_recipients`, `released` were released before
    that, and `left` are under it still; the rest went another way. `due` is when it is carried out: None when it is
    not `finished` (all of it ordered), was cut short or undone, or is over.
    """

    id: int
    verb: str
    filter: str
    by: str
    at: float
    messages: int
    recipients: int
    gone_messages: int
    gone_recipients: int
    released: int
    due: float | None
    finished: bool
    left: int


class Destination(Bearing, frozen=True, kw_only=True):
    """One destination's counts and how it fares.

    `last` is the last reply of anything, `reply` that of what waits and is due first. `neighbours` are others of its
    site for which mail waits, most first: 20 at the most, and only where one destination is asked for.
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


class DueSite(Struct, frozen=True, kw_only=True):
    """A site for which something is due, and the one of its destinations whose turn it is.

    `is_in_doubt`: that one has not proved itself; `has_failed`: it was left alone, and has taken no mail since.
    `message` and `sender` say whose mail is due first, where that was asked for.
    """

    site: str
    destination: str
    is_in_doubt: bool = False
    has_failed: bool = False
    message: int = 0
    sender: str = ""


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


class Mark(Struct, frozen=True, kw_only=True):
    """An MX host that is left out until `until`. `by` is "engine" or the operator who marked it.

    `times` counts the engine's marks in a row, without a delivery between them.
    """

    host: str
    since: float
    until: float
    by: str
    reason: str
    last: Outcome | None = None
    times: int = 1


class KeptPolicy(Struct, frozen=True, kw_only=True):
    """An MTA-STS policy as the store keeps it until `expires`; `policy` is text that only its keeper reads."""

    domain: str
    expires: float
    policy: str


class KnownLogin(Struct, frozen=True, kw_only=True):
    """A login came in rightly from an address, the last time `at`."""

    login: str
    address: str
    at: float


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


class Queue(Steering):
    """The durable queue. `on_events` is called with the events of each commit, on the loop that opened the queue."""

    on_events: Callable[[Sequence[Event]], None]

    # -- life -----------------------------------------------------------------------------------------------------

    @abstractmethod
    async def open(self) -> int:
        """Open the store and put interrupted entries back to waiting; give how many there were.

        Raises QueueError when the store cannot be opened or is of a newer version.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked for and close. Nothing may be asked afterwards.

        Bounded in time: what takes long is cut short between two steps of it. What was to be carried out in any case
        goes on at the next start; of an order that was not whole yet that start tells how far it came.
        """

    @property
    @abstractmethod
    def broken(self) -> str:
        """Why the store takes nothing more, or ""."""

    @property
    @abstractmethod
    def trouble(self) -> str:
        """What is not well with a store that goes on all the same, or "": a page of it is damaged, say."""

    @property
    @abstractmethod
    def spare(self) -> int:
        """Bytes the store has that nothing is in: room for new mail, whatever is free in the file system."""

    # -- in -------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def enqueue(self, message: NewMessage) -> int:
        """Queue a message, due at once, and give its number once it is on disk.

        A key already taken gives the number it had then. Raises QueueFull, QueueBusy, QueueBroken.
        """

    @abstractmethod
    async def forget_key(self, key: str) -> None:
        """The source of this key is gone: it need not be remembered any more."""

    # -- choose and claim -----------------------------------------------------------------------------------------

    @abstractmethod
    async def due_destinations(self, limit: int, without: Collection[str] = ()) -> list[str]:
        """Up to `limit` destinations with something due that may be sent now, the one served longest ago first.

        Suspended and blocked destinations are left out, and all of them while RELAY is suspended.
        """

    @abstractmethod
    async def due_sites(
        self, limit: int, without: Collection[str] = (), *, with_doubtful: bool = True
    ) -> list[DueSite]:
        """Up to `limit` sites, but those in `without`, of which some destination has something due that may be sent.

        A site is where destinations share connections; one whose exchanges are not known yet is its own (see
        `unknown_site`). In the order of `due_destinations`, each site once; those in doubt only `with_doubtful`.
        """

    @abstractmethod
    async def doubtful_sites(self, without: Collection[str] = (), taken: Shares = NONE_TAKEN) -> list[DueSite]:
        """As `due_sites`, of those in doubt alone, of which nobody has his share already (`taken`).

        Each says whose mail is due first, so that turns can be shared out between senders and messages. They are the
        first 500 of those never tried, and of those that have failed, as far as they are among the first 20,000; of
        those behind where there are none among these. What took long to find is given again for a while.
        """

    @abstractmethod
    async def proves(self, site: str) -> bool:
        """Whether any destination of a site has taken mail lately, and not failed since."""

    @abstractmethod
    async def next_due(self, after: float = 0.0) -> float | None:
        """When something next becomes due, expires, ends (a suspension, a block), is carried out (a bounce or drop)
        or is to be told.

        The first such time later than `after`; one that has passed means that there is something to do now.
        """

    @abstractmethod
    async def claim(self, destination: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        """Mark up to `limit` due messages of a destination `relaying` and record the attempt.

        Half of them are for what was never tried, as long as there is such: the first due of these come first, then
        the first due of all. At most `recipients` entries of one message go into one claim. Counts as the
        destination's turn. Gives [] when nothing is due or the destination may not be served now.
        """

    @abstractmethod
    async def claim_site(self, site: str, limit: int, relayer: int, recipients: int = 50) -> list[Claim]:
        """As `claim`, from all destinations of a site that may be served now, the one served longest ago first."""

    @abstractmethod
    async def content(self, message: int) -> bytes:
        """The message as it was queued. Raises NoSuchMessage, and QueueError when the body is damaged."""

    @abstractmethod
    async def open_content(self, message: int) -> Content:
        """The same, to be read block by block. Raises NoSuchMessage, and QueueError when the body is missing."""

    @abstractmethod
    async def settle(self, settlement: Settlement) -> None:
        """Apply what an attempt came to, in one transaction with its events and what is to be told of it.

        Finished entries leave; others are due again, or held where an operator ordered so meanwhile. A message
        without entries leaves with its body once nothing is to be told of it any more: see `untold`. Raises
        NotRunning, and does nothing, for an attempt that is not running.
        """

    @abstractmethod
    async def untold(self, limit: int) -> list[Untold]:
        """Up to `limit` messages of whose settled recipients somebody is to be told now, longest due first.

        That is some time after the first of them was settled, or once the last recipient of the message is. Nothing
        is claimed: `tell` does nothing for what has changed since.
        """

    @abstractmethod
    async def tell(self, untold: Untold, notice: NewMessage | None, *, gives_back: bool = False) -> bool:
        """Queue a notification, and forget in the same transaction what it tells; None: there is none.

        With that a message leaves that has no more entries. `gives_back`: its content goes back whole with it. Does
        nothing and gives False where some of it has been told already.
        """

    @abstractmethod
    async def tell_later(self, message: int, seconds: float) -> None:
        """What is to be told of a message could not be: it is looked at again after so many seconds."""

    @abstractmethod
    async def put_back(self, claims: Sequence[Claim], why: str) -> None:
        """Give claims back untried, as they were before: waiting, or still overdue, the attempt struck from the
        record."""

    @abstractmethod
    async def set_aside(self, claim: Claim, why: str) -> None:
        """Hold the entries of a message that cannot be read, saying why, so that all others go on."""

    @abstractmethod
    async def relaying(self) -> tuple[Relaying, ...]:
        """All entries that are being relayed, or returned."""

    @abstractmethod
    async def put_back_orphans(self, orphans: Sequence[Relaying], why: str) -> int:
        """Put back entries that nobody answers for any more, where that very attempt still stands; give how many.

        Their attempts count as interrupted: the peer may have them.
        """

    @abstractmethod
    async def note_destination(
        self, destination: str, exchanges: Sequence[str] | None, site: str | None = None
    ) -> None:
        """Remember which hosts the last MX answer named, best first, and the site they make (None: as before).

        What its new site has proved it has proved too.
        """

    @abstractmethod
    async def block(self, destination: str, until: float, why: str, *, failed: bool = True) -> None:
        """Open no connection to a destination before `until`: none could be had (`failed`), or a limit forbids it.

        What failed is in doubt until it takes mail again.
        """

    @abstractmethod
    async def block_site(self, site: str, until: float, why: str, *, failed: bool = True) -> None:
        """As `block`, for all destinations of a site for which something waits."""

    @abstractmethod
    async def unblock_site(self, site: str) -> None:
        """Connections to all destinations of a site may be opened again at once."""

    @abstractmethod
    async def unblock(self, destinations: Sequence[str]) -> None:
        """Connections to these may be opened again at once."""

    @abstractmethod
    async def overdue(self, limit: int, *, expire: bool = True) -> list[Claim]:
        """Claim up to `limit` messages whose entries are to be bounced by order, or have expired and are given up.

        What has expired and could go at once, or was never tried, has one more try to come (see the store).
        `expire`: give up what has expired. Of what orders to drop that have come due, and hold rules, call for, a
        bounded part is done on the way: see `has_more_to_do`. Settle these claims with permanent outcomes. Their
        entries carry attempt 0: nothing is dialled for them.
        """

    @property
    @abstractmethod
    def has_more_to_do(self) -> bool:
        """Whether the last `overdue` left some of what is to be carried out for the next, which should come soon."""

    @abstractmethod
    async def late(self, limit: int) -> list[Late]:
        """Up to `limit` messages with waiting entries of whose delay the sender is to be told now, longest due first.

        Nothing is claimed: `notify` does nothing for what has changed since.
        """

    @abstractmethod
    async def notify(self, late: Late, notice: NewMessage | None, *events: Event) -> bool:
        """Queue a notice of delay and note in the same transaction that these entries had theirs.

        Does nothing and gives False unless all of them still wait for it. None: there is no notice, and none to come.
        """

    # -- the clock ------------------------------------------------------------------------------------------------

    @abstractmethod
    async def newest_event_at(self) -> float:
        """The latest time of an event since the clock was last found to be set; 0.0 without one."""

    @abstractmethod
    async def clock_was_set(self, told: str, longest_wait: Callable[[str], float], longest_block: float) -> int:
        """The clock was set: put right all times that are wrong by it, and record an event that begins with `told`.

        No entry waits for longer than its destination's `longest_wait` then, in seconds, and no block lasts for longer
        than `longest_block`; what was to stand for a while and began in what is now the future stands for that long
        from now on; nothing expires before it would have when it came. Gives how many entries were concerned. What is
        cut short begins anew at the next call.
        """

    # -- see ------------------------------------------------------------------------------------------------------

    @abstractmethod
    async def totals(self, room: Room = ROOM) -> Totals:
        """Counts over the whole queue. What is `ready` may be sent where there is `room`."""

    @abstractmethod
    async def window(self, filter: Filter, sort: str, offset: int, limit: int) -> Window:
        """Rows of the listing. `sort` is a name of SORTS, with "-" before it for descending."""

    @abstractmethod
    async def message(self, number: int) -> Message:
        """One message, without its content. Raises NoSuchMessage."""

    @abstractmethod
    async def destinations(self, match: str, sort: str, offset: int, limit: int) -> tuple[int, tuple[Destination, ...]]:
        """How many destinations have `match` in their name, and a window of them.

        `sort` is a name of DESTINATION_SORTS, with "-" before it for descending.
        """

    @abstractmethod
    async def destination(self, name: str) -> Destination:
        """One destination; all zero when nothing is known of it."""

    @abstractmethod
    async def select(self, filter: Filter, newest: int | None = None) -> Selection:
        """What an action with this filter would touch, up to message `newest`."""

    @abstractmethod
    async def lets_go(self, ending: Ending, name: str) -> Selection:
        """What would go if this ended: a host's mark, a destination's (or RELAY's) suspension or override, or the
        hold rule of this number.

        A mark lets go what waits in destinations with no other host that is not bad; a suspension what no other
        suspension keeps; a rule what it holds and no other rule names. Nothing is changed.
        """

    @abstractmethod
    async def reasons(self, limit: int) -> tuple[Reason, ...]:
        """Why mail waits: the `limit` reasons with most entries. An answer that took long is given again for a while.

        `why="..."` is the filter that names the entries of one.
        """

    # -- the operator's orders ------------------------------------------------------------------------------------

    @abstractmethod
    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        """Make matching waiting entries due now and unblock their destinations. Held entries are skipped.

        Which they were is written into `touched`.
        """

    @abstractmethod
    async def hold(self, filter: Filter, by: str, reason: str, newest: int | None = None) -> Changed:
        """Keep matching entries from being sent until released; those being relayed, once their attempt ended."""

    @abstractmethod
    async def release(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        """Let held entries wait again; they are due at the time they had. Ends a bounce or drop not yet done.

        Which they were is written into `touched`.
        """

    @abstractmethod
    async def give_up(
        self,
        order: Literal["bounce", "drop"],
        filter: Filter,
        by: str,
        reason: str,
        wait: float,
        newest: int | None = None,
    ) -> Changed:
        """Order matching entries bounced or dropped, `wait` seconds after all of them are ordered so.

        Until then they are held, and it can be undone. Of an order that fails half-way nothing is carried out: what
        it has held by then is named in the error.
        """

    @abstractmethod
    async def undo(self, operation: int, by: str) -> Changed:
        """Take back an order to bounce or drop, for the entries where it was not yet carried out."""

    @abstractmethod
    async def operation(self, id: int) -> Operation | None:
        """An order to bounce or drop, by its number, and how far it has come; None when it is not known (any more)."""

    @abstractmethod
    async def fates(self, since: int, entries: Sequence[TouchedEntry]) -> tuple[Fate, ...]:
        """What has become of some entries that an order touched, by the events after `since`: in their order."""

    @abstractmethod
    async def suspend(self, suspension: Suspension) -> None:
        """Open no new connection to the destination, or at all for RELAY, until the suspension ends."""

    @abstractmethod
    async def resume(self, destination: str, by: str) -> bool:
        """End a suspension; False when there is none."""

    @abstractmethod
    async def suspensions(self) -> tuple[Suspension, ...]:
        """Those in force, the relay's own first."""

    # -- bad MX hosts ---------------------------------------------------------------------------------------------

    @abstractmethod
    async def marks(self) -> tuple[Mark, ...]:
        """All marks kept, those too that ended not long ago."""

    @abstractmethod
    async def save_mark(self, mark: Mark) -> None:
        """Keep a mark, in place of any the host had.

        If it ends earlier than that, the destinations blocked for longer that have the host among their exchanges
        are unblocked.
        """

    @abstractmethod
    async def remove_mark(self, host: str, by: str, touched: Touched | None = None) -> int:
        """Forget a host's mark, and unblock its destinations.

        Where `by` is an operator, what waits in those that have no other host that is not bad is made due now; gives
        the number of these entries. Which they were is written into `touched`.
        """

    @abstractmethod
    async def forget_marks(self, hosts: Sequence[str]) -> None:
        """Let go of marks, which changes nothing else and is no event."""

    @abstractmethod
    async def held_back(self, hosts: Sequence[str]) -> tuple[HeldBack, ...]:
        """What waits because of each of these hosts, given that they are bad, and all others that have a mark.

        Of the destinations those with most waiting are named, 100 at the most, and 20 alternates.
        An answer that took long is given again for a while.
        """

    @abstractmethod
    async def held_back_counts(self) -> dict[str, int]:
        """How many recipients wait because of each host with a mark, as `held_back` counts them; none is left out.

        An answer that took long is given again for a while.
        """

    # -- MTA-STS policies -----------------------------------------------------------------------------------------

    @abstractmethod
    async def sts_policy(self, domain: str) -> KeptPolicy | None:
        """The policy kept for a domain, unless its time is over."""

    @abstractmethod
    async def save_sts_policy(self, policy: KeptPolicy) -> None:
        """Keep a policy, in place of any the domain had. Of very many, those that end first are let go."""

    # -- logins ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def remember_login(self, login: str, address: str) -> None:
        """A login came in rightly from an address. Of very many, those not seen for longest are let go."""

    @abstractmethod
    async def known_logins(self) -> Sequence[KnownLogin]:
        """Whence logins came in rightly, the latest last."""

    # -- events ---------------------------------------------------------------------------------------------------

    @abstractmethod
    async def record(self, *events: Event) -> None:
        """Keep events that come with no change of the queue."""

    @abstractmethod
    async def events(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        message: int | None = None,
        match: str = "",
        limit: int = 100,
    ) -> tuple[Event, ...]:
        """Events kept, in order of `seq`: the newest `limit` (below `before`), or the first after `after`.

        `match` is words (see engine.base.words) looked for in kind, recipient, sender, destination, host, by, text and
        what was replied.
        """


SORTS = ("id", "due", "arrived", "attempts", "size", "destination", "recipient", "sender", "state")
DESTINATION_SORTS = ("name", "waiting", "due", "held", "oldest")
