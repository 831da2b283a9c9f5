"""Condition: what mail that waits is at this moment, why, and when it is tried next. Decided here, and nowhere else.

What bears on it is handed in (the store's part as a Bearing, marks and limits by whoever runs), so that rows, pages,
Explain, commands and figures say the same, and the same as the smart host does. What hinders is told in the order in
which the relay would meet it.
"""

from msgspec import Struct

from engine.delivery.limits import Limiting
from engine.model.destination import Bearing, Destination, Mark
from engine.model.event import ENGINE
from engine.model.expiry import is_given_up
from engine.model.explanation import Cause, Condition
from engine.model.message import Entry, Order, State
from engine.model.outcome import Outcome

_CONDITIONS: dict[Cause, Condition] = {
    "being relayed": "relaying",
    "draining": "draining",
    "relay suspended": "suspended",
    "held": "held",
    "to be bounced": "to be bounced",
    "to be dropped": "to be dropped",
    "suspended": "suspended",
    "hosts bad": "hosts bad",
    "blocked": "blocked",
    "limit": "limited",
    "rate": "limited",
    "not due": "not due",
    "nothing": "ready",
}
_KEPT = (None, "hold")  # orders under which mail has a try to come
_SLACK = 60.0  # seconds; a block and a retry that stem from one failure are this far apart at the most
ONE_MORE_TRY = "its time is over: it has one more try"


class Around(Struct, frozen=True, kw_only=True):
    """What bears on the mail of one destination at `now`. `marks` are those in force on its exchanges.

    `limits`: what of settings and connections keeps mail from going to it, the first that matters first; () for none.
    """

    now: float
    bearing: Bearing = Bearing()
    draining: bool = False
    marks: tuple[Mark, ...] = ()
    limits: tuple[Limiting, ...] = ()


class Mail(Struct, frozen=True, kw_only=True):
    """One recipient's mail, or what of a destination is due first. `due` None: none is meant, this is a dry run."""

    state: State = "waiting"
    due: float | None = None
    expires: float | None = None
    attempts: int = 0
    ordered: Order | None = None
    order_at: float | None = None
    by: str = ""
    note: str = ""
    rule: int | None = None
    held_until: float | None = None
    postponed_by: str = ""
    last: Outcome | None = None


class Hindrance(Struct, frozen=True, kw_only=True):
    """One thing that keeps mail from going. `until` is when it ends, None where nobody can say.

    `is_final`: with its end the mail leaves untried, as after an order to drop it.
    """

    cause: Cause
    why: str
    until: float | None = None
    is_final: bool = False


class Verdict(Struct, frozen=True, kw_only=True):
    """What mail is. `next_try`: None where no time leads to one: somebody must act, or a connection must end first."""

    condition: Condition
    next_try: float | None
    why: str


def of_entry(entry: Entry, around: Around) -> Verdict:
    """What one recipient's mail is."""
    return _judged(mail_of(entry), around)


def of_destination(row: Destination, around: Around) -> Verdict:
    """What a destination is: what that of its waiting mail is which is due first, unless mail of it is on its way."""
    if row.waiting and row.next_due is not None:
        found = _judged(Mail(due=row.next_due, last=row.reply), around)
        if row.relaying and found.condition in ("ready", "limited"):
            return Verdict(condition="relaying", next_try=row.next_due, why=found.why)
        return found
    if row.relaying:
        return Verdict(condition="relaying", next_try=None, why="")
    found = _judged(Mail(), around)
    if found.condition in ("suspended", "blocked"):
        return Verdict(condition=found.condition, next_try=None, why=found.why)
    if row.held:
        return Verdict(condition="held", next_try=None, why=f"{row.held:,} held by order")
    return Verdict(condition="idle", next_try=None, why="")


def of_waiting(around: Around) -> Verdict:
    """What of a destination's waiting mail that is which is due first."""
    return _judged(Mail(due=around.bearing.next_due), around)


def mail_of(entry: Entry) -> Mail:
    """What of an entry decides."""
    return Mail(
        state=entry.state,
        due=entry.due,
        expires=entry.expires,
        attempts=entry.attempts,
        ordered=entry.ordered,
        order_at=entry.order_at,
        by=entry.by,
        note=entry.note,
        rule=entry.rule,
        held_until=entry.held_until,
        postponed_by=entry.postponed_by,
        last=entry.last,
    )


