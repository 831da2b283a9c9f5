"""The way out: whether connections to the port for mail get through to the internet at all.

Many providers and firewalls let nothing out at port 25, mostly without a word: each connection times out. To this relay
that looks as if every host were dead. Where several hosts that have nothing to do with one another are silent, and none
answers, it is the way that is closed, and no host is marked bad for it. Whoever was silent while others answered is
dead himself, and his silence says nothing of the way until he has answered.

It is judged for each family of addresses by itself, since one may be closed alone.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Collection

from msgspec import Struct

from engine.base.clock import Clock
from engine.base.kept import Kept
from engine.base.registrable import registrable
from engine.model.destination import Mark
from engine.settings.ourselves import address_in
from engine.smtpclient.blame import family_of
from engine.smtpclient.dialler import Dialler

UNRELATED = 5  # hosts that are silent, no two of one site, of one owner or in one network, while none answers
WITHIN = 600.0  # seconds in which they are, and in which none answered
LASTS = 1800.0  # seconds after the last silence; the ways of mail that waits are tried every quarter of an hour
KEPT = 200  # silences of a family: strangers may name any number of silent hosts
DEAD_KEPT = 1000  # of a family, sites with networks that were silent while others answered
MARKS_KEPT = 1000  # made for silence since a host answered last
ENOUGH = 10.0  # seconds of silence that count as one though nobody waited for its end: four tries of the kernel's

_NETWORK_BITS = {4: 16, 6: 32}

log = logging.getLogger(__name__)


class _Silence(Struct, frozen=True):
    """That nobody answered at an address. `at` is by the clock that nobody sets."""

    at: float
    site: str
    owner: str
    network: str


class _Family:
    """What is known of the way to the addresses of one family."""

    def __init__(self) -> None:
        self.silences = Kept[tuple[str, str], _Silence](KEPT)
        self.dead = Kept[tuple[str, str], None](DEAD_KEPT)
        self.answered_at = float("-inf")
        self.silent_at = float("-inf")
        self.closed = 0  # how many unrelated hosts were silent when it was taken for closed; 0: it is not


class WayOut:
    """Whether the way to `port` is open, by what came of the connections there.

    Only addresses that are `outside` say something of it: a host in one's own network answers whatever a provider
    does.
    """

    def __init__(self, clock: Clock, port: int, *, outside: Callable[[str], bool] | None = None) -> None:
        self._clock = clock
        self._port = port
        self._outside = outside or _is_outside
        self._families = {"IPv4": _Family(), "IPv6": _Family()}
        # By host: its mark, and the families at whose addresses it was silent.
        self._marks = Kept[str, tuple[Mark, frozenset[str]]](MARKS_KEPT)

    # -- what came of connections -------------------------------------------------------------------------------------

    def concerns(self, address: str, port: int) -> bool:
        """Whether a connection to this address and port says something of the way."""
        return port == self._port and self._outside(address)

    def silent(self, site: str, host: str, address: str, since: float) -> None:
        """Nobody has answered at an address of a host of a site, `since` then by the clock that nobody sets."""
        family, now = self._families[family_of(address)], self._clock.monotonic()
        network = _network(address)
        if family.answered_at >= since:
            family.dead[site, network] = None
        if (site, network) in family.dead:
            return
        owner = host if host.strip("[]") == address else registrable(host)
        family.silent_at = now
        family.silences[site, network] = _Silence(now, site, owner, network)
        if self._is_closed(family) or now - family.answered_at <= WITHIN:
            return
        found = _unrelated([silence for silence in family.silences.values() if now - silence.at <= WITHIN])
        if found >= UNRELATED:
            family.closed = found
            log.warning("outgoing port %d seems to be blocked (%s)", self._port, family_of(address))

    def answered(self, address: str, site: str = "") -> None:
        """Somebody took the connection, for a site if it is known for which: the way is open."""
        name = family_of(address)
        family, now = self._families[name], self._clock.monotonic()
        if family.closed:
            log.warning("outgoing port %d is open (%s)", self._port, name)
        family.answered_at, family.closed = now, 0
        for key, silence in family.silences.items():
            if now - silence.at <= WITHIN:
                family.dead[key] = None
        family.silences.clear()
        family.dead.pop((site, _network(address)), None)
        for host in [host for host, (_, families) in self._marks.items() if name in families]:
            del self._marks[host]  # which were right then

    # -- what it means ------------------------------------------------------------------------------------------------

    def is_closed(self, families: Collection[str]) -> bool:
        """Whether the way is taken for closed, of all these families; so that silence there says nothing of a host."""
        return bool(families) and all(self._is_closed(self._families[name]) for name in families)

    def marked(self, mark: Mark, before: Mark | None, families: Collection[str]) -> None:
        """A host was marked bad for nothing but silence at its addresses of these families; `before`: as it was."""
        known = self._marks.get(mark.host)
        if before is None or (known is not None and known[0].until == before.until):
            self._marks[mark.host] = mark, frozenset(families)

    @property
    def wrong_marks(self) -> tuple[Mark, ...]:
        """The marks that were made for silence since a host answered last, now that the way is taken for closed."""
        return tuple(mark for mark, families in self._marks.values() if self.is_closed(families))

    def taken_back(self, marks: Collection[Mark]) -> None:
        """These are no more."""
        for mark in marks:
            self._marks.pop(mark.host, None)

    @property
    def notes(self) -> tuple[str, ...]:
        """That the way is taken for closed, and what to do, in a sentence."""
        closed = [name for name, family in self._families.items() if self._is_closed(family)]
        if not closed:
            return ()
        count = max(self._families[name].closed for name in closed)
        other = [family for name, family in self._families.items() if name not in closed]
        is_one_alone = any(family.answered_at > float("-inf") for family in other)
        over = f" over {closed[0]}" if is_one_alone else ""
        todo = 'have your provider or firewall open it, or send through a provider at port 587 ([[route]] domain = "*")'
        if is_one_alone:
            todo = f"have it opened, or take {closed[0]} from this machine until it is"
        why = f"{count} hosts that have nothing to do with one another are silent, and none answers"
        return (f"outgoing port {self._port} seems to be blocked{over}: {why}; no host is marked bad for it; {todo}",)

    def _is_closed(self, family: _Family) -> bool:
        return family.closed > 0 and self._clock.monotonic() - family.silent_at <= LASTS


class Watched:
    """Dials as another does, and tells the way out what came of it.

    `site` and `host` are whose address it is; without a site somebody probes, and only answers count.
    """

    def __init__(self, dialler: Dialler, way_out: WayOut, clock: Clock, *, site: str = "", host: str = "") -> None:
        self._dialler = dialler
        self._way_out = way_out
        self._clock = clock
        self._site = site
        self._host = host

    async def dial(self, address: str, port: int, timeout: float, source: str = "") -> socket.socket:
        """As the other does."""
        begun = self._clock.monotonic()
        try:
            sock = await self._dialler.dial(address, port, timeout, source)
        except TimeoutError:
            self._was_silent(address, port, begun)
            raise
        except asyncio.CancelledError:  # others wait, or somebody closes it
            if self._clock.monotonic() - begun >= ENOUGH:
                self._was_silent(address, port, begun)
            raise
        if self._way_out.concerns(address, port):
            self._way_out.answered(address, self._site)
        return sock

    def _was_silent(self, address: str, port: int, since: float) -> None:
        if self._site and self._way_out.concerns(address, port):
            self._way_out.silent(self._site, self._host, address, since)


def _unrelated(silences: Collection[_Silence]) -> int:
    """How many hosts there are among these of which none has a site, an owner or a network in common with another.

    It counts the newest first, and not the most that one could find: at the edge it is rather too careful.
    """
    seen: set[tuple[str, str]] = set()
    count = 0
    for silence in sorted(silences, key=lambda silence: silence.at, reverse=True):
        marks = {("site", silence.site), ("owner", silence.owner), ("network", silence.network)}
        if seen.isdisjoint(marks):
            seen |= marks
            count += 1
    return count


def _network(address: str) -> str:
    """The network that an address is in, of a size that one provider has: /16, or /32 of IPv6."""
    found = ipaddress.ip_address(address)
    return str(ipaddress.ip_network((found, _NETWORK_BITS[found.version]), strict=False))


def _is_outside(address: str) -> bool:
    found = address_in(address)
    return found is not None and found.is_global
