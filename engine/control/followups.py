"""What became of what an operator let go, and of what was to be bounced or dropped: told as it develops.

An order that lets mail go is followed for a while, as far as its first entries go; one to give mail up has its counts
in the store.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import get_args

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.text import clean
from engine.control import views
from engine.control.requests import Missing
from engine.model import verbs
from engine.model.order import Fate, Operation, Touched, TouchedEntry
from engine.model.outcome import Cause
from engine.queue.contract import Queue

FOLLOWED_FOR = 300.0  # seconds
ORDERS_KEPT = 16
WHY = 120  # characters of a reason
COSTLY = 0.05  # seconds; an answer that took as long is given again for RESTS times that
RESTS = 20.0

# An entry that came to one of these is looked up no more: what happens to it later is not of this order.
_SETTLED = frozenset({"delivered", "deferred", "returned", "dropped", "gone"})
_MOVING = frozenset({"relaying", "waiting"})  # something may soon become of these
_FAILED = ("deferred", "blocked")
# What is said of these, by the cause of the reason that most of them have.
_AGAIN: dict[Cause, str] = {"reply": "refused", "connect": "not reached", "greeting": "not reached"}
_NO_REASON: tuple[tuple[str, Cause], int] = (("", ""), 0)

_WORDS = {
    "delivered": "delivered",
    "returned": "returned",
    "dropped": "dropped",
    "gone": "gone (no event says how)",
    "relaying": "being sent",
    "held": "held",
    "suspended": "suspended",
    "later": "not due yet",
    "waiting": "still waiting",
}


class _Order:
    """An order that is followed: what is known of its entries, and those of which it is not yet settled."""

    def __init__(self, verb: str, by: str, touched: Touched, at: float) -> None:
        self.verb = verb
        self.by = by
        self.at = at
        self.recipients = touched.recipients
        self.followed = len(touched.entries)
        self.since = touched.since
        self.open: Sequence[TouchedEntry] = touched.entries
        self.settled: Counter[Fate] = Counter()
        self.unsettled: Counter[Fate] = Counter({Fate("waiting"): self.followed})
        self.is_over = False
        self.rests_until = 0.0

    def learn(self, fates: Sequence[Fate]) -> None:
        """Take in what has become of the open entries, in their order."""
        self.settled.update(fate for fate in fates if fate.what in _SETTLED)
        self.unsettled = Counter(fate for fate in fates if fate.what not in _SETTLED)
        self.open = [entry for entry, fate in zip(self.open, fates, strict=True) if fate.what not in _SETTLED]

    def end(self) -> None:
        """Follow it no further; what is known stays."""
        self.is_over = True
        self.open = ()


class FollowUps:
    """Follows the ORDERS_KEPT last orders, the first entries of each (see Touched), for up to FOLLOWED_FOR seconds.

    Nothing is looked up but when somebody asks; what is settled once is not asked for again, and an answer that took
    long is given again for a while.
    """

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._orders = Kept[int, _Order](ORDERS_KEPT)

    def begin(self, verb: str, by: str, touched: Touched) -> int:
        """Follow what a verb, named by its word, has let go; give the number to ask by, 0 where it touched nothing."""
        if not touched.recipients:
            return 0
        now = self._clock.now()
        for order in self._orders.values():
            if now - order.at > FOLLOWED_FOR:
                order.end()
        self._orders[touched.operation] = _Order(verb, by, touched, now)
        return touched.operation

    async def view(self, number: int) -> views.FollowUpView:
        """What has become of an order so far. Raises Missing, and QueueError where the store cannot be read."""
        order = self._orders.get(number)
        if order is not None:
            await self._look(order)
            return _of_order(number, order)
        found = await self._queue.orders.operation(number)
        if found is None:
            raise Missing(f"nothing is known of operation {number} (any more)", where="operation")
        return _of_operation(found)

    async def _look(self, order: _Order) -> None:
        started = time.monotonic()
        if order.is_over or started < order.rests_until:
            return
        asked = order.open
        fates = await self._queue.orders.fates(order.since, asked)
        if order.open is not asked:  # somebody else has asked meanwhile, and knows
            return
        order.learn(fates)
        ended = time.monotonic()
        if ended - started > COSTLY:
            order.rests_until = ended + RESTS * (ended - started)
        is_moving = any(fate.what in _MOVING for fate in order.unsettled)
        if not is_moving or self._clock.now() - order.at > FOLLOWED_FOR:
            order.end()


def _of_order(number: int, order: _Order) -> views.FollowUpView:
    counts: dict[str, int] = dict.fromkeys(get_args(Fate.__annotations__["what"]), 0)
    whys: Counter[tuple[str, Cause]] = Counter()
    for fate, times in (*order.settled.items(), *order.unsettled.items()):
        counts[fate.what] += times
        if fate.what in _FAILED:
            whys[clean(fate.why, WHY), fate.cause] += times
    (why, cause), most = next(iter(whys.most_common(1)), _NO_REASON)
    return views.FollowUpView(
        operation=number,
        verb=order.verb,
        by=order.by,
        at=order.at,
        text=_text(order, counts, why, cause, most),
        over=order.is_over,
        recipients=order.recipients,
        followed=order.followed,
        why=why,
        **counts,
    )


def _text(order: _Order, counts: dict[str, int], why: str, cause: Cause, most: int) -> str:
    """All in one line: `81 retried: 3 delivered, 78 not reached again: connection refused`."""
    phrases = [f"{counts[what]:,} {word}" for what, word in _WORDS.items() if counts[what]]
    failed = sum(counts[what] for what in _FAILED)
    if failed:
        how = _AGAIN.get(cause, "deferred")
        of_them = "" if most == failed else f", {most:,} of them"
        phrases.append(f"{failed:,} {how} again{of_them}: {why or 'no reason was given'}")
    if order.is_over and any(counts[what] for what in _MOVING):
        phrases[-1] += "; it is followed no further"
    first = f"; of the first {order.followed:,}" if order.followed < order.recipients else ""
    return f"{order.recipients:,} {verbs.named(order.verb).followed}{first}: {', '.join(phrases)}"


def _of_operation(found: Operation) -> views.FollowUpView:
    """An order to bounce or drop. One that was cut short is over, although it holds what it has touched."""
    text = found.result
    if found.left and found.due is None:
        text = f"{text}; it is not carried out: undo it, or order again"
    return views.FollowUpView(
        operation=found.id,
        verb=found.verb,
        by=clean(found.by),
        at=found.at,
        text=text,
        over=found.finished and (not found.left or found.due is None),
        recipients=found.recipients,
        followed=found.recipients,
        returned=found.gone_recipients if found.verb == "bounce" else 0,
        dropped=found.gone_recipients if found.verb == "drop" else 0,
        held=found.left,
    )
