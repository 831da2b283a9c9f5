"""The contract of the durable queue: what every store must do, and what it promises.

A queue holds messages; every recipient of a message is an *entry*, a row of its own with a state, a destination and
the time it is due. An entry is named `48213.2`: the second recipient of message 48213. Every method that changes
something returns only after the change is on disk, with the events that tell of it written in the same transaction.
Rows are listed by window, never all at once, and memory does not grow with the queue.

The way of a message, 2 of 7: here it waits. From engine.intake.smtp.session; on to engine.delivery.smarthost.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from engine.model.claim import NONE_TAKEN, ROOM, Claim, DueSite, Late, Relaying, Room, Settlement, Shares, Untold
from engine.model.destination import Destination, HeldBack, Mark, Over, Override, Suspension, Totals
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Message, NewMessage, Selection, Window
from engine.model.node import News, NodeState, Said, Share
from engine.model.order import Changed, Ending, Fate, HoldRule, Operation, Touched, TouchedEntry
from engine.model.outcome import Cause
from engine.model.reason import Reason
from engine.model.suppression import Entered, Suppressed, Suppressions
from engine.queue.content import Content


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


class Arrivals(ABC):
    """What comes in: messages, events that come with no change of the queue, and who has logged in to bring mail."""

    @abstractmethod
    async def enqueue(self, message: NewMessage) -> int:
        """Queue a message, due at once, and give its number once it is on disk.

        A key already taken gives the number it had then. Raises QueueFull, QueueBusy, QueueBroken.
        """

    @abstractmethod
    async def forget_key(self, key: str) -> None:
        """The source of this key is gone: it need not be remembered any more."""

    @abstractmethod
    async def forget_keys(self, beginning: str, below: int) -> None:
        """Of the keys that begin so, those of messages with numbers below this need not be remembered any more."""

    @abstractmethod
    async def record(self, *events: Event) -> None:
        """Keep events that come with no change of the queue."""

    @abstractmethod
    async def remember_login(self, login: str, address: str) -> None:
        """A login came in rightly from an address. Of very many, those not seen for longest are let go."""

    @abstractmethod
    async def known_logins(self) -> Sequence[KnownLogin]:
        """Whence logins came in rightly, the latest last."""


class Claims(ABC):
    """What is to be sent: whose turn it is, who answers for it, what came of it, and what is to be told of that."""

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
    def holds(self, claim: Claim) -> bool:
        """Whether a claim is for sure nobody else's now. Where it is not, nothing of it is to be sent any more.

        It is not once the lease of this node has ended, where several share a queue: others may have taken over.
        """

    @abstractmethod
    async def relaying(self) -> tuple[Relaying, ...]:
        """All entries that are being relayed, or returned, by this node."""

    @abstractmethod
    async def put_back_orphans(self, orphans: Sequence[Relaying], why: str) -> int:
        """Put back entries that nobody answers for any more, where that very attempt still stands; give how many.

        Their attempts count as interrupted: the peer may have them.
        """

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


class Standing(ABC):
    """What stands until its time is over, by operators or by what was met; and the times themselves.

    That is suspensions, hold rules and overrides; the exchanges of destinations, what keeps connections from them, and
    their MTA-STS policies.
    """

    @abstractmethod
    async def note_destination(
        self, destination: str, exchanges: Sequence[str] | None, site: str | None = None
    ) -> None:
        """Remember which hosts the last MX answer named, best first, and the site they make (None: as before).

        What its new site has proved it has proved too.
        """

    @abstractmethod
    async def block(self, destination: str, until: float, why: str, *, failed: bool = True, cause: Cause = "") -> None:
        """Open no connection to a destination before `until`: none could be had (`failed`), or a limit forbids it.

        `cause` is what it is about, where that is known. What failed is in doubt until it takes mail again.
        """

    @abstractmethod
    async def block_site(
        self,
        site: str,
        until: float,
        why: str,
        destinations: Collection[str] = (),
        *,
        failed: bool = True,
        cause: Cause = "",
    ) -> None:
        """As `block`, for all destinations of a site for which something waits, and these besides: all or none."""

    @abstractmethod
    async def unblock_site(self, site: str) -> None:
        """Connections to all destinations of a site may be opened again at once."""

    @abstractmethod
    async def unblock(self, destinations: Sequence[str]) -> None:
        """Connections to these may be opened again at once."""

    @abstractmethod
    async def sts_policy(self, domain: str) -> KeptPolicy | None:
        """The policy kept for a domain, unless its time is over."""

    @abstractmethod
    async def save_sts_policy(self, policy: KeptPolicy) -> None:
        """Keep a policy, in place of any the domain had. Of very many, those that end first are let go."""

    @abstractmethod
    async def newest_event_at(self) -> float:
        """The latest time of an event since the clock was last found to be set; 0.0 without one."""

    @abstractmethod
    async def clock_was_set(self, text: str, longest_wait: Callable[[str], float], longest_block: float) -> int:
        """The clock was set: put right all times that are wrong by it, and record an event that begins with `text`.

        No entry waits for longer than its destination's `longest_wait` then, in seconds, and no block lasts for longer
        than `longest_block`; what was to stand for a while and began in what is now the future stands for that long
        from now on; nothing expires before it would have when it came. Gives how many entries were concerned. What is
        cut short begins anew at the next call.
        """

    @abstractmethod
    async def suspend(self, suspension: Suspension) -> None:
        """Open no new connection to the destination, or at all for RELAY, until the suspension ends."""

    @abstractmethod
    async def resume(self, destination: str, by: str) -> bool:
        """End a suspension; False when there is none."""

    @abstractmethod
    async def suspensions(self) -> tuple[Suspension, ...]:
        """Those in force, the relay's own first."""

    @abstractmethod
    async def end_what_is_over(self) -> Over:
        """End the suspensions and overrides whose time is over, and say so; give the destinations."""

    @abstractmethod
    async def add_rule(self, filter: Filter, until: float, by: str, note: str) -> HoldRule:
        """Hold what the filter names: what comes in until `until`, in the transaction that takes it in, and what waits.

        A rule in force with the same filter is replaced and keeps its number.
        """

    @abstractmethod
    async def end_rule(self, id: int, by: str) -> int | None:
        """End a rule and let go what it held; give how many recipients those were, None where there is no such rule."""

    @abstractmethod
    async def rules(self) -> tuple[HoldRule, ...]:
        """The rules in force, the oldest first."""

    @abstractmethod
    async def rules_on(self, recipient: str, destination: str) -> tuple[HoldRule, ...]:
        """The rules that would hold mail to this recipient whoever sent it."""

    @abstractmethod
    async def set_override(self, override: Override) -> int:
        """Send a destination's mail elsewhere, in place of any override it had.

        Unblocks it and makes what waits due now; gives how many recipients that were.
        """

    @abstractmethod
    async def end_override(self, destination: str, by: str) -> Override | None:
        """End an override, unblock its destination and make what waits due; None where there was none."""

    @abstractmethod
    async def override(self, destination: str) -> Override | None:
        """The override in force for a destination."""

    @abstractmethod
    async def overrides(self) -> tuple[Override, ...]:
        """Those in force, by destination."""


