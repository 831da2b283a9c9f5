"""What a relayer answers for, what came of it, and what is to be told of that."""

from typing import Literal, NamedTuple

from msgspec import Struct

from engine.model.event import Event
from engine.model.message import NO_DSN_REQUEST, DsnRequest, Ret
from engine.model.outcome import Outcome

Action = Literal["failed", "relayed"]  # RFC 3464 2.3.3, of what is settled


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
    expires: float
    given_up: str = ""
    last: Outcome | None = None
    dsn: DsnRequest = NO_DSN_REQUEST


class Claim(Struct, frozen=True, kw_only=True):
    """One message and those of its recipients, all of one destination, that one relayer answers for until settled.

    `epoch` is the life of the node that claimed it, where several share a queue (0: only one has it).
    """

    message: int
    sender: str
    size: int
    arrived: float
    eight_bit: bool
    smtputf8: bool
    destination: str
    entries: tuple[ClaimedEntry, ...]
    ret: Ret = ""
    envid: str = ""
    epoch: int = 0


class Relaying(NamedTuple):
    """An entry that is being relayed, by which attempt and relayer; both are 0 where it is being returned."""

    message: int
    entry: int
    attempt: int = 0
    relayer: int = 0


class EntryResult(Struct, frozen=True, kw_only=True):
    """What one attempt came to for one entry. `due` is when to try again, None when the entry is finished.

    `tell` is what is to be told of one that is finished; None: nothing. `suppress` is for how many seconds no new mail
    to its recipient is taken, since it would fail again; 0.0: it is taken again; None: that is not concerned.
    """

    number: int
    attempt: int
    outcome: Outcome
    due: float | None = None
    tell: Action | None = None
    suppress: float | None = None


class Settlement(Struct, frozen=True, kw_only=True):
    """What one attempt came to for a message: applied whole, in one transaction, with what is to be told of it.

    `epoch` is that of the claim.
    """

    message: int
    results: tuple[EntryResult, ...]
    events: tuple[Event, ...] = ()
    epoch: int = 0


class UntoldEntry(Struct, frozen=True, kw_only=True):
    """One recipient that was settled `at` some time, and of which nobody has been told yet."""

    number: int
    recipient: str
    outcome: Outcome
    action: Action
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
    dsn: DsnRequest = NO_DSN_REQUEST


class Late(Struct, frozen=True, kw_only=True):
    """A message whose sender is to be told that some of its recipients have to wait."""

    message: int
    sender: str
    arrived: float
    smtputf8: bool
    entries: tuple[LateEntry, ...]
    ret: Ret = ""
    envid: str = ""
