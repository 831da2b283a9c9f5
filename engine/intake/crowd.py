"""Who is connected: how many may come from one address and with one login, and who makes room when all is full.

Strangers are those who may send nothing yet: an address that is not in `relay_networks`, or that has not logged in.
They may hold half of all sessions. When that is full the newest is let in and the one who has stood there longest is
turned out: whoever means to send logs in within seconds, and whoever only holds sessions open cannot keep others out.
"""

from collections import Counter
from typing import Protocol

from engine.config import Limits
from engine.intake.limits import address_key, lies_in

TOO_MANY = "421 4.7.0 {} Too many sessions from your address"
TOO_MANY_OF_LOGIN = "421 4.7.0 {} Too many sessions with this login"
FULL_HOUSE = "421 4.3.2 {} Too many sessions, come again"
TURNED_OUT = "421 4.3.2 {} Making room for others, come again"


class Guest(Protocol):
    """A session, as far as the crowd is concerned."""

    def close(self, farewell: str) -> None:
        """Say why and hang up."""
        ...


class Crowd:
    """Counts sessions. A guest that was let in leaves exactly once, however it ends."""

    def __init__(self, most: int, limits: Limits, hostname: str) -> None:
        self._most = most
        self._limits = limits
        self._hostname = hostname
        self._strangers: dict[Guest, None] = {}  # in the order in which they came
        self._known: dict[Guest, str] = {}  # by login, which is "" for those of relay_networks
        self._addresses: dict[Guest, str] = {}
        self._by_address: Counter[str] = Counter()
        self._by_login: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._addresses)

    def make_room(self, address: str, *, known: bool) -> str:
        """Make room for one more from this address, or give the reply with which to turn it away."""
        key = self._key(address)
        if key and self._by_address[key] >= self._limits.connections_per_address:
            return TOO_MANY.format(self._hostname)
        if not known and len(self._strangers) >= max(1, self._most // 2):
            self._turn_out()
        if len(self) >= self._most and not self._turn_out():
            return FULL_HOUSE.format(self._hostname)
        return ""

    def enter(self, guest: Guest, address: str, *, known: bool) -> None:
        """Let a guest in for whom there is room."""
        key = self._key(address)
        self._addresses[guest] = key
        if key:
            self._by_address[key] += 1
        if known:
            self._known[guest] = ""
        else:
            self._strangers[guest] = None

    def log_in(self, guest: Guest, login: str) -> str:
        """A stranger is known by this login from now on; or the reply with which to send it away."""
        if guest not in self._strangers:
            return FULL_HOUSE.format(self._hostname)  # it was turned out meanwhile
        if self._by_login[login] >= self._limits.connections_per_login:
            return TOO_MANY_OF_LOGIN.format(self._hostname)
        del self._strangers[guest]
        self._known[guest] = login
        self._by_login[login] += 1
        return ""

    def leave(self, guest: Guest) -> None:
        """A guest has gone; one that was never let in is no matter."""
        key = self._addresses.pop(guest, None)
        if key is None:
            return
        self._strangers.pop(guest, None)
        _less(self._by_address, key)
        _less(self._by_login, self._known.pop(guest, ""))

    def _key(self, address: str) -> str:
        return "" if lies_in(address, self._limits.exempt_networks) else address_key(address)

    def _turn_out(self) -> bool:
        """End the session of the stranger who has stood here longest; False where there is none."""
        oldest = next(iter(self._strangers), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.close(TURNED_OUT.format(self._hostname))
        return True


def _less(counter: Counter[str], key: str) -> None:
    if key:
        counter[key] -= 1
        if counter[key] <= 0:
            del counter[key]
