"""Who is connected: how many may come from one address and with one login, and who makes room when all is full.

Strangers are those who may send nothing yet: an address that is not in `relay_networks`, or that has not logged in.
They may hold half of all sessions. When that is full the newest is let in and the one who has stood there longest is
turned out: whoever means to send logs in within seconds, and whoever only holds sessions open cannot keep others out.
When all sessions are taken, whoever it is that has not sent for longest makes room, unless it is sending now. Where
there is submission a quarter is kept for it: what programs on this machine do at the one door does not shut the other.
"""

from collections import Counter
from typing import Literal, Protocol

from engine.base.clock import Clock
from engine.intake.reply import Reply, goodbye
from engine.intake.smtp.lately import Lately
from engine.intake.smtp.limits import address_key, lies_in
from engine.settings.settings import Limits

Door = Literal["relay", "submission"]

KEPT = 4  # one of so many sessions is kept for submission


class Guest(Protocol):
    """A session, as far as its place is concerned."""

    @property
    def at_work(self) -> bool:
        """Whether it is sending a message at this moment."""
        ...

    def close(self, farewell: Reply) -> None:
        """Say why and hang up."""
        ...


class Occupancy:
    """Counts sessions. A guest that was let in leaves exactly once, however it ends.

    `submits`: there is a door for those who log in.
    """

    def __init__(self, most: int, limits: Limits, hostname: str, clock: Clock, *, submits: bool = False) -> None:
        self._most = most
        self._for_relaying = most - most // KEPT if submits else most
        self._limits = limits
        self._hostname = hostname
        self._strangers: dict[Guest, None] = {}  # in the order in which they came
        self._known: dict[Guest, str] = {}  # by login, which is "" for those of relay_networks
        self._addresses: dict[Guest, str] = {}  # who did nothing for longest comes first
        self._relaying: set[Guest] = set()
        self._by_address: Counter[str] = Counter()
        self._by_login: Counter[str] = Counter()
        self._lately = Lately(clock)

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached lately."""
        return self._lately.texts

    def make_room(self, address: str, *, known: bool, door: Door = "relay") -> Reply | None:
        """Make room for one more from this address, or give the reply with which to turn it away."""
        key = self._key(address)
        if key and self._by_address[key] >= self._limits.connections_per_address:
            self._lately.reached("address", f"421 to more sessions from {key} (intake.limits.connections_per_address)")
            return goodbye("4.7.0", self._hostname, "Too many sessions from your address")
        if not known and len(self._strangers) >= max(1, self._most // 2):
            self._lately.reached(
                "strangers", "half of all sessions are held by strangers: those there longest go (421)"
            )
            self._turn_out(next(iter(self._strangers)))
        if door == "relay" and len(self._relaying) >= self._for_relaying:
            return self._from_the_idle(self._relaying, f"all {self._for_relaying} sessions for relaying")
        if len(self) >= self._most:
            return self._from_the_idle(self._addresses, f"all {self._most} sessions (intake.smtp.max_sessions)")
        return None

    def enter(self, guest: Guest, address: str, *, known: bool, door: Door = "relay") -> None:
        """Let a guest in for whom there is room."""
        key = self._key(address)
        self._addresses[guest] = key
        if key:
            self._by_address[key] += 1
        if door == "relay":
            self._relaying.add(guest)
        if known:
            self._known[guest] = ""
        else:
            self._strangers[guest] = None

    def touch(self, guest: Guest) -> None:
        """A guest has begun or ended a message. What else it says is no reason to stay: anybody can say NOOP."""
        if guest in self._addresses:
            self._addresses[guest] = self._addresses.pop(guest)

    def log_in(self, guest: Guest, login: str) -> Reply | None:
        """A stranger is known by this login from now on; or the reply with which to send it away."""
        if guest not in self._strangers:
            return full_house(self._hostname)  # it was turned out meanwhile
        if self._by_login[login] >= self._limits.connections_per_login:
            self._lately.reached("login", f"421 to more sessions of {login} (intake.limits.connections_per_login)")
            return goodbye("4.7.0", self._hostname, "Too many sessions with this login")
        del self._strangers[guest]
        self._known[guest] = login
        self._by_login[login] += 1
        self.touch(guest)
        return None

    def leave(self, guest: Guest) -> None:
        """A guest has gone; one that was never let in is no matter."""
        key = self._addresses.pop(guest, None)
        if key is None:
            return
        self._strangers.pop(guest, None)
        self._relaying.discard(guest)
        _less(self._by_address, key)
        _less(self._by_login, self._known.pop(guest, ""))

    def _key(self, address: str) -> str:
        return "" if lies_in(address, self._limits.exempt_networks) else address_key(address)

    def _from_the_idle(self, among: "set[Guest] | dict[Guest, str]", what: str) -> Reply | None:
        """Turn out the one among these who did nothing for longest, or give the reply where all are at work."""
        idle = next((guest for guest in self._addresses if guest in among and not guest.at_work), None)
        if idle is None:
            self._lately.reached("full", f"{what} are at work: others are told to come again (421)")
            return full_house(self._hostname)
        self._lately.reached("full", f"{what} are in use: those idle longest make room for others (421)")
        self._turn_out(idle)
        return None

    def _turn_out(self, guest: Guest) -> None:
        self.leave(guest)
        guest.close(turned_out(self._hostname))


def full_house(hostname: str) -> Reply:
    """What somebody hears for whom there is no room."""
    return goodbye("4.3.2", hostname, "Too many sessions, come again")


def turned_out(hostname: str) -> Reply:
    """What somebody hears who makes room for another."""
    return goodbye("4.3.2", hostname, "Making room for others, come again")


def _less(counter: Counter[str], key: str) -> None:
    if key:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
