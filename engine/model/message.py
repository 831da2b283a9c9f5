"""Messages and their recipients: as they come in, and as they stand in the queue."""

from typing import Literal

from msgspec import Struct
from msgspec.structs import force_setattr

from engine.model.destination import Bearing
from engine.model.event import Event
from engine.model.explanation import Condition
from engine.model.outcome import Outcome

State = Literal["waiting", "relaying", "held"]

Order = Literal["hold", "bounce", "drop"]

Ret = Literal["", "FULL", "HDRS"]


class DsnRequest(Struct, frozen=True, kw_only=True):
    """What the sender wants to be told of one recipient (RFC 3461 4.1 and 4.2).

    `notify` is "" (nothing was said), "NEVER", or a list such as "SUCCESS,DELAY"; `orcpt` is the recipient the sender
    named at first, as type and xtext, "rfc822;bob@example.org", or "".
    """

    notify: str = ""
    orcpt: str = ""

    def include(self, about: Literal["SUCCESS", "FAILURE", "DELAY"]) -> bool:
        """Whether the sender is to be told of this. Who said nothing is told of failure and of delay."""
        return about in self.notify.split(",") if self.notify else about != "SUCCESS"


NO_DSN_REQUEST = DsnRequest()


class NewMessage(Struct, frozen=True, kw_only=True):
    """A message to be queued. Content has CRLF line ends and ends with one; addresses have passed
    `engine.base.address`.

    `sender` is "" for the null reverse-path. `origin` says where it came from ("smtp 127.0.0.1", "drop a.eml",
    "bounce of 12"). `key`: a message whose key was enqueued before and not yet forgotten is not taken twice.
    What the sender asked to be told: `ret` and `envid` (xtext) of the message, `dsn` of each recipient, or () where
    nothing was said of any. `remark` is what is not as it should be with it, told in the events of its arrival.
    `id_at` is where in its content, which begins with its trace, the id is said that the queue gives it; 0: nowhere.
    `refused` are the outcomes of recipients that are not to be tried, and None for each of the others, or () where all
    are: of those the sender is told as of any that failed.
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
    dsn: tuple[DsnRequest, ...] = ()
    remark: str = ""
    id_at: int = 0
    refused: tuple[Outcome | None, ...] = ()

    def named(self, number: int) -> bytes:
        """The content, with the id in its trace (RFC 5321 4.4: the ID clause)."""
        if not self.id_at:
            return self.content
        return b"".join((self.content[: self.id_at], b"\r\n\tid %d" % number, self.content[self.id_at :]))


class Entry(Struct, frozen=True, kw_only=True):
    """One recipient of one message as it stands in the queue. `id` is how it is named: "48213.2".

    `group` is the reason of `last`, or "" (see engine.model.reason). `ordered` is a bounce or drop that takes effect at
    `order_at` unless undone, or a hold; `by` is who ordered it, `note` for what, and `rule` the hold rule that did so
    for them, which ends at `held_until`. `postponed_by` is who made it due at `due`, where it is that by order.

    `bearing` is what bears on its destination, as the store gives it. Who judges by that puts in its place what it
    comes to: `condition`, why (`condition_why`), and `next_try`, when it is tried (in the past for what is ready): None
    where no time leads to that, since somebody must act or a connection must end first.
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
    note: str = ""
    group: str = ""
    rule: int | None = None
    held_until: float | None = None
    postponed_by: str = ""
    bearing: Bearing = Bearing()
    condition: Condition = "ready"
    next_try: float | None = None
    condition_why: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        force_setattr(self, "id", f"{self.message}.{self.number}")


class Window(Struct, frozen=True, kw_only=True):
    """A part of a listing: rows from `offset` on, of `total` that match."""

    total: int
    offset: int
    rows: tuple[Entry, ...]


class Attempt(Struct, frozen=True, kw_only=True):
    """One try at one entry. While it runs, or if the engine was killed in it, there is no outcome.

    `node` is whose it was, of several that share a queue.
    """

    entry: int
    relayer: int
    started: float
    ended: float | None = None
    outcome: Outcome | None = None
    interrupted: bool = False
    node: str = ""


class Message(Struct, frozen=True, kw_only=True):
    """One message with its open entries and every attempt at them, oldest first.

    Who shows it adds its `headers` and the `events` that tell of it. Of one that has left the queue (`finished`) there
    is what these tell, and no more.
    """

    number: int
    sender: str = ""
    size: int = 0
    arrived: float = 0.0
    expires: float = 0.0
    origin: str = ""
    subject: str = ""
    message_id: str = ""
    eight_bit: bool = False
    smtputf8: bool = False
    entries: tuple[Entry, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    headers: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    finished: bool = False


class Selection(Struct, frozen=True, kw_only=True):
    """What a filter selects: exact counts, three examples, and the newest message number at that moment.

    `outlasting` counts, for what makes mail due at a time, the recipients that would be given up before that.
    """

    messages: int
    recipients: int
    newest: int
    outlasting: int = 0
    examples: tuple[Entry, ...] = ()