def hindrances(mail: Mail, around: Around) -> tuple[Hindrance, ...]:
    """All that keeps mail from going now, the one that says what it is first; () when nothing does."""
    looked = (
        _relaying(mail),
        _draining(around),
        _ordered_away(mail),
        _expired(mail, around),
        _relay_suspended(around),
        _held(mail),
        _suspended(around),
        _hosts_bad(mail, around),
        _blocked(mail, around),
        _not_due(mail, around),
    )
    found = tuple(hindrance for hindrance in looked if hindrance is not None)
    if found or not around.limits:
        return found
    first = around.limits[0]
    if first.name == "blocked":
        return (Hindrance(cause="blocked", why=first.text, until=first.until),)
    cause: Cause = "rate" if first.is_rate else "limit"
    return (Hindrance(cause=cause, why=f"{first.name}: {first.text}", until=first.until),)


def next_try(mail: Mail, around: Around, found: tuple[Hindrance, ...]) -> float | None:
    """When all that hinders is over; None where that has no time, or the mail is returned before.

    What has been tried is returned once its time is over, unless it could go at that moment: the relay looks for it
    first, at each check. While it is held its time does not count.
    """
    if mail.state == "relaying":
        return mail.due
    ends = _ends(found)
    if ends is None:
        return None
    tried = max(_scheduled(mail, around), ends)
    held = max(
        (hindrance.until for hindrance in found if hindrance.cause == "held" and hindrance.until is not None),
        default=0.0,
    )
    if mail.expires is None or not mail.attempts or tried <= max(mail.expires, held, around.now):
        return tried
    return None


def has_one_more_try(mail: Mail, around: Around) -> bool:
    """Whether mail has had its time, and has one more try all the same: if it is held, when it is released now."""
    if mail.expires is None or mail.expires > around.now or mail.state == "relaying" or mail.ordered not in _KEPT:
        return False
    return not _is_over(mail, around)


def all_marked(around: Around) -> bool:
    """Whether every exchange of the destination, as far as they are known, is marked bad."""
    known = around.bearing.exchanges
    return bool(known) and {mark.host.lower() for mark in around.marks} >= {host.lower() for host in known}


def left_out_until(around: Around) -> float | None:
    """When the first of its exchanges may be tried, all of which operators have marked bad; else None.

    What the engine marks it tries all the same, when there is nothing better (see MXCalculator.allowed).
    """
    if not all_marked(around) or any(mark.by == ENGINE for mark in around.marks):
        return None
    return min(mark.until for mark in around.marks)


def _judged(mail: Mail, around: Around) -> Verdict:
    found = hindrances(mail, around)
    when = next_try(mail, around, found)
    last = ONE_MORE_TRY if has_one_more_try(mail, around) else ""
    if not found:
        return Verdict(condition="ready", next_try=when, why=last)
    first, why = found[0], found[0].why
    if when is None and mail.state != "relaying" and _ends(found) is not None:
        last = "its time is over before that: it will be returned"
    return Verdict(condition=_CONDITIONS[first.cause], next_try=when, why="; ".join(filter(None, (why, last))))


def _scheduled(mail: Mail, around: Around) -> float:
    """When the schedule lets it be tried: it is due, and its destination not blocked."""
    due = around.now if mail.due is None else mail.due
    return max(due, around.bearing.blocked_until or 0.0)


def _ends(found: tuple[Hindrance, ...]) -> float | None:
    """When all that hinders has ended; None where nobody can say, or the mail leaves with it."""
    times = [hindrance.until for hindrance in found if hindrance.until is not None and not hindrance.is_final]
    return max(times, default=0.0) if len(times) == len(found) else None


# -- what hinders -----------------------------------------------------------------------------------------------------


def _relaying(mail: Mail) -> Hindrance | None:
    if mail.state != "relaying":
        return None
    return Hindrance(cause="being relayed", why="it is under way", until=mail.due or 0.0)


def _draining(around: Around) -> Hindrance | None:
    text = "the relay is about to stop: it opens no new connections before it is started anew"
    return Hindrance(cause="draining", why=text) if around.draining else None


