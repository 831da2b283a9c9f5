"""The end of patience, whatever the store: how a walk over what has expired goes on, and what of it is given up.

Mail that could go at once is tried before it is returned, and nothing is returned that was never tried: it may have
been held, or have waited while the engine was down. `is_given_up` decides; the walk and what is shown ask it.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from engine.model.expiry import is_given_up

# Expired entries that are looked at in one check: some milliseconds' worth. Those that have one more try to come stay
# among them; the next check goes on behind the last one looked at.
LOOKED_AT = 500
PASS_EVERY = 10.0  # seconds from the beginning of a pass over more than those to that of the next

START = (0.0, 0, 0)

Taken = dict[tuple[int, str], dict[int, str]]  # by message and destination: the entries, and by whose order each leaves


class Place(NamedTuple):
    """Where a walk stands: behind which entry, and when its pass began (0.0: the next may begin at once).

    The entry is given by its end, message and number, in the order of which the walk goes.
    """

    after: tuple[float, int, int] = START
    begun: float = 0.0

    def rests(self, now: float) -> bool:
        """Whether the last pass is over, and the next is not to begin yet."""
        return self.after == START and self.begun <= now < self.begun + PASS_EVERY


def go_through(
    place: Place,
    rows: Sequence[Sequence[Any]],
    taken: Taken,
    limit: int,
    *,
    now: float,
    passed_over: Collection[int] = (),
) -> Place:
    """Add what is given up to what is `taken`, up to `limit` in all; give the place to go on from.

    `rows` are the next LOOKED_AT entries that have expired, as `take` has them, without whose messages are
    `passed_over`. Behind the last one it begins anew; what was not taken for the limit is looked at next.
    """
    after, begun = place
    is_first = after == START
    if is_first:
        begun = now
    for row in rows:
        message, _, number, expires = row[:4]
        if message not in passed_over and not take(row, taken, limit, now=now):
            return Place(after, begun) if after != START else place
        after = (expires, message, number)
    if len(rows) < LOOKED_AT:
        return Place(begun=0.0 if is_first else begun)
    return Place(after, begun)


def take(row: Sequence[Any], taken: Taken, limit: int, *, now: float) -> bool:
    """Add an entry to what is taken if it is given up; False: it would be one more than `limit`.

    `row`: message, destination, number, expires, due, attempts, blocked_until, unreached_at, kept (see `is_given_up`).
    """
    message, destination, number, expires, due, attempts, blocked_until, unreached_at, kept = row
    if is_given_up(
        now=now,
        expires=expires,
        due=due,
        attempts=attempts,
        blocked_until=blocked_until,
        unreached_at=unreached_at,
        kept=bool(kept),
    ):
        key = (message, destination)
        if key not in taken and len(taken) >= limit:
            return False
        taken.setdefault(key, {})[number] = ""
    return True
