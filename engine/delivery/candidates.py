"""Which address is tried next in one attempt, and when it is enough."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from engine.delivery.addresses import Found
from engine.delivery.routes import Way, untried
from engine.dns.mx import Exchange, MXError, OwnName
from engine.model.outcome import Outcome
from engine.smtpclient.target import Target


class Candidates:
    """The addresses of all hosts of a way, in order of preference (RFC 5321 5.1), for one attempt.

    At most `max_addresses` are given, and none after `max_sessions` sessions. Of the two families of addresses neither
    gets more than half (rounded up) while the other has some left: where we have no IPv6, five dead AAAA must not hide
    the sixth address. Hosts that `put_off` names come last. `sessions` are those that may still be had; `remark` is
    told of hosts without an address to try, and `nothing` is what comes of them.
    """

    def __init__(
        self,
        way: Way,
        found: Found,
        *,
        max_addresses: int,
        max_sessions: int,
        put_off: Callable[[str], bool],
        remark: Callable[[str], None],
    ) -> None:
        self._way = way
        self._found = found
        self._most = max_addresses
        self._remark = remark
        self._hosts: list[Exchange] = sorted(way.exchanges, key=lambda exchange: put_off(exchange.host))
        self._left_hosts: set[str] = set()
        self._only_ipv4 = False
        self._limit: int | None = None  # hosts of this preference, and of none as good, are not tried
        self._addresses = self._in_order()
        self.sessions = max_sessions
        self._nothing: MXError | None = None

    @property
    def nothing(self) -> Outcome | None:
        """What is said of the hosts of which no address was to be had."""
        return self._nothing.outcome if self._nothing is not None else None

    @property
    def leaves_some_out(self) -> bool:
        """Whether the way has hosts that are not tried, because operators marked them bad."""
        return self._way.leaves_some_out

    def leave(self, host: str) -> None:
        """Give no more addresses of this host."""
        self._left_hosts.add(host)

    def go_over_ipv4(self) -> None:
        """Give no more addresses of IPv6."""
        self._only_ipv4 = True

    def may_go_over_ipv4(self) -> bool:
        """Whether after a session over IPv6 there may be one over IPv4, be it with the same host."""
        if self.sessions <= 0 or self._only_ipv4:
            return False
        every = (self._found.get(exchange.host) for exchange in self._way.exchanges)
        return any(":" not in target.address for found in every if isinstance(found, list) for target in found)

    def is_ourselves(self, exchange: Exchange, error: MXError) -> None:
        """A host is this relay: neither it nor what is no better is tried any more (RFC 5321 5.1)."""
        self._limit = exchange.preference
        self._hosts = [host for host in self._hosts if host.preference < exchange.preference]
        self._nothing = untried(self._nothing, error)

    def may_go_on(self, host: str) -> bool:
        """Whether, after a session with this host, another host may be tried."""
        return self.sessions > 0 and any(exchange.host != host for exchange in self._hosts)

    def next(self) -> tuple[Exchange, Target] | None:
        """The next address and whose it is; None when it is enough."""
        if self.sessions <= 0:
            return None
        while self._most > 0:
            found = next(self._addresses, None)
            if found is None:
                return None
            is_cut = self._limit is not None and found[0].preference >= self._limit
            is_other = self._only_ipv4 and ":" in found[1].address
            if not is_cut and not is_other and found[0].host not in self._left_hosts:
                self._most -= 1
                return found
        return None

    def _in_order(self) -> Iterator[tuple[Exchange, Target]]:
        family: Counter[bool] = Counter()
        half = self._most - self._most // 2
        behind: list[tuple[Exchange, Target]] = []
        while self._hosts:
            exchange = self._hosts.pop(0)
            for target in self._targets(exchange):
                is_ipv6 = ":" in target.address
                if family[is_ipv6] < half:
                    family[is_ipv6] += 1
                    yield exchange, target
                else:
                    behind.append((exchange, target))
        yield from behind

    def _targets(self, exchange: Exchange) -> Sequence[Target]:
        try:
            return self._found.of(exchange)
        except MXError as error:
            self._remark(f"{exchange.host}: {error.outcome.line}")
            if isinstance(error, OwnName):
                self.is_ourselves(exchange, error)
            else:
                self._nothing = untried(self._nothing, error)
            return ()
