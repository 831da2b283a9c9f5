"""The limits of `[[limit]]`: whom each is for, how much of it is left, and when there is more.

Memory is bounded by the settings: all that one limit names draws from the same two buckets.
"""

import math
from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from engine.base.clock import Clock
from engine.model.node import ALL_OF_IT, Share
from engine.settings.settings import Limit

_MINUTE = 60.0  # seconds
_WORTH_WAKING = 10  # tokens; for fewer nobody is woken where more may be had
_SLACK = 0.01  # seconds; later than the bucket's own reckoning by more than a clock's rounding


class Limiting(Struct, frozen=True):
    """One thing that keeps mail from going now: the dotted name of a setting, or a word ("blocked", "coming back").

    `until` is when it ends by itself, None where that depends on something else.
    """

    name: str
    until: float | None
    text: str

    @property
    def is_rate(self) -> bool:
        """Whether it is so many within a time, and not so many at once."""
        return self.name.endswith("_per_minute")


class Bucket:
    """Tokens by the clock: never more than `per_minute` are taken within any minute.

    A tenth of them may be taken at once; where that is one or less, they come evenly spaced.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._per_minute = -1
        self._tokens = float(max(1, per_minute // 10))
        self._at = clock.now()
        self.set_to(per_minute)

    def set_to(self, per_minute: int) -> None:
        """So many come from now on; 0: none."""
        if per_minute == self._per_minute:
            return
        if self._per_minute > 0:
            self._fill()
        self._per_minute = per_minute
        self.size = max(1, per_minute // 10) if per_minute else 0
        # What may be taken at once and what comes within the minute after are no more than the limit together.
        self._rate = (per_minute - self.size if self.size > 1 else per_minute) / _MINUTE
        self._wanted = min(self.size, _WORTH_WAKING)
        self._tokens = min(float(self.size), self._tokens)

    @property
    def available(self) -> int:
        """How many may be taken now."""
        self._fill()
        return max(0, int(self._tokens))

    def _fill(self) -> None:
        now = self._clock.now()
        # A clock that is set back gives nothing and takes nothing.
        self._tokens = min(float(self.size), self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now

    def take(self, count: int) -> None:
        """Take some; what was not available is owed."""
        self._tokens -= count

    def give_back(self, count: int) -> None:
        """Return what was taken and not used."""
        self._tokens = min(float(self.size), self._tokens + count)

    @property
    def ready_at(self) -> float:
        """When there are enough again that it is worth looking; infinite where none come."""
        if not self._rate:
            return math.inf
        missing = 0.0 if self.available >= self._wanted else self._wanted - self._tokens
        return self._clock.now() + missing / self._rate + _SLACK


class Rule:
    """One limit of the settings, at work; `open` are the connections to all sites that it is for.

    It holds for all nodes together: `share` says which part of it is this one's.
    """

    def __init__(self, setting: Limit, clock: Clock, share: Callable[[], Share] = lambda: ALL_OF_IT) -> None:
        self.setting = setting
        self.open: set[object] = set()
        self._share = share
        self._messages = Bucket(setting.messages_per_minute, clock) if setting.messages_per_minute else None
        self._connections = Bucket(setting.connections_per_minute, clock) if setting.connections_per_minute else None

    @property
    def messages(self) -> Bucket | None:
        """Of messages, where they are limited."""
        return self._ours(self._messages, self.setting.messages_per_minute)

    @property
    def connections(self) -> Bucket | None:
        """Of new connections, where they are limited."""
        return self._ours(self._connections, self.setting.connections_per_minute)

    @property
    def most(self) -> int | None:
        """How many connections there may be at a time, where that is limited."""
        return None if self.setting.connections is None else self._part(self.setting.connections)

    def _ours(self, bucket: Bucket | None, per_minute: int | None) -> Bucket | None:
        if bucket is not None and per_minute is not None:
            bucket.set_to(self._part(per_minute))
        return bucket

    def _part(self, number: int) -> int:
        return self._share().of(number, self.setting.destination)

    def _told(self, number: int | None, of: str) -> str:
        part = self._part(number or 0)
        return f"{number} {of}" if part == number else f"{part} {of} from this node, of {number} from all"

    def name(self, key: str) -> str:
        """The dotted name of one of its settings."""
        return f"limit[{self.setting.destination}].{key}"

    def is_for(self, domain: str, hosts: Collection[str]) -> bool:
        """Whether it is for this domain, or for a site with these hosts."""
        named = self.setting.destination
        if named.startswith("*."):
            return any(host.endswith(named[1:]) for host in hosts)
        return named == domain

    def open_but(self, connection: object) -> int:
        """How many connections to its sites there are, or are about to be, if one is not counted.

        It is asked for each of its sites, which may be thousands: it must not look through them.
        """
        return len(self.open) - (connection in self.open)

    def on_messages(self) -> Limiting | None:
        """Whether, and until when, it keeps messages from being sent."""
        bucket = self.messages
        if bucket is None or bucket.available:
            return None
        told = self._told(self.setting.messages_per_minute, "a minute")
        return Limiting(self.name("messages_per_minute"), _until(bucket), f"no more than {told}")

    def on_new_connections(self, open_now: int) -> Limiting | None:
        """Whether, and until when, it keeps connections from being opened while `open_now` are open."""
        most = self.most
        if most is not None and open_now >= most:
            return Limiting(
                self.name("connections"), None, told_of_share(open_now, most, self.setting.connections or 0)
            )
        bucket = self.connections
        if bucket is None or bucket.available:
            return None
        told = self._told(self.setting.connections_per_minute, "a minute")
        return Limiting(self.name("connections_per_minute"), _until(bucket), f"no more than {told}")


def _until(bucket: Bucket) -> float | None:
    return bucket.ready_at if bucket.size else None  # what is another node's waits for no time


def told_of_share(open_now: int, part: int, number: int) -> str:
    """How many connections are open of those that there may be, from this node and from all."""
    return f"{open_now} of {part} open" + ("" if part == number else f", this node's part of {number}")


class Limits:
    """All limits of the settings; see Rule for `share`."""

    def __init__(self, settings: Sequence[Limit], clock: Clock, share: Callable[[], Share] = lambda: ALL_OF_IT) -> None:
        self.share = share
        self._rules = tuple(Rule(setting, clock, share) for setting in settings)
        self._named = {setting.destination for setting in settings}

    def name(self, domain: str) -> bool:
        """Whether a limit names this domain itself."""
        return domain in self._named

    def of(self, domain: str, hosts: Collection[str]) -> tuple[Rule, ...]:
        """The limits that hold for a site: of `domain` where it has connections of its own, and of its hosts."""
        return tuple(rule for rule in self._rules if rule.is_for(domain, hosts))
