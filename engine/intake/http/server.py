"""The door for HTTP from the network: `POST /v1/messages` with a token, under TLS or from this machine alone."""

import asyncio
import logging
from collections import Counter as Count
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from ssl import SSLContext
from typing import Any

import msgspec
from aiohttp import web

from engine.base.text import clean
from engine.intake.errors import IntakeError
from engine.intake.http.counter import Counter
from engine.intake.http.problem import Problem
from engine.intake.http.tokens import Token, Tokens
from engine.intake.smtp.limits import address_key, lies_in
from engine.intake.smtp.tls import HANDSHAKE, SHUTDOWN, context_of
from engine.settings.kinds import Listen
from engine.settings.settings import Settings

log = logging.getLogger(__name__)

MOST = 200  # connections; one address may have half
HEAD_SECONDS = 30.0  # in which the head of a request must have come
TAKE_SECONDS = 20.0  # in which its answer is to be read
LINGER = 5.0  # seconds in which the rest of a request that was refused is read
LINE_LIMIT = 8 * 1024  # bytes of a request line
FIELD_LIMIT = 32 * 1024  # bytes of a field: X-Envelope-To has many addresses
MOST_FIELDS = 64  # lines of a request's head
_BACKLOG = 128

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpIntake:
    """Listens where `[intake.http]` says; what is posted goes to the `counter`.

    One request a connection: whoever has not sent the head of it within HEAD_SECONDS is ended, and whoever has not read
    the answer within TAKE_SECONDS.
    """

    def __init__(self, counter: Counter, settings: Settings) -> None:
        self._counter = counter
        self._http = settings.intake.http
        self._servers: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None
        self._waiting: dict[web.RequestHandler, asyncio.TimerHandle] = {}
        self._here: Count[str] = Count()
        self._closing = False
        self._tokens = None if self._http.tokens is None else Tokens(self._http.tokens, settings.hostname)

    @property
    def addresses(self) -> tuple[Listen, ...]:
        """Where it listens, with the ports the system chose."""
        names = (socket.getsockname() for server in self._servers for socket in server.sockets)
        return tuple(Listen(str(name[0]), int(name[1])) for name in names)

    @property
    def lost(self) -> tuple[Listen, ...]:
        """At which addresses it should listen and does not any more."""
        pairs = zip(self._servers, self._http.listen, strict=False)
        return () if self._closing else tuple(place for server, place in pairs if not server.is_serving())

    @property
    def trouble(self) -> str:
        """Why nobody can post, or ""."""
        return self._tokens.trouble if self._tokens is not None and self._http.listen else ""

    def look(self) -> None:
        """See whether the file of tokens has changed; in any thread, for its file system may hang."""
        if self._tokens is not None and self._http.listen:
            with suppress(IntakeError):  # `trouble` says so until the file is right
                self._tokens.look()

    async def start(self) -> None:
        """Listen. Raises IntakeError, and then listens nowhere."""
        if not self._http.listen:
            return
        assert self._tokens is not None
        await asyncio.to_thread(self._tokens.look)
        context: SSLContext | None = None
        if self._http.certificate is not None:
            context = context_of(self._http.certificate, self._http.key, "intake.http")
        app = web.Application(middlewares=[web.middleware(partial(self._guard))])
        app.add_routes([web.post("/v1/messages", self._post)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        for place in self._http.listen:
            try:
                self._servers.append(await self._listen(place, context))
            except OSError as error:
                await self.stop(0)
                raise IntakeError(f"cannot listen on {place}: {clean(error.strerror or str(error), 200)}") from error

    async def stop(self, drain: float) -> None:
        """Take no more; let what is being taken end within `drain` seconds."""
        self._closing = True
        for server in self._servers:
            server.close()
        await self._counter.finish(drain)
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()
        self._servers.clear()

    async def _listen(self, place: Listen, context: SSLContext | None) -> asyncio.Server:
        more: dict[str, Any] = {}
        if context is not None:
            more = {"ssl": context, "ssl_handshake_timeout": HANDSHAKE, "ssl_shutdown_timeout": SHUTDOWN}
        return await asyncio.get_running_loop().create_server(
            self._handler, place.host, place.port, backlog=_BACKLOG, **more
        )

    # -- who comes ------------------------------------------------------------------------------------------------

    def _handler(self) -> asyncio.Protocol:
        assert self._runner is not None
        assert self._runner.server is not None
        return _Guest(
            self._runner.server,
            loop=asyncio.get_running_loop(),
            intake=self,
            access_log=None,
            logger=_quiet(),
            max_line_size=LINE_LIMIT,
            max_field_size=FIELD_LIMIT,
            max_headers=MOST_FIELDS,
            lingering_time=LINGER,
            auto_decompress=False,
        )

    def arrives(self, guest: "_Guest", transport: asyncio.Transport) -> bool:
        """Somebody has connected; False where there is no room for him."""
        key = guest.address = _key_of(transport)
        self._here[key] += 1
        self._waiting[guest] = asyncio.get_running_loop().call_later(HEAD_SECONDS, transport.abort)
        return self._here.total() <= MOST and self._here[key] <= MOST // 2

    def goes(self, guest: "_Guest") -> None:
        """He is gone."""
        self._stop_waiting(guest)
        self._here[guest.address] -= 1
        if not self._here[guest.address]:
            del self._here[guest.address]

    def _stop_waiting(self, guest: web.RequestHandler) -> None:
        if (timer := self._waiting.pop(guest, None)) is not None:
            timer.cancel()

    # -- what is asked --------------------------------------------------------------------------------------------

    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Turn everything into an answer, after which the connection ends."""
        self._stop_waiting(request.protocol)
        try:
            answer = await self._answered(request, handler)
        finally:
            transport = request.transport
            if transport is not None and not transport.is_closing():
                take = asyncio.get_running_loop().call_later(TAKE_SECONDS, transport.abort)
                self._waiting[request.protocol] = take
        answer.force_close()
        return answer

    async def _answered(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as error:
            return refusal(error)
        except web.HTTPMethodNotAllowed:
            return refusal(Problem(405, "the method is not for this path", where=request.method, allowed="POST"))
        except web.HTTPNotFound:
            return refusal(
                Problem(404, "there is no such path", where=clean(request.path, 200), allowed="/v1/messages")
            )
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            log.exception("http: a request failed")
            return refusal(Problem(500, "the relay failed to answer; its log says more"))

    async def _post(self, request: web.Request) -> web.Response:
        peer = (request.remote or "").partition("%")[0]
        if not lies_in(peer, self._http.networks):
            problem = Problem(403, "nobody may post from this address", where=peer, why="not of its networks")
            raise self._counter.refuse(problem, peer)
        token = self._token(request, peer)
        number = await self._counter.take(request, peer, login=token.login, senders=token.senders)
        return accepted(number)

    def _token(self, request: web.Request, peer: str) -> Token:
        """Whose token a request has. Raises Problem."""
        assert self._tokens is not None
        if self._tokens.trouble:
            raise Problem(503, "no token can be judged at the moment", retry=60)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        found = self._tokens.find(given.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            what = "nobody has this token" if given else "there is no token"
            problem = Problem(401, what, where="Authorization", allowed="Bearer and a token", why="token unknown")
            raise self._counter.refuse(problem, peer)
        return found


class _Guest(web.RequestHandler):
    """Somebody who is connected, as aiohttp serves him; it is known who comes and goes."""

    __slots__ = ("_intake", "address")

    def __init__(self, *given: Any, intake: HttpIntake, **more: Any) -> None:
        super().__init__(*given, **more)
        self._intake = intake
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._intake.arrives(self, transport):  # type: ignore[arg-type]  # uvloop's are of no class of asyncio
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: BaseException | None) -> None:
        self._intake.goes(self)
        super().connection_lost(exc)


class _Told(msgspec.Struct):
    """What whoever asked is told."""

    what: str
    where: str
    allowed: str


def refusal(problem: Problem) -> web.Response:
    """A problem as an answer."""
    told = _Told(clean(problem.what, 400), clean(problem.where, 200), clean(problem.allowed, 400))
    headers = {"Cache-Control": "no-store"}
    if problem.retry:
        headers["Retry-After"] = str(problem.retry)
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = msgspec.json.encode(told)
    return web.Response(status=problem.status, body=body, content_type="application/json", headers=headers)


def accepted(number: int) -> web.Response:
    """The answer once a message is on disk."""
    return web.Response(status=202, body=msgspec.json.encode({"message": number}), content_type="application/json")


def _key_of(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return address_key(str(name[0])) if isinstance(name, tuple) and name else ""


def _quiet() -> logging.Logger:
    """The log of what the HTTP server meets beneath our routes: a stranger's nonsense is no fault of ours."""
    found = logging.getLogger(f"{__name__}.http")
    found.setLevel(logging.CRITICAL)
    return found
