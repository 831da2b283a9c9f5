"""The internet the soak relays in, and the settings of the relay in it."""

import zlib
from pathlib import Path

from engine.base.clock import SystemClock
from engine.sandbox.exchanges import Action, Delivery, Exchange, Session, Temper
from engine.sandbox.internet import Internet
from engine.sandbox.names import Fault
from engine.sandbox.tempers import (
    Dead,
    Encrypted,
    Greylisting,
    Healthy,
    RateLimiting,
    Refusing,
    Script,
    Slow,
    Tarpit,
    TemporarilyFailing,
)
from tests.bench.soak.ledger import Ledger
from tests.scenarios.submitting import Keys
from tests.serving import Served, free_port

SENDERS = "source.example"
SILENT = "silent.example"
SILENT_AT_ONCE = 300  # recipients of one message, each at a subdomain of its own
TARPITS = 20
ENOUGH = 10  # messages an exchange keeps: what came is in the ledger

HEALTHY = tuple(f"good{number}.example" for number in range(8))
GREY = tuple(f"grey{number}.example" for number in range(3))
REFUSING = ("closed.example", "half-closed.example")
FAILING = ("full.example", "rushed.example", "dead.example", "slow.example")
FLAKY = tuple(f"hiccup{number}.example" for number in range(6))
TARRED = tuple(f"tar{number}.example" for number in range(TARPITS))
# Where mail waits that nobody takes: half of them cannot be reached, half put every recipient off.
WAITING = tuple(f"wait{number}.example" for number in range(40))

STRANGERS = "127.0.5"  # their addresses: loopback, but nobody we relay for
KNOWN = "127.0.0.1/32"
UNKNOWN = "nobody"  # how the local parts begin that one of the refusing domains does not know
LOGIN, PASSWORD = "ann", "secret"


class _Hiccup(Temper):
    """Hangs up at the end of every third message, which it has taken or not."""

    def __init__(self, *, delivers: bool) -> None:
        self._delivers = delivers
        self._count = 0

    async def reply(self, session: Session, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "content":
            self._count += 1
            if self._count % 3 == 0:
                if self._delivers:
                    session.deliver()
                return Action.DROP
        return await super().reply(session, verb, argument)


def internet() -> Internet:
    """One that keeps next to nothing of what it takes."""
    return Internet(clock=SystemClock(), keep_messages=ENOUGH, keep_bytes=64 * 1024)


class _HalfClosed(Temper):
    """Knows some of its users."""

    async def reply(self, session: Session, verb: str, argument: str) -> str | bytes | Action | None:
        if verb == "RCPT" and f"<{UNKNOWN}" in argument:
            return "550 5.1.1 no such user"
        return await super().reply(session, verb, argument)


class World:
    """The internet, populated; each delivery is written into the ledger."""

    def __init__(self, internet: Internet, ledger: Ledger) -> None:
        self.internet = internet
        self._ledger = ledger
        self._silent = 0

    async def populate(self) -> None:
        """Make all domains with their exchanges."""
        for number, domain in enumerate(HEALTHY):
            await self._add(domain, Encrypted("self-signed") if number % 4 == 3 else Healthy())
        await self._add(SENDERS, Healthy())
        for domain in GREY:
            await self._add(domain, Greylisting(20.0))
        await self._add(REFUSING[0], Refusing())
        await self._add(REFUSING[1], _HalfClosed())
        tempers: tuple[Temper, ...] = (TemporarilyFailing(0.6), RateLimiting(20, 30.0), Dead(), Slow(1.0))
        for domain, temper in zip(FAILING, tempers, strict=True):
            await self._add(domain, temper)
        for number, domain in enumerate(FLAKY):
            await self._add(domain, _Hiccup(delivers=number % 3 > 0))
        for domain in TARRED:
            await self._add(domain, Tarpit(10.0))
        for number, domain in enumerate(WAITING):
            await self._add(domain, Script({"RCPT": "450 4.2.1 come back later"}) if number % 2 else Dead())

    def silent_domains(self) -> list[str]:
        """Subdomains that nobody was asked for yet, of the domain whose name server does not answer."""
        names = [f"d{self._silent + number}.{SILENT}" for number in range(SILENT_AT_ONCE)]
        self._silent += len(names)
        for name in names:
            self.internet.dns.behave(name, Fault.SILENT)
        return names

    async def _add(self, domain: str, temper: Temper) -> None:
        (exchange,) = await self.internet.add(domain, mx=[(10, f"mx.{domain}", temper)])
        self._listen(exchange)

    def _listen(self, exchange: Exchange) -> None:
        keep = exchange.keep

        def keep_and_tell(delivery: Delivery) -> None:
            keep(delivery)
            self._ledger.taken(delivery.recipients, delivery.at, _is_whole(delivery.content))

        exchange.keep = keep_and_tell  # type: ignore[method-assign]


def marked(body: bytes) -> bytes:
    """A message with this body, whose header says what the body must be when it arrives."""
    return (
        b"From: ann@source.example\r\nSubject: soak\r\nX-Soak: %08x\r\nMIME-Version: 1.0\r\n\r\n" % zlib.crc32(body)
    ) + body


def _is_whole(content: bytes) -> bool:
    """Whether the body is the one its header speaks of. What the relay writes itself has no such mark."""
    head, _, body = content.partition(b"\r\n\r\n")
    _, found, rest = head.partition(b"\r\nX-Soak: ")
    return not found or int(rest[:8], 16) == zlib.crc32(body)


class Relay(Served):
    """The engine's process, with three doors and people who have to wait less than a postmaster would like.

    `store` is the database its queue is in; "": the file in its spool.
    """

    def __init__(self, folder: Path, internet: Internet, store: str) -> None:
        self.keys = Keys(folder)
        self.keys.file.name_senders(LOGIN, [f"*@{SENDERS}"])
        self.keys.client.check_hostname = False  # it is for localhost, and asked for by an address
        self.submission, self.submission_tls = free_port(), free_port()
        super().__init__(
            folder,
            internet.nameserver,
            internet.port,
            f"""
bad_mx_timeout = "2m"
[intake.submission]
listen = ["127.0.0.1:{self.submission}"]
listen_tls = ["127.0.0.1:{self.submission_tls}"]
certificate = "{self.keys.certificate}"
key = "{self.keys.key}"
users = "{self.keys.users}"
[intake.limits]
exempt_networks = ["{KNOWN}"]
[retry]
schedule = ["15s", "30s", "1m", "2m"]
give_up_after = "8m"
[dsn]
delay_notice = "4m"
{f'[queue]{chr(10)}store = "{store}"' if store else ""}
""",
        )
        usual = self.settings.read_text().replace('check_interval = "1s"\n', "")
        heading = "[intake.smtp]\n"
        assert heading in usual
        self.settings.write_text(usual.replace(heading, f'{heading}relay_networks = ["{KNOWN}"]\n'))

    @property
    def pid(self) -> int:
        """The engine's process."""
        assert self.process is not None
        return self.process.pid
