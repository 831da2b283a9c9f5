"""How much one address and one login may ask of us, by a measure that fills with each use and drains with time."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.local_user import uid_in
from engine.settings.kinds import Network
from engine.settings.settings import Limits

REMEMBERED = 10_000  # addresses and logins of each kind; those not heard of for longest are forgotten

MINUTE, HOUR = 60.0, 3600.0


class Meter:
    """A measure that fills by one with each use and drains evenly, all of it within `window` seconds.

    So `most` uses may come at once, and `most` more in each window after. Only the `REMEMBERED` keys last used are
    kept: a key that is forgotten starts afresh. It fills up to `ceiling`, where that is more than `most`.
    """

    def __init__(
        self, most: int, window: float, clock: Clock, *, remembered: int = REMEMBERED, ceiling: int = 0
    ) -> None:
        self.most = most
        self.ceiling = max(most, ceiling)
        self._window = window
        self._clock = clock
        self._levels = Kept[str, tuple[float, float]](remembered)

    def __len__(self) -> int:
        return len(self._levels)

    def level(self, key: str) -> float:
        """How full it is for this key, now."""
        level, since = self._levels.get(key, (0.0, 0.0))
        now = self._clock.now()
        if since > now:  # the clock was set back: it drains from now on, not only once that time comes again
            self._levels[key] = level, now
            return level
        return max(0.0, level - (now - since) * self.most / self._window)

    def has_room(self, key: str) -> bool:
        """Whether one more use fits."""
        return self.level(key) + 1.0 <= self.most + 1e-9

    def use(self, key: str) -> None:
        """Count one use."""
        self._set(key, min(self.level(key) + 1.0, float(self.ceiling)))

    def take_back(self, key: str) -> None:
        """It was no use after all."""
        self._set(key, max(0.0, self.level(key) - 1.0))

    def _set(self, key: str, level: float) -> None:
        if level > 0:
            self._levels[key] = (level, self._clock.now())
        else:
            self._levels.pop(key, None)


class Rates:
    """How often mail may be begun, and for how many recipients, by address and by login."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._exempt = limits.exempt_networks
        self._address = (
            Meter(limits.messages_per_minute_per_address, MINUTE, clock),
            Meter(limits.messages_per_hour_per_address, HOUR, clock),
        )
        self._login = (
            Meter(limits.messages_per_minute_per_login, MINUTE, clock),
            Meter(limits.messages_per_hour_per_login, HOUR, clock),
        )
        self._recipients_of_address = (
            Meter(limits.recipients_per_minute_per_address, MINUTE, clock),
            Meter(limits.recipients_per_hour_per_address, HOUR, clock),
        )
        self._recipients_of_login = (
            Meter(limits.recipients_per_minute_per_login, MINUTE, clock),
            Meter(limits.recipients_per_hour_per_login, HOUR, clock),
        )

    def begin(self, address: str, login: str) -> str:
        """Count a message; give whose limit does not allow it, or ""."""
        return self._use(self._address, self._login, address, login)

    def recipient(self, address: str, login: str) -> str:
        """Count a recipient; give whose limit does not allow it, or ""."""
        return self._use(self._recipients_of_address, self._recipients_of_login, address, login)

    def _use(self, of_address: Sequence[Meter], of_login: Sequence[Meter], address: str, login: str) -> str:
        by: list[tuple[Meter, str, str]] = []
        if not lies_in(address, self._exempt):
            by += [(meter, address_key(address), "address") for meter in of_address]
        if login:
            by += [(meter, login, "login") for meter in of_login]
        for meter, key, what in by:
            if not meter.has_room(key):
                return what
        for meter, key, _ in by:
            meter.use(key)
        return ""


def address_key(address: str) -> str:
    """What an address counts by: itself, or the /64 that a single host of IPv6 may have all of; a local user's uid."""
    found = _parsed(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
    return str(found) if found is not None else uid_in(address) or address


def network_key(address: str) -> str:
    """The network an address lies in, which is often one party's: the /24 of IPv4, the /64 of IPv6."""
    found = _parsed(address)
    if isinstance(found, ipaddress.IPv4Address):
        return str(ipaddress.ip_network((int(found) >> 8 << 8, 24)))
    return address_key(address)


def lies_in(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address lies in one of these networks."""
    found = _parsed(address)
    return found is not None and any(found in network for network in networks)


@lru_cache(maxsize=1024)  # each session asks some six times
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        return found.ipv4_mapped
    return found
