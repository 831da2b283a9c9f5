"""An engine in the middle of a sandbox internet, for scenarios: real sockets, real DNS, a clock moved by hand."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.control.client import Client
from engine.engine import Engine
from engine.model.event import Event
from engine.model.filter import Filter
from engine.model.message import Entry, NewMessage
from engine.queue.sqlite.store import SqliteQueue
from engine.sandbox.internet import Internet
from engine.settings.kinds import Complete, Network, Unsigned
from engine.settings.settings import (
    Delivery,
    DkimKey,
    DkimSigning,
    Dns,
    Dsn,
    Intake,
    Limit,
    Listen,
    Log,
    Nameserver,
    QueueStore,
    Retry,
    Rewrite,
    Route,
    Settings,
    Smtp,
    Suppression,
    Timeouts,
    TlsRules,
)
from tests.clock import FakeClock
from tests.smtp import smtp_client
from tests.store import store_of

DRAIN = 0.3  # seconds: enough for any peer but those that keep us waiting on purpose
QUICK = Timeouts(connect=2, greeting=1, hello=1, tls=2, mail=2, rcpt=2, data=2, block=2, reply=2, quit=1, attempt=10)
LETTER = b"From: ann@example.com\r\nTo: bob@example.org\r\nSubject: hello\r\n\r\nHow are you?\r\n"


class Relay:
    """A running engine, its clock, and the ways a test speaks to it."""

    def __init__(self, engine: Engine, clock: FakeClock, client: Client, internet: Internet, spool: Path) -> None:
        self.engine = engine
        self.clock = clock
        self.client = client
        self.internet = internet
        self.spool = spool

    @property
    def sqlite(self) -> SqliteQueue:
        """The store, for those who look into it; a test that does has no meaning with another."""
        if not isinstance(self.engine.queue, SqliteQueue):
            pytest.skip("it looks into the store in SQLite")
        return self.engine.queue

    async def send(
        self,
        *recipients: str,
        sender: str = "ann@example.com",
        content: bytes = LETTER,
        times: int = 1,
        mail: Sequence[str] = (),
        rcpt: Sequence[str] = (),
    ) -> None:
        """Hand the relay mail over SMTP; every one is answered with 250 or this raises.

        `mail` and `rcpt` are parameters of these commands.
        """
        door = self.engine.smtp.addresses[0]
        async with smtp_client(door.port, door.host) as smtp:
            for _ in range(times):
                await smtp.sendmail(sender, list(recipients), content, mail_options=mail, rcpt_options=rcpt)

    async def enqueue(self, message: NewMessage) -> int:
        """Hand mail in as every way in does: it is in the queue, and the smart host is told; give its number."""
        number = await self.engine.queue.arrivals.enqueue(message)
        self.engine.smarthost.wake()
        return number

    async def settled(self) -> None:
        """Wait until nothing is due that may go, and no connection is open."""
        smarthost = self.engine.smarthost
        for _ in range(100):
            check = await smarthost.check_state()
            if live := list(smarthost._live.values()):
                await asyncio.wait(live)
            # A relayer that ended while this check ran may have left something to do.
            elif not check.relayers and not smarthost._woken.is_set() and not smarthost._checks:
                return
        raise AssertionError("the relay does not come to rest")

    async def later(self, seconds: float) -> None:
        """Move the clock, and let what falls due be done."""
        await self.clock.advance(seconds)
        await self.settled()

    async def bounds(self) -> list[str]:
        """The bounds that health says are reached; what it notes of the settings is left out."""
        return [note for note in (await self.client.health()).notes if not note.startswith("dsn.postmaster: not set")]

    async def entries(self, filter: str = "") -> Sequence[Entry]:
        return (await self.engine.queue.listing.window(Filter.parse(filter), "id", 0, 1000)).rows

    async def events(self, *kinds: str) -> list[Event]:
        every = await self.engine.queue.listing.events(limit=1000)
        return [event for event in every if not kinds or event.kind in kinds]


@asynccontextmanager
async def relaying(
    internet: Internet,
    *,
    clock: FakeClock,
    route: tuple[Route, ...] = (),
    limit: tuple[Limit, ...] = (),
    retry: Retry | None = None,
    dsn: Dsn | None = None,
    spool: Path | None = None,
    timeouts: Timeouts = QUICK,
    tls: TlsRules | None = None,
    dkim: tuple[DkimKey, ...] = (),
    unsigned: Unsigned = "refuse",
    validating: bool = False,
    hostname: str = "relay.example.net",
    listen: tuple[Listen, ...] = (Listen("127.0.0.1", 0),),
    queue: QueueStore | None = None,
    log: Log | None = None,
    rewrite: tuple[Rewrite, ...] = (),
    complete: Complete = "logins",
    relay_networks: tuple[Network, ...] | None = None,
    suppression: Suppression | None = None,
    **delivery: Any,
) -> AsyncIterator[Relay]:
    """Run an engine whose mail goes into `internet`. Further keywords are settings of [delivery]."""
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        path = spool or Path(folder) / "spool"
        host, _, port = internet.nameserver.rpartition(":")
        smtp = Smtp(listen=listen)
        if relay_networks is not None:
            smtp = replace(smtp, relay_networks=relay_networks)
        settings = Settings(
            hostname=hostname,
            spool=path,
            intake=Intake(smtp=smtp, complete=complete),
            rewrite=rewrite,
            dns=Dns(nameservers=(Nameserver(host, int(port)),), validating=validating),
            # Idle connections wait by the clock, which stands still: a test that wants them says so.
            delivery=replace(
                Delivery(port=internet.port, timeouts=timeouts, idle=0.0, loopback_exchanges=True), **delivery
            ),
            route=route,
            limit=limit,
            tls=tls or TlsRules(),
            dkim=dkim,
            dkim_signing=DkimSigning(unsigned=unsigned),
            retry=retry or Retry(),
            dsn=dsn or Dsn(),
            queue=queue or await store_of(path),
            log=log or Log(),
            suppression=suppression or Suppression(),
        )
        engine = Engine(settings, clock=clock, draw=random.Random(1), https_port=internet.policies.port)
        await engine.start()
        engine.floor.free = lambda folder: 2**40  # bytes: what this machine has is no part of any scenario
        try:
            async with Client(path / "control.sock") as client:
                yield Relay(engine, clock, client, internet, path)
        finally:
            await engine.stop(drain=DRAIN)
