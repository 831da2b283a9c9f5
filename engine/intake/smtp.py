"""How mail comes in over SMTP: listens, lets sessions in, and stops them in good order."""

import asyncio
import logging
from contextlib import suppress

from engine.clock import Clock
from engine.config import Settings
from engine.intake.errors import IntakeError
from engine.intake.reception import Reception
from engine.intake.session import IDLE, Session
from engine.intake.taker import Taker
from engine.values import Listen

_LOG = logging.getLogger(__name__)

_LAST_WORDS = 2.0  # seconds in which a farewell may go out
_BACKLOG = 512

__all__ = ["IntakeError", "SmtpIntake"]


class SmtpIntake:
    """The SMTP server. It answers 250 to a message only once the queue has it on disk."""

    def __init__(self, queue: Taker, settings: Settings, clock: Clock, *, idle: float = IDLE) -> None:
        self._reception = Reception(queue, settings, clock)
        self._listen = settings.intake.smtp.listen
        self._idle = idle
        self._servers: list[asyncio.Server] = []
        self._sessions: set[Session] = set()

    async def start(self) -> None:
        """Listen at every address of the settings. Raises IntakeError, and then listens at none."""
        # The library tells every line that a client sends to this logger, as it came.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        loop = asyncio.get_running_loop()
        for address in self._listen:
            try:
                server = await loop.create_server(self._session, address.host, address.port, backlog=_BACKLOG)
            except OSError as error:
                await self.stop(0)
                raise IntakeError(f"cannot listen on {address}: {error.strerror or error}") from error
            self._servers.append(server)

    async def stop(self, drain: float) -> None:
        """Take no more sessions, end the idle ones, and give those with a message up to `drain` seconds."""
        self._reception.closing = True
        for server in self._servers:
            server.close()
        for session in self._sessions.copy():
            if not session.reading:
                session.close(self._farewell)
        await self._until_empty(drain)
        await self._reception.finish(drain)
        for session in self._sessions.copy():
            session.close(self._farewell)
        await self._until_empty(_LAST_WORDS if drain else 0.0)
        for session in self._sessions.copy():
            session.abort()
        for server in self._servers:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await server.wait_closed()
        self._servers.clear()

    @property
    def addresses(self) -> tuple[Listen, ...]:
        """Where it listens, with the ports the system chose."""
        bound = (socket.getsockname() for server in self._servers for socket in server.sockets)
        return tuple(Listen(str(name[0]), int(name[1])) for name in bound)

    @property
    def sessions(self) -> int:
        """How many clients are connected."""
        return len(self._sessions)

    @property
    def paused(self) -> str:
        """Why no mail is taken, or ""."""
        return self._reception.paused

    def pause(self, why: str) -> None:
        """Answer 452 to new mail until `resume`; transactions that have begun go on."""
        self._reception.paused = why

    def resume(self) -> None:
        """Take mail again."""
        self._reception.paused = ""

    @property
    def _farewell(self) -> str:
        return f"421 4.3.2 {self._reception.hostname} Going down, come again"

    def _session(self) -> asyncio.Protocol:
        if self._reception.closing:
            return _Turned(self._farewell)
        if len(self._sessions) >= self._reception.rules.max_sessions:
            self._reception.refusals.note("smtp", "too many sessions", detail=f"{len(self._sessions)} are open")
            return _Turned(f"421 4.3.2 {self._reception.hostname} Too many sessions, come again")
        return Session(self._reception, self._sessions, idle=self._idle)

    async def _until_empty(self, seconds: float) -> None:
        if self._sessions:
            await asyncio.wait({session.ended for session in self._sessions}, timeout=seconds)


class _Turned(asyncio.Protocol):
    """A client that is turned away with a word."""

    def __init__(self, farewell: str) -> None:
        self._farewell = farewell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"{self._farewell}\r\n".encode())
        transport.close()
