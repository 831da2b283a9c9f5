"""What an operator's order does to mail, whatever the store: which entries it touches, by what, and how it is told."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from engine.base.duration import format_duration
from engine.base.plural import plural
from engine.base.text import clean
from engine.model import event as events
from engine.model.event import Event
from engine.model.order import Changed
from engine.queue.columns import storable

Change = Literal["retry", "let go", "postpone", "hold", "release", "give up", "undo"]

_DONE = {"bounce": "is returned", "drop": "is dropped"}


class Candidate(NamedTuple):
    """What of an entry decides whether an order touches it."""

    message: int
    number: int
    destination: str
    state: str
    ordered: str | None
    order_due: float | None  # of its bounce or drop
    giving_up: int
    rule: int | None
    operation: int | None
    attempts: int
    due: float
    end: float  # when it is given up, if nobody postpones it
    postponed_at: float | None


class Order(Struct, frozen=True, kw_only=True):
    """What is done to each entry: `touches` says to which; each store knows how to `change` them, with `values`.

    `verb` is how the event says it. `wait`: it is carried out so many seconds after the last entry has been ordered,
    and can be undone until then; None: it is done at once. `until`: when what it makes due is due. `undoes`: the
    operation that is taken back. `is_told`: with an event, of which `detail` is the end; one that belongs to another
    change is told of only when it is cut short.
    """

    kind: events.Kind
    verb: str
    touches: Callable[[Candidate], bool]
    change: Change
    values: dict[str, object]
    by: str
    note: str = ""
    unblocks: bool = False
    undoes: int = 0
    is_told: bool = True
    wait: float | None = None
    until: float = 0.0
    detail: str = ""


def retry(by: str, now: float) -> Order:
    """Due now, and their destinations unblocked. What was postponed has its own end again, and a try now in any case.

    For the time of what has had its time meanwhile is over from now on, and not since (as with `release`).
    """
    return Order(
        kind="retried",
        verb="retry",
        by=by,
        touches=lambda entry: entry.state == "waiting",
        change="retry",
        values={"now": now},
        unblocks=True,
        until=now,
    )


def postpone(by: str, until: float, now: float) -> Order:
    """Due at `until` and not before. What waits for longer already stays as it is, unless that was by such an order.

    What would be given up before is given up then: so it can be tried at that moment first, as what is released. That
    lasts as long as the postponement: made due sooner by another such order, it ends sooner, too.
    """
    return Order(
        kind="postponed",
        verb="postpone",
        by=by,
        touches=lambda entry: entry.state == "waiting" and (entry.due < until or entry.postponed_at is not None),
        change="postpone",
        values={"until": until, "now": now, "by": storable(by)},
        until=until,
        detail=f"; for {format_duration(round(until - now))}",
    )


def let_go(verb: str, by: str, now: float) -> Order:
    """As `retry`, but a part of what `verb` does, which unblocks the destinations and tells of all.

    What was postponed beyond its end keeps the time that it was given: it goes, but nobody has taken that back.
    """
    return msgspec.structs.replace(retry(by, now), verb=verb, change="let go", unblocks=False, is_told=False)


def hold(by: str, note: str) -> Order:
    """Held at once, or once the attempt that runs has ended.

    What a rule holds is held beyond the end of the rule, and what was to be bounced or dropped stays instead.
    """
    return Order(
        kind="held",
        verb="hold",
        by=by,
        note=note,
        touches=lambda entry: not entry.giving_up and (entry.ordered != "hold" or entry.rule is not None),
        change="hold",
        values={"by": storable(by), "note": storable(note)},
    )


def release(by: str, now: float) -> Order:
    """Waiting again, without any order. The time of what has had its time meanwhile is over from now on, and not since.

    So a try of its destination that was made while it was held is none in its stead (see engine.model.expiry).
    """
    return Order(
        kind="released",
        verb="release",
        by=by,
        touches=lambda entry: not entry.giving_up and (entry.state == "held" or entry.ordered is not None),
        change="release",
        values={"now": now},
    )


def give_up(order: Literal["bounce", "drop"], by: str, note: str, wait: float, now: float) -> Order:
    """Bounced or dropped after a while, and held until then. What was before the first such order is kept for undo."""
    return Order(
        kind="ordered",
        verb=order,
        by=by,
        note=note,
        touches=lambda entry: (
            not entry.giving_up
            and not (entry.ordered == order and entry.order_due is not None and entry.order_due <= now + wait)
        ),
        change="give up",
        values={"order": order, "by": storable(by), "note": storable(note)},
        wait=wait,
    )


def undo(operation: int, by: str) -> Order:
    """As they were before they were ordered to be bounced or dropped."""
    return Order(
        kind="undone",
        verb="undo",
        by=by,
        touches=lambda entry: not entry.giving_up,
        change="undo",
        values={},
        undoes=operation,
    )


class Given(NamedTuple):
    """An order as the store has it on record, and how much it has touched."""

    kind: events.Kind
    verb: str
    filter: str
    by: str
    note: str
    messages: int
    recipients: int


def told(now: float, operation: int, given: Given, detail: str = "") -> Event:
    """The event that tells of an order and of how much it touched."""
    count = f"{plural(given.recipients, 'recipient')} in {plural(given.messages, 'message')}"
    note = f" ({given.note})" if given.note else ""
    which = f"; operation {operation}" if given.kind == "ordered" else ""  # for who did not wait for the answer
    text = f"{given.verb} {count}: {given.filter}{note}{detail}{which}"
    return Event(at=now, kind=given.kind, by=given.by, text=clean(text))


def so_far(order: Order, done: Changed) -> str:
    """What an order that failed half-way has done, and the way on."""
    count = plural(done.recipients, "recipient")
    if order.wait is None:
        return f"{order.verb}: done for {count} so far; give the order again for the rest"
    return f"{count} so far held, and none of them {_DONE[order.verb]}: undo operation {done.operation}, or order again"
