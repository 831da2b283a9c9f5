"""Those who look and those who act: consoles that poll every view, and an operator who does what comes to his mind."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from engine.control.client import Client, EngineUnreachable, Refused
from engine.model.verbs import (
    Bounce,
    Check,
    Close,
    Drop,
    Hold,
    HoldRule,
    MailAsk,
    MarkBad,
    MarkGood,
    Override,
    Release,
    Resume,
    Retry,
    Suspend,
    Undo,
)
from tests.bench.soak import world
from tests.bench.soak.ledger import Ledger
from tests.bench.soak.world import Relay

LONGEST = 10.0  # seconds a view may take
EVERY = 2.0  # seconds between two rounds through all views
ACTS_EVERY = 4.0
EVENTS_AT_ONCE = 1000

VIEWS = (
    "/metrics", "/v1/health", "/v1/overview", "/v1/overview?destinations=1000&events=1000", "/v1/queue",
    "/v1/queue?filter=state%3Dheld&sort=-size&limit=200", "/v1/queue?filter=reply~4&sort=due&limit=1000",
    "/v1/destinations", "/v1/destinations?match=silent&sort=-oldest&limit=1000", "/v1/destinations/good0.example",
    "/v1/destinations/tar0.example", "/v1/relayers?ended=100", "/v1/hosts", "/v1/reasons", "/v1/suspensions",
    "/v1/overrides", "/v1/explain/tar1.example", "/v1/explain/x@good1.example", "/v1/events?limit=1000",
    "/v1/events?match=returned&limit=100", "/v1/nodes", "/v1/suppressed?match=example&limit=1000",
)  # fmt: skip
OF_THE_MOMENT = (
    "/v1/messages/{}",
    "/v1/operations/{}",
    "/v1/relayers/{}",
    "/v1/hosts/{}",
)  # and what follows the events, all the time
FOLLOWED = "/v1/events/follow"


class Consoles:
    """Polls all views, follows the events twice over (the stream, and by number for the ledger)."""

    def __init__(self, relay: Relay, ledger: Ledger) -> None:
        self.asked = 0
        self.longest: tuple[float, str] = (0.0, "")
        self.wrong: list[str] = []
        self.followed = 0
        self._relay = relay
        self._ledger = ledger

    def tasks(self, *, polling: bool = True) -> list[asyncio.Task[None]]:
        """Begin; they end when they are cancelled. Without `polling` nobody looks, but the books are kept."""
        runs = [self._poll(), self._follow()] if polling else []
        return [asyncio.create_task(run) for run in (self._keep_books(), *runs)]

    async def _poll(self) -> None:
        connector = aiohttp.UnixConnector(path=str(self._relay.control_socket))
        timeout = aiohttp.ClientTimeout(total=3 * LONGEST)
        async with aiohttp.ClientSession("http://relay", connector=connector, timeout=timeout) as session:
            while True:
                for path in (*VIEWS, *await self._of_the_moment()):
                    await self._ask(session, path)
                await asyncio.sleep(EVERY)

    async def _of_the_moment(self) -> list[str]:
        """Views of what is there now: the newest message, a relayer, an order."""
        message, operation, relayer, host = OF_THE_MOMENT
        found = [message.format(max(1, self._ledger.newest)), operation.format(max(1, self._ledger.newest // 100))]
        with suppress(EngineUnreachable, Refused):
            async with self._relay.client() as client:
                found += [relayer.format(one.id) for one in (await client.relayers())[:2]]
                found += [host.format(one.host) for one in (await client.hosts(limit=1)).rows]
        return found

    async def _ask(self, session: aiohttp.ClientSession, path: str) -> None:
        begin = time.monotonic()
        try:
            async with session.get(path) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.wrong.append(f"{path}: {type(error).__name__}")
            return
        self.asked += 1
        took = time.monotonic() - begin
        self.longest = max(self.longest, (took, path))
        gone = status == 404 and path.startswith(tuple(one.format("") for one in OF_THE_MOMENT))
        if status != 200 and not gone:
            self.wrong.append(f"{path}: {status}")
        if took > LONGEST:
            self.wrong.append(f"{path}: {took:.1f} s")

    async def _follow(self) -> None:
        while True:
            with suppress(EngineUnreachable):
                async with Client(self._relay.control_socket) as client:
                    async for _ in client.follow():
                        self.followed += 1
            await asyncio.sleep(1.0)

    async def _keep_books(self) -> None:
        while True:
            try:
                async with self._relay.client() as client:
                    while events := await client.events(after=self._ledger.seq, limit=EVENTS_AT_ONCE):
                        self._ledger.happened(events)
            except (EngineUnreachable, Refused) as error:
                self.wrong.append(f"events: {error}")
            await asyncio.sleep(1.0)


class Operator:
    """Acts on mail that is not measured: for that of healthy domains there is no reason to act."""

    def __init__(self, relay: Relay, draw: random.Random) -> None:
        self.done = self.refused = 0
        self._relay = relay
        self._draw = draw

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin; it ends when it is cancelled."""
        return [asyncio.create_task(self._act())]

    async def _act(self) -> None:
        acts: list[tuple[Callable[[Client], Awaitable[object]], int]] = [
            (self._on_messages, 10), (self._suspend, 2), (self._mark, 2), (self._override, 1), (self._close, 2),
            (self._rule, 1), (lambda client: client.ask(Check()), 1),
        ]  # fmt: skip
        while True:
            (act,) = self._draw.choices([act for act, _ in acts], [share for _, share in acts])
            try:
                async with self._relay.client() as client:
                    await act(client)
                self.done += 1
            except (EngineUnreachable, Refused, IndexError):
                self.refused += 1
            await asyncio.sleep(ACTS_EVERY * 2 * self._draw.random())

    def _domain(self) -> str:
        return self._draw.choice((*world.GREY, *world.REFUSING, *world.FAILING, *world.FLAKY, *world.TARRED))

    async def _on_messages(self, client: Client) -> None:
        silent = f"domain=d{self._draw.randrange(900)}.{world.SILENT}"
        named = self._draw.choice((f"domain={self._domain()}", silent, f"domain~tar{self._draw.randrange(10)}"))
        is_now = self._draw.random() < 0.5
        acts: list[MailAsk] = [
            Retry(filter=named), Retry(filter=named), Hold(filter=named, note="soak"), Release(filter=named),
            Release(filter=named), Bounce(filter=named, now=is_now), Drop(filter=named, now=is_now),
        ]  # fmt: skip
        result = await client.ask(self._draw.choice(acts))
        if result.undo_until and self._draw.random() < 0.3:
            await client.ask(Undo(operation=result.operation))

    async def _suspend(self, client: Client) -> None:
        domain = self._domain()
        await client.ask(Suspend(destination=domain, seconds=60.0, note="soak"))
        if self._draw.random() < 0.5:
            await client.ask(Resume(destination=domain))

    async def _mark(self, client: Client) -> None:
        host = f"mx.{self._domain()}"
        await client.ask(MarkBad(host=host, seconds=60.0, note="soak"))
        if self._draw.random() < 0.5:
            await client.ask(MarkGood(host=host))

    async def _override(self, client: Client) -> None:
        domain = self._draw.choice(world.TARRED)
        to = f"mx.{self._draw.choice(world.GREY)}"
        await client.ask(Override(destination=domain, to=to, seconds=60.0, note="soak"))

    async def _rule(self, client: Client) -> None:
        await client.ask(HoldRule(filter=f"domain={self._domain()}", seconds=60.0, note="soak"))

    async def _close(self, client: Client) -> None:
        others = [one for one in await client.relayers() if one.destination not in world.HEALTHY]
        await client.ask(Close(relayer=self._draw.choice(others).id))
