"""Those who only want to be in the way: at every door, from addresses that nobody knows, and from one that may send."""

import asyncio
import random
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tests.bench.soak.world import STRANGERS, Relay

IDLE = 60  # connections that say nothing
HALF = 20  # that stop in the middle of a command, a handshake or a list of recipients
GUESSING = 3  # that try one password after the other
HELD_BACK = 4  # messages of one who may send, each stopped short of its end
HELD_BYTES = 4 * 2**20  # of each of these
_HOLD = 30.0  # seconds that most hold their connection
_PAUSE = 1.0

_HALVES = (
    b"",
    b"EHLO",
    b"EHLO x.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<",
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
)


class Strangers:
    """All of them. `let_in` counts connections that were taken, `turned_away` those that were not, or were ended."""

    def __init__(self, relay: Relay, draw: random.Random) -> None:
        self.let_in = self.turned_away = self.guesses = 0
        self.stopping = False
        self._relay = relay
        self._draw = draw
        self._anybody = ssl.create_default_context()
        self._anybody.check_hostname, self._anybody.verify_mode = False, ssl.CERT_NONE

    def tasks(self) -> list[asyncio.Task[None]]:
        """Begin; they end soon after `stopping` is set, or when they are cancelled."""
        who: list[tuple[Callable[[int], Awaitable[None]], int]] = [
            (self._idle, IDLE), (self._half, HALF), (self._guess, GUESSING), (self._hold_back, HELD_BACK)
        ]  # fmt: skip
        return [asyncio.create_task(self._again(one, number)) for one, many in who for number in range(many)]

    async def _again(self, one: Callable[[int], Awaitable[None]], number: int) -> None:
        await asyncio.sleep(self._draw.random() * 5)
        while not self.stopping:
            with suppress(OSError, EOFError, TimeoutError, ssl.SSLError):
                await one(number)
            await asyncio.sleep(_PAUSE)

    async def _idle(self, number: int) -> None:
        door = (self._relay.port, self._relay.submission, self._relay.submission_tls)[number % 3]
        await self._with(door, number, b"")

    async def _half(self, number: int) -> None:
        door = (self._relay.port, self._relay.submission, self._relay.submission_tls)[number % 3]
        await self._with(door, number, self._draw.choice(_HALVES))

    async def _hold_back(self, number: int) -> None:
        """One who may send begins a message, and does not end it."""
        begun = b"EHLO x.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@good0.example>\r\nDATA\r\n"
        await self._with(self._relay.port, number, begun, then=b"x" * 76 + b"\r\n", source="127.0.0.1")

    async def _with(self, door: int, number: int, say: bytes, *, then: bytes = b"", source: str = "") -> None:
        address = source or f"{STRANGERS}.{number % 250 + 1}"
        reader, writer = await asyncio.open_connection("127.0.0.1", door, local_addr=(address, 0))
        self.let_in += 1
        try:
            for line in say.splitlines(keepends=True):
                async with asyncio.timeout(_HOLD):
                    if door != self._relay.submission_tls and not await reader.readline():
                        return
                    writer.write(line)
                    await writer.drain()
            while then and not (await reader.readline()).startswith((b"354", b"4", b"5")):
                pass
            for _ in range(HELD_BYTES // (len(then) * 500) if then else 0):
                writer.write(then * 500)
                async with asyncio.timeout(_HOLD):
                    await writer.drain()
            with suppress(TimeoutError):
                async with asyncio.timeout(_HOLD):
                    while await reader.read(4096):
                        pass
                    self.turned_away += 1
        finally:
            writer.transport.abort()

    async def _guess(self, number: int) -> None:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._relay.submission_tls, local_addr=(f"{STRANGERS}.{number + 200}", 0), ssl=self._anybody
        )
        self.let_in += 1
        try:
            writer.write(b"EHLO x.example\r\n")
            while not self.stopping:
                secret = b64encode(f"\0ann\0guess{self._draw.random()}".encode())
                writer.write(b"AUTH PLAIN " + secret + b"\r\n")
                self.guesses += 1
                async with asyncio.timeout(_HOLD):
                    if not await _answered(reader, (b"5", b"4")):
                        self.turned_away += 1
                        return
        finally:
            writer.transport.abort()


async def _answered(reader: asyncio.StreamReader, first: tuple[bytes, ...]) -> bool:
    """Read until a reply that begins so; False at the end of the connection."""
    while line := await reader.readline():
        if line.startswith(first):
            return not line.startswith(b"421")
    return False
