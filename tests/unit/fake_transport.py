"""A session of SMTP intake over a transport of memory: what a client sends in which pieces, and what it is told."""

import asyncio
from typing import Any, cast

from engine.intake.smtp.reception import Reception
from engine.intake.smtp.session import Session
from engine.settings.settings import Settings
from tests.clock import FakeClock
from tests.unit.fake_arrivals import FakeArrivals

TURNS = 40  # of the loop: more than any answer takes that waits for nothing


class FakeTransport(asyncio.Transport):
    """Keeps what is written, each write by itself. `unsent` is what the client has not read, in octets."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.unsent = 0
        self.is_paused = False
        self.was_paused = 0
        self.was_aborted = False
        self.protocol: asyncio.Protocol | None = None
        self._is_closing = False

    def write(self, data: Any) -> None:
        assert not self._is_closing
        assert isinstance(data, bytes)
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused, self.was_paused = True, self.was_paused + 1

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self.unsent:
                self._lose()

    def abort(self) -> None:
        if not self.was_aborted:
            self.was_aborted = self._is_closing = True
            self._lose()

    def _lose(self) -> None:
        assert self.protocol is not None
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Guest:
    """A client of a session that has no socket. `queue` is where its mail goes."""

    def __init__(self, *, queue: FakeArrivals | None = None, known: bool = True, idle: float = 60.0) -> None:
        self.queue = queue or FakeArrivals()
        settings = Settings(hostname="relay.example")
        self.reception = Reception(self.queue, settings, FakeClock())
        self.sessions: set[Session] = set()
        self.session = Session(self.reception, self.sessions, idle=idle)
        self.connection = self.session.connection
        self.transport = FakeTransport()
        self.transport.protocol = self.connection
        self._known = known

    async def come(self, greet: bool = True) -> "Guest":
        """Connect, and greet."""
        self.session.arrive(cast("asyncio.Transport", self.transport), "127.0.0.1", known=self._known)
        self.connection.connection_made(self.transport)
        await turns()
        if greet:
            await self.say(b"EHLO client.example\r\n")
            self.transport.writes.clear()
        return self

    async def say(self, *pieces: bytes) -> list[str]:
        """Send these pieces one after the other, each heard before the next; give the replies since."""
        before = len(self.transport.writes)
        for piece in pieces:
            if self.transport.is_closing():
                break
            self.connection.data_received(piece)
            await asyncio.sleep(0)
        await turns()
        return lines(self.transport.writes[before:])

    async def leave(self) -> None:
        self.transport.abort()
        await turns()

    @property
    def heard(self) -> list[str]:
        return lines(self.transport.writes)


def lines(writes: list[bytes]) -> list[str]:
    said = b"".join(writes).decode("ascii")
    assert not said or said.endswith("\r\n")
    return said.split("\r\n")[:-1]


async def turns(number: int = TURNS) -> None:
    """Let everybody else do what can be done without waiting."""
    for _ in range(number):
        await asyncio.sleep(0)
