"""A door of the control server: a Unix socket with an owner, a group and a bound of who may stand in it at a time.

Two are made of it: the operator's, and one for looking. What is behind a door (an aiohttp application) stays when the
door itself is made anew, because somebody has removed its socket.
"""

import asyncio
import logging
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from engine.base.socket_file import SocketFile
from engine.base.text import clean

MOST_GUESTS = 128  # connections of one door: the streams of events that may be followed, as many again, for asking
HEAD_SECONDS = 30.0  # between the end of one request and the end of the head of the next; a client's own patience is 15
LINGER = 1.0  # seconds in which the rest of a request that was refused is read
TAKE_SECONDS = 20.0  # seconds in which who asked is to read the answer
LINE_LIMIT = 64 * 1024  # bytes of a request line: a filter may be long
MOST_FIELDS = 64  # lines of a request's head

log = logging.getLogger(__name__)


class Door:
    """Listens at `path` once `open` was called, until `close`.

    The socket has mode 0600, or 0660 and the named `group`. A socket left behind is replaced: the caller holds the
    lock of the spool, so no other engine listens there. Whoever connects must send the whole head of a request within
    HEAD_SECONDS, and read an answer within TAKE_SECONDS; where MOST_GUESTS stand in the door, one is turned out for
    each who comes: who has not asked anything yet, or else who has asked nothing for longest.
    """

    def __init__(self, path: Path, group: str, app: web.Application) -> None:
        self.path = path
        self._file = SocketFile(path, group)
        self._app = app
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        # Guests who may be turned out: those who have asked nothing yet, and those who have, each the longest first.
        self._silent: dict[web.RequestHandler, asyncio.Transport] = {}
        self._idle: dict[web.RequestHandler, asyncio.Transport] = {}
        self._taking: dict[web.RequestHandler, asyncio.TimerHandle] = {}  # who may not have read its answer yet

    async def open(self) -> None:
        """Listen. Raises OSError, saying what is in the way, when the socket cannot be made."""
        runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=_http_log(),
            shutdown_timeout=0.5,
            keepalive_timeout=HEAD_SECONDS,
            lingering_time=LINGER,
            max_line_size=LINE_LIMIT,
            max_headers=MOST_FIELDS,
        )
        await runner.setup()
        self._runner = runner
        try:
            await self._listen()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Take no more requests, let those that run end within a second, and take the socket away."""
        self._stop_listening()
        self._file.remove()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        for guest in list(self._taking):
            self._stop_waiting(guest)

    @property
    def is_there(self) -> bool:
        """Whether whoever goes to the path comes to us."""
        return self._server is not None and self._server.is_serving() and self._file.is_ours

    @property
    def note(self) -> str:
        """That as many stand in it as it holds, or ""."""
        server = self._runner.server if self._runner is not None else None
        if server is None or len(server.connections) < MOST_GUESTS:
            return ""
        return f"{self.path.name} has {MOST_GUESTS} connections, as many as it holds: the idlest is ended for each more"

    async def mend(self) -> bool:
        """Where the socket is gone or another stands in its place, listen at the path anew; whether that was so.

        Whoever is in the door stays. Raises OSError.
        """
        if self._runner is None or self.is_there:
            return False
        self._stop_listening()
        await self._listen()
        return True

    def asks(self, request: web.Request) -> None:
        """A request is being answered: who sent it is not turned out meanwhile."""
        for guests in (self._silent, self._idle):
            guests.pop(request.protocol, None)
        if request.transport is not None and not request.transport.get_write_buffer_size():
            self._stop_waiting(request.protocol)  # the last answer was read

    def was_answered(self, request: web.Request) -> None:
        """There is an answer to a request: it is to be read in time, and the next may come.

        Who asks more while an answer waits has no more time for that.
        """
        guest, transport = request.protocol, request.transport
        if transport is None:
            return
        self._idle[guest] = transport
        if guest not in self._taking:
            loop = asyncio.get_running_loop()
            self._taking[guest] = loop.call_later(TAKE_SECONDS, self._end_the_deaf, guest, transport)

    def _end_the_deaf(self, guest: web.RequestHandler, transport: asyncio.Transport) -> None:
        """The time to read an answer is over."""
        self._taking.pop(guest, None)
        if waiting := transport.get_write_buffer_size():
            log.info("control: a guest did not read its answer in time, %d octets were left: it is ended", waiting)
            transport.abort()

    def _stop_waiting(self, guest: web.RequestHandler) -> None:
        timer = self._taking.pop(guest, None)
        if timer is not None:
            timer.cancel()

    async def _listen(self) -> None:
        listening = self._file.bind()
        self._server = await asyncio.get_running_loop().create_unix_server(self._let_in, sock=listening)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    # -- who comes ------------------------------------------------------------------------------------------------

    def _let_in(self) -> asyncio.BaseProtocol:
        return _Doorkeeper(self)

    def arrives(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        server = self._runner.server if self._runner is not None else None
        if server is None:
            transport.abort()
            return
        inside = set(server.connections)
        for guests in (self._silent, self._idle):
            for gone in [guest for guest in guests if guest not in inside]:
                del guests[gone]
        if len(inside) >= MOST_GUESTS and not self._turn_one_out():
            transport.abort()
            return
        handler = server()
        self._silent[handler] = transport
        transport.set_protocol(handler)
        handler.connection_made(transport)

    def _turn_one_out(self) -> bool:
        """End one over which nothing is being answered; False where there is none."""
        guests = self._silent or self._idle
        if not guests:
            return False
        guests.pop(next(iter(guests))).abort()
        return True


class _Doorkeeper(asyncio.Protocol):
    """Meets a client that has just come."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._door.arrives(cast("asyncio.Transport", transport))  # uvloop's are no instances of this class


class _NotHttp(logging.Filter):
    """That somebody's request is no HTTP is no fault of ours: told in a line, for who looks for it."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
            return True
        log.debug("control: a malformed request: %s", clean(str(error), 200))
        return False


def _http_log() -> logging.Logger:
    """The log of what the HTTP server meets beneath our routes."""
    log = logging.getLogger(f"{__name__}.http")
    if not log.filters:
        log.addFilter(_NotHttp())
    return log