def _ordered_away(mail: Mail) -> Hindrance | None:
    """An order to bounce or drop is carried out whatever else keeps mail from going."""
    if mail.ordered not in ("bounce", "drop") or mail.order_at is None:
        return None
    cause: Cause = "to be bounced" if mail.ordered == "bounce" else "to be dropped"
    return Hindrance(cause=cause, why=f"by {_by(mail.by, mail.note)}", until=mail.order_at, is_final=True)


def _expired(mail: Mail, around: Around) -> Hindrance | None:
    """What has had its time, and no try to come, is returned whatever keeps mail from going; what is held is not."""
    if mail.state != "waiting" or not _is_over(mail, around):
        return None
    why = "its time is over: it will be returned at the next check"
    return Hindrance(cause="to be bounced", why=why, until=mail.expires, is_final=True)


def _is_over(mail: Mail, around: Around) -> bool:
    """Whether mail has had its time and is not tried any more, by the decision of whoever returns it."""
    bearing = around.bearing
    return mail.expires is not None and is_given_up(
        now=around.now,
        expires=mail.expires,
        due=mail.due or 0.0,
        attempts=mail.attempts,
        blocked_until=bearing.blocked_until or 0.0,
        unreached_at=bearing.unreached_at,
        kept=bearing.relay is not None or bearing.suspended is not None or left_out_until(around) is not None,
    )


def _relay_suspended(around: Around) -> Hindrance | None:
    suspension = around.bearing.relay
    if suspension is None:
        return None
    why = f"the whole relay is suspended by {_by(suspension.by, suspension.note)}"
    return Hindrance(cause="relay suspended", why=why, until=suspension.until)


def _held(mail: Mail) -> Hindrance | None:
    if mail.ordered is None or (mail.ordered != "hold" and mail.order_at is not None):
        return None
    if mail.ordered != "hold":
        why = f"by {mail.by}: an order to {mail.ordered} it is not complete"
    elif mail.rule is not None:
        why = f"by hold rule {mail.rule} of {_by(mail.by, mail.note)}"
    else:
        why = f"by {_by(mail.by, mail.note)}"
    return Hindrance(cause="held", why=why, until=mail.held_until if mail.ordered == "hold" else None)


def _suspended(around: Around) -> Hindrance | None:
    suspension = around.bearing.suspended
    if suspension is None:
        return None
    why = f"suspended by {_by(suspension.by, suspension.note)}"
    return Hindrance(cause="suspended", why=why, until=suspension.until)


def _hosts_bad(mail: Mail, around: Around) -> Hindrance | None:
    """All marked by operators: nothing is tried. All found bad by the engine: tried at the next try, and not before."""
    marks = around.marks
    until = left_out_until(around)
    if until is not None:
        marked = ", ".join(f"{mark.host} by {_by(mark.by, mark.note)}" for mark in marks)
        return Hindrance(cause="hosts bad", why=f"every exchange is marked bad: {marked}", until=until)
    scheduled = _scheduled(mail, around)
    if not all_marked(around) or scheduled <= around.now:
        return None
    if not around.bearing.blocked_until and not _no_connection(mail.last):
        return None
    which = f"its only host {marks[0].host} is" if len(marks) == 1 else f"all {len(marks)} of its hosts are"
    why = f"{which} marked bad by {_by(marks[0].by, marks[0].note)}"
    return Hindrance(cause="hosts bad", why=why, until=scheduled)


def _blocked(mail: Mail, around: Around) -> Hindrance | None:
    until = around.bearing.blocked_until
    if until is None or until <= around.now or (mail.due or 0.0) > until + _SLACK:
        return None
    return Hindrance(cause="blocked", why=around.bearing.blocked_why, until=until)


def _not_due(mail: Mail, around: Around) -> Hindrance | None:
    if mail.due is None or mail.due <= around.now:
        return None
    if mail.postponed_by:
        return Hindrance(cause="not due", why=f"postponed by {mail.postponed_by}", until=mail.due)
    return Hindrance(cause="not due", why=mail.last.line if mail.last is not None else "", until=mail.due)


def _no_connection(last: Outcome | None) -> bool:
    return last is not None and last.code == 0 and last.phase in ("connecting", "greeting")


def _by(by: str, note: str) -> str:
    return f"{by}: {note}" if note else by
