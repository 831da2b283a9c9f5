"""A small internet on loopback: one name server, and mail exchanges on addresses of 127.0.0.0/8, all on one port."""

import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from engine.base.clock import Clock, SystemClock
from engine.sandbox import world
from engine.sandbox.certificates import Certificates
from engine.sandbox.exchanges import Bell, Delivery, Exchange, Temper
from engine.sandbox.names import NameServer
from engine.sandbox.policies import PolicyServer

_KEPT_BY_THE_WORLD = 256 * 1024  # bytes, by each exchange

_NETWORKS = range(16, 216)  # 127.N.0.0/16
_CLAIMED_BY = ".255.254"  # the address, and
_CLAIM_PORT = 15353  # the port that whoever has a network keeps bound: none the kernel gives to clients

Listed = tuple[int, str] | tuple[int, str, Temper | None]  # preference, host and, for a new host, its temper


class Internet:
    """Runs while the context is entered. `nameserver` and `port` are what a relay's settings need to know of it.

    MX records name no port, so all exchanges share `port`; 0 finds a free one. `weights` says how much of the
    generated traffic each domain gets. `keep_messages` and `keep_bytes` bound what each exchange keeps, `patience`
    is seconds that an exchange waits for a client.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        dns_port: int = 0,
        smtp_port: int = 0,
        patience: float = 300.0,
        keep_messages: int = 10_000,
        keep_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.clock = clock or SystemClock()
        self.dns = NameServer(port=dns_port)
        self.port = smtp_port
        self.certificates = Certificates()
        self.weights: dict[str, float] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.policies = PolicyServer(self.certificates)
        self._patience = patience
        self._keep_messages = keep_messages
        self._keep_bytes = keep_bytes
        self._bell = Bell()
        self._network = ""
        self._claim: socket.socket | None = None
        self._addresses = 0

    @property
    def nameserver(self) -> str:
        """Where to ask for names: "127.0.0.1:PORT"."""
        return self.dns.endpoint

    @property
    def messages(self) -> int:
        """Messages delivered to all exchanges together."""
        return sum(exchange.messages for exchange in self.exchanges.values())

    @property
    def delivered(self) -> list[Delivery]:
        """What the exchanges have kept, the oldest first."""
        kept = [delivery for exchange in self.exchanges.values() for delivery in exchange.delivered]
        return sorted(kept, key=lambda delivery: delivery.at)

    def exchange(self, host: str) -> Exchange:
        """The exchange of this name. Raises KeyError."""
        return self.exchanges[host]

    async def add(
        self, domain: str, *, mx: Sequence[Listed] = (), weight: float = 1.0, ttl: int | None = None
    ) -> list[Exchange]:
        """Add a domain with its exchanges, best or not: `mx=[(10, "mx1.example.org", Dead()), (20, "mx2...")]`.

        A host that is there already is shared, and takes the temper if one is given. Gives the exchanges as listed.
        """
        found = []
        for _, host, *temper in mx:
            found.append(await self.host(host, *temper))
        if mx:
            self.dns.add(domain, "MX", *(f"{preference} {host}." for preference, host, *_ in mx), ttl=ttl)
        self.weights[domain] = weight
        return found

    async def host(self, name: str, temper: Temper | None = None) -> Exchange:
        """The exchange of this name with an address in the DNS; made and started if it is new."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            exchange = self.exchanges[name] = await self._open(name, temper or Temper())
            self.dns.add(name, "A", exchange.address)
        elif temper is not None:
            await exchange.become(temper)
        return exchange

    async def policy(self, domain: str, text: str, *, id: str = "1") -> None:
        """Give a domain an MTA-STS policy, or another one: the record that announces it and the file itself."""
        self.policies.say(domain, text)
        self.dns.replace(f"_mta-sts.{domain}", "TXT", f'"v=STSv1; id={id};"')
        self.dns.replace(f"mta-sts.{domain}", "A", self.policies.address)

    def tlsa(self, host: str, *texts: str) -> None:
        """Give a host these TLSA records for SMTP ("3 1 1 ..."), in signed zones all the way."""
        name = f"_{self.port}._tcp.{host}"
        self.dns.replace(name, "TLSA", *texts)
        self.dns.sign(name, host)

    async def wait_for(self, messages: int, seconds: float = 30.0) -> None:
        """Wait until this many messages have been delivered in all. Raises TimeoutError."""
        await self._bell.wait_until(lambda: self.messages >= messages, seconds)

    async def populate(self) -> None:
        """Add the standard world: a few dozen domains, with every temper and every fault of the DNS among them.

        Its exchanges keep little of what they take, since a demo may run for days.
        """
        self._keep_bytes = min(self._keep_bytes, _KEPT_BY_THE_WORLD)
        for name, temper in world.tempers().items():
            await self.host(name, temper)
        for domain, weight, mx in world.DOMAINS:
            await self.add(domain, mx=mx, weight=weight)
        for name, rdtype, text in world.records():
            self.dns.add(name, rdtype, text)
        for name, host in world.SHARED_ADDRESSES.items():
            self.dns.add(name, "A", self.exchange(host).address)
        for domain, policy in world.POLICIES.items():
            await self.policy(domain, policy)
        for host, is_right in world.FINGERPRINTS.items():
            self.tlsa(host, self.certificates.tlsa(host if is_right else "somebody.example", "self-signed"))
        for name, fault in world.FAULTS.items():
            self.dns.behave(name, fault)

    async def start(self) -> None:
        """Take a network of its own, start the name server and the policy server; exchanges start as they are added.

        Raises OSError.
        """
        if self._claim is None:
            self._claim = _claim_network()
            self._network = ".".join(self._claim.getsockname()[0].split(".")[:2])
        await self.dns.start()
        await self.policies.start()
        if not self.port:
            with socket.socket() as probe:
                probe.bind((f"{self._network}.0.1", 0))
                self.port = probe.getsockname()[1]

    async def stop(self) -> None:
        """Stop every server and end every connection."""
        for exchange in self.exchanges.values():
            await exchange.stop()
        await self.policies.stop()
        await self.dns.stop()
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _open(self, name: str, temper: Temper) -> Exchange:
        """An exchange on the next address where the port is free."""
        for left in reversed(range(20)):
            self._addresses += 1
            exchange = Exchange(
                name,
                temper,
                clock=self.clock,
                certificates=self.certificates,
                address=f"{self._network}.{self._addresses // 250}.{self._addresses % 250 + 1}",
                port=self.port,
                patience=self._patience,
                keep_messages=self._keep_messages,
                keep_bytes=self._keep_bytes,
                bell=self._bell,
            )
            try:
                await exchange.start()
            except OSError:
                if not left:
                    raise
            else:
                break
        return exchange


def _claim_network() -> socket.socket:
    """Take a network that no other sandbox of this machine has; it is free again when the socket closes.

    Raises OSError.
    """
    first = os.getpid() % len(_NETWORKS)
    for number in (*_NETWORKS[first:], *_NETWORKS[:first]):
        claim = socket.socket()
        try:
            claim.bind((f"127.{number}{_CLAIMED_BY}", _CLAIM_PORT))
        except OSError as error:
            claim.close()
            last = error
        else:
            return claim
    raise OSError(last.errno, f"no network of 127.0.0.0/8 is free for a sandbox: {last.strerror}")
