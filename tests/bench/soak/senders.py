"""Those who hand the relay mail: over connections that stay open, with a login, and through the drop folder."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import aiosmtplib
from msgspec import Struct

from engine.control.client import EngineUnreachable, Refused
from tests.bench.soak import world
from tests.bench.soak.ledger import Ledger
from tests.bench.soak.world import Relay, World, marked
from tests.smtp import NAME, smtp_client

CONNECTIONS = 4
MOST_AT_ONCE = 50  # recipients of one letter, but for those at the silent domains
LARGE = 3 * 2**20  # bytes at the most
BEHIND = 2.0  # seconds that may be caught up with
PAUSE = 0.5  # seconds before a lost connection is opened anew
SILENT_EVERY = 60.0  # seconds
WAITING_AT_ONCE = 100  # recipients of one letter that is to wait
WAITING_EVERY = 0.5  # seconds between two of them, as long as too little waits
DROP_EVERY = 1.0
LOGIN_EVERY = 5.0
_TIMEOUT = 60.0

# What a letter is to, and how many of a hundred are.
_SHARES: tuple[tuple[Sequence[str], int], ...] = (
    (world.HEALTHY, 74),
    (world.GREY, 8),
    (world.REFUSING, 5),
    (world.FAILING, 6),
    (world.FLAKY, 3),
    (world.TARRED, 4),
)


class Letter(Struct, frozen=True):
    """One message, its recipients each with an address that no other has, and those of them at healthy domains."""

    sender: str
    recipients: tuple[str, ...]
    healthy: tuple[str, ...]
    content: bytes


class Senders:
    """All of them. `refused` letters got another answer than 250; of `unknown` ones the answer never came.

    `took` are the seconds that each letter took from its MAIL to its 250. `logins` counts how often somebody came to
    send with the login that strangers guess at, and `shut_out` how often nothing came of it.
    """

    def __init__(
        self, relay: Relay, made: World, ledger: Ledger, draw: random.Random, *, rate: float, waiting: int,
        without: frozenset[str],
    ) -> None:  # fmt: skip
        self.sent = self.refused = self.unknown = self.logins = self.shut_out = 0
        self.took: list[float] = []
        self.stopping = False
        self._relay = relay
        self._world = made
        self._ledger = ledger
        self._draw = draw
        self._rate = rate
        self._waiting = waiting
        self._without = without
        self._number = 0
        self._noise = draw.randbytes(48 * 1024).hex().encode()  # 96 KiB without line ends

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin; they end soon after `stopping` is set."""
        runs = [self._connection() for _ in range(CONNECTIONS)] + [self._logged_in(), self._drop()]
        if "silent" not in self._without:
            runs.append(self._to_the_silent())
        if self._waiting:
            runs.append(self._to_who_takes_nothing())
        return [asyncio.create_task(run) for run in runs]

    # -- who sends --------------------------------------------------------------------------------------------------

    async def _connection(self) -> None:
        """A program that sends at its share of the rate for as long as it likes."""
        due = time.monotonic()
        while not self.stopping:
            try:
                async with self._client() as client:
                    while not self.stopping:
                        await self._send(client, self._letter())
                        due = max(due + CONNECTIONS / self._rate, time.monotonic() - BEHIND)
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
            except (aiosmtplib.SMTPException, OSError):
                await asyncio.sleep(PAUSE)

    async def _logged_in(self) -> None:
        """A user who logs in anew for each letter, from an address of his own."""
        while not self.stopping:
            self.logins += 1
            try:
                async with aiosmtplib.SMTP(
                    hostname="127.0.0.1", port=self._relay.submission_tls, use_tls=True,
                    tls_context=self._relay.keys.client, source_address=("127.0.7.1", 0),
                    username=world.LOGIN, password=world.PASSWORD, timeout=_TIMEOUT, local_hostname=NAME,
                ) as client:  # fmt: skip
                    await self._send(client, self._written((self._address(self._draw.choice(world.HEALTHY)),), 2000))
            except (aiosmtplib.SMTPException, OSError):
                self.shut_out += 1
            await asyncio.sleep(LOGIN_EVERY)

    async def _to_the_silent(self) -> None:
        """The one letter in a while that would stop everything."""
        while not self.stopping:
            recipients = tuple(self._address(domain) for domain in self._world.silent_domains())
            try:
                async with self._client() as client:
                    await self._send(client, self._written(recipients, 1000))
            except (aiosmtplib.SMTPException, OSError):
                continue
            for _ in range(int(SILENT_EVERY)):
                if not self.stopping:
                    await asyncio.sleep(1.0)

    async def _to_who_takes_nothing(self) -> None:
        """Mail that waits until it is given up, as much as is to wait."""
        while not self.stopping:
            await asyncio.sleep(WAITING_EVERY)
            try:
                async with self._relay.client() as console:
                    if (await console.health()).waiting >= self._waiting:
                        continue
                domain = self._draw.choice(world.WAITING)
                async with self._client() as client:
                    recipients = tuple(self._address(domain) for _ in range(WAITING_AT_ONCE))
                    await self._send(client, self._written(recipients, 2000))
            except (EngineUnreachable, Refused, aiosmtplib.SMTPException, OSError):
                await asyncio.sleep(PAUSE)

    async def _drop(self) -> None:
        """A program that moves files into the folder; one that has left it was taken."""
        folder, beside = self._relay.spool / "drop", self._relay.spool.parent
        lying: dict[Path, Letter] = {}
        while not self.stopping or lying:
            for path in [path for path in lying if not path.exists()]:
                letter = lying.pop(path)
                if not (folder / "failed" / path.name).exists():
                    self._ledger.yes(letter.sender, letter.recipients, time.time())
            if not self.stopping:
                letter = self._written((self._address(self._draw.choice(world.HEALTHY)),), self._draw.randrange(40_000))
                head = f"X-Envelope-From: {letter.sender}\r\nX-Envelope-To: {', '.join(letter.recipients)}\r\n"
                written = beside / "written"
                written.write_bytes(head.encode() + letter.content)
                lying[written.rename(folder / f"{letter.sender}.eml")] = letter
            await asyncio.sleep(DROP_EVERY)

    # -- letters ----------------------------------------------------------------------------------------------------

    def _client(self) -> aiosmtplib.SMTP:
        return smtp_client(self._relay.port, timeout=_TIMEOUT)

    def _letter(self) -> Letter:
        """One as they come: mostly short, mostly to one."""
        draw = self._draw
        (domains,) = draw.choices([domains for domains, _ in _SHARES], [share for _, share in _SHARES])
        if domains is world.TARRED and "tarpits" in self._without:
            domains = world.HEALTHY
        kind = draw.random()
        if kind < 0.05:  # a list, of those who are well and those who put it off
            recipients = tuple(self._address(draw.choice(world.HEALTHY + world.GREY)) for _ in range(MOST_AT_ONCE))
            return self._written(recipients, 4000)
        size = draw.randrange(LARGE) if kind < 0.06 else draw.randrange(500, 16_000)
        return self._written((self._address(draw.choice(domains)),), size)

    def _address(self, domain: str) -> str:
        self._number += 1
        who = world.UNKNOWN if domain == world.REFUSING[1] and self._number % 2 else "n"
        return f"{who}{self._number}@{domain}"

    def _written(self, recipients: tuple[str, ...], size: int) -> Letter:
        self._number += 1
        line = self._draw.randrange(1000)
        lines = [self._noise[start : start + 76] for start in range(line, line + size, 76)]
        body = b"\r\n".join(each or b"." for each in lines) + b"\r\n.leading dot\r\n"
        while len(body) < size:
            body += body[: size - len(body)]
        body = body.rstrip(b"\r\n") + b"\r\n"
        healthy = tuple(one for one in recipients if one.rpartition("@")[2] in world.HEALTHY)
        return Letter(f"s{self._number}@{world.SENDERS}", recipients, healthy, marked(body))

    async def _send(self, client: aiosmtplib.SMTP, letter: Letter) -> None:
        """Hand over one letter, and note the answer. Raises what ends the connection."""
        begin = time.monotonic()
        try:
            refused, _ = await client.sendmail(letter.sender, list(letter.recipients), letter.content)
        except aiosmtplib.SMTPResponseException as error:
            self.refused += 1
            if error.code == 421 or not client.is_connected:
                raise
            await client.rset()
            return
        except aiosmtplib.SMTPRecipientsRefused:
            self.refused += 1
            return
        except (aiosmtplib.SMTPException, OSError):
            self.unknown += 1
            raise
        self.sent += 1
        self.took.append(time.monotonic() - begin)
        taken = [one for one in letter.recipients if one not in refused]
        self._ledger.yes(letter.sender, taken, time.time(), healthy=letter.healthy)
