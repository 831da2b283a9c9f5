"""Passwords that are guessed: who tries one after the other is slowed, and then refused, and nobody else is kept out.

A login is not locked, whoever guesses at it: that would let anybody lock out its owner. What is refused is one address,
and one login from one network; all else waits its while, ten seconds at the longest, and costs us a session meanwhile.
"""

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.text import clean
from engine.intake.smtp.lately import Lately
from engine.intake.smtp.limits import REMEMBERED, Meter, address_key, lies_in, network_key
from engine.settings.settings import Limits

LONGEST_DELAY = 10.0  # seconds
NETWORK = 5  # times guesses_per_login: what a network may guess at a login from ever new addresses
ANYWHERE = 10  # times guesses_per_login: guesses at a login that are remembered, from wherever they came
WELCOME = 90 * 86_400.0  # seconds for which it is remembered whence a login came in rightly
AGAIN = 86_400.0  # seconds after which that is noted anew


class Guesses:
    """Slows down, and then refuses, whoever tries one password after the other.

    A guess is counted when it begins, so that many at a time do not slip through, and taken back when it was right.
    Counted are those of an address (at any login), those at a login from one network (a /24 or /64), and those at a
    login in all, which only slow. An address from which nobody has guessed at this login lately is heard, slowly, where
    others of its network are not any more. Who has logged in from an address before is not even slowed there by what
    others guess elsewhere.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._exempt = limits.exempt_networks
        self._free = limits.guesses_before_delay
        self._free_in_all = limits.guesses_per_login
        self._clock = clock
        window = limits.guess_window
        self._address = Meter(limits.guesses_per_address, window, clock)
        self._from_address = Meter(limits.guesses_per_login, window, clock)
        self._from_network = Meter(limits.guesses_per_login, window, clock, ceiling=NETWORK * limits.guesses_per_login)
        self._in_all = Meter(ANYWHERE * limits.guesses_per_login, window, clock)
        self._welcome = Kept[tuple[str, str], float](REMEMBERED)
        self._lately = Lately(clock)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which bounds were reached lately."""
        return self._lately.texts

    def refused(self, address: str, login: str) -> str:
        """Whose guesses were too many ("address" or "login"), or "" where one more is heard."""
        whose = self._refused(address, login)
        if whose:
            what = address_key(address) if whose == "address" else f"the network {network_key(address)} for one login"
            self._lately.reached(f"refused {whose}", f"421 to logins from {clean(what, 60)}: too many wrong passwords")
        return whose

    def begin(self, address: str, login: str) -> float:
        """Count a guess; give how many seconds it must wait."""
        level, in_all = 0.0, 0.0
        for meter, key in self._counted(address, login):
            meter.use(key)
            if meter in (self._address, self._from_network):
                level = max(level, meter.level(key))
            elif meter is self._in_all:
                in_all = meter.level(key)
        if round(in_all) > self._free_in_all:
            self._lately.reached(
                "slowed", f"the login {clean(login, 60)} is slowed from new addresses: too many wrong passwords for it"
            )
        return max(_delay(level, self._free), _delay(in_all, self._free_in_all))

    def right(self, address: str, login: str) -> bool:
        """It was no guess: the password is right. True where it is worth noting that it came from here."""
        self.forgive(address, login)
        now, last = self._clock.now(), self._welcome.get((address_key(address), login))
        self.welcome(address, login, now)
        return last is None or not last <= now < last + AGAIN

    def welcome(self, address: str, login: str, at: float) -> None:
        """This login came in rightly from this address, then."""
        self._welcome[address_key(address), login] = at

    def forgive(self, address: str, login: str) -> None:
        """Take back a guess that was never judged, or was right."""
        for meter, key in self._counted(address, login):
            meter.take_back(key)

    def _refused(self, address: str, login: str) -> str:
        if not lies_in(address, self._exempt) and not self._address.has_room(address_key(address)):
            return "address"
        if self._is_welcome(address, login):
            return ""
        network = f"{network_key(address)} {login}"
        if self._from_network.has_room(network):
            return ""
        is_fresh = not self._from_address.level(f"{address_key(address)} {login}")
        return "" if is_fresh and self._from_network.level(network) + 1 <= self._from_network.ceiling else "login"

    def _counted(self, address: str, login: str) -> list[tuple[Meter, str]]:
        """The measures that a guess fills."""
        found = []
        if not lies_in(address, self._exempt):
            found.append((self._address, address_key(address)))
        if not self._is_welcome(address, login):
            network = f"{network_key(address)} {login}"
            found += [
                (self._from_address, f"{address_key(address)} {login}"),
                (self._from_network, network),
                (self._in_all, login),
            ]
        return found

    def _is_welcome(self, address: str, login: str) -> bool:
        at = self._welcome.get((address_key(address), login))
        return at is not None and self._clock.now() < at + WELCOME


def _delay(level: float, free: int) -> float:
    """Seconds to wait for who has made so many guesses, of which some are free: twice as long with each."""
    beyond = round(level) - free
    return min(2.0 ** (beyond - 1), LONGEST_DELAY) if beyond > 0 else 0.0