class Orders(ABC):
    """Operators' orders on mail that waits: on all that a filter names, up to message `newest`."""

    @abstractmethod
    async def retry(
        self, filter: Filter, by: str, newest: int | None = None, touched: Touched | None = None
    ) -> Changed:
        """Make matching waiting entries due now and unblock their destinations. Held entries are skipped.

        What was postponed is given up when it would be without that, but not before it had its try now. Which they
        were is written into `touched`.
        """

    @abstractmethod
    async def postpone(self, filter: Filter, by: str, until: float, newest: int | None = None) -> Changed:
        """Make matching waiting entries due at `until`, and not before, until that is over or they are retried.

        What waits for longer by its schedule is skipped, and what is held. What would be given up before is given up
        then instead: it has its try first. Postponed anew or retried it has its own end again.
        """

    @abstractmethod
    async def hold(self, filter: Filter, by: str, note: str, newest: int | None = None) -> Changed:
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
        note: str,
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


class Listing(ABC):
    """What operators look at: rows by the window, never all at once, and counts."""

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
    async def select(self, filter: Filter, newest: int | None = None, until: float | None = None) -> Selection:
        """What an action with this filter would touch, up to message `newest`.

        `until`: when it makes that due (now, to retry it). How much would be given up before that is counted, too.
        """

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

        `group="..."` is the filter that names the entries of one.
        """

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


class Marks(ABC):
    """The marks of bad MX hosts."""

    @abstractmethod
    async def all(self) -> tuple[Mark, ...]:
        """All marks kept, those too that ended not long ago."""

    @abstractmethod
    async def save(self, mark: Mark) -> None:
        """Keep a mark, in place of any the host had.

        If it ends earlier than that, the destinations blocked for longer that have the host among their exchanges
        are unblocked.
        """

    @abstractmethod
    async def remove(self, host: str, by: str, touched: Touched | None = None) -> int:
        """Forget a host's mark, and unblock its destinations.

        Where `by` is an operator, what waits in those that have no other host that is not bad is made due now; gives
        the number of these entries. Which they were is written into `touched`.
        """

    @abstractmethod
    async def forget(self, hosts: Sequence[str]) -> None:
        """Let go of marks, which changes nothing else and is no event."""

    @abstractmethod
    async def take_back(self, marks: Sequence[Mark], note: str) -> None:
        """Forget marks that were wrong, those that stand as they were made; each is an event, which has the note.

        Nothing is unblocked for it.
        """


class Suppression(ABC):
    """The suppression list: addresses to which no new mail is taken. Any address may be asked for, however written.

    What comes and goes by itself does so with the settlements: see EntryResult.suppress. There it takes the place of
    nothing that an operator entered.
    """

    @abstractmethod
    async def of(self, addresses: Collection[str]) -> Mapping[str, Suppressed]:
        """Those of some addresses that are on the list now, by their keys (see `engine.model.suppression.key_of`)."""

    @abstractmethod
    async def window(self, match: str, after: str, limit: int) -> Suppressions:
        """Up to `limit` of those that have `match` in them, in their order, behind `after`, a key; and how many match.

        What is over is not among them.
        """

    @abstractmethod
    async def enter(self, entries: Sequence[Suppressed], by: str, source: str, most: int) -> Entered:
        """Enter addresses, each once, in place of what the list had of them; `by` an operator, in one event.

        None of them where operators would have entered more than `most` then.
        """

    @abstractmethod
    async def remove(self, address: str, by: str) -> Suppressed | None:
        """Take an address off the list; None where it is not on it."""

    @abstractmethod
    async def trim(self, most: int) -> int:
        """Forget what is over, and of more than `most` the oldest that came by themselves; give how many.

        It is no event: nobody has done anything.
        """


class Nodes(ABC):
    """The engines that share the queue: who they are, which of them are drained, and what one asks another.

    `report` gives what this node says of itself, and is asked at each heartbeat. `on_request` answers what other nodes
    ask of this one; its answer is bounded, as their questions are.
    """

    report: Callable[[], Said]
    on_request: Callable[[bytes], Awaitable[bytes]]

    @property
    @abstractmethod
    def name(self) -> str:
        """What this node is called; "" where the queue is one engine's alone."""

    @property
    @abstractmethod
    def is_drained(self) -> bool:
        """Whether this node is drained, as of its last heartbeat. Where that changes, `on_news` is told NODES."""

    @property
    @abstractmethod
    def lease(self) -> float:
        """For how many seconds this node may send if it is not heard of any more; 0.0: not any more."""

    @abstractmethod
    async def all(self) -> tuple[NodeState, ...]:
        """All nodes by name, those too that were lost in the last day; () where the queue is one engine's alone."""

    @abstractmethod
    async def drain(self, name: str, by: str) -> bool:
        """Have a node take no mail in and claim none until that is undone; False where it is drained already.

        It outlasts the life of the node. Raises NoSuchNode.
        """

    @abstractmethod
    async def undrain(self, name: str, by: str) -> bool:
        """Have a node take and send mail again; False where it is not drained. Raises NoSuchNode."""

    @abstractmethod
    async def ask(self, name: str, request: bytes, seconds: float) -> bytes:
        """Ask another node, and give its answer.

        Raises NoSuchNode, and NodeSilent where it has not answered within `seconds`: then what was asked and not begun
        is not done any more.
        """


class Queue(ABC):
    """The durable queue: its life, and its roles.

    `on_events` is called with the events of each commit of this node, on its loop; `on_news` with what other nodes have
    done that concerns this one. News may be lost: who hears them is told nothing that he would not find by himself, in
    time.
    """

    on_events: Callable[[Sequence[Event]], None]
    on_news: Callable[[News], None]
    arrivals: Arrivals
    claims: Claims
    standing: Standing
    orders: Orders
    listing: Listing
    marks: Marks
    suppression: Suppression
    nodes: Nodes

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
    def share(self) -> Share:
        """Which part of what all nodes may have together is this one's now. All of it where there is no other."""

    @property
    @abstractmethod
    def spare(self) -> int:
        """Bytes the store has that nothing is in: room for new mail, whatever is free in the file system."""


SORTS = ("id", "due", "arrived", "attempts", "size", "destination", "recipient", "sender", "state")
DESTINATION_SORTS = ("name", "waiting", "due", "held", "oldest")
